"""From a directory to a store: the embedded database and the place of its key, joined with care at the first start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ostiary.errors import StoreError
from ostiary.store.backend import Backend
from ostiary.store.durable import sync_directory
from ostiary.store.lock import opening
from ostiary.store.log import LeafLog
from ostiary.store.sealing import KeyFile, Sealing
from ostiary.store.sqlite import SqliteBackend
from ostiary.store.store import Store

DATABASE_NAME = "records.sqlite"
KEY_NAME = "database.key"
LOCK_NAME = DATABASE_NAME + ".lock"


def open_store(directory: Path, *, random: Callable[[int], bytes], log: LeafLog, warn: Callable[[str], None]) -> Store:
    """The store in `directory`: SQLite, and the database key in a plain file beside it, which is for development.

    The directory is made, mode 0700, if it is absent; its parent must exist. random: n bytes of a cryptographic
    generator. log: the empty audit log. warn: called at every start with a sentence for the operator about the key
    file.

    Raises StoreError if the database or the key is there without the other (a deleted database must not look like a
    first start), in use by another release, or not accessible; TamperedError if the database does not verify.
    """
    _make_directory(directory)
    sealing = KeyFile(directory / KEY_NAME)
    with opening(directory / LOCK_NAME, alone=sealing.kept() is None):
        backend = SqliteBackend(directory / DATABASE_NAME)
        try:
            store = _open(backend, sealing, random=random, log=log)
        except BaseException:
            backend.close()
            raise
    warn(sealing.warning)
    return store


def _open(backend: Backend, sealing: Sealing, *, random: Callable[[int], bytes], log: LeafLog) -> Store:
    has_head = backend.head() is not None
    kept = sealing.kept()
    if kept is not None:
        if not has_head:
            raise StoreError(
                f"the database key {sealing.place} is there but its database {backend.place} is empty or gone: "
                "restore the "
                "database, or remove the key if you mean to start anew and lose everything"
            )
        return Store.resume(backend, kept, random=random, log=log)
    drafted = sealing.drafted() if has_head else None
    if has_head and drafted is None:
        raise StoreError(
            f"the database {backend.place} is there but its key {sealing.place} is gone: restore the key, without "
            "which "
            "nobody can read the database"
        )
    if drafted is not None:
        store = Store.resume(backend, drafted, random=random, log=log)
    else:
        store = Store.begin(backend, sealing.draft(random), random=random, log=log)
    try:
        sealing.keep()
    except BaseException:
        store.close()
        raise
    return store


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700)
        sync_directory(directory.parent)
    except FileExistsError:
        _require_private(directory)
    except OSError as error:
        raise StoreError(
            f"{directory}: {error.strerror}: make its parent directory, writable for this process"
        ) from error


def _require_private(directory: Path) -> None:
    if not directory.is_dir():
        raise StoreError(f"{directory} is not a directory, expected one for the database: choose another place")
    mode = directory.stat().st_mode & 0o777
    if mode & 0o022:
        raise StoreError(
            f"{directory} has mode {mode:04o}, expected 0700: others could exchange its files; run chmod 700 "
            f"{directory}"
        )
