"""What the store needs of a place that the holder of the database cannot turn back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ostiary.store.record import Head


class Anchor(Protocol):
    """A place outside the reach of whoever holds the database, that remembers how far the history went.

    It may remember no more than a number, the head's `seq`: each opening of a store moves the history on by an *epoch*,
    a head without records, before it acknowledges anything (`Store.resume`). So no two runs, one after the other,
    acknowledge different states under one number. An anchor that processes use at the same time must remember the
    digest or the log's root as well.
    """

    @property
    def place(self) -> str:
        """Where it is, for messages; holds no credential."""

    @property
    def warning(self) -> str:
        """One sentence to show at every start about what it does not protect; "" if there is nothing to say."""

    def settle(self, head: Head, leaves: Callable[[int], Iterator[bytes]]) -> None:
        """Return once the anchor remembers `head`, or already did. Idempotent; called by one thread at a time.

        leaves(start): the audit log's leaves in the clear, from position `start` up to `head.log_size`. Each is
        authentic for its position; that together they give `head.log_root` is for the caller to check, if it matters.
        Raises RollbackError if the anchor remembers a newer state or another history (expected, found, and how the
        owner recovers on purpose); StoreError if it cannot be reached.
        """

    def close(self) -> None:
        """Release everything; a second call does nothing."""
