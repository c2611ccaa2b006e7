"""Laws of policy boards: what counts, what never does, and that names and order have no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.simulators.board_members import Decider, ed25519_decider, p256_decider, p384_decider
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
    verify_decision,
)
from ostiary.errors import ConflictError, InputError, NotAuthorizedError
from ostiary.session.model import (
    AccessPolicy,
    BoardMember,
    NoneSubject,
    PolicyBoard,
    RuleSubject,
    SignerSubject,
    Subject,
    Variable,
)
from ostiary.session.placeholder import Placeholder
from ostiary.session.signed import Signature, verify_signatures

DECIDERS = (ed25519_decider(), ed25519_decider(), ed25519_decider(), p384_decider(), p384_decider(), p256_decider())
KEYS = tuple(decider.spki for decider in DECIDERS)
STRANGERS = (b"stranger 1", b"stranger 2")
UNKNOWN = Variable(placeholder=Placeholder(name="key"))
NO_LOCK = timedelta(0)

Choices = dict[bytes, Choice]

rarely = st.sampled_from([False, False, False, True])
signers = st.sampled_from([*(SignerSubject(spki=key) for key in KEYS), UNKNOWN])

someone = st.builds(BoardMember, name=st.text(max_size=3), signer=signers, may_approve=rarely, may_reject=rarely)


@st.composite
def boards(draw: st.DrawFn, *, at_once: bool = False) -> PolicyBoard:
    """Any board that the model can hold, with keys that stand there twice and keys that nobody knows."""
    members = draw(
        st.lists(
            st.builds(BoardMember, name=st.text(max_size=3), signer=signers, may_approve=rarely, may_reject=rarely),
            max_size=8,
        )
    )
    faults = draw(st.integers(0, 4))
    return PolicyBoard(
        tolerated_faults=faults,
        members=tuple(members),
        decide_within=timedelta(days=7),
        break_glass=draw(st.none() | st.integers(faults + 2, faults + 4)),
        time_lock=NO_LOCK if at_once else draw(st.sampled_from([NO_LOCK, NO_LOCK, timedelta(days=1)])),
    )


decided: st.SearchStrategy[Choices] = st.dictionaries(st.sampled_from([*KEYS, *STRANGERS]), st.sampled_from(Choice))


def approving(quorum: Quorum, choices: Mapping[bytes, Choice]) -> set[bytes]:
    return {voter.key for voter in quorum.voters} & {key for key, choice in choices.items() if choice is Choice.APPROVE}


@given(boards(), decided, st.sampled_from(KEYS), st.booleans())
def test_one_more_approval_never_takes_an_approval_away(
    board: PolicyBoard, choices: Choices, one: bytes, break_glass: bool
) -> None:
    quorum = quorum_of(board)
    if count(quorum, choices, break_glass=break_glass) is Outcome.APPROVED:
        assert count(quorum, {**choices, one: Choice.APPROVE}, break_glass=break_glass) is Outcome.APPROVED


@given(boards(), decided, st.sampled_from(KEYS), st.sampled_from([Choice.WITHDRAW, Choice.REJECT]), st.booleans())
def test_more_caution_never_makes_an_approval(
    board: PolicyBoard, choices: Choices, one: bytes, choice: Choice, break_glass: bool
) -> None:
    quorum = quorum_of(board)
    if count(quorum, choices, break_glass=break_glass) is not Outcome.APPROVED:
        assert count(quorum, {**choices, one: choice}, break_glass=break_glass) is not Outcome.APPROVED


@given(boards(), decided)
def test_as_many_approvals_as_faults_are_tolerated_are_never_enough(board: PolicyBoard, choices: Choices) -> None:
    """Unless one of them may approve alone. Whatever else the others say, and whoever stands there twice."""
    quorum = quorum_of(board)
    found = approving(quorum, choices)
    alone = any(voter.may_approve for voter in quorum.voters if voter.key in found)
    if len(found) <= board.tolerated_faults and not alone:
        assert count(quorum, choices, break_glass=False) is not Outcome.APPROVED


@given(boards(), decided)
def test_breaking_the_glass_always_takes_its_own_number(board: PolicyBoard, choices: Choices) -> None:
    quorum = quorum_of(board)
    enough = board.break_glass is not None and len(approving(quorum, choices)) >= board.break_glass
    assert (count(quorum, choices, break_glass=True) is Outcome.APPROVED) == enough


@given(boards(), decided, st.data())
def test_nothing_is_approved_against_a_veto(board: PolicyBoard, choices: Choices, data: st.DataObject) -> None:
    quorum = quorum_of(board)
    may_reject = [voter.key for voter in quorum.voters if voter.may_reject]
    assume(may_reject)
    rejected = {**choices, data.draw(st.sampled_from(may_reject)): Choice.REJECT}
    assert count(quorum, rejected, break_glass=False) is Outcome.REJECTED


@given(boards(), decided)
def test_nothing_is_approved_while_somebody_with_a_veto_cannot_be_heard(board: PolicyBoard, choices: Choices) -> None:
    """Or whoever cuts a key off, as the operator of the network can, silences its veto."""
    unheard = replace(board, members=(*board.members, BoardMember(name="veto", signer=UNKNOWN, may_reject=True)))
    assert count(quorum_of(unheard), choices, break_glass=False) is not Outcome.APPROVED
    glass = (count(quorum_of(one), choices, break_glass=True) for one in (board, unheard))
    assert next(glass) is next(glass)


@given(boards(), decided, decided, st.booleans())
def test_what_is_rejected_stays_so_whatever_members_may_still_do(
    board: PolicyBoard, choices: Choices, later: Choices, break_glass: bool
) -> None:
    """So it can be closed. And what is undecided is not hopeless: it is approved when all who are left approve, and
    whoever has a veto can be heard."""
    quorum = quorum_of(board)
    outcome = count(quorum, choices, break_glass=break_glass)
    for key, choice in later.items():
        try:
            check_caution(choices.get(key), choice)
        except ConflictError:
            continue
        choices = {**choices, key: choice}
        if outcome is Outcome.REJECTED:
            assert count(quorum, choices, break_glass=break_glass) is not Outcome.APPROVED
    best = {**dict.fromkeys(KEYS, Choice.APPROVE), **choices}
    hopeless = count(replace(quorum, unheard_veto=False), best, break_glass=break_glass) is not Outcome.APPROVED
    assert (count(quorum, choices, break_glass=break_glass) is Outcome.REJECTED) == hopeless


@given(boards(), decided, st.randoms(), st.booleans())
def test_neither_names_nor_order_nor_strangers_matter(
    board: PolicyBoard, choices: Choices, random: Random, break_glass: bool
) -> None:
    members = [replace(member, name=f"member {random.random()}") for member in board.members]
    random.shuffle(members)
    order = [(key, choice) for key, choice in choices.items() if key not in STRANGERS]
    random.shuffle(order)
    other = replace(board, members=tuple(members))
    expected = count(quorum_of(board), choices, break_glass=break_glass)
    assert count(quorum_of(other), dict(order), break_glass=break_glass) is expected


@given(boards(), decided, st.permutations(KEYS), st.booleans())
def test_nobody_is_another_than_their_powers(
    board: PolicyBoard, choices: Choices, keys: list[bytes], break_glass: bool
) -> None:
    """Every member with the key of another, and their decisions with them: nothing changes."""
    other = dict(zip(KEYS, keys, strict=True))
    quorum = quorum_of(board)
    swapped = replace(quorum, voters=tuple(replace(voter, key=other[voter.key]) for voter in quorum.voters))
    decisions = {other.get(key, key): choice for key, choice in choices.items()}
    expected = count(quorum, choices, break_glass=break_glass)
    assert count(swapped, decisions, break_glass=break_glass) is expected


@given(boards(), decided, st.data(), st.booleans())
def test_a_member_whose_key_is_lost_and_a_second_name_for_a_key_make_no_approval(
    board: PolicyBoard, choices: Choices, data: st.DataObject, break_glass: bool
) -> None:
    """Whatever powers the second name brings, and the first had: a veto that cannot be cast stops all."""
    assume(board.members)
    at = data.draw(st.integers(0, len(board.members) - 1))
    member = board.members[at]
    second = replace(member, name="second", may_approve=data.draw(st.booleans()), may_reject=data.draw(st.booleans()))
    lost = tuple(replace(one, signer=UNKNOWN) if one.signer == member.signer else one for one in board.members)
    if count(quorum_of(board), choices, break_glass=break_glass) is not Outcome.APPROVED:
        for members in ((*board.members, second), lost):
            after = count(quorum_of(replace(board, members=members)), choices, break_glass=break_glass)
            assert after is not Outcome.APPROVED


@given(boards(), decided, st.booleans())
def test_an_empty_board_approves_nothing(board: PolicyBoard, choices: Choices, break_glass: bool) -> None:
    empty = quorum_of(replace(board, members=()))
    assert count(empty, choices, break_glass=break_glass) is Outcome.REJECTED


# --- what stands in for a board --------------------------------------------------------------------------------------

DIGEST = b"h" * 32
PEOPLE = tuple(Person(key=decider.key) for decider in DECIDERS[:5])
SIGNATURES = {one: Signature(signer=one.pem, spki=one.spki, signature=one.sign(DIGEST)) for one in PEOPLE}
crowds = st.sets(st.sampled_from(PEOPLE), min_size=1)


def admitted(subjects: tuple[Subject, ...], people: set[Person]) -> bool:
    """Whether a session that these people signed passes by the subjects."""
    policy = AccessPolicy(read=(NoneSubject(),), update=subjects)
    signed_by = verify_signatures(DIGEST, [SIGNATURES[one] for one in people])
    try:
        authorize(Operation.UPDATE, policy, session="s", creator=None, caller=signed_by)
    except NotAuthorizedError:
        return False
    return True


@given(boards(at_once=True), crowds)
def test_signatures_pass_where_the_same_approvals_would(board: PolicyBoard, people: set[Person]) -> None:
    """The rule that a board compiles to says what counting says, where nobody may reject."""
    choices = {one.spki: Choice.APPROVE for one in people}
    counted = count(quorum_of(board), choices, break_glass=False) is Outcome.APPROVED
    veto = any(member.may_reject for member in board.members)
    assert admitted(compiled_rule(board), people) == (counted and not veto)


@given(boards(), crowds)
def test_signatures_never_pass_by_a_veto_or_a_time_lock(board: PolicyBoard, people: set[Person]) -> None:
    if board.time_lock or any(member.may_reject for member in board.members):
        assert not admitted(compiled_rule(board), people)


people_signers: st.SearchStrategy[Subject] = st.sampled_from([SignerSubject(spki=one.spki) for one in PEOPLE])
trees: st.SearchStrategy[Subject] = st.recursive(
    people_signers,
    lambda inner: st.builds(
        lambda needed, subjects: RuleSubject(needed=needed, subjects=tuple(subjects)),
        st.integers(1, 4),
        st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=12,
)


@given(boards(at_once=True), trees, st.booleans(), crowds)
def test_a_tree_that_demands_the_board_is_never_satisfied_without_it(
    board: PolicyBoard, tree: Subject, board_first: bool, people: set[Person]
) -> None:
    """Wherever the board's rule stands in a `require-all`, at most F of its members are not enough."""
    rule = compiled_rule(replace(board, members=tuple(replace(one, may_approve=False) for one in board.members)))
    assume(rule)
    parts = (*rule, tree) if board_first else (tree, *rule)
    members = {one.spki for one in people} & {voter.key for voter in quorum_of(board).voters}
    if admitted((RuleSubject(needed=2, subjects=parts),), people):
        assert len(members) > board.tolerated_faults


