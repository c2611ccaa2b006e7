"""A database and an anchor that fail at random lose nothing that was acknowledged, and leave nothing half done."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from tests.simulators.anchor import AnchorInMemory
from tests.unit.store.databases import Database, begin, over, resume

from ostiary.errors import ConflictError, StoreError, TamperedError
from ostiary.store import Backend, Head, Store, Write
from ostiary.store.backend import Batch, HeadRow, RecordRow, Snapshot

POINTS = 150
NAMES = ("a", "b", "c")


class Failing:
    """The real database. For each call `fate` says what becomes of it: fine, refused, or done and not told."""

    def __init__(self, backend: Backend, fate: Callable[[], str]) -> None:
        self._backend = backend
        self._fate = fate

    @property
    def place(self) -> str:
        return self._backend.place

    def head(self) -> HeadRow | None:
        self._fail("read")
        return self._backend.head()

    def record(self, record_id: bytes) -> RecordRow | None:
        self._fail("read")
        return self._backend.record(record_id)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        self._fail("read")
        return self._backend.snapshot()

    def commit(self, batch: Batch) -> None:
        fate = self._fate()
        if fate == "refused":
            raise StoreError("the database refused")
        self._backend.commit(batch)
        if fate == "not told":
            raise StoreError("the database did not answer")

    def turn(self) -> AbstractContextManager[None]:
        return self._backend.turn()

    def compact(self) -> None:
        self._backend.compact()

    def close(self) -> None:
        self._backend.close()

    def _fail(self, what: str) -> None:
        if self._fate() == "refused":
            raise StoreError(f"no {what}")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_anchor", [False, True])
def test_random_failures_lose_no_acknowledged_commit(database: Database, seed: int, with_anchor: bool) -> None:
    """Where an outcome is open, the commit is found whole or absent; one that was told as not done is absent."""
    chance = random.Random(seed)
    anchor = AnchorInMemory() if with_anchor else None
    begin(database, anchor=anchor).close()
    calm = False

    def fate() -> str:
        return "fine" if calm else chance.choices(["fine", "refused", "not told"], [8, 1, 1])[0]

    store = over(Failing(database.backend(), lambda: "fine"), anchor=anchor)
    backend = store._backend
    assert isinstance(backend, Failing)
    backend._fate = fate
    for number in range(POINTS):
        name = NAMES[number % len(NAMES)]
        calm = True
        before = store.get(name)
        calm = False
        if anchor is not None and chance.random() < 0.1:
            anchor.failures.append(StoreError("the anchor failed"))
        write = Write(name=name, value=b"%d" % number, expected_version=0 if before is None else before.version)
        outcome = result(store.commit([write], b"%d" % number).exception(), chance)
        calm = True
        if anchor is not None:
            anchor.failures.clear()
        store.commit([], b"look").result()
        found = store.get(name)
        stands = found is not None and found.value == b"%d" % number
        assert stands or found == before, "half a commit"
        if outcome != "open":
            assert stands == (outcome == "acknowledged"), outcome
        if chance.random() < 0.05:
            store = reopened(database, store, anchor, fate)
    store.close()
    with resume(database, anchor=anchor) as again:
        assert again.get("a") is not None


def result(error: BaseException | None, chance: random.Random) -> str:
    if error is None:
        return "acknowledged"
    assert isinstance(error, StoreError)
    assert not isinstance(error, ConflictError | TamperedError)
    return "open" if "whether the commit stands is open" in str(error) else "not done"


def reopened(database: Database, store: Store, anchor: AnchorInMemory | None, fate: Callable[[], str]) -> Store:
    store.close()
    if anchor is not None:
        anchor.failures.clear()
    backend = Failing(database.backend(), lambda: "fine")
    again = over(backend, anchor=anchor)
    backend._fate = fate
    return again


Shorten = Callable[[Batch], Batch]
SHORT: dict[str, tuple[Shorten, str]] = {
    "a record was not written": (lambda batch: replace(batch, records=batch.records[:-1]), "older version|missing"),
    "no record was written": (lambda batch: replace(batch, records=()), "older version|missing"),
    "nothing was deleted": (lambda batch: replace(batch, deleted=()), "added"),
    "no leaf was written": (lambda batch: replace(batch, leaves=()), "missing"),
    "only the head was written": (
        lambda batch: replace(batch, records=(), deleted=(), leaves=()),
        "older version|missing",
    ),
    "the bytes are short": (
        lambda batch: replace(
            batch,
            records=tuple(RecordRow(row.id, row.version, row.sealed[:-1]) for row in batch.records),
        ),
        "changed",
    ),
    "the head is short": (
        lambda batch: replace(batch, head=HeadRow(batch.head.seq, batch.head.sealed[:-1])),
        "changed: head",
    ),
}


class Short(Failing):
    """Breaks its promise of whole transactions once: carries out a part and says that it was all."""

    def __init__(self, backend: Backend, shorten: Shorten) -> None:
        super().__init__(backend, lambda: "fine")
        self._shorten: Shorten | None = shorten

    def commit(self, batch: Batch) -> None:
        shorten, self._shorten = self._shorten, None
        super().commit(batch if shorten is None else shorten(batch))


@pytest.mark.parametrize(("shorten", "message"), SHORT.values(), ids=SHORT.keys())
def test_half_a_transaction_is_refused_at_the_next_start(database: Database, shorten: Shorten, message: str) -> None:
    with begin(database) as store:
        put(store, "old", b"1", 0)
        put(store, "gone", b"1", 0)
    store = over(Short(database.backend(), shorten))
    store.commit(
        [
            Write(name="old", value=b"2", expected_version=1),
            Write(name="new", value=b"2", expected_version=0),
            Write(name="gone", value=None, expected_version=2),
        ],
        b"leaf",
    ).result()
    store.close()
    with pytest.raises(TamperedError, match=message):
        resume(database)


def test_transactions_in_another_order_are_not_taken(database: Database) -> None:
    """The second of two names the head of the first, so that it cannot come before."""
    batches: list[Batch] = []

    class Recording(Failing):
        def commit(self, batch: Batch) -> None:
            batches.append(batch)
            super().commit(batch)

    begin(database).close()
    copy = database.copy()
    with over(Recording(database.backend(), lambda: "fine")) as store:
        put(store, "a", b"1", 0)
        put(store, "a", b"2", 1)
    backend = copy.backend()
    with pytest.raises(ConflictError, match="another head than this process knows, expected head 1"):
        backend.commit(batches[1])
    for batch in batches:
        backend.commit(batch)
    with pytest.raises(ConflictError, match="expected head 0"):
        backend.commit(batches[0])
    backend.close()
    assert copy.read() == database.read()


def put(store: Store, name: str, value: bytes, expected: int) -> Head:
    return store.commit([Write(name=name, value=value, expected_version=expected)], b"leaf").result()
