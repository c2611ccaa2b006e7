"""Denials in the store: what is kept, what a flood of them costs, and what a restart finds."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.broker.conftest import NOW

from ostiary.audit import Frontier
from ostiary.broker import denial_records
from ostiary.broker.denial_records import (
    FLUSH_PAUSE,
    MAX_CAUSES,
    MAX_DENIALS,
    MAX_NEW,
    MAX_NEW_OF_SESSION,
    MAX_OF_SESSION,
    PERIOD,
    REPEATING,
    DenialRecords,
)
from ostiary.errors import StoreError
from ostiary.store import Store, Write, open_store


@dataclass
class Records:
    """Denials on a real store, under a clock that the test moves."""

    store: Store
    now: datetime = NOW
    records: DenialRecords = field(init=False)
    leaves: list[list[dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listen()
        self.restart()

    def _listen(self) -> None:
        commit = self.store.commit

        def heard(writes: Any, leaf: bytes, **more: Any) -> Any:
            self.leaves.append(json.loads(leaf)["data"].get("refused"))
            return commit(writes, leaf, **more)

        self.store.commit = heard  # type: ignore[method-assign]

    def restart(self) -> None:
        self.records = DenialRecords(self.store, now=lambda: self.now, random=os.urandom)

    def add(self, number: int, session: str = "shop", *, authentic: bool = False, stage: str = "evidence") -> None:
        document = {
            "form": 1,
            "id": f"{number:016x}",
            "session": session,
            "service": "web",
            "stage": stage,
            "times": 1,
            "last_time": "",
            "evidence": {} if authentic else None,
            "reasons": ["no"],
        }
        self.records.add(document, fingerprint=number.to_bytes(32, "big"))

    def add_each(self, *numbers: int) -> None:
        for number in numbers:
            self.add(number)

    def ids(self, session: str = "shop") -> list[int]:
        return [int(document["id"], 16) for document in self.records.of_session(session)]

    def run(self, steps: Callable[[], object]) -> None:
        """Carry out `steps` on an event loop, and settle."""

        async def main() -> None:
            steps()
            self.records.settle()

        asyncio.run(main())

    @property
    def counts(self) -> list[int]:
        """Of each entry, all causes together."""
        return [sum(refused["count"] for refused in leaf) for leaf in self.leaves]

    def wait(self) -> None:
        """Until the store has written everything that it was given."""
        self.store.commit([], b'{"data":{}}').result()
        self.leaves.pop()

    def pass_time(self, time: timedelta) -> None:
        self.wait()
        self.now += time
        self.run(lambda: None)


@pytest.fixture
def denials(tmp_path: Path) -> Iterator[Records]:
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        yield Records(store)


def test_the_first_denial_of_a_cause_is_committed_at_once_with_its_entry(denials: Records) -> None:
    denials.run(lambda: denials.add(1))
    denials.records.close()
    assert denials.leaves == [[{"session": "shop", "service": "web", "cause": "evidence", "count": 1}]]
    assert denials.store.version(f"denial/{1:016x}") is not None
    denials.restart()
    assert denials.ids() == [1]


def test_further_ones_wait_in_memory_where_they_can_be_read(denials: Records) -> None:
    denials.run(lambda: denials.add_each(1, 2, 3))
    denials.run(lambda: denials.add(4))
    assert len(denials.leaves) == 1
    assert denials.counts == [3]
    assert denials.ids() == [4, 3, 2, 1]
    denials.pass_time(FLUSH_PAUSE)
    assert denials.counts == [3, 1]


def test_what_waits_is_committed_by_itself(denials: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """No further denial is needed for it, and nobody waits for it."""
    monkeypatch.setattr(denial_records, "FLUSH_PAUSE", timedelta(milliseconds=1))

    async def main() -> None:
        for number in (1, 2):
            denials.add(number)
            denials.records.settle()
        assert len(denials.leaves) == 1
        denials.now += timedelta(seconds=1)
        for _ in range(1000):
            if len(denials.leaves) == 2:
                return
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert denials.counts == [1, 1]


def test_an_orderly_end_commits_what_waits(denials: Records) -> None:
    denials.run(lambda: denials.add(1))
    denials.run(lambda: denials.add(2))
    denials.records.close()
    denials.restart()
    assert denials.ids() == [2, 1]


def test_a_session_keeps_its_newest_of_each_sort(denials: Records) -> None:
    """Whoever cannot bring evidence drops no denial of somebody who can."""
    denials.run(lambda: denials.add(1000, authentic=True))
    denials.run(lambda: denials.add_each(*range(1, 2 * MAX_OF_SESSION)))
    assert denials.ids() == [*range(2 * MAX_OF_SESSION - 1, MAX_OF_SESSION - 1, -1), 1000]
    assert denials.records.find(f"{1:016x}") is None


def test_all_sessions_together_have_a_bound_and_what_nobody_proved_goes_first(
    denials: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denial_records, "MAX_DENIALS", 4)
    for number, authentic in ((1, True), (2, False), (3, True), (4, False), (5, True)):
        denials.run(partial(denials.add, number, f"s{number}", authentic=authentic))
    assert [number for number in range(1, 6) if denials.ids(f"s{number}")] == [1, 3, 4, 5]
    denials.run(lambda: denials.add(6, "s6", authentic=True))
    denials.run(lambda: denials.add(7, "s7", authentic=True))
    assert [number for number in range(1, 8) if denials.ids(f"s{number}")] == [3, 5, 6, 7]


def test_the_same_denial_again_is_counted_and_not_kept_twice(denials: Records) -> None:
    denials.run(lambda: denials.add(1))
    same = (1).to_bytes(32, "big")
    denials.wait()
    denials.run(lambda: [denials.records.repeated(same) for _ in range(5)])
    (document,) = denials.records.of_session("shop")
    assert document["times"] == 6
    assert len(denials.leaves) == 1
    denials.pass_time(PERIOD)
    assert denials.counts == [1, 5]
    assert denials.records.repeated(same) is None, "after a minute it is another one"
    denials.records.close()
    denials.restart()
    assert denials.records.of_session("shop")[0]["times"] == 6


def test_what_changes_while_it_is_written_is_written_again(denials: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the store is so slow that the next time has come meanwhile."""
    slow: list[Any] = []
    commit = denials.store.commit

    def later(writes: Any, leaf: bytes, **more: Any) -> Any:
        future: Future[Any] = Future()
        slow.append(lambda: future.set_result(commit(writes, leaf, **more).result()))
        return future

    monkeypatch.setattr(denials.store, "commit", later)
    denials.run(lambda: denials.add(1))
    denials.run(lambda: denials.records.repeated((1).to_bytes(32, "big")))
    denials.now += PERIOD
    denials.run(lambda: None)
    assert len(slow) == 1
    assert denials.records.of_session("shop")[0]["times"] == 2
    monkeypatch.setattr(denials.store, "commit", commit)
    slow[0]()
    denials.run(lambda: None)
    denials.records.close()
    denials.restart()
    assert denials.records.of_session("shop")[0]["times"] == 2
    assert denials.counts == [1, 1]


