"""Several processes on one database: each sees what the others acknowledged, and nobody's update is lost.

Two stores in one process stand for two processes: they share nothing but the database.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import count

import pytest
from tests.unit.store.databases import KEY, Database, Interrupted, begin, over, resume

from ostiary.errors import ConflictError, RollbackError, StoreError, TamperedError
from ostiary.store import Expect, Head, Store, Write
from ostiary.store.backend import Deletion, RecordRow
from ostiary.store.store import PATIENT_TRIES
from ostiary.store.vault import Vault

Opened = Callable[[Store], Store]
Pair = tuple[Store, Store]


@pytest.fixture
def pair(database: Database, opened: Opened) -> Pair:
    return opened(begin(database)), opened(resume(database))


def put(store: Store, name: str, value: bytes | None, expected: int = 0, leaf: bytes = b"leaf") -> Head:
    return store.commit([Write(name=name, value=value, expected_version=expected)], leaf).result()


def value(store: Store, name: str) -> bytes | None:
    record = store.get(name)
    return None if record is None else record.value


def test_a_commit_of_one_process_is_what_the_next_read_of_another_sees(pair: Pair) -> None:
    one, other = pair
    for number in range(20):
        put(one, "a", b"%d" % number, expected=number)
        assert (value(other, "a"), other.version("a")) == (b"%d" % number, number + 1)
    assert other.head == one.head


def test_what_a_store_knows_moves_with_a_look_or_a_commit_of_its_own_and_not_before(pair: Pair) -> None:
    """Who decides by it commits on it: the condition is one on what all processes wrote."""
    one, other = pair
    first = Expect(name="a", version=1)
    put(one, "a", b"1")
    assert (one.known_version("a"), one.holds([first])) == (1, True)
    assert (other.known_version("a"), other.holds([first]), other.holds([])) == (None, False, True)
    assert other.holds([Expect(name="a", version=0)])
    with pytest.raises(ConflictError, match="that the commit rests on is at version 1, expected none"):
        other.commit([], b"leaf", expect=[Expect(name="a", version=0)]).result()
    assert other.known_version("a") == 1, "whoever was told of a conflict finds out why"
    put(one, "a", b"2", expected=1)
    assert other.known_version("a") == 1
    other.look()
    assert (other.known_version("a"), other.holds([first])) == (2, False)
    put(one, "a", None, expected=2)
    put(other, "b", b"1")
    assert other.known_version("a") is None


def test_reads_of_a_block_share_the_look_that_it_begins_with(pair: Pair) -> None:
    one, other = pair
    put(one, "a", b"1")
    with other.one_look():
        assert value(other, "a") == b"1", "what was acknowledged before the block is seen"
        put(one, "b", b"1")
        assert (other.version("b"), other.versions(["a", "b"])) == (None, (1, None))
        found: list[int | None] = []
        beside = threading.Thread(target=lambda: found.append(other.version("b")))
        beside.start()
        beside.join()
        assert found == [2], "other threads look for themselves"
    put(one, "c", b"1")
    assert other.version("c") == 3, "after the block each read looks again"


def test_a_record_that_moves_in_a_block_is_read_as_it_is_then(pair: Pair) -> None:
    one, other = pair
    put(one, "a", b"1")
    with other.one_look():
        put(one, "a", b"2", expected=1)
        assert value(other, "a") == b"2"
        assert other.version("a") == 2


def test_a_block_that_fails_ends_the_look_too(pair: Pair) -> None:
    one, other = pair
    with pytest.raises(InterruptedError), other.one_look():
        raise InterruptedError
    put(one, "a", b"1")
    assert other.version("a") == 1


def test_a_block_over_a_store_that_is_closed_is_refused(pair: Pair) -> None:
    _, other = pair
    other.close()
    with pytest.raises(StoreError, match="the store is closed"), other.one_look():
        pass


def test_the_processes_take_turns_without_a_read_in_between(pair: Pair) -> None:
    one, other = pair
    for number in range(0, 20, 2):
        put(one, "a", b"one", expected=number)
        put(other, "a", b"other", expected=number + 1)
    assert (value(one, "a"), one.version("a"), one.head) == (b"other", 20, other.head)


def test_a_write_over_what_another_process_wrote_conflicts(pair: Pair) -> None:
    one, other = pair
    put(one, "a", b"1")
    with pytest.raises(ConflictError, match="is at version 1, expected none"):
        put(other, "a", b"2")
    put(one, "a", b"3", expected=1)
    with pytest.raises(ConflictError, match="is at version 2, expected version 1"):
        put(other, "a", b"4", expected=1)
    assert put(other, "a", b"5", expected=2).log_size == 3


def test_a_condition_on_what_another_process_changed_does_not_hold(pair: Pair) -> None:
    one, other = pair
    put(one, "rule", b"yes")
    assert other.version("rule") == 1
    put(one, "rule", b"no", expected=1)
    with pytest.raises(ConflictError, match="that the commit rests on is at version 2, expected version 1"):
        other.commit([], b"leaf", expect=[Expect(name="rule", version=1)]).result()


def test_a_deletion_of_one_process_is_seen_by_another(pair: Pair) -> None:
    one, other = pair
    put(one, "a", b"1")
    put(one, "b", b"2")
    assert value(other, "a") == b"1"
    put(one, "a", None, expected=1)
    assert (value(other, "a"), other.version("a"), value(other, "b")) == (None, None, b"2")
    put(one, "a", b"again")
    put(one, "b", None, expected=2)
    put(one, "short-lived", b"")
    put(one, "short-lived", None, expected=6)
    assert (value(other, "a"), value(other, "b"), value(other, "short-lived")) == (b"again", None, None)
    assert put(other, "b", b"").log_size == 8


def test_a_conflict_is_not_told_where_another_process_has_just_deleted_the_record(pair: Pair) -> None:
    one, other = pair
    put(one, "a", b"1")
    assert other.version("a") == 1
    put(one, "a", None, expected=1)
    assert put(other, "a", b"2").log_size == 3


def test_who_missed_hints_that_are_forgotten_reads_everything_and_goes_on(
    pair: Pair, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.stage.REMEMBERED_DELETIONS", 2)
    one, other = pair
    for number in range(5):
        put(one, str(number), b"")
    assert other.version("4") == 5
    for number in range(5):
        put(one, str(number), None, expected=number + 1)
    put(one, "new", b"1")
    assert [hint.version for hint in database.read().deletions] == [9, 10]
    assert [other.version(str(number)) for number in range(5)] == [None] * 5
    assert value(other, "new") == b"1"
    assert put(other, "0", b"").log_size == 12


@pytest.mark.parametrize("lie", ["dropped", "made up", "old one kept"])
def test_a_hint_that_the_holder_of_the_database_changed_misleads_nobody(
    pair: Pair, database: Database, lie: str
) -> None:
    one, other = pair
    for name in ("a", "b"):
        put(one, name, b"1")
    assert other.version("b") == 2
    put(one, "a", None, expected=1)
    rows = database.read()
    ids = Vault(KEY).keys
    deletions = {
        "dropped": (),
        "made up": (*rows.deletions, Deletion(ids.id_of("b"), 3)),
        "old one kept": (*rows.deletions, Deletion(ids.id_of("b"), 1)),
    }[lie]
    database.write(replace(rows, deletions=deletions))
    assert (value(other, "a"), value(other, "b")) == (None, b"1")
    assert put(other, "b", b"2", expected=2).log_size == 4


def test_a_picked_up_record_that_was_changed_is_refused_by_name(pair: Pair, database: Database) -> None:
    one, other = pair
    put(one, "a", b"1")
    rows = database.read()
    record = rows.records[0]
    changed = record.sealed[:-1] + bytes([record.sealed[-1] ^ 1])
    database.write(replace(rows, records=(RecordRow(record.id, record.version, changed),)))
    for _ in range(2):
        with pytest.raises(TamperedError, match=r"changed: record .* does not verify"):
            other.get("a")
        with pytest.raises(TamperedError, match=r"changed: record .* does not verify.*: nothing was changed"):
            put(other, "b", b"")
    database.write(rows)
    assert value(other, "a") == b"1"


def test_a_picked_up_leaf_that_was_changed_is_refused_by_name(pair: Pair, database: Database) -> None:
    one, other = pair
    put(one, "a", b"1")
    put(one, "b", b"1")
    rows = database.read()
    database.write(replace(rows, leaves=rows.leaves[:1]))
    with pytest.raises(TamperedError, match="missing: the audit log has 1 leaves, expected 2"):
        other.get("a")
    database.write(replace(rows, leaves=rows.leaves[1:]))
    with pytest.raises(TamperedError, match="missing: the audit log has no leaf 0"):
        other.get("a")


def test_a_head_below_the_one_seen_is_a_rollback(pair: Pair, database: Database) -> None:
    one, other = pair
    put(one, "a", b"1")
    before = database.read()
    put(one, "a", b"2", expected=1)
    assert other.version("a") == 2
    after = database.read()
    database.write(before)
    for store in (one, other):
        with pytest.raises(
            RollbackError, match=r"older version: the database is at head 1, expected 2 or a later one.*was put back"
        ):
            store.get("a")
        with pytest.raises(RollbackError, match=r"older version: .*: nothing was changed"):
            put(store, "b", b"")
    database.write(after)
    assert value(other, "a") == b"2"


def test_another_head_of_the_same_number_is_a_fork(database: Database, opened: Opened) -> None:
    store = opened(begin(database))
    put(store, "a", b"1")
    copy = database.copy()
    put(store, "a", b"2", expected=1)
    elsewhere = opened(resume(copy))
    put(elsewhere, "a", b"2", expected=1)
    database.write(copy.read())
    with pytest.raises(RollbackError, match="forked: the database has another head 2 than this process has seen"):
        store.get("a")


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_a_longer_history_that_did_not_go_through_the_known_head_is_a_fork(
    database: Database, opened: Opened, ahead: int
) -> None:
    """Also where each leaf is the same: what was acknowledged here is not there."""
    store = opened(begin(database))
    put(store, "kept", b"1")
    copy = database.copy()
    put(store, "a", b"here")
    elsewhere = opened(resume(copy))
    put(elsewhere, "a", b"there")
    for number in range(ahead):
        put(elsewhere, f"more {number}", b"")
    database.write(copy.read())
    for attempt in (lambda: value(store, "kept"), lambda: put(store, "b", b"")):
        with pytest.raises(RollbackError, match="forked: the database has a history that did not go through head 2"):
            attempt()


def test_a_longer_history_with_another_log_is_a_fork(database: Database, opened: Opened) -> None:
    store = opened(begin(database))
    put(store, "a", b"1")
    copy = database.copy()
    put(store, "a", b"2", expected=1, leaf=b"here")
    elsewhere = opened(resume(copy))
    put(elsewhere, "a", b"2", expected=1, leaf=b"there")
    put(elsewhere, "a", b"3", expected=2)
    put(elsewhere, "a", b"4", expected=3)
    database.write(copy.read())
    with pytest.raises(RollbackError, match="forked: the database has a history that did not go through head 2"):
        store.get("a")


def test_a_fork_at_the_very_next_head_is_found_by_the_digest_it_names(database: Database, opened: Opened) -> None:
    """The same leaves, the same records in the end: only the head's memory of the one before tells them apart."""
    store = opened(begin(database))
    copy = database.copy()
    put(store, "a", b"here")
    elsewhere = opened(resume(copy))
    put(elsewhere, "a", b"there")
    put(elsewhere, "a", None, expected=1)
    database.write(copy.read())
    with pytest.raises(RollbackError, match="forked: the database has a history that did not go through head 1"):
        store.get("a")


