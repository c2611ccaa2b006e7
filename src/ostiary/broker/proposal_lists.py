"""Lists of proposals that are being made: one at a time, and one for all who ask for the same meanwhile.

A list looks at every pending proposal of all tenants. Whoever asks often, or has many wait, must not take the time of
everybody else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from weakref import WeakValueDictionary

from ostiary.broker.proposal_records import LOOK_SECONDS, Entry, ProposalRecords

MAX_WATCHERS_OF_CALLER = 32
"""Requests of one key that wait for a change at a time; all that show none count as one."""


class Turn(Enum):
    """What one waits for the other to do: making a list that was just asked for, or one for somebody who has waited,
    so that many who wait hold up nobody who does not; and reading who may read a session."""

    ASKED = "asked"
    WAITED = "waited"
    READERS = "readers"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """shown: summaries, each JSON. cursor: it changes whenever the list does."""

    shown: tuple[bytes, ...]
    cursor: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between two states of the index: entries that only the one, or only the other has."""

    gone: tuple[Entry, ...]
    come: tuple[Entry, ...]


@dataclass(eq=False)
class _Slot:
    """The last list of one kind. number: in the order in which lists were begun."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    listed: Listed | None = None
    number: int = 0


class ProposalLists:
    """On the event loop only. Knows nothing about who may see what."""

    def __init__(self, records: ProposalRecords) -> None:
        self._records = records
        # Held by whoever waits, so that none outlives an event loop.
        self._turns: WeakValueDictionary[Turn, asyncio.Lock] = WeakValueDictionary()
        self._slots: WeakValueDictionary[Hashable, _Slot] = WeakValueDictionary()
        self._begun = 0
        self._watchers: Counter[bytes | None] = Counter()
        self._compared: tuple[Sequence[Entry], Sequence[Entry], Difference] | None = None

    def turn(self, turn: Turn) -> asyncio.Lock:
        """Whoever holds it is the only one."""
        return self._turns.setdefault(turn, asyncio.Lock())

    async def one_for_all(self, kind: Hashable, make: Callable[[], Awaitable[Listed]]) -> Listed:
        """What `make` returns, or returned to somebody else who asked for this kind, if it was begun since this call.

        So it is never older than the request. Raises what `make` raises.
        """
        asked = self._begun
        slot = self._slots.setdefault(kind, _Slot())
        async with slot.lock:
            if slot.listed is None or slot.number <= asked:
                # Whoever is woken beside this one asks before it begins.
                await asyncio.sleep(0)
                self._begun = number = self._begun + 1
                slot.listed = await make()
                slot.number = number
            return slot.listed

    async def change(self, caller: bytes | None, seconds: float) -> bool:
        """As `ProposalRecords.change`, with a bound for each caller. caller: SHA-256 of its key, None without one."""
        if self._watchers[caller] >= MAX_WATCHERS_OF_CALLER:
            await asyncio.sleep(min(seconds, LOOK_SECONDS))
            return False
        self._watchers[caller] += 1
        try:
            return await self._records.change(seconds)
        finally:
            self._watchers[caller] -= 1
            if not self._watchers[caller]:
                del self._watchers[caller]

    def difference(self, before: Sequence[Entry], after: Sequence[Entry]) -> Difference:
        """Of what `ProposalRecords.pending` returned. The last one is kept, for all who waited ask for the same."""
        if self._compared is None or self._compared[0] is not before or self._compared[1] is not after:
            # An entry that stayed is the same object, and comparing ten thousand by value would take long.
            old, new = set(map(id, before)), set(map(id, after))
            found = Difference(
                gone=tuple(entry for entry in before if id(entry) not in new),
                come=tuple(entry for entry in after if id(entry) not in old),
            )
            self._compared = before, after, found
        return self._compared[2]
