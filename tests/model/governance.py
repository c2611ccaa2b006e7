"""A model of proposing, deciding and applying, and of an adversary who owns the network, explored state by state.

The adversary proposes what he likes, keeps every signature that was ever made, here or elsewhere, sends any of them for
any proposal as often and as late as he likes, signs for up to F members, and lets two requests overlap: between what
one reads and what it writes, everything else may happen. What he does not have is the store: it forgets nothing, and a
commit that expects a record finds that very record or writes nothing. Keys of members may lie elsewhere, where he can
cut the service off from them, and let it have them again.

A version is the number of its proposal; `START` is the one that is there before, None that there is no session yet.
A proposal goes through

    open ── counted as approved ──► (locked ── time ──► due ──►) applied, which makes it the current version
         └─ counted as rejected ──► rejected

and back to open when an approval is withdrawn while the lock runs. Where the world is `direct`, members also sign whole
sessions, and anybody may upload one with the signatures that there are, past all proposals.

The messages that are signed, the order of caution, the counting and the rule for uploads are the product's own
(`ostiary.board`); what a `Rule` takes out of them, or of the commit, is a flaw. What is *unapproved* is written out
here once more, by what members did and not by what was recorded: see `wrong`. Honest members sign what the world lets
them, never anything less cautious than before. Members of the adversary approve everything, unless the world lets them
do more: that less approval is never worth more is a law of its own (`tests/property/test_board_laws.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache, cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulators.signers import Person

from ostiary.board import (
    Choice,
    Operation,
    Outcome,
    ProposalFacts,
    Quorum,
    authorize,
    check_caution,
    compiled_rule,
    count,
    decision_message,
    quorum_of,
)
from ostiary.errors import ConflictError, NotAuthorizedError
from ostiary.session.model import AccessPolicy, BoardMember, NoneSubject, PolicyBoard, SignerSubject, Subject, Variable
from ostiary.session.placeholder import Placeholder
from ostiary.session.signed import Signature as SessionSignature
from ostiary.session.signed import verify_signatures

START = -1
UNKNOWN = Variable(placeholder=Placeholder(name="key"))
CHOICES: tuple[Choice | None, ...] = (None, Choice.APPROVE, Choice.WITHDRAW, Choice.REJECT)

Signature = tuple[str, int, Choice]
"""Who signed which choice about which proposal. Members have one letter each."""


@cache
def person(who: str) -> Person:
    """The member with this letter, with a key that is always the same."""
    return Person(key=Ed25519PrivateKey.from_private_bytes(who.encode() * 32))


@cache
def spki(who: str) -> bytes:
    """The key of that member, as boards have it."""
    return person(who).spki


class Stage(IntEnum):
    """Where a proposal is."""

    OPEN = 0
    LOCKED = 1
    DUE = 2
    APPLIED = 3
    REJECTED = 4


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """predecessor: a version. signed: what honest members may sign about it. board: of the version that it would make.

    here: whether it is one of the session of the model, or of another session or CAS, whose members are the same.
    """

    facts: ProposalFacts
    predecessor: int | None = START
    signed: frozenset[Choice] = frozenset()
    board: PolicyBoard | None = None
    here: bool = True


@dataclass(frozen=True, kw_only=True)
class World:
    """board: of the version START; None: there is no session yet. namespace: whose board must approve a first version.

    byzantine: the members that the adversary signs for, treason: what they sign. direct: whether members sign sessions.
    cut: the members whose keys he can make unknown.
    """

    proposals: tuple[Proposal, ...]
    board: PolicyBoard | None
    byzantine: frozenset[str]
    namespace: PolicyBoard | None = None
    treason: frozenset[Choice] = frozenset({Choice.APPROVE})
    direct: bool = False
    cut: frozenset[str] = frozenset()

    @property
    def start(self) -> int | None:
        return None if self.board is None else START

    def board_of(self, version: int) -> PolicyBoard | None:
        return self.board if version == START else self.proposals[version].board or self.board

    @cached_property
    def members(self) -> tuple[str, ...]:
        boards = [self.board, self.namespace, *(proposal.board for proposal in self.proposals)]
        return tuple(sorted({member.name for board in boards if board for member in board.members}))


def member(who: str, power: str = "") -> BoardMember:
    """power: `+` may approve alone, `-` may reject alone."""
    signer = SignerSubject(spki=spki(who))
    return BoardMember(name=who, signer=signer, may_approve="+" in power, may_reject="-" in power)


Message = Callable[[ProposalFacts, Choice], bytes]
Tally = Callable[[Quorum, Mapping[bytes, Choice], bool], Outcome]
Compiled = Callable[[PolicyBoard], tuple[Subject, ...]]


def _signed_message(facts: ProposalFacts, choice: Choice) -> bytes:
    return decision_message(facts, choice, "")


def _count(quorum: Quorum, choices: Mapping[bytes, Choice], break_glass: bool) -> Outcome:
    return count(quorum, choices, break_glass=break_glass)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the service does. Each default is what the product does; each other value is a flaw.

    message: what a decision signs. cautious: whether a member may only become more cautious. tally: how votes count.
    expects_proposal, expects_current, expects_keys: whether a commit expects the proposal, the session's current
    version, and what members' keys were found in, to be as they were read. follows: whether the predecessor must be the
    current version whenever it is looked at. recounts: whether the votes are counted again when the time lock has run
    out. asks_own_board: whether a first version is also approved by the board that it names itself. asks_predecessor:
    whether an update is approved by the board of the version that it replaces; else by the one that it brings.
    compiled: whose signatures let an upload pass.
    """

    message: Message = _signed_message
    cautious: bool = True
    tally: Tally = _count
    expects_proposal: bool = True
    expects_current: bool = True
    expects_keys: bool = True
    follows: bool = True
    recounts: bool = True
    asks_own_board: bool = True
    asks_predecessor: bool = True
    compiled: Compiled = compiled_rule


