"""Who may open a database file together: a lock on a file beside it, gone with the process however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ostiary.errors import StoreError

WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.02


@contextmanager
def opening(path: Path, *, alone: bool) -> Iterator[None]:
    """Hold the file at `path`, made if absent: alone for a first start, together with others for a later one.

    A process of schema version 1 holds it alone for as long as it runs, so that no newer one can change the schema
    under it. The kernel holds the lock (flock), so a killed process leaves none behind; the process id in the file,
    written by those who are alone, is only for messages. Raises StoreError after WAIT_SECONDS.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: give this process access to the file and its directory") from error
    try:
        _lock(descriptor, path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        os.ftruncate(descriptor, 0)
        if alone:
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, operation: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not _try_lock(descriptor, operation):
        if time.monotonic() >= deadline:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
            raise StoreError(
                f"{path} is locked by process {holder or 'unknown'}, which makes the database or is a release that "
                "shares it with nobody: wait until it has started, or stop it"
            )
        time.sleep(_POLL_SECONDS)


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
