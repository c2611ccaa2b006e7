"""What was made of records, kept as long as those records stand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from ostiary.store import Expect, Store

FOR_EVER = datetime.max.replace(tzinfo=UTC)

_Key = TypeVar("_Key", bound=Hashable)
_Thing = TypeVar("_Thing")


@dataclass(frozen=True, kw_only=True)
class Made(Generic[_Thing]):
    """A thing, and when it would be made the same again: while all of `rests_on` holds, before `until`."""

    thing: _Thing
    rests_on: tuple[Expect, ...]
    until: datetime = FOR_EVER


class Memory(Generic[_Key, _Thing]):
    """Things by key, the least recently used forgotten first. size: of a thing; capacity: of all together."""

    def __init__(self, store: Store, *, capacity: int, size: Callable[[_Thing], int] = lambda _: 1) -> None:
        self._store = store
        self._capacity = capacity
        self._size = size
        self._used = 0
        self._kept: OrderedDict[_Key, Made[_Thing]] = OrderedDict()

    def recall(self, key: _Key, now: datetime) -> Made[_Thing] | None:
        """What was kept under `key`, if it would be made the same now; by what the store knows, as `Store.holds`."""
        made = self._kept.get(key)
        if made is None:
            return None
        if now >= made.until or not self._store.holds(made.rests_on):
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return made

    def keep(self, key: _Key, made: Made[_Thing]) -> None:
        """Keep `made` in place of what was there; not if it alone is over the capacity."""
        self._forget(key)
        if self._size(made.thing) > self._capacity:
            return
        self._kept[key] = made
        self._used += self._size(made.thing)
        while self._used > self._capacity:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: _Key) -> None:
        made = self._kept.pop(key, None)
        if made is not None:
            self._used -= self._size(made.thing)
