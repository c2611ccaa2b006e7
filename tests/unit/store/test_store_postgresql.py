"""What is PostgreSQL's own: connections that die or hang, settings that lose commits, altered schemas, credentials."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.simulators.postgresql import PostgresqlServer

from ostiary.errors import ConfigurationError, ConflictError, StoreError, TamperedError
from ostiary.store import postgresql as module
from ostiary.store.backend import Batch, HeadRow, LeafRow, RecordRow
from ostiary.store.postgresql import PostgresqlBackend, Timeouts

HEADS = tuple(HeadRow(seq, b"head %d" % seq) for seq in range(10))
SHORT = Timeouts(statement=3, lock=2, idle=1, answer=4)
FOREVER_SECONDS = 30.0

Open = Callable[..., PostgresqlBackend]


@pytest.fixture
def schema(postgresql: PostgresqlServer) -> Iterator[str]:
    name = f"test_{os.urandom(8).hex()}"
    yield name
    postgresql.drop(name)


@pytest.fixture
def opened(postgresql: PostgresqlServer, schema: str) -> Iterator[Open]:
    """Opens the backend in the test's own schema; closed after the test."""
    with ExitStack() as stack:

        def open_one(conninfo: str = "", **options: object) -> PostgresqlBackend:
            backend = PostgresqlBackend(conninfo or postgresql.conninfo, schema=schema, **options)  # type: ignore[arg-type]
            stack.callback(backend.close)
            return backend

        yield open_one


def begun(opened: Open, **options: object) -> PostgresqlBackend:
    backend = opened(**options)
    backend.commit(Batch(expected=None, head=HEADS[0]))
    return backend


def server_processes(postgresql: PostgresqlServer, state: str = "%") -> list[int]:
    """The server's processes that serve backends, without the one that answers this."""
    rows = postgresql.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'ostiary' "
        f"AND pid <> pg_backend_pid() AND state LIKE '{state}'"
    )
    return [pid for (pid,) in rows if isinstance(pid, int)]


def until(condition: Callable[[], object]) -> None:
    """Wait for what is bound to come."""
    deadline = time.monotonic() + FOREVER_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_restarted_server_is_found_again_without_an_error(postgresql: PostgresqlServer, opened: Open) -> None:
    """Also several idle connections at once, for reading as for writing."""
    backend = begun(opened)
    with backend.snapshot(), backend.snapshot() as view:
        assert view.head() == HEADS[0]
    postgresql.restart()
    assert backend.head() == HEADS[0]
    backend.commit(Batch(expected=HEADS[0], head=HEADS[1], leaves=(LeafRow(0, b"leaf"),)))
    postgresql.restart()
    backend.commit(Batch(expected=HEADS[1], head=HEADS[2]))
    with backend.snapshot() as view:
        assert (view.head(), list(view.leaves())) == (HEADS[2], [LeafRow(0, b"leaf")])


def test_a_scan_that_the_server_leaves_is_an_error_and_the_next_one_goes_on(
    postgresql: PostgresqlServer, opened: Open
) -> None:
    backend = begun(opened)
    leaves = tuple(LeafRow(position, b"leaf") for position in range(100))
    backend.commit(Batch(expected=HEADS[0], head=HEADS[1], leaves=leaves))
    with backend.snapshot() as view:
        scan = view.leaves()
        next(scan)
        postgresql.restart()
        with pytest.raises(StoreError, match=r"look whether the server (runs|is overloaded or stopping)"):
            list(scan)
    with backend.snapshot() as view:
        assert list(view.leaves()) == list(leaves)


def test_a_server_that_is_gone_is_an_error_that_says_where(postgresql: PostgresqlServer, opened: Open) -> None:
    conninfo = make_conninfo(postgresql.conninfo, port=1)
    with pytest.raises(StoreError, match=r"postgresql host=127.0.0.1 port=1 .*refused.*look whether the server runs"):
        opened(conninfo)


def test_a_server_that_stops_answering_does_not_hang_the_reader(postgresql: PostgresqlServer, opened: Open) -> None:
    backend = begun(opened, timeouts=SHORT)
    (reader,) = (pid for pid in server_processes(postgresql) if pid != writer_pid(backend))
    os.kill(reader, signal.SIGSTOP)
    try:
        assert backend.head() == HEADS[0], "a new connection answers"
    finally:
        os.kill(reader, signal.SIGCONT)


