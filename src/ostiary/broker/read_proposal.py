"""Proposals for those who may see them: one with all that it means, or lists of those that are pending."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from ostiary.board import Caller, Operation, admits
from ostiary.board.proposal import State
from ostiary.board.risk import nothing_like, risks
from ostiary.broker.admission import access_policy_of, readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import Proposal, Seat, format_time, standing
from ostiary.broker.proposal_lists import Difference, Listed, Turn
from ostiary.broker.proposal_records import NO_PROPOSAL, Entry, indexed
from ostiary.errors import IdentityRequiredError, InputError, NotFoundError
from ostiary.session import ParsedSession
from ostiary.session.diff import differences
from ostiary.session.model import Session

MAX_WAIT_SECONDS = 50.0
"""For how long a list may be waited for; a longer wait ends here, as the connection would."""
LISTED_AT_ONCE = 1024
"""Proposals that are looked at for one list before others have their turn."""
MAX_CHANGED = 64
"""Changed proposals of which it is asked whether they belong to a list; of more it is made anew."""

_ID = re.compile(r"[0-9a-f]{64}")


async def read_proposal(cas: Cas, proposal_id: str, *, caller: Caller | None) -> dict[str, Any]:
    """The proposal with all that whoever decides must see, JSON, after everything that is due was done.

    Guarantees on return: the caller has the key of a member who is asked, or proposed it, or may read the session by
    its current version. For anybody else the answer is that for an id that never was: NotFoundError.
    """
    # Before anything is done for it, and again, as what was due may change who is asked.
    await _require_sight(cas, indexed(cas.proposals.require(require_id(proposal_id))), caller)
    proposal = await settle(cas, proposal_id)
    await _require_sight(cas, indexed(proposal), caller)
    parsed = await cas.proposals.version(proposal)
    before = await _predecessor(cas, proposal)
    # On a thread: comparing large sessions takes a while, and others would wait.
    meaning = await asyncio.to_thread(_meaning, None if before is None else before.session, parsed.session)
    facts = proposal.facts
    return {
        **proposal.summary(),
        "cas": facts.cas.hex(),
        "nonce": facts.nonce.hex(),
        "session_text": parsed.text,
        "before_text": None if before is None else before.text,
        **meaning,
        "members": [_member(seat, proposal) for seat in proposal.seats],
    }


def _meaning(before: Session | None, after: Session) -> dict[str, Any]:
    found = differences(nothing_like(after) if before is None else before, after)
    return {
        "differences": [{"effect": one.effect.name.lower(), "path": one.path, "meaning": one.meaning} for one in found],
        "risks": [{"kind": risk.kind.value, "sentence": risk.sentence} for risk in risks(before, after)],
    }


async def _require_sight(cas: Cas, entry: Entry, caller: Caller | None) -> None:
    """Raise NotFoundError for who may not see it. The session's key vault is asked where that takes a value from it."""
    if _is_party(entry, caller):
        return
    if _has_readers(entry):
        await cas.sessions.prepare(entry.session)
        current = cas.sessions.current(entry.session)
        if current is not None:
            policy = access_policy_of(cas, current).thing
            if admits(Operation.READ, policy, creator=current.creator, caller=caller):
                return
    raise NotFoundError("Proposal not found", NO_PROPOSAL)


def require_id(text: str) -> str:
    """64 hex digits. Raises NotFoundError for all else."""
    if not _ID.fullmatch(text):
        raise NotFoundError("Proposal not found", NO_PROPOSAL)
    return text


def _member(seat: Seat, proposal: Proposal) -> dict[str, Any]:
    decision = None if seat.key is None else proposal.decisions.get(seat.key)
    return {
        "board": seat.board,
        "name": seat.name,
        "key": seat.key_hash,
        "power": ["vote", *seat.powers],
        "decision": None
        if decision is None
        else {
            "choice": decision.choice.value,
            "reason": decision.reason,
            "at": format_time(decision.at),
            "signature": b64encode(decision.signature).decode("ascii"),
        },
    }


async def _predecessor(cas: Cas, proposal: Proposal) -> ParsedSession | None:
    name, predecessor = proposal.facts.session, proposal.facts.predecessor
    if predecessor is None:
        return None
    await cas.sessions.prepare_version(name, predecessor)
    version = cas.sessions.version(name, predecessor)
    return None if version is None else version.parsed


