"""`ostiary store …` on both engines, beside a service and alone."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.simulators.postgresql import PostgresqlServer
from tests.simulators.swtpm import swtpm

from ostiary.audit import Frontier, Kind, entry
from ostiary.broker.open_storage import open_storage
from ostiary.broker.storage import parse_storage
from ostiary.cli import main as program
from ostiary.cli.store import progress
from ostiary.store import Store, Write, offline, open_store
from ostiary.store.backend import Batch
from ostiary.store.postgresql import PostgresqlBackend
from ostiary.store.sqlite import SqliteBackend

KEY = bytes(range(32))


@dataclass(kw_only=True)
class Cas:
    """A data directory with its key, and the database it belongs to. options: name it on the command line."""

    data: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    conninfo: str = ""
    schema: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        if not self.conninfo:
            return ("--data", str(self.data))
        public = {name: value for name, value in conninfo_to_dict(self.conninfo).items() if name != "password"}
        return ("--data", str(self.data), "--store", make_conninfo("", **public), "--schema", self.schema)

    def open(self) -> Store:
        """What the service does."""
        if not self.conninfo:
            return open_store(self.data, random=os.urandom, log=Frontier(), warn=lambda _: None)
        backend = PostgresqlBackend(self.conninfo, schema=self.schema)
        make = Store.begin if backend.head() is None else Store.resume
        return make(backend, (self.data / "database.key").read_bytes(), random=os.urandom, log=Frontier())

    def run(self, *arguments: str, expect: int = 0, options: tuple[str, ...] | None = None) -> str:
        """`ostiary store …` to its end; stdout, or stderr where it must end with another code."""
        chosen = self.options if options is None else options
        self.monkeypatch.setattr(sys, "argv", ["ostiary", "store", *arguments, *chosen])
        try:
            program.main()
            code: object = 0
        except SystemExit as done:
            code = done.code or 0
        said = self.capsys.readouterr()
        assert code == expect, (code, said)
        return said.out if expect == 0 else said.err

    @contextmanager
    def altered(self) -> Iterator[Callable[[str], object]]:
        if not self.conninfo:
            with closing(sqlite3.connect(self.data / "records.sqlite", isolation_level=None)) as connection:
                yield connection.execute
        else:
            with psycopg.connect(self.conninfo, autocommit=True) as connection:
                connection.execute(f"SET search_path = {self.schema}".encode())
                yield lambda statement: connection.execute(statement.encode())


@pytest.fixture(params=["sqlite", "postgresql"])
def cas(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Cas:
    """A service's state: commits 1 to 4 wrote a, b, a and c, the fifth deleted c."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    made = Cas(data=data, capsys=capsys, monkeypatch=monkeypatch)
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        monkeypatch.setenv("PGPASSWORD", server.password)
        made.conninfo, made.schema = server.conninfo, f"test_{os.urandom(8).hex()}"
        data.mkdir(mode=0o700)
        (data / "database.key").write_bytes(KEY)
        (data / "database.key").chmod(0o600)
    with made.open() as store:
        for name, value, expected in (("a", b"1", 0), ("b", b"2", 0), ("a", b"3", 1), ("c", b"4", 0), ("c", None, 4)):
            leaf = entry(Kind.SESSION_UPDATED, {"session": name}, datetime(2026, 1, 2, tzinfo=UTC), os.urandom)
            store.commit([Write(name=name, value=value, expected_version=expected)], leaf).result()
    return made


def test_verify_tells_what_the_head_says(cas: Cas) -> None:
    with cas.open() as store:
        head = store.head
        told = json.loads(cas.run("verify", "--json"))
        assert told == {
            "verified": True,
            "seq": head.seq,
            "digest": head.digest.hex(),
            "records": 2,
            "leaves": 5,
            "log_root": head.log_root.hex(),
        }
    said = cas.run("verify")
    assert said.startswith(f"verified: 2 records and 5 leaves of the audit log under head {head.seq}\n")
    assert f"log root: {head.log_root.hex()}\n" in said


REFUSALS = [
    ("DELETE FROM records WHERE version = 2", "missing", "there are 1 records, expected 2"),
    ("DELETE FROM leaves WHERE position = 4", "missing", "the audit log has 4 leaves, expected 5"),
    ("UPDATE records SET version = 1 WHERE version = 2", "changed", "does not verify"),
    ("UPDATE heads SET seq = seq + 1", "changed", "head 6 does not verify"),
    (
        "UPDATE records SET sealed = (SELECT sealed FROM records WHERE version = 3) WHERE version = 2",
        "swapped",
        "holds",
    ),
    ("DELETE FROM heads", "missing", "there are rows without a head"),
    ("INSERT INTO heads(seq, sealed) SELECT seq + 1, sealed FROM heads", "added", "there are several heads"),
    ("CREATE TABLE more(x integer)", "changed", "the schema has been altered"),
]