def writer_pid(backend: PostgresqlBackend) -> int:
    writer = backend._writer
    assert writer is not None
    return writer.info.backend_pid


def test_a_server_that_stops_altogether_is_an_error_in_time(postgresql: PostgresqlServer, opened: Open) -> None:
    backend = begun(opened, timeouts=SHORT, conninfo=make_conninfo(postgresql.conninfo, connect_timeout=2))
    stopped = [postgresql.process.pid, *server_processes(postgresql)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="timeout"):
            backend.head()
        with pytest.raises(StoreError, match="timeout"):
            backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert backend.head() == HEADS[0]
    backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))


def test_a_writer_that_hangs_within_its_transaction_loses_the_head_to_the_next(
    postgresql: PostgresqlServer, opened: Open
) -> None:
    """The server ends it after the idle time, which is shorter than others wait."""
    hanging, other = begun(opened, timeouts=SHORT), opened(timeouts=SHORT)
    batch = Batch(expected=HEADS[0], head=HEADS[1])
    hanging._begin(batch)
    other.commit(Batch(expected=HEADS[0], head=HEADS[2]))
    with pytest.raises(psycopg.OperationalError):
        hanging._finish(hanging._writer, batch)  # type: ignore[arg-type]
    assert hanging.head() == HEADS[2]
    with pytest.raises(ConflictError):
        hanging.commit(batch)


def test_a_head_that_is_held_too_long_is_an_error_that_says_so(
    postgresql: PostgresqlServer, opened: Open, schema: str
) -> None:
    backend = begun(opened, timeouts=SHORT)
    with psycopg.connect(postgresql.conninfo) as holder:
        holder.execute(sql.SQL("SELECT * FROM {}.heads FOR UPDATE").format(sql.Identifier(schema)))
        with pytest.raises(StoreError, match=r"lock timeout .*another process holds the head for long"):
            backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))
    backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))


def test_the_head_is_told_only_when_a_commit_without_an_answer_has_ended(
    postgresql: PostgresqlServer, opened: Open
) -> None:
    """A server that waits for an absent replica has the commit on its disk, shows it to nobody, and answers late."""
    backend = begun(opened, timeouts=Timeouts(statement=60, lock=60, idle=60, answer=2))
    patient = opened()
    postgresql.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    postgresql.execute("SELECT pg_reload_conf()")
    until(lambda: postgresql.execute("SHOW synchronous_standby_names") == [("absent",)])
    try:
        with pytest.raises(StoreError, match="timeout"):
            backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))
        assert patient.head() == HEADS[0], "without the wait an old head would be told"
        with pytest.raises(StoreError, match="timeout"):
            backend.head()
    finally:
        postgresql.execute("ALTER SYSTEM RESET synchronous_standby_names")
        postgresql.execute("SELECT pg_reload_conf()")
    assert backend.head() == HEADS[1]
    backend.commit(Batch(expected=HEADS[1], head=HEADS[2]))


def test_a_transaction_that_failed_unseen_is_not_taken_for_committed(opened: Open) -> None:
    """The server answers its COMMIT with a rollback, and no error."""
    backend = begun(opened)
    batch = Batch(expected=HEADS[0], head=HEADS[1])
    writer = backend._begin(batch)
    with pytest.raises(psycopg.errors.DivisionByZero):
        writer.execute("SELECT 1 / 0")
    with pytest.raises(StoreError, match="the server did not commit"):
        backend._finish(writer, batch)
    assert backend.head() == HEADS[0]


def test_an_interrupted_commit_is_looked_up_before_the_head_is_told(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = begun(opened)

    def interrupt(_: Batch) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_row_changes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))
    assert backend.head() == HEADS[0]
    backend.commit(Batch(expected=HEADS[0], head=HEADS[2]))
    assert backend.head() == HEADS[2]


