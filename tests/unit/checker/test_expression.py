"""CEL: what compiles, and what comes of it. Half of these expect that a rule does not hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.checker.expression import (
    MAX_EXPRESSION_CHARACTERS,
    Expression,
    Judged,
    Plain,
    Result,
    check_expression,
    judge,
)
from ostiary.errors import InputError

EMPTY: dict[str, Plain] = {
    "old": None,
    "new": {"name": "app", "secret": "hunter2", "number": 999_999_999_999_999_999, "list": ["a"]},
    "diff": [{"effect": "wider", "path": "access_policy.read", "meaning": "…"}],
    "risks": [],
    "proposal": {"note": "because", "break_glass": False, "created": "2026-11-23T12:00:00Z"},
    "admitted": [],
    "variables": [],
}


def judged(must: str, listed: tuple[str, ...] | None = None) -> Judged:
    [one] = judge([Expression(name="rule", must=must, listed=listed)], EMPTY)
    return one


@pytest.mark.parametrize(
    "must",
    [
        "true",
        "old == null",
        'new.name == "app"',
        "new.number == 999999999999999999",
        "!has(new.services)",
        'diff.all(d, d.effect != "narrower")',
        "risks.size() == 0",
        'proposal.note != "" && !proposal.break_glass',
        'timestamp(proposal.created) > timestamp("2026-01-01T00:00:00Z")',
        'new.name.matches("^a+p+$")',
    ],
)
def test_an_expression_that_gives_true_holds(must: str) -> None:
    assert judged(must).result is Result.HOLDS


@pytest.mark.parametrize("must", ["false", "old != null", "diff.size() == 0", "new.number == 1", '"b" in new.list'])
def test_an_expression_that_gives_false_fails(must: str) -> None:
    assert judged(must).result is Result.FAILS


@pytest.mark.parametrize(
    ("must", "why"),
    [
        ("new.services.size() == 0", "it could not be evaluated (NOT_FOUND)"),
        ('diff.all(d, d.efect == "wider")', "it could not be evaluated (NOT_FOUND)"),
        ("int(new.secret) == 1", "it could not be evaluated (INVALID_ARGUMENT)"),
        ("has(new.secret.deeper)", "it could not be evaluated (INVALID_ARGUMENT)"),
        ("1 / 0 == 1", "it could not be evaluated (INVALID_ARGUMENT)"),
        ("new.name", "it gave STRING, expected a boolean"),
        ("old", "it gave NULL, expected a boolean"),
        ("nwe.name == 1", "the expression does not compile"),
        ("", "the expression does not compile"),
    ],
)
def test_an_expression_that_gives_no_boolean_has_no_result(must: str, why: str) -> None:
    assert (judged(must).result, judged(must).why) == (Result.NO_RESULT, why)


def test_why_a_rule_has_no_result_holds_no_piece_of_the_session() -> None:
    one = judged("{'a': 1}[new.secret] == 1")
    assert one.result is Result.NO_RESULT
    assert "hunter2" not in one.why
    assert "hunter2" in one.detail


def test_the_iterations_of_one_evaluation_are_bounded() -> None:
    """What the library promises, and what a newer one must go on promising."""
    data: dict[str, Plain] = {**EMPTY, "new": list(range(1000))}
    [one] = judge([Expression(name="rule", must="new.all(x, new.all(y, x + y >= 0))")], data)
    assert one.result is Result.NO_RESULT
    assert "Iteration budget exceeded" in one.detail


def test_nesting_is_bounded() -> None:
    with pytest.raises(InputError, match="recursion limit exceeded"):
        check_expression("(" * 1000 + "true" + ")" * 1000, listed=False)


def test_one_expression_changes_nothing_for_the_next() -> None:
    rules = [Expression(name=name, must=must) for name, must in (("a", "new.x"), ("b", "true"), ("c", "false"))]
    assert [one.result for one in judge(rules, EMPTY)] == [Result.NO_RESULT, Result.HOLDS, Result.FAILS]


def test_listed_is_there_for_rules_with_a_list_only() -> None:
    assert judged('"ab" in listed', listed=("ab",)).result is Result.HOLDS
    assert judged('"ab" in listed', listed=()).result is Result.FAILS
    assert judged('"ab" in listed').why == "the expression does not compile"


@pytest.mark.parametrize(
    ("must", "message"),
    [
        ("nwe == 1", "line 1 column 1 of the expression: undeclared reference to 'nwe'"),
        ("true &&\n  foo(1)", "line 2 column 6 of the expression: undeclared reference to 'foo'"),
        ("diff.all(d, d.effect == 1)", "line 1 column 22 of the expression: found no matching overload for '_==_'"),
        ("new.name ==", "line 1 column 12 of the expression: Syntax error"),
        ("diff", "the expression gives LIST<MAP<STRING, STRING>>, expected a boolean"),
        ("proposal.size()", "the expression gives INT, expected a boolean"),
        (" \n", "the expression is empty"),
        ("true" + " " * MAX_EXPRESSION_CHARACTERS, "at most 4000 are allowed; make several rules of it"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_when_it_is_read(must: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        check_expression(must, listed=False)
    assert message in str(refused.value)


PLAIN: st.SearchStrategy[Plain] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(new=PLAIN, must=st.text(max_size=40) | st.sampled_from(["new", "new.a", "has(new.a)", "new.all(x, x)", "!new"]))
def test_no_data_and_no_text_raise_or_make_a_rule_hold_that_gives_no_true(new: Plain, must: str) -> None:
    [one] = judge([Expression(name="rule", must=must)], {**EMPTY, "new": new})
    if must == "new":
        assert (one.result is Result.HOLDS) == (new is True)
    if must == "!new":
        assert (one.result is Result.HOLDS) == (new is False)
    assert one.result is not Result.NO_RESULT or one.why
