"""With an anchor outside, a database put back as a whole is refused, and what is acknowledged cannot be turned back."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

import pytest
from tests.simulators.anchor import AnchorInMemory
from tests.unit.store.databases import Database, Interrupted, begin, over, resume

from ostiary.errors import ConflictError, RollbackError, StoreError, TamperedError
from ostiary.store import Head, Store, Write
from ostiary.store.backend import LeafRow

Opened = Callable[[Store], Store]
DEADLINE_SECONDS = 60.0


@pytest.fixture(params=["digest and log", "number only"])
def anchor(request: pytest.FixtureRequest) -> AnchorInMemory:
    return AnchorInMemory(number_only=request.param == "number only")


@pytest.fixture
def witness() -> AnchorInMemory:
    return AnchorInMemory()


def put(store: Store, name: str, value: bytes | None, expected: int = 0, leaf: bytes = b"leaf") -> Head:
    return store.commit([Write(name=name, value=value, expected_version=expected)], leaf).result()


def value(store: Store, name: str) -> bytes | None:
    record = store.get(name)
    return None if record is None else record.value


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_each_opening_settles_what_it_found_and_then_an_epoch_of_its_own(
    database: Database, anchor: AnchorInMemory
) -> None:
    with begin(database, anchor=anchor) as store:
        assert anchor.settled == [0, 1]
        assert (store.head.seq, store.head.log_size) == (1, 0)
        put(store, "a", b"1")
    with resume(database, anchor=anchor) as store:
        assert anchor.settled == [0, 1, 2, 2, 3]
        assert (store.head.seq, store.head.log_size, value(store, "a")) == (3, 1, b"1")
    assert anchor.closed == 2


def test_a_commit_is_acknowledged_only_once_the_anchor_remembers_it(
    database: Database, anchor: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=anchor))
    anchor.asked.clear()
    anchor.gate.clear()
    future = store.commit([Write(name="a", value=b"1", expected_version=0)], b"leaf")
    assert anchor.asked.wait(DEADLINE_SECONDS)
    assert database.read().heads[0].seq == 2, "the transaction is durable"
    assert not future.done()
    assert store.version("a") is None
    anchor.gate.set()
    assert future.result().seq == anchor.seq == 2
    assert value(store, "a") == b"1"


def test_the_database_is_ahead_of_the_anchor_by_one_transaction_at_most(
    database: Database, anchor: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=anchor))
    ahead: list[int] = []
    settle = anchor.settle

    def look(head: Head, leaves: Callable[[int], object]) -> None:
        ahead.append(database.read().heads[0].seq - anchor.seq)
        settle(head, leaves)  # type: ignore[arg-type]

    anchor.settle = look  # type: ignore[method-assign]
    futures = [store.commit([Write(name=str(n), value=b"", expected_version=0)], b"leaf") for n in range(50)]
    assert all(future.result().seq <= anchor.seq for future in futures)
    assert set(ahead) == {1}


def test_a_whole_database_put_back_is_refused_at_the_start(database: Database, anchor: AnchorInMemory) -> None:
    with begin(database, anchor=anchor) as store:
        past = [database.read()]
        for number in range(3):
            put(store, "a", b"%d" % number, expected=number)
            past.append(database.read())
    newest = past.pop()
    for rows in past:
        database.write(rows)
        with pytest.raises(RollbackError, match=r"older version: head \d, expected 4 or a later one"):
            resume(database, anchor=anchor)
    database.write(newest)
    with resume(database, anchor=anchor) as store:
        assert value(store, "a") == b"2"


def test_a_commit_that_was_never_acknowledged_cannot_be_put_back_later(
    database: Database, anchor: AnchorInMemory
) -> None:
    """A counter alone would take it for the next run's commit of the same number; the epoch is why it does not."""
    store = begin(database, anchor=anchor)
    before = database.read()
    anchor.failures = [StoreError("killed before the anchor moved")]
    with pytest.raises(StoreError, match="killed before"):
        put(store, "a", b"never acknowledged")
    unacknowledged = database.read()
    store.close()
    database.write(before)
    with resume(database, anchor=anchor) as store:
        put(store, "a", b"acknowledged")
    acknowledged = database.read()
    database.write(unacknowledged)
    with pytest.raises(RollbackError):
        resume(database, anchor=anchor)
    database.write(acknowledged)
    with resume(database, anchor=anchor) as store:
        assert value(store, "a") == b"acknowledged"


