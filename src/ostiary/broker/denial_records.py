"""Denials in the store: bounded in number, size and rate, so that no flood of them fills the disk or slows others.

A denial is one record, `denial/ID`; the record `denials` lists those that are kept. Whatever is written goes in one
commit with an entry of the audit log, `service_refused`, which counts the denials since the last one by their cause:
session, service and stage.

Bounds, and what is beyond them:
  - a session has MAX_OF_SESSION denials with authentic evidence, and as many without; all together MAX_DENIALS. The
    oldest are dropped; of all together those without authentic evidence first, so that whoever cannot bring any drops
    nobody's denials but those of others who cannot;
  - the same refusal within REPEATING is one denial, which counts;
  - new ones are kept at a rate of MAX_NEW_OF_SESSION and MAX_NEW a PERIOD, again for each sort by itself; what is over
    it is in the log, and counted in the audit log;
  - after a commit the next one waits for FLUSH_PAUSE if there is a new denial, for PERIOD if there are counts only, so
    that there are twelve a minute at most, whatever happens. What waits is in memory, where it can be read. Nobody who
    is denied waits for any of it.
A crash loses what waited; an orderly end does not. Several processes on one store share the list by compare-and-set;
rates and repetitions are those of each process.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ostiary.audit import Kind, entry
from ostiary.audit.entry import Json
from ostiary.errors import ConflictError, StoreError
from ostiary.store import Head, Record, Store, Write

MAX_DENIALS = 512
MAX_OF_SESSION = 16
"""Of each sort."""
MAX_DENIAL_BYTES = 16 * 1024
MAX_NEW = 60
MAX_NEW_OF_SESSION = 6
PERIOD = timedelta(minutes=1)
REPEATING = timedelta(minutes=1)
FLUSH_PAUSE = timedelta(seconds=5)
MAX_CAUSES = 256
"""Causes whose counts wait for the audit log; beyond that the one that was denied longest ago is forgotten."""
MAX_CAUSES_OF_ENTRY = 32
"""A cause takes at most about 1.2 kB of the 64 KiB that an entry may have."""
FORM = 1
"""Of the document that is stored, signed and shown, and of the list."""
_MAX_PACED = 4096
_MAX_LAST_TRIES = 8
_LIST = "denials"

log = logging.getLogger("ostiary.broker")

Cause = tuple[str, str, str]
"""Session, service, stage."""
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A denial in the list, which is in the order of their coming. authentic: its evidence was."""

    denial: str
    session: str
    authentic: bool


@dataclass(frozen=True, kw_only=True)
class _UnderWay:
    """A commit that the store has not answered yet, and what it writes and counts."""

    future: Future[Head]
    documents: Mapping[str, Document]
    counts: Mapping[Cause, int]


