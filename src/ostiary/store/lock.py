"""One process a database: an exclusive lock on a file beside it, gone with the process however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ostiary.errors import StoreError


def acquire(path: Path) -> int:
    """Lock the file at `path`, made if absent, and return its descriptor; closing that releases the lock.

    The kernel holds the lock (flock), so a killed process leaves none behind; the process id in the file is only for
    messages. Raises StoreError if another holder, in this process or elsewhere, has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
        os.close(descriptor)
        raise StoreError(
            f"{path} is locked by process {holder or 'unknown'}, expected to be the only one using this database: stop "
            "that process, or give this one another data directory"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