def test_a_durable_commit_that_the_anchor_does_not_remember_yet_cannot_be_taken_back_under_the_process(
    database: Database, anchor: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=anchor))
    before = database.read()
    anchor.failures = [StoreError("down")]
    with pytest.raises(StoreError, match="down: whether the commit stands is open"):
        put(store, "a", b"1")
    after = database.read()
    database.write(before)
    with pytest.raises(RollbackError, match="older version: the database is at head 1, expected 2"):
        store.get("a")
    with pytest.raises(RollbackError, match="older version: the database is at head 1, expected 2"):
        put(store, "a", b"2")
    database.write(after)
    assert put(store, "a", b"2", expected=1).seq == 3


def test_a_durable_commit_of_a_killed_process_is_kept_by_the_next_one(
    database: Database, anchor: AnchorInMemory
) -> None:
    """The anchor is behind by one transaction, as after a loss of power; nobody has to help."""
    store = begin(database, anchor=anchor)
    anchor.failures = [StoreError("killed")]
    with pytest.raises(StoreError, match="killed: whether the commit stands is open"):
        put(store, "a", b"1")
    assert (database.read().heads[0].seq, anchor.seq) == (2, 1)
    store.close()
    with resume(database, anchor=anchor) as store:
        assert (value(store, "a"), anchor.seq) == (b"1", 3)


def test_a_fork_on_a_copy_is_refused_by_the_one_that_comes_second(
    database: Database, witness: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=witness))
    put(store, "a", b"1")
    copy = database.copy()
    elsewhere = opened(resume(copy, anchor=witness))
    assert put(elsewhere, "a", b"there", expected=1, leaf=b"there").seq == witness.seq == 4
    for _ in range(3):
        with pytest.raises(RollbackError, match=r"(older version|forked): .*"):
            put(store, "a", b"here", expected=1, leaf=b"here")
        with pytest.raises(StoreError):
            store.get("a")
    assert put(elsewhere, "a", b"again there", expected=2).seq == witness.seq == 5


def test_two_processes_on_one_database_share_an_anchor(
    database: Database, witness: AnchorInMemory, opened: Opened
) -> None:
    one = opened(begin(database, anchor=witness))
    other = opened(resume(database, anchor=witness))
    for number in range(0, 20, 2):
        put(one, "a", b"one", expected=number)
        assert value(other, "a") == b"one"
        put(other, "a", b"other", expected=number + 1)
    assert value(one, "a") == b"other"
    assert witness.seq == one.head.seq == other.head.seq


