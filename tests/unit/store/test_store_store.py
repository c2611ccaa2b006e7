"""Records in and out, compare-and-set, failures of the database, bounds, the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ostiary.audit import Frontier
from ostiary.errors import ConflictError, StoreError, TamperedError, TooLargeError
from ostiary.store import Backend, Expect, Head, Store, Write
from ostiary.store.backend import Batch, HeadRow, RecordRow, Snapshot
from ostiary.store.sqlite import SqliteBackend
from ostiary.store.store import MAX_COMMIT_BYTES, MAX_COMMIT_CONDITIONS, MAX_COMMIT_WRITES, MAX_WAITING_COMMITS

OpenData = Callable[[], Store]
KEY = bytes(range(32))


def put(store: Store, name: str, value: bytes | None, expected: int = 0, leaf: bytes = b"leaf") -> Head:
    return store.commit([Write(name=name, value=value, expected_version=expected)], leaf).result()


def version(store: Store, name: str) -> int:
    record = store.get(name)
    return 0 if record is None else record.version


def test_a_committed_record_is_read_back(open_data: OpenData) -> None:
    store = open_data()
    put(store, "session/a", b"text")
    record = store.get("session/a")
    assert record is not None
    assert (record.value, record.version) == (b"text", 1)
    assert store.get("session/b") is None


def test_it_survives_a_restart(open_data: OpenData) -> None:
    store = open_data()
    put(store, "a", b"1")
    head = put(store, "a", b"2", expected=1)
    put(store, "gone", b"x")
    put(store, "gone", None, expected=3)
    store.close()
    again = open_data()
    record = again.get("a")
    assert record is not None
    assert (record.value, record.version) == (b"2", 2)
    assert again.get("gone") is None
    assert again.head.seq == head.seq + 2


def test_a_head_moves_with_every_commit_and_names_the_audit_log(open_data: OpenData) -> None:
    store = open_data()
    first = store.head
    head = put(store, "a", b"1", leaf=b"one")
    assert (first.seq, first.log_size, head.seq, head.log_size) == (0, 0, 1, 1)
    assert head.log_root == Frontier().append(b"one").root
    assert head == store.head
    assert head.digest != first.digest


def test_a_commit_may_hold_a_leaf_alone(open_data: OpenData) -> None:
    assert open_data().commit([], b"service refused").result().log_size == 1


@pytest.mark.parametrize(
    ("expected", "message"),
    [(0, "is at version 2, expected none"), (1, "is at version 2, expected version 1"), (3, "expected version 3")],
)
def test_a_write_over_another_version_conflicts(open_data: OpenData, expected: int, message: str) -> None:
    store = open_data()
    put(store, "other", b"")
    put(store, "a", b"1")
    head = store.head
    with pytest.raises(ConflictError, match=message):
        put(store, "a", b"2", expected=expected)
    assert store.head == head


@pytest.mark.parametrize("value", [b"", None])
def test_a_write_to_an_absent_record_conflicts(open_data: OpenData, value: bytes | None) -> None:
    with pytest.raises(ConflictError, match="is absent, expected version 1: read it again"):
        put(open_data(), "a", value, expected=1)


def test_a_commit_is_all_or_nothing(open_data: OpenData) -> None:
    store = open_data()
    put(store, "b", b"1")
    writes = [
        Write(name="a", value=b"new", expected_version=0),
        Write(name="b", value=b"2", expected_version=7),
        Write(name="c", value=b"new", expected_version=0),
    ]
    with pytest.raises(ConflictError):
        store.commit(writes, b"leaf").result()
    assert (store.get("a"), version(store, "b"), store.get("c")) == (None, 1, None)
    assert store.head.log_size == 1


def test_versions_are_never_used_twice_even_after_a_deletion(open_data: OpenData) -> None:
    """Else a writer who read the record before its deletion would overwrite the one made since."""
    store = open_data()
    put(store, "a", b"first")
    put(store, "a", None, expected=1)
    put(store, "a", b"second")
    with pytest.raises(ConflictError, match="is at version 3, expected version 1"):
        put(store, "a", b"lost update", expected=1)


def test_versions_of_many_are_those_of_each(open_data: OpenData) -> None:
    store = open_data()
    put(store, "a", b"first")
    put(store, "b", b"second")
    put(store, "a", None, expected=1)
    put(store, "c", b"third")
    names = ("a", "b", "c", "d")
    assert store.versions(names) == tuple(store.version(name) for name in names) == (None, 2, 4, None)
    assert store.versions(()) == ()
    store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        store.versions(names)


def test_deleting_an_absent_record_changes_no_record(open_data: OpenData) -> None:
    store = open_data()
    put(store, "a", None)
    store.close()
    assert open_data().get("a") is None


def test_two_writes_to_one_name_are_a_mistake_of_the_caller(open_data: OpenData) -> None:
    write = Write(name="a", value=b"", expected_version=0)
    with pytest.raises(ValueError, match="two writes to one name"):
        open_data().commit([write, write], b"leaf")


def test_values_do_not_show_in_a_repr(open_data: OpenData) -> None:
    store = open_data()
    write = Write(name="a", value=b"hunter2", expected_version=0)
    store.commit([write], b"leaf").result()
    assert "hunter2" not in repr(write) + repr(store.get("a"))


def test_names_and_values_do_not_show_in_the_files(open_data: OpenData, data: Path) -> None:
    store = open_data()
    put(store, "session/visible", b"hunter2" * 1000, leaf=b"visible entry")
    store.close()
    content = b"".join(path.read_bytes() for path in data.iterdir() if path.name.startswith("records"))
    assert len(content) > 7000
    assert not any(text in content for text in (b"visible", b"hunter2"))


def test_close_finishes_what_waits_and_then_refuses(open_data: OpenData) -> None:
    store = open_data()
    futures = [store.commit([Write(name=str(n), value=b"", expected_version=0)], b"leaf") for n in range(100)]
    store.close()
    assert all(future.result().seq for future in futures)
    with pytest.raises(StoreError, match="the store is closed"):
        store.get("0")
    with pytest.raises(StoreError, match="the store is closed"):
        store.commit([], b"leaf").result()
    store.close()
    assert version(open_data(), "99") == 100


@pytest.mark.parametrize(("writes", "size"), [(MAX_COMMIT_WRITES + 1, 0), (1, MAX_COMMIT_BYTES)])
def test_a_commit_is_bounded(open_data: OpenData, writes: int, size: int) -> None:
    store = open_data()
    value = bytes(size)
    future = store.commit([Write(name=str(n), value=value, expected_version=0) for n in range(writes)], b"leaf")
    with pytest.raises(TooLargeError, match=f"a commit of {writes} writes and .* bytes, at most"):
        future.result()


class Faulty:
    """The real database with trouble on purpose: each list says, call by call, what to raise (None: nothing)."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.before_commit: list[Exception | None] = []
        self.after_commit: list[Exception | None] = []
        self.on_head: list[Exception | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def place(self) -> str:
        return self._backend.place

    def head(self) -> HeadRow | None:
        raise_next(self.on_head)
        return self._backend.head()

    def record(self, record_id: bytes) -> RecordRow | None:
        return self._backend.record(record_id)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        return self._backend.snapshot()

    def turn(self) -> AbstractContextManager[None]:
        return self._backend.turn()

    def compact(self) -> None:
        self._backend.compact()

    def commit(self, batch: Batch) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        raise_next(self.before_commit)
        self._backend.commit(batch)
        raise_next(self.after_commit)

    def close(self) -> None:
        self._backend.close()


def raise_next(errors: list[Exception | None]) -> None:
    error = errors.pop(0) if errors else None
    if error is not None:
        raise error


def held_up(backend: Faulty, store: Store) -> Future[Head]:
    """A commit in the middle of its transaction, which ends when the gate is opened; later ones wait behind it."""
    backend.entered.clear()
    backend.gate.clear()
    future = store.commit([], b"held up")
    assert backend.entered.wait(30)
    return future


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[Faulty, Store]]:
    backend = Faulty(SqliteBackend(tmp_path / "records.sqlite"))
    with Store.begin(backend, KEY, random=os.urandom, log=Frontier()) as store:
        yield backend, store


