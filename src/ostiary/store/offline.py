"""What can be done with a database beside a service, or without one: verify it, read its log, measure it, copy it.

Everything reads one snapshot, so a service that runs meanwhile neither waits nor disturbs the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ostiary.errors import ConflictError, StoreError, TamperedError
from ostiary.store.backend import Backend, Batch, Deletion, HeadRow, LeafRow, RecordRow, Snapshot
from ostiary.store.log import LeafLog
from ostiary.store.record import Head
from ostiary.store.state import State, unseal_state
from ostiary.store.vault import Vault
from ostiary.store.verification import load, read_leaves, read_state

MAX_COPY_BYTES = 8 * 1024 * 1024
MAX_COPY_ROWS = 16_384
"""Of one transaction of a copy; a row may be larger, and then goes alone."""

LEAVES_A_PIECE = 64
"""So many leaves are held in memory until it is certain that they are those of the head."""

CLASSES = ("changed", "swapped", "older version", "missing", "added", "never committed", "forked")
"""What a refusal may be about, as section 6 of docs/store-format.md explains."""
_CLASS = re.compile(f": ({'|'.join(CLASSES)}): ")

Row = TypeVar("Row", RecordRow, LeafRow, Deletion)


class Progress(Protocol):
    """Told how far the work is."""

    def expect(self, rows: int) -> None:
        """So many rows will be read in all."""

    def advance(self) -> None:
        """One more row was read."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A database whose rows are exactly those of its head. records: how many there are."""

    head: Head
    records: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What shows without the key. seq: None in an empty database. Bytes are of sealed rows as they lie there.

    newest_version: of the record written last, 0 without one. deletions: hints of deleted records that are kept.
    """

    seq: int | None
    records: int
    record_bytes: int
    largest_record_bytes: int
    newest_version: int
    leaves: int
    leaf_bytes: int
    deletions: int


def verify(backend: Backend, database_key: bytes, *, log: LeafLog, progress: Progress) -> Verified:
    """Read every row and hold it against the head. log: the empty audit log.

    Guarantees on return what `Store.resume` does without an anchor: the rows are exactly those that the head was made
    over; not that this head is the newest there ever was.
    Raises TamperedError, whose class `class_of` names; StoreError for trouble of the database.
    """
    vault = Vault(database_key)
    with backend.snapshot() as view:
        _announce(vault, view, log, progress)
        state, index = load(vault, _Watched(view, progress), backend.place, log=log)
    return Verified(head=state.head, records=len(index))


@contextmanager
def verified_leaves(
    backend: Backend, database_key: bytes, *, log: LeafLog, progress: Progress
) -> Iterator[Iterator[bytes]]:
    """The leaves of the audit log, the oldest first, in bounded memory. log: the empty audit log.

    Guarantees that the block begins only after every leaf was read and held against the head, and that what it is then
    given are the same leaves, even of a database that answers a second question otherwise than the first. Looks at no
    record. The block reads one snapshot for as long as it lasts.
    Raises, also while leaves are taken, TamperedError, StoreError.
    """
    vault = Vault(database_key)
    with backend.snapshot() as view:
        state = read_state(vault, view, backend.place, log=log)
        progress.expect(state.log.size)
        trees = read_leaves(vault, _Watched(view, progress), backend.place, state, log=log)
        roots = [tree.root for tree, _ in trees if tree.size % LEAVES_A_PIECE == 0]
        yield _leaves_again(vault, view, backend.place, state, roots, log)


def _leaves_again(
    vault: Vault, view: Snapshot, place: str, state: State, roots: list[bytes], log: LeafLog
) -> Iterator[bytes]:
    """The leaves, each piece once its tree has the root that it had before. roots: after each whole piece."""
    piece: list[bytes] = []
    for tree, leaf in read_leaves(vault, view, place, state, log=log):
        piece.append(leaf)
        if len(piece) == LEAVES_A_PIECE:
            before = tree.size // LEAVES_A_PIECE - 1
            if roots[before : before + 1] != [tree.root]:
                raise TamperedError(
                    f"{place}: changed: the audit log is another one than when it was verified, a moment ago; "
                    "whoever answers for the database is not to be trusted"
                )
            yield from piece
            piece.clear()
    yield from piece


def class_of(error: TamperedError) -> str:
    """One of CLASSES: what was done to the database, by the message of the refusal, which has it after the place."""
    found = _CLASS.search(error.message)
    return found[1] if found else "changed"


def measure(backend: Backend, *, progress: Progress) -> Sizes:
    """Count rows and bytes. Verifies nothing, for which it would need the key. Raises StoreError."""
    with backend.snapshot() as snapshot:
        view = _Watched(snapshot, progress)
        head = view.head()
        records = record_bytes = largest = newest = leaves = leaf_bytes = 0
        for record in view.records():
            records += 1
            record_bytes += len(record.sealed)
            largest = max(largest, len(record.sealed))
            newest = max(newest, record.version)
        for leaf in view.leaves():
            leaves += 1
            leaf_bytes += len(leaf.sealed)
        return Sizes(
            seq=None if head is None else head.seq,
            records=records,
            record_bytes=record_bytes,
            largest_record_bytes=largest,
            newest_version=newest,
            leaves=leaves,
            leaf_bytes=leaf_bytes,
            deletions=sum(1 for _ in view.deletions(0)),
        )


def copy(source: Backend, target: Backend, *, progress: Progress) -> int:
    """Put all rows of one moment, sealed as they are, into an empty database; the seq of their head.

    The copy is made in several transactions, all of which name the head of the source, so that a copy without its end
    is one with rows missing, which a start refuses.
    Raises StoreError if the source has no head or the target is not empty.
    """
    with source.snapshot() as snapshot:
        view = _Watched(snapshot, progress)
        head = view.head()
        if head is None:
            raise StoreError(f"{source.place}: the database is empty, expected one with a head: name another one")
        try:
            target.commit(Batch(expected=None, head=head))
        except ConflictError as error:
            raise StoreError(
                f"{target.place}: already holds a store, expected an empty database: choose another place"
            ) from error
        for batch in _batches(head, view):
            target.commit(batch)
    return head.seq


def _batches(head: HeadRow, view: Snapshot) -> Iterator[Batch]:
    # First, for a record may have been made again since, which writing its hint would take away.
    for deleted in _pieces(view.deletions(0)):
        yield Batch(expected=head, head=head, deleted=deleted)
    for records in _pieces(view.records()):
        yield Batch(expected=head, head=head, records=records)
    for leaves in _pieces(view.leaves()):
        yield Batch(expected=head, head=head, leaves=leaves)


def _pieces(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    piece: list[Row] = []
    size = 0
    for row in rows:
        size += 0 if isinstance(row, Deletion) else len(row.sealed)
        piece.append(row)
        if size >= MAX_COPY_BYTES or len(piece) == MAX_COPY_ROWS:
            yield tuple(piece)
            piece, size = [], 0
    if piece:
        yield tuple(piece)


def _announce(vault: Vault, view: Snapshot, log: LeafLog, progress: Progress) -> None:
    """Tell how many rows the head counts. What is wrong with the head, if anything, is for `load` to say."""
    row = view.head()
    if row is None:
        return
    try:
        state = unseal_state(vault, row, log=log)
    except StoreError:
        return
    progress.expect(state.records + state.log.size)


class _Watched:
    """A `Snapshot` that tells of each row it hands out."""

    def __init__(self, view: Snapshot, progress: Progress) -> None:
        self._view = view
        self._progress = progress

    def head(self) -> HeadRow | None:
        return self._view.head()

    def records(self, since: int = 0) -> Iterator[RecordRow]:
        return self._watch(self._view.records(since))

    def deletions(self, since: int) -> Iterator[Deletion]:
        return self._watch(self._view.deletions(since))

    def leaves(self, since: int = 0) -> Iterator[LeafRow]:
        return self._watch(self._view.leaves(since))

    def _watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self._progress.advance()
            yield row
