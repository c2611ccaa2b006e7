"""The routes of proposals. Decides nothing: each calls one use case."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from ostiary.board import Caller
from ostiary.board.count import Choice
from ostiary.broker.cas import Cas
from ostiary.broker.decide import Cast, decide
from ostiary.broker.proposal import format_time
from ostiary.broker.propose import propose
from ostiary.broker.read_proposal import Query, list_proposals, read_proposal, require_id
from ostiary.errors import InputError
from ostiary.server.answers import Answer, answer
from ostiary.session.policy_board import board_signer_key

MAX_ASKED_WAIT_SECONDS = 60

_STATES = ("open", "all")
_QUERY = ("session", "waiting-for", "state", "after", "wait")


async def post_proposal(cas: Cas, body: bytes, caller: Caller | None) -> Answer:
    members = _members(body, required={"session": str}, optional={"note": str, "break_glass": bool})
    proposed = await propose(
        cas,
        _utf8(members["session"], "session"),
        note=members.get("note", ""),
        break_glass=members.get("break_glass", False),
        caller=caller,
    )
    proposal = proposed.proposal
    return answer(
        201,
        {
            "proposal": proposal.id,
            "state": proposal.state.value,
            "hash": proposal.facts.session_hash.hex(),
            "expires": format_time(proposal.expires),
            "warnings": [[str(warning)] for warning in proposed.warnings],
        },
    )


async def get_proposal(cas: Cas, proposal: str, caller: Caller | None) -> Answer:
    return answer(200, await read_proposal(cas, proposal, caller=caller))


async def post_decision(cas: Cas, proposal: str, body: bytes) -> Answer:
    """Who connects plays no part: the signature is all."""
    members = _members(body, required={"signer": str, "decision": str, "signature": str}, optional={"reason": str})
    decided = await decide(cas, require_id(proposal), _cast(members))
    return answer(
        200,
        {
            "state": decided.state.value,
            "approvals": decided.approvals,
            "needed": decided.needed,
            "apply_after": None if decided.apply_after is None else format_time(decided.apply_after),
        },
    )


async def get_proposals(cas: Cas, request: Request, caller: Caller | None, session: str | None) -> Answer:
    """session: the one that the query names, as sessions are named inside."""
    query = request.query_params
    for name in query:
        # What is not understood would be left out, and the list be of more than was asked for.
        if name not in _QUERY:
            raise InputError(f"the query has {name[:40]!r}, expected {', '.join(_QUERY)}")
    state = query.get("state", "open")
    if state not in _STATES:
        raise InputError(f"state is {state[:40]!r}, expected open or all")
    listed = await list_proposals(
        cas,
        Query(session=session, waiting_for=query.get("waiting-for"), closed=state == "all"),
        caller=caller,
        after=query.get("after"),
        wait_seconds=_seconds(query.get("wait", "0")),
    )
    # Each summary is kept as it is sent: ten thousand of them are not written anew for every list.
    body = b'{"proposals":[%s],"cursor":"%s"}' % (b",".join(listed.shown), listed.cursor.encode())
    return Answer(status=200, body=body)


def _cast(members: Mapping[str, Any]) -> Cast:
    try:
        choice = Choice(members["decision"])
    except ValueError:
        raise InputError(
            f"decision is {members['decision'][:40]!r}, expected {', '.join(one.value for one in Choice)}"
        ) from None
    try:
        signer = board_signer_key(members["signer"])
    except ValueError as error:
        raise InputError(f"signer: no public key of a member: {error}") from None
    try:
        signature = b64decode(members["signature"], validate=True)
    except (Base64Error, ValueError):
        raise InputError("signature is not base64") from None
    return Cast(signer=signer, choice=choice, reason=members.get("reason", ""), signature=signature)


def _members(body: bytes, *, required: Mapping[str, type], optional: Mapping[str, type]) -> dict[str, Any]:
    """The members of a JSON object that has all of `required`, and no others but `optional`. Raises InputError."""
    expected = f"a JSON object with {', '.join(required)}, and if need be {', '.join(optional)}"
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError(f"the body is not JSON, expected {expected}") from None
    kinds = {**required, **optional}
    if not isinstance(members, dict) or not required.keys() <= members.keys() <= kinds.keys():
        raise InputError(f"the body is not {expected}")
    for name, value in members.items():
        if type(value) is not kinds[name]:
            raise InputError(f"{name} must be {'true or false' if kinds[name] is bool else 'text'}")
    return members


def _utf8(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} has half a surrogate pair, which is no character") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_ASKED_WAIT_SECONDS:
        raise InputError(f"wait is {text[:40]!r}, expected 0 to {MAX_ASKED_WAIT_SECONDS} seconds")
    return seconds
