"""What a service shows of a proposal, made here from the two texts, apart from the service."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from tests.simulators.board import member_hash, message, proposal_hash, sign
from tests.simulators.signers import Person

from ostiary.session import parse_session

CAS_ID = "ca" * 32

Json = dict[str, Any]


def member(name: str, person: Person | None, *, board: str = "current", power: tuple[str, ...] = ("vote",)) -> Json:
    """An undecided member; without a person one whose key is not known yet."""
    key = None if person is None else member_hash(person)
    return {"board": board, "name": name, "key": key, "power": list(power), "decision": None}


def decided(shown: Json, person: Person, choice: str, reason: str = "", at: str = "2026-11-23T12:30:00Z") -> Json:
    """The member after that person decided; `showing` has it signed, once it is known about what."""
    return {**shown, "decision": {"choice": choice, "reason": reason, "at": at, "signature": person}}


def showing(after: str, before: str | None = None, *, members: list[Json], **changed: Any) -> Json:
    """The answer to GET /v1/proposals/ID. changed: what is otherwise, before the id is made of it."""
    new, old = parse_session(after), None if before is None else parse_session(before)
    answer: Json = {
        "session": new.session.name,
        "state": "open",
        "hash": new.hash.hex(),
        "predecessor": None if old is None else old.hash.hex(),
        "break_glass": False,
        "note": "",
        "created": "2026-11-23T12:00:00Z",
        "expires": "2026-11-30T12:00:00Z",
        "proposer": "ab" * 32,
        "approvals": 0,
        "needed": 2,
        "apply_after": None,
        "cas": CAS_ID,
        "nonce": "0f" * 16,
        "session_text": new.text,
        "before_text": None if old is None else old.text,
        "differences": [],
        "risks": [],
        "members": members,
        **changed,
    }
    return {"proposal": proposal_hash(answer), **answer, "members": [_signed(one, answer) for one in members]}


def _signed(shown: Json, answer: Json) -> Json:
    made = shown["decision"]
    if made is None or not isinstance(made["signature"], Person):
        return shown
    signature = sign(made["signature"], message(answer, made["choice"], made["reason"]))
    return {**shown, "decision": {**made, "signature": base64.b64encode(signature).decode()}}


def follows(text: str, before: str) -> str:
    """`text` as the version after `before`."""
    return f"{text}predecessor: {parse_session(before).hash.hex()}\n"


def summary_of(answer: Mapping[str, Any]) -> Json:
    """The same proposal as lists have it."""
    left_out = ("cas", "nonce", "session_text", "before_text", "differences", "risks", "members")
    return {name: value for name, value in answer.items() if name not in left_out}
