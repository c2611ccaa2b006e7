"""Proposals: a version of a session that waits for a policy board. What one is, and what state it is in. Pure.

States::

    open ──► approved ──► applied
      ▲          │
      └──────────┘        an approval was withdrawn while the time lock ran
    open, approved ──► rejected, expired, superseded

Without a time lock the deciding approval applies the version at once. `superseded`: another version became current, or
somebody else created the session. Nothing leads back from a closed state.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from ostiary.board import Caller
from ostiary.board.count import Choice
from ostiary.board.proposal import ProposalFacts, State
from ostiary.errors import StoreError

APPLY_WITHIN = timedelta(days=7)
"""After the time lock: an approved version that could not be applied for so long expires."""
FORM = 2


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a member decided last. signature: as it was verified, so that everybody can do so again."""

    choice: Choice
    reason: str
    at: datetime
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A member of a board that was asked. board: current, namespace or own. key: DER, None if it is not known.

    powers: approve, reject: what the member may do alone.
    """

    board: str
    name: str
    key: bytes | None
    powers: tuple[str, ...]

    @cached_property
    def key_hash(self) -> str | None:
        """SHA-256 of the key, hex."""
        return None if self.key is None else hashlib.sha256(self.key).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One proposal as the store holds it.

    decide_by: undecided until then it expires. approved: since when those who decide have approved it; apply_after:
    when the time lock ends; None: none runs.
    decisions: by key, DER, of members. left: how cautious those had become whose keys are no member's any more.
    insider: the proposer had a part in the session, and did not only read it.
    seats, approvals, needed: as they were when the record was written; of several boards the one that lacks most.
    page: of the index, that has it while it is pending. record: version; 0: not stored yet.
    """

    facts: ProposalFacts
    proposer: Caller | None
    state: State
    decide_by: datetime
    insider: bool
    approved: datetime | None = None
    apply_after: datetime | None = None
    decisions: Mapping[bytes, Decision] = field(default_factory=dict)
    left: Mapping[bytes, Choice] = field(default_factory=dict)
    seats: tuple[Seat, ...] = ()
    approvals: int = 0
    needed: int = 0
    page: int = 0
    record: int = 0

    @cached_property
    def id(self) -> str:
        """64 hex digits: the hash of all facts."""
        return self.facts.proposal_hash().hex()

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing of it is kept: a reader proposed it, no member cared, and it is over."""
        over = self.state in (State.EXPIRED, State.SUPERSEDED)
        return over and not self.insider and not self.decisions and not self.left

    @property
    def expires(self) -> datetime:
        return self.decide_by if self.apply_after is None else self.apply_after + APPLY_WITHIN

    @property
    def choices(self) -> dict[bytes, Choice]:
        """By key, of all who ever decided: only members' count."""
        return {**self.left, **{key: decision.choice for key, decision in self.decisions.items()}}

    def summary(self) -> dict[str, Any]:
        """What lists show of it, JSON."""
        facts = self.facts
        return {
            "proposal": self.id,
            "session": facts.session,
            "state": self.state.value,
            "hash": facts.session_hash.hex(),
            "predecessor": None if facts.predecessor is None else facts.predecessor.hex(),
            "break_glass": facts.break_glass,
            "note": facts.note,
            "created": format_time(facts.created),
            "expires": format_time(self.expires),
            "proposer": None if self.proposer is None else self.proposer.key_hash.hex(),
            "approvals": self.approvals,
            "needed": self.needed,
            "apply_after": None if self.apply_after is None else format_time(self.apply_after),
        }


def standing(
    state: State, *, predecessor: bytes | None, expires: datetime, current: bytes | None, now: datetime
) -> State:
    """The state of a proposal that was last stored in `state`, beside the hash of its session's current version.

    current: None: there is no such session.
    """
    if state is not State.OPEN and state is not State.APPROVED:
        return state
    if current != predecessor:
        return State.SUPERSEDED
    return State.EXPIRED if now >= expires else state


