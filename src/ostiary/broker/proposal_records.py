"""Proposals in the store, and an index of those that are pending, so that many of them list quickly.

Records, by logical name::

    proposal/ID           the proposal: facts, decisions, state
    proposed/ID           the version that it proposes, in normal form; never changes
    proposals             how many pages the index has
    proposals/N           a page of the index: a line for each of up to PAGE pending proposals, what lists show of it
    proposals-of/SESSION  the ids of the session's last MAX_OF_SESSION proposals, the newest last

A change of a proposal is one commit over its record and its page. Pages are kept parsed for as long as their versions
stand, and what lists show is kept as it is sent.

Bounds: MAX_PENDING_OF_SESSION, MAX_PENDING_OF_NAMESPACE and MAX_PENDING proposals wait at a time, and of whoever may
only read three quarters of that; a member or creator always has room for OWN in a session. Of a session MAX_OF_SESSION
are kept, the oldest closed ones are dropped. Those that were applied are never, as they prove who approved a version;
those of readers that no member cared for are dropped as soon as they are over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from weakref import WeakValueDictionary

from ostiary.board.proposal import State
from ostiary.broker.namespace import is_below
from ostiary.broker.proposal import Proposal, decode_proposal, encode_proposal
from ostiary.errors import ConflictError, NotFoundError, StoreError, TamperedError, TooLargeError
from ostiary.session import ParsedSession, parse_session
from ostiary.store import Head, Store, Write

PAGE = 8
"""Pending proposals of one page. A decision writes the page of its proposal, a list looks at all pages."""
MAX_PENDING = 20_000
MAX_PENDING_OF_NAMESPACE = 4_000
"""Of a session in the root namespace and all below it: so a tenant cannot take all the room of the others."""
MAX_PENDING_OF_SESSION = 16
RESERVED = 4
"""One in so many of each of these is for members, whoever made the current version, and whom an access policy admits to
make the next: others who may read cannot take all the room, and could fill it with identities that cost nothing."""
OWN = 2
"""Proposals of a session that a member, or who made its current version, may have open however many others wait."""
MAX_READERS_TEXT_BYTES = 64 * 1024
"""Of a version that somebody proposes who may only read."""
MAX_OF_SESSION = 100
MAX_PARSED = 64
"""Proposed versions that are kept parsed, the least recently used dropped first."""
MAX_KNOWN_BYTES = 32 * 1024 * 1024
"""Of the records of proposals that are kept decoded, without their versions."""
MAX_WATCHERS = 256
"""Requests that wait for a change at a time."""
LISTED_NOTE_CHARS = 100
"""Of a note in lists: whole ones of all that may wait, in any letters, would be more than members can take in."""
MARK_BYTES = 16
KEY_HASH_BYTES = 32
LOOK_SECONDS = 1.0
"""How often whoever waits looks for what other processes over the same database have changed."""

_FORM = 2
_PAGES = "proposals"
_ADDING = -1
"""Stands for a page among the turns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A pending proposal in the index. shown: its summary, JSON. mark: 16 bytes that change with all of it.

    waiting, decided: of the members that have not decided, and that have: SHA-256 of their keys, one after the other.
    proposer: SHA-256 of its key.
    """

    proposal: str
    session: str
    state: State
    predecessor: bytes | None
    expires: datetime
    apply_after: datetime | None
    proposer: bytes | None
    waiting: bytes = field(repr=False)
    decided: bytes = field(repr=False)
    shown: bytes = field(repr=False)
    mark: bytes = field(repr=False)

    def waits_for(self, member: bytes) -> bool:
        """Whether a member has not decided. member: SHA-256 of its key."""
        return _holds(self.waiting, member)

    def asks(self, member: bytes) -> bool:
        """Whether a member decides about it, or has decided."""
        return _holds(self.waiting, member) or _holds(self.decided, member)

    @property
    def line(self) -> bytes:
        """All of it as the page has it."""
        return _line(self.waiting, self.decided, self.shown)


@dataclass(frozen=True, kw_only=True)
class _Page:
    """version: of its record; 0: there is none yet."""

    version: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A proposal that is to be stored, all of `writes` in one commit. size: of its new record, bytes; 0: it gets none.

    entries: those of its page by then; None: the page stays as it is.
    """

    proposal: Proposal
    size: int
    entries: tuple[Entry, ...] | None
    writes: tuple[Write, ...]


