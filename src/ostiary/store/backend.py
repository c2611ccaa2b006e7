"""What the store needs of a database: rows in, rows out, and one transaction that compares and sets the head.

A backend is untrusted storage behind a thin edge. It decides nothing, and what it returns counts for nothing until the
store has verified it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One sealed record. id: 32 bytes. version: from 1 to 2^63 - 1."""

    id: bytes
    version: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class LeafRow:
    """One sealed leaf of the audit log. position: from 0, without gaps."""

    position: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class HeadRow:
    """The sealed head. seq: from 0, one more with each transaction."""

    seq: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Deletion:
    """A hint that a record was deleted. version: of the commit that did it.

    For those who pick up other processes' commits. It counts only as far as the head's set hash confirms it: whoever
    misses a hint, or is given a wrong one, finds another sum than the head's and reads everything anew.
    """

    id: bytes
    version: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything that one transaction changes.

    expected: the head that must be the current one; None for the first head of an empty database.
    records: put in place of what has their ids. deleted: ids to remove, kept as hints. leaves: appended.
    forgotten: hints of deletions up to this version, it included, are removed; 0: none.
    """

    expected: HeadRow | None
    head: HeadRow
    records: tuple[RecordRow, ...] = ()
    deleted: tuple[Deletion, ...] = ()
    leaves: tuple[LeafRow, ...] = ()
    forgotten: int = 0


class Snapshot(Protocol):
    """The database as of one moment: whatever is committed meanwhile, all methods speak of the same transaction.

    Raises as `Backend`. Not to be used after its context has ended, nor from several threads at once.
    """

    def head(self) -> HeadRow | None:
        """The head; None in an empty database. Rows without a head are a TamperedError."""

    def records(self, since: int = 0) -> Iterator[RecordRow]:
        """Every record with a version above `since`, in any order, in bounded memory."""

    def deletions(self, since: int) -> Iterator[Deletion]:
        """Every hint that is kept with a version above `since`, in any order. An id may be named more than once."""

    def leaves(self, since: int = 0) -> Iterator[LeafRow]:
        """Every leaf from position `since` on, by ascending position, in bounded memory."""


class Backend(Protocol):
    """A database. All methods may be called from any thread, and several processes may have it open.

    Each method raises StoreError for trouble of the database.

    What the database returns in another shape than these rows (types, duplicates, a damaged file) is a TamperedError.
    """

    @property
    def place(self) -> str:
        """Where the database is, for messages; holds no credential."""

    def head(self) -> HeadRow | None:
        """The current head; None in an empty database. Rows without a head are a TamperedError."""

    def record(self, record_id: bytes) -> RecordRow | None:
        """The record with this id, as of the last transaction."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """One consistent view of everything, for as long as the context lasts."""

    def commit(self, batch: Batch) -> None:
        """Make the whole batch durable, or nothing of it. Returns only when it would survive a loss of power.

        Raises ConflictError, with nothing changed, if the current head is not `batch.expected`: so of several
        processes one wins. After another StoreError the outcome is open: whoever must know reads the head.
        """

    def turn(self) -> AbstractContextManager[None]:
        """While it lasts no other process moves the head: for whoever was overtaken too often. Waits for its turn.

        At most one `commit` inside, by the same thread; the turn ends with it. Reads go on. Raises StoreError if the
        turn does not come.
        """

    def compact(self) -> None:
        """Give room back to the file system, and overwrite or give up what deleted and replaced rows leave behind.

        Changes no row. Others wait or fail meanwhile as with a long transaction.
        """

    def close(self) -> None:
        """Release everything; a second call does nothing."""
