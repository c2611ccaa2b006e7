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
from typing import Any

from ostiary.board import Caller, Operation, authorize
from ostiary.board.proposal import State
from ostiary.board.risk import risks
from ostiary.broker.admission import readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import Proposal, Seat, format_time, standing
from ostiary.broker.proposal_records import NO_PROPOSAL, Entry, indexed
from ostiary.errors import IdentityRequiredError, InputError, NotFoundError, RefusedError
from ostiary.session import ParsedSession
from ostiary.session.diff import differences
from ostiary.session.model import Session

MAX_WAIT_SECONDS = 50.0
"""For how long a list may be waited for; a longer wait ends here, as the connection would."""
LISTED_AT_ONCE = 1024
"""Proposals that are looked at for one list before others have their turn."""

_ID = re.compile(r"[0-9a-f]{64}")


async def read_proposal(cas: Cas, proposal_id: str, *, caller: Caller | None) -> dict[str, Any]:
    """The proposal with all that whoever decides must see, JSON, after everything that is due was done.

    Guarantees on return: the caller has the key of a member who is asked, or proposed it, or may read the session by
    its current version. For anybody else the answer is that for an id that never was: NotFoundError.
    """
    # Before anything is done for it, and again, as what was due may change who is asked.
    await _check_may_see(cas, cas.proposals.require(require_id(proposal_id)), caller)
    proposal = await settle(cas, proposal_id)
    await _check_may_see(cas, proposal, caller)
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
    found = () if before is None else differences(before, after)
    return {
        "differences": [{"effect": one.effect.name.lower(), "path": one.path, "meaning": one.meaning} for one in found],
        "risks": [{"kind": risk.kind.value, "sentence": risk.sentence} for risk in risks(before, after)],
    }


async def _check_may_see(cas: Cas, proposal: Proposal, caller: Caller | None) -> None:
    sight = _Sight(cas, caller)
    if not sight.may_see(indexed(proposal), await sight.look(proposal.facts.session)):
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


@dataclass(frozen=True, kw_only=True)
class Listed:
    """shown: summaries, each JSON. cursor: it changes whenever the list does."""

    shown: tuple[bytes, ...]
    cursor: str


async def list_proposals(
    cas: Cas, query: Query, *, caller: Caller | None, after: str | None, wait_seconds: float
) -> Listed:
    """The proposals that `query` asks for and the caller may see, as in `read_proposal`; the others are left out.

    after: the cursor of a list that the caller has: if it is that list still, the answer comes when it is not any more,
    or after `wait_seconds`. So whoever asks again with the cursor of each answer misses no change that lasts.
    """
    end = time.monotonic() + min(wait_seconds, MAX_WAIT_SECONDS)
    member = _member_of(query, caller)
    while True:
        version = cas.proposals.stamp()
        listed = await _list(cas, query, member, caller)
        if after is None or listed.cursor != after or time.monotonic() >= end:
            return listed
        while cas.proposals.stamp() == version:
            left = end - time.monotonic()
            if left <= 0 or not await cas.proposals.change(left):
                return listed


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


def _selected(cas: Cas, query: Query, member: bytes | None) -> Sequence[Entry]:
    """Those that are asked for, whoever asks; those that are closed come first, they are the older ones."""
    records, session = cas.proposals, query.session
    if session is None:
        if query.closed:
            raise InputError("state=all lists the proposals of one session; add session=NAME")
        return records.pending() if member is None else records.waiting_for(member)
    closed = _closed(cas, session) if query.closed else ()
    return [entry for entry in (*closed, *records.pending_of(session)) if member is None or entry.waits_for(member)]


async def _list(cas: Cas, query: Query, member: bytes | None, caller: Caller | None) -> Listed:
    sight = _Sight(cas, caller)
    now = cas.now()
    shown, marks = [], []
    for number, entry in enumerate(_selected(cas, query, member), 1):
        if number % LISTED_AT_ONCE == 0:
            await asyncio.sleep(0)
        known = sight.views.get(entry.session) or await sight.look(entry.session)
        # What is over, and not closed in the store yet, is not listed as open; a moment later it is closed.
        if sight.may_see(entry, known) and _stands(entry, known, now):
            shown.append(entry.shown)
            marks.append(entry.mark)
    return Listed(shown=tuple(shown), cursor=hashlib.sha256(b"".join(marks)).hexdigest()[:32])


def _stands(entry: Entry, view: View, now: datetime) -> bool:
    state = standing(entry.state, predecessor=entry.predecessor, expires=entry.expires, current=view.current, now=now)
    return state is entry.state


def _closed(cas: Cas, session: str) -> list[Entry]:
    found = (cas.proposals.find(one) for one in cas.proposals.of_session(session))
    return [indexed(one) for one in found if one is not None and not one.state.is_pending]


# --- who may see what ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class View:
    """readable: the session's current version admits the caller to read it. current: the hash of that version."""

    readable: bool
    current: bytes | None


class _Sight:
    """What one caller may see, in one request. views: of sessions that were looked at, each once."""

    def __init__(self, cas: Cas, caller: Caller | None) -> None:
        self._cas = cas
        self._caller = caller
        self._key = None if caller is None else caller.key_hash
        self.views: dict[str, View] = {}

    async def look(self, session: str) -> View:
        readers = await readers_of(self._cas, session)
        try:
            authorize(Operation.READ, readers.policy, session=session, creator=readers.creator, caller=self._caller)
        except RefusedError:
            readable = False
        else:
            readable = True
        self.views[session] = view = View(readable=readable, current=readers.session_hash)
        return view

    def may_see(self, entry: Entry, view: View) -> bool:
        """Whether the caller is asked, proposed it, or may read the session.

        A first version that is not applied is of a session that is not there, or is somebody else's by now.
        """
        key = self._key
        if key is not None and (key == entry.proposer or entry.asks(key)):
            return True
        return view.readable and (entry.predecessor is not None or entry.state is State.APPLIED)