@dataclass(frozen=True, kw_only=True)
class _Known:
    """size: of the record, bytes."""

    proposal: Proposal
    size: int


@dataclass(frozen=True, kw_only=True)
class _Index:
    """All pages, in the versions that they had."""

    versions: tuple[int, ...]
    entries: tuple[Entry, ...]


class ProposalRecords:
    """Reads and writes the records of proposals, on the event loop only. Decides nothing about who may."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: dict[int, _Page] = {}
        self._index = _Index(versions=(), entries=())
        self._looked = -math.inf
        self._head = -1
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._known_bytes = 0
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._parsed: OrderedDict[str, ParsedSession] = OrderedDict()
        self._watchers: set[asyncio.Future[None]] = set()

    # --- one proposal

    def find(self, proposal: str) -> Proposal | None:
        """The proposal with this id, None if there is none, or none any more."""
        known = self._known.get(proposal)
        if known is not None and known.proposal.record == self._store.version(_proposal_name(proposal)):
            self._known.move_to_end(proposal)
            return known.proposal
        record = self._store.get(_proposal_name(proposal))
        if record is None:
            return None
        found = decode_proposal(record.value, record=record.version)
        self._keep(found, len(record.value))
        return found

    def _keep(self, proposal: Proposal, size: int) -> None:
        before = self._known.pop(proposal.id, None)
        self._known[proposal.id] = _Known(proposal=proposal, size=size)
        self._known_bytes += size - (0 if before is None else before.size)
        while self._known_bytes > MAX_KNOWN_BYTES:
            _, dropped = self._known.popitem(last=False)
            self._known_bytes -= dropped.size

    def require(self, proposal: str) -> Proposal:
        """As `find`; raises NotFoundError if there is none."""
        found = self.find(proposal)
        if found is None:
            raise NotFoundError("Proposal not found", NO_PROPOSAL)
        return found

    async def version(self, proposal: Proposal) -> ParsedSession:
        """The version of the session that it proposes. Raises StoreError, TamperedError."""
        known = self._parsed.get(proposal.id)
        if known is None:
            record = self._store.get(_proposed_name(proposal.id))
            if record is None:
                raise StoreError(f"the text of proposal {proposal.id} is missing")
            known = await asyncio.to_thread(parse_session, record.value)
            if known.hash != proposal.facts.session_hash:
                raise TamperedError("a stored proposal is not of the version that was recorded for it")
            self._parsed[proposal.id] = known
        self._parsed.move_to_end(proposal.id)
        if len(self._parsed) > MAX_PARSED:
            self._parsed.popitem(last=False)
        return known

    # --- many

    def pending(self) -> tuple[Entry, ...]:
        """Every proposal that the index has, by pages. Some may be over by now; `standing` says so."""
        return self._look().entries

    def pending_of(self, session: str) -> tuple[Entry, ...]:
        """As `pending`, of one session."""
        return tuple(entry for entry in self._look().entries if entry.session == session)

    def waiting_for(self, member: bytes) -> tuple[Entry, ...]:
        """As `pending`, those that a member has not decided. member: SHA-256 of its key."""
        return tuple(entry for entry in self._look().entries if entry.waits_for(member))

    def stamp(self) -> object:
        """Equal to the one before while the index was not seen to change; at most LOOK_SECONDS behind others."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        return self._index.versions

    def of_session(self, session: str) -> tuple[str, ...]:
        """The ids of the last proposals of a session, the oldest first."""
        return self._of_session(session)[1]

    def _look(self) -> _Index:
        self._looked = time.monotonic()
        # The head first, and what is read is as new or newer: else a change in between would go unseen.
        self._store.version(_PAGES)
        head = self._store.head.seq
        if head == self._head:
            return self._index
        numbers = range(self._count())
        pages = list(map(self._page, numbers, self._store.versions(map(_page_name, numbers))))
        versions = tuple(page.version for page in pages)
        if self._index.versions != versions:
            self._index = _Index(versions=versions, entries=tuple(entry for page in pages for entry in page.entries))
        self._head = head
        return self._index

    # --- writing

    def turn(self, page: int | None) -> asyncio.Lock:
        """Whoever changes proposals of a page, None: adds one, takes turns with the others of this process.

        Their commits would exclude each other; all but one would have to begin anew, and so on.
        """
        return self._turns.setdefault(_ADDING if page is None else page, asyncio.Lock())

    def addition(self, proposal: Proposal, text: str, *, is_named: bool) -> Change:
        """What adds a proposal. is_named: its proposer is a member, or made the current version.

        Raises ConflictError if too many wait already; TooLargeError for a text that is too large for a reader.
        """
        session, encoded = proposal.facts.session, text.encode()
        if not proposal.insider and len(encoded) > MAX_READERS_TEXT_BYTES:
            raise TooLargeError(
                f"the version has {len(encoded)} bytes; of whoever may only read, {MAX_READERS_TEXT_BYTES} are taken",
                "have a member of the board, or who made the current version, propose it",
            )
        self._check_room(proposal, is_named=is_named)
        number, page = self._room()
        version, ids = self._of_session(session)
        kept, dropped = self._bounded((*ids, proposal.id))
        entries = (*page.entries, indexed(proposal))
        return self._change(
            replace(proposal, page=number),
            entries,
            _page_write(number, page, entries),
            Write(name=_proposed_name(proposal.id), value=encoded, expected_version=0),
            Write(name=_of(session), value=json.dumps(kept).encode(), expected_version=version),
            *self._removals(*(name(one) for one in dropped for name in (_proposal_name, _proposed_name))),
            *self._longer(number),
        )

    def replacement(self, proposal: Proposal) -> Change:
        """What puts a changed proposal in the place of the one that was read as version `proposal.record`.

        One that is applied stays in the index, for `departure`: what others do on its page would delay it.
        """
        if proposal.state is State.APPLIED:
            return self._change(proposal, None)
        page = self._page(proposal.page)
        others = [entry for entry in page.entries if entry.proposal != proposal.id]
        if proposal.is_forgotten:
            return self._forgetting(proposal, page, tuple(others))
        if proposal.state.is_pending:
            at = next((at for at, entry in enumerate(page.entries) if entry.proposal == proposal.id), len(others))
            others.insert(at, indexed(proposal))
        entries = tuple(others)
        return self._change(proposal, entries, _page_write(proposal.page, page, entries))

    def departure(self, proposal: Proposal) -> Change | None:
        """What takes a closed proposal out of the index; None: it is not there."""
        page = self._page(proposal.page)
        others = tuple(entry for entry in page.entries if entry.proposal != proposal.id)
        if len(others) == len(page.entries):
            return None
        return Change(proposal=proposal, size=0, entries=others, writes=(_page_write(proposal.page, page, others),))

    def _change(self, proposal: Proposal, entries: tuple[Entry, ...] | None, *others: Write) -> Change:
        value = encode_proposal(proposal)
        write = Write(name=_proposal_name(proposal.id), value=value, expected_version=proposal.record)
        return Change(proposal=proposal, size=len(value), entries=entries, writes=(write, *others))

    def _forgetting(self, proposal: Proposal, page: _Page, entries: tuple[Entry, ...]) -> Change:
        session = proposal.facts.session
        version, ids = self._of_session(session)
        kept = [one for one in ids if one != proposal.id]
        # The record in the version that was judged: a decision that was stored since must not go with it.
        writes = (
            Write(name=_proposal_name(proposal.id), value=None, expected_version=proposal.record),
            *self._removals(_proposed_name(proposal.id)),
            _page_write(proposal.page, page, entries),
            Write(name=_of(session), value=json.dumps(kept).encode() if kept else None, expected_version=version),
        )
        return Change(proposal=proposal, size=0, entries=entries, writes=writes)

    def stored(self, change: Change, head: Head) -> None:
        """Keep what was written, instead of reading it again. head: of the transaction that its commit was part of."""
        record = self._written(_proposal_name(change.proposal.id), head) if change.size else 0
        page = 0 if change.entries is None else self._written(_page_name(change.proposal.page), head)
        if record:
            self._keep(replace(change.proposal, record=record), change.size)
        if page and change.entries is not None:
            self._pages[change.proposal.page] = _Page(version=page, entries=change.entries)

    def _written(self, name: str, head: Head) -> int:
        """The version that a commit of that transaction gave the record; 0: a later one has written it since.

        In one transaction no second commit writes a record: it would have had to expect a version of the future.
        """
        version = self._store.known_version(name) or 0
        return version if version <= head.log_size else 0

    # --- waiting for a change

    def changed(self) -> None:
        """Wake those who wait: this process has changed a proposal."""
        self._looked = -math.inf
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()

    async def change(self, seconds: float) -> bool:
        """Return when a proposal may have changed; at the latest after `seconds`, or LOOK_SECONDS.

        False: MAX_WATCHERS wait already, and whoever came on top must not come again at once.
        """
        if len(self._watchers) >= MAX_WATCHERS:
            await asyncio.sleep(min(seconds, LOOK_SECONDS))
            return False
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.add(watcher)
        try:
            await asyncio.wait((watcher,), timeout=min(seconds, LOOK_SECONDS))
        finally:
            self._watchers.discard(watcher)
        return True

    # --- pages

    def _count(self) -> int:
        record = self._store.get(_PAGES)
        return 0 if record is None else _page_count(record.value)

    def _page(self, number: int, version: int | None = None) -> _Page:
        """version: of its record, if it was just looked up."""
        name = _page_name(number)
        known = self._pages.get(number)
        if known is not None and known.version == (version or self._store.version(name) or 0):
            return known
        record = self._store.get(name)
        if record is None:
            page = _Page(version=0, entries=())
        else:
            # Nearly all of a page is as it was before.
            before = {} if known is None else {entry.mark: entry for entry in known.entries}
            lines = _lines(record.value)
            entries = tuple(before.get(_mark(line)) or _read_entry(line) for line in lines)
            page = _Page(version=record.version, entries=entries)
        self._pages[number] = page
        return page

    def _check_room(self, proposal: Proposal, *, is_named: bool) -> None:
        session, proposer = proposal.facts.session, proposal.proposer
        pending = self.pending()
        of_session = [entry for entry in pending if entry.session == session]
        if is_named and proposer is not None:
            own = sum(entry.proposer == proposer.key_hash for entry in of_session)
        else:
            own = OWN
        outermost = session.partition("/")[0]
        for what, found, most in (
            (f"session {session} has", 0 if own < OWN else len(of_session), MAX_PENDING_OF_SESSION),
            (
                f"sessions in {outermost} have",
                sum(is_below(entry.session, outermost) for entry in pending),
                MAX_PENDING_OF_NAMESPACE,
            ),
            ("all sessions together have", len(pending), MAX_PENDING),
        ):
            room = most if proposal.insider else most - most // RESERVED
            if found >= room:
                rest = "" if proposal.insider else "; the rest is for members, and for who made the current version"
                raise ConflictError(
                    f"{what} {room} open proposals, as many as may wait{rest}",
                    "have a board decide one, or wait until one expires",
                )

    def _room(self) -> tuple[int, _Page]:
        """A page that has room for one more, or a new one."""
        count = self._count()
        for number in range(count):
            page = self._page(number)
            if len(page.entries) < PAGE:
                return number, page
        return count, self._page(count)

    def _longer(self, number: int) -> tuple[Write, ...]:
        """The write by which the index has page `number`, if it has not yet."""
        record = self._store.get(_PAGES)
        if record is not None and number < _page_count(record.value):
            return ()
        value = b"%d\n%d" % (_FORM, number + 1)
        return (Write(name=_PAGES, value=value, expected_version=0 if record is None else record.version),)

    # --- by session

    def _of_session(self, session: str) -> tuple[int, tuple[str, ...]]:
        record = self._store.get(_of(session))
        return (0, ()) if record is None else (record.version, tuple(json.loads(record.value)))

    def _bounded(self, ids: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Those that stay in the list, and of the others those whose records make room."""
        over = len(ids) - MAX_OF_SESSION
        if over <= 0:
            return list(ids), []
        pending = {entry.proposal for entry in self.pending()}
        leaving = [one for one in ids[:-1] if one not in pending][:over]
        dropped = [one for one in leaving if (found := self.find(one)) is None or found.state is not State.APPLIED]
        return [one for one in ids if one not in leaving], dropped

    def _removals(self, *names: str) -> tuple[Write, ...]:
        return tuple(
            Write(name=name, value=None, expected_version=version)
            for name, version in zip(names, self._store.versions(names), strict=True)
            if version is not None
        )


NO_PROPOSAL = (
    "no proposal that you may read has this id; old ones are dropped after they were closed, and a first version is "
    "shown to its proposer and to members by TLS certificates of their own keys only"
)


def _proposal_name(proposal: str) -> str:
    return f"proposal/{proposal}"


def _proposed_name(proposal: str) -> str:
    return f"proposed/{proposal}"


def _of(session: str) -> str:
    return f"proposals-of/{session}"


def _page_name(number: int) -> str:
    return f"proposals/{number}"


def _page_write(number: int, page: _Page, entries: tuple[Entry, ...]) -> Write:
    """The write that gives a page other entries."""
    value = b"\n".join((b"%d" % _FORM, *(entry.line for entry in entries)))
    return Write(name=_page_name(number), value=value, expected_version=page.version)


def _lines(value: bytes) -> list[bytes]:
    """The lines of an index record but the first, which says its form."""
    form, *lines = value.split(b"\n")
    if form != b"%d" % _FORM:
        raise StoreError(
            f"the index of proposals has form {form.decode()}, expected {_FORM}: another Ostiary wrote it; run that"
        )
    return lines


def _page_count(value: bytes) -> int:
    (count,) = _lines(value)
    return int(count)


def indexed(proposal: Proposal) -> Entry:
    """The entry of a proposal, also if it is not pending."""
    keys = {seat.key: hashlib.sha256(seat.key).digest() for seat in proposal.seats if seat.key is not None}
    summary = proposal.summary()
    if len(summary["note"]) > LISTED_NOTE_CHARS:
        summary["note"] = summary["note"][: LISTED_NOTE_CHARS - 1] + "…"
    waiting = b"".join(sorted(key_hash for key, key_hash in keys.items() if key not in proposal.decisions))
    decided = b"".join(sorted(key_hash for key, key_hash in keys.items() if key in proposal.decisions))
    return _entry(_line(waiting, decided, _compact(summary)), summary)


def _read_entry(line: bytes) -> Entry:
    return _entry(line, json.loads(line.split(b" ", 2)[2]))


def _entry(line: bytes, summary: Mapping[str, Any]) -> Entry:
    waiting, decided, shown = line.split(b" ", 2)
    predecessor, apply_after, proposer = summary["predecessor"], summary["apply_after"], summary["proposer"]
    return Entry(
        proposal=summary["proposal"],
        session=summary["session"],
        state=State(summary["state"]),
        predecessor=None if predecessor is None else bytes.fromhex(predecessor),
        expires=datetime.fromisoformat(summary["expires"]),
        apply_after=None if apply_after is None else datetime.fromisoformat(apply_after),
        proposer=None if proposer is None else bytes.fromhex(proposer),
        waiting=b64decode(waiting),
        decided=b64decode(decided),
        shown=shown,
        mark=_mark(line),
    )


def _line(waiting: bytes, decided: bytes, shown: bytes) -> bytes:
    return b" ".join((b64encode(waiting), b64encode(decided), shown))


def _mark(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()[:MARK_BYTES]


def _holds(hashes: bytes, one: bytes) -> bool:
    """Whether `one`, 32 bytes, is among these."""
    at = hashes.find(one)
    while at % KEY_HASH_BYTES and at >= 0:
        at = hashes.find(one, at + 1)
    return at >= 0


def _compact(value: object) -> bytes:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