def whole_seconds(moment: datetime) -> datetime:
    """UTC, the fraction of a second cut off."""
    return moment.astimezone(UTC).replace(microsecond=0)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, with `Z`."""
    return whole_seconds(moment).replace(tzinfo=None).isoformat() + "Z"


def encode_proposal(proposal: Proposal) -> bytes:
    """The record of a proposal."""
    facts, proposer = proposal.facts, proposal.proposer
    members = {
        "form": FORM,
        "cas": facts.cas.hex(),
        "session": facts.session,
        "predecessor": None if facts.predecessor is None else facts.predecessor.hex(),
        "hash": facts.session_hash.hex(),
        "break_glass": facts.break_glass,
        "created": facts.created.isoformat(),
        "note": facts.note,
        "nonce": facts.nonce.hex(),
        "proposer": None
        if proposer is None
        else [proposer.certificate, proposer.key_hash.hex(), proposer.key_bits_hash.hex()],
        "state": proposal.state.value,
        "decide_by": proposal.decide_by.isoformat(),
        "insider": proposal.insider,
        "approved": None if proposal.approved is None else proposal.approved.isoformat(),
        "apply_after": None if proposal.apply_after is None else proposal.apply_after.isoformat(),
        "decisions": [
            [_text(key), one.choice.value, one.reason, one.at.isoformat(), _text(one.signature)]
            for key, one in proposal.decisions.items()
        ],
        "left": [[_text(key), choice.value] for key, choice in proposal.left.items()],
        "seats": [
            [seat.board, seat.name, None if seat.key is None else _text(seat.key), seat.powers]
            for seat in proposal.seats
        ],
        "approvals": proposal.approvals,
        "needed": proposal.needed,
        "page": proposal.page,
    }
    # Reasons may be in any letters, which JSON would write with up to three times the bytes.
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def decode_proposal(value: bytes, *, record: int) -> Proposal:
    """What `encode_proposal` wrote, read from a record of that version. Raises StoreError: a newer form."""
    members = json.loads(value)
    if members["form"] != FORM:
        raise StoreError(f"a proposal has form {members['form']}, expected {FORM}: a newer Ostiary wrote it; run that")
    proposer, predecessor = members["proposer"], members["predecessor"]
    approved, apply_after = members["approved"], members["apply_after"]
    return Proposal(
        facts=ProposalFacts(
            cas=bytes.fromhex(members["cas"]),
            session=members["session"],
            predecessor=None if predecessor is None else bytes.fromhex(predecessor),
            session_hash=bytes.fromhex(members["hash"]),
            break_glass=members["break_glass"],
            created=datetime.fromisoformat(members["created"]),
            note=members["note"],
            nonce=bytes.fromhex(members["nonce"]),
        ),
        proposer=None
        if proposer is None
        else Caller(
            certificate=proposer[0], key_hash=bytes.fromhex(proposer[1]), key_bits_hash=bytes.fromhex(proposer[2])
        ),
        state=State(members["state"]),
        decide_by=datetime.fromisoformat(members["decide_by"]),
        insider=members["insider"],
        approved=None if approved is None else datetime.fromisoformat(approved),
        apply_after=None if apply_after is None else datetime.fromisoformat(apply_after),
        decisions={
            b64decode(key): Decision(
                choice=Choice(choice), reason=reason, at=datetime.fromisoformat(at), signature=b64decode(signature)
            )
            for key, choice, reason, at, signature in members["decisions"]
        },
        left={b64decode(key): Choice(choice) for key, choice in members["left"]},
        seats=tuple(
            Seat(board=board, name=name, key=None if key is None else b64decode(key), powers=tuple(powers))
            for board, name, key, powers in members["seats"]
        ),
        approvals=members["approvals"],
        needed=members["needed"],
        page=members["page"],
        record=record,
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")
