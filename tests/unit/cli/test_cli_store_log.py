"""`ostiary store log`: the audit log for those who read it, verified before anything of it is shown."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ostiary.audit import Entry, Frontier, Kind, entry
from ostiary.audit.entry import Json
from ostiary.cli import main as program
from ostiary.cli.store.log import is_about, line
from ostiary.cli.store.progress import Bar
from ostiary.errors import TamperedError
from ostiary.store import Store, Write, offline, open_store
from ostiary.store.backend import LeafRow, Snapshot
from ostiary.store.sqlite import SqliteBackend

BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALICE = "a1" * 32
PROPOSAL = "b2" * 32


@dataclass(kw_only=True)
class Log:
    """A service's state whose audit log the test writes."""

    data: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def open(self) -> Store:
        return open_store(self.data, random=os.urandom, log=Frontier(), warn=lambda _: None)

    def write(self, *entries: tuple[Kind, Mapping[str, Json]]) -> list[bytes]:
        """The leaves, one a second."""
        leaves = [
            entry(kind, data, BEGUN + timedelta(seconds=at), os.urandom) for at, (kind, data) in enumerate(entries)
        ]
        with self.open() as store:
            for leaf in leaves:
                store.commit([], leaf).result()
        return leaves

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `ostiary store log`."""
        self.monkeypatch.setattr(sys, "argv", ["ostiary", "store", "log", "--data", str(self.data), *words])
        try:
            program.main()
            code: object = 0
        except SystemExit as done:
            code = done.code or 0
        assert isinstance(code, int)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def lines(self, *words: str) -> list[str]:
        code, out, err = self.run(*words)
        assert (code, err) == (0, "")
        return out.splitlines()

    def alter(self, statement: str) -> None:
        with closing(sqlite3.connect(self.data / "records.sqlite", isolation_level=None)) as connection:
            connection.execute(statement)


@pytest.fixture
def log(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(data=tmp_path / "data", capsys=capsys, monkeypatch=monkeypatch)


STORY: tuple[tuple[Kind, Mapping[str, Json]], ...] = (
    (Kind.CAS_STARTED, {"version": "1", "roots": 2}),
    (Kind.SESSION_CREATED, {"session": "shop", "by": ALICE}),
    (Kind.PROPOSAL_CREATED, {"session": "shop", "proposal": PROPOSAL, "break_glass": True, "by": ALICE}),
    (
        Kind.PROPOSAL_DECIDED,
        {
            "session": "shop",
            "proposal": PROPOSAL,
            "break_glass": True,
            "state": "open",
            "member": ALICE,
            "choice": "approve",
        },
    ),
    (Kind.SERVICE_REFUSED, {"refused": [{"session": "bar", "service": "web", "cause": "appraisal", "count": 3}]}),
    (Kind.SESSION_CREATED, {"session": "bar", "approvals": [{"member": ALICE, "choice": "approve"}]}),
)


def test_the_log_is_printed_an_entry_a_line_the_oldest_first_and_break_glass_loud(log: Log) -> None:
    log.write(*STORY)
    assert log.lines() == [
        "2026-01-02T03:04:05.000Z cas_started roots=2 version=1",
        "2026-01-02T03:04:06.000Z session_created shop by=a1a1a1a1a1a1a1a1…",
        "2026-01-02T03:04:07.000Z BREAK-GLASS proposal_created shop by=a1a1a1a1a1a1a1a1… proposal=b2b2b2b2b2b2b2b2…",
        (
            "2026-01-02T03:04:08.000Z BREAK-GLASS proposal_decided shop state=open choice=approve "
            "member=a1a1a1a1a1a1a1a1… proposal=b2b2b2b2b2b2b2b2…"
        ),
        "2026-01-02T03:04:09.000Z service_refused refused=[{cause=appraisal count=3 service=web session=bar}]",
        "2026-01-02T03:04:10.000Z session_created bar approvals=[{choice=approve member=a1a1a1a1a1a1a1a1…}]",
    ]


def test_json_is_the_entries_byte_by_byte(log: Log) -> None:
    """So that whoever has the log's root can work it out anew."""
    leaves = log.write(*STORY)
    _, out, _ = log.run("--json")
    assert out.encode() == b"".join(leaf + b"\n" for leaf in leaves)
    tree = Frontier()
    for leaf in leaves:
        tree = tree.append(leaf)
    with log.open() as store:
        assert store.head.log_root == tree.root


def test_the_log_of_one_session_has_what_is_about_it_refusals_too(log: Log) -> None:
    log.write(*STORY)
    assert [json.loads(one)["type"] for one in log.lines("--json", "--session", "shop")] == [
        "session_created",
        "proposal_created",
        "proposal_decided",
    ]
    assert [one.split()[1] for one in log.lines("--session", "/bar")] == ["service_refused", "session_created"]
    assert log.lines("--session", "sho") == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE leaves SET sealed = zeroblob(200) WHERE position = 69", "changed: leaf 69 of the audit log"),
        ("DELETE FROM leaves WHERE position = 70", "missing: the audit log has 70 leaves, expected 71"),
        ("DELETE FROM leaves WHERE position = 3", "missing: the audit log has no leaf 3"),
        (
            "UPDATE leaves SET sealed = (SELECT sealed FROM leaves WHERE position = 1) WHERE position = 70",
            "swapped: leaf 70 of the audit log holds the bytes of leaf 1",
        ),
        ("UPDATE heads SET seq = seq + 1", "does not verify"),
        ("DELETE FROM heads", "there are rows without a head"),
    ],
)
def test_nothing_is_printed_of_a_log_that_does_not_verify(log: Log, statement: str, says: str) -> None:
    """However far behind what can be printed the change lies."""
    log.write(*STORY, *[(Kind.CAS_EXITED, {})] * 65)
    log.alter(statement)
    code, out, err = log.run()
    assert (code, out, says in err) == (65, "", True), err


