"""A small private file that comes into being in two steps: a draft, and later, by renaming it, the file itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ostiary.errors import StoreError
from ostiary.store.durable import sync_directory


class DraftedFile:
    """The file at `path`, mode 0600; a draft stands beside it as `<name>.draft`.

    what: how messages call it. size: its only length in bytes; None: anything up to MAX_BYTES, and not empty.
    Guarantees that what is read was in a regular file, not behind a symbolic link, that only its owner may read or
    write, and that what was written or kept survives a loss of power. All methods raise StoreError.
    """

    MAX_BYTES = 16 * 1024

    def __init__(self, path: Path, *, what: str, size: int | None) -> None:
        self.path = path
        self._draft = path.with_name(path.name + ".draft")
        self._what = what
        self._size = size

    def kept(self) -> bytes | None:
        """The content of the file; None if there is none."""
        return self._read(self.path)

    def drafted(self) -> bytes | None:
        """The content of the draft; None if there is none."""
        return self._read(self._draft)

    def draft(self, content: bytes) -> None:
        """Write a draft in place of any other."""
        try:
            self._draft.unlink(missing_ok=True)
            _write(self._draft, content)
        except OSError as error:
            raise self._failure(self._draft, error) from error

    def keep(self) -> None:
        """Turn the draft into the file, in place of any other."""
        try:
            self._draft.rename(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise self._failure(self.path, error) from error

    def _read(self, path: Path) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(path, error) from error
        try:
            self._check(path, os.fstat(descriptor))
            return os.read(descriptor, self.MAX_BYTES)
        finally:
            os.close(descriptor)

    def _check(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{self._what} {path} is not a regular file, expected a file of {self._bytes}")
        mode = stat.S_IMODE(status.st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StoreError(
                f"{self._what} {path} has mode {mode:04o}, expected 0600: others may have read it; if you are sure "
                f"that nobody has, run chmod 600 {path}"
            )
        size = status.st_size
        if size != self._size and not (self._size is None and 0 < size <= self.MAX_BYTES):
            raise StoreError(
                f"{self._what} {path} has {size} bytes, expected {self._bytes}: put the right file in its place"
            )

    @property
    def _bytes(self) -> str:
        return f"1 to {self.MAX_BYTES} bytes" if self._size is None else f"{self._size} bytes"

    def _failure(self, path: Path, error: OSError) -> StoreError:
        return StoreError(f"{self._what} {path}: {error.strerror}: expected a file of this process's user, mode 0600")


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)
