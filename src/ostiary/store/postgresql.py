"""The distributed backend: one schema of a PostgreSQL database, shared by CAS processes on several hosts.

The database is untrusted. What keeps the history linear is that a batch and its head are one SERIALIZABLE transaction,
whose first statement moves the one head row by comparison: of two writers one waits for the other's row lock and then
finds another head. docs/adr/0019 has the reasons.

What may hang ends by itself: a connection attempt after CONNECT_SECONDS, unless the connection string says otherwise;
anything else as `Timeouts` says, even if the server is stopped or cut off.

Invariants:
  - `_writer` is used under `_writing`, and is between transactions whenever that is free; `_in_turn` tells whether its
    transaction was begun by `turn`;
  - a connection in `_idle` is between transactions and in nobody else's hands;
  - `_lost_commit` is set from the moment when a transaction may have been committed without an answer until its end
    was waited for: `head` tells nothing before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8

from ostiary.errors import ConfigurationError, ConflictError, StoreError, TamperedError
from ostiary.store.backend import Batch, Deletion, HeadRow, LeafRow, RecordRow
from ostiary.store.postgresql_schema import prepare

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 40
LOCK_SECONDS = 30
IDLE_SECONDS = 20
ANSWER_SECONDS = 50
WAKE_SECONDS = 0.1
"""How often a wait looks whether the process was interrupted."""
COMPACT_SECONDS = 3600
COMPACT_LOCK_SECONDS = 3
MAX_READERS = 16
"""Reads at the same time, each on a connection, which is kept for the next. One more is for writing, one a snapshot."""
MAX_FETCHED_ROWS = 4096
MAX_FETCHED_BYTES = 4 * 1024 * 1024
"""Of one round trip of a scan, as long as sizes do not jump; the rows before decide how many are fetched next."""
MAX_SAID_CHARACTERS = 300
MIN_SERVER_VERSION = 130000
DEFAULT_SCHEMA = "ostiary"

_PLACE = ("host", "hostaddr", "port", "dbname", "service")
_DEFAULTS: Mapping[str, str | int] = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": ANSWER_SECONDS * 1000,
    "target_session_attrs": "read-write",
    "fallback_application_name": "ostiary",
}
_VACUUM: tuple[LiteralString, ...] = (
    "VACUUM (FULL, ANALYZE) {schema}.heads",
    "VACUUM (FULL, ANALYZE) {schema}.records",
    "VACUUM (FULL, ANALYZE) {schema}.leaves",
    "VACUUM (FULL, ANALYZE) {schema}.deletions",
)
_FIRST_FETCH_ROWS = 16

_CONFLICT = "40001"
_DAMAGED = frozenset(
    {"23502", "23503", "23505", "23514", "42703", "42804", "42883", "42P01", "3F000", "XX001", "XX002"}
)
"""Constraints, schema and files that are not as this program made them."""
# By the whole code, else by its class.
_NEXT_STEPS = {
    "25P03": "this process was silent for too long while it held the head; look at its load and anchor, and try again",
    "25": "name the server that takes writes",
    "28": "give this process the right user and password, best in a password file",
    "3D": "make the database, or name another one",
    "42": "make the database user the owner of the schema and its tables",
    "53": "make room at the server and try again",
    "55": "another process holds the head for long; look at it and try again",
    "57": "look whether the server is overloaded or stopping, and try again",
}
_UNREACHED = "look whether the server runs, whether user, password and TLS options are right, and try again"

Row = tuple[object, ...]
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """In seconds. statement: after which the server ends one. lock: how long one waits for another's transaction.

    idle: after which the server ends a transaction whose writer has become silent; less than `lock`, so that nobody
    fails for it. answer: after which we give up a connection that owes us an answer; more than all others.
    """

    statement: int = STATEMENT_SECONDS
    lock: int = LOCK_SECONDS
    idle: int = IDLE_SECONDS
    answer: int = ANSWER_SECONDS


_WRITING = Timeouts()
_COMPACTING = Timeouts(
    statement=COMPACT_SECONDS, lock=COMPACT_LOCK_SECONDS, answer=COMPACT_SECONDS + ANSWER_SECONDS - STATEMENT_SECONDS
)


class _Connection(psycopg.Connection[Row]):
    """A connection on which no answer takes longer than `answer_seconds`; after that it is closed."""

    answer_seconds = float(ANSWER_SECONDS)

    def wait(self, gen: PQGen[Answer], interval: float = WAKE_SECONDS, timeout: float | None = None) -> Answer:
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.OperationalError as error:
            # Nobody answered, in time or at all: whatever state such a connection is in, it is of no more use.
            if error.sqlstate is None:
                self.close()
            raise


class _Snapshot:
    """A `Snapshot` over one REPEATABLE READ, READ ONLY transaction."""

    def __init__(self, connection: _Connection, rows: _Rows) -> None:
        self._connection = connection
        self._rows = rows
        self._names = count()

    def head(self) -> HeadRow | None:
        with self._rows.failures():
            return self._rows.head(self._connection)

    def records(self, since: int = 0) -> Iterator[RecordRow]:
        query: LiteralString = "SELECT id, version, sealed FROM {schema}.records"
        # Without a condition the server reads the table in its order on disk.
        for record_id, version, sealed in self._scan(query + (" WHERE version > %s" if since else ""), since):
            yield RecordRow(self._rows.blob(record_id), self._rows.integer(version), self._rows.blob(sealed))

    def deletions(self, since: int) -> Iterator[Deletion]:
        for record_id, version in self._scan("SELECT id, version FROM {schema}.deletions WHERE version > %s", since):
            yield Deletion(self._rows.blob(record_id), self._rows.integer(version))

    def leaves(self, since: int = 0) -> Iterator[LeafRow]:
        query: LiteralString = "SELECT position, sealed FROM {schema}.leaves WHERE position >= %s ORDER BY position"
        for position, sealed in self._scan(query, since):
            yield LeafRow(self._rows.integer(position), self._rows.blob(sealed))

    def _scan(self, query: LiteralString, since: int) -> Iterator[Row]:
        """The rows, through a cursor of the server, in pieces that become as large as the rows before allow."""
        with self._rows.failures():
            cursor = self._connection.cursor(f"scan_{next(self._names)}")
            try:
                cursor.execute(self._rows.statement(query), (since,) if "%s" in query else (), binary=True)
                wanted = _FIRST_FETCH_ROWS
                while rows := cursor.fetchmany(wanted):
                    yield from rows
                    largest = max(sum(len(cell) for cell in row if isinstance(cell, bytes)) for row in rows)
                    wanted = max(1, min(2 * wanted, MAX_FETCHED_ROWS, MAX_FETCHED_BYTES // (largest + 1)))
            finally:
                # There is none to close on a connection that was lost.
                with suppress(psycopg.Error):
                    cursor.close()


_HEAD: LiteralString = "SELECT seq, sealed FROM {schema}.heads LIMIT 2"
_HEAD_OR_ROWS: LiteralString = (
    "SELECT seq, sealed FROM {schema}.heads UNION ALL "
    "SELECT NULL, NULL WHERE NOT EXISTS (SELECT FROM {schema}.heads) "
    "AND (EXISTS (SELECT FROM {schema}.records) OR EXISTS (SELECT FROM {schema}.leaves)) LIMIT 2"
)


class _Rows:
    """What both the backend and a snapshot know: the schema's name, the shape of rows, and what failures mean."""

    def __init__(self, place: str, schema: str) -> None:
        self.place = place
        self._schema = schema
        self._statements: dict[str, bytes] = {}

    def statement(self, query: LiteralString) -> bytes:
        """The query with the name of the schema in it."""
        composed = self._statements.get(query)
        if composed is None:
            names = {"schema": sql.Identifier(self._schema), "name": sql.Literal(self._schema)}
            composed = self._statements[query] = sql.SQL(query).format(**names).as_bytes()
        return composed

    def head(self, connection: _Connection) -> HeadRow | None:
        """The head. That there is none is found in one statement with the absence of everything else."""
        rows = connection.execute(self.statement(_HEAD), binary=True).fetchall()
        if not rows:
            rows = connection.execute(self.statement(_HEAD_OR_ROWS), binary=True).fetchall()
        if not rows:
            return None
        if rows == [(None, None)]:
            raise TamperedError(f"{self.place}: missing: there are rows without a head, expected one; restore a backup")
        if len(rows) > 1:
            raise TamperedError(f"{self.place}: added: there are several heads, expected one; restore a backup")
        return HeadRow(self.integer(rows[0][0]), self.blob(rows[0][1]))

    def integer(self, value: object) -> int:
        """A number of a row. Raises TamperedError for what is none, or below zero."""
        if not isinstance(value, int) or value < 0:
            raise TamperedError(f"{self.place}: changed: a row without the number that belongs there; restore a backup")
        return value

    def blob(self, value: object) -> bytes:
        """Bytes of a row. Raises TamperedError for what is none."""
        if not isinstance(value, bytes):
            raise TamperedError(f"{self.place}: changed: a row without the bytes that belong there; restore a backup")
        return value

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turns what psycopg raises within the block into our own errors."""
        try:
            yield
        except psycopg.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: psycopg.Error) -> StoreError | ConflictError:
        code = error.sqlstate
        said = _one_line(error.diag.message_primary or str(error))
        if code == _CONFLICT:
            return ConflictError(f"{self.place}: another process moved the head at the same time: read it again")
        if code in _DAMAGED:
            return TamperedError(
                f"{self.place}: changed: the database is damaged or its schema altered ({said}); restore a backup"
            )
        if code is None:
            return StoreError(f"{self.place}: {said}; {_UNREACHED}")
        step = _NEXT_STEPS.get(code) or _NEXT_STEPS.get(code[:2], "look at the log of the server")
        return StoreError(f"{self.place}: {said} ({code}); {step}")


class PostgresqlBackend:
    """A `Backend` over the tables in one schema of a PostgreSQL database; any number of processes may use it.

    Made by `PostgresqlBackend(conninfo)`. conninfo: a libpq connection string, TLS options included; a password is
    better left to a password file. schema: its name. create: whether to make schema and tables where there are none.
    timeouts: for what may hang.
    Raises ConfigurationError (a malformed conninfo), StoreError (not reachable, refused, a server whose settings lose
    commits, another program's schema) and TamperedError (an altered schema).
    """

    def __init__(
        self, conninfo: str, *, schema: str = DEFAULT_SCHEMA, create: bool = True, timeouts: Timeouts = _WRITING
    ) -> None:
        parameters = _parse(conninfo)
        self._conninfo = make_conninfo("", **{**_DEFAULTS, **parameters})
        self._rows = _Rows(_place(parameters, schema), schema)
        self._idle: deque[_Connection] = deque()
        self._readers = threading.BoundedSemaphore(MAX_READERS)
        self._writing = threading.RLock()
        self._in_turn = False
        self._writer: _Connection | None = None
        self._writing_timeouts = timeouts
        # A reader may take its time between the pieces of a scan: it holds up nobody.
        self._reading_timeouts = replace(timeouts, idle=0)
        self._lost_commit = False
        self._closed = False
        with self._rows.failures():
            connection = self._connect(self._reading_timeouts)
            try:
                prepare(connection, schema, self.place, create=create)
            except BaseException:
                connection.close()
                raise
        self._give_back(connection)

    @property
    def place(self) -> str:
        return self._rows.place

    def head(self) -> HeadRow | None:
        if self._lost_commit:
            self._await_lost_commit()
        return self._read(self._rows.head)

    def record(self, record_id: bytes) -> RecordRow | None:
        query = self._rows.statement("SELECT version, sealed FROM {schema}.records WHERE id = %b LIMIT 2")
        rows = self._read(lambda connection: connection.execute(query, (record_id,), binary=True).fetchall())
        if len(rows) > 1:
            raise TamperedError(f"{self.place}: added: there are several records with one id; restore a backup")
        return RecordRow(record_id, self._rows.integer(rows[0][0]), self._rows.blob(rows[0][1])) if rows else None

    @contextmanager
    def snapshot(self) -> Iterator[_Snapshot]:
        with self._rows.failures():
            connection, _ = self._with_reader(_begin_snapshot)
        try:
            yield _Snapshot(connection, self._rows)
        finally:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            self._give_back(connection)

    def commit(self, batch: Batch) -> None:
        with self._writing, self._rows.failures():
            try:
                self._finish(self._begin(batch), batch)
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._writing:
            with self._rows.failures():
                self._take_turn()
            # Its lock waited for every writer, and would make a look for one that was lost wait for ourselves.
            self._lost_commit = False
            try:
                yield
            finally:
                if self._in_turn:
                    self._roll_back()

    def compact(self) -> None:
        """Write each table anew without what was deleted or replaced (VACUUM FULL), and give the old files up.

        Beyond this is what the server's log, replicas and backups keep, and the file system of blocks given back. Needs
        room for a second copy of a table. Others wait for the table that is being written; if somebody is reading it
        for longer than COMPACT_LOCK_SECONDS this fails, for whoever comes later would wait as well.
        """
        with self._rows.failures():
            connection = self._connect(_COMPACTING)
            try:
                for query in _VACUUM:
                    connection.execute(self._rows.statement(query))
            finally:
                connection.close()

    def disk_bytes(self) -> int:
        """What tables and indexes take at the server, in bytes."""
        query = self._rows.statement(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = {name}"
        )
        ((found,),) = self._read(lambda connection: connection.execute(query).fetchall())
        return self._rows.integer(found)

    def close(self) -> None:
        self._closed = True
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self._close_idle()

    def _connect(self, timeouts: Timeouts) -> _Connection:
        """A new connection between transactions, whose settings hold."""
        if self._closed:
            raise StoreError(f"{self.place}: the database is closed: open it again")
        connection = _Connection.connect(self._conninfo, autocommit=True)
        connection.answer_seconds = timeouts.answer
        try:
            _configure(connection, self.place, timeouts)
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, read: Callable[[_Connection], Answer]) -> Answer:
        # Only reads that end by themselves take turns; whoever holds a snapshot may read besides.
        if not self._readers.acquire(timeout=self._reading_timeouts.answer):
            raise StoreError(f"{self.place}: {MAX_READERS} reads are waiting for the database already: try again later")
        try:
            with self._rows.failures():
                connection, answer = self._with_reader(read)
            self._give_back(connection)
            return answer
        finally:
            self._readers.release()

    def _with_reader(self, read: Callable[[_Connection], Answer]) -> tuple[_Connection, Answer]:
        """A connection and what `read` returned on it, which is tried again on a new one if an idle one had died."""
        while True:
            try:
                connection, fresh = self._idle.pop(), False
            except IndexError:
                connection, fresh = self._connect(self._reading_timeouts), True
            try:
                return connection, read(connection)
            except BaseException as error:
                died = connection.closed and isinstance(error, psycopg.OperationalError)
                self._give_back(connection)
                if fresh or not died:
                    raise
                # What ended one connection, such as a restart of the server, ended all.
                self._close_idle()

    def _give_back(self, connection: _Connection) -> None:
        between = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
        if between and not self._closed and len(self._idle) < MAX_READERS:
            self._idle.append(connection)
        else:
            connection.close()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take_turn(self) -> None:
        # Before a LOCK a transaction sees nothing yet, so it sees the head that the writer before has left.
        query = self._rows.statement(_TURN)
        if self._writer is None or self._writer.closed:
            self._writer = self._connect(self._writing_timeouts)
        try:
            psycopg.ClientCursor(self._writer).execute(query)
        except BaseException:
            self._roll_back()
            raise
        self._in_turn = True

    def _begin(self, batch: Batch) -> _Connection:
        """The connection of the transaction that has moved the head. Raises ConflictError for another head.

        Without a COMMIT nothing can have changed, so it is tried again if the connection had died since the last one.
        """
        if self._writer is not None and self._in_turn:
            return self._move_head(self._writer, batch)
        if self._writer is not None:
            try:
                return self._move_head(self._writer, batch)
            except psycopg.OperationalError:
                if not self._writer.closed:
                    raise
        self._writer = self._connect(self._writing_timeouts)
        return self._move_head(self._writer, batch)

    def _move_head(self, writer: _Connection, batch: Batch) -> _Connection:
        begin: LiteralString = "" if self._in_turn else _BEGIN
        query, parameters = _head_change(batch)
        # Both statements in one message. A pipeline would do that too, but after one the server's idle timer stands
        # still while the head is held.
        cursor = psycopg.ClientCursor(writer)
        try:
            cursor.execute(self._rows.statement(begin + query), parameters)
            if begin:
                cursor.nextset()
            moved = cursor.rowcount
        except psycopg.errors.UniqueViolation:
            moved = 0
        if moved != 1:
            wanted = "no head" if batch.expected is None else f"head {batch.expected.seq}"
            raise ConflictError(
                f"{self.place}: the database has another head than this process knows, expected {wanted}"
            )
        return writer

    def _finish(self, writer: _Connection, batch: Batch) -> None:
        """Write the rows and commit, in one round trip."""
        try:
            with writer.pipeline():
                if changes := _row_changes(batch):
                    writer.execute(self._rows.statement(changes[0]), changes[1])
                ended = writer.execute("COMMIT")
        except psycopg.Error:
            # An error that the server answered ended the transaction; without an answer it may have been committed.
            self._lost_commit = writer.closed
            raise
        except BaseException:
            self._lost_commit = True
            raise
        # A transaction that had failed already is rolled back by COMMIT, without an error.
        self._in_turn = False
        if ended.statusmessage != "COMMIT":
            raise StoreError(f"{self.place}: the server did not commit: look at its log and try again")

    def _roll_back(self) -> None:
        self._in_turn = False
        if self._writer is None:
            return
        try:
            self._writer.execute("ROLLBACK")
        except psycopg.Error:
            self._writer.close()
            self._writer = None

    def _await_lost_commit(self) -> None:
        """Return when no transaction of another connection holds the head any more.

        Else a commit whose connection was lost could still come to its end at the server, after the head was read.
        """
        with self._writing, self._rows.failures():
            connection = self._connect(self._reading_timeouts)
            try:
                with connection.transaction():
                    connection.execute(self._rows.statement("LOCK TABLE {schema}.heads IN SHARE MODE"))
            finally:
                connection.close()
            self._lost_commit = False


_BEGIN: LiteralString = "BEGIN ISOLATION LEVEL SERIALIZABLE; "
# Conflicts with the lock that every writer takes; who waits for it goes before those who come later.
_TURN: LiteralString = _BEGIN + "LOCK TABLE {schema}.heads IN SHARE ROW EXCLUSIVE MODE"
_FIRST_HEAD: LiteralString = (
    "INSERT INTO {schema}.heads(seq, sealed) SELECT %s, %s WHERE NOT EXISTS (SELECT FROM {schema}.heads)"
)
_NEXT_HEAD: LiteralString = (
    "UPDATE {schema}.heads SET seq = %s, sealed = %s WHERE seq = %s AND sealed = %s "
    "AND (SELECT count(*) FROM {schema}.heads) = 1"
)


def _head_change(batch: Batch) -> tuple[LiteralString, tuple[object, ...]]:
    """Puts the new head in place of the expected and only one; else changes no row."""
    head, expected = batch.head, batch.expected
    if expected is None:
        return _FIRST_HEAD, (head.seq, head.sealed)
    return _NEXT_HEAD, (head.seq, head.sealed, expected.seq, expected.sealed)


_DELETE: LiteralString = "DELETE FROM {schema}.records WHERE id = ANY(%b::bytea[])"
_HINT: LiteralString = "INSERT INTO {schema}.deletions(version, id) SELECT * FROM unnest(%b::bigint[], %b::bytea[])"
_FORGET: LiteralString = "DELETE FROM {schema}.deletions WHERE version <= %b"
_PUT: LiteralString = (
    "INSERT INTO {schema}.records(id, version, sealed) SELECT * FROM unnest(%b::bytea[], %b::bigint[], %b::bytea[]) "
    "ON CONFLICT (id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed"
)
_APPEND: LiteralString = "INSERT INTO {schema}.leaves(position, sealed) SELECT * FROM unnest(%b::bigint[], %b::bytea[])"


def _row_changes(batch: Batch) -> tuple[LiteralString, tuple[object, ...]] | None:
    """One statement for everything but the head; None if nothing else changes.

    Its parts see the rows as they were before; none of them is about rows of another.
    """
    parts: list[tuple[LiteralString, tuple[object, ...]]] = []
    if batch.deleted:
        ids = [row.id for row in batch.deleted]
        parts += [(_DELETE, (ids,)), (_HINT, ([Int8(row.version) for row in batch.deleted], ids))]
    if batch.forgotten:
        parts.append((_FORGET, (Int8(batch.forgotten),)))
    if batch.records:
        rows = batch.records
        parts.append(
            (_PUT, ([row.id for row in rows], [Int8(row.version) for row in rows], [row.sealed for row in rows]))
        )
    if batch.leaves:
        parts.append((_APPEND, ([Int8(row.position) for row in batch.leaves], [row.sealed for row in batch.leaves])))
    if not parts:
        return None
    *earlier, (query, parameters) = parts
    if earlier:
        named = ", ".join(f"part{number} AS ({part})" for number, (part, _) in enumerate(earlier))
        query = f"WITH {named} {query}"
        parameters = tuple(value for _, values in parts for value in values)
    return query, parameters


def _begin_snapshot(connection: _Connection) -> None:
    # The transaction sees what was committed before its first query, not before BEGIN.
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")


def _configure(connection: _Connection, place: str, timeouts: Timeouts) -> None:
    """Make the settings of the session ours, and refuse a server whose acknowledged commits can be lost."""
    for name, value in {
        "search_path": "",
        "row_security": "off",
        "statement_timeout": f"{timeouts.statement}s",
        "lock_timeout": f"{timeouts.lock}s",
        "idle_in_transaction_session_timeout": f"{timeouts.idle}s",
    }.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    (row,) = connection.execute(
        "SELECT current_setting('server_version_num')::int, current_setting('fsync'), "
        "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
        "WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)"
    )
    version, flushes, commits = row
    if not isinstance(version, int) or version < MIN_SERVER_VERSION:
        raise StoreError(
            f"{place}: the server has version {version}, expected {MIN_SERVER_VERSION} or newer: use a newer server"
        )
    if flushes != "on" or commits not in {"on", "remote_apply"}:
        raise StoreError(
            f"{place}: the server has fsync {flushes} and synchronous_commit {commits}, expected both on: acknowledged "
            "commits would be lost with a crash; change its configuration"
        )


def _parse(conninfo: str) -> dict[str, str | int | None]:
    try:
        return dict(conninfo_to_dict(conninfo))
    except psycopg.Error:
        # The reason would repeat parts of the string, and with them perhaps the password.
        raise ConfigurationError(
            "the connection string of the database cannot be read, expected host=… dbname=… or postgresql://…: see "
            "section 34.1.1 of PostgreSQL's manual"
        ) from None


def names_password(conninfo: str) -> bool:
    """Whether a connection string holds a password itself. Raises ConfigurationError if it is malformed."""
    parameters = _parse(conninfo)
    return any(parameters.get(name) for name in ("password", "sslpassword"))


def _place(parameters: Mapping[str, object], schema: str) -> str:
    words = [f"{name}={parameters[name]}" for name in _PLACE if parameters.get(name)]
    return " ".join(["postgresql", *words, f"schema={schema}"])


def _one_line(text: str) -> str:
    """What the server said, fit for a line of a log whatever it is."""
    line = text.partition("\n")[0][:MAX_SAID_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in line)