def test_a_commit_without_an_answer_does_not_hold_up_the_turn_that_waited_for_its_end(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread waits for its turn while another one loses its commit."""
    backend = begun(opened, timeouts=SHORT)
    take_turn = PostgresqlBackend._take_turn

    def lose_a_commit_first(self: PostgresqlBackend) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.commit(Batch(expected=HEADS[0], head=HEADS[1]))
        take_turn(self)

    def interrupt(_: Batch) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PostgresqlBackend, "_take_turn", lose_a_commit_first)
        patch.setattr(module, "_row_changes", interrupt)
        turn = backend.turn()
        turn.__enter__()
    assert backend.head() == HEADS[0]
    backend.commit(Batch(expected=HEADS[0], head=HEADS[2]))
    turn.__exit__(None, None, None)
    assert backend.head() == HEADS[2]


def test_a_turn_whose_connection_is_lost_changes_nothing_and_ends(postgresql: PostgresqlServer, opened: Open) -> None:
    """It is not gone on with on a new connection, where others could have moved the head."""
    backend, other = begun(opened), opened()
    with backend.turn():
        postgresql.execute(f"SELECT pg_terminate_backend({writer_pid(backend)}, 10000)")
        other.commit(Batch(expected=HEADS[0], head=HEADS[1]))
        with pytest.raises(StoreError, match="and try again"):
            backend.commit(Batch(expected=HEADS[0], head=HEADS[2]))
        assert backend.head() == HEADS[1]
    with backend.turn():
        backend.commit(Batch(expected=HEADS[1], head=HEADS[2]))
    assert other.head() == HEADS[2]


def test_a_turn_that_hangs_loses_the_head_to_the_next(opened: Open) -> None:
    """The server ends it after the idle time, as it does with a commit."""
    hanging, other = begun(opened, timeouts=SHORT), opened(timeouts=SHORT)
    with hanging.turn():
        with other.turn():
            other.commit(Batch(expected=HEADS[0], head=HEADS[1]))
        with pytest.raises(StoreError, match="silent for too long while it held the head"):
            hanging.commit(Batch(expected=HEADS[0], head=HEADS[2]))
    assert hanging.head() == HEADS[1]


@pytest.mark.parametrize("level", ["SERIALIZABLE", "READ COMMITTED"])
def test_of_two_first_heads_at_once_the_second_conflicts(
    opened: Open, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Whether the server tells it as a serialization failure or by the primary key."""
    monkeypatch.setattr(module, "_BEGIN", f"BEGIN ISOLATION LEVEL {level}; ")
    first, second = opened(), opened()
    batch = Batch(expected=None, head=HEADS[0])
    writer = first._begin(batch)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(second.commit, Batch(expected=None, head=HeadRow(0, b"another")))
        with pytest.raises(TimeoutError):
            later.result(0.3)
        first._finish(writer, batch)
        with pytest.raises(ConflictError):
            later.result(FOREVER_SECONDS)
    assert second.head() == HEADS[0]


def test_of_two_writers_at_once_the_second_waits_and_conflicts(opened: Open) -> None:
    first, second = begun(opened), opened()
    batch = Batch(expected=HEADS[0], head=HEADS[1])
    writer = first._begin(batch)
    outcome: list[BaseException] = []

    def commit() -> None:
        try:
            second.commit(Batch(expected=HEADS[0], head=HEADS[2]))
        except ConflictError as error:
            outcome.append(error)

    thread = threading.Thread(target=commit)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    first._finish(writer, batch)
    thread.join(FOREVER_SECONDS)
    assert "another process moved the head" in str(outcome[0])
    assert second.head() == HEADS[1]


def test_readers_take_turns_and_keep_their_connections(
    postgresql: PostgresqlServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_READERS", 4)
    backend = begun(opened, timeouts=SHORT)
    barrier = threading.Barrier(4)

    def hold(connection: psycopg.Connection[tuple[object, ...]]) -> int:
        barrier.wait(FOREVER_SECONDS)
        barrier.wait(FOREVER_SECONDS)
        return connection.info.backend_pid

    with ThreadPoolExecutor(3) as pool:
        holding = [pool.submit(backend._read, hold) for _ in range(3)]
        barrier.wait(FOREVER_SECONDS)
        assert backend.head() == HEADS[0], "the fourth"
        barrier.wait(FOREVER_SECONDS)
        pids = {future.result() for future in holding}
    assert len(pids) == 3
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda _: backend.head(), range(200))) == [HEADS[0]] * 200
    assert len(set(server_processes(postgresql)) - {writer_pid(backend)}) <= 4