def test_a_log_is_read_while_records_do_not_verify(log: Log) -> None:
    """Whoever looks into what happened to the records needs it most then."""
    log.write(*STORY)
    with log.open() as store:
        store.commit([Write(name="a", value=b"1", expected_version=0)], entry(Kind.CAS_EXITED, {}, BEGUN, os.urandom))
    log.alter("DELETE FROM records")
    assert len(log.lines()) == 7


@dataclass(frozen=True, kw_only=True)
class TwoFaced:
    """A snapshot of a database that shows other leaves when it is asked again."""

    view: Snapshot
    later: list[LeafRow]
    asked: list[int]

    def __getattr__(self, name: str) -> object:
        return getattr(self.view, name)

    def leaves(self, since: int = 0) -> Iterator[LeafRow]:
        self.asked.append(since)
        yield from self.view.leaves(since) if len(self.asked) == 1 else self.later


@pytest.mark.parametrize(("leaves", "shown"), [(70, 0), (130, 64), (10, 0)])
def test_a_database_that_changes_its_story_shows_no_other_leaf(
    log: Log, monkeypatch: pytest.MonkeyPatch, leaves: int, shown: int
) -> None:
    """The later leaves are genuine, of another history of the same database, and put in after those already shown."""
    log.write()
    other = Log(data=log.data.with_name("other"), capsys=log.capsys, monkeypatch=log.monkeypatch)
    shutil.copytree(log.data, other.data)
    for history in (log, other):
        history.write(*[(Kind.CAS_EXITED, {})] * leaves)
    key = (log.data / "database.key").read_bytes()
    backend, another = (SqliteBackend(one.data / "records.sqlite") for one in (log, other))
    with closing(backend), closing(another):
        with backend.snapshot() as ours, another.snapshot() as theirs:
            later = [*list(ours.leaves())[:shown], *list(theirs.leaves())[shown:]]
        real = backend.snapshot

        @contextmanager
        def snapshot() -> Iterator[Snapshot]:
            with real() as view:
                yield TwoFaced(view=view, later=later, asked=[])  # type: ignore[misc]

        monkeypatch.setattr(backend, "snapshot", snapshot)
        seen: list[bytes] = []
        with (
            pytest.raises(TamperedError, match=r"the audit log (is another one than when|has another root)"),
            offline.verified_leaves(backend, key, log=Frontier(), progress=Bar("verifying")) as verified,
        ):
            seen.extend(verified)
    assert len(seen) == shown


def test_a_leaf_in_a_form_of_another_release_is_said_to_be_one(log: Log) -> None:
    log.write(STORY[0])
    with log.open() as store:
        store.commit([], b'{"v":2}').result()
    code, out, err = log.run()
    assert (code, len(out.splitlines())) == (1, 1)
    assert "leaf 1 of the audit log is authentic but not in this program's form" in err


def process(log: Log, stdout: int, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ostiary", "store", "log", "--data", str(log.data), *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)},
        stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60,
    )  # fmt: skip


def test_a_reader_who_has_seen_enough_is_no_disaster(log: Log) -> None:
    log.write(*STORY)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = process(log, gone.fileno())
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_disk_is_told(log: Log) -> None:
    log.write(*STORY)
    with Path("/dev/full").open("wb") as full:
        done = process(log, full.fileno())
    assert (done.returncode, done.stderr) == (69, b"ostiary: stdout cannot be written: No space left on device\n")


def test_a_line_cannot_steer_a_terminal_or_pass_for_another_one() -> None:
    data: dict[str, Json] = {"session": "a\x1b[2Jb", "by": "x state=applied", "note": "ä\x7f\u202e", "text": 'a"\nb'}
    assert line(Entry(time="t\n", kind="k", data=data)) == (
        r'"t\n" k "a\u001b[2Jb" by="x state=applied" note="\u00e4\u007f\u202e" text="a\"\nb"'
    )


def test_a_session_named_like_a_hash_is_shown_whole() -> None:
    assert ALICE in line(Entry(time="t", kind="session_created", data={"session": ALICE}))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"session": "a/b"}, True),
        ({"refused": [{"session": "a/b"}]}, True),
        ({"refused": "a/b"}, False),
        ({"refused": [1]}, False),
        ({"session": 1}, False),
        ({}, False),
    ],
)
def test_what_an_entry_is_about(data: Mapping[str, Json], expected: bool) -> None:
    assert is_about(Entry(time="t", kind="k", data=data), "a/b") == expected


def test_the_root_namespace_is_a_session_too() -> None:
    assert is_about(Entry(time="t", kind="k", data={"session": "/"}), "/")
