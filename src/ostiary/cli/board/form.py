"""What `--json` prints. Pure."""

from __future__ import annotations

import json
from datetime import datetime

from ostiary.board.shown import Member, Proposal, Summary, key_hash
from ostiary.session import PolicyBoard, SignerSubject

JsonObject = dict[str, object]


def written(value: object) -> str:
    """JSON on lines of its own, ending in a line feed."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def summary_form(summary: Summary) -> JsonObject:
    return {
        "proposal": summary.proposal,
        "session": summary.session,
        "state": summary.state.value,
        "hash": summary.session_hash.hex(),
        "predecessor": _hex(summary.predecessor),
        "break_glass": summary.break_glass,
        "note": summary.note,
        "created": format_time(summary.created),
        "expires": format_time(summary.expires),
        "proposer": _hex(summary.proposer),
        "approvals": summary.approvals,
        "needed": summary.needed,
        "apply_after": None if summary.apply_after is None else format_time(summary.apply_after),
    }


def proposal_form(proposal: Proposal) -> JsonObject:
    """With what we worked out of it."""
    return {
        **summary_form(proposal.summary),
        "cas": proposal.facts.cas.hex(),
        "risks": [{"kind": risk.kind.value, "sentence": risk.sentence} for risk in proposal.risks],
        "differences": [
            {"effect": one.effect.name.lower(), "path": one.path, "meaning": one.meaning}
            for one in proposal.differences
        ],
        "members": [_member(member) for member in proposal.members],
        "session_text": proposal.after.text,
        "before_text": None if proposal.before is None else proposal.before.text,
    }


def board_form(board: PolicyBoard) -> JsonObject:
    """Durations in seconds. A key that is not known is null."""
    return {
        "tolerated_faults": board.tolerated_faults,
        "needed": board.tolerated_faults + 1,
        "members": [
            {
                "name": member.name,
                "key": key_hash(member.signer.spki).hex() if isinstance(member.signer, SignerSubject) else None,
                "power": _powers(may_approve=member.may_approve, may_reject=member.may_reject),
            }
            for member in board.members
        ],
        "decide_within": int(board.decide_within.total_seconds()),
        "time_lock": int(board.time_lock.total_seconds()),
        "on": sorted(board.on),
        "break_glass": board.break_glass,
        "notify": list(board.notify),
    }


def _member(member: Member) -> JsonObject:
    decided = member.decided
    return {
        "board": member.seat.value,
        "name": member.name,
        "key": _hex(member.key),
        "power": _powers(may_approve=member.may_approve, may_reject=member.may_reject),
        "decision": None
        if decided is None
        else {"choice": decided.choice.value, "reason": decided.reason, "at": format_time(decided.at)},
    }


def _powers(*, may_approve: bool, may_reject: bool) -> list[str]:
    return ["vote", *(["approve"] if may_approve else []), *(["reject"] if may_reject else [])]


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