def test_a_reader_that_gets_no_turn_is_told(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READERS", 1)
    backend = begun(opened, timeouts=Timeouts(answer=1))
    with pytest.raises(StoreError, match="1 reads are waiting for the database already: try again later"):
        backend._read(lambda _: backend.head())
    assert backend.head() == HEADS[0]


def test_compacting_gives_up_rather_than_make_others_wait(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPACTING", Timeouts(lock=1))
    backend, other = begun(opened), opened()
    with other.snapshot() as view:
        view.head()
        with pytest.raises(StoreError, match="lock timeout"):
            backend.compact()
    backend.compact()


def test_many_that_open_an_empty_database_at_once_make_the_tables_once(opened: Open) -> None:
    with ThreadPoolExecutor(6) as pool:
        backends = [future.result() for future in [pool.submit(opened) for _ in range(6)]]
    assert [backend.head() for backend in backends] == [None] * 6


def test_nothing_is_made_for_those_who_only_look(postgresql: PostgresqlServer, opened: Open, schema: str) -> None:
    with pytest.raises(StoreError, match="there is no store, expected one: name the database and schema"):
        opened(create=False)
    assert postgresql.execute(f"SELECT FROM pg_namespace WHERE nspname = '{schema}'") == []
    opened().close()
    assert opened(create=False).head() is None


def test_a_schema_made_by_an_administrator_is_filled(postgresql: PostgresqlServer, opened: Open, schema: str) -> None:
    postgresql.execute(f"CREATE SCHEMA {schema}")
    assert opened().head() is None


def test_the_schema_of_another_program_and_a_newer_one_are_left_alone(
    postgresql: PostgresqlServer, opened: Open, schema: str
) -> None:
    postgresql.execute(f"CREATE SCHEMA {schema}")
    postgresql.execute(f"CREATE TABLE {schema}.heads(mine int)")
    with pytest.raises(StoreError, match="belongs to another program: choose another schema"):
        opened()
    postgresql.execute(f"COMMENT ON TABLE {schema}.heads IS 'ostiary store 2'")
    with pytest.raises(StoreError, match="has schema version 2, expected 1: start the program that wrote it"):
        opened()


ALTERATIONS = [
    ("CREATE TRIGGER t BEFORE DELETE ON {0}.records FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
     "trigger t on records"),
    ("CREATE TABLE public.{0}_x(id bytea REFERENCES {0}.records)", "trigger RI_"),
    ("CREATE RULE r AS ON DELETE TO {0}.records DO INSTEAD NOTHING", "rule r on records"),
    ("ALTER TABLE {0}.records ENABLE ROW LEVEL SECURITY", "row security on records"),
    ("CREATE POLICY p ON {0}.leaves USING (false)", "policy p on leaves"),
    ("ALTER TABLE {0}.leaves SET UNLOGGED", "relation of kind r, persistence u leaves"),
    ("CREATE TABLE {0}.more() INHERITS ({0}.records)", "column more.1"),
    ("CREATE TABLE public.{0}_more() INHERITS ({0}.records)", "inheritance of records"),
    ("ALTER TABLE {0}.records ADD more int", "column records.4 more integer"),
    ("ALTER TABLE {0}.records ALTER version SET DEFAULT 7", "column records.2 version bigint not null default"),
    ("ALTER TABLE {0}.records ALTER version ADD GENERATED ALWAYS AS IDENTITY", "not null identity"),
    ("ALTER TABLE {0}.heads ALTER sealed DROP NOT NULL", "column heads.2 sealed bytea,"),
    ("ALTER TABLE {0}.heads ALTER seq TYPE numeric", "column heads.1 seq numeric not null"),
    ("ALTER TABLE {0}.records RENAME id TO name", "column records.1 name bytea not null"),
    ("ALTER TABLE {0}.records DROP sealed", "column records.3 [.]+pg.dropped.3[.]+ "),
    ("ALTER TABLE {0}.records DROP CONSTRAINT records_pkey", "expected constraint records PRIMARY KEY"),
    ("ALTER TABLE {0}.records ADD CHECK (version <> 9)", "constraint records CHECK"),
    ("CREATE INDEX i ON {0}.records (length(sealed))", "index CREATE INDEX i ON records USING btree"),
    ("DROP INDEX {0}.records_version", "expected index CREATE INDEX records_version"),
    ("CREATE SEQUENCE {0}.s", "column s.1"),
    ("DROP TABLE {0}.deletions", "expected column deletions.1 version"),
    ("ALTER TABLE {0}.records RENAME TO kept; CREATE VIEW {0}.records AS SELECT * FROM {0}.kept",
     "relation of kind v, persistence p records|table kept|column kept"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "message"), ALTERATIONS, ids=[statement for statement, _ in ALTERATIONS])
def test_an_altered_schema_is_refused(
    postgresql: PostgresqlServer, opened: Open, schema: str, statement: str, message: str
) -> None:
    begun(opened).close()
    postgresql.execute(statement.format(schema))
    with pytest.raises(TamperedError, match=f"changed: the schema has been altered: .*({message})"):
        opened()


@pytest.mark.parametrize(
    ("statement", "look"),
    [
        ("ALTER TABLE {0}.records RENAME sealed TO unsealed", lambda backend: backend.record(bytes(32))),
        ("DROP TABLE {0}.heads", lambda backend: backend.head()),
        ("ALTER TABLE {0}.records ALTER version TYPE text", lambda backend: backend.record(bytes(32))),
        ("ALTER TABLE {0}.records ALTER sealed TYPE text", lambda backend: backend.record(bytes(32))),
        ("ALTER TABLE {0}.heads ALTER sealed DROP NOT NULL; UPDATE {0}.heads SET sealed = NULL",
         lambda backend: backend.head()),
        ("ALTER TABLE {0}.heads DROP CONSTRAINT heads_pkey, ALTER seq DROP NOT NULL; UPDATE {0}.heads SET seq = NULL",
         lambda backend: backend.head()),
        ("ALTER TABLE {0}.records DROP CONSTRAINT records_pkey; INSERT INTO {0}.records SELECT * FROM {0}.records",
         lambda backend: backend.record(bytes(32))),
        ("ALTER TABLE {0}.leaves RENAME TO others",
         lambda backend: backend.commit(Batch(expected=HEADS[1], head=HEADS[2], leaves=(LeafRow(0, b""),)))),
    ],
)  # fmt: skip
def test_what_is_altered_while_it_is_open_is_told_as_tampering(
    postgresql: PostgresqlServer,
    opened: Open,
    schema: str,
    statement: str,
    look: Callable[[PostgresqlBackend], object],
) -> None:
    backend = begun(opened)
    backend.commit(Batch(expected=HEADS[0], head=HEADS[1], records=(RecordRow(bytes(32), 1, b"sealed"),)))
    postgresql.execute(statement.format(schema))
    with pytest.raises(TamperedError, match=r"(changed|added): "):
        look(backend)


def test_a_server_that_does_not_flush_is_refused(postgresql: PostgresqlServer, opened: Open) -> None:
    postgresql.restart(fsync=False)
    try:
        with pytest.raises(StoreError, match=r"fsync off .*expected both on: acknowledged commits would be lost"):
            opened()
    finally:
        postgresql.restart()


@pytest.mark.parametrize(
    ("configured", "used"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
def test_every_commit_is_flushed_whatever_the_user_is_configured_for(
    postgresql: PostgresqlServer, opened: Open, configured: str, used: str
) -> None:
    postgresql.execute(f"ALTER ROLE cas SET synchronous_commit = {configured}")
    try:
        connection = opened()._connect(Timeouts())
        assert connection.execute("SHOW synchronous_commit").fetchone() == (used,)
        assert connection.execute("SHOW search_path").fetchone() == ("",)
        connection.close()
    finally:
        postgresql.execute("ALTER ROLE cas RESET synchronous_commit")


def test_commits_are_serializable_and_snapshots_read_only(opened: Open) -> None:
    backend = begun(opened)
    writer = backend._begin(Batch(expected=HEADS[0], head=HEADS[1]))
    assert writer.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
    backend._roll_back()
    with backend.snapshot() as view:
        connection = view._connection
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


def test_an_old_server_is_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_SERVER_VERSION", 990000)
    with pytest.raises(StoreError, match=r"the server has version \d+, expected 990000 or newer"):
        opened()


def test_of_several_hosts_the_one_that_answers_and_writes_is_taken(postgresql: PostgresqlServer, opened: Open) -> None:
    hosts = make_conninfo(postgresql.conninfo, host="127.0.0.1,127.0.0.1", port=f"1,{postgresql.port}")
    assert opened(hosts).head() is None
    only_reads = make_conninfo(postgresql.conninfo, options="-c default_transaction_read_only=on")
    with pytest.raises(StoreError, match="read-only"):
        opened(only_reads)


def test_a_user_without_rights_is_told_what_to_do(postgresql: PostgresqlServer, opened: Open, schema: str) -> None:
    opened().close()
    postgresql.execute(f"CREATE ROLE {schema} LOGIN PASSWORD 'p'")
    with pytest.raises(StoreError, match=r"permission denied .*make the database user the owner"):
        opened(make_conninfo(postgresql.conninfo, user=schema, password="p")).head()


SECRET = "TOPSECRET-4711"


def test_no_credential_is_in_places_errors_and_logs(
    postgresql: PostgresqlServer, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    uri = f"postgresql://cas:{SECRET}@127.0.0.1:{postgresql.port}/postgres"
    tries = [
        make_conninfo(postgresql.conninfo, password=SECRET),
        uri,
        f"{uri}?nonsense=1",
        f"host=127.0.0.1 password={SECRET} nonsense",
        f"host=127.0.0.1 password='{SECRET}",
        f"{uri}?connect_timeout=x",
    ]
    for conninfo in tries:
        with pytest.raises((StoreError, ConfigurationError)) as raised:
            opened(conninfo)
        assert SECRET not in "".join(traceback.format_exception(raised.value))
        assert SECRET not in repr(raised.value)
    assert SECRET not in caplog.text
    backend = opened()
    for text in (backend.place, repr(backend)):
        assert postgresql.password not in text
    assert backend.place.startswith(f"postgresql host=127.0.0.1 port={postgresql.port} dbname=postgres schema=test_")


@pytest.mark.parametrize("conninfo", ["nonsense", "postgresql://[", "host=127.0.0.1 nonsense=1"])
def test_a_malformed_connection_string_is_a_mistake_of_the_configuration(opened: Open, conninfo: str) -> None:
    with pytest.raises(
        ConfigurationError, match="the connection string of the database cannot be read, expected host="
    ):
        opened(conninfo)


def test_what_a_server_says_is_one_printable_line_of_bounded_length() -> None:
    assert module._one_line("bad\x1b[31m\nsecond") == "bad?[31m"
    assert len(module._one_line("x" * 9999)) == module.MAX_SAID_CHARACTERS


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir()
    cert, private = directory / "server.crt", directory / "server.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, private


def test_tls_is_as_the_connection_string_says(postgresql: PostgresqlServer, opened: Open, tmp_path: Path) -> None:
    """`verify-full` reaches the server with that certificate and no other."""
    ours, key = certificate(tmp_path / "server")
    other, _ = certificate(tmp_path / "other")
    postgresql.serve_tls(ours, key)
    try:
        options = {"sslmode": "verify-full", "sslcert": str(tmp_path / "none"), "sslkey": str(tmp_path / "none")}
        backend = opened(make_conninfo(postgresql.conninfo, sslrootcert=str(ours), **options))
        connection = backend._connect(Timeouts())
        row = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        connection.close()
        assert row == (True,)
        with pytest.raises(StoreError, match="certificate verify failed"):
            opened(make_conninfo(postgresql.conninfo, sslrootcert=str(other), **options))
    finally:
        postgresql.execute("ALTER SYSTEM RESET ssl")
        postgresql.execute("SELECT pg_reload_conf()")