def test_a_flood_is_no_flood_of_commits(denials: Records) -> None:
    """Ten thousand starts in a minute that nobody can prove: a dozen commits, six new records, all of them counted."""
    kept = 0
    for number in range(10_000):
        if number % 100 == 0:
            denials.now += timedelta(milliseconds=500)

        def step(number: int = number) -> None:
            nonlocal kept
            if denials.records.has_room("shop", authentic=False):
                kept += 1
                denials.add(number)
            else:
                denials.records.count(("shop", "web", "evidence"))

        if number % 1000 == 0:
            denials.run(step)
        else:
            step()
    assert kept == MAX_NEW_OF_SESSION
    denials.pass_time(PERIOD)
    assert sum(denials.counts) == 10_000
    assert len(denials.leaves) <= 12


def test_a_flood_at_one_session_leaves_room_for_others_and_for_who_brings_evidence(denials: Records) -> None:
    while denials.records.has_room("shop", authentic=False):
        pass
    assert denials.records.has_room("shop", authentic=True)
    assert denials.records.has_room("other", authentic=False)


def test_all_sessions_together_have_a_rate(denials: Records) -> None:
    kept = sum(denials.records.has_room(f"s{number}", authentic=False) for number in range(MAX_NEW + 50))
    assert kept == MAX_NEW
    assert denials.records.has_room("s0", authentic=True)
    denials.now += PERIOD
    assert denials.records.has_room("s0", authentic=False)


