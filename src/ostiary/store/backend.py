"""What the store needs of a database: rows in, rows out, and one transaction that compares and sets the head.

A backend is untrusted storage behind a thin edge. It decides nothing, and what it returns counts for nothing until the
store has verified it.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything that one transaction changes.

    expected: the head that must be the current one; None for the first head of an empty database.
    records: put in place of what has their ids. deleted: ids to remove. leaves: appended.
    """

    expected: HeadRow | None
    head: HeadRow
    records: tuple[RecordRow, ...] = ()
    deleted: tuple[bytes, ...] = ()
    leaves: tuple[LeafRow, ...] = ()


class Backend(Protocol):
    """A database. All methods may be called from any thread. Each raises StoreError for trouble of the database.

    What the database returns in another shape than these rows (types, duplicates, a damaged file) is a TamperedError.
    """

    @property
    def place(self) -> str:
        """Where the database is, for messages; holds no credential."""

    def head(self) -> HeadRow | None:
        """The current head; None in an empty database. Rows without a head are a TamperedError."""

    def record(self, record_id: bytes) -> RecordRow | None:
        """The record with this id, as of the last transaction."""

    def records(self) -> Iterator[RecordRow]:
        """Every record, in any order, in bounded memory."""

    def leaves(self) -> Iterator[LeafRow]:
        """Every leaf by ascending position, in bounded memory."""

    def commit(self, batch: Batch) -> None:
        """Make the whole batch durable, or nothing of it. Returns only when it would survive a loss of power.

        Raises ConflictError, with nothing changed, if the current head is not `batch.expected`. After another
        StoreError the outcome is open: whoever must know reads the head.
        """

    def close(self) -> None:
        """Release everything; a second call does nothing."""