@pytest.mark.parametrize(("statement", "kind", "message"), REFUSALS)
def test_verify_names_the_class_of_what_is_wrong_and_ends_with_65(
    cas: Cas, statement: str, kind: str, message: str
) -> None:
    with cas.altered() as execute:
        execute(statement)
    said = cas.run("verify", expect=65)
    assert f": {kind}: " in said
    assert message in said
    cas.monkeypatch.setattr(sys, "argv", ["ostiary", "store", "verify", "--json", *cas.options])
    with pytest.raises(SystemExit) as done:
        program.main()
    assert done.value.code == 65
    told = json.loads(cas.capsys.readouterr().out)
    assert (told["verified"], told["class"]) == (False, kind)
    assert message in told["message"]


def test_the_log_is_read_from_either_engine_and_from_a_copy(cas: Cas) -> None:
    cas.run("export-encrypted", "copy.sqlite")
    on_copy = ("--data", str(cas.data), "--file", "copy.sqlite")
    lines = [f"2026-01-02T00:00:00.000Z session_updated {name}\n" for name in "abacc"]
    with cas.open() as store:
        for number in range(150):
            leaf = entry(Kind.SESSION_CREATED, {"session": f"s{number}"}, datetime(2026, 1, 2, tzinfo=UTC), os.urandom)
            store.commit([], leaf).result()
        # Beside the service.
        assert cas.run("log").startswith("".join(lines))
    assert [json.loads(line)["data"]["session"] for line in cas.run("log", "--json").splitlines()][5:] == [
        f"s{number}" for number in range(150)
    ]
    assert cas.run("log", options=on_copy) == "".join(lines)
    with cas.altered() as execute:
        execute("DELETE FROM leaves WHERE position = 2")
    assert ": missing: the audit log has no leaf 2" in cas.run("log", expect=65)
    assert cas.run("log", "--session", "b", options=on_copy) == lines[1]


def test_an_emptied_database_does_not_verify(cas: Cas) -> None:
    with cas.altered() as execute:
        for table in ("heads", "records", "leaves"):
            execute(f"DELETE FROM {table}")
    assert ": missing: the database holds no head" in cas.run("verify", expect=65)


def test_verify_needs_the_key_of_this_database(cas: Cas) -> None:
    key = cas.data / "database.key"
    key.write_bytes(bytes(32))
    assert "head 5 does not verify" in cas.run("verify", expect=65)
    key.unlink()
    assert "there is no database key" in cas.run("verify", expect=1)


def test_verify_takes_the_key_from_where_the_service_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a TPM here, by options or by the service's configuration file; else it says how the key is kept."""
    cas = Cas(data=tmp_path / "data", capsys=capsys, monkeypatch=monkeypatch)
    with swtpm(tmp_path / "tpm") as tpm:
        settings = parse_storage(cas.data, {"sealing": {"by": "tpm", "tpm": tpm.tcti}})
        with open_storage(settings, random=os.urandom, warn=lambda _: None) as store:
            store.commit([], b"leaf").result()
            digest = store.head.digest.hex()
        config = tmp_path / "cas.toml"
        config.write_text(f'[ostiary.sealing]\nby = "tpm"\ntpm = "{tpm.tcti}"\n')
        for options in (("--sealing", "tpm", "--tpm", tpm.tcti), ("--config", str(config))):
            assert json.loads(cas.run("verify", "--json", *options))["digest"] == digest
        said = cas.run("verify", expect=64)
        assert "is kept by tpm (database.key.tpm), and the configuration says keyfile" in said


@pytest.mark.parametrize("cas", ["postgresql"], indirect=True)
def test_the_configuration_file_names_the_database(cas: Cas, tmp_path: Path) -> None:
    words = conninfo_to_dict(cas.conninfo)
    config = tmp_path / "cas.toml"
    url = f"postgresql://{words['user']}@{words['host']}:{words['port']}/{words['dbname']}"
    config.write_text(f'[ostiary.store]\ndatabase = "{url}"\n')
    options = ("--data", str(cas.data), "--config", str(config), "--schema", cas.schema)
    assert json.loads(cas.run("verify", "--json", options=options))["records"] == 2
    assert json.loads(cas.run("stats", "--json", options=options))["records"] == 2