@dataclass(frozen=True, slots=True)
class Record:
    """choices: by place among the world's members, as places in CHOICES."""

    stage: Stage
    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """A request that has read `seen`, `current` and `unheard` and will write `record`, and make the proposal current if
    it `applies`.

    decision: what it counts, None for one that only applies.
    """

    proposal: int
    seen: Record
    current: int | None
    record: Record
    applies: bool
    decision: Signature | None
    unheard: frozenset[str]


@dataclass(frozen=True, slots=True)
class State:
    """records: None until proposed. signed: by honest members. accepted: of those, what the service said yes to.

    sessions: which versions honest members signed as sessions. unheard: members whose keys nobody knows now.
    """

    current: int | None
    records: tuple[Record | None, ...]
    signed: frozenset[Signature] = frozenset()
    accepted: frozenset[Signature] = frozenset()
    sessions: frozenset[tuple[str, int]] = frozenset()
    unheard: frozenset[str] = frozenset()
    work: Work | None = None


@dataclass(frozen=True, kw_only=True)
class Explored:
    """states: how many were seen. applied: versions that became current somewhere. wrong: what should not have been.

    path: a shortest way there, step by step.
    """

    states: int
    applied: frozenset[int]
    wrong: str | None = None
    path: tuple[str, ...] = ()


def explore(rule: Rule, world: World) -> Explored:
    """All states, breadth first, up to the first version that became current and should not have."""
    first = State(current=world.start, records=(None,) * len(world.proposals))
    service = _Service(rule=rule, world=world)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    applied: set[int] = set()
    while queue:
        state = queue.popleft()
        for name, after in service.steps(state):
            if after.current != state.current and after.current is not None:
                applied.add(after.current)
                judge = wrong_upload if name.startswith(UPLOAD) else wrong
                reason = judge(world, state, after.current)
                if reason is not None:
                    path = (*_path(came_from, state), name)
                    return Explored(states=len(came_from), applied=frozenset(applied), wrong=reason, path=path)
            if after not in came_from:
                came_from[after] = state, name
                queue.append(after)
    return Explored(states=len(came_from), applied=frozenset(applied))


