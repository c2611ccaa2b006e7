"""What a loss of power leaves of the files is opened without a person, and holds what was acknowledged.

SQLite asks for a flush of its log (-wal) before it acknowledges, and of the database before it begins the log anew.
What it wrote since the last flush may be there in part, in any order, sector by sector: each point below is one such
outcome. That disks keep their word about what they flushed cannot be shown here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.unit.store.databases import KEY, SqliteDatabase, begin, over

from ostiary.audit import Frontier
from ostiary.store import Write
from ostiary.store.sqlite import SqliteBackend
from ostiary.store.state import State
from ostiary.store.vault import Vault
from ostiary.store.verification import load

SECTOR_BYTES = 512
LOG_HEADER_BYTES = 32
COMMITS = 24
CUTS = 1500
TORN_LOGS = 1000
TORN_DATABASES = 300
VAULT = Vault(KEY)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The files when a commit was acknowledged. log: the file -wal."""

    state: State
    database: bytes
    log: bytes


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """After each of some commits that make, change and delete records, large ones too; the log begins anew at times."""
    place = SqliteDatabase(tmp_path_factory.mktemp("recorded") / "database")
    log = place.path.with_name(place.path.name + "-wal")
    found: list[Moment] = []
    begin(place).close()
    backend = SqliteBackend(place.path)
    backend._writer.execute("PRAGMA wal_autocheckpoint = 40").fetchall()
    with over(backend) as store:
        for number in range(COMMITS):
            size = 5000 if number % 4 == 0 else 50
            writes = [
                Write(name="changed", value=b"%d" % number, expected_version=number),
                Write(name=f"made {number}", value=bytes(size), expected_version=0),
            ]
            if number >= 3:
                writes.append(Write(name=f"made {number - 3}", value=None, expected_version=number - 2))
            store.commit(writes, b"leaf %d" % number).result()
            found.append(Moment(state=store._state, database=place.path.read_bytes(), log=log.read_bytes()))
    return found


@pytest.fixture
def place() -> Iterator[SqliteDatabase]:
    """In memory where the system has a place for that: nothing here asks whether files are flushed."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield SqliteDatabase(Path(directory) / "recovered")


def recovered(place: SqliteDatabase, database: bytes, log: bytes) -> int:
    """The head that a start finds in these files, every row verified. Raises for anything torn."""
    place.path.write_bytes(database)
    place.path.with_name(place.path.name + "-wal").write_bytes(log)
    place.path.with_name(place.path.name + "-shm").unlink(missing_ok=True)
    backend = SqliteBackend(place.path)
    try:
        with backend.snapshot() as view:
            return load(VAULT, view, backend.place, log=Frontier())[0].head.seq
    finally:
        backend.close()


def differing(old: bytes, new: bytes) -> list[int]:
    """The sectors that were written between two states of a file."""
    starts = range(0, max(len(old), len(new)), SECTOR_BYTES)
    return [at for at in starts if old[at : at + SECTOR_BYTES] != new[at : at + SECTOR_BYTES]]


def partly(old: bytes, new: bytes, arrived: set[int]) -> bytes:
    """The file where only some of the sectors that were written have arrived."""
    length = max([len(old), *(min(at + SECTOR_BYTES, len(new)) for at in arrived)])
    content = bytearray(old.ljust(length, b"\x00"))
    for at in arrived:
        content[at : at + SECTOR_BYTES] = new[at : at + SECTOR_BYTES]
    return bytes(content)


def with_new_header(old: bytes, new: bytes) -> bytes:
    """SQLite flushes the header of a log that it begins anew before it writes anything behind it."""
    return new[:LOG_HEADER_BYTES] + old[LOG_HEADER_BYTES:]


def begins_anew(before: Moment, after: Moment) -> bool:
    return before.log[:LOG_HEADER_BYTES] != after.log[:LOG_HEADER_BYTES]


def test_the_recorded_history_has_what_the_tests_need(moments: list[Moment]) -> None:
    pairs = list(pairwise(moments))
    assert [moment.state.head.seq for moment in moments] == list(range(1, COMMITS + 1))
    assert any(begins_anew(*pair) for pair in pairs)
    assert any(before.database != after.database for before, after in pairs)
    assert all(differing(before.log, after.log) for before, after in pairs)


def test_a_log_cut_anywhere_holds_every_acknowledged_commit_and_no_half_one(
    moments: list[Moment], place: SqliteDatabase
) -> None:
    chance = random.Random(1)
    grown = [pair for pair in pairwise(moments) if len(pair[1].log) > len(pair[0].log) and not begins_anew(*pair)]
    for number in range(CUTS):
        before, after = grown[number % len(grown)]
        start, end = len(before.log), len(after.log)
        # The ends are always among the cuts.
        cut = (start, end, start + 1, end - 1)[number] if number < 4 else chance.randint(start, end)
        expected = after if cut == end else before
        assert recovered(place, before.database, after.log[:cut]) == expected.state.head.seq, f"cut at {cut}"


def test_a_log_of_which_some_sectors_arrived_holds_every_acknowledged_commit_and_no_half_one(
    moments: list[Moment], place: SqliteDatabase
) -> None:
    chance = random.Random(2)
    pairs = list(pairwise(moments))
    whole = 0
    for number in range(TORN_LOGS):
        before, after = pairs[number % len(pairs)]
        sectors = differing(before.log, after.log)
        arrived = {at for at in sectors if chance.random() < chance.choice((0.1, 0.5, 0.9))}
        old = with_new_header(before.log, after.log) if begins_anew(before, after) else before.log
        found = recovered(place, before.database, partly(old, after.log, arrived))
        if arrived == set(sectors):
            whole += 1
            assert found == after.state.head.seq
        else:
            assert found == before.state.head.seq, f"sectors {sorted(arrived)} of {sectors}"
    assert whole < TORN_LOGS / 2


def test_a_database_into_which_the_log_was_copied_in_part_holds_everything(
    moments: list[Moment], place: SqliteDatabase
) -> None:
    """The log is still whole then: SQLite begins it anew only after the database was flushed."""
    chance = random.Random(3)
    copied = [(before, after) for before, after in pairwise(moments) if before.database != after.database]
    for number in range(TORN_DATABASES):
        before, after = copied[number % len(copied)]
        arrived = {at for at in differing(before.database, after.database) if chance.random() < 0.5}
        found = recovered(place, partly(before.database, after.database, arrived), after.log)
        assert found == after.state.head.seq, f"sectors {sorted(arrived)}"


def test_what_was_flushed_and_lost_nevertheless_is_refused_or_an_earlier_whole_state(
    moments: list[Moment], place: SqliteDatabase
) -> None:
    """A disk that lies: no start shows half a commit. That an earlier state is one is for the anchor to tell."""
    last = moments[-1]
    whole = {moment.state.head.seq for moment in moments}
    for cut in range(0, len(last.log), 1999):
        assert recovered(place, last.database, last.log[:cut]) in whole