@pytest.fixture
def interrupted(database: Database, opened: Opened) -> tuple[Interrupted, Store, Store]:
    other = opened(begin(database))
    backend = Interrupted(database.backend())
    return backend, opened(over(backend)), other


def lose_connection() -> None:
    raise StoreError("connection lost")


def test_a_commit_that_was_overtaken_between_check_and_transaction_is_checked_again(
    interrupted: tuple[Interrupted, Store, Store],
) -> None:
    backend, store, other = interrupted
    backend.before = [lambda: put(other, "other", b"")]
    assert put(store, "a", b"1").log_size == 2
    backend.before = [lambda: put(other, "a", b"faster", expected=2)]
    with pytest.raises(ConflictError, match="is at version 3, expected version 2"):
        put(store, "a", b"slower", expected=2)
    assert value(store, "a") == b"faster"


def test_a_commit_that_stands_under_those_of_others_is_acknowledged_although_the_answer_was_lost(
    interrupted: tuple[Interrupted, Store, Store],
) -> None:
    backend, store, other = interrupted

    def go_on_and_lose_connection() -> None:
        put(other, "a", b"2", expected=1)
        lose_connection()

    backend.after = [go_on_and_lose_connection]
    assert put(store, "a", b"1").log_size == 1
    assert value(store, "a") == b"2"


