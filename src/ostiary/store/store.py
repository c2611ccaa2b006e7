"""The store: sealed records under compare-and-set, one audit leaf a commit, one linear history.

One thread writes. It takes what is waiting, checks each commit against the state and those before it, and makes all
that hold durable in one transaction with one new head. Everything that callers see moves only afterwards. Where another
process was faster, its changes are picked up, and what waits is checked anew.

Invariants:
  - `_state` and `_index` always belong together and to a durable head, which in the strict mode the anchor remembers;
    they change only in `_publish`, under `_lock`, which the writer also holds while a transaction is under way;
  - `_ahead` is what is known to be durable and not shown yet, because the anchor does not remember it. The database
    must be there or further: no head is accepted that is earlier, or did not go through the newest known one;
  - a future has its result only after the transaction is durable (strict: and the anchor moved), or known not to count;
  - each read, or each block of `one_look`, begins with a look at the database's head. It sees every commit that any
    process acknowledged before, with one exception: while this process's own transaction is under way, a read may still
    see the state before it.

Not detected without an anchor: that the whole database was put back to an earlier state of its own while no process
had it open. Every part of such a state is authentic; only an anchor outside the database can tell.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from ostiary.errors import ConflictError, OstiaryError, RollbackError, StoreError, TamperedError, TooLargeError
from ostiary.store.backend import Backend, Batch, HeadRow, LeafRow, RecordRow
from ostiary.store.box import NONCE_BYTES
from ostiary.store.freshness import Anchor
from ostiary.store.log import LeafLog
from ostiary.store.pickup import PickedUp, pick_up, require_forward
from ostiary.store.record import Expect, Head, Record, Write
from ostiary.store.stage import Condition, Stage, Target
from ostiary.store.state import FIRST_PREVIOUS, State, seal_state
from ostiary.store.trailing import Trailing
from ostiary.store.vault import Vault, entry_version, index_entry
from ostiary.store.verification import load

MAX_COMMIT_BYTES = 32 * 1024 * 1024
MAX_COMMIT_WRITES = 4096
MAX_COMMIT_CONDITIONS = 4096
MAX_BATCH_COMMITS = 512
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_WAITING_COMMITS = 4096
MAX_WAITING_BYTES = 128 * 1024 * 1024
PATIENT_TRIES = 8
"""How often a commit tries its luck against other processes before it asks for its turn."""
MAX_OVERTAKEN = 1000
"""How often in a row other processes may be faster before a commit or a read gives up."""
GATHER_SECONDS = 0.001
"""How long the writer waits for more commits when the transaction before carried several; one alone never waits."""
ANCHOR_RETRY_SECONDS = 1.0
"""After the anchor failed, for how long reads that need it fail at once instead of asking it again."""


class _Waiting:
    """A commit in the queue. size: bytes of its values and its leaf."""

    __slots__ = ("conditions", "future", "leaf", "size", "targets")

    def __init__(self, targets: tuple[Target, ...], conditions: tuple[Condition, ...], leaf: bytes) -> None:
        self.targets = targets
        self.conditions = conditions
        self.leaf = leaf
        self.size = len(leaf) + sum(len(target.value) for target in targets if target.value is not None)
        self.future: Future[Head] = Future()


class _Thread(threading.local):
    """What is true of one thread. has_looked: it is in a block of `one_look`."""

    has_looked = False


class _OpenOutcomeError(Exception):
    """Whether a transaction stands is not known, or it stands and the anchor does not remember it. cause: why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class Store:
    """Records by name. Made by `Store.begin` or `Store.resume`; safe to use from any thread, not after a fork.

    Any number of processes may have stores on one database. A store owns its backend and anchor: `close` closes both.
    As a context manager it closes at the end of the block.
    """

    def __init__(
        self,
        vault: Vault,
        backend: Backend,
        state: State,
        index: dict[bytes, bytes],
        *,
        random: Callable[[int], bytes],
        log: LeafLog,
        anchor: Anchor | None,
        max_lag_seconds: float,
    ) -> None:
        self._vault = vault
        self._backend = backend
        self._random = random
        self._empty = log
        self._state = state
        self._index = index
        self._ahead: PickedUp | None = None
        self._in_flight: HeadRow | None = None
        self._anchor = anchor
        self._anchor_failed_at = -math.inf
        self._trailing: Trailing | None = None
        self._thread = _Thread()
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._wanted = 1
        self._closing = False
        self._wake = threading.Condition()
        if anchor is not None:
            self._begin_epoch()
            if max_lag_seconds > 0:
                self._trailing = Trailing(
                    partial(self._follow, anchor), place=anchor.place, max_lag_seconds=max_lag_seconds
                )
        self._writer = threading.Thread(target=self._write_until_closed, name="ostiary-store", daemon=True)
        self._writer.start()

    @classmethod
    def begin(
        cls,
        backend: Backend,
        database_key: bytes,
        *,
        random: Callable[[int], bytes],
        log: LeafLog,
        anchor: Anchor | None = None,
        max_lag_seconds: float = 0.0,
    ) -> Self:
        """Start a new history in an empty database. log: the empty audit log. anchor, max_lag_seconds: as `resume`.

        Returns once the first head is durable. Raises StoreError if the database has a head already; RollbackError if
        the anchor remembers a history.
        """
        vault = Vault(database_key)
        state = seal_state(
            vault, seq=0, total=0, records=0, previous=FIRST_PREVIOUS, log=log, nonce=random(NONCE_BYTES)
        )
        try:
            backend.commit(Batch(expected=None, head=state.row))
        except ConflictError as error:
            raise StoreError(
                f"{backend.place}: already holds a store, expected an empty database: open it instead"
            ) from error
        return cls(vault, backend, state, {}, random=random, log=log, anchor=anchor, max_lag_seconds=max_lag_seconds)

    @classmethod
    def resume(
        cls,
        backend: Backend,
        database_key: bytes,
        *,
        random: Callable[[int], bytes],
        log: LeafLog,
        anchor: Anchor | None = None,
        max_lag_seconds: float = 0.0,
    ) -> Self:
        """Go on with the history in the database, after reading and verifying every row. log: the empty audit log.

        anchor: what remembers the history outside, None: nothing does. max_lag_seconds: by how much it may be behind
        what is acknowledged; 0 is the strict mode, in which a commit is acknowledged only once the anchor remembers it.

        Guarantees that the rows are exactly those the head was made over. With an anchor: that it did not remember a
        newer state than this head or another history, and that it remembers an epoch head of this very opening; without
        one not that this head is the newest there ever was.
        Raises TamperedError, whose message names the kind of change; RollbackError for what the anchor tells; or
        StoreError for trouble of the database or the anchor. The caller still owns both then.
        """
        vault = Vault(database_key)
        with backend.snapshot() as view:
            state, index = load(vault, view, backend.place, log=log)
        return cls(vault, backend, state, index, random=random, log=log, anchor=anchor, max_lag_seconds=max_lag_seconds)

    @property
    def head(self) -> Head:
        """The newest state that this process knows and may show."""
        return self._state.head

    @property
    def records(self) -> int:
        """How many records the newest durable state has, whichever process made it. Raises as `get`."""
        self._look()
        return self._state.records

    def get(self, name: str) -> Record | None:
        """The record's newest durable version, whichever process wrote it; None if there is none.

        Guarantees that the bytes are those committed last under this name: id, version and SHA-256 of the sealed bytes
        are compared with the index before they are unsealed.
        Raises TamperedError, naming the kind of change, if the database gives anything else, RollbackError for an
        earlier state or another history than this process has seen; StoreError if database or anchor give nothing.
        """
        self._look()
        record_id = self._vault.id_of(name)
        entry = self._index.get(record_id)
        if entry is None:
            return None
        row = self._backend.record(record_id)
        if row is None or index_entry(row) != entry:
            # Either somebody has just committed, or the database lies; with nobody in between it must agree.
            row = self._require_row(record_id)
        return None if row is None else Record(version=row.version, value=self._vault.unseal_record(row))

    def version(self, name: str) -> int | None:
        """The version of the record that `get` would return, without reading it; None if there is none.

        Guarantees that a value which `get` returned earlier with this version is still the newest durable one.
        Raises as `get`.
        """
        self._look()
        return self.known_version(name)

    def known_version(self, name: str) -> int | None:
        """The version by what this store knows of the database: as of its last look or commit, whatever came since.

        For whoever has a commit expect this version, or has just looked. Raises nothing.
        """
        entry = self._index.get(self._vault.id_of(name))
        return None if entry is None else entry_version(entry)

    def holds(self, conditions: Iterable[Expect]) -> bool:
        """Whether all of them hold by what this store knows, as `known_version`."""
        return all((self.known_version(wanted.name) or 0) == wanted.version for wanted in conditions)

    def look(self) -> None:
        """Hear of every commit that any process acknowledged before this call. Raises as `get`."""
        self._look()

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Look once, at the beginning of the block, for all that this thread reads in it.

        Such reads see every commit that was acknowledged before the block, and perhaps later ones: so for a decision
        that waits for nothing and is committed on what it read. On the event loop nothing may be awaited in the block.
        Raises as `get`.
        """
        self._look()
        self._thread.has_looked = True
        try:
            yield
        finally:
            self._thread.has_looked = False

    def versions(self, names: Iterable[str]) -> tuple[int | None, ...]:
        """As `version`, of many, with one look at the database's head."""
        self._look()
        return tuple(self.known_version(name) for name in names)

    def commit(self, writes: Sequence[Write], leaf: bytes, *, expect: Sequence[Expect] = ()) -> Future[Head]:
        """Make all writes and one leaf of the audit log durable, or nothing of it. Returns at once.

        expect: what must hold of other records besides; nothing is written to them. So whoever decided on what those
        records say knows that they still said it when the commit took its place in the history.

        The future has the head of the transaction, when that is durable. It raises
        ConflictError  a record is not at the version its write or `expect` names: nothing was changed, read again and
                       repeat;
        TooLargeError  over MAX_COMMIT_BYTES, MAX_COMMIT_WRITES or MAX_COMMIT_CONDITIONS;
        TamperedError  the database has a head that does not verify, or not with its rows; RollbackError: an older one
                       than was seen, or of another history;
        StoreError     database or anchor failed, too much is waiting, or the store is closed. Where the message says
                       that the outcome is open the commit may stand; otherwise nothing was changed.
        A future cancelled before the writer took it leaves no trace.
        Raises ValueError at once, a mistake of the caller, for two writes to one name.
        """
        targets = tuple(
            Target(record_id=self._vault.id_of(write.name), value=write.value, expected_version=write.expected_version)
            for write in writes
        )
        if len({target.record_id for target in targets}) != len(targets):
            raise ValueError("a commit with two writes to one name, expected one write a name")
        conditions = tuple(
            Condition(record_id=self._vault.id_of(wanted.name), version=wanted.version) for wanted in expect
        )
        waiting = _Waiting(targets, conditions, leaf)
        try:
            self._enqueue(waiting)
        except OstiaryError as error:
            waiting.future.set_exception(error)
        return waiting.future

    def compact(self) -> None:
        """Give room back, and overwrite what deleted and replaced records left behind: `Backend.compact`.

        Commits and some reads wait meanwhile. Raises StoreError.
        """
        with self._lock:
            self._require_open()
            self._backend.compact()

    def close(self) -> None:
        """Finish the commits that wait, then close database and anchor; later calls of the store raise StoreError."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join()
        if self._trailing is not None:
            self._trailing.close()
        self._backend.close()
        if self._anchor is not None:
            self._anchor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closing:
            raise StoreError(f"{self._backend.place}: the store is closed: open it again")

    def _look(self) -> None:
        """Before a read: bring the state up to the database's head, if others moved it."""
        if self._thread.has_looked:
            return
        self._require_open()
        if self._trailing is not None:
            self._trailing.require_intact()
        # In this order: a transaction that ends in between is no longer in flight, but its state is there.
        in_flight = self._in_flight
        row = self._backend.head()
        state = self._state
        if row == state.row and self._ahead is None:
            return
        if row is not None and row == in_flight:
            return
        with self._lock:
            self._refresh(patient=False)

    def _require_row(self, record_id: bytes) -> RecordRow | None:
        """The row the index speaks of, now that no transaction is under way; None if it was deleted meanwhile."""
        with self._lock:
            for _ in range(MAX_OVERTAKEN):
                self._refresh(patient=False)
                entry = self._index.get(record_id)
                if entry is None:
                    return None
                row = self._backend.record(record_id)
                if row is not None and index_entry(row) == entry:
                    return row
                if self._backend.head() == self._state.row:
                    change = self._name_change(row, entry)
                    raise TamperedError(
                        f"{self._backend.place}: {change}: record {record_id.hex()[:16]}, expected version "
                        f"{entry_version(entry)}; restore a backup that you trust"
                    )
        raise self._overtaken()

    def _name_change(self, row: RecordRow | None, entry: bytes) -> str:
        if row is None:
            return "missing"
        found = index_entry(row)
        if any(found[8:] == other[8:] for other in self._index.values() if other != entry):
            return "swapped"
        try:
            self._vault.unseal_record(row)
        except TamperedError:
            return "changed"
        return "older version" if row.version < entry_version(entry) else "never committed"

    def _enqueue(self, waiting: _Waiting) -> None:
        if len(waiting.targets) > MAX_COMMIT_WRITES or waiting.size > MAX_COMMIT_BYTES:
            raise TooLargeError(
                f"a commit of {len(waiting.targets)} writes and {waiting.size} bytes, at most {MAX_COMMIT_WRITES} "
                "writes "
                f"and {MAX_COMMIT_BYTES} bytes are taken"
            )
        if len(waiting.conditions) > MAX_COMMIT_CONDITIONS:
            raise TooLargeError(
                f"a commit on {len(waiting.conditions)} conditions, at most {MAX_COMMIT_CONDITIONS} are taken"
            )
        with self._wake:
            self._require_open()
            if len(self._waiting) >= MAX_WAITING_COMMITS or self._waiting_bytes + waiting.size > MAX_WAITING_BYTES:
                raise StoreError(
                    f"{self._backend.place}: {len(self._waiting)} commits are waiting for the disk, which is all "
                    "that are "
                    "queued: try again later"
                )
            self._waiting.append(waiting)
            self._waiting_bytes += waiting.size
            if len(self._waiting) >= self._wanted:
                self._wake.notify()

    def _write_until_closed(self) -> None:
        taken: list[_Waiting] = []
        while True:
            with self._wake:
                self._wait_for(1, None)
                if not self._waiting:
                    return
                if len(taken) > 1:
                    self._gather(len(taken))
                taken = self._take()
            self._write([waiting for waiting in taken if waiting.future.set_running_or_notify_cancel()])

    def _gather(self, expected: int) -> None:
        """Several commits came at once before: give as many the time to share one flush again."""
        self._wait_for(expected, GATHER_SECONDS)

    def _wait_for(self, count: int, seconds: float | None) -> None:
        # Whoever adds a commit wakes the writer only at the last one that it waits for.
        self._wanted = count
        self._wake.wait_for(lambda: len(self._waiting) >= count or self._closing, seconds)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size = 0
        while self._waiting and len(taken) < MAX_BATCH_COMMITS and size < MAX_BATCH_BYTES:
            waiting = self._waiting.popleft()
            size += waiting.size
            taken.append(waiting)
        self._waiting_bytes -= size
        return taken

    def _write(self, batch: list[_Waiting]) -> None:
        try:
            with self._lock:
                head, conflicts = self._write_locked(batch)
        # Whatever went wrong, every caller gets an answer and the writer lives on, else later commits would wait for
        # ever.
        except Exception as error:
            for waiting in batch:
                waiting.future.set_exception(self._failure(error))
            return
        for waiting in batch:
            conflict = conflicts.get(waiting)
            if conflict is None:
                waiting.future.set_result(head)
            else:
                waiting.future.set_exception(conflict)

    def _write_locked(self, batch: list[_Waiting]) -> tuple[Head, dict[_Waiting, ConflictError]]:
        """Make durable what does not conflict. Returns the head that this gave, and what conflicts."""
        if self._trailing is not None:
            self._trailing.require_near()
        if self._ahead is not None:
            self._refresh()
        for tries in range(MAX_OVERTAKEN):
            with self._turn(tries):
                outcome = self._try(batch)
            if outcome is not None:
                return outcome
        raise self._overtaken()

    def _try(self, batch: list[_Waiting]) -> tuple[Head, dict[_Waiting, ConflictError]] | None:
        """As `_write_locked`; None if another process was faster, whose state is known then."""
        stage = Stage(self._vault, self._state, self._index, random=self._random)
        conflicts: dict[_Waiting, ConflictError] = {}
        for waiting in batch:
            try:
                stage.add(waiting.targets, waiting.leaf, conditions=waiting.conditions)
            except ConflictError as error:
                conflicts[waiting] = error
        if conflicts and self._backend.head() != self._state.row:
            # Perhaps they do not conflict with what others have written since.
            self._refresh()
            return None
        if stage.empty:
            return self._state.head, conflicts
        head = self._make_durable(stage)
        return None if head is None else (head, conflicts)

    def _make_durable(self, stage: Stage) -> Head | None:
        """The head that the stage's commits gave; None if another process was faster, whose state is known then."""
        state, batch = stage.close()
        self._in_flight = state.row
        try:
            self._backend.commit(batch)
        except ConflictError:
            self._refresh()
            return None
        except Exception as error:
            self._find_out(batch, error)
        else:
            self._show(PickedUp(state=state, changes=stage.changes, first=batch.leaves[0]))
        finally:
            self._in_flight = None
        return state.head

    def _show(self, own: PickedUp) -> None:
        """Publish a transaction of this process, which is durable, as soon as that is allowed."""
        self._ahead = own
        try:
            if self._settle(own.state):
                self._publish(own)
            else:
                # Others went on from it: what is picked up then was found to contain it.
                self._refresh()
        except StoreError as error:
            raise _OpenOutcomeError(error) from error

    def _find_out(self, batch: Batch, error: Exception) -> None:
        """Return if a transaction that failed stands nevertheless; raises the error if it does not."""
        try:
            first = self._refresh()
        except StoreError as trouble:
            raise _OpenOutcomeError(error) from trouble
        # Bytes with a fresh nonce, so that nobody else has written the same; and transactions are whole or absent.
        if first != batch.leaves[0]:
            raise error

    def _begin_epoch(self) -> None:
        """Settle the head that was found, then a head of this opening's own, before anything is acknowledged."""
        for tries in range(MAX_OVERTAKEN):
            if not self._settle(self._state):
                self._refresh()
            with self._turn(tries):
                state, batch = Stage(self._vault, self._state, self._index, random=self._random).close()
                try:
                    self._backend.commit(batch)
                except ConflictError:
                    overtaken = True
                else:
                    overtaken = False
                    self._ahead = PickedUp(state=state, changes={}, first=None)
            self._refresh()
            if not overtaken:
                return
        raise self._overtaken()

    @contextmanager
    def _turn(self, tries: int) -> Iterator[None]:
        """Whoever was overtaken often enough has the database to himself for one transaction."""
        if tries < PATIENT_TRIES:
            yield
            return
        with self._backend.turn():
            self._refresh()
            yield

    def _refresh(self, *, patient: bool = True) -> LeafRow | None:
        """Bring the state up to the database's head, and in the strict mode have the anchor remember it first.

        Returns the first leaf that came since; None if none did. patient: ask an anchor also that has just failed.
        Raises StoreError, and shows nothing new then.
        """
        for _ in range(MAX_OVERTAKEN):
            known = self._state if self._ahead is None else self._ahead.state
            row = require_forward(self._vault, self._backend.head(), known.row, place=self._backend.place)
            if row != known.row:
                self._ahead = self._pick_up(known)
            if self._ahead is None:
                return None
            if self._settle(self._ahead.state, patient=patient):
                first = self._ahead.first
                self._publish(self._ahead)
                return first
        raise self._overtaken()

    def _pick_up(self, known: State) -> PickedUp:
        """What became of the state that is shown, by way of what is known besides."""
        ahead = self._ahead
        # A copy where something waits to be shown: that is rare, and ends with an anchor that answers.
        index: Mapping[bytes, bytes | None] = self._index if ahead is None else {**self._index, **ahead.changes}
        with self._backend.snapshot() as view:
            picked = pick_up(self._vault, view, self._backend.place, known=known, index=index, empty=self._empty)
        if ahead is None:
            return picked
        changes = {**ahead.changes, **picked.changes}
        return PickedUp(state=picked.state, changes=changes, first=ahead.first or picked.first)

    def _settle(self, state: State, *, patient: bool = True) -> bool:
        """Whether the anchor remembers the state (strict mode); not if it knows a newer one, which is in the database.

        Raises RollbackError if it knows a newer one that is not, or another history; StoreError if it fails.
        """
        if self._anchor is None or self._trailing is not None:
            return True
        if not patient and time.monotonic() - self._anchor_failed_at < ANCHOR_RETRY_SECONDS:
            raise StoreError(
                f"the anchor {self._anchor.place} failed a moment ago, and nothing that it does not remember is shown: "
                "try again later"
            )
        try:
            self._anchor.settle(state.head, self._leaves_of(state.head))
        except RollbackError:
            if self._backend.head() == state.row:
                raise
            return False
        except StoreError:
            self._anchor_failed_at = time.monotonic()
            raise
        self._anchor_failed_at = -math.inf
        return True

    def _follow(self, anchor: Anchor) -> None:
        """Have the anchor remember the newest head (bounded mode, in its thread)."""
        for _ in range(MAX_OVERTAKEN):
            head = self._state.head
            try:
                anchor.settle(head, self._leaves_of(head))
            except RollbackError:
                with self._lock:
                    self._refresh()
                    if self._state.head == head:
                        raise
            else:
                return
        raise self._overtaken()

    def _leaves_of(self, head: Head) -> Callable[[int], Iterator[bytes]]:
        def leaves(start: int) -> Iterator[bytes]:
            with self._backend.snapshot() as view:
                for row in view.leaves(start):
                    if row.position >= head.log_size:
                        return
                    yield self._vault.unseal_leaf(row)

        return leaves

    def _publish(self, ahead: PickedUp) -> None:
        for record_id, entry in ahead.changes.items():
            if entry is None:
                self._index.pop(record_id, None)
            else:
                self._index[record_id] = entry
        self._state = ahead.state
        self._ahead = None
        if self._trailing is not None:
            self._trailing.moved()

    def _overtaken(self) -> StoreError:
        return StoreError(
            f"{self._backend.place}: other processes were faster {MAX_OVERTAKEN} times in a row: try again later"
        )

    def _failure(self, error: Exception) -> StoreError:
        """A new exception for each future, as one raised in several threads would mix their tracebacks."""
        if isinstance(error, _OpenOutcomeError):
            told = _told(self._backend.place, error.cause, "whether the commit stands is open, read again")
            told.outcome_open = True
            return told
        return _told(self._backend.place, error, "nothing was changed")


def _told(place: str, error: Exception, outcome: str) -> StoreError:
    if isinstance(error, StoreError):
        return type(error)(*error.chain, outcome)
    failure = StoreError(f"{place}: the commit failed", type(error).__name__, outcome)
    failure.__cause__ = error
    return failure
