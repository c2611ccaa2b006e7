"""Denials in the store: bounded in number, size and rate, so that no flood of them fills the disk or slows others.

A denial is one record, `denial/NNNN`, in one of MAX_DENIALS places that are used again, the oldest first. Each write
goes with an entry of the audit log, `service_refused`, for one cause: session, service and stage.

Bounds, and what is beyond them:
  - a session has MAX_OF_SESSION denials with authentic evidence, and as many without: whoever cannot bring evidence
    drops nobody's denials but those of others who cannot, and while there is one of these none of the former;
  - the same refusal within REPEATING is one denial, which counts;
  - new ones are kept at a rate of MAX_NEW_OF_SESSION and MAX_NEW a PERIOD, again for each sort by itself; what is over
    it is in the log, and counted in the audit log;
  - the first denial of a cause is committed at once; further ones wait until FLUSH_PAUSE after that, mere counts until
    PERIOD after it. Until then they are in memory, where they can be read. Nobody who is denied waits for any of it.
A crash loses what waited; an orderly end does not.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ostiary.audit import Kind, entry
from ostiary.errors import StoreError
from ostiary.store import Head, Store, Write

MAX_DENIALS = 1024
MAX_OF_SESSION = 16
"""Of each sort."""
MAX_DENIAL_BYTES = 16 * 1024
MAX_NEW = 60
MAX_NEW_OF_SESSION = 6
PERIOD = timedelta(minutes=1)
REPEATING = timedelta(minutes=1)
FLUSH_PAUSE = timedelta(seconds=5)
MAX_CAUSES = 256
"""Causes whose counts are kept for the audit log; beyond that the one that was denied longest ago is forgotten."""
FORM = 1
"""Of the document that is stored, signed and shown."""
_MAX_PACED = 4096

log = logging.getLogger("ostiary.broker")

Cause = tuple[str, str, str]
"""Session, service, stage."""
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A place that is taken. order: the higher, the newer. authentic: its evidence was."""

    denial: str
    session: str
    authentic: bool
    order: int


