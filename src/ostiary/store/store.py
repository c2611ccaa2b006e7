"""The store: sealed records under compare-and-set, one audit leaf a commit, one linear history.

One thread writes. It takes what is waiting, checks each commit against the state and those before it, and makes all
that hold durable in one transaction with one new head. Everything that callers see moves only afterwards.

Invariants:
  - `_state` and `_index` always belong together and to a durable head; they change only in `_publish`, under `_lock`,
    which the writer also holds while a transaction is under way;
  - a future has its result only after the transaction is durable, or known not to count;
  - a transaction whose outcome the database did not tell is kept in `_unsettled` and looked up before anything is
    decided on the state again.

Not detected: that the whole database was put back to an earlier state of its own while no process had it open. Every
part of such a state is authentic; only an anchor outside the database can tell.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Self

from ostiary.errors import ConflictError, OstiaryError, StoreError, TamperedError, TooLargeError
from ostiary.store.backend import Backend, Batch, RecordRow
from ostiary.store.box import NONCE_BYTES
from ostiary.store.log import LeafLog
from ostiary.store.record import Expect, Head, Record, Write
from ostiary.store.stage import Condition, Stage, Target
from ostiary.store.state import FIRST_PREVIOUS, State, seal_state
from ostiary.store.vault import Vault, entry_version, index_entry
from ostiary.store.verification import load

MAX_COMMIT_BYTES = 32 * 1024 * 1024
MAX_COMMIT_WRITES = 4096
MAX_COMMIT_CONDITIONS = 4096
MAX_BATCH_COMMITS = 512
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_WAITING_COMMITS = 4096
MAX_WAITING_BYTES = 128 * 1024 * 1024
GATHER_SECONDS = 0.001
"""How long the writer waits for more commits when the transaction before carried several; one alone never waits."""


class _Waiting:
    """A commit in the queue. size: bytes of its values and its leaf."""

    __slots__ = ("conditions", "future", "leaf", "size", "targets")

    def __init__(self, targets: tuple[Target, ...], conditions: tuple[Condition, ...], leaf: bytes) -> None:
        self.targets = targets
        self.conditions = conditions
        self.leaf = leaf
        self.size = len(leaf) + sum(len(target.value) for target in targets if target.value is not None)
        self.future: Future[Head] = Future()


class Store:
    """Records by name, for one process at a time. Made by `Store.begin` or `Store.resume`; safe to use from any thread.

    Owns the backend from then on: `close` closes it. As a context manager it closes at the end of the block.
    """

    def __init__(
        self, vault: Vault, backend: Backend, state: State, index: dict[bytes, bytes], random: Callable[[int], bytes]
    ) -> None:
        self._vault = vault
        self._backend = backend
        self._random = random
        self._state = state
        self._index = index
        self._unsettled: tuple[State, dict[bytes, bytes | None]] | None = None
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._closing = False
        self._wake = threading.Condition()
        self._writer = threading.Thread(target=self._write_until_closed, name="ostiary-store", daemon=True)
        self._writer.start()

    @classmethod
    def begin(cls, backend: Backend, database_key: bytes, *, random: Callable[[int], bytes], log: LeafLog) -> Self:
        """Start a new history in an empty database. log: the empty audit log.

        Returns once the first head is durable. Raises StoreError if the database has a head already.
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
        return cls(vault, backend, state, {}, random)

    @classmethod
    def resume(cls, backend: Backend, database_key: bytes, *, random: Callable[[int], bytes], log: LeafLog) -> Self:
        """Go on with the history in the database, after reading and verifying every row. log: the empty audit log.

        Guarantees that the rows are exactly those the head was made over; not that this head is the newest there ever
        was.
        Raises TamperedError, whose message names the kind of change, or StoreError for trouble of the database.
        """
        vault = Vault(database_key)
        with backend.snapshot() as view:
            state, index = load(vault, view, backend.place, log=log)
        return cls(vault, backend, state, index, random)

    @property
    def head(self) -> Head:
        """The newest durable state."""
        return self._state.head

    def get(self, name: str) -> Record | None:
        """The record's newest durable version; None if there is none.

        Guarantees that the bytes are those committed last under this name: id, version and SHA-256 of the sealed bytes
        are compared with the index before they are unsealed.
        Raises TamperedError, naming the kind of change, if the database gives anything else; StoreError if it gives
        nothing.
        """
        self._require_open()
        record_id = self._vault.id_of(name)
        entry = self._index.get(record_id)
        if entry is None:
            return None
        row = self._backend.record(record_id)
        if row is None or index_entry(row) != entry:
            # Either a commit is between its transaction and the index, or the database lies; without one it must agree.
            row = self._require_row(record_id)
        return None if row is None else Record(version=row.version, value=self._vault.unseal_record(row))

    def version(self, name: str) -> int | None:
        """The version of the record that `get` would return, without reading it; None if there is none.

        Guarantees that a value which `get` returned earlier with this version is still the newest durable one.
        Raises StoreError after `close`.
        """
        self._require_open()
        entry = self._index.get(self._vault.id_of(name))
        return None if entry is None else entry_version(entry)

    def commit(self, writes: Sequence[Write], leaf: bytes, *, expect: Sequence[Expect] = ()) -> Future[Head]:
        """Make all writes and one leaf of the audit log durable, or nothing of it. Returns at once.

        expect: what must hold of other records besides; nothing is written to them. So whoever decided on what those
        records say knows that they still said it when the commit took its place in the history.

        The future has the head of the transaction, when that is durable. It raises
        ConflictError  a record is not at the version its write or `expect` names: nothing was changed, read again and
                       repeat;
        TooLargeError  over MAX_COMMIT_BYTES, MAX_COMMIT_WRITES or MAX_COMMIT_CONDITIONS;
        TamperedError  the database has another head than this process wrote;
        StoreError     the database failed, too much is waiting, or the store is closed. Where the message says that the
                       outcome is open the commit may stand; otherwise nothing was changed.
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

    def close(self) -> None:
        """Finish the commits that wait, then close the database; later calls of the store raise StoreError."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closing:
            raise StoreError(f"{self._backend.place}: the store is closed: open it again")

    def _require_row(self, record_id: bytes) -> RecordRow | None:
        """The row the index speaks of, now that no transaction is under way; None if it was deleted meanwhile."""
        with self._lock:
            self._settle()
            entry = self._index.get(record_id)
            if entry is None:
                return None
            row = self._backend.record(record_id)
            if row is None or index_entry(row) != entry:
                change = self._name_change(row, entry)
                raise TamperedError(
                    f"{self._backend.place}: {change}: record {record_id.hex()[:16]}, expected version "
                    f"{entry_version(entry)}; restore a backup that you trust"
                )
            return row

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
            self._wake.notify()

    def _write_until_closed(self) -> None:
        taken: list[_Waiting] = []
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                if len(taken) > 1:
                    self._gather(len(taken))
                taken = self._take()
            self._write([waiting for waiting in taken if waiting.future.set_running_or_notify_cancel()])

    def _gather(self, expected: int) -> None:
        """Several commits came at once before: give as many the time to share one flush again."""
        self._wake.wait_for(lambda: len(self._waiting) >= expected or self._closing, GATHER_SECONDS)

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
                conflicts = self._write_locked(batch)
                head = self._state.head
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

    def _write_locked(self, batch: list[_Waiting]) -> dict[_Waiting, ConflictError]:
        """Make durable what does not conflict, and return what does."""
        self._settle()
        stage = Stage(self._vault, self._state, self._index, random=self._random)
        conflicts: dict[_Waiting, ConflictError] = {}
        for waiting in batch:
            try:
                stage.add(waiting.targets, waiting.leaf, conditions=waiting.conditions)
            except ConflictError as error:
                conflicts[waiting] = error
        if not stage.empty:
            self._make_durable(stage)
        return conflicts

    def _make_durable(self, stage: Stage) -> None:
        state, batch = stage.close()
        try:
            self._backend.commit(batch)
        except ConflictError as error:
            raise self._foreign_head() from error
        except Exception:
            self._unsettled = (state, stage.changes)
            with suppress(StoreError):
                self._settle()
            if self._state is not state:
                raise
        else:
            self._publish(state, stage.changes)

    def _settle(self) -> None:
        """Find out what became of a transaction that failed without saying whether it stands. Raises StoreError."""
        if self._unsettled is None:
            return
        state, changes = self._unsettled
        row = self._backend.head()
        if row == state.row:
            self._publish(state, changes)
        elif row != self._state.row:
            raise self._foreign_head()
        self._unsettled = None

    def _publish(self, state: State, changes: dict[bytes, bytes | None]) -> None:
        for record_id, entry in changes.items():
            if entry is None:
                self._index.pop(record_id, None)
            else:
                self._index[record_id] = entry
        self._state = state

    def _foreign_head(self) -> TamperedError:
        return TamperedError(
            f"{self._backend.place}: the database has another head than {self._state.head.seq}, which this process "
            "wrote "
            "last: it was put back, replaced, or written by another process; stop and restore a backup that you trust"
        )

    def _failure(self, error: Exception) -> StoreError:
        """A new exception for each future, as one raised in several threads would mix their tracebacks."""
        outcome = "whether the commit stands is open, read again" if self._unsettled else "nothing was changed"
        if isinstance(error, StoreError):
            return type(error)(error.message, *error.causes, outcome)
        failure = StoreError(f"{self._backend.place}: the commit failed", f"{type(error).__name__}", outcome)
        failure.__cause__ = error
        return failure
