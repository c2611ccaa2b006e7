"""A proposal as a service shows it, held against what follows from it. Pure; the file to audit for "what do I sign?".

A service may be wrong, or somebody else's by now. So whoever decides works out by himself what the proposal means, from
the two session texts, and whether the id says so; what the service says of differences and risks is not even read.

Checks of `verify_shown`, in this order:

1. the answer has the form of a proposal;
2. it is of the CAS that we are connected to;
3. the proposed text has the hash, the session name and the predecessor that are said;
4. the text before has the hash of that predecessor, and is of the same session; there is none for a first version;
5. the id that was asked for is the hash of all these facts;
6. the members shown are those that the two texts name, with their powers and keys, and no others;
7. a decision that is shown of such a member was signed with its key, about this proposal.

Left out: members of a namespace's board, and keys behind configuration variables, are believed, as other sessions name
them, and so are their decisions; and a decision may be kept from us. None of this is part of what is signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from ostiary.board.count import Choice
from ostiary.board.decision import verify_decision
from ostiary.board.proposal import ProposalFacts, State
from ostiary.board.risk import Risk, nothing_like, risks
from ostiary.errors import InputError, OutsideError, SwappedError, UnreadableError
from ostiary.session import ParsedSession, PolicyBoard, SignerSubject, parse_session
from ostiary.session.diff import Difference, differences
from ostiary.session.name import MAX_NAME_CHARACTERS

MAX_MEMBERS_SHOWN = 256
"""Three boards of at most 64 members, with room."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_MEMBER_NAME = re.compile(rf"[!-~]{{1,{MAX_NAME_CHARACTERS}}}")
_HASH_BYTES = 32


class Seat(StrEnum):
    """Which board a member sits on."""

    CURRENT = "current"
    """Of the version before."""
    NAMESPACE = "namespace"
    OWN = "own"
    """Of the proposed version, where no board decided before."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A proposal in a list, as the service says it; unverified.

    proposal: the id, 64 hex digits. session_hash: of the proposed version. proposer: SHA-256 of the key, None unknown.
    needed, approvals: None where the service does not say. apply_after: the end of the time lock, if one runs.
    """

    proposal: str
    session: str
    state: State
    session_hash: bytes
    predecessor: bytes | None
    break_glass: bool
    note: str
    created: datetime
    expires: datetime
    proposer: bytes | None = None
    approvals: int | None = None
    needed: int | None = None
    apply_after: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What a member has decided, and when, as the service says it."""

    choice: Choice
    reason: str
    at: datetime
    signature: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of one of the boards that decide. key: SHA-256 of its DER SubjectPublicKeyInfo; None: not known yet."""

    seat: Seat
    name: str
    key: bytes | None
    may_approve: bool
    may_reject: bool
    decided: Decided | None

    def has_key(self, spki: bytes) -> bool:
        """Whether the member decides with this key, DER SubjectPublicKeyInfo."""
        return self.key is not None and hmac.compare_digest(self.key, key_hash(spki))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A proposal that holds together. Only `verify_shown` makes one.

    before: None for a first version. differences, risks: the worst first, found by us. members: as the service says,
    see the module. Raises TypeError when made anywhere else.
    """

    summary: Summary
    facts: ProposalFacts
    before: ParsedSession | None
    after: ParsedSession
    differences: tuple[Difference, ...]
    risks: tuple[Risk, ...]
    members: tuple[Member, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_HERE:
            raise TypeError("a Proposal is made by verify_shown(), nowhere else")

    @property
    def id(self) -> str:
        return self.summary.proposal

    @property
    def board(self) -> PolicyBoard | None:
        """The board that decides: of the version before if it has one for this, else of the proposed one."""
        if self.before is not None and self.before.session.board_decides("update"):
            return self.before.session.policy_board
        return self.after.session.policy_board

    def members_with(self, spki: bytes) -> tuple[Member, ...]:
        """The members that decide with this key; one key may sit on several boards."""
        return tuple(member for member in self.members if member.has_key(spki))


_MADE_HERE = object()


def key_hash(spki: bytes) -> bytes:
    """32 bytes by which a member's key is named where it need not be shown whole."""
    return hashlib.sha256(spki).digest()


