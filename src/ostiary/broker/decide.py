"""Count a member's decision about a proposal, and apply what is approved, in one commit.

Every change of a proposal is one step: the records are read, the state that follows is decided without waiting for
anything, and one commit writes it under the condition that everything it rests on still stands: the proposal, the
current version of the session, the namespace, and the records that members' keys were resolved from. What moved
meanwhile is read again. The step of the deciding approval stores the version itself, so that nothing is ever counted
and not applied, or applied and not counted; a crash leaves all of a step or nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_left
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ostiary.audit import Kind, entry
from ostiary.audit.entry import Json
from ostiary.board.count import Choice, Outcome, check_caution
from ostiary.board.decision import VerifiedDecision, verify_decision
from ostiary.board.proposal import State
from ostiary.broker.ballots import Trial, hold_trial
from ostiary.broker.cas import Cas, log
from ostiary.broker.proposal import Decision, Proposal, standing, whole_seconds
from ostiary.broker.upload import prepare, store_version
from ostiary.errors import ConflictError, NotAuthorizedError, NotFoundError, OstiaryError, RefusedError
from ostiary.session import ParsedSession
from ostiary.store import Head, Write

MAX_TRIES = 32
"""How often a step is decided anew because what it rests on changed before it was stored."""
MAX_DECISIONS = 512
"""Of a proposal that are kept while keys of members cannot be resolved; those of members are at most 192."""
MAX_LEFT = 1024
"""Members who were cautious about a proposal and are members no more."""

_NEARLY_A_SECOND = timedelta(microseconds=999_999)


@dataclass(frozen=True, kw_only=True)
class Cast:
    """A decision as it came in. signer: DER SubjectPublicKeyInfo. Nothing of it is verified."""

    signer: bytes
    choice: Choice
    reason: str
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class _Verified:
    decision: VerifiedDecision
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class _Step:
    """From `before` to `after`. decided: the decision that is counted in it, if any."""

    before: Proposal
    after: Proposal
    trial: Trial
    decided: VerifiedDecision | None

    @property
    def applies(self) -> bool:
        return self.after.state is State.APPLIED


async def decide(cas: Cas, proposal_id: str, cast: Cast) -> Proposal:
    """Count a member's decision; if it is the deciding approval and no time lock runs, apply the version with it.

    Guarantees on return: the decision is durable; the signature holds over exactly this proposal of this service, by a
    key that was a member's at the very commit. If the proposal is applied: every board in charge had approved it by
    decisions of those who were members, and the proposer was admitted where an access policy is in charge, all that at
    the very commit. The same decision again changes nothing.
    Raises NotFoundError, InputError (a signature that does not hold), NotAuthorizedError (no member's key),
    ConflictError (closed, less cautious than before, or too much moves at a time), RefusedError (it could not be
    applied: the decision does not count, and may be sent again).
    """
    found = cas.proposals.require(proposal_id)
    verified = verify_decision(
        found.facts, signer=cast.signer, choice=cast.choice, reason=cast.reason, signature=cast.signature
    )
    proposal = await _advance(cas, found, _Verified(decision=verified, signature=cast.signature))
    kept = proposal.decisions.get(verified.key)
    if kept is None or kept.choice is not verified.choice:
        raise _closed(proposal)
    return proposal


async def settle(cas: Cas, proposal_id: str) -> Proposal:
    """The proposal after everything that is due: closed if its time is over or another version became current, applied
    if it is approved and its time lock is over. What cannot be applied now stays approved. Raises NotFoundError."""
    found = cas.proposals.require(proposal_id)
    try:
        proposal = await _advance(cas, found, None)
    except (RefusedError, ConflictError) as error:
        log.warning("proposal %s: %s", proposal_id, error)
        return cas.proposals.require(proposal_id)
    if not proposal.state.is_pending:
        await _leave_index(cas, proposal)
    return proposal


async def settle_session(cas: Cas, session: str) -> None:
    """As `settle`, all pending proposals of a session."""
    for found in cas.proposals.pending_of(session):
        # It may be over, and dropped, by now.
        with suppress(NotFoundError):
            await settle(cas, found.proposal)


async def _advance(cas: Cas, found: Proposal, verified: _Verified | None) -> Proposal:
    """found: the proposal as it was at some time, of which its facts stay as they are."""
    for _ in range(MAX_TRIES):
        parsed = await cas.proposals.version(found)
        await prepare(cas, parsed)
        async with cas.proposals.turn(found.page):
            with cas.store.one_look():
                proposal = cas.proposals.require(found.id)
                step = _next(cas, proposal, parsed, verified)
                if step is None:
                    return proposal
                change = cas.proposals.replacement(step.after)
            head = None if step.applies else await _unless_moved(_count(cas, step, change.writes))
        if step.applies:
            # Not in the turn, as the values may have to go to a key vault first.
            head = await _unless_moved(_apply(cas, step, parsed, change.writes))
        if head is None:
            continue
        cas.proposals.stored(change, head)
        if step.applies:
            await _leave_index(cas, step.after)
        _log(step.after)
        announce(cas, step.after, step.trial.notify, _event(step))
        return step.after
    raise ConflictError("the proposal changes faster than this decision can be counted", "send it again")


async def _leave_index(cas: Cas, proposal: Proposal) -> None:
    """Take an applied proposal out of the index, if that has not been done; trouble leaves it to the next sweep.

    It is out of all lists already, as another version is current.
    """
    try:
        for _ in range(MAX_TRIES):
            async with cas.proposals.turn(proposal.page):
                with cas.store.one_look():
                    change = cas.proposals.departure(proposal)
                if change is None:
                    return
                leaf = entry(Kind.PROPOSAL_CLOSED, _state_on_record(proposal), cas.now(), cas.random)
                head = await _unless_moved(asyncio.wrap_future(cas.store.commit(change.writes, leaf)))
            if head is not None:
                cas.proposals.stored(change, head)
                return
    except OstiaryError as error:
        log.warning("proposal %s: %s", proposal.id, error)


async def _unless_moved(commit: Awaitable[Head]) -> Head | None:
    """None: something that the step rests on has changed, and nothing was stored."""
    try:
        return await commit
    except ConflictError:
        return None


def _log(proposal: Proposal) -> None:
    if proposal.facts.break_glass:
        tell, kind = log.warning, "break-glass proposal"
    else:
        tell, kind = log.info, "proposal"
    tell("%s %s of session %s: %s", kind, proposal.id, proposal.facts.session, proposal.state.value)


def _next(cas: Cas, proposal: Proposal, parsed: ParsedSession, verified: _Verified | None) -> _Step | None:
    """What follows from the records as they are now; None: nothing changes. Waits for nothing."""
    now = cas.now()
    trial = hold_trial(cas, parsed, proposal.proposer)
    state = standing(
        proposal.state,
        predecessor=proposal.facts.predecessor,
        expires=proposal.expires,
        current=trial.current_hash,
        now=now,
    )
    if not state.is_pending:
        if proposal.state.is_pending:
            return _Step(before=proposal, after=replace(proposal, state=state), trial=trial, decided=None)
        return None
    counted = proposal if verified is None else _with_decision(proposal, trial, verified, now)
    approvals, needed = trial.tally(counted.choices, break_glass=proposal.facts.break_glass)
    counted = _without_those_who_left(counted, trial)
    counted = replace(counted, seats=trial.seats, approvals=approvals, needed=needed)
    after = _judged(counted, proposal, trial, now)
    if after.state is State.APPLIED and trial.permit is None:
        if verified is None or verified.decision.choice is Choice.APPROVE:
            raise RefusedError(
                f"proposal {proposal.id} is approved and cannot be applied",
                *(("something is in the way",) if trial.obstacle is None else trial.obstacle.chain),
            )
        # What stands in the way now must not keep anybody from saying no before it is gone.
        after = replace(counted, state=proposal.state)
    if after == proposal:
        return None
    decided = None if verified is None or counted.decisions == proposal.decisions else verified.decision
    return _Step(before=proposal, after=after, trial=trial, decided=decided)


def _with_decision(proposal: Proposal, trial: Trial, verified: _Verified, now: datetime) -> Proposal:
    decision = verified.decision
    if decision.key not in trial.voters:
        raise NotAuthorizedError(
            "this key is of no member who decides about the proposal",
            f"its SHA-256 is {hashlib.sha256(decision.key).hexdigest()}",
        )
    check_caution(proposal.choices.get(decision.key), decision.choice)
    before = proposal.decisions.get(decision.key)
    if before is not None and before.choice is decision.choice:
        return proposal
    made = Decision(choice=decision.choice, reason=decision.reason, at=whole_seconds(now), signature=verified.signature)
    left = {key: choice for key, choice in proposal.left.items() if key != decision.key}
    return replace(proposal, decisions={**proposal.decisions, decision.key: made}, left=left)


def _without_those_who_left(proposal: Proposal, trial: Trial) -> Proposal:
    """The proposal without decisions that count for nothing; but whoever comes back is as cautious as before.

    A key that cannot be resolved at this moment may still be a member's. Raises ConflictError over MAX_LEFT.
    """
    gone = proposal.decisions.keys() - trial.voters
    may_come_back = trial.is_unheard and len(proposal.decisions) <= MAX_DECISIONS
    if not gone or may_come_back or trial.obstacle is not None:
        return proposal
    kept = {key: decision for key, decision in proposal.decisions.items() if key not in gone}
    choices = proposal.choices
    left = {key: choice for key, choice in choices.items() if key not in kept and choice is not Choice.APPROVE}
    if len(left) > MAX_LEFT:
        raise ConflictError(
            f"more than {MAX_LEFT} members have rejected or withdrawn and left the board since the proposal was made",
            "propose the version anew",
        )
    return replace(proposal, decisions=kept, left=left)


def _judged(counted: Proposal, before: Proposal, trial: Trial, now: datetime) -> Proposal:
    """The pending proposal once its boards have said so. before: it without the decision that is counted now."""
    break_glass = before.facts.break_glass
    match trial.outcome(counted.choices, break_glass=break_glass):
        case Outcome.REJECTED:
            return replace(counted, state=State.REJECTED, approved=None, apply_after=None)
        case Outcome.UNDECIDED if _is_unheard_only(counted, before, trial):
            return counted
        case Outcome.UNDECIDED:
            return replace(counted, state=State.OPEN, approved=None, apply_after=None)
        case _ if not trial.time_lock and before.apply_after is None:
            return replace(counted, state=State.APPLIED, approved=None, apply_after=None)
    # The lock runs from the moment at which those who decide now have approved, not from one at which others had. It is
    # never shorter than they ask for, nor than was announced. Later approvals neither prolong it nor cut it short.
    moment = whole_seconds(now + _NEARLY_A_SECOND)
    if before.approved is None:
        approved = moment
    else:
        deciding = _deciding(counted, trial)
        approved = moment if deciding not in before.decisions.values() else max(before.approved, deciding.at)
    apply_after = max(approved + trial.time_lock, before.apply_after or approved)
    state = State.APPLIED if now >= apply_after else State.APPROVED
    return replace(counted, state=state, approved=approved, apply_after=apply_after)


def _deciding(proposal: Proposal, trial: Trial) -> Decision:
    """The first decision with which those before it approve, of those who decide now, by whom it is approved."""
    approvals = sorted(
        (decision.at, key)
        for key, decision in proposal.decisions.items()
        if decision.choice is Choice.APPROVE and key in trial.voters
    )
    others = {key: choice for key, choice in proposal.choices.items() if choice is not Choice.APPROVE}

    def is_enough(count: int) -> bool:
        choices = {**others, **dict.fromkeys((key for _, key in approvals[:count]), Choice.APPROVE)}
        return trial.outcome(choices, break_glass=proposal.facts.break_glass) is Outcome.APPROVED

    # One more approval never takes an approval away, so that the first count that is enough can be searched for.
    _, key = approvals[bisect_left(range(1, len(approvals) + 1), True, key=is_enough)]
    return proposal.decisions[key]


def _is_unheard_only(counted: Proposal, before: Proposal, trial: Trial) -> bool:
    """Whether what was approved is undecided as keys cannot be had at this moment, and not by what anybody decided.

    It is not applied then. But it stays approved, or each such moment would have its time lock begin anew, and one
    after the time to decide would close it for good.
    """
    changed = counted.choices.items() - before.choices.items()
    more_cautious = any(choice is not Choice.APPROVE for _, choice in changed)
    return before.state is State.APPROVED and trial.is_unheard and not more_cautious


async def _apply(cas: Cas, step: _Step, parsed: ParsedSession, writes: tuple[Write, ...]) -> Head:
    """Make the version current. Raises ConflictError: something that the step rests on has changed."""
    after, trial = step.after, step.trial
    if trial.permit is None:
        raise ValueError("a step that applies a version without a permit")
    proposer = after.proposer
    by: dict[str, Json] = {**on_record(after), "approvals": _decisions(after, trial)}
    if proposer is not None:
        by["by"] = proposer.key_hash.hex()
    creator = None if proposer is None else proposer.key_hash
    permit = replace(trial.permit, expect=(*trial.permit.expect, *trial.expect))
    return await store_version(cas, parsed, permit, creator=creator, by=by, writes=writes)


async def _count(cas: Cas, step: _Step, writes: tuple[Write, ...]) -> Head:
    """Store what changed of the proposal. Raises ConflictError as `_apply`."""
    after = step.after
    data = _state_on_record(after)
    if step.decided is not None:
        data |= {"member": hashlib.sha256(step.decided.key).hexdigest(), "choice": step.decided.choice.value}
    kind = Kind.PROPOSAL_DECIDED if after.state.is_pending else Kind.PROPOSAL_CLOSED
    leaf = entry(kind, data, cas.now(), cas.random)
    return await asyncio.wrap_future(cas.store.commit(writes, leaf, expect=step.trial.expect))


def _state_on_record(proposal: Proposal) -> dict[str, Json]:
    return {**on_record(proposal), "state": proposal.state.value}


def _decisions(proposal: Proposal, trial: Trial) -> list[Json]:
    """Whose decisions about the applied version were counted, for the audit log."""
    return [
        {"member": hashlib.sha256(key).hexdigest(), "choice": decision.choice.value}
        for key, decision in proposal.decisions.items()
        if key in trial.voters
    ]


def on_record(proposal: Proposal) -> dict[str, Json]:
    """What every entry of the audit log says of a proposal: its id is the hash of the session's hash and of a nonce."""
    loud: dict[str, Json] = {"break_glass": True} if proposal.facts.break_glass else {}
    return {"session": proposal.facts.session, "proposal": proposal.id, **loud}


def announce(cas: Cas, proposal: Proposal, urls: tuple[str, ...], event: str) -> None:
    """Tell those who wait for a change, and those who asked to be told. Waits for nothing."""
    cas.proposals.changed()
    cas.webhooks.tell(
        urls,
        {
            "proposal": proposal.id,
            "session": proposal.facts.session,
            "state": proposal.state.value,
            "event": event,
        },
    )


def _event(step: _Step) -> str:
    return "decided" if step.after.state is State.OPEN else step.after.state.value


def _closed(proposal: Proposal) -> OstiaryError:
    return ConflictError(
        f"the proposal is {proposal.state.value}, and takes no more decisions",
        "propose the version anew if it is needed",
    )