def test_an_anchor_that_fails_in_the_turn_of_one_process_does_not_hold_up_another(
    database: Database, witness: AnchorInMemory, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others wrote meanwhile is settled under the lock, which must not outlive that."""
    monkeypatch.setattr("ostiary.store.store.PATIENT_TRIES", 0)
    one = opened(begin(database, anchor=witness))
    other = opened(resume(database, anchor=witness))
    put(other, "a", b"other")
    witness.failures.append(StoreError("the anchor failed"))
    with pytest.raises(StoreError, match="the anchor failed: nothing was changed"):
        put(one, "b", b"one")
    put(other, "b", b"other")
    with pytest.raises(ConflictError):
        put(one, "b", b"one")
    assert put(one, "c", b"one").log_size == 3


def test_a_process_that_was_overtaken_before_it_could_settle_is_still_acknowledged(
    database: Database, witness: AnchorInMemory, opened: Opened
) -> None:
    """The anchor remembers more than this process asked for; the database shows that this commit is part of it."""
    one = opened(begin(database, anchor=witness))
    other = opened(resume(database, anchor=witness))
    assert one.version("a") is None
    witness.before = [lambda: put(other, "b", b"2")]
    assert put(one, "a", b"1").seq == 3
    assert (value(one, "b"), witness.seq) == (b"2", 4)


def test_an_opening_that_is_overtaken_goes_on_from_there(
    database: Database, witness: AnchorInMemory, opened: Opened
) -> None:
    one = opened(begin(database, anchor=witness))
    for steps in ([1], [None, 1], [1, None, 1], [1, 1, 1]):
        witness.before = [None if step is None else lambda: one.commit([], b"leaf").result() for step in steps]
        other = opened(resume(database, anchor=witness))
        assert other.head.seq <= witness.seq
        assert other.commit([], b"leaf").result().seq == witness.seq


def test_a_history_that_did_not_go_through_a_durable_commit_is_a_fork_before_that_is_acknowledged(
    database: Database, witness: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=witness))
    copy = database.copy()
    with resume(copy) as elsewhere:
        for number in range(3):
            put(elsewhere, "a", b"there", expected=number, leaf=b"there")
    witness.before = [lambda: database.write(copy.read())]
    witness.failures = [RollbackError("the anchor knows another state")]
    with pytest.raises(RollbackError, match=r"forked: .* did not go through head 2, .*: whether the commit stands is"):
        put(store, "a", b"here")
    with pytest.raises(RollbackError, match=r"forked: .* did not go through head 2"):
        store.get("a")


def test_an_opening_whose_epoch_is_overtaken_makes_another(
    database: Database, witness: AnchorInMemory, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(begin(database, anchor=witness))
    backend = Interrupted(database.backend())
    backend.before = [lambda: one.commit([], b"leaf").result()] * 2
    other = opened(over(backend, anchor=witness))
    assert other.head.seq == witness.seq == 4
    assert other.commit([], b"leaf").result().log_size == 3
    monkeypatch.setattr("ostiary.store.store.MAX_OVERTAKEN", 2)
    backend = Interrupted(database.backend())
    backend.before = [lambda: one.commit([], b"leaf").result()] * 2
    with pytest.raises(StoreError, match="were faster 2 times in a row"):
        over(backend, anchor=witness)


def test_what_another_process_wrote_is_shown_only_once_the_anchor_remembers_it(
    database: Database, witness: AnchorInMemory, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.store.ANCHOR_RETRY_SECONDS", DEADLINE_SECONDS)
    one = opened(begin(database, anchor=witness))
    other = opened(resume(database, anchor=witness))
    assert one.version("a") is None
    down = StoreError("the witness is down")
    witness.failures = [down] * 5
    with pytest.raises(StoreError, match="the witness is down: whether the commit stands is open, read again"):
        put(one, "a", b"1")
    with pytest.raises(StoreError, match="the witness is down"):
        other.get("a")
    with pytest.raises(StoreError, match="failed a moment ago, and nothing that it does not remember is shown"):
        other.version("a")
    with pytest.raises(StoreError, match="the witness is down: nothing was changed"):
        put(other, "b", b"")
    with pytest.raises(StoreError, match="failed a moment ago"):
        one.get("a")
    assert other.head.seq < database.read().heads[0].seq
    witness.failures = []
    assert put(other, "b", b"2").log_size == 2
    assert one.commit([], b"leaf").result().log_size == 3
    assert (value(other, "a"), value(one, "b")) == (b"1", b"2")


def test_reads_ask_an_anchor_again_after_a_while(
    database: Database, witness: AnchorInMemory, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.store.ANCHOR_RETRY_SECONDS", 0.0)
    store = opened(begin(database, anchor=witness))
    witness.failures = [StoreError("down"), StoreError("still down")]
    with pytest.raises(StoreError, match="down: whether the commit stands is open"):
        put(store, "a", b"1")
    with pytest.raises(StoreError, match="still down"):
        store.get("a")
    assert value(store, "a") == b"1"


def test_an_anchor_that_fails_at_the_start_stops_it(database: Database, anchor: AnchorInMemory) -> None:
    begin(database).close()
    for failures in ([StoreError("down")], [None, StoreError("down")]):
        anchor.failures = [*failures]
        with pytest.raises(StoreError, match="down"):
            resume(database, anchor=anchor)
    resume(database, anchor=anchor).close()


def test_an_anchor_that_forgot_everything_is_taught_again(database: Database, anchor: AnchorInMemory) -> None:
    """Freshness is only as good as the anchor's memory: nothing can be told after it was replaced."""
    with begin(database, anchor=anchor) as store:
        put(store, "a", b"1")
        anchor.forget()
        assert put(store, "a", b"2", expected=1).seq == anchor.seq
    anchor.forget()
    with resume(database, anchor=anchor) as store:
        assert store.head.seq == anchor.seq


def test_a_new_history_under_an_old_anchor_is_refused(database: Database, witness: AnchorInMemory) -> None:
    """Database and key deleted together must not pass for a first start."""
    copy = database.copy()
    with begin(database, anchor=witness) as store:
        put(store, "a", b"1")
    with pytest.raises(RollbackError, match="older version: head 0, expected 2 or a later one"):
        begin(copy, anchor=witness)


def test_a_database_that_is_turned_back_while_the_anchor_answers_is_refused(
    database: Database, anchor: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=anchor))
    before = database.read()
    newer = resume(database.copy(), anchor=anchor)
    put(newer, "b", b"")
    newer.close()
    anchor.before = [lambda: database.write(before)]
    with pytest.raises(TamperedError, match=r"older version: the database is at head 1, expected 2"):
        put(store, "a", b"1")


