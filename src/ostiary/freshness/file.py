"""A file beside the database that remembers the newest head: for development, and against accidents."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ostiary.audit import Frontier
from ostiary.errors import RollbackError, StoreError
from ostiary.freshness.growth import Growth, Leaves
from ostiary.store import Head
from ostiary.store.durable import sync_directory

MAX_FILE_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class _Remembered:
    seq: int
    digest: bytes
    log_size: int
    log_root: bytes

    @classmethod
    def of(cls, head: Head) -> _Remembered:
        return cls(seq=head.seq, digest=head.digest, log_size=head.log_size, log_root=head.log_root)

    def __str__(self) -> str:
        return (
            f"head {self.seq}, digest {self.digest.hex()}, {self.log_size} leaves with the root {self.log_root.hex()}"
        )


class FileAnchor:
    """An `Anchor` in the file `path`: one JSON object with seq, digest, log_size and log_root of the newest head.

    Replaced whole (written aside, flushed, renamed), under a lock on `<path>.lock`, so that processes may share it.
    A file that is not there remembers nothing, and takes what comes first.
    Protects against a database put back by mistake. Does not protect against anyone who can write the file: what turns
    the database back can turn the file back with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trees: dict[int, Frontier] = {}

    @property
    def place(self) -> str:
        return str(self._path)

    @property
    def warning(self) -> str:
        return (
            f"the newest state of the store is remembered in the plain file {self._path}: whoever can put that file "
            "back together with the database can turn back every session unnoticed, so use it for development only"
        )

    def settle(self, head: Head, leaves: Leaves) -> None:
        """As `Anchor.settle`."""
        found = _Remembered.of(head)
        with self._locked():
            kept = self._read()
            if kept == found:
                return
            if kept is not None:
                self._require_forward(kept, found, Growth(head, leaves, self._trees))
            self._write(found)
        self._trees = {size: tree for size, tree in self._trees.items() if size == found.log_size}

    def remembered(self) -> tuple[str, ...]:
        """What the file says: one line, or none if it is not there. Raises StoreError."""
        kept = self._read()
        return () if kept is None else (str(kept),)

    def forget(self) -> None:
        """Remember nothing any more: after the owner accepted a rollback, and at no other time. Raises StoreError."""
        with self._locked():
            try:
                self._path.unlink(missing_ok=True)
                sync_directory(self._path.parent)
            except OSError as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Nothing is held between calls."""

    def _require_forward(self, kept: _Remembered, found: _Remembered, growth: Growth) -> None:
        """Raise RollbackError unless `found` is a later state of the history that `kept` is of, as far as can be told.

        The same number with another digest, a smaller number, a shorter log, or a log that began otherwise are not.
        """
        if found.seq > kept.seq and found.log_size >= kept.log_size and growth.root_at(kept.log_size) == kept.log_root:
            return
        raise RollbackError(
            f"{self._path}: expected {kept} or a later one, found {found}: this database was turned back, or goes on a "
            "history of its own; put the newest one back, or, if it is lost, have the owner accept that with `ostiary "
            "store accept-rollback`"
        )

    def _read(self) -> _Remembered | None:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(error) from error
        try:
            members = json.loads(content)
            kept = _Remembered(
                seq=int(members["seq"]),
                digest=bytes.fromhex(members["digest"]),
                log_size=int(members["log_size"]),
                log_root=bytes.fromhex(members["log_root"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._path}: expected one JSON object with seq, digest, log_size and log_root, as this program "
                "writes it: put the file back"
            ) from error
        return kept

    def _write(self, kept: _Remembered) -> None:
        members = {
            "seq": kept.seq,
            "digest": kept.digest.hex(),
            "log_size": kept.log_size,
            "log_root": kept.log_root.hex(),
        }
        draft = self._path.with_name(self._path.name + ".draft")
        try:
            with draft.open("wb") as file:
                file.write(json.dumps(members).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise self._failure(error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(
                self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise self._failure(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(f"{self._path}: {error.strerror}: expected a file and directory that this process may write")