# --- lists -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a list is of. session: None: all. waiting_for: SHA-256 of a member's key, hex: those that it has not
    decided; "me": the key of the TLS client. closed: also those that are closed, of one session."""

    session: str | None = None
    waiting_for: str | None = None
    closed: bool = False


async def list_proposals(
    cas: Cas, query: Query, *, caller: Caller | None, after: str | None, wait_seconds: float
) -> Listed:
    """The proposals that `query` asks for and the caller may see, as in `read_proposal`; the others are left out.

    No key vault is asked: who may read only by what lies in one is not shown the proposal here.
    after: the cursor of a list that the caller has: if it is that list still, the answer comes when a change of a
    proposal makes it another, or after `wait_seconds`. A list is as of the request, or of a later change; so whoever
    asks again with the cursor of each answer misses no change that lasts.
    """
    end = time.monotonic() + min(wait_seconds, MAX_WAIT_SECONDS)
    asked = _Asked(query=query, member=_member_of(query, caller), caller=caller)
    turn = Turn.ASKED
    while True:
        seen = cas.proposals.pending()
        listed = await cas.lists.one_for_all((turn, asked), partial(_list, cas, asked, turn))
        if after is None or listed.cursor != after or time.monotonic() >= end:
            return listed
        if not await _changes(cas, asked, listed, seen, end):
            return listed
        turn = Turn.WAITED


async def _changes(cas: Cas, asked: _Asked, listed: Listed, seen: Sequence[Entry], end: float) -> bool:
    """Wait until a change of a proposal may have made it another list; False: none did until `end`, or too many wait.

    seen: what was pending before the list was made. end: in the clock of time.monotonic.
    """
    key = None if asked.caller is None else asked.caller.key_hash
    while True:
        stamp = cas.proposals.stamp()
        pending = cas.proposals.pending()
        if pending is not seen:
            if await _concerns(cas, asked, listed, cas.lists.difference(seen, pending)):
                return True
            seen = pending
        while cas.proposals.stamp() == stamp:
            left = end - time.monotonic()
            if left <= 0 or not await cas.lists.change(key, left):
                return False


async def _concerns(cas: Cas, asked: _Asked, listed: Listed, difference: Difference) -> bool:
    """Whether the list may be another one: a proposal in it is not what it was, or another one belongs to it."""
    if len(difference.gone) > MAX_CHANGED or len(difference.come) > MAX_CHANGED:
        return True
    if any(entry.shown in listed.shown for entry in difference.gone):
        return True
    sight = _Sight(cas, asked.caller)
    came = [entry for entry in difference.come if asked.selects(entry)]
    # Those that were closed are found by their ids alone.
    closed = asked.query.closed and any(entry.session == asked.query.session for entry in difference.gone)
    return closed or any([await sight.sees(entry) for entry in came])


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What somebody asks for. member: SHA-256 of the key that `waiting_for` means."""

    query: Query
    member: bytes | None
    caller: Caller | None

    def selects(self, entry: Entry) -> bool:
        """Whether a pending proposal is asked for."""
        session, member = self.query.session, self.member
        return (session is None or entry.session == session) and (member is None or entry.waits_for(member))


def _member_of(query: Query, caller: Caller | None) -> bytes | None:
    """SHA-256 of the key that `waiting_for` means."""
    if query.waiting_for is None:
        return None
    member = query.waiting_for
    if member == "me":
        if caller is None:
            raise IdentityRequiredError("waiting-for=me needs a client certificate, and none was shown")
        return caller.key_hash
    if not _ID.fullmatch(member):
        raise InputError("waiting-for is neither `me` nor the SHA-256 of a member's public key, 64 hex digits")
    return bytes.fromhex(member)


async def _selected(cas: Cas, asked: _Asked) -> Sequence[Entry]:
    """Those that are asked for, whoever asks; those that are closed come first, they are the older ones."""
    records, session, member = cas.proposals, asked.query.session, asked.member
    if session is None:
        if asked.query.closed:
            raise InputError("state=all lists the proposals of one session; add session=NAME")
        return records.pending() if member is None else records.waiting_for(member)
    closed = await _closed(cas, session) if asked.query.closed else ()
    return [entry for entry in (*closed, *records.pending_of(session)) if asked.selects(entry)]