class DenialRecords:
    """The denials of one service. On the event loop only; `close` may be called without one.

    `_kept`, `_version`: the list as it was last seen in the store, and its version. `_unsaved`: documents, by id, that
    are newer than those in the store. At most one commit is under way.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime], random: Callable[[int], bytes]) -> None:
        self._store = store
        self._now = now
        self._random = random
        self._kept: tuple[_Kept, ...] = ()
        self._version = 0
        self._unsaved: dict[str, dict[str, Any]] = {}
        self._counts: OrderedDict[Cause, int] = OrderedDict()
        self._under_way: _UnderWay | None = None
        self._committed: datetime | None = None
        self._recent: OrderedDict[bytes, tuple[str, datetime]] = OrderedDict()
        self._paces: OrderedDict[tuple[str, bool], deque[datetime]] = OrderedDict()
        self._ticking_on: asyncio.AbstractEventLoop | None = None
        self._look()

    def find(self, denial: str) -> Document | None:
        """The denial with that id, None if there is none, or none any more."""
        self._look()
        return self._document(denial) if any(kept.denial == denial for kept in self._all()) else None

    def of_session(self, session: str) -> list[Document]:
        """The denials of one session, newest first."""
        self._look()
        found = (self._document(kept.denial) for kept in reversed(self._all()) if kept.session == session)
        return [document for document in found if document is not None]

    def repeated(self, fingerprint: bytes) -> str | None:
        """The id of the same denial, if there was one within REPEATING; that one counts once more."""
        denial, last = self._recent.get(fingerprint, ("", None))
        now = self._now()
        if last is None or abs(now - last) >= REPEATING:
            return None
        document = self._document(denial)
        if document is None:
            return None
        self._unsaved[denial] = {**document, "times": document["times"] + 1, "last_time": format_time(now)}
        self.count(_cause(document))
        return denial

    def has_room(self, session: str, *, authentic: bool) -> bool:
        """Whether one more denial may be kept now; it is taken for granted that it will be."""
        now = self._now()
        paces = [(self._pace("", authentic), MAX_NEW), (self._pace(session, authentic), MAX_NEW_OF_SESSION)]
        for pace, most in paces:
            while pace and abs(now - pace[0]) >= PERIOD:
                pace.popleft()
            if len(pace) >= most:
                return False
        for pace, _ in paces:
            pace.append(now)
        return True

    def add(self, document: Document, *, fingerprint: bytes) -> None:
        """Keep a denial, and count it."""
        self._unsaved[str(document["id"])] = dict(document)
        self._recent[fingerprint] = (str(document["id"]), self._now())
        self._recent.move_to_end(fingerprint)
        if len(self._recent) > MAX_DENIALS:
            self._recent.popitem(last=False)
        self.count(_cause(document))

    def count(self, cause: Cause) -> None:
        """Count a denial for the audit log, kept or not."""
        self._counts[cause] = self._counts.get(cause, 0) + 1
        self._counts.move_to_end(cause)
        if len(self._counts) > MAX_CAUSES:
            self._counts.popitem(last=False)

    def settle(self) -> None:
        """Commit what is due, and come again for the rest. Waits for nothing."""
        self._finish()
        if self._under_way is None and self._is_due():
            self._commit()
        if self._under_way is not None or self._counts or self._unsaved:
            self._tick()

    def close(self) -> None:
        """Commit all that waits, and wait for it. Raises nothing: trouble of the store is told by what comes next."""
        with suppress(StoreError):
            for _ in range(_MAX_LAST_TRIES):
                if self._under_way is not None:
                    self._under_way.future.exception()
                self._finish()
                if not self._counts and not self._unsaved:
                    return
                self._commit()

    # --- what is there

    def _look(self) -> None:
        """See what this process, or another one, has written."""
        self._finish()
        if (self._store.version(_LIST) or 0) != self._version:
            record = self._store.get(_LIST)
            self._kept = () if record is None else tuple(_Kept(**kept) for kept in _parse(record)["kept"])
            self._version = 0 if record is None else record.version

    def _all(self) -> tuple[_Kept, ...]:
        """The list as it will be once everything is written."""
        known = {kept.denial for kept in self._kept}
        new = (document for denial, document in self._unsaved.items() if denial not in known)
        return _bounded((*self._kept, *(_kept(document) for document in new)))

    def _document(self, denial: str) -> Document | None:
        unsaved = self._unsaved.get(denial)
        if unsaved is not None:
            return unsaved
        record = self._store.get(_name(denial))
        return None if record is None else _parse(record)

    def _pace(self, session: str, authentic: bool) -> deque[datetime]:
        """When denials were kept lately; of all sessions under the empty name."""
        pace = self._paces.setdefault((session, authentic), deque())
        self._paces.move_to_end((session, authentic))
        if len(self._paces) > _MAX_PACED:
            self._paces.popitem(last=False)
        return pace

    # --- what is committed when

    def _is_due(self) -> bool:
        if not self._counts and not self._unsaved:
            return False
        known = {kept.denial for kept in self._kept}
        pause = PERIOD if self._unsaved.keys() <= known else FLUSH_PAUSE
        return self._committed is None or abs(self._now() - self._committed) >= pause

    def _commit(self) -> None:
        self._look()
        kept = self._all()
        names = {one.denial for one in kept}
        self._unsaved = {denial: document for denial, document in self._unsaved.items() if denial in names}
        writes = [self._write(_name(denial), document) for denial, document in self._unsaved.items()]
        if kept != self._kept:
            listed = {"form": FORM, "kept": [asdict(one) for one in kept]}
            writes.append(Write(name=_LIST, value=_encode(listed), expected_version=self._version))
            writes += [self._write(_name(one.denial), None) for one in self._kept if one.denial not in names]
        counts = dict(list(self._counts.items())[:MAX_CAUSES_OF_ENTRY])
        for cause in counts:
            del self._counts[cause]
        refused: list[Json] = [
            {"session": session, "service": service, "cause": stage, "count": count}
            for (session, service, stage), count in counts.items()
        ]
        leaf = entry(Kind.SERVICE_REFUSED, {"refused": refused}, self._now(), self._random)
        future = self._store.commit(writes, leaf)
        self._under_way = _UnderWay(future=future, documents=dict(self._unsaved), counts=counts)
        self._committed = self._now()

    def _write(self, name: str, document: Document | None) -> Write:
        value = None if document is None else _encode(document)
        return Write(name=name, value=value, expected_version=self._store.version(name) or 0)

    def _finish(self) -> None:
        """Take note of how a commit ended. What failed waits for the next one."""
        done = self._under_way
        if done is None or not done.future.done():
            return
        self._under_way = None
        error = done.future.exception()
        if error is None:
            for denial, document in done.documents.items():
                if self._unsaved.get(denial) is document:
                    del self._unsaved[denial]
            return
        if not isinstance(error, ConflictError):
            log.warning("%d denials could not be stored yet: %s", len(done.documents), error)
        self._counts = OrderedDict(Counter(done.counts) + Counter(self._counts))

    def _tick(self) -> None:
        """One timer at a time, of the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._ticking_on is not loop:
            self._ticking_on = loop
            loop.call_later(FLUSH_PAUSE.total_seconds(), self._tock)

    def _tock(self) -> None:
        self._ticking_on = None
        with suppress(StoreError):  # closed: whoever closed the store has called `close` before
            self.settle()


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, milliseconds, with `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _bounded(kept: Iterable[_Kept]) -> tuple[_Kept, ...]:
    """The newest, as many as there may be of each sort of each session, and of all."""
    of_sort: Counter[tuple[str, bool]] = Counter()
    newest: list[_Kept] = []
    for one in reversed(tuple(kept)):
        of_sort[one.session, one.authentic] += 1
        if of_sort[one.session, one.authentic] <= MAX_OF_SESSION:
            newest.append(one)
    names = {one.denial for one in sorted(newest, key=lambda one: not one.authentic)[:MAX_DENIALS]}
    return tuple(one for one in reversed(newest) if one.denial in names)


def _kept(document: Document) -> _Kept:
    return _Kept(
        denial=str(document["id"]), session=str(document["session"]), authentic=document["evidence"] is not None
    )


def _cause(document: Document) -> Cause:
    return str(document["session"]), str(document["service"]), str(document["stage"])


def _name(denial: str) -> str:
    return f"denial/{denial}"


def _encode(document: Document) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(record: Record) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(record.value)
    if document["form"] != FORM:
        raise StoreError(f"a denial has form {document['form']}, expected {FORM}: a newer Ostiary wrote it; run that")
    return document
