"""Do these decisions of a policy board approve the change? Pure; the only place where votes are counted.

Guarantees of `count`, each a law in `tests/property/test_board_laws.py`:

1. One more approval never turns an approval into anything else.
2. With at most `needed - 1` approving voters nothing is approved, unless one of them may approve alone.
3. Nothing ordinary is approved against the rejection of one voter who may reject, nor while one cannot be heard.
4. Names, order and keys that are no voter's have no part in it.

Does not guarantee: that whoever holds a key decided so (`verify_decision` does), or that the quorum is of the board
that must be asked (the newest version's, and what else `ostiary.broker` asks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ostiary.errors import ConflictError
from ostiary.session.model import PolicyBoard, RuleSubject, SignerSubject, Subject, Variable


class Choice(Enum):
    """What a member decides about one proposal, from the least cautious on."""

    APPROVE = "approve"
    WITHDRAW = "withdraw"
    REJECT = "reject"

    @property
    def caution(self) -> int:
        """0, 1, 2: a member may go up, never down."""
        return _CAUTION[self]


_CAUTION = {choice: caution for caution, choice in enumerate(Choice)}


class Outcome(Enum):
    """What the decisions made so far come to. Of a closed one no later decision makes an approval."""

    UNDECIDED = "undecided"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class Voter:
    """A member whose key is known. key: DER SubjectPublicKeyInfo. may_approve, may_reject: alone."""

    key: bytes
    may_approve: bool = False
    may_reject: bool = False


@dataclass(frozen=True, kw_only=True)
class Quorum:
    """Who may decide, and how many it takes. needed: F + 1, from 1 on. break_glass: over `needed`, or None: never.

    unheard_veto: somebody beside the voters may reject alone, and nobody knows by which key.
    Raises ValueError for other numbers, and if two voters have one key.
    """

    needed: int
    voters: tuple[Voter, ...]
    break_glass: int | None = None
    unheard_veto: bool = False

    def __post_init__(self) -> None:
        if self.needed < 1:
            raise ValueError(f"{self.needed} approvals would be enough, expected at least 1")
        if self.break_glass is not None and self.break_glass <= self.needed:
            raise ValueError(f"{self.break_glass} members could break the glass, expected more than {self.needed}")
        if len({voter.key for voter in self.voters}) != len(self.voters):
            raise ValueError("one key is two voters, expected one")


def quorum_of(board: PolicyBoard) -> Quorum:
    """The quorum of a board whose variables are resolved as far as they can be.

    A member whose signer is still a variable is left out: it can neither help to approve nor reject, and does not make
    the quorum smaller; if it may reject alone, `unheard_veto` says that it was left out. A key that came to stand under
    two names is one voter, who may approve alone only if both may, and reject alone if either may: the more cautious
    reading of each.
    """
    voters: dict[bytes, Voter] = {}
    for member in board.members:
        if not isinstance(member.signer, SignerSubject):
            continue
        key = member.signer.spki
        other = voters.get(key)
        voters[key] = Voter(
            key=key,
            may_approve=member.may_approve and (other is None or other.may_approve),
            may_reject=member.may_reject or (other is not None and other.may_reject),
        )
    return Quorum(
        needed=board.tolerated_faults + 1,
        voters=tuple(voters.values()),
        break_glass=board.break_glass,
        unheard_veto=any(member.may_reject and isinstance(member.signer, Variable) for member in board.members),
    )


def check_caution(before: Choice | None, after: Choice) -> None:
    """Return if a member that chose `before` (None: nothing yet) may choose `after`; the same again is no change.

    So whoever kept an older signed decision gains nothing by sending it again: it is refused, or already counted.
    Raises ConflictError: `after` is less cautious.
    """
    if before is not None and after.caution < before.caution:
        raise ConflictError(
            f"this member decided {before.value!r} and cannot go back to {after.value!r}",
            "a decision may only become more cautious; make a new proposal of the same session",
        )


def count(quorum: Quorum, choices: Mapping[bytes, Choice], *, break_glass: bool) -> Outcome:
    """What these choices, by the key of whoever made them, come to. The first rule that applies decides.

    Ordinary:
    1. a voter who may reject rejects: REJECTED, whatever the others say;
    2. a voter who may approve approves: APPROVED;
    3. `needed` voters approve: APPROVED;
    4. neither can happen any more, as too many have withdrawn or rejected: REJECTED.
    With an `unheard_veto` 2 and 3 are UNDECIDED instead: or whoever cuts the service off from a key silences its veto.
    Of a break-glass proposal no voter decides alone, in either direction:
    1. `quorum.break_glass` voters approve: APPROVED;
    2. that cannot happen any more, or the board has no such number: REJECTED.
    Anything else is UNDECIDED. A board without voters approves nothing.
    """
    approving = [voter for voter in quorum.voters if choices.get(voter.key) is Choice.APPROVE]
    undecided = [voter for voter in quorum.voters if voter.key not in choices]
    approved = Outcome.UNDECIDED if quorum.unheard_veto and not break_glass else Outcome.APPROVED
    if break_glass:
        needed, may_still_approve = quorum.break_glass, False
        if needed is None:
            return Outcome.REJECTED
    else:
        needed, may_still_approve = quorum.needed, any(voter.may_approve for voter in undecided)
        if any(voter.may_reject and choices.get(voter.key) is Choice.REJECT for voter in quorum.voters):
            return Outcome.REJECTED
        if any(voter.may_approve for voter in approving):
            return approved
    if len(approving) >= needed:
        return approved
    if len(approving) + len(undecided) < needed and not may_still_approve:
        return Outcome.REJECTED
    return Outcome.UNDECIDED


def compiled_rule(board: PolicyBoard) -> tuple[Subject, ...]:
    """The board as subjects of an access policy: which signatures of a session, without a proposal, decide as it would.

    `require-at-least-(F+1)` of the members that can sign sessions, or one that may approve alone. Nothing, so that
    only a proposal passes, where a signature cannot say what the board demands: where somebody may reject, whether its
    key is known or not, for nobody would be asked; where there is a time lock; and where fewer than F + 1 members have
    a key that is known and of a type that signs sessions (Ed25519, P-384) and none of them may approve alone.
    """
    if board.time_lock or any(member.may_reject for member in board.members):
        return ()
    quorum = quorum_of(board)
    voters = [voter for voter in quorum.voters if _signs_sessions(voter.key)]
    alone = tuple(SignerSubject(spki=voter.key) for voter in voters if voter.may_approve)
    if len(voters) < quorum.needed:
        return alone
    return (*alone, RuleSubject(needed=quorum.needed, subjects=tuple(SignerSubject(spki=one.key) for one in voters)))


def _signs_sessions(spki: bytes) -> bool:
    """Whether `session.signed` takes signatures of the key: a P-256 key decides on a board, and signs no session."""
    key = load_der_public_key(spki)
    return isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
    )