async def _closed(cas: Cas, session: str) -> list[Entry]:
    entries = []
    for one in cas.proposals.of_session(session):
        found = cas.proposals.find(one)
        if found is not None and not found.state.is_pending:
            entries.append(indexed(found))
        # A record with many long reasons takes a while to read.
        await asyncio.sleep(0)
    return entries


async def _list(cas: Cas, asked: _Asked, turn: Turn) -> Listed:
    entries = await _selected(cas, asked)
    sight = _Sight(cas, asked.caller)
    async with cas.lists.turn(turn):
        listed = await _shown(cas, entries, sight)
    if not sight.unknown:
        return listed
    # Not while others wait for their lists: it may take long, of sessions that are large or have variables.
    await sight.learn()
    async with cas.lists.turn(turn):
        return await _shown(cas, entries, sight)


async def _shown(cas: Cas, entries: Sequence[Entry], sight: _Sight) -> Listed:
    now = cas.now()
    shown, marks = [], []
    for number, entry in enumerate(entries, 1):
        if number % LISTED_AT_ONCE == 0:
            await asyncio.sleep(0)
        # What is over, and not closed in the store yet, is not listed as open; a moment later it is closed.
        if sight.may_see(entry) and await sight.stands(entry, now):
            shown.append(entry.shown)
            marks.append(entry.mark)
    return Listed(shown=tuple(shown), cursor=hashlib.sha256(b"".join(marks)).hexdigest()[:32])


# --- who may see what ------------------------------------------------------------------------------------------------


def _is_party(entry: Entry, caller: Caller | None) -> bool:
    """Whether the caller is asked, or proposed it."""
    return caller is not None and (caller.key_hash == entry.proposer or entry.asks(caller.key_hash))


def _has_readers(entry: Entry) -> bool:
    """Whether those who may read the session may see it, too.

    A first version that is not applied is of a session that is not there, or is somebody else's by now.
    """
    return entry.predecessor is not None or entry.state is State.APPLIED


class _Sight:
    """What one caller may see, in one request: each session is looked at once, as of the request or later.

    unknown: sessions of which it is to be learned who may read them.
    """

    def __init__(self, cas: Cas, caller: Caller | None) -> None:
        self._cas = cas
        self._caller = caller
        self._now = cas.now()
        self._readable: dict[str, bool] = {}
        self._current: dict[str, bytes | None] = {}
        self.unknown: dict[str, None] = {}

    def may_see(self, entry: Entry) -> bool:
        """Whether the caller is asked, proposed it, or may read the session, as far as that is known."""
        # In this order, as what the entry says costs nothing.
        return _is_party(entry, self._caller) or (_has_readers(entry) and self._may_read(entry.session))

    def _may_read(self, session: str) -> bool:
        known = self._readable.get(session)
        if known is not None:
            return known
        readers = self._cas.readers.recall(session, self._now)
        if readers is None:
            self.unknown[session] = None
            return False
        readable = self._readable[session] = readers.thing.admit(self._caller)
        return readable

    async def learn(self) -> None:
        """Have nothing unknown any more. One session after the other, for all lists, of which each has its turn."""
        for session in self.unknown:
            async with self._cas.lists.turn(Turn.READERS):
                readers = await readers_of(self._cas, session)
            self._readable[session] = readers.admit(self._caller)
        self.unknown.clear()

    async def sees(self, entry: Entry) -> bool:
        """As `may_see`, and nothing stays unknown."""
        seen = self.may_see(entry)
        if not self.unknown:
            return seen
        await self.learn()
        return self.may_see(entry)

    async def stands(self, entry: Entry, now: datetime) -> bool:
        """Whether it is in the state that it was stored in."""
        session = entry.session
        if session not in self._current:
            self._current[session] = await self._cas.sessions.current_hash(session)
        current = self._current[session]
        state = standing(entry.state, predecessor=entry.predecessor, expires=entry.expires, current=current, now=now)
        return state is entry.state