def _path(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names: list[str] = []
    while (before := came_from[state]) is not None:
        state, name = before
        names.append(name)
    return tuple(reversed(names))


UPLOAD = "upload "


def wrong(world: World, state: State, number: int) -> str | None:
    """Why this proposal must not become the current version after `state`; None: it may.

    Every board that has a say must be behind it, by what its members did: those of the adversary are behind
    everything; an honest one is if it signed the approval of this very proposal, and the service has accepted nothing
    more cautious from it.
    """
    proposal = world.proposals[number]
    approved = {who for who, about, choice in state.signed if about == number and choice is Choice.APPROVE}
    sorry = {who for who, about, choice in state.accepted if about == number and choice is not Choice.APPROVE}
    if proposal.predecessor != state.current:
        return "its predecessor is not the current version"
    for board in _asked(world, state, number):
        members = {member.name for member in board.members}
        behind = members & (world.byzantine | (approved - sorry))
        if proposal.facts.break_glass:
            if board.break_glass is None or len(behind) < board.break_glass:
                return "not enough members are behind breaking the glass"
            continue
        if any((one.name, number, Choice.REJECT) in state.accepted for one in board.members if one.may_reject):
            return "a member who may reject has rejected it"
        if any(one.may_reject and one.name in state.unheard for one in board.members):
            return "a member who may reject could not be heard"
        if not _are_enough(board, behind):
            return "not enough members are behind it"
    return None


def wrong_upload(world: World, state: State, number: int) -> str | None:
    """As `wrong`, of a session that was uploaded with signatures: those who signed it are behind it, and for good."""
    if world.proposals[number].predecessor != state.current:
        return "its predecessor is not the current version"
    signed = {who for who, about in state.sessions if about == number}
    for board in _asked(world, state, number):
        if any(member.may_reject for member in board.members):
            return "a member who may reject was never asked"
        if board.time_lock:
            return "it did not wait"
        if not _are_enough(board, {member.name for member in board.members} & (world.byzantine | signed)):
            return "not enough members are behind it"
    return None


def _asked(world: World, state: State, number: int) -> Iterator[PolicyBoard]:
    """The boards that must be behind a version, whatever the rule asks."""
    own = world.proposals[number].board
    boards = (world.namespace, own) if state.current is None else (world.board_of(state.current),)
    return (board for board in boards if board is not None)


def _are_enough(board: PolicyBoard, behind: set[str]) -> bool:
    alone = any(member.may_approve and member.name in behind for member in board.members)
    return len(behind) > board.tolerated_faults or alone


@dataclass(frozen=True, kw_only=True)
class _Service:
    """The steps that anybody can take."""

    rule: Rule
    world: World
    messages: dict[tuple[int, Choice], bytes] = field(init=False)
    quorums: dict[tuple[int, frozenset[str]], tuple[Quorum, ...]] = field(init=False, default_factory=dict)
    outcomes: dict[tuple[int, tuple[int, ...], frozenset[str]], Outcome] = field(init=False, default_factory=dict)
    uploads: dict[tuple[int, frozenset[str]], bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        messages = {
            (number, choice): self.rule.message(proposal.facts, choice)
            for number, proposal in enumerate(self.world.proposals)
            for choice in Choice
        }
        object.__setattr__(self, "messages", messages)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Each step: its name, and the state after it."""
        yield from self._propose(state)
        yield from self._sign(state)
        yield from self._upload(state)
        for who in sorted(self.world.cut):
            change = "is cut off" if who not in state.unheard else "can be heard again"
            yield f"{who} {change}", replace(state, unheard=state.unheard ^ {who})
        for name, work in self._requests(state):
            after = self._commit(state, work)
            assert after is not None, "nothing happened in between"
            yield name, after
            if state.work is None:
                yield f"{name}: read", replace(state, work=work)
        for number, record in enumerate(state.records):
            if record is not None and record.stage is Stage.LOCKED:
                due = replace(record, stage=Stage.DUE)
                yield f"the lock of {number} runs out", replace(state, records=_put(state.records, number, due))
        if state.work is not None:
            after = self._commit(replace(state, work=None), state.work)
            yield f"proposal {state.work.proposal}: written", replace(state, work=None) if after is None else after

    def _propose(self, state: State) -> Iterator[tuple[str, State]]:
        for number, proposal in enumerate(self.world.proposals):
            if state.records[number] is None and proposal.here and proposal.predecessor == state.current:
                # Where no board is asked, nothing is waited for.
                stage = Stage.OPEN if self._boards(number) else Stage.DUE
                record = Record(stage, (0,) * len(self.world.members))
                yield f"propose {number}", replace(state, records=_put(state.records, number, record))

    def _sign(self, state: State) -> Iterator[tuple[str, State]]:
        for number, proposal in enumerate(self.world.proposals):
            if proposal.here and state.records[number] is None:
                continue
            for who in self.world.members:
                if who in self.world.byzantine:
                    continue
                made = {choice for choice in Choice if (who, number, choice) in state.signed}
                for choice in Choice:
                    sensible = {
                        Choice.APPROVE: not made,
                        Choice.WITHDRAW: made == {Choice.APPROVE},
                        Choice.REJECT: made <= {Choice.APPROVE},
                    }
                    if choice in proposal.signed and sensible[choice]:
                        signed = state.signed | {(who, number, choice)}
                        yield f"{who} signs to {choice.value} {number}", replace(state, signed=signed)

    def _upload(self, state: State) -> Iterator[tuple[str, State]]:
        """Sign sessions, and upload them with all the signatures that there are.

        An upload is one step: its commit expects the version that it was judged by.
        """
        for number, proposal in enumerate(self.world.proposals):
            if not (self.world.direct and proposal.here):
                continue
            if Choice.APPROVE in proposal.signed:
                for who in self.world.members:
                    if who not in self.world.byzantine and (who, number) not in state.sessions:
                        sessions = state.sessions | {(who, number)}
                        yield f"{who} signs session {number}", replace(state, sessions=sessions)
            signers = {who for who, about in state.sessions if about == number} | self.world.byzantine
            if proposal.predecessor == state.current and self._passes(number, frozenset(signers)):
                yield f"{UPLOAD}{number}", replace(state, current=number)

    def _passes(self, number: int, signers: frozenset[str]) -> bool:
        if (number, signers) not in self.uploads:
            self.uploads[number, signers] = all(
                _admits(self.rule.compiled(board), signers) for board in self._boards(number)
            )
        return self.uploads[number, signers]

    def _requests(self, state: State) -> Iterator[tuple[str, Work]]:
        """What requests would write that read `state` now."""
        for number, record in enumerate(state.records):
            if record is None or record.stage in (Stage.APPLIED, Stage.REJECTED):
                continue
            for who, choice in self._verifying(state, number):
                work = self._decide(state, number, record, who, choice)
                if work is not None:
                    yield f"{who} {choice.value}s {number}", work
            if record.stage is Stage.DUE and self._may_follow(state, number):
                outcome = self._outcome(number, record.choices, state.unheard)
                if outcome is Outcome.APPROVED or not self.rule.recounts:
                    done = replace(record, stage=Stage.APPLIED)
                    work = Work(number, record, state.current, done, True, None, state.unheard)
                    yield f"apply {number}", work

    def _verifying(self, state: State, number: int) -> Iterator[tuple[str, Choice]]:
        """Who can be shown to have decided what about this proposal, by any signature that was ever made."""
        for choice in Choice:
            message = self.messages[number, choice]
            found = {who for who, about, made in state.signed if self.messages[about, made] == message}
            for who in sorted(found | self.world.byzantine if choice in self.world.treason else found):
                yield who, choice

    def _may_follow(self, state: State, number: int) -> bool:
        return not self.rule.follows or self.world.proposals[number].predecessor == state.current

    def _decide(self, state: State, number: int, record: Record, who: str, choice: Choice) -> Work | None:
        """None: it is refused, or changes nothing."""
        at = self.world.members.index(who)
        before = CHOICES[record.choices[at]]
        if before is choice or not self._may_follow(state, number):
            return None
        if not any(
            voter.key == spki(who) for quorum in self._quorums(number, state.unheard) for voter in quorum.voters
        ):
            return None
        if self.rule.cautious:
            try:
                check_caution(before, choice)
            except ConflictError:
                return None
        choices = (*record.choices[:at], CHOICES.index(choice), *record.choices[at + 1 :])
        outcome = self._outcome(number, choices, state.unheard)
        locked = any(board.time_lock for board in self._boards(number))
        applies = outcome is Outcome.APPROVED and not locked
        if applies:
            stage = Stage.APPLIED
        elif outcome is Outcome.REJECTED:
            stage = Stage.REJECTED
        elif outcome is Outcome.APPROVED:
            stage = max(record.stage, Stage.LOCKED)
        else:
            # Where votes are not counted again, what was approved once stays so.
            stage = Stage.OPEN if self.rule.recounts else record.stage
        if stage in (Stage.APPLIED, Stage.REJECTED):
            choices = (0,) * len(choices)  # Nobody looks at them again.
        return Work(
            number, record, state.current, Record(stage, choices), applies, (who, number, choice), state.unheard
        )

    def _commit(self, state: State, work: Work) -> State | None:
        """None: a record is not as it was read."""
        if self.rule.expects_proposal and state.records[work.proposal] != work.seen:
            return None
        if self.rule.expects_current and state.current != work.current:
            return None
        if self.rule.expects_keys and state.unheard != work.unheard:
            return None
        accepted = state.accepted | ({work.decision} & state.signed if work.decision else frozenset())
        return replace(
            state,
            current=work.proposal if work.applies else state.current,
            records=_put(state.records, work.proposal, work.record),
            accepted=accepted,
        )

    # What is decided, by the boards that this rule asks

    def _boards(self, number: int) -> tuple[PolicyBoard, ...]:
        proposal = self.world.proposals[number]
        asked: list[PolicyBoard | None] = []
        if proposal.predecessor is None:
            asked = [self.world.namespace]
        elif self.rule.asks_predecessor:
            asked = [self.world.board_of(proposal.predecessor)]
        if self.rule.asks_own_board and (proposal.predecessor is None or not self.rule.asks_predecessor):
            asked.append(proposal.board or self.world.board)
        return tuple(board for board in asked if board is not None)

    def _quorums(self, number: int, unheard: frozenset[str]) -> tuple[Quorum, ...]:
        if (number, unheard) not in self.quorums:
            self.quorums[number, unheard] = tuple(quorum_of(_without(board, unheard)) for board in self._boards(number))
        return self.quorums[number, unheard]

    def _outcome(self, number: int, choices: tuple[int, ...], unheard: frozenset[str]) -> Outcome:
        """All of the boards must approve; one that rejects is enough. Where none is asked, anybody may."""
        if (number, choices, unheard) not in self.outcomes:
            self.outcomes[number, choices, unheard] = self._counted(number, choices, unheard)
        return self.outcomes[number, choices, unheard]

    def _counted(self, number: int, choices: tuple[int, ...], unheard: frozenset[str]) -> Outcome:
        by_key = {
            spki(who): choice
            for who, at in zip(self.world.members, choices, strict=True)
            if (choice := CHOICES[at]) is not None
        }
        break_glass = self.world.proposals[number].facts.break_glass
        outcomes = [self.rule.tally(quorum, by_key, break_glass) for quorum in self._quorums(number, unheard)]
        if Outcome.REJECTED in outcomes:
            return Outcome.REJECTED
        return Outcome.UNDECIDED if Outcome.UNDECIDED in outcomes else Outcome.APPROVED


def _without(board: PolicyBoard, unheard: frozenset[str]) -> PolicyBoard:
    """The board when these members' keys cannot be resolved."""
    members = (replace(one, signer=UNKNOWN) if one.name in unheard else one for one in board.members)
    return replace(board, members=tuple(members))


def _admits(subjects: tuple[Subject, ...], signers: frozenset[str]) -> bool:
    """Whether a session that these members signed passes by the subjects."""
    digest = b"s" * 32
    policy = AccessPolicy(read=(NoneSubject(),), update=subjects)
    signatures = [SessionSignature(signer="", spki=spki(who), signature=person(who).sign(digest)) for who in signers]
    try:
        caller = verify_signatures(digest, signatures) if signatures else None
        authorize(Operation.UPDATE, policy, session="s", creator=None, caller=caller)
    except NotAuthorizedError:
        return False
    return True


def _put(records: tuple[Record | None, ...], number: int, record: Record) -> tuple[Record | None, ...]:
    return (*records[:number], record, *records[number + 1 :])
