"""From a directory to a store: the embedded database and the place of its key, joined with care at the first start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ostiary.errors import StoreError
from ostiary.store.backend import Backend
from ostiary.store.durable import sync_directory
from ostiary.store.freshness import Anchor
from ostiary.store.lock import opening
from ostiary.store.log import LeafLog
from ostiary.store.sealing import KeyFile, Sealing
from ostiary.store.sqlite import SqliteBackend
from ostiary.store.store import Store

DATABASE_NAME = "records.sqlite"
KEY_NAME = "database.key"
LOCK_NAME = DATABASE_NAME + ".lock"


def open_store(
    directory: Path,
    *,
    random: Callable[[int], bytes],
    log: LeafLog,
    warn: Callable[[str], None],
    sealing: Sealing | None = None,
    open_backend: Callable[[], Backend] | None = None,
    make_anchor: Callable[[bytes], Anchor] | None = None,
    max_lag_seconds: float = 0.0,
) -> Store:
    """The store whose key is kept in `directory`, and whose database lies there too unless `open_backend` says where.

    The directory is made, mode 0700, if it is absent; its parent must exist. random: n bytes of a cryptographic
    generator. log: the empty audit log. warn: called at every start with sentences for the operator.
    sealing: what keeps the database key; None: a plain file, which is for development. open_backend: connects to the
    database; None: SQLite. make_anchor: from the database key to the anchor; None: none.
    max_lag_seconds: as `Store.resume`.

    Raises StoreError if the database or the key is there without the other (a deleted database must not look like a
    first start), in use by another release, or not accessible; TamperedError if the database does not verify;
    RollbackError if the anchor remembers more.
    """
    _make_directory(directory)
    sealing = sealing or KeyFile(directory / KEY_NAME)
    kept = sealing.kept()
    with opening(directory / LOCK_NAME, alone=kept is None):
        # While we waited to be alone, another process may have made the store.
        kept = kept or sealing.kept()
        backend = open_backend() if open_backend else SqliteBackend(directory / DATABASE_NAME)
        opened = _Opening(
            backend, sealing, random=random, log=log, make_anchor=make_anchor, max_lag_seconds=max_lag_seconds
        )
        try:
            store = opened.store(kept)
        except BaseException:
            opened.close()
            raise
    for sentence in (sealing.warning, opened.anchor.warning if opened.anchor else ""):
        if sentence:
            warn(sentence)
    return store


class _Opening:
    """What a store is made of, until it is made and owns it."""

    def __init__(
        self,
        backend: Backend,
        sealing: Sealing,
        *,
        random: Callable[[int], bytes],
        log: LeafLog,
        make_anchor: Callable[[bytes], Anchor] | None,
        max_lag_seconds: float,
    ) -> None:
        self._backend = backend
        self._sealing = sealing
        self._random = random
        self._log = log
        self._make_anchor = make_anchor
        self._max_lag_seconds = max_lag_seconds
        self.anchor: Anchor | None = None

    def store(self, kept: bytes | None) -> Store:
        """kept: the key that the sealing keeps."""
        has_head = self._backend.head() is not None
        if kept is not None:
            if not has_head:
                raise StoreError(
                    f"the database key {self._sealing.place} is there but its database {self._backend.place} is empty "
                    "or gone: restore the database, or remove the key if you mean to start anew and lose everything"
                )
            return self._resume(kept)
        drafted = self._sealing.drafted() if has_head else None
        if has_head and drafted is None:
            raise StoreError(
                f"the database {self._backend.place} is there but its key {self._sealing.place} is gone: restore the "
                "key, without which nobody can read the database"
            )
        store = self._begin(self._sealing.draft(self._random)) if drafted is None else self._resume(drafted)
        try:
            self._sealing.keep()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        self._backend.close()
        if self.anchor is not None:
            self.anchor.close()

    def _begin(self, key: bytes) -> Store:
        return Store.begin(
            self._backend,
            key,
            random=self._random,
            log=self._log,
            anchor=self._anchor_for(key),
            max_lag_seconds=self._max_lag_seconds,
        )

    def _resume(self, key: bytes) -> Store:
        return Store.resume(
            self._backend,
            key,
            random=self._random,
            log=self._log,
            anchor=self._anchor_for(key),
            max_lag_seconds=self._max_lag_seconds,
        )

    def _anchor_for(self, key: bytes) -> Anchor | None:
        if self._make_anchor is not None:
            self.anchor = self._make_anchor(key)
        return self.anchor


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
