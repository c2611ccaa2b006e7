"""The facts of a proposal whose texts nobody can read: enough to reject it, for this proposal alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.board import ANN, BEN, boarded
from tests.simulators.proposals import CAS_ID, Json, member, showing

from ostiary.board.shown import verify_facts
from ostiary.errors import OutsideError, SwappedError

CAS = bytes.fromhex(CAS_ID)


def answer() -> Json:
    return showing(boarded("app"), members=[member("ann", ANN, board="own"), member("ben", BEN, board="own")])


def test_the_facts_are_those_that_the_id_covers_whatever_the_texts() -> None:
    shown = {**answer(), "session_text": "of: the future", "before_text": 1, "members": None}
    facts = verify_facts(shown, asked=shown["proposal"], cas=CAS)
    assert (facts.proposal_hash().hex(), facts.session) == (shown["proposal"], "app")


@pytest.mark.parametrize(
    "changed",
    [
        {"hash": "ab" * 32},
        {"note": "another"},
        {"nonce": "ab" * 16},
        {"session": "other"},
        {"break_glass": True},
        {"predecessor": "ab" * 32},
        {"created": "2026-11-23T12:00:01Z"},
    ],
)
def test_facts_that_are_not_those_of_the_id_are_refused(changed: Json) -> None:
    shown = answer()
    with pytest.raises(SwappedError, match="what is shown is not what its id says"):
        verify_facts({**shown, **changed}, asked=shown["proposal"], cas=CAS)


def test_facts_of_another_cas_are_refused() -> None:
    shown = answer()
    with pytest.raises(SwappedError, match="of another CAS"):
        verify_facts(shown, asked=shown["proposal"], cas=bytes(32))


@given(name=st.sampled_from(sorted(answer())), value=st.none() | st.integers() | st.text(max_size=5))
def test_no_answer_raises_anything_else(name: str, value: object) -> None:
    shown = answer()
    try:
        facts = verify_facts({**shown, name: value}, asked=shown["proposal"], cas=CAS)
    except OutsideError:
        return
    assert facts.proposal_hash().hex() == shown["proposal"]