@given(trees, crowds, st.permutations(PEOPLE))
def test_whoever_has_the_key_of_another_has_the_rights_of_another(
    tree: Subject, people: set[Person], order: list[Person]
) -> None:
    other = dict(zip(PEOPLE, order, strict=True))
    keys = {one.spki: two.spki for one, two in other.items()}
    assert admitted((_renamed(tree, keys),), {other[one] for one in people}) == admitted((tree,), people)


def _renamed(tree: Subject, keys: Mapping[bytes, bytes]) -> Subject:
    if isinstance(tree, RuleSubject):
        return replace(tree, subjects=tuple(_renamed(part, keys) for part in tree.subjects))
    assert isinstance(tree, SignerSubject)
    return SignerSubject(spki=keys[tree.spki])


@given(trees, crowds, st.randoms())
def test_the_order_of_a_rule_means_nothing(tree: Subject, people: set[Person], random: Random) -> None:
    assert admitted((_shuffled(tree, random),), people) == admitted((tree,), people)


def _shuffled(tree: Subject, random: Random) -> Subject:
    if not isinstance(tree, RuleSubject):
        return tree
    parts = [_shuffled(part, random) for part in tree.subjects]
    random.shuffle(parts)
    return replace(tree, subjects=tuple(parts))


# --- decisions -------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ['"', "\\", "\n", 'x"\nreason "y', "\nnote ", "\u2028", "😀"]
)
digests = st.sampled_from([b"a" * 32, b"b" * 32])
facts = st.builds(
    ProposalFacts,
    cas=digests,
    session=st.sampled_from(["s", "s2", "n/s", "/"]),
    predecessor=st.none() | digests,
    session_hash=digests,
    break_glass=st.booleans(),
    created=st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda time: time.replace(microsecond=0)
    ),
    note=texts,
    nonce=st.sampled_from([b"1" * 16, b"2" * 16]),
)
choices_made = st.sampled_from(Choice)
CHANGES: dict[str, st.SearchStrategy[object]] = {
    "cas": st.binary(min_size=32, max_size=32),
    "session": st.from_regex(r"[A-Za-z0-9_.~-]{1,20}", fullmatch=True),
    "predecessor": st.none() | st.binary(min_size=32, max_size=32),
    "session_hash": st.binary(min_size=32, max_size=32),
    "break_glass": st.booleans(),
    "created": st.integers(0, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    "note": texts,
    "nonce": st.binary(min_size=16, max_size=16),
}


@given(facts, choices_made, texts, facts, choices_made, texts)
def test_two_decisions_are_one_text_only_if_they_are_one(
    first: ProposalFacts, choice: Choice, reason: str, second: ProposalFacts, other: Choice, another: str
) -> None:
    same = (first, choice, reason) == (second, other, another)
    assert (decision_message(first, choice, reason) == decision_message(second, other, another)) == same
    assert (first.text() == second.text()) == (first == second)


@given(facts, choices_made, texts)
def test_a_message_has_its_lines_and_no_others(proposal: ProposalFacts, choice: Choice, reason: str) -> None:
    """Nothing that a person writes can look like a line: a reader of the text reads what was signed."""
    message, text = decision_message(proposal, choice, reason), proposal.text()
    assert [line.split(b" ")[0] for line in message.splitlines()[1:]] == [
        b"cas", b"session", b"proposal", b"break-glass", b"decision", b"reason",
    ]  # fmt: skip
    assert [line.split(b" ")[0] for line in text.splitlines()[1:]] == [
        b"cas", b"session", b"predecessor", b"session-hash", b"break-glass", b"created", b"nonce", b"note",
    ]  # fmt: skip
    assert message.isascii()
    assert text.isascii()


@pytest.mark.parametrize("decider", [DECIDERS[0], DECIDERS[3], DECIDERS[5]], ids=["Ed25519", "P-384", "P-256"])
@given(facts, choices_made, texts, st.data())
def test_a_decision_holds_for_its_proposal_and_choice_and_reason_alone(
    decider: Decider, proposal: ProposalFacts, choice: Choice, reason: str, data: st.DataObject
) -> None:
    signature = decider.decide(proposal, choice.value, reason)
    verified = verify_decision(proposal, signer=decider.spki, choice=choice, reason=reason, signature=signature)
    assert (verified.proposal, verified.key, verified.choice) == (proposal.proposal_hash(), decider.spki, choice)
    fact = data.draw(st.sampled_from(list(CHANGES)))
    changed = replace(proposal, **{fact: data.draw(CHANGES[fact])})  # type: ignore[arg-type]
    others = [
        (changed, choice, reason),
        (proposal, data.draw(choices_made), reason),
        (proposal, choice, data.draw(texts)),
    ]
    for claim in others:
        if claim == (proposal, choice, reason):
            continue
        with pytest.raises(InputError, match="does not hold"):
            verify_decision(claim[0], signer=decider.spki, choice=claim[1], reason=claim[2], signature=signature)


@given(facts, choices_made, texts, st.binary(max_size=200) | st.sampled_from(KEYS), st.binary(max_size=130))
def test_no_bytes_raise_anything_undocumented(
    proposal: ProposalFacts, choice: Choice, reason: str, signer: bytes, signature: bytes
) -> None:
    with pytest.raises(InputError):
        verify_decision(proposal, signer=signer, choice=choice, reason=reason, signature=signature)
