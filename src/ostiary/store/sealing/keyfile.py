"""The database key in a plain file: for development, because whoever reads the file reads everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ostiary.store.keys import KEY_BYTES
from ostiary.store.sealing.drafted import DraftedFile


class KeyFile:
    """A `Sealing` in a file of 32 raw bytes.

    Does not protect the key from root, from the owner, or from anyone who gets the disk or a backup of it.
    """

    def __init__(self, path: Path) -> None:
        self._file = DraftedFile(path, what="the database key", size=KEY_BYTES)

    @property
    def place(self) -> str:
        return str(self._file.path)

    @property
    def warning(self) -> str:
        return (
            f"the database key lies in the plain file {self.place}: whoever can read that file can read every secret "
            "in this store, so use it for development only"
        )

    def kept(self) -> bytes | None:
        return self._file.kept()

    def drafted(self) -> bytes | None:
        return self._file.drafted()

    def draft(self, random: Callable[[int], bytes]) -> bytes:
        key = random(KEY_BYTES)
        self._file.draft(key)
        return key

    def keep(self) -> None:
        self._file.keep()