def test_a_commit_in_whose_place_another_stands_is_told_as_not_done(
    interrupted: tuple[Interrupted, Store, Store],
) -> None:
    backend, store, other = interrupted

    def let_other_and_lose_connection() -> None:
        put(other, "a", b"other")
        lose_connection()

    backend.before = [let_other_and_lose_connection]
    with pytest.raises(StoreError, match="connection lost: nothing was changed"):
        put(store, "a", b"1")
    assert value(store, "a") == b"other"


def test_who_is_always_overtaken_gives_up_in_the_end(
    interrupted: tuple[Interrupted, Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.store.MAX_OVERTAKEN", 3)
    backend, store, other = interrupted
    numbers = count()
    backend.before = [lambda: put(other, str(next(numbers)), b"")] * 3
    with pytest.raises(StoreError, match=r"were faster 3 times in a row: try again later: nothing was changed"):
        put(store, "a", b"1")
    assert put(store, "a", b"1").log_size == 4


def test_who_was_overtaken_often_enough_gets_its_turn(interrupted: tuple[Interrupted, Store, Store]) -> None:
    backend, store, other = interrupted
    numbers = count()
    late: list[Future[Head]] = []

    def start_another() -> None:
        late.append(other.commit([Write(name="late", value=b"", expected_version=0)], b"leaf"))

    backend.before = [*[lambda: put(other, str(next(numbers)), b"")] * PATIENT_TRIES, start_another]
    assert put(store, "a", b"1").log_size == PATIENT_TRIES + 1
    assert late[0].result().log_size == PATIENT_TRIES + 2


def test_a_read_that_is_overtaken_sees_what_overtook_it(interrupted: tuple[Interrupted, Store, Store]) -> None:
    backend, store, other = interrupted
    put(store, "a", b"1")
    backend.on_record = [lambda: put(other, "a", b"2", expected=1)]
    assert value(store, "a") == b"2"
    backend.on_record = [lambda: put(other, "a", b"3", expected=2), lambda: put(other, "a", b"4", expected=3)]
    assert value(store, "a") == b"4"
    backend.on_record = [lambda: put(other, "a", None, expected=4)]
    assert store.get("a") is None


def test_a_read_that_is_always_overtaken_gives_up_in_the_end(
    interrupted: tuple[Interrupted, Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.store.MAX_OVERTAKEN", 3)
    backend, store, other = interrupted
    put(store, "a", b"1")
    versions = count(1)
    backend.on_record = [lambda: put(other, "a", b"", expected=next(versions))] * 4
    with pytest.raises(StoreError, match="were faster 3 times in a row: try again later"):
        store.get("a")
    assert store.version("a") == 5


PROCESSES = 4
WRITERS = 4
SECONDS = 3.0
NAMES = [f"counter {number}" for number in range(20)]


def increment_until(store: Store, deadline: float, first: int) -> int:
    """Read, add one, write if nobody was faster, else again. Returns how often that was acknowledged."""
    done = 0
    for turn in count(first):
        name = NAMES[turn % len(NAMES)]
        while time.monotonic() < deadline:
            record = store.get(name)
            number, version = (0, 0) if record is None else (int(record.value), record.version)
            leaf = json.dumps([name, number + 1]).encode()
            try:
                put(store, name, b"%d" % (number + 1), version, leaf)
            except ConflictError:
                continue
            done += 1
            break
        else:
            return done
    raise AssertionError("count ends never")


def run_writers(database: Database, pipe: int, number: int) -> None:
    """One process: WRITERS threads over one store; the pipe gets what each did, or why it failed."""
    report: list[int | str] = []

    def work(writer: int) -> None:
        try:
            report.append(increment_until(store, deadline, 7 * writer + 3 * number))
        except BaseException as error:
            report.append(repr(error))
            raise

    with resume(database) as store:
        deadline = time.monotonic() + SECONDS
        threads = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    os.write(pipe, json.dumps(report).encode() + b"\n")


@pytest.mark.parametrize("patience", [PATIENT_TRIES, 0], ids=["as they come", "each in its turn"])
def test_sixteen_writers_in_four_processes_lose_no_update_and_make_one_history(
    database: Database, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    monkeypatch.setattr("ostiary.store.store.PATIENT_TRIES", patience)
    begin(database).close()
    reader, writer = os.pipe()
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            try:
                run_writers(database, writer, number)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            reports = [json.loads(line) for line in pipe]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * PROCESSES
        children.clear()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    done = [number for report in reports for number in report]
    assert len(done) == PROCESSES * WRITERS
    assert all(isinstance(number, int) and number > 0 for number in done)
    leaves = leaves_of(database)
    assert len(leaves) == sum(done), "each acknowledged commit has its leaf, and nothing else has one"
    counters = dict.fromkeys(NAMES, 0)
    for name, number in map(json.loads, leaves):
        counters[name] += 1
        assert number == counters[name], "an update was lost, or is there twice"
    with resume(database) as store:
        assert {name: int(value(store, name) or b"0") for name in NAMES} == counters
        assert store.head.log_size == len(leaves)


def leaves_of(database: Database) -> list[bytes]:
    vault = Vault(KEY)
    return [vault.unseal_leaf(row) for row in database.read().leaves]
