"""The database key in a plain file: for development, because whoever reads the file reads everything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ostiary.errors import StoreError
from ostiary.store.durable import sync_directory
from ostiary.store.keys import KEY_BYTES


class KeyFile:
    """A `Sealing` in a file of 32 raw bytes, mode 0600; a draft stands beside it as `<name>.draft`.

    Guarantees that a key read was in a regular file, not behind a symbolic link, that only its owner may read or write.
    Does not protect the key from root, from the owner, or from anyone who gets the disk or a backup of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(path.name + ".draft")

    @property
    def place(self) -> str:
        return str(self._path)

    @property
    def warning(self) -> str:
        return (
            f"the database key lies in the plain file {self._path}: whoever can read that file can read every secret "
            "in "
            "this store, so use it for development only"
        )

    def kept(self) -> bytes | None:
        return _read(self._path)

    def drafted(self) -> bytes | None:
        return _read(self._draft)

    def draft(self, random: Callable[[int], bytes]) -> bytes:
        key = random(KEY_BYTES)
        try:
            self._draft.unlink(missing_ok=True)
            _write(self._draft, key)
        except OSError as error:
            raise _failure(self._draft, error) from error
        return key

    def keep(self) -> None:
        try:
            self._draft.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise _failure(self._path, error) from error


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failure(path, error) from error
    try:
        _check(path, os.fstat(descriptor))
        return os.read(descriptor, KEY_BYTES)
    finally:
        os.close(descriptor)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"the database key {path} is not a regular file, expected a file of {KEY_BYTES} bytes")
    mode = stat.S_IMODE(status.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(
            f"the database key {path} has mode {mode:04o}, expected 0600: others may have read it; if you are sure "
            "that "
            f"nobody has, run chmod 600 {path}"
        )
    if status.st_size != KEY_BYTES:
        raise StoreError(
            f"the database key {path} has {status.st_size} bytes, expected {KEY_BYTES}: put the right file in its place"
        )


def _write(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _failure(path: Path, error: OSError) -> StoreError:
    return StoreError(f"the database key {path}: {error.strerror}: expected a file of this process's user, mode 0600")
