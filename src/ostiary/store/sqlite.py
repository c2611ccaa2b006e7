"""The embedded backend: one SQLite file in WAL mode, every commit flushed to the disk before it returns.

The file is untrusted. Before anything is read from it, its schema must be, word for word, the one below: a trigger,
view or other constraint put there by somebody would run inside our transactions.
Settings: journal_mode=WAL, synchronous=FULL, trusted_schema=OFF, cell_size_check=ON, no memory mapping
(Source: SQLite, "Defense Against The Dark Arts", section 1.2).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ostiary.errors import ConflictError, StoreError, TamperedError
from ostiary.store.backend import Batch, HeadRow, LeafRow, RecordRow
from ostiary.store.durable import sync_directory
from ostiary.store.lock import acquire

APPLICATION_ID = 0x4F737469  # "Osti"
SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0

_SCHEMA = {
    "heads": "CREATE TABLE heads(seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT",
    "leaves": "CREATE TABLE leaves(position INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT",
    "records": (
        "CREATE TABLE records(id BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT"
    ),
}
_AUTOMATIC_INDEX = "sqlite_autoindex_records_1"

_NEXT_STEPS = {
    sqlite3.SQLITE_FULL: "make room on its file system and try again",
    sqlite3.SQLITE_BUSY: "another program holds the database open for writing; stop it and try again",
    sqlite3.SQLITE_READONLY: "give this process write access to the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "give this process access to the file and its directory",
    sqlite3.SQLITE_PERM: "give this process access to the file and its directory",
    sqlite3.SQLITE_IOERR: "look at the kernel log for the state of the disk, and try again",
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}


class SqliteBackend:
    """A `Backend` over one SQLite file, held by one process at a time (lock file `<name>.lock` beside it).

    Made by `SqliteBackend(path)`: the file is made, mode 0600, if it is absent; its directory must exist.
    Raises StoreError (in use, not accessible, written by another program) and TamperedError (damaged, foreign schema).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = -1
        self._reader_lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        try:
            self._lock = acquire(path.with_name(path.name + ".lock"))
            _make_private(path)
            self._writer = self._connect()
            self._prepare()
            self._reader = self._connect()
        except sqlite3.Error as error:
            self.close()
            raise self._failure(error) from error
        except OSError as error:
            self.close()
            raise StoreError(
                f"{path}: {error.strerror}: give this process access to the file and its directory"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        return str(self._path)

    def head(self) -> HeadRow | None:
        rows = self._read("SELECT seq, sealed FROM heads LIMIT 2")
        if not rows:
            if self._read("SELECT 1 FROM records LIMIT 1") or self._read("SELECT 1 FROM leaves LIMIT 1"):
                raise TamperedError(
                    f"{self.place}: missing: there are rows without a head, expected one; restore a backup"
                )
            return None
        if len(rows) > 1:
            raise TamperedError(f"{self.place}: added: there are several heads, expected one; restore a backup")
        return HeadRow(self._integer(rows[0][0]), self._blob(rows[0][1]))

    def record(self, record_id: bytes) -> RecordRow | None:
        rows = self._read("SELECT version, sealed FROM records WHERE id = ?", (record_id,))
        if not rows:
            return None
        return RecordRow(record_id, self._integer(rows[0][0]), self._blob(rows[0][1]))

    def records(self) -> Iterator[RecordRow]:
        for record_id, version, sealed in self._scan("SELECT id, version, sealed FROM records"):
            yield RecordRow(self._blob(record_id), self._integer(version), self._blob(sealed))

    def leaves(self) -> Iterator[LeafRow]:
        for position, sealed in self._scan("SELECT position, sealed FROM leaves ORDER BY position"):
            yield LeafRow(self._integer(position), self._blob(sealed))

    def commit(self, batch: Batch) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._move_head(batch)
            self._writer.executemany("DELETE FROM records WHERE id = ?", ((record_id,) for record_id in batch.deleted))
            self._writer.executemany(
                "INSERT INTO records(id, version, sealed) VALUES (?, ?, ?) "
                "ON CONFLICT(id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
                ((row.id, row.version, row.sealed) for row in batch.records),
            )
            self._writer.executemany(
                "INSERT INTO leaves(position, sealed) VALUES (?, ?)",
                ((row.position, row.sealed) for row in batch.leaves),
            )
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._failure(error) from error
        except BaseException:
            self._roll_back()
            raise

    def close(self) -> None:
        with self._reader_lock:
            while self._connections:
                self._connections.pop().close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        self._connections.append(connection)
        connection.text_factory = bytes
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != b"wal":
            raise StoreError(
                f"{self.place}: the journal mode is {mode.decode()}, expected wal: put the database on a local file "
                "system"
            )
        return connection

    def _prepare(self) -> None:
        """Make the schema in an empty file; refuse any other schema."""
        found = {
            name.decode(): None if sql is None else sql.decode()
            for name, sql in self._writer.execute("SELECT name, sql FROM sqlite_schema")
        }
        marks = (self._pragma("application_id"), self._pragma("user_version"))
        if not found and marks == (0, 0):
            self._create()
            return
        if marks[0] != APPLICATION_ID:
            raise StoreError(f"{self.place} is the database of another program: choose another data directory")
        if marks[1] != SCHEMA_VERSION:
            raise StoreError(
                f"{self.place} has schema version {marks[1]}, expected {SCHEMA_VERSION}: start the program that "
                "wrote it"
            )
        if found != {**_SCHEMA, _AUTOMATIC_INDEX: None}:
            raise TamperedError(
                f"{self.place}: changed: the schema has been altered, expected the tables {', '.join(_SCHEMA)} as this "
                "program makes them; restore a backup"
            )

    def _create(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.values():
            self._writer.execute(statement)
        self._writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._writer.execute("COMMIT")

    def _pragma(self, name: str) -> int:
        return self._integer(self._writer.execute(f"PRAGMA {name}").fetchone()[0])

    def _move_head(self, batch: Batch) -> None:
        head, expected = batch.head, batch.expected
        if expected is None:
            moved = self._writer.execute(
                "INSERT INTO heads(seq, sealed) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM heads)",
                (head.seq, head.sealed),
            ).rowcount
        else:
            moved = self._writer.execute(
                "UPDATE heads SET seq = ?, sealed = ? WHERE seq = ? AND sealed = ?",
                (head.seq, head.sealed, expected.seq, expected.sealed),
            ).rowcount
        if moved != 1:
            wanted = "no head" if expected is None else f"head {expected.seq}"
            raise ConflictError(
                f"{self.place}: the database has another head than this process knows, expected {wanted}"
            )

    def _roll_back(self) -> None:
        # COMMIT may have ended the transaction although it failed; then there is nothing to roll back.
        with suppress(sqlite3.Error):
            self._writer.execute("ROLLBACK")

    def _read(self, query: str, parameters: tuple[bytes, ...] = ()) -> list[tuple[object, ...]]:
        try:
            with self._reader_lock:
                return self._reader.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _scan(self, query: str) -> Iterator[tuple[object, ...]]:
        """Rows of one snapshot, over a connection of its own, so that readers and the writer go on meanwhile."""
        try:
            connection = self._connect()
            try:
                yield from connection.execute(query)
            finally:
                self._connections.remove(connection)
                connection.close()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGED:
            return TamperedError(f"{self.place}: changed: the database file is damaged ({error}); restore a backup")
        return StoreError(f"{self.place}: {error}; {_NEXT_STEPS.get(code, 'close and open the store again')}")

    def _integer(self, value: object) -> int:
        if not isinstance(value, int) or value < 0:
            raise TamperedError(f"{self.place}: changed: a row without the number that belongs there; restore a backup")
        return value

    def _blob(self, value: object) -> bytes:
        if not isinstance(value, bytes):
            raise TamperedError(f"{self.place}: changed: a row without the bytes that belong there; restore a backup")
        return value


def _make_private(path: Path) -> None:
    # SQLite gives its log and index files the mode of the database file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    sync_directory(path.parent)