@dataclass(kw_only=True)
class _Tally:
    """What the audit log and the store have not heard of one cause yet. new: a place has a denial they do not know."""

    count: int = 0
    places: set[int] = field(default_factory=set)
    new: bool = False
    committed: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Whether it may be committed at `now`."""
        if not self.count:
            return False
        return self.committed is None or abs(now - self.committed) >= (FLUSH_PAUSE if self.new else PERIOD)


class DenialRecords:
    """The denials of one service. On the event loop only; `close` may be called without one."""

    def __init__(self, store: Store, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._kept: dict[int, _Kept] = {}
        self._order = 0
        self._waiting: dict[int, dict[str, Any]] = {}
        self._committing: dict[int, tuple[dict[str, Any], Future[Head]]] = {}
        self._recent: OrderedDict[bytes, tuple[str, datetime]] = OrderedDict()
        self._paces: OrderedDict[tuple[str, bool], deque[datetime]] = OrderedDict()
        self._tallies: OrderedDict[Cause, _Tally] = OrderedDict()
        self._ticking_on: asyncio.AbstractEventLoop | None = None
        self._load()

    def _load(self) -> None:
        found = []
        for place in range(MAX_DENIALS):
            record = self._store.get(_name(place))
            if record is not None:
                found.append((record.version, place, _parse(record.value)))
        for order, place, document in sorted(found, key=lambda one: one[:2]):
            self._keep(place, document, order)

    def find(self, denial: str) -> Document | None:
        """The denial with that id, None if there is none, or none any more."""
        place = self._place(denial)
        return None if place is None else self._document(place)

    def of_session(self, session: str) -> list[Document]:
        """The denials of one session, newest first."""
        places = [place for place, kept in self._kept.items() if kept.session == session]
        places.sort(key=lambda place: self._kept[place].order, reverse=True)
        return [document for place in places if (document := self._document(place)) is not None]

    def repeated(self, fingerprint: bytes) -> str | None:
        """The id of the same denial, if there was one within REPEATING; that one counts once more."""
        denial, last = self._recent.get(fingerprint, ("", None))
        now = self._now()
        if last is None or abs(now - last) >= REPEATING:
            return None
        place = self._place(denial)
        document = None if place is None else self._document(place)
        if place is None or document is None:
            return None
        self._waiting[place] = {**document, "times": document["times"] + 1, "last_time": format_time(now)}
        self._count(_cause(document)).places.add(place)
        return denial

    def has_room(self, session: str, *, authentic: bool) -> bool:
        """Whether one more denial may be kept now; it is taken for granted that it will be."""
        now = self._now()
        paces = [
            (self._pace("", authentic), MAX_NEW),
            (self._pace(session, authentic), MAX_NEW_OF_SESSION),
        ]
        for pace, most in paces:
            while pace and abs(now - pace[0]) >= PERIOD:
                pace.popleft()
            if len(pace) >= most:
                return False
        for pace, _ in paces:
            pace.append(now)
        return True

    def add(self, document: Document, *, fingerprint: bytes) -> None:
        """Keep a denial, in the place of the one that can be spared most if all are taken, and count it."""
        place = self._choose(str(document["session"]), authentic=document["evidence"] is not None)
        self._order += 1
        self._keep(place, document, self._order)
        self._waiting[place] = dict(document)
        self._recent[fingerprint] = (str(document["id"]), self._now())
        self._recent.move_to_end(fingerprint)
        if len(self._recent) > MAX_DENIALS:
            self._recent.popitem(last=False)
        tally = self._count(_cause(document))
        tally.places.add(place)
        tally.new = True

    def count(self, cause: Cause) -> None:
        """Count a denial that is not kept, for the audit log."""
        self._count(cause)

    def settle(self) -> None:
        """Commit what is due, and come again for the rest. Waits for nothing."""
        now = self._now()
        for cause, tally in tuple(self._tallies.items()):
            if tally.is_due(now):
                self._commit(cause, tally)
        if any(tally.count for tally in self._tallies.values()):
            self._tick()

    def close(self) -> None:
        """Commit all that waits, and wait for it. Raises nothing: trouble of the store is told by what comes next."""
        self._wait()
        for cause, tally in tuple(self._tallies.items()):
            if tally.count:
                self._commit(cause, tally)
        self._wait()

    def _wait(self) -> None:
        for _, future in self._committing.values():
            future.exception()

    def _tick(self) -> None:
        """One timer at a time, of the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._ticking_on is loop:
            return
        self._ticking_on = loop
        loop.call_later(FLUSH_PAUSE.total_seconds(), self._tock)

    def _tock(self) -> None:
        self._ticking_on = None
        with suppress(StoreError):  # closed: whoever closed the store has called `close` before
            self.settle()

    def _commit(self, cause: Cause, tally: _Tally) -> None:
        """Write what waits of the cause; nothing, and the next time, if a place of it is being written already."""
        self._forget_committed()
        if self._is_under_way(tally):
            return
        waiting = [place for place in tally.places if place in self._waiting]
        writes = [
            Write(
                name=_name(place),
                value=_encode(self._waiting[place]),
                expected_version=self._store.version(_name(place)) or 0,
            )
            for place in waiting
        ]
        session, service, stage = cause
        leaf = entry(
            Kind.SERVICE_REFUSED,
            {"session": session, "service": service, "cause": stage, "count": tally.count},
            self._now(),
        )
        future = self._store.commit(writes, leaf)
        for place in waiting:
            self._committing[place] = (self._waiting.pop(place), future)
        tally.places.clear()
        tally.count, tally.new, tally.committed = 0, False, self._now()

    def _is_under_way(self, tally: _Tally) -> bool:
        return any(place in self._committing for place in tally.places)

    def _forget_committed(self) -> None:
        for place, (document, future) in tuple(self._committing.items()):
            if future.done():
                del self._committing[place]
                if future.exception() is not None:
                    log.warning("denial %s could not be stored: %s", document["id"], future.exception())

    def _count(self, cause: Cause) -> _Tally:
        tally = self._tallies.setdefault(cause, _Tally())
        self._tallies.move_to_end(cause)
        tally.count += 1
        if len(self._tallies) > MAX_CAUSES:
            oldest = next((one for one, old in self._tallies.items() if not self._is_under_way(old)), cause)
            forgotten = self._tallies.pop(oldest)
            if forgotten.places:
                self._commit(oldest, forgotten)
        return tally

    def _place(self, denial: str) -> int | None:
        return next((place for place, kept in self._kept.items() if kept.denial == denial), None)

    def _keep(self, place: int, document: Mapping[str, Any], order: int) -> None:
        self._order = max(self._order, order)
        self._kept[place] = _Kept(
            denial=str(document["id"]),
            session=str(document["session"]),
            authentic=document["evidence"] is not None,
            order=order,
        )

    def _document(self, place: int) -> dict[str, Any] | None:
        if place in self._waiting:
            return self._waiting[place]
        self._forget_committed()
        if place in self._committing:
            return self._committing[place][0]
        record = self._store.get(_name(place))
        document = None if record is None else _parse(record.value)
        # Another one stands there if ours could not be stored.
        return document if document is not None and document["id"] == self._kept[place].denial else None

    def _choose(self, session: str, *, authentic: bool) -> int:
        mine = [place for place, kept in self._kept.items() if (kept.session, kept.authentic) == (session, authentic)]
        if len(mine) >= MAX_OF_SESSION:
            return min(mine, key=lambda place: self._kept[place].order)
        if len(self._kept) < MAX_DENIALS:
            return next(place for place in range(MAX_DENIALS) if place not in self._kept)
        return min(self._kept, key=lambda place: (self._kept[place].authentic, self._kept[place].order))

    def _pace(self, session: str, authentic: bool) -> deque[datetime]:
        """When denials were kept lately; of all sessions under the empty name."""
        pace = self._paces.setdefault((session, authentic), deque())
        self._paces.move_to_end((session, authentic))
        if len(self._paces) > _MAX_PACED:
            self._paces.popitem(last=False)
        return pace


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, milliseconds, with `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _cause(document: Document) -> Cause:
    return str(document["session"]), str(document["service"]), str(document["stage"])


def _name(place: int) -> str:
    return f"denial/{place:04}"


def _encode(document: Document) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(value: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(value)
    if document["form"] != FORM:
        raise StoreError(f"a denial has form {document['form']}, expected {FORM}: a newer Ostiary wrote it; run that")
    return document
