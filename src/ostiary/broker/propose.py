"""Propose a version of a session to the policy board that decides about it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from ostiary.audit import Kind, entry
from ostiary.board import Caller, Operation, authorize
from ostiary.board.count import Outcome, count
from ostiary.board.proposal import NONCE_BYTES, ProposalFacts, State
from ostiary.broker.admission import access_policy_of
from ostiary.broker.ballots import OWN_BOARD, Trial, hold_trial
from ostiary.broker.cas import Cas, log
from ostiary.broker.decide import announce, on_record, settle_session
from ostiary.broker.identity import root_key_hash
from ostiary.broker.proposal import Proposal, whole_seconds
from ostiary.broker.upload import prepare, read_upload
from ostiary.errors import ConflictError, Finding, InputError, NotAuthorizedError, RefusedError
from ostiary.session import ParsedSession

MAX_TRIES = 32
"""How often a proposal is judged anew because what it was judged by changed before it was stored."""


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """warnings: of the checks of the version, for the author."""

    proposal: Proposal
    warnings: tuple[Finding, ...]


async def propose(cas: Cas, text: bytes, *, note: str, break_glass: bool, caller: Caller | None) -> Proposed:
    """Put the version in `text` before every board that is in charge of it.

    Guarantees on return: the proposal is durable; the version follows the current one, or is the first; the creator in
    it, where it names one, is the caller, so that what members sign is what will be stored; `caller` may read the
    session (of a first version: the namespace), or has the key of a member, or is admitted by the access policy that is
    in charge of part of it; each board asked can still approve, and so could one that the version
    hands over to, as keys are now.
    Does not guarantee that it can be applied once it is approved: that is judged again then.
    Raises as `upload_session`, and InputError where no board is in charge, RefusedError where one cannot decide,
    ConflictError over the bounds of `proposal_records`.
    """
    parsed = await asyncio.to_thread(read_upload, text, caller)
    await settle_session(cas, parsed.session.name)
    for _ in range(MAX_TRIES):
        await prepare(cas, parsed)
        async with cas.proposals.turn(None):
            with cas.store.one_look():
                trial = hold_trial(cas, parsed, caller)
                is_named = _is_named(trial, caller)
                _check_may_propose(cas, trial, caller, is_named=is_named)
                if trial.obstacle is not None:
                    raise trial.obstacle
                insider = trial.by_policy or is_named
                proposal = _proposal(
                    cas, parsed, trial, note=note, break_glass=break_glass, caller=caller, insider=insider
                )
                _check_can_decide(trial, break_glass=break_glass)
                change = cas.proposals.addition(proposal, parsed.text, is_named=is_named)
            by = {} if caller is None else {"by": caller.key_hash.hex()}
            leaf = entry(Kind.PROPOSAL_CREATED, {**on_record(proposal), **by}, cas.now(), cas.random)
            try:
                head = await asyncio.wrap_future(cas.store.commit(change.writes, leaf, expect=trial.expect))
            except ConflictError:
                continue
        cas.proposals.stored(change, head)
        tell, glass = (log.warning, ", to break the glass") if break_glass else (log.info, "")
        tell("%s %s of session %s%s", Kind.PROPOSAL_CREATED.value, proposal.id, parsed.session.name, glass)
        announce(cas, proposal, trial.notify, "proposed")
        return Proposed(proposal=proposal, warnings=parsed.warnings)
    raise ConflictError("the session and its proposals change faster than this one can be judged", "try again")


def _proposal(
    cas: Cas,
    parsed: ParsedSession,
    trial: Trial,
    *,
    note: str,
    break_glass: bool,
    caller: Caller | None,
    insider: bool,
) -> Proposal:
    if not trial.ballots:
        raise InputError(
            f"no policy board decides about this version of session {parsed.session.name}",
            "upload it; whoever the access policy admits may do that",
        )
    created = whole_seconds(cas.now())
    approvals, needed = trial.tally({}, break_glass=break_glass)
    return Proposal(
        facts=ProposalFacts(
            cas=root_key_hash(cas),
            session=parsed.session.name,
            predecessor=parsed.session.predecessor,
            session_hash=parsed.hash,
            break_glass=break_glass,
            created=created,
            note=note,
            nonce=cas.random(NONCE_BYTES),
        ),
        proposer=caller,
        state=State.OPEN,
        decide_by=whole_seconds(created + trial.decide_within),
        insider=insider,
        seats=trial.seats,
        approvals=approvals,
        needed=needed,
    )


def _check_may_propose(cas: Cas, trial: Trial, caller: Caller | None, *, is_named: bool) -> None:
    """Whoever may not even read must not find out by trying what the current hash is, nor take the room of others."""
    if trial.judged is None or trial.by_policy or is_named:
        return
    judged = trial.judged
    policy = access_policy_of(cas, judged).thing
    name = judged.parsed.session.name
    try:
        authorize(Operation.READ, policy, session=name, creator=judged.creator, caller=caller)
    except NotAuthorizedError as error:
        raise NotAuthorizedError(
            f"You have insufficient rights to propose a version in session {name}",
            "readers of the session and members of its policy board may; " + error.causes[-1],
        ) from None


def _is_named(trial: Trial, caller: Caller | None) -> bool:
    """Whether the TLS client has the key of a member who is asked, or made the version that is judged.

    Not of a member whom only the proposed version names: anybody may write himself there.
    """
    if caller is None:
        return False
    asked = (ballot.quorum.voters for ballot in trial.ballots if ballot.origin != OWN_BOARD)
    members = {hashlib.sha256(voter.key).digest() for voters in asked for voter in voters}
    return caller.key_hash in members or (trial.judged is not None and trial.judged.creator == caller.key_hash)


def _check_can_decide(trial: Trial, *, break_glass: bool) -> None:
    for ballot in trial.ballots:
        if break_glass and ballot.board.break_glass is None:
            raise RefusedError(
                f"the {ballot.origin} policy board has no break_glass quorum, so that nothing breaks the glass",
                "propose it without break_glass",
            )
        if count(ballot.quorum, {}, break_glass=break_glass) is Outcome.REJECTED:
            raise RefusedError(
                f"the {ballot.origin} policy board cannot decide: the keys of too many of its members are not known",
                "see that the secrets exist, and are exported, that its members' signers name",
            )
