"""Who decides about a proposal at this moment, and whether it might be applied. Reads records, changes nothing.

A proposal needs the word of every board that is in charge: of the current version's, where that decides updates; of the
namespace's, where that decides creation; and of the board that the proposed version puts in charge where none was.
Where an access policy is in charge instead, its proposer must be admitted by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

from ostiary.board import Caller, Operation, authorize
from ostiary.board.count import Choice, Outcome, Quorum, Voter, count, quorum_of
from ostiary.broker.admission import access_policy_of, policy_board_of, unmade
from ostiary.broker.cas import Cas
from ostiary.broker.permit import Permit, permit
from ostiary.broker.proposal import Seat
from ostiary.broker.session_records import StoredSession
from ostiary.errors import ConflictError, NotFoundError, OstiaryError, RefusedError
from ostiary.session import ParsedSession
from ostiary.session.model import PolicyBoard, SignerSubject
from ostiary.store import Expect

OWN_BOARD = "own"
"""Where a board comes from that only the proposed version names."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """One board that is asked. origin: current, namespace or own. board: with keys resolved as far as they can be.

    unmade: names of members whose keys are made with the proposed version, so that nobody has them yet.
    """

    origin: str
    board: PolicyBoard
    unmade: frozenset[str] = frozenset()

    @cached_property
    def quorum(self) -> Quorum:
        """Of the members whose keys are known. Nobody's veto is not waited for."""
        if not self.unmade:
            return quorum_of(self.board)
        members = tuple(member for member in self.board.members if member.name not in self.unmade)
        return quorum_of(replace(self.board, members=members))

    def outcome(self, choices: Mapping[bytes, Choice], *, break_glass: bool) -> Outcome:
        """What the choices come to.

        A member whose key cannot be resolved now is undecided: it approves nothing, but that its vault does not answer
        for a while must not close a proposal.
        """
        unknown = tuple(
            Voter(key=b"unknown " + str(at).encode(), may_approve=member.may_approve, may_reject=member.may_reject)
            for at, member in enumerate(self.board.members)
            if not isinstance(member.signer, SignerSubject)
        )
        quorum = replace(self.quorum, voters=(*self.quorum.voters, *unknown)) if unknown else self.quorum
        return count(quorum, choices, break_glass=break_glass)

    def tally(self, choices: Mapping[bytes, Choice], *, break_glass: bool) -> tuple[int, int]:
        """Approvals that count, and how many it takes."""
        quorum = self.quorum
        approvals = sum(choices.get(voter.key) is Choice.APPROVE for voter in quorum.voters)
        return approvals, (quorum.break_glass or 0) if break_glass else quorum.needed

    @property
    def is_unheard(self) -> bool:
        """Whether the key of a member cannot be resolved, and not because it is still to be made."""
        unknown = {member.name for member in self.board.members if not isinstance(member.signer, SignerSubject)}
        return not unknown <= self.unmade

    @property
    def seats(self) -> tuple[Seat, ...]:
        return tuple(
            Seat(
                board=self.origin,
                name=member.name,
                key=member.signer.spki if isinstance(member.signer, SignerSubject) else None,
                powers=(("approve",) if member.may_approve else ()) + (("reject",) if member.may_reject else ()),
            )
            for member in self.board.members
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a proposal comes to at this moment, as long as all of `expect` holds.

    ballots: of every board in charge. current: of the session, None: there is none. asked: the operations that an
    access policy decides. permit: to store the version, once the boards approve; None: `obstacle` is in the way,
    whatever they say. judged: whose readers may propose.
    """

    ballots: tuple[Ballot, ...]
    current: StoredSession | None
    expect: tuple[Expect, ...]
    permit: Permit | None
    obstacle: OstiaryError | None
    by_policy: bool
    judged: StoredSession | None

    @property
    def current_hash(self) -> bytes | None:
        return None if self.current is None else self.current.parsed.hash

    @cached_property
    def voters(self) -> frozenset[bytes]:
        """Keys that may decide."""
        return frozenset(voter.key for ballot in self.ballots for voter in ballot.quorum.voters)

    @property
    def is_unheard(self) -> bool:
        """Whether the key of a member cannot be resolved at this moment, and not because it is still to be made."""
        return any(ballot.is_unheard for ballot in self.ballots)

    @cached_property
    def seats(self) -> tuple[Seat, ...]:
        return tuple(seat for ballot in self.ballots for seat in ballot.seats)

    @property
    def notify(self) -> tuple[str, ...]:
        """Addresses that the boards want to be told at, each once."""
        return tuple(dict.fromkeys(url for ballot in self.ballots for url in ballot.board.notify))

    @property
    def time_lock(self) -> timedelta:
        return max((ballot.board.time_lock for ballot in self.ballots), default=timedelta(0))

    @property
    def decide_within(self) -> timedelta:
        return min(ballot.board.decide_within for ballot in self.ballots)

    def outcome(self, choices: Mapping[bytes, Choice], *, break_glass: bool) -> Outcome:
        """Approved by every board, rejected by one, or neither. Where no board is in charge nothing is approved."""
        outcomes = {ballot.outcome(choices, break_glass=break_glass) for ballot in self.ballots}
        if Outcome.REJECTED in outcomes:
            return Outcome.REJECTED
        return Outcome.APPROVED if outcomes == {Outcome.APPROVED} else Outcome.UNDECIDED

    def tally(self, choices: Mapping[bytes, Choice], *, break_glass: bool) -> tuple[int, int]:
        """Approvals and how many it takes, of the board that lacks most."""
        tallies = [ballot.tally(choices, break_glass=break_glass) for ballot in self.ballots]
        return max(tallies, key=lambda tally: tally[1] - tally[0], default=(0, 0))


def hold_trial(cas: Cas, parsed: ParsedSession, proposer: Caller | None) -> Trial:
    """Look who decides about `parsed`, and whether it might be applied for its proposer; both as of this moment.

    Guarantees that `permit` is of exactly the boards in `ballots`: applying with it asked nobody else.
    """
    name = parsed.session.name
    current = cas.sessions.current(name)
    judge = _Judge(cas, proposer)
    permitted, obstacle = None, None
    try:
        permitted = permit(cas, parsed, judge)
    except (RefusedError, ConflictError, NotFoundError) as error:
        obstacle = error
    obstacle = judge.refusal or obstacle
    is_current = cas.sessions.is_absent(name) if current is None else current.is_current
    return Trial(
        ballots=tuple(judge.ballots),
        current=current,
        expect=(is_current, *judge.rests_on),
        permit=None if obstacle is not None else permitted,
        obstacle=obstacle,
        by_policy=judge.by_policy,
        judged=judge.judged,
    )


class _Judge:
    """Asks the boards, which decide elsewhere, and authorizes the proposer where an access policy decides."""

    def __init__(self, cas: Cas, proposer: Caller | None) -> None:
        self._cas = cas
        self._proposer = proposer
        self.ballots: list[Ballot] = []
        self.rests_on: list[Expect] = []
        self.refusal: RefusedError | None = None
        self.by_policy = False
        self.judged: StoredSession | None = None

    def admit(self, operation: Operation, judged: StoredSession) -> tuple[Expect, ...]:
        self.judged = judged
        if judged.parsed.session.board_decides(operation.value):
            return self._ask("current" if operation is Operation.UPDATE else "namespace", judged)
        self.by_policy = True
        policy = access_policy_of(self._cas, judged)
        session = judged.parsed.session.name
        try:
            authorize(operation, policy.thing, session=session, creator=judged.creator, caller=self._proposer)
        except RefusedError as error:
            # Kept, so that the boards are known all the same.
            self.refusal = error
        self.rests_on += policy.rests_on
        return policy.rests_on

    def found(self, founded: StoredSession) -> tuple[Expect, ...]:
        return self._ask(OWN_BOARD, founded)

    def _ask(self, origin: str, stored: StoredSession) -> tuple[Expect, ...]:
        board = policy_board_of(self._cas, stored)
        made = unmade(board.thing, stored) if origin == OWN_BOARD else frozenset[str]()
        self.ballots.append(Ballot(origin=origin, board=board.thing, unmade=made))
        self.rests_on += board.rests_on
        return board.rests_on
