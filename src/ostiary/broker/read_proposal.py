"""Proposals for those who may see them: one with all that it means, or lists of those that are pending."""

from __future__ import annotations

import hashlib
import re
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from ostiary.board import Caller, Operation, authorize
from ostiary.board.risk import risks
from ostiary.broker.admission import readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import Proposal, Seat, State, format_time, standing
from ostiary.broker.proposal_records import NO_PROPOSAL, Entry, indexed
from ostiary.errors import IdentityRequiredError, InputError, NotFoundError, RefusedError
from ostiary.session import ParsedSession
from ostiary.session.diff import differences

MAX_WAIT_SECONDS = 50.0
"""For how long a list may be waited for; a longer wait ends here, as the connection would."""

_ID = re.compile(r"[0-9a-f]{64}")


async def read_proposal(cas: Cas, proposal_id: str, *, caller: Caller | None) -> dict[str, Any]:
    """The proposal with all that whoever decides must see, JSON, after everything that is due was done.

    Guarantees on return: the caller has the key of a member who is asked, or proposed it, or may read the session by
    its current version. For anybody else the answer is that for an id that never was: NotFoundError.
    """
    proposal = await settle(cas, require_id(proposal_id))
    if not await _Sight(cas, caller).of(indexed(proposal)):
        raise NotFoundError("Proposal not found", NO_PROPOSAL)
    parsed = await cas.proposals.version(proposal)
    before = await _predecessor(cas, proposal)
    facts = proposal.facts
    return {
        **proposal.summary(),
        "cas": facts.cas.hex(),
        "nonce": facts.nonce.hex(),
        "session_text": parsed.text,
        "before_text": None if before is None else before.text,
        "differences": []
        if before is None
        else [
            {"effect": found.effect.name.lower(), "path": found.path, "meaning": found.meaning}
            for found in differences(before.session, parsed.session)
        ],
        "risks": [
            {"kind": risk.kind.value, "sentence": risk.sentence}
            for risk in risks(None if before is None else before.session, parsed.session)
        ],
        "members": [_member(seat, proposal) for seat in proposal.seats],
    }


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


def _member_of(query: Query, caller: Caller | None) -> str | None:
    """SHA-256, hex, of the key that `waiting_for` means."""
    if query.waiting_for is None:
        return None
    member = query.waiting_for
    if member == "me":
        if caller is None:
            raise IdentityRequiredError("waiting-for=me needs a client certificate, and none was shown")
        member = caller.key_hash.hex()
    if not _ID.fullmatch(member):
        raise InputError("waiting-for is neither `me` nor the SHA-256 of a member's public key, 64 hex digits")
    return member


def _selected(cas: Cas, query: Query, member: str | None) -> list[Entry]:
    """Those that are asked for, whoever asks; those that are closed come first, they are the older ones."""
    if member is not None:
        pending = cas.proposals.waiting_for(member)
    elif query.session is not None:
        pending = cas.proposals.pending_of(query.session)
    else:
        pending = cas.proposals.pending()
    entries = [*(_closed(cas, query) if query.closed else ()), *pending]
    return [
        entry
        for entry in entries
        if query.session in (None, entry.session) and (member is None or member in entry.waiting)
    ]


async def _list(cas: Cas, query: Query, member: str | None, caller: Caller | None) -> Listed:
    entries = _selected(cas, query, member)
    seen = _Sight(cas, caller)
    now = cas.now()
    shown, mark = [], hashlib.sha256()
    for entry in entries:
        if not await seen.of(entry):
            continue
        state = standing(
            entry.state,
            predecessor=entry.predecessor,
            expires=entry.expires,
            current=seen.current(entry.session),
            now=now,
        )
        # What is over, and not closed in the store yet, is not listed as open; a moment later it is closed.
        if state is entry.state:
            shown.append(entry.shown)
            mark.update(entry.line)
    return Listed(shown=tuple(shown), cursor=mark.hexdigest()[:32])


def _closed(cas: Cas, query: Query) -> list[Entry]:
    if query.session is None:
        raise InputError("state=all lists the proposals of one session; add session=NAME")
    found = (cas.proposals.find(one) for one in cas.proposals.of_session(query.session))
    return [indexed(one) for one in found if one is not None and not one.state.is_pending]


# --- who may see what ------------------------------------------------------------------------------------------------


class _Sight:
    """What one caller may see, in one request. Sessions that it looked at once it does not look at again."""

    def __init__(self, cas: Cas, caller: Caller | None) -> None:
        self._cas = cas
        self._caller = caller
        self._key = None if caller is None else caller.key_hash.hex()
        self._readable: dict[str, bool] = {}
        self._current: dict[str, bytes | None] = {}

    async def of(self, entry: Entry) -> bool:
        """Whether the caller is asked, proposed it, or may read the session.

        A first version that is not applied is of a session that is not there, or is somebody else's by now.
        """
        if entry.session not in self._readable:
            await self._look(entry.session)
        if self._key is not None and (
            self._key == entry.proposer or self._key in entry.waiting or self._key in entry.decided
        ):
            return True
        is_of_session = entry.predecessor is not None or entry.state is State.APPLIED
        return is_of_session and self._readable[entry.session]

    def current(self, session: str) -> bytes | None:
        """The hash of the current version of a session that `of` has looked at."""
        return self._current[session]

    async def _look(self, session: str) -> None:
        readers = await readers_of(self._cas, session)
        self._current[session] = readers.session_hash
        try:
            authorize(Operation.READ, readers.policy, session=session, creator=readers.creator, caller=self._caller)
        except RefusedError:
            self._readable[session] = False
        else:
            self._readable[session] = True