def test_who_is_always_overtaken_at_the_anchor_gives_up_in_the_end(
    database: Database, witness: AnchorInMemory, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.store.MAX_OVERTAKEN", 3)
    one = opened(begin(database, anchor=witness))
    other = opened(resume(database, anchor=witness))
    assert one.version("a") is None
    witness.before = [lambda: other.commit([], b"leaf").result()] * 4
    with pytest.raises(StoreError, match="were faster 3 times in a row: try again later: whether the commit stands is"):
        put(one, "a", b"1")
    assert value(one, "a") == b"1"


@pytest.fixture
def bounded(database: Database, anchor: AnchorInMemory, opened: Opened) -> Store:
    """A store in the bounded mode, with a bound that a test can wait for."""
    return opened(begin(database, anchor=anchor, max_lag_seconds=0.2))


def commit_until_refused(store: Store) -> tuple[str, int]:
    """Why the first commit was refused, and the head that was acknowledged last."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    acknowledged = store.head.seq
    while time.monotonic() < deadline:
        try:
            acknowledged = store.commit([], b"leaf").result().seq
        except StoreError as error:
            return str(error), acknowledged
    raise AssertionError("every commit was acknowledged")


def test_bounded_a_commit_is_acknowledged_when_durable_and_the_anchor_follows(
    bounded: Store, anchor: AnchorInMemory
) -> None:
    anchor.gate.clear()
    head = put(bounded, "a", b"1")
    assert (head.seq, anchor.seq, value(bounded, "a")) == (2, 1, b"1")
    anchor.gate.set()
    wait_for(lambda: anchor.seq == 2)


def test_bounded_commits_stop_when_the_anchor_is_too_far_behind_and_go_on_when_it_follows(
    bounded: Store, anchor: AnchorInMemory
) -> None:
    anchor.gate.clear()
    put(bounded, "a", b"1")
    refusal, acknowledged = commit_until_refused(bounded)
    assert re.search(r"has not followed for .* s, at most 0\.2 s are allowed: nothing is committed", refusal)
    assert bounded.head.seq == acknowledged
    assert value(bounded, "a") == b"1"
    anchor.gate.set()
    wait_for(lambda: anchor.seq == acknowledged)
    assert put(bounded, "b", b"").seq == acknowledged + 1


def test_bounded_the_refusal_names_what_is_wrong_with_the_anchor(bounded: Store, anchor: AnchorInMemory) -> None:
    anchor.failures = [StoreError("the witness is down"), RuntimeError("odd")] * 1000
    bounded.commit([], b"leaf").result()
    wait_for(lambda: len(anchor.failures) < 1999)
    refusal, _ = commit_until_refused(bounded)
    assert re.search(r"has not followed .*: (the witness is down|RuntimeError): nothing was changed", refusal)
    anchor.failures = []
    wait_for(lambda: anchor.seq == bounded.head.seq)
    assert bounded.commit([], b"leaf").result()


def test_bounded_a_rollback_that_the_anchor_tells_stops_everything(bounded: Store, anchor: AnchorInMemory) -> None:
    anchor.failures = [RollbackError("forked: told by the anchor")]
    put(bounded, "a", b"1")

    def refused() -> bool:
        try:
            bounded.get("a")
        except RollbackError as error:
            return "forked: told by the anchor" in str(error)
        return False

    wait_for(refused)
    with pytest.raises(RollbackError, match="forked: told by the anchor: nothing was changed"):
        put(bounded, "b", b"")


def test_bounded_being_overtaken_is_no_rollback(database: Database, witness: AnchorInMemory, opened: Opened) -> None:
    stores = [begin(database, anchor=witness, max_lag_seconds=60)]
    stores.append(resume(database, anchor=witness, max_lag_seconds=60))
    one, other = map(opened, stores)
    put(one, "a", b"1")
    put(other, "b", b"2")
    newest = other.head.seq
    other.close()
    assert witness.seq == newest
    one.close()
    assert (witness.seq, witness.settled[-1]) == (newest, newest)


def test_bounded_an_anchor_that_is_always_ahead_is_followed_later(
    database: Database, witness: AnchorInMemory, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begin(database, anchor=witness, max_lag_seconds=60)
    other = opened(resume(database, anchor=witness))
    monkeypatch.setattr("ostiary.store.store.MAX_OVERTAKEN", 3)
    put(one, "a", b"1")
    witness.before = [lambda: other.commit([], b"leaf").result()] * 3
    one.close()
    assert witness.seq == other.head.seq == database.read().heads[0].seq


def test_bounded_the_end_takes_the_anchor_along(database: Database, anchor: AnchorInMemory) -> None:
    with begin(database, anchor=anchor, max_lag_seconds=3600) as store:
        put(store, "a", b"1")
        assert anchor.seq == 1
    assert (anchor.seq, anchor.closed) == (2, 1)
    store = resume(database, anchor=anchor, max_lag_seconds=3600)
    put(store, "a", b"2", expected=1)
    anchor.failures = [StoreError("down")]
    store.close()
    assert (anchor.seq, database.read().heads[0].seq) == (3, 4)
    with resume(database, anchor=anchor) as store:
        assert (value(store, "a"), anchor.seq) == (b"2", 5)


def test_bounded_a_rollback_within_the_bound_is_the_price_and_an_older_one_is_refused(
    database: Database, anchor: AnchorInMemory
) -> None:
    store = begin(database, anchor=anchor, max_lag_seconds=0.2)
    first = database.read()
    put(store, "a", b"1")
    wait_for(lambda: anchor.seq == 2)
    anchored = database.read()
    anchor.failures = [StoreError("down")] * 1000
    put(store, "a", b"2", expected=1)
    store.close()
    anchor.failures = []
    database.write(first)
    with pytest.raises(RollbackError, match="older version"):
        resume(database, anchor=anchor)
    database.write(anchored)
    with resume(database, anchor=anchor) as store:
        assert value(store, "a") == b"1"


def test_many_threads_under_a_slow_anchor_are_all_acknowledged_in_order(
    database: Database, anchor: AnchorInMemory, opened: Opened
) -> None:
    store = opened(begin(database, anchor=anchor))
    anchor.before = [lambda: time.sleep(0.005)] * 1000
    futures: list[Future[Head]] = []

    def work(number: int) -> None:
        for turn in range(5):
            write = Write(name=f"{number} {turn}", value=b"", expected_version=0)
            future = store.commit([write], b"leaf")
            assert future.result().seq <= anchor.seq
            futures.append(future)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(futures) == 40
    assert store.head.log_size == 40


def test_leaves_of_a_fork_do_not_satisfy_an_anchor_that_checks_the_log(
    database: Database, witness: AnchorInMemory, opened: Opened
) -> None:
    """Genuine in their places, but not those of the log that the head commits to."""
    store = opened(begin(database, anchor=witness))
    elsewhere = opened(resume(database.copy()))
    put(store, "a", b"1", leaf=b"here")
    put(elsewhere, "a", b"1", leaf=b"there")
    witness.forget()
    rows = database.read()
    mixed = replace(rows, leaves=elsewhere_leaves(elsewhere))

    witness.before = [lambda: database.write(mixed)]
    with pytest.raises(RollbackError):
        put(store, "b", b"2")


def elsewhere_leaves(store: Store) -> tuple[LeafRow, ...]:
    with store._backend.snapshot() as view:
        return tuple(view.leaves())
