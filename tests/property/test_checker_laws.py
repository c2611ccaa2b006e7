"""Ready rules over sessions of many shapes: what they are for is stopped, whatever else the session says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ostiary.checker.expression import Expression, Result, judge
from ostiary.checker.material import compared
from ostiary.checker.rules import ready_rules
from ostiary.session import ParsedSession, parse_session

LISTED, OTHER = "a1" * 32, "b2" * 32
DEBUG = ("debug-mode", "software-platform")
TOLERATE = ("hyperthreading", "outdated-tcb", "insecure-igpu", "software-hardening-needed")

services: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        {"attestation": st.lists(st.just({"mrenclave": [LISTED]}), min_size=1, max_size=2)},
        optional={"command": st.sampled_from(["app", "app --key $$SCONE::k0$$"]), "environment": st.just({"A": "b"})},
    ),
    max_size=3,
)
secrets: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.sampled_from([{"kind": "ascii"}, {"kind": "private-key"}, {"kind": "binary", "export_public": True}]),
    min_size=1,
    max_size=3,
)
tolerated = st.lists(st.sampled_from(TOLERATE), unique=True, max_size=3)
read = st.sampled_from(["CREATOR", "NONE", "ANY"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A session without debug mode, of listed programs, that exports no private key to everyone."""
    return {
        "name": "app",
        "version": "0.3.12",
        "services": [{"name": f"s{at}", **one} for at, one in enumerate(draw(services))],
        "secrets": [{"name": f"k{at}", **one} for at, one in enumerate(draw(secrets))],
        "security": {"attestation": {"tolerate": draw(tolerated)}},
        "access_policy": {"read": [draw(read)], "update": ["CREATOR"]},
    }


def parsed(document: Mapping[str, Any]) -> ParsedSession:
    return parse_session(json.dumps(document))


def results(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Result]:
    rules = ready_rules().values()
    expressions = [
        Expression(name=rule.name, must=rule.must, listed=(LISTED,) if rule.takes_list else None) for rule in rules
    ]
    variables = compared(None if before is None else parsed(before), parsed(after))
    return {one.name: one.result for one in judge(expressions, {**variables, "proposal": {}})}


Document = dict[str, Any]
before: st.SearchStrategy[Document | None] = st.none() | documents()


@given(before=before, after=documents())
def test_absolute_rules_hold_for_sessions_made_to_keep_them(before: Document | None, after: Document) -> None:
    found = results(before, after)
    for name in ("no-debug-mode", "evidence-required", "only-listed-measurements", "no-public-private-keys"):
        assert found[name] is Result.HOLDS


@given(document=documents())
def test_a_session_that_stays_as_it_is_keeps_all_rules(document: Document) -> None:
    assert set(results(document, document).values()) == {Result.HOLDS}


@given(
    before=before, after=documents(), at=st.integers(0, 3), word=st.sampled_from(["debug-mode", "software-platform"])
)
def test_debug_mode_is_stopped_wherever_it_stands(before: Document | None, after: Document, at: int, word: str) -> None:
    after["security"]["attestation"]["tolerate"].insert(at, word)
    found = results(before, after)
    assert found["no-debug-mode"] is Result.FAILS
    assert found["tcb-not-weakened"] is Result.FAILS


@given(before=before, after=documents(), at=st.integers(0, 3))
def test_a_program_that_is_not_listed_is_stopped_wherever_it_stands(
    before: Document | None, after: Document, at: int
) -> None:
    after["services"].insert(at, {"name": "more", "attestation": [{"mrenclave": [LISTED, OTHER]}]})
    assert results(before, after)["only-listed-measurements"] is Result.FAILS


@given(before=before, after=documents())
def test_without_evidence_no_program_is_listed_and_none_is_asked(before: Document | None, after: Document) -> None:
    after["services"].append({"name": "more", "attestation": [{"mrenclave": [LISTED]}]})
    after["security"]["attestation"] = {"mode": "none"}
    found = results(before, after)
    for name in ("no-debug-mode", "evidence-required", "only-listed-measurements", "tcb-not-weakened"):
        assert found[name] is Result.FAILS


@given(before=before, after=documents(), at=st.integers(0, 3), kind=st.sampled_from(["private-key", "pgp-key"]))
def test_a_private_key_for_everyone_is_stopped_and_the_public_half_of_an_openpgp_key_is_not(
    before: Document | None, after: Document, at: int, kind: str
) -> None:
    after["secrets"].insert(at, {"name": "more", "kind": kind, "export_public": True})
    expected = Result.FAILS if kind == "private-key" else Result.HOLDS
    assert results(before, after)["no-public-private-keys"] is expected


@given(before=documents(), after=documents())
def test_reading_may_get_narrower_and_not_wider(before: Document, after: Document) -> None:
    width = {"NONE": 0, "CREATOR": 1, "ANY": 2}
    wider = width[after["access_policy"]["read"][0]] > width[before["access_policy"]["read"][0]]
    assert results(before, after)["no-wider-read"] is (Result.FAILS if wider else Result.HOLDS)


@given(before=documents(), after=documents())
def test_what_is_tolerated_of_a_platform_may_get_less_and_not_more(before: Document, after: Document) -> None:
    old, new = (set(one["security"]["attestation"]["tolerate"]) for one in (before, after))
    assert results(before, after)["tcb-not-weakened"] is (Result.HOLDS if new <= old else Result.FAILS)