def test_stats_need_no_key(cas: Cas) -> None:
    (cas.data / "database.key").unlink()
    told = json.loads(cas.run("stats", "--json"))
    disk = told.pop("disk_bytes")
    assert disk > 2 * 285 + 5 * 285
    assert "data/records.sqlite" in told["place"] or f"schema={cas.schema}" in told["place"]
    del told["place"]
    assert told == {
        "seq": 5,
        "records": 2,
        "record_bytes": 2 * 285,
        "largest_record_bytes": 285,
        "newest_version": 3,
        "leaves": 5,
        "leaf_bytes": 5 * 285,
        "deletions": 1,
    }
    lines = cas.run("stats").splitlines()
    assert "head                 5" in lines
    assert "newest version       3" in lines


def test_an_exported_copy_verifies_with_the_key_and_holds_all_rows_as_they_are(cas: Cas) -> None:
    before = json.loads(cas.run("verify", "--json"))
    assert cas.run("export-encrypted", "copy.sqlite").startswith("copy.sqlite: head 5, ")
    copy = Path("copy.sqlite")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith("copy")) == ["copy.sqlite"]
    on_copy = ("--data", str(cas.data), "--file", "copy.sqlite")
    assert json.loads(cas.run("verify", "--json", options=on_copy)) == before
    for name in ("records", "leaves", "deletions"):
        told, original = (json.loads(cas.run("stats", "--json", options=where)) for where in (on_copy, cas.options))
        assert told[name] == original[name]
    with cas.altered() as execute:
        columns = "SELECT id, version, sealed FROM records ORDER BY id"
        rows = [tuple(row) for row in execute(columns)]  # type: ignore[attr-defined]
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute(columns).fetchall() == rows


def test_an_export_never_overwrites(cas: Cas) -> None:
    Path("copy.sqlite").write_text("mine")
    assert "copy.sqlite is there already, expected a new file" in cas.run("export-encrypted", "copy.sqlite", expect=64)
    assert Path("copy.sqlite").read_text() == "mine"
    assert "none/copy: No such file or directory: choose a place" in cas.run("export-encrypted", "none/copy", expect=1)


def test_an_export_of_nothing_leaves_nothing(cas: Cas) -> None:
    with cas.altered() as execute:
        for table in ("heads", "records", "leaves"):
            execute(f"DELETE FROM {table}")
    assert "the database is empty" in cas.run("export-encrypted", "copy.sqlite", expect=1)
    assert [path.name for path in Path().iterdir()] == ["data"]


def test_a_copy_becomes_a_database_of_either_engine(cas: Cas, postgresql: PostgresqlServer) -> None:
    """The service goes on with it, and what was deleted once and made again is there."""
    with cas.open() as store:
        store.commit([Write(name="c", value=b"again", expected_version=0)], b"leaf").result()
        head = store.head
    cas.run("export-encrypted", "copy.sqlite")
    cas.monkeypatch.setenv("PGPASSWORD", postgresql.password)
    for number, conninfo in enumerate(("", postgresql.conninfo)):
        data = Path(f"moved{number}")
        data.mkdir(mode=0o700)
        (data / "database.key").write_bytes((cas.data / "database.key").read_bytes())
        (data / "database.key").chmod(0o600)
        moved = Cas(
            data=data,
            capsys=cas.capsys,
            monkeypatch=cas.monkeypatch,
            conninfo=conninfo,
            schema=f"test_{os.urandom(8).hex()}",
        )
        assert moved.run("import-encrypted", "copy.sqlite").endswith(f": head {head.seq}\n")
        told = json.loads(moved.run("verify", "--json"))
        assert (told["digest"], told["records"], told["leaves"]) == (head.digest.hex(), 3, 6)
        assert "already holds a store, expected an empty" in moved.run("import-encrypted", "copy.sqlite", expect=1)
        with moved.open() as store:
            record = store.get("c")
            assert record is not None
            assert record.value == b"again"


