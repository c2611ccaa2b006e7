"""Counting the decisions of a policy board: tables of boards, choices and what they come to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.simulators.board_members import board, ed25519_decider, member, p256_decider, p384_decider

from ostiary.board import Choice, Outcome, Quorum, Voter, check_caution, compiled_rule, count, quorum_of
from ostiary.errors import ConflictError
from ostiary.session.model import BoardMember, RuleSubject, SignerSubject, Subject, Variable
from ostiary.session.placeholder import Placeholder

ANN, BEN, CAT, DAN, EVE = b"A", b"B", b"C", b"D", b"E"
CHOICES = {"+": Choice.APPROVE, "o": Choice.WITHDRAW, "-": Choice.REJECT}
WEEK = timedelta(days=7)
VARIABLE = Variable(placeholder=Placeholder(name="v"))


def voters(text: str) -> tuple[Voter, ...]:
    """`A` votes, `A+` may approve alone, `A-` may reject alone, `A+-` both."""
    return tuple(Voter(key=word[:1].encode(), may_approve="+" in word, may_reject="-" in word) for word in text.split())


def made(text: str) -> dict[bytes, Choice]:
    """`A+` approved, `Ao` withdrew, `A-` rejected."""
    return {word[:1].encode(): CHOICES[word[1]] for word in text.split()}


def decide(who: str, needed: int, choices: str, *, break_glass: int | None = None, breaking: bool = False) -> str:
    quorum = Quorum(needed=needed, voters=voters(who), break_glass=break_glass)
    return count(quorum, made(choices), break_glass=breaking).value


@pytest.mark.parametrize(("who", "needed", "choices"), [
    ("A B C", 2, "A+ B+"),
    ("A B C", 2, "A+ B+ C-"),
    ("A B C", 1, "C+"),
    ("A B C", 3, "A+ B+ C+"),
    ("A+ B C", 2, "A+"),
    ("A+ B C", 2, "A+ B- C-"),
    ("A+ B C", 2, "B+ C+ A-"),
    ("A- B C", 2, "B+ C+"),
    ("A- B C", 2, "B+ C+ Ao"),
    ("A+- B C", 2, "A+"),
    ("A B C", 2, "A+ B+ E-"),
])  # fmt: skip
def test_approved_by_enough_or_by_one_who_may_alone(who: str, needed: int, choices: str) -> None:
    assert decide(who, needed, choices) == "approved"


@pytest.mark.parametrize(("who", "needed", "choices"), [
    ("A- B C", 2, "A-"),
    ("A- B C", 2, "A- B+ C+"),
    ("A- B+ C", 2, "A- B+"),
    ("A- B C D", 2, "B+ C+ D+ A-"),
    ("A+- B C", 2, "A- B+ C+"),
    ("A B C", 2, "A- B-"),
    ("A B C", 2, "Ao B-"),
    ("A B C", 2, "Ao Bo C+"),
    ("A+ B C", 2, "Ao B-"),
    ("A", 1, "A-"),
    ("A", 2, ""),
    ("", 1, ""),
    ("", 1, "A+ B+ C+"),
], ids=str)  # fmt: skip
def test_rejected_by_one_who_may_alone_or_when_approval_is_out_of_reach(who: str, needed: int, choices: str) -> None:
    """A veto beats everybody, those who may approve alone included."""
    assert decide(who, needed, choices) == "rejected"


@pytest.mark.parametrize(("who", "needed", "choices"), [
    ("A B C", 2, ""),
    ("A B C", 2, "A+"),
    ("A B C", 2, "A+ B-"),
    ("A B C", 2, "A+ Bo"),
    ("A B C", 2, "A+ D+ E+"),
    ("A- B C", 2, "B+"),
    ("A B- C", 2, "A-"),
    ("A+ B C", 2, "B- C-"),
    ("A+ B C", 2, "Bo Co"),
])  # fmt: skip
def test_undecided_while_approval_is_in_reach(who: str, needed: int, choices: str) -> None:
    """The keys of nobody on the board count for nothing; one who may approve alone still can until it decided."""
    assert decide(who, needed, choices) == "undecided"


@pytest.mark.parametrize(("who", "choices", "expected"), [
    ("A B C D", "A+ B+ C+", "approved"),
    ("A- B C D", "A- B+ C+ D+", "approved"),
    ("A B C D", "A+ B+", "undecided"),
    ("A+ B C D", "A+", "undecided"),
    ("A+ B C D", "A+ B+ Co", "undecided"),
    ("A- B C D", "A-", "undecided"),
    ("A B C D", "A- Bo", "rejected"),
    ("A+ B C D", "Bo C-", "rejected"),
    ("A+ B C", "A-", "rejected"),
    ("A B", "A+ B+", "rejected"),
])  # fmt: skip
def test_breaking_the_glass_takes_its_own_number_and_nobody_decides_it_alone(
    who: str, choices: str, expected: str
) -> None:
    assert decide(who, 2, choices, break_glass=3, breaking=True) == expected


@pytest.mark.parametrize("choices", ["", "A+", "A+ B+ C+"])
def test_a_board_that_names_no_such_number_cannot_break_the_glass(choices: str) -> None:
    assert decide("A+ B C", 2, choices, breaking=True) == "rejected"


def test_the_larger_quorum_alone_does_not_make_a_proposal_break_the_glass() -> None:
    """An ordinary proposal stays under the veto, however many approve."""
    assert decide("A- B C D", 2, "A- B+ C+ D+", break_glass=3) == "rejected"


@pytest.mark.parametrize(("before", "after"), [
    (None, Choice.APPROVE), (None, Choice.WITHDRAW), (None, Choice.REJECT),
    (Choice.APPROVE, Choice.APPROVE), (Choice.APPROVE, Choice.WITHDRAW), (Choice.APPROVE, Choice.REJECT),
    (Choice.WITHDRAW, Choice.WITHDRAW), (Choice.WITHDRAW, Choice.REJECT), (Choice.REJECT, Choice.REJECT),
])  # fmt: skip
def test_a_member_may_become_more_cautious(before: Choice | None, after: Choice) -> None:
    check_caution(before, after)


@pytest.mark.parametrize(("before", "after"), [
    (Choice.WITHDRAW, Choice.APPROVE), (Choice.REJECT, Choice.APPROVE), (Choice.REJECT, Choice.WITHDRAW),
])  # fmt: skip
def test_a_member_cannot_become_less_cautious(before: Choice, after: Choice) -> None:
    """An approval that was signed before, and withdrawn, counts for nothing when somebody sends it again."""
    with pytest.raises(ConflictError, match=f"decided '{before.value}' and cannot go back to '{after.value}'") as error:
        check_caution(before, after)
    assert "make a new proposal" in str(error.value)


# --- boards ----------------------------------------------------------------------------------------------------------


def test_the_quorum_of_a_board_is_one_more_than_the_faults_it_tolerates() -> None:
    found = quorum_of(
        board(1, member(ANN), member(BEN, power="reject"), member(CAT, power="approve"), break_glass=3, time_lock=WEEK)
    )
    assert found == Quorum(needed=2, voters=voters("A B- C+"), break_glass=3)


def test_a_member_whose_key_is_not_known_is_nobody_and_makes_the_quorum_no_smaller() -> None:
    unknown = BoardMember(name="checker", signer=VARIABLE, may_approve=True)
    found = quorum_of(board(1, member(ANN), unknown))
    assert (found.needed, found.voters) == (2, voters("A"))
    assert count(found, made("A+"), break_glass=False) is Outcome.REJECTED


@pytest.mark.parametrize(("first", "second", "expected"), [
    ("vote", "vote", "A"), ("approve", "vote", "A"), ("vote", "approve", "A"), ("approve", "approve", "A+"),
    ("reject", "vote", "A-"), ("vote", "reject", "A-"), ("approve reject", "approve", "A+-"),
])  # fmt: skip
def test_one_key_under_two_names_is_one_voter_with_the_more_cautious_of_their_powers(
    first: str, second: str, expected: str
) -> None:
    """Two variables may come to say the same key, which no parser can see."""
    found = quorum_of(board(1, member(ANN, name="a", power=first), member(ANN, name="b", power=second)))
    assert found.voters == voters(expected)
    assert count(found, {}, break_glass=False) is not Outcome.APPROVED


@pytest.mark.parametrize(("changes", "expected"), [
    ({"needed": 0}, "0 approvals would be enough"),
    ({"needed": -1}, "expected at least 1"),
    ({"needed": 2, "break_glass": 2}, "expected more than 2"),
    ({"voters": voters("A A-")}, "one key is two voters"),
])  # fmt: skip
def test_a_quorum_that_could_not_hold_is_not_made(changes: dict[str, int], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Quorum(**{"needed": 1, "voters": (), **changes})  # type: ignore[arg-type]


# --- signed sessions -------------------------------------------------------------------------------------------------

ED1, ED2, NIST384, NIST256 = (
    one.spki for one in (ed25519_decider(), ed25519_decider(), p384_decider(), p256_decider())
)


def subjects(*keys: bytes) -> tuple[Subject, ...]:
    return tuple(SignerSubject(spki=key) for key in keys)


def test_signatures_of_enough_members_stand_in_for_their_decisions() -> None:
    found = compiled_rule(board(1, member(ED1), member(ED2), member(NIST384)))
    assert found == (RuleSubject(needed=2, subjects=subjects(ED1, ED2, NIST384)),)


def test_so_does_the_signature_of_one_who_may_approve_alone() -> None:
    found = compiled_rule(board(1, member(ED1, power="approve"), member(ED2)))
    assert found == (*subjects(ED1), RuleSubject(needed=2, subjects=subjects(ED1, ED2)))


def test_members_that_cannot_sign_sessions_are_left_out() -> None:
    """A P-256 key decides on the board and signs no session; an unknown one does neither."""
    unknown = BoardMember(name="x", signer=VARIABLE)
    found = compiled_rule(board(1, member(NIST256, power="approve"), member(ED1), unknown, member(ED2)))
    assert found == (RuleSubject(needed=2, subjects=subjects(ED1, ED2)),)


@pytest.mark.parametrize(("members", "others"), [
    ((member(ED1), member(ED2), member(NIST384, power="reject")), {}),
    ((member(ED1, power="approve reject"), member(ED2)), {}),
    ((member(ED1), member(ED2), BoardMember(name="x", signer=VARIABLE, may_reject=True)), {}),
    ((member(ED1), member(ED2)), {"time_lock": timedelta(seconds=1)}),
    ((member(ED1, power="approve"), member(ED2)), {"time_lock": WEEK}),
    ((member(ED1), member(NIST256)), {}),
    ((member(ED1), member(ED1, name="again")), {}),
    ((), {}),
], ids=["a veto", "a veto of an approver", "a veto of a key that is not known", "a time lock",
        "a time lock and an approver", "too few can sign sessions", "one key twice", "nobody"])  # fmt: skip
def test_nothing_passes_without_a_proposal_where_signatures_cannot_say_what_the_board_demands(
    members: tuple[BoardMember, ...], others: dict[str, timedelta]
) -> None:
    assert compiled_rule(board(1, *members, **others)) == ()