def verify_shown(answer: Mapping[str, object], *, asked: str, cas: bytes) -> Proposal:
    """The proposal `asked`, 64 hex digits, in what a service answered. cas: the identity of the CAS we asked, 32 bytes.

    Guarantees on return: the checks at the top of this module held, so a signature over `facts` is one over exactly the
    change from `before` to `after`, in the CAS that we know, and can count for nothing else.
    Does not guarantee that `before` is still the current version, or that what the service says of state, deadlines,
    decisions and members of other sessions is true; nor that the change is good.
    Raises OutsideError (no proposal of the form known here), UnreadableError (a session that this version cannot
    read), SwappedError.
    """
    summary = read_summary(answer)
    facts = _facts(summary, answer)
    _require_cas(facts, cas)
    after = _session(answer, "session_text")
    before = None if answer.get("before_text") is None else _session(answer, "before_text")
    _require_texts(facts, before, after)
    _require_id(facts, asked)
    members = tuple(_member(one) for one in _objects(answer, "members", most=MAX_MEMBERS_SHOWN))
    _require_members(facts, members, before, after)
    start = nothing_like(after.session) if before is None else before.session
    return Proposal(
        summary=summary,
        facts=facts,
        before=before,
        after=after,
        differences=differences(start, after.session),
        risks=risks(None if before is None else before.session, after.session),
        members=members,
        made_by=_MADE_HERE,
    )


def verify_facts(answer: Mapping[str, object], *, asked: str, cas: bytes) -> ProposalFacts:
    """The facts of the proposal `asked` in what a service answered, of texts that need not be readable.

    Guarantees on return: checks 1, 2 and 5 held, so a signature over the facts counts for this proposal alone. Says
    nothing about the texts, which nobody has read: enough to reject it, never to approve it.
    Raises OutsideError (no proposal of the form known here), SwappedError.
    """
    facts = _facts(read_summary(answer), answer)
    _require_cas(facts, cas)
    _require_id(facts, asked)
    return facts


def _require_cas(facts: ProposalFacts, cas: bytes) -> None:
    """Raises SwappedError."""
    if not hmac.compare_digest(facts.cas, cas):
        raise SwappedError(
            "the proposal is of another CAS than the one that was asked",
            f"it is of the CAS whose key has the hash {facts.cas.hex()}, and we know this one by {cas.hex()}",
            "know the CAS by its root certificate: --cas-ca with the cas-ca.pem of `ostiary serve`",
        )


def _require_id(facts: ProposalFacts, asked: str) -> None:
    """Raises SwappedError."""
    if facts.proposal_hash().hex() != asked:
        raise SwappedError(
            "the proposal was swapped: what is shown is not what its id says",
            f"asked for {asked}, and what is shown has the id {facts.proposal_hash().hex()}",
        )


def _facts(summary: Summary, answer: Mapping[str, object]) -> ProposalFacts:
    try:
        return ProposalFacts(
            cas=_digest(answer, "cas"),
            session=summary.session,
            predecessor=summary.predecessor,
            session_hash=summary.session_hash,
            break_glass=summary.break_glass,
            created=summary.created,
            note=summary.note,
            nonce=_bytes(answer, "nonce"),
        )
    except InputError as error:
        raise _strange(str(error)) from error


def _require_texts(facts: ProposalFacts, before: ParsedSession | None, after: ParsedSession) -> None:
    """Raises SwappedError."""
    for what, said, found in (
        ("the proposed text has another hash than is said", facts.session_hash, after.hash),
        ("the proposed text follows another version than is said", facts.predecessor, after.session.predecessor),
        ("the text before has another hash than is said", facts.predecessor, None if before is None else before.hash),
    ):
        if said != found:
            shown, expected = (("none" if value is None else value.hex()) for value in (found, said))
            raise SwappedError(f"the proposal was swapped: {what}", f"found {shown}, expected {expected}")
    names = {facts.session, after.session.name, facts.session if before is None else before.session.name}
    if len(names) != 1:
        raise SwappedError(f"the proposal was swapped: its texts are of several sessions: {', '.join(sorted(names))}")


def _require_members(
    facts: ProposalFacts, members: Sequence[Member], before: ParsedSession | None, after: ParsedSession
) -> None:
    """Raises SwappedError."""
    current = own = None
    if before is not None and before.session.board_decides("update"):
        current = before.session.policy_board
    elif before is None or before.session.policy_board != after.session.policy_board:
        own = after.session.policy_board
    for seat, board in ((Seat.CURRENT, current), (Seat.OWN, own)):
        shown = [member for member in members if member.seat is seat]
        named = {} if board is None else {member.name: member for member in board.members}
        if sorted(member.name for member in shown) != sorted(named):
            raise SwappedError(
                f"the members shown of the {seat} board are not those that the session names",
                f"found {_names(member.name for member in shown)}, expected {_names(named)}",
            )
        for member in shown:
            known = named[member.name]
            key = key_hash(known.signer.spki) if isinstance(known.signer, SignerSubject) else member.key
            if (known.may_approve, known.may_reject, key) != (member.may_approve, member.may_reject, member.key):
                raise SwappedError(
                    f"member {member.name} of the {seat} board is shown with other powers, or another key, than the "
                    "session gives"
                )
            if isinstance(known.signer, SignerSubject) and member.decided is not None:
                _require_signed(facts, member, member.decided, known.signer.spki)