def test_an_interrupted_import_is_refused(cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    cas.run("export-encrypted", "copy.sqlite")
    monkeypatch.setattr(offline, "MAX_COPY_ROWS", 1)
    data = Path("moved")
    data.mkdir(mode=0o700)
    (data / "database.key").write_bytes((cas.data / "database.key").read_bytes())
    (data / "database.key").chmod(0o600)
    steps = 0

    class Limited(SqliteBackend):
        def commit(self, batch: Batch) -> None:
            nonlocal steps
            steps += 1
            if steps == 4:
                raise KeyboardInterrupt
            super().commit(batch)

    with (
        closing(SqliteBackend(Path("copy.sqlite"))) as source,
        closing(Limited(data / "records.sqlite")) as target,
        pytest.raises(KeyboardInterrupt),
    ):
        offline.copy(source, target, progress=progress.Bar("copying"))
    moved = Cas(data=data, capsys=cas.capsys, monkeypatch=monkeypatch)
    assert ": missing: " in moved.run("verify", expect=65)


def test_compact_gives_room_back_and_changes_no_row(cas: Cas) -> None:
    with cas.open() as store:
        versions = [
            store.commit([Write(name=str(number), value=os.urandom(9000), expected_version=0)], b"leaf")
            .result()
            .log_size
            for number in range(50)
        ]
        for number, version in enumerate(versions):
            store.commit([Write(name=str(number), value=None, expected_version=version)], b"leaf").result()
    before = json.loads(cas.run("verify", "--json"))
    told = json.loads(cas.run("compact", "--json"))
    assert told["after_bytes"] < told["before_bytes"]
    assert json.loads(cas.run("verify", "--json")) == before
    assert " bytes before, " in cas.run("compact")


def test_a_service_goes_on_while_its_database_is_looked_at(cas: Cas) -> None:
    """Each command sees one moment, however much is committed meanwhile, and no commit fails."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(store: Store) -> None:
        version = 0
        try:
            while not stop.is_set():
                write = Write(name="busy", value=os.urandom(500), expected_version=version)
                version = store.commit([write], b"leaf").result().log_size
        except BaseException as error:
            failures.append(error)

    with cas.open() as store:
        worker = threading.Thread(target=work, args=(store,))
        worker.start()
        try:
            seqs = [json.loads(cas.run("verify", "--json"))["seq"] for _ in range(3)]
            for number in range(2):
                cas.run("stats")
                cas.run("export-encrypted", f"copy{number}.sqlite")
                on_copy = ("--data", str(cas.data), "--file", f"copy{number}.sqlite")
                seqs.append(json.loads(cas.run("verify", "--json", options=on_copy))["seq"])
        finally:
            stop.set()
            worker.join()
        assert failures == []
        assert seqs == sorted(seqs)
        assert store.head.seq > seqs[-1]


@pytest.mark.parametrize("command", ["verify", "log", "stats", "compact"])
def test_nothing_is_made_where_there_is_nothing(cas: Cas, command: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "database.key").write_bytes(KEY)
    (tmp_path / "empty" / "database.key").chmod(0o600)
    options = ("--data", str(tmp_path / "empty"))
    assert "there is no database" in cas.run(command, expect=1, options=options)
    assert not (tmp_path / "empty" / "records.sqlite").exists()
    options = ("--data", str(tmp_path / "none"))
    assert "none" in cas.run(command, expect=1, options=options)
    assert not (tmp_path / "none").exists()
    if cas.conninfo:
        others = (*cas.options[:-1], "nowhere")
        assert "there is no store, expected one" in cas.run(command, expect=1, options=others)


@pytest.mark.parametrize(
    "command", [("verify",), ("log",), ("stats",), ("compact",), ("export-encrypted", "copy.sqlite")]
)
def test_an_empty_file_is_no_database_and_stays_empty(cas: Cas, command: tuple[str, ...], tmp_path: Path) -> None:
    """The database engine would make a database of it; commands that look at one may not."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "database.key").write_bytes(KEY)
    (tmp_path / "empty" / "database.key").chmod(0o600)
    file = tmp_path / "empty" / "records.sqlite"
    file.touch()
    said = cas.run(*command, expect=65, options=("--data", str(file.parent)))
    assert "records.sqlite: missing: the file is empty, expected a database" in said
    assert file.read_bytes() == b""
    assert not (tmp_path / "copy.sqlite").exists()


def test_a_password_on_the_command_line_is_refused(cas: Cas, postgresql: PostgresqlServer) -> None:
    said = cas.run("stats", expect=64, options=("--store", postgresql.conninfo))
    assert "which everyone on this machine can read" in said
    assert "PGPASSFILE" in said
    assert postgresql.password not in said
    said = cas.run("stats", expect=64, options=("--store", "host=x", "--file", "copy.sqlite"))
    assert "--file and --store name two databases" in said


def test_without_psycopg_the_command_says_what_to_install(cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ostiary.store.postgresql", None)
    said = cas.run("stats", expect=64, options=("--store", "host=x"))
    assert "pip install 'ostiary[postgresql]'" in said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("silent", "shown"), [(0.0, True), (60.0, False)])
def test_a_bar_is_shown_to_a_person_after_a_while(
    cas: Cas, monkeypatch: pytest.MonkeyPatch, silent: float, shown: bool
) -> None:
    monkeypatch.setattr(progress, "SILENT_SECONDS", silent)
    monkeypatch.setattr(progress, "_ROWS_A_LOOK", 1)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.Bar("verifying") as bar:
        bar.expect(10)
        for _ in range(12):
            bar.advance()
    with progress.patience("compacting"):
        if shown:
            while "compacting" not in terminal.getvalue():
                pass
    drawn = terminal.getvalue()
    assert ("verifying" in drawn) == shown
    assert ("compacting" in drawn) == shown
    assert ("10/10" in drawn) == shown
