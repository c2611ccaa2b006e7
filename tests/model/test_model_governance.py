"""What an adversary with the network and F members can do, whatever he does: no unapproved version becomes current.

Where the model is to find a flaw, it must find it: so a model that sees nothing cannot pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.model.governance import Message, Proposal, Rule, World, explore, member
from tests.simulators.board_members import FACTS, board

from ostiary.board import Choice, Outcome, ProposalFacts, Quorum, compiled_rule, count, decision_message
from ostiary.session.model import PolicyBoard, Subject

APPROVE, WITHDRAW, REJECT = Choice
ANYTHING, YES, NO = frozenset(Choice), frozenset({APPROVE}), frozenset({REJECT})


def named(text: str, faults: int = 1, **others: object) -> PolicyBoard:
    """`a b+ c-`: a votes, b may approve alone, c may reject alone."""
    members = (member(word[:1], word[1:]) for word in text.split())
    return board(faults, *members, **others)


def facts(number: int) -> ProposalFacts:
    return replace(FACTS, nonce=bytes([number]) * 16)


def world(*proposals: Proposal, board: PolicyBoard | None, byzantine: str = "z", **others: object) -> World:
    return World(proposals=proposals, board=board, byzantine=frozenset(byzantine), **others)  # type: ignore[arg-type]


TRIO = named("a b z")
GOOD, GOOD_TOO = (Proposal(facts=facts(number), signed=YES) for number in (1, 2))
BAD = Proposal(facts=facts(3))
DISPUTED = Proposal(facts=facts(4), signed=ANYTHING)
WITHDRAWN = Proposal(facts=facts(5), signed=frozenset({APPROVE, WITHDRAW}))
DAY = timedelta(days=1)

ONE = world(DISPUTED, board=TRIO, treason=ANYTHING)
GOOD_AND_BAD = world(WITHDRAWN, replace(BAD, signed=NO), board=TRIO)
AT_ONCE = world(WITHDRAWN, GOOD_TOO, board=TRIO)
TWO_FAULTS = world(GOOD, BAD, board=named("a b c y z", faults=2), byzantine="yz")
VETO = world(replace(DISPUTED, signed=YES | NO), board=named("a b c- z"))
VETO_AND_ALONE = world(DISPUTED, board=named("a+ c- z", time_lock=DAY))
CUT_OFF = world(replace(DISPUTED, signed=YES | NO), board=named("a b c- z"), cut=frozenset("c"))
CUT_OFF_LOCK = world(GOOD, board=named("a c- z", time_lock=DAY), cut=frozenset("c"))
LOCK = world(DISPUTED, board=named("a b z", time_lock=DAY))
LOCKS = world(GOOD, GOOD_TOO, board=named("a b z", time_lock=DAY))
REMOVED = world(replace(GOOD, board=named("a b d")), GOOD_TOO, replace(BAD, predecessor=0), board=TRIO)
REMOVED_SINCE = world(replace(GOOD, board=named("a b d")), replace(WITHDRAWN, predecessor=0), board=TRIO)
OWN_BOARD = world(replace(BAD, board=named("z", faults=0)), GOOD, board=TRIO)
FIRST = world(
    replace(GOOD, predecessor=None, board=TRIO), replace(BAD, predecessor=None, board=TRIO),
    replace(GOOD_TOO, predecessor=None, board=named("a d z")), board=None,
)  # fmt: skip
NAMESPACE = world(
    replace(GOOD, predecessor=None, board=named("a z")), replace(BAD, predecessor=None, board=named("y z")),
    board=None, namespace=named("b z"), byzantine="yz",
)  # fmt: skip
GLASS_BOARD = named("a b c- z", break_glass=3)
GLASS = world(Proposal(facts=replace(facts(1), break_glass=True), signed=YES | NO), board=GLASS_BOARD)
DIRECT = world(GOOD, BAD, board=TRIO, direct=True)
DIRECT_VETO = world(GOOD, board=named("a b c- z"), direct=True)
DIRECT_LOCK = world(GOOD, board=named("a b z", time_lock=DAY), direct=True)
DIRECT_FIRST = world(
    replace(GOOD, predecessor=None, board=named("a z")), replace(BAD, predecessor=None, board=named("y z")),
    board=None, namespace=named("b z"), byzantine="yz", direct=True,
)  # fmt: skip
DIRECT_REMOVED = world(replace(GOOD, board=named("a b d")), replace(BAD, predecessor=0), board=TRIO, direct=True)

WORLDS: dict[str, tuple[World, set[int], int]] = {
    "one member of three": (ONE, {0}, 10_000),
    "a good and a bad one": (GOOD_AND_BAD, {0}, 20_000),
    "two approved at once": (AT_ONCE, {0, 1}, 15_000),
    "two members of five": (TWO_FAULTS, {0}, 7_000),
    "a veto": (VETO, {0}, 15_000),
    "a veto, one who may approve alone, and a time lock": (VETO_AND_ALONE, {0}, 8_000),
    "a veto that can be cut off": (CUT_OFF, {0}, 30_000),
    "a veto that can be cut off while a time lock runs": (CUT_OFF_LOCK, {0}, 800),
    "a time lock": (LOCK, {0}, 8_000),
    "two time locks": (LOCKS, {0, 1}, 12_000),
    "a member removed while voting": (REMOVED, {0, 1}, 10_000),
    "a member removed who votes on": (REMOVED_SINCE, {0, 1}, 50_000),
    "a proposal that brings its own board": (OWN_BOARD, {1}, 250),
    "first versions": (FIRST, {0, 2}, 25_000),
    "first versions in a namespace with a board": (NAMESPACE, {0}, 700),
    "breaking the glass": (GLASS, {0}, 25_000),
    "signed sessions beside proposals": (DIRECT, {0}, 1_500),
    "signed sessions where one may reject": (DIRECT_VETO, {0}, 2_000),
    "signed sessions where there is a time lock": (DIRECT_LOCK, {0}, 900),
    "signed first versions": (DIRECT_FIRST, {0}, 3_500),
    "signed sessions, and a member removed": (DIRECT_REMOVED, {0}, 3_000),
}
"""A world, the versions that may become current in it, and how many states it has at least."""


@pytest.mark.parametrize("case", WORLDS)
def test_no_unapproved_version_ever_becomes_current(case: str) -> None:
    """Whatever is proposed, kept, sent again, sent late or at once; and what is approved does become current."""
    here, applied, at_least = WORLDS[case]
    explored = explore(Rule(), here)
    assert explored.wrong is None, explored.path
    assert explored.applied == applied, "the model does not do what it should"
    assert explored.states >= at_least, "the model does not go through what it did"


def fewer(quorum: Quorum, choices: Mapping[bytes, Choice], break_glass: bool) -> Outcome:
    """F are enough."""
    return count(replace(quorum, needed=quorum.needed - 1), choices, break_glass=break_glass)


def powerless(quorum: Quorum, choices: Mapping[bytes, Choice], break_glass: bool) -> Outcome:
    """Nobody may reject."""
    voters = tuple(replace(voter, may_reject=False) for voter in quorum.voters)
    return count(replace(quorum, voters=voters), choices, break_glass=break_glass)


def alone_first(quorum: Quorum, choices: Mapping[bytes, Choice], break_glass: bool) -> Outcome:
    """Whoever may approve alone beats a veto."""
    if any(voter.may_approve and choices.get(voter.key) is APPROVE for voter in quorum.voters):
        return Outcome.APPROVED
    return count(quorum, choices, break_glass=break_glass)


def deaf(quorum: Quorum, choices: Mapping[bytes, Choice], break_glass: bool) -> Outcome:
    """Who approved once counts, withdrawn or not."""
    kept = {key: APPROVE if choice is WITHDRAW else choice for key, choice in choices.items()}
    return count(quorum, kept, break_glass=break_glass)


def deafened(quorum: Quorum, choices: Mapping[bytes, Choice], break_glass: bool) -> Outcome:
    """Whoever may reject and cannot be heard is not waited for."""
    return count(replace(quorum, unheard_veto=False), choices, break_glass=break_glass)


def without_veto(board: PolicyBoard) -> tuple[Subject, ...]:
    """F + 1 signatures pass, whoever may reject."""
    return compiled_rule(replace(board, members=tuple(replace(one, may_reject=False) for one in board.members)))


def without_lock(board: PolicyBoard) -> tuple[Subject, ...]:
    """F + 1 signatures pass, whatever should be waited for."""
    return compiled_rule(replace(board, time_lock=timedelta(0)))


def generous(board: PolicyBoard) -> tuple[Subject, ...]:
    """F signatures pass."""
    return compiled_rule(replace(board, tolerated_faults=board.tolerated_faults - 1))


TOO_FEW, VETOED = "not enough members are behind it", "a member who may reject has rejected it"
OVERTAKEN, UNHEARD = "its predecessor is not the current version", "a member who may reject could not be heard"

FLAWS: dict[str, tuple[Rule, World, str]] = {
    "a withdrawn approval that is sent again counts": (Rule(cautious=False), ONE, TOO_FEW),
    "a decision that was overtaken by another is written": (Rule(expects_proposal=False), ONE, TOO_FEW),
    "a proposal is applied on a version that it was not made for": (Rule(expects_current=False), AT_ONCE, OVERTAKEN),
    "so it is after a time lock": (Rule(expects_current=False), LOCKS, OVERTAKEN),
    "so it is by a member who was removed": (Rule(expects_current=False), REMOVED, OVERTAKEN),
    "nobody looks whether the predecessor is current": (Rule(follows=False), AT_ONCE, OVERTAKEN),
    "nobody looks whether there is a first version": (Rule(follows=False), FIRST, OVERTAKEN),
    "votes are not counted again after a time lock": (Rule(recounts=False), LOCK, TOO_FEW),
    "as many as are tolerated are enough": (Rule(tally=fewer), GOOD_AND_BAD, TOO_FEW),
    "so they are of five": (Rule(tally=fewer), TWO_FAULTS, TOO_FEW),
    "nobody may reject": (Rule(tally=powerless), VETO, VETOED),
    "who may approve alone beats a veto": (Rule(tally=alone_first), VETO_AND_ALONE, VETOED),
    "whoever may reject and is cut off is not waited for": (Rule(tally=deafened), CUT_OFF, UNHEARD),
    "who is cut off while votes are counted is not noticed": (Rule(expects_keys=False), CUT_OFF, UNHEARD),
    "nor when the time lock runs out": (Rule(recounts=False), CUT_OFF_LOCK, UNHEARD),
    "a withdrawn approval goes on counting": (Rule(tally=deaf), ONE, TOO_FEW),
    "the proposed board decides": (Rule(asks_predecessor=False), OWN_BOARD, TOO_FEW),
    "the board that a first version names is not asked": (Rule(asks_own_board=False), FIRST, TOO_FEW),
    "it is not asked where a namespace has one": (Rule(asks_own_board=False), NAMESPACE, TOO_FEW),
    "nor of a signed session": (Rule(asks_own_board=False), DIRECT_FIRST, TOO_FEW),
    "signatures pass a veto": (Rule(compiled=without_veto), DIRECT_VETO, "a member who may reject was never asked"),
    "signatures pass a time lock": (Rule(compiled=without_lock), DIRECT_LOCK, "it did not wait"),
    "signatures of as many as are tolerated pass": (Rule(compiled=generous), DIRECT, TOO_FEW),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_is_found(flaw: str) -> None:
    rule, here, reason = FLAWS[flaw]
    assert explore(rule, here).wrong == reason


# --- signatures made for something else ------------------------------------------------------------------------------

ELSEWHERE: dict[str, object] = {
    "cas": b"d" * 32, "session": "other/web", "predecessor": b"q" * 32, "session_hash": b"i" * 32, "nonce": b"m" * 16,
    "created": FACTS.created + timedelta(seconds=1), "note": "harmless",
}  # fmt: skip


def without(fact: str) -> Message:
    """A message that would not say this, nor have the hash of it in what it says."""

    def message(facts: ProposalFacts, choice: Choice) -> bytes:
        return decision_message(replace(facts, **{fact: getattr(FACTS, fact)}), choice, "")

    return message


@pytest.mark.parametrize("fact", ELSEWHERE)
def test_a_decision_counts_for_one_proposal_only(fact: str) -> None:
    """Members approve elsewhere what nobody approves here: another CAS, session, version, or another proposal of it."""
    elsewhere = replace(FACTS, **{fact: ELSEWHERE[fact]})  # type: ignore[arg-type]
    here = world(Proposal(facts=FACTS), Proposal(facts=elsewhere, signed=YES | NO, here=False), GOOD, board=TRIO)
    explored = explore(Rule(), here)
    assert explored.wrong is None, explored.path
    assert explored.applied == {2}
    assert explore(Rule(message=without(fact)), here).wrong == "not enough members are behind it"


def test_an_approval_of_an_ordinary_proposal_never_breaks_the_glass() -> None:
    """Nor the other way round: members know which of the two they sign."""
    ordinary, breaking = facts(1), replace(facts(1), break_glass=True)
    for signed, wanted in ((ordinary, breaking), (breaking, ordinary)):
        here = world(Proposal(facts=wanted), Proposal(facts=signed, signed=YES), board=GLASS_BOARD)
        explored = explore(Rule(), here)
        assert explored.wrong is None, explored.path
        assert explored.applied == {1}
        assert explore(Rule(message=without("break_glass")), here).wrong is not None


def test_an_approval_is_no_rejection() -> None:
    """A message without its choice lets an adversary turn a rejection into an approval."""

    def message(facts: ProposalFacts, _choice: Choice) -> bytes:
        return decision_message(facts, APPROVE, "")

    assert explore(Rule(message=message), world(replace(BAD, signed=NO), board=TRIO)).wrong is not None


# --- why ------------------------------------------------------------------------------------------------------------


def test_why_a_member_may_only_become_more_cautious() -> None:
    """The approval that somebody kept counts again after it was withdrawn."""
    assert explore(Rule(cautious=False), world(WITHDRAWN, board=TRIO)).path == (
        "propose 0", "a signs to approve 0", "a signs to withdraw 0", "z approves 0", "a withdraws 0", "a approves 0",
    )  # fmt: skip


def test_why_a_commit_expects_the_proposal_as_it_was_read() -> None:
    """Of two decisions at once one would be lost, and it may be the one that says no."""
    assert explore(Rule(expects_proposal=False), ONE).path == (
        "propose 0", "a signs to approve 0", "a signs to withdraw 0", "a approves 0", "z approves 0: read",
        "a withdraws 0", "proposal 0: written",
    )  # fmt: skip


def test_more_members_than_are_tolerated_can_do_what_they_like() -> None:
    """The bound is F, not less: the model is not blind to them."""
    here = world(BAD, board=TRIO, byzantine="bz")
    explored = explore(Rule(), here)
    assert explored.applied == {0}
    assert explore(Rule(), replace(here, byzantine=frozenset("z"))).applied == set()