def test_a_clock_that_is_turned_back_shuts_nobody_out_for_long(denials: Records) -> None:
    while denials.records.has_room("shop", authentic=False):
        pass
    denials.now -= timedelta(days=365)
    assert denials.records.has_room("shop", authentic=False)


def test_causes_are_bounded_and_an_entry_has_room_for_some_of_them(denials: Records) -> None:
    for number in range(MAX_CAUSES + 10):
        denials.records.count((f"s{number:03}", "web", "evidence"))
    denials.run(lambda: None)
    for _ in range(MAX_CAUSES):
        denials.wait()
        denials.pass_time(PERIOD)
    assert sum(denials.counts) == MAX_CAUSES
    assert max(len(leaf) for leaf in denials.leaves) == denial_records.MAX_CAUSES_OF_ENTRY
    assert denials.leaves[0][0]["session"] == "s010", "the first ten were forgotten"


def test_the_longest_names_fit_into_an_entry(denials: Records) -> None:
    for number in range(denial_records.MAX_CAUSES_OF_ENTRY):
        denials.records.count((f"{number:0512}", "w" * 512, "configuration"))
    denials.run(lambda: None)
    assert len(denials.leaves[0]) == denial_records.MAX_CAUSES_OF_ENTRY


def test_a_restart_finds_the_order_again(denials: Records) -> None:
    for number in range(1, 6):
        denials.run(partial(denials.add, number))
        denials.pass_time(FLUSH_PAUSE)
    denials.records.close()
    denials.restart()
    assert denials.ids() == [5, 4, 3, 2, 1]
    denials.run(lambda: denials.add(6))
    assert denials.ids()[0] == 6


def test_two_processes_on_one_store_share_the_list(denials: Records) -> None:
    """Who was slower reads what the other one wrote, and writes again."""
    other = DenialRecords(denials.store, now=lambda: denials.now, random=os.urandom)
    denials.run(lambda: denials.add(1))
    denials.wait()
    assert other.find(f"{1:016x}") is not None
    # Both begin from the same list, and the store takes one of them.
    version = denials.store.version
    denials.store.version = lambda name: 0 if name == "denials" else version(name)  # type: ignore[method-assign]
    denials.pass_time(FLUSH_PAUSE)
    stale = DenialRecords(denials.store, now=lambda: denials.now, random=os.urandom)
    ours, denials.records = denials.records, stale
    denials.run(lambda: denials.add(2))
    denials.wait()
    denials.store.version = version  # type: ignore[method-assign]
    assert [kept["id"] for kept in ours.of_session("shop")] == [f"{1:016x}"]
    denials.pass_time(FLUSH_PAUSE)
    denials.wait()
    assert [int(kept["id"], 16) for kept in ours.of_session("shop")] == [2, 1]


def test_a_store_that_fails_for_a_while_gets_the_denials_later(
    denials: Records, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        future: Future[Any] = Future()
        future.set_exception(StoreError("the disk is full"))
        return future

    with monkeypatch.context() as patched:
        patched.setattr(denials.store, "commit", broken)
        denials.run(lambda: denials.add(1))
        assert denials.ids() == [1]
    assert "1 denials could not be stored yet: the disk is full" in caplog.text
    denials.pass_time(FLUSH_PAUSE)
    denials.records.close()
    denials.restart()
    assert denials.ids() == [1]
    assert denials.counts == [1]


def test_after_the_store_was_closed_nothing_is_raised(tmp_path: Path) -> None:
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        denials = Records(store)
        denials.run(lambda: denials.add(1))
        denials.add(2)
    denials.records.close()


def test_a_record_of_a_newer_version_is_refused(denials: Records) -> None:
    write = Write(name="denials", value=b'{"form": 2}', expected_version=0)
    denials.store.commit([write], b'{"data":{}}').result()
    with pytest.raises(StoreError, match="a newer Ostiary wrote it"):
        denials.restart()


def test_the_bounds_bound_the_disk() -> None:
    """What all of them can take in the database: 8 MiB, and an eighth for padding."""
    assert MAX_DENIALS * denial_records.MAX_DENIAL_BYTES == 8 * 1024 * 1024
    assert REPEATING <= PERIOD
