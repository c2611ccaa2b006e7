"""Databases as their holder sees them: rows that he reads, writes back as he likes, and copies.

Tests that take the fixture `database` run on every kind. Whoever adds a backend adds a `Database` here and its name to
the fixture.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ostiary.audit import Frontier
from ostiary.store import Anchor, Backend, Store
from ostiary.store.backend import Batch, Deletion, HeadRow, LeafRow, RecordRow, Snapshot
from ostiary.store.sqlite import SqliteBackend

KEY = bytes(range(32))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All that a database holds. records by ascending version, leaves and heads by their number."""

    records: tuple[RecordRow, ...]
    leaves: tuple[LeafRow, ...]
    heads: tuple[HeadRow, ...]
    deletions: tuple[Deletion, ...]


class Database(Protocol):
    """One database, whether or not stores have it open."""

    def backend(self) -> Backend:
        """Another connection, as of another process. Also in a child process after a fork."""

    def read(self) -> Rows:
        """What is in it."""

    def write(self, rows: Rows) -> None:
        """Make it hold exactly this, behind everybody's back, in one transaction."""

    def copy(self) -> Database:
        """Another database with the same content."""

    def settle(self) -> None:
        """Return when nothing is under way any more of what killed processes had asked for."""


class SqliteDatabase:
    """A SQLite file in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "records.sqlite"

    def backend(self) -> Backend:
        return SqliteBackend(self.path)

    def read(self) -> Rows:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            return Rows(
                records=tuple(
                    RecordRow(*row)
                    for row in connection.execute("SELECT id, version, sealed FROM records ORDER BY version, id")
                ),
                leaves=tuple(
                    LeafRow(*row) for row in connection.execute("SELECT position, sealed FROM leaves ORDER BY position")
                ),
                heads=tuple(HeadRow(*row) for row in connection.execute("SELECT seq, sealed FROM heads ORDER BY seq")),
                deletions=tuple(
                    Deletion(*row) for row in connection.execute("SELECT id, version FROM deletions ORDER BY version")
                ),
            )

    def write(self, rows: Rows) -> None:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in ("records", "leaves", "heads", "deletions"):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany(
                "INSERT INTO records(id, version, sealed) VALUES (?, ?, ?)",
                ((row.id, row.version, row.sealed) for row in rows.records),
            )
            connection.executemany(
                "INSERT INTO leaves(position, sealed) VALUES (?, ?)",
                ((row.position, row.sealed) for row in rows.leaves),
            )
            connection.executemany(
                "INSERT INTO heads(seq, sealed) VALUES (?, ?)", ((row.seq, row.sealed) for row in rows.heads)
            )
            connection.executemany(
                "INSERT INTO deletions(version, id) VALUES (?, ?)", ((row.version, row.id) for row in rows.deletions)
            )
            connection.execute("COMMIT")

    def copy(self) -> SqliteDatabase:
        number = 1
        while (directory := self.path.parent.with_name(f"{self.path.parent.name}-{number}")).exists():
            number += 1
        other = SqliteDatabase(directory)
        for suffix in ("", "-wal"):
            if self.path.with_name(self.path.name + suffix).exists():
                shutil.copy(
                    self.path.with_name(self.path.name + suffix), other.path.with_name(other.path.name + suffix)
                )
        return other

    def settle(self) -> None:
        """The engine was part of the process."""

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None)


class Interrupted:
    """The real database. The next of `before` and `after` is called around each transaction, and may raise; the next of
    `on_record` before a record is read.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []
        self.on_record: list[Callable[[], object]] = []

    @property
    def place(self) -> str:
        return self._backend.place

    def head(self) -> HeadRow | None:
        return self._backend.head()

    def record(self, record_id: bytes) -> RecordRow | None:
        if self.on_record:
            self.on_record.pop(0)()
        return self._backend.record(record_id)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        return self._backend.snapshot()

    def commit(self, batch: Batch) -> None:
        if self.before:
            self.before.pop(0)()
        self._backend.commit(batch)
        if self.after:
            self.after.pop(0)()

    def turn(self) -> AbstractContextManager[None]:
        return self._backend.turn()

    def compact(self) -> None:
        self._backend.compact()

    def close(self) -> None:
        self._backend.close()


def begin(database: Database, *, anchor: Anchor | None = None, max_lag_seconds: float = 0.0) -> Store:
    """A store of a new history."""
    backend = database.backend()
    try:
        return Store.begin(
            backend, KEY, random=os.urandom, log=Frontier(), anchor=anchor, max_lag_seconds=max_lag_seconds
        )
    except BaseException:
        backend.close()
        raise


def resume(database: Database, *, anchor: Anchor | None = None, max_lag_seconds: float = 0.0) -> Store:
    """A store of the history that is there, as in another process."""
    return over(database.backend(), anchor=anchor, max_lag_seconds=max_lag_seconds)


def over(backend: Backend, *, anchor: Anchor | None = None, max_lag_seconds: float = 0.0) -> Store:
    """As `resume`, over a backend of the test's own."""
    try:
        return Store.resume(
            backend, KEY, random=os.urandom, log=Frontier(), anchor=anchor, max_lag_seconds=max_lag_seconds
        )
    except BaseException:
        backend.close()
        raise