def _require_signed(facts: ProposalFacts, member: Member, made: Decided, spki: bytes) -> None:
    """Raises SwappedError."""
    try:
        verify_decision(facts, signer=spki, choice=made.choice, reason=made.reason, signature=made.signature)
    except InputError as error:
        raise SwappedError(
            f"member {member.name} is shown to have decided to {made.choice.value}, and did not sign that", *error.chain
        ) from error


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


# --- the wire form ---------------------------------------------------------------------------------------------------


def read_summary(answer: Mapping[str, object]) -> Summary:
    """A proposal as lists have it. Believes nothing. Raises OutsideError."""
    state = _text(answer, "state")
    if state not in set(State):
        raise _strange(f"state is {state[:40]!r}, expected one of {', '.join(State)}")
    proposer, apply_after = answer.get("proposer"), answer.get("apply_after")
    proposal = _text(answer, "proposal")
    if len(_hex(proposal, "proposal")) != _HASH_BYTES:
        raise _strange("proposal is no id, expected 64 hex digits")
    return Summary(
        proposal=proposal,
        session=_text(answer, "session"),
        state=State(state),
        session_hash=_digest(answer, "hash"),
        predecessor=None if answer.get("predecessor") is None else _digest(answer, "predecessor"),
        break_glass=_flag(answer, "break_glass"),
        note=_text(answer, "note"),
        created=_time(answer, "created"),
        expires=_time(answer, "expires"),
        proposer=None if proposer is None else _digest(answer, "proposer"),
        approvals=_number(answer, "approvals"),
        needed=_number(answer, "needed"),
        apply_after=None if apply_after is None else _time(answer, "apply_after"),
    )


def _member(answer: Mapping[str, object]) -> Member:
    seat, power = _text(answer, "board"), answer.get("power")
    if seat not in set(Seat):
        raise _strange(f"board is {seat[:40]!r}, expected one of {', '.join(Seat)}")
    if not isinstance(power, list) or not all(word in ("vote", "approve", "reject") for word in power):
        raise _strange("power is no list of vote, approve and reject")
    decision = answer.get("decision")
    if decision is not None and not isinstance(decision, dict):
        raise _strange("decision is no object")
    return Member(
        seat=Seat(seat),
        name=_name(answer),
        key=None if answer.get("key") is None else _digest(answer, "key"),
        may_approve="approve" in power,
        may_reject="reject" in power,
        decided=None if decision is None else _decided(decision),
    )


def _name(answer: Mapping[str, object]) -> str:
    name = _text(answer, "name")
    if not _MEMBER_NAME.fullmatch(name):
        raise _strange("the name of a member is none that a session could give it")
    return name


def _decided(answer: Mapping[str, object]) -> Decided:
    choice = _text(answer, "choice")
    if choice not in {one.value for one in Choice}:
        raise _strange(f"choice is {choice[:40]!r}, expected approve, withdraw or reject")
    return Decided(
        choice=Choice(choice), reason=_text(answer, "reason"), at=_time(answer, "at"), signature=_base64(answer)
    )


def _base64(answer: Mapping[str, object]) -> bytes:
    try:
        return base64.b64decode(_text(answer, "signature"), validate=True)
    except ValueError:
        raise _strange("signature is not base64") from None


def _session(answer: Mapping[str, object], name: str) -> ParsedSession:
    try:
        return parse_session(_text(answer, name))
    except InputError as error:
        raise UnreadableError(
            f"the proposal's {name} is not a session that this version knows",
            *error.chain,
            "nothing can be signed that cannot be read; a newer version of Ostiary may know it",
        ) from error


def _objects(answer: Mapping[str, object], name: str, *, most: int) -> list[Mapping[str, object]]:
    value = answer.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(one, dict) for one in value):
        raise _strange(f"{name} is no list of at most {most} objects")
    return value


def _text(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise _strange(f"{name} is no text")
    return value


def _flag(answer: Mapping[str, object], name: str) -> bool:
    value = answer.get(name)
    if not isinstance(value, bool):
        raise _strange(f"{name} is neither true nor false")
    return value


def _number(answer: Mapping[str, object], name: str) -> int | None:
    value = answer.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise _strange(f"{name} is no number")
    return value


def _bytes(answer: Mapping[str, object], name: str) -> bytes:
    return _hex(_text(answer, name), name)


def _hex(text: str, name: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise _strange(f"{name} is not hex digits in lower case")
    return bytes.fromhex(text)


def _digest(answer: Mapping[str, object], name: str) -> bytes:
    digest = _bytes(answer, name)
    if len(digest) != _HASH_BYTES:
        raise _strange(f"{name} has {len(digest)} bytes, expected {_HASH_BYTES}")
    return digest


def _time(answer: Mapping[str, object], name: str) -> datetime:
    text = _text(answer, name)
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise _strange(f"{name} is no time such as 2026-01-31T12:00:00Z") from None


def _strange(cause: str) -> OutsideError:
    return OutsideError("the service's answer is no proposal that this version knows", cause)
