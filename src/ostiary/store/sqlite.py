"""The embedded backend: one SQLite file in WAL mode, every commit flushed to the disk before it returns.

The file is untrusted. Before anything is read from it, its schema must be, word for word, the one below: a trigger,
view or other constraint put there by somebody would run inside our transactions.
Settings: journal_mode=WAL, synchronous=FULL, secure_delete=ON, trusted_schema=OFF, cell_size_check=ON, no memory
mapping (Source: SQLite, "Defense Against The Dark Arts", section 1.2).

Several processes may have the file open. SQLite's locks let one of them write at a time (BEGIN IMMEDIATE), and the head
that a transaction names lets it write only on top of what it knows.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ostiary.errors import ConflictError, StoreError, TamperedError
from ostiary.store.backend import Batch, Deletion, HeadRow, LeafRow, RecordRow, Snapshot
from ostiary.store.durable import sync_directory

APPLICATION_ID = 0x4F737469  # "Osti"
SCHEMA_VERSION = 2
BUSY_SECONDS = 10.0
"""How long a transaction waits for those of other processes."""

_SCHEMA_1 = {
    "heads": "CREATE TABLE heads(seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT",
    "leaves": "CREATE TABLE leaves(position INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT",
    "records": (
        "CREATE TABLE records(id BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT"
    ),
}
_SINCE_1 = {
    "deletions": (
        "CREATE TABLE deletions(version INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (version, id)) "
        "STRICT, WITHOUT ROWID"
    ),
    "records_by_version": "CREATE INDEX records_by_version ON records(version)",
}
_SCHEMA = {**_SCHEMA_1, **_SINCE_1}
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
    """A `Backend` over one SQLite file, for any number of processes of one machine.

    Made by `SqliteBackend(path)`: the file is made, mode 0600, if it is absent; its directory must exist. A file of
    schema version 1 becomes one of version 2 in one transaction.
    Raises StoreError (not accessible, written by another program) and TamperedError (damaged, foreign schema).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader_lock = threading.Lock()
        self._writer_lock = threading.RLock()
        self._connections: list[sqlite3.Connection] = []
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        try:
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
        try:
            with self._reader_lock:
                return _head(self._reader, self.place)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def record(self, record_id: bytes) -> RecordRow | None:
        try:
            with self._reader_lock:
                row = self._reader.execute("SELECT version, sealed FROM records WHERE id = ?", (record_id,)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return None if row is None else RecordRow(record_id, _integer(row[0], self.place), _blob(row[1], self.place))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        # A connection of its own, so that readers and the writer go on meanwhile.
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield _View(connection, self.place)
            finally:
                connection.execute("ROLLBACK")
                self._idle.append(connection)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def commit(self, batch: Batch) -> None:
        with self._writer_lock:
            try:
                if not self._writer.in_transaction:
                    self._writer.execute("BEGIN IMMEDIATE")
                self._move_head(batch)
                self._change(batch)
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise self._failure(error) from error
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._writer_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._failure(error) from error
            try:
                yield
            finally:
                if self._writer.in_transaction:
                    self._roll_back()

    def compact(self) -> None:
        """Write the file anew without its free pages (VACUUM), and empty the log.

        Overwritten or given back are all bytes of rows that were deleted or replaced; what the file system and the disk
        keep of blocks given back is beyond this. Needs room for a second copy, and a moment without other writers.
        """
        with self._writer_lock:
            try:
                self._writer.execute("VACUUM")
                self._truncate_log()
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._closed = True
            self._idle.clear()
            while self._connections:
                self._connections.pop().close()

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"{self.place}: the database is closed: open it again")
        uri = f"file:{quote(str(self._path.absolute()))}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        self._connections.append(connection)
        connection.text_factory = bytes
        for setting in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "mmap_size = 0",
            "synchronous = FULL",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != b"wal":
            raise StoreError(
                f"{self.place}: the journal mode is {mode.decode()}, expected wal: put the database on a local file "
                "system"
            )
        return connection

    def _prepare(self) -> None:
        """Make the schema in an empty file, bring an older one up to date; refuse any other schema."""
        if self._is_current():
            return
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            # Again, now that nobody else can be at the same.
            if not self._is_current():
                self._bring_up_to_date()
            self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _is_current(self) -> bool:
        found = self._schema()
        marks = (self._pragma("application_id"), self._pragma("user_version"))
        if not found and marks == (0, 0):
            return False
        if marks[0] != APPLICATION_ID:
            raise StoreError(f"{self.place} is the database of another program: choose another data directory")
        if marks[1] not in (1, SCHEMA_VERSION):
            raise StoreError(
                f"{self.place} has schema version {marks[1]}, expected {SCHEMA_VERSION}: start the program that "
                "wrote it"
            )
        expected = _SCHEMA if marks[1] == SCHEMA_VERSION else _SCHEMA_1
        if found != {**expected, _AUTOMATIC_INDEX: None}:
            raise TamperedError(
                f"{self.place}: changed: the schema has been altered, expected the tables {', '.join(_SCHEMA_1)} as "
                "this program makes them; restore a backup"
            )
        return marks[1] == SCHEMA_VERSION

    def _bring_up_to_date(self) -> None:
        # Nothing that was sealed changes from version 1 to 2, so that the head vouches for it as before.
        for statement in _SINCE_1.values() if self._schema() else _SCHEMA.values():
            self._writer.execute(statement)
        self._writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _schema(self) -> dict[str, str | None]:
        return {
            name.decode(): None if sql is None else sql.decode()
            for name, sql in self._writer.execute("SELECT name, sql FROM sqlite_schema")
        }

    def _pragma(self, name: str) -> int:
        return _integer(self._writer.execute(f"PRAGMA {name}").fetchone()[0], self.place)

    def _move_head(self, batch: Batch) -> None:
        head, expected = batch.head, batch.expected
        if expected is None:
            moved = self._writer.execute(
                "INSERT INTO heads(seq, sealed) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM heads)",
                (head.seq, head.sealed),
            ).rowcount
        else:
            moved = self._writer.execute(
                "UPDATE heads SET seq = ?, sealed = ? "
                "WHERE seq = ? AND sealed = ? AND (SELECT count(*) FROM heads) = 1",
                (head.seq, head.sealed, expected.seq, expected.sealed),
            ).rowcount
        if moved != 1:
            wanted = "no head" if expected is None else f"head {expected.seq}"
            raise ConflictError(
                f"{self.place}: the database has another head than this process knows, expected {wanted}"
            )

    def _change(self, batch: Batch) -> None:
        if batch.deleted:
            self._writer.executemany("DELETE FROM records WHERE id = ?", ((row.id,) for row in batch.deleted))
            self._writer.executemany(
                "INSERT INTO deletions(version, id) VALUES (?, ?)", ((row.version, row.id) for row in batch.deleted)
            )
        if batch.forgotten:
            self._writer.execute("DELETE FROM deletions WHERE version <= ?", (batch.forgotten,))
        if batch.records:
            self._writer.executemany(
                "INSERT INTO records(id, version, sealed) VALUES (?, ?, ?) "
                "ON CONFLICT(id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
                ((row.id, row.version, row.sealed) for row in batch.records),
            )
        self._writer.executemany(
            "INSERT INTO leaves(position, sealed) VALUES (?, ?)", ((row.position, row.sealed) for row in batch.leaves)
        )

    def _roll_back(self) -> None:
        # COMMIT may have ended the transaction although it failed; then there is nothing to roll back.
        with suppress(sqlite3.Error):
            self._writer.execute("ROLLBACK")

    def _truncate_log(self) -> None:
        (busy, _, _) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(
                f"{self.place}: compacted, but others are reading, so that the log beside it still holds old bytes: "
                "try again when they have ended"
            )

    def _failure(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGED:
            return TamperedError(f"{self.place}: changed: the database file is damaged ({error}); restore a backup")
        return StoreError(f"{self.place}: {error}; {_NEXT_STEPS.get(code, 'close and open the store again')}")


_SELECT_ALL = "SELECT id, version, sealed FROM records NOT INDEXED WHERE ? = 0"
_SELECT_SINCE = "SELECT id, version, sealed FROM records INDEXED BY records_by_version WHERE version > ?"


class _View:
    """A `Snapshot`: one read transaction, which begins with the first row that is read."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self._connection = connection
        self._place = place

    def head(self) -> HeadRow | None:
        return _head(self._connection, self._place)

    def records(self, since: int = 0) -> Iterator[RecordRow]:
        # Where everything is wanted, not by way of the index, which might not name everything.
        query = _SELECT_SINCE if since else _SELECT_ALL
        for record_id, version, sealed in self._connection.execute(query, (since,)):
            yield RecordRow(_blob(record_id, self._place), _integer(version, self._place), _blob(sealed, self._place))

    def deletions(self, since: int) -> Iterator[Deletion]:
        for version, record_id in self._connection.execute(
            "SELECT version, id FROM deletions WHERE version > ?", (since,)
        ):
            yield Deletion(_blob(record_id, self._place), _integer(version, self._place))

    def leaves(self, since: int = 0) -> Iterator[LeafRow]:
        for position, sealed in self._connection.execute(
            "SELECT position, sealed FROM leaves WHERE position >= ? ORDER BY position", (since,)
        ):
            yield LeafRow(_integer(position, self._place), _blob(sealed, self._place))


def _head(connection: sqlite3.Connection, place: str) -> HeadRow | None:
    rows = connection.execute("SELECT seq, sealed FROM heads LIMIT 2").fetchall()
    if len(rows) == 1:
        return HeadRow(_integer(rows[0][0], place), _blob(rows[0][1], place))
    if rows:
        raise TamperedError(f"{place}: added: there are several heads, expected one; restore a backup")
    if connection.execute("SELECT 1 FROM records UNION ALL SELECT 1 FROM leaves LIMIT 1").fetchone():
        raise TamperedError(f"{place}: missing: there are rows without a head, expected one; restore a backup")
    return None


def _integer(value: object, place: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise TamperedError(f"{place}: changed: a row without the number that belongs there; restore a backup")
    return value


def _blob(value: object, place: str) -> bytes:
    if not isinstance(value, bytes):
        raise TamperedError(f"{place}: changed: a row without the bytes that belong there; restore a backup")
    return value


def _make_private(path: Path) -> None:
    # SQLite gives its log and index files the mode of the database file. A file that is there is not opened here: to
    # close it would release the locks that other connections of this process hold on it (POSIX advisory locks).
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
    sync_directory(path.parent)
