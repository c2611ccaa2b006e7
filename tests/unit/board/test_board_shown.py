"""A proposal as a service shows it: what holds together is believed, and nothing that was swapped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.board import ANN, BEN, CEM, DAN, THREE, Board, boarded
from tests.simulators.proposals import CAS_ID, Json, decided, follows, member, showing

from ostiary.board import Choice, RiskKind
from ostiary.board.proposal import State
from ostiary.board.shown import Member, Seat, Summary, key_hash, read_summary, verify_shown
from ostiary.errors import OutsideError, SwappedError
from ostiary.session import parse_session

MADE = {"choice": "approve", "reason": "", "at": "2026-11-23T12:30:00Z"}
CAS = bytes.fromhex(CAS_ID)
BEFORE = boarded("s", read="CREATOR")
AFTER = follows(boarded("s"), BEFORE)
MEMBERS = [member("ann", ANN), member("ben", BEN), member("cem", CEM)]


def answer(**changed: Any) -> Json:
    return showing(AFTER, BEFORE, members=changed.pop("members", MEMBERS), **changed)


def test_what_a_proposal_means_is_worked_out_from_its_texts_alone() -> None:
    """Whatever the service says of differences and risks."""
    shown = answer(differences=[{"effect": "narrower", "path": "", "meaning": "all is well"}], note="ok?")
    proposal = verify_shown(shown, asked=shown["proposal"], cas=CAS)
    assert (proposal.id, proposal.facts.note) == (shown["proposal"], "ok?")
    assert [str(one) for one in proposal.differences] == ["wider: widens read from CREATOR to ANY"]
    assert [one.kind for one in proposal.risks] == [RiskKind.WIDENS_READ]
    assert proposal.after.hash.hex() == shown["hash"]
    assert proposal.before is not None
    assert proposal.board == proposal.before.session.policy_board
    assert proposal.members_with(BEN.spki) == (proposal.members[1],)
    assert proposal.members_with(DAN.spki) == ()


def test_a_first_version_is_decided_by_the_board_that_it_names() -> None:
    members = [{**one, "board": "own"} for one in MEMBERS]
    shown = showing(boarded("s"), members=members)
    proposal = verify_shown(shown, asked=shown["proposal"], cas=CAS)
    assert (proposal.before, proposal.facts.predecessor) == (None, None)
    assert proposal.board == proposal.after.session.policy_board
    assert {one.seat for one in proposal.members} == {Seat.OWN}
    assert RiskKind.WIDENS_READ in {one.kind for one in proposal.risks}


def test_a_board_that_takes_over_is_asked_and_one_that_stays_is_not() -> None:
    before = boarded("s", None)
    shown = showing(follows(boarded("s"), before), before, members=[{**one, "board": "own"} for one in MEMBERS])
    assert len(verify_shown(shown, asked=shown["proposal"], cas=CAS).members) == 3
    creates = Board(members=THREE.members, more="on: [create_sessions]")
    before = boarded("s", creates, access_policy="{read: ANY, update: ANY}")
    after = follows(boarded("s", creates, access_policy="{read: NONE, update: ANY}"), before)
    shown = showing(after, before, members=[])
    assert verify_shown(shown, asked=shown["proposal"], cas=CAS).members == ()


def test_every_name_that_a_session_may_give_a_member_is_shown() -> None:
    """Or a board with a long one could be proposed to members whose programs then cannot read, and not reject it."""
    text = boarded("s", Board(members={"a" * 512: ANN}, faults=0))
    shown = showing(text, members=[member("a" * 512, ANN, board="own")])
    assert [one.name for one in verify_shown(shown, asked=shown["proposal"], cas=CAS).members] == ["a" * 512]


def test_a_member_behind_a_variable_is_believed_and_decides_nothing_while_unknown() -> None:
    text = BEFORE.replace(f"    signer: {CEM.quoted}\n", "    signer: $$SCONE::k$$\n    power: reject\n").replace(
        "policy_board:", "secrets: [{name: k, kind: public-key, import: {session: other, secret: k}}]\npolicy_board:"
    )
    for person in (None, CEM):
        members = [*MEMBERS[:2], member("cem", person, power=("vote", "reject"))]
        shown = showing(follows(text, text), text, members=members)
        proposal = verify_shown(shown, asked=shown["proposal"], cas=CAS)
        assert len(proposal.members_with(CEM.spki)) == (person is not None)


def swapped(**changed: Any) -> tuple[Json, str]:
    """An answer some members of which were changed after its id was made."""
    honest = answer()
    return {**honest, **changed}, honest["proposal"]


OTHER = follows(boarded("s", read="NONE"), BEFORE)
SWAPS: dict[str, tuple[dict[str, Any], str]] = {
    "the text": ({"session_text": parse_session(OTHER).text}, "the proposed text has another hash than is said"),
    "text and hash": (
        {"session_text": parse_session(OTHER).text, "hash": parse_session(OTHER).hash.hex()},
        "what is shown is not what its id says",
    ),
    "the text before": ({"before_text": parse_session(AFTER).text}, "the text before has another hash than is said"),
    "no text before": ({"before_text": None}, "the text before has another hash than is said: found none, expected "),
    "the predecessor": ({"predecessor": "00" * 32}, "the proposed text follows another version than is said"),
    "no predecessor": ({"predecessor": None}, "the proposed text follows another version than is said"),
    "the session": ({"session": "t"}, "its texts are of several sessions: s, t"),
    "the note": ({"note": "harmless"}, "what is shown is not what its id says"),
    "the time": ({"created": "2026-11-23T12:00:01Z"}, "what is shown is not what its id says"),
    "break-glass": ({"break_glass": True}, "what is shown is not what its id says"),
    "the nonce": ({"nonce": "00" * 16}, "what is shown is not what its id says"),
    "the CAS": ({"cas": "cb" * 32}, "of another CAS than the one that was asked"),
    "a member away": ({"members": MEMBERS[:2]}, "found ann, ben, expected ann, ben, cem"),
    "no members": ({"members": []}, "found none, expected ann, ben, cem"),
    "a member more": ({"members": [*MEMBERS, member("dan", DAN)]}, "not those that the session names"),
    "a member twice": ({"members": [*MEMBERS, MEMBERS[0]]}, "not those that the session names"),
    "another key": ({"members": [member("ann", DAN), *MEMBERS[1:]]}, "member ann of the current board is shown with"),
    "no key": ({"members": [member("ann", None), *MEMBERS[1:]]}, "member ann of the current board is shown with"),
    "a power": ({"members": [member("ann", ANN, power=("approve",)), *MEMBERS[1:]]}, "shown with other powers"),
    "another board": ({"members": [*MEMBERS, member("dan", DAN, board="own")]}, "the members shown of the own board"),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_a_proposal_that_was_swapped_after_review_is_refused(swap: str) -> None:
    changed, says = SWAPS[swap]
    shown, asked = swapped(**changed)
    with pytest.raises(SwappedError) as caught:
        verify_shown(shown, asked=asked, cas=CAS)
    assert says in str(caught.value)


def test_a_whole_other_proposal_in_place_of_the_one_asked_for_is_refused() -> None:
    asked, other = answer(), answer(note="another")
    with pytest.raises(
        SwappedError, match=f"asked for {asked['proposal']}, and what is shown has the id {other['proposal']}"
    ):
        verify_shown(other, asked=asked["proposal"], cas=CAS)


def test_a_proposal_of_another_cas_is_refused_even_if_all_else_holds() -> None:
    shown = answer(cas="cb" * 32)
    with pytest.raises(SwappedError, match="know the CAS by its root certificate"):
        verify_shown(shown, asked=shown["proposal"], cas=CAS)


@pytest.mark.parametrize(("changed", "says"), [
    ({"state": "maybe"}, "state is 'maybe', expected one of open, approved"),
    ({"state": 1}, "state is no text"),
    ({"hash": "AB" * 32}, "hash is not hex digits in lower case"),
    ({"hash": "ab"}, "hash has 1 bytes, expected 32"),
    ({"nonce": "ab"}, "the nonce of a proposal has 1 bytes, expected 16"),
    ({"proposal": "ab"}, "proposal is no id, expected 64 hex digits"),
    ({"session": "a b"}, "which is no name of a session"),
    ({"note": "x" * 1001}, "the note has 1001 characters"),
    ({"break_glass": "no"}, "break_glass is neither true nor false"),
    ({"created": "yesterday"}, "created is no time such as"),
    ({"approvals": -1}, "approvals is no number"),
    ({"needed": True}, "needed is no number"),
    ({"members": {}}, "members is no list of at most 256 objects"),
    ({"members": [1]}, "members is no list"),
    ({"members": [{}] * 257}, "members is no list"),
    ({"members": [{**MEMBERS[0], "board": "moon"}]}, "board is 'moon', expected one of current, namespace, own"),
    ({"members": [{**MEMBERS[0], "power": ["rule"]}]}, "power is no list of vote, approve and reject"),
    ({"members": [{**MEMBERS[0], "name": "ann\x1b[2J"}]}, "the name of a member is none that a session could give it"),
    ({"members": [{**MEMBERS[0], "decision": "yes"}]}, "decision is no object"),
    ({"members": [{**MEMBERS[0], "decision": {**MADE, "choice": "hesitate"}}]},
     "choice is 'hesitate', expected approve, withdraw or reject"),
    ({"members": [{**MEMBERS[0], "decision": {**MADE, "signature": "?"}}]}, "signature is not base64"),
])  # fmt: skip
def test_what_is_no_proposal_is_refused(changed: dict[str, Any], says: str) -> None:
    shown, asked = swapped(**changed)
    with pytest.raises(OutsideError) as caught:
        verify_shown(shown, asked=asked, cas=CAS)
    assert says in str(caught.value)
    assert not isinstance(caught.value, SwappedError)


def test_a_session_that_cannot_be_read_cannot_be_signed() -> None:
    shown, asked = swapped(session_text="version: 99\n")
    with pytest.raises(OutsideError, match="session_text is not a session that this version knows"):
        verify_shown(shown, asked=asked, cas=CAS)


def test_decisions_and_states_are_read() -> None:
    members = [decided(MEMBERS[0], ANN, "approve", "fine"), *MEMBERS[1:]]
    shown = answer(members=members, state="approved", approvals=2, apply_after="2026-11-24T12:00:00Z", proposer=None)
    proposal = verify_shown(shown, asked=shown["proposal"], cas=CAS)
    made = proposal.members[0].decided
    assert made is not None
    assert (made.choice, made.reason, made.at) == (Choice.APPROVE, "fine", datetime(2026, 11, 23, 12, 30, tzinfo=UTC))
    assert proposal.summary.apply_after == datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert (proposal.summary.proposer, proposal.summary.state) == (None, State.APPROVED)
    assert {state for state in State if not state.is_pending} == {
        State.APPLIED, State.REJECTED, State.EXPIRED, State.SUPERSEDED,
    }  # fmt: skip


def deciding(*members: Json, **changed: Any) -> Json:
    return answer(members=[*members, *MEMBERS[len(members) :]], **changed)


@pytest.mark.parametrize(("shown", "says"), [
    (deciding(decided(MEMBERS[0], BEN, "approve")), "member ann is shown to have decided to approve, and did not sign"),
    (deciding(MEMBERS[0], decided(MEMBERS[1], DAN, "reject")), "member ben is shown to have decided to reject"),
])  # fmt: skip
def test_a_decision_that_its_member_did_not_make_is_refused(shown: Json, says: str) -> None:
    with pytest.raises(SwappedError, match=says):
        verify_shown(shown, asked=shown["proposal"], cas=CAS)


@pytest.mark.parametrize("changed", [{"choice": "reject"}, {"reason": "not mine"}])
def test_a_decision_of_another_choice_or_reason_than_was_signed_is_refused(changed: Json) -> None:
    shown = deciding(decided(MEMBERS[0], ANN, "approve", "mine"))
    made = {**shown["members"][0]["decision"], **changed}
    swapped_members = [{**MEMBERS[0], "decision": made}, *MEMBERS[1:]]
    with pytest.raises(SwappedError, match="did not sign that"):
        verify_shown({**shown, "members": swapped_members}, asked=shown["proposal"], cas=CAS)


def test_a_decision_about_another_proposal_is_refused() -> None:
    """As by a service that shows an old approval of a member under a new proposal."""
    old = deciding(decided(MEMBERS[0], ANN, "approve"))
    new = {**answer(note="new"), "members": old["members"]}
    with pytest.raises(SwappedError, match="did not sign that"):
        verify_shown(new, asked=new["proposal"], cas=CAS)


def test_nobody_else_makes_a_proposal() -> None:
    shown = answer()
    proposal = verify_shown(shown, asked=shown["proposal"], cas=CAS)
    with pytest.raises(TypeError, match=r"made by verify_shown\(\)"):
        replace(proposal, risks=(), made_by=object())


def test_a_member_whose_key_is_unknown_has_no_key() -> None:
    one = Member(seat=Seat.OWN, name="x", key=None, may_approve=False, may_reject=False, decided=None)
    assert not one.has_key(ANN.spki)
    assert replace(one, key=key_hash(ANN.spki)).has_key(ANN.spki)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda one: st.lists(one, max_size=2)
)


@given(st.dictionaries(st.sampled_from(sorted(answer())), _JSON, max_size=4))
def test_no_answer_raises_anything_but_our_errors(changed: Json) -> None:
    shown, asked = swapped(**changed)
    try:
        proposal = verify_shown(shown, asked=asked, cas=CAS)
    except OutsideError:
        return
    assert proposal.facts.proposal_hash().hex() == asked
    assert isinstance(read_summary(shown), Summary)