DISK_FULL = StoreError("records.sqlite: disk full")


def test_a_failed_transaction_changes_nothing_and_the_store_goes_on(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    put(store, "a", b"1")
    head = store.head
    backend.before_commit = [DISK_FULL]
    with pytest.raises(StoreError, match=r"disk full: nothing was changed") as told:
        put(store, "a", b"2", expected=1)
    assert not told.value.outcome_open
    assert (store.head, version(store, "a")) == (head, 1)
    assert put(store, "a", b"3", expected=1).seq == head.seq + 1


def test_every_commit_of_a_failed_batch_is_told(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    first = held_up(backend, store)
    rest = [store.commit([Write(name="a", value=b"", expected_version=n)], b"leaf") for n in (0, 0, 5)]
    backend.before_commit = [None, DISK_FULL]
    backend.gate.set()
    assert first.result().seq == 1
    errors = [future.exception() for future in rest]
    assert [str(error) for error in errors] == ["records.sqlite: disk full: nothing was changed"] * 3
    assert len({id(error) for error in errors}) == 3
    assert store.head.seq == 1


def test_a_batch_is_one_transaction_and_commits_in_it_see_those_before(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    first = held_up(backend, store)
    rest = [
        store.commit([Write(name="a", value=value, expected_version=expected)], b"leaf")
        for value, expected in ((b"1", 0), (b"2", 0), (b"3", 2), (None, 3), (b"5", 3), (b"6", 0))
    ]
    backend.gate.set()
    first.result()
    assert [type(future.exception()) for future in rest] == [
        type(None),
        ConflictError,
        type(None),
        type(None),
        ConflictError,
        type(None),
    ]
    assert {future.result().seq for future in rest if future.exception() is None} == {2}
    assert version(store, "a") == store.head.log_size == 5


def test_a_commit_that_stands_although_the_database_failed_is_acknowledged(faulty: tuple[Faulty, Store]) -> None:
    """As when the connection breaks after COMMIT: the head tells what became of it."""
    backend, store = faulty
    backend.after_commit = [StoreError("connection lost")]
    assert put(store, "a", b"1").seq == 1
    assert version(store, "a") == 1


def test_an_open_outcome_is_said_and_looked_up_before_the_next_commit(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    backend.after_commit = [StoreError("connection lost")]
    backend.on_head = [StoreError("still no connection")]
    with pytest.raises(StoreError, match="connection lost: whether the commit stands is open, read again") as told:
        put(store, "a", b"1")
    assert told.value.outcome_open
    assert put(store, "a", b"2", expected=1).seq == 2


def test_a_read_looks_an_open_outcome_up(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    put(store, "a", b"1")
    backend.after_commit = [StoreError("connection lost")]
    backend.on_head = [StoreError("still no connection")]
    with pytest.raises(StoreError, match="open, read again"):
        put(store, "a", b"2", expected=1)
    assert version(store, "a") == 2


def test_an_unexpected_error_reaches_the_caller_and_the_writer_lives_on(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    backend.before_commit = [RuntimeError("unexpected")]
    with pytest.raises(StoreError, match="the commit failed: RuntimeError: nothing was changed"):
        put(store, "a", b"1")
    assert put(store, "a", b"1").seq == 1


def test_a_head_that_does_not_verify_stops_everything(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    row = backend.head()
    assert row is not None
    backend.commit(Batch(expected=row, head=HeadRow(row.seq + 1, row.sealed)))
    for _ in range(2):
        with pytest.raises(TamperedError, match=r"changed: head 1 does not verify.*: nothing was changed"):
            put(store, "a", b"1")
        with pytest.raises(TamperedError, match="changed: head 1 does not verify"):
            store.get("a")


def test_a_head_that_does_not_verify_is_found_when_an_outcome_is_open(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    row = backend.head()
    assert row is not None
    backend.on_head = [StoreError("no connection")]
    backend.before_commit = [StoreError("no connection")]
    with pytest.raises(StoreError, match="open, read again"):
        put(store, "a", b"1")
    backend.commit(Batch(expected=row, head=HeadRow(row.seq + 7, row.sealed)))
    with pytest.raises(TamperedError, match="changed: head 7 does not verify"):
        put(store, "a", b"1")


def test_the_queue_is_bounded(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    held_up(backend, store)
    waiting = [store.commit([], b"leaf") for _ in range(MAX_WAITING_COMMITS)]
    with pytest.raises(StoreError, match=f"{MAX_WAITING_COMMITS} commits are waiting for the disk.*try again later"):
        store.commit([], b"leaf").result()
    backend.gate.set()
    assert waiting[-1].result().log_size == MAX_WAITING_COMMITS + 1
    assert store.commit([], b"leaf").result().log_size == MAX_WAITING_COMMITS + 2


def test_a_commit_cancelled_while_it_waits_leaves_no_trace(faulty: tuple[Faulty, Store]) -> None:
    backend, store = faulty
    first = held_up(backend, store)
    second: Future[Head] = store.commit([Write(name="a", value=b"", expected_version=0)], b"leaf")
    assert second.cancel()
    assert not first.cancel()
    backend.gate.set()
    assert first.result().log_size == 1
    assert put(store, "b", b"").log_size == 2
    assert store.get("a") is None


def test_a_history_begins_only_in_an_empty_database(faulty: tuple[Faulty, Store]) -> None:
    backend, _ = faulty
    with pytest.raises(StoreError, match="already holds a store, expected an empty database"):
        Store.begin(backend, KEY, random=os.urandom, log=Frontier())


def test_a_history_resumes_only_where_one_began(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "records.sqlite")
    with pytest.raises(TamperedError, match="missing: the database holds no head"):
        Store.resume(backend, KEY, random=os.urandom, log=Frontier())
    backend.close()


def test_another_key_opens_nothing(faulty: tuple[Faulty, Store]) -> None:
    backend, _ = faulty
    with pytest.raises(TamperedError, match=r"head 0 does not verify; .*put the database's own key in place"):
        Store.resume(backend, bytes(32), random=os.urandom, log=Frontier())


def test_a_log_that_this_program_cannot_read_is_told(tmp_path: Path) -> None:
    class OtherLog(Frontier):
        def encode(self) -> bytes:
            return b"another form"

    backend = SqliteBackend(tmp_path / "records.sqlite")
    log: Frontier = OtherLog()
    Store.begin(backend, KEY, random=os.urandom, log=log).close()
    backend = SqliteBackend(tmp_path / "records.sqlite")
    with pytest.raises(
        StoreError, match=r"head 0 is authentic but not in this program's form: .*: a Merkle frontier of 12"
    ):
        Store.resume(backend, KEY, random=os.urandom, log=Frontier())
    backend.close()


def test_a_commit_may_rest_on_records_that_it_does_not_write(open_data: OpenData) -> None:
    store = open_data()
    put(store, "rule", b"yes")
    write = Write(name="a", value=b"1", expected_version=0)
    store.commit([write], b"leaf", expect=[Expect(name="rule", version=1), Expect(name="none", version=0)]).result()
    assert (version(store, "a"), version(store, "rule"), version(store, "none")) == (2, 1, 0)


@pytest.mark.parametrize(
    ("name", "expected", "message"),
    [
        ("rule", 1, "that the commit rests on is at version 2, expected version 1"),
        ("rule", 0, "is at version 2, expected none"),
        ("absent", 1, "is absent, expected version 1"),
    ],
)
def test_a_commit_that_rests_on_what_no_longer_holds_changes_nothing(
    open_data: OpenData, name: str, expected: int, message: str
) -> None:
    store = open_data()
    put(store, "rule", b"yes")
    put(store, "rule", b"no", expected=1)
    head = store.head
    write = Write(name="a", value=b"1", expected_version=0)
    with pytest.raises(ConflictError, match=message):
        store.commit([write], b"leaf", expect=[Expect(name=name, version=expected)]).result()
    assert store.head == head


def test_a_condition_sees_the_commits_of_its_own_batch(open_data: OpenData) -> None:
    """Two commits that wait together: the second must not rest on what the first replaces."""
    store = open_data()
    put(store, "rule", b"yes")
    with store._lock:
        put_off = [store.commit([Write(name="x", value=b"", expected_version=0)], b"leaf")]
        put_off.append(store.commit([Write(name="rule", value=b"no", expected_version=1)], b"leaf"))
        late = store.commit([], b"leaf", expect=[Expect(name="rule", version=1)])
    for future in put_off:
        future.result()
    with pytest.raises(ConflictError, match="that the commit rests on"):
        late.result()


def test_too_many_conditions_are_refused(open_data: OpenData) -> None:
    expect = [Expect(name="a", version=0)] * (MAX_COMMIT_CONDITIONS + 1)
    with pytest.raises(TooLargeError, match="conditions, at most"):
        open_data().commit([], b"leaf", expect=expect).result()
