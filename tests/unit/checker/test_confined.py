"""Rules judged in a process with bounds."""

from __future__ import annotations

import io
import json
import sys

import pytest

from ostiary.checker import confined
from ostiary.checker.confined import answer, check_confined, judge_confined
from ostiary.checker.expression import Expression, Judged, Plain, Result, judge
from ostiary.errors import ConfigurationError, OutsideError

DATA: dict[str, Plain] = {
    "old": None,
    "new": {"name": "é\u2028", "rows": ["a" * 100_000] * 20},
    "diff": [],
    "risks": [],
    "proposal": {},
    "admitted": [{"value": "aa"}],
    "variables": [],
}
RULES = (
    Expression(name="holds", must='new.name == "é\u2028"'),
    Expression(name="fails", must="new.rows.size() == 1"),
    Expression(name="raises", must="new.nothing == 1"),
    Expression(name="listed", must="admitted.all(a, a.value in listed)", listed=("aa",)),
)


def test_the_child_says_what_the_same_process_says() -> None:
    assert judge_confined(RULES, DATA) == tuple(judge(RULES, DATA))
    assert [one.result for one in judge_confined(RULES, DATA)] == [
        Result.HOLDS,
        Result.FAILS,
        Result.NO_RESULT,
        Result.HOLDS,
    ]


HUGE = "new.rows.map(a, new.rows.map(b, new.rows.map(c, a + b + c))).size() > 0"
"""Eight thousand texts of 300,000 characters."""


def test_a_rule_that_takes_too_much_memory_has_no_result_and_the_others_have_theirs() -> None:
    found = judge_confined((RULES[0], Expression(name="huge", must=HUGE)), DATA)
    assert found[0].result is Result.HOLDS
    assert found[1].result is Result.NO_RESULT


LONG = 'new.rows.all(a, new.rows.all(b, new.rows.all(c, !(a + b + c).matches("(a*)*b"))))'
"""Eight thousand searches through 300,000 characters each."""


def test_a_rule_that_takes_too_long_has_no_result_nor_have_those_after_it() -> None:
    found = judge_confined((RULES[0], Expression(name="long", must=LONG), RULES[3]), DATA, cpu_seconds=1)
    assert [one.result for one in found] == [Result.HOLDS, Result.NO_RESULT, Result.NO_RESULT]
    assert found[2].why == "it was not judged within 20 s and 1024 MiB, which all rules have together"


def test_a_child_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "WALL_SECONDS", 0.01)
    assert {one.result for one in judge_confined(RULES, DATA)} == {Result.NO_RESULT}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b'{"name": "holds", "result": "hol',
        b'{"name": "holds", "result": "perhaps", "why": "", "detail": ""}',
        b'["holds"]',
        b"null",
        b'{"name": "holds", "result": "holds"}',
        b'{"name": "other", "result": "holds", "why": "", "detail": ""}',
    ],
)
def test_what_is_no_whole_result_of_a_rule_is_none(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(confined, "_ask", lambda question: line)
    [one] = judge_confined(RULES[:1], DATA)
    assert one.result is Result.NO_RESULT


def test_without_a_process_nothing_is_judged_and_nothing_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "_CHILD", ("/nowhere/python",))
    with pytest.raises(OutsideError, match="no process can be started: No such file or directory"):
        judge_confined(RULES, DATA)


def test_a_machine_that_cannot_judge_rules_is_told_before_anything_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    check_confined()
    monkeypatch.setattr(confined, "_CHILD", ("/bin/false",))
    with pytest.raises(ConfigurationError, match="rules cannot be judged in a process of their own"):
        check_confined()


def test_the_childs_part_prints_a_line_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    expressions = [{"name": "a", "must": "true", "listed": None}, {"name": "b", "must": "new.x", "listed": ["aa"]}]
    answer(json.dumps({"expressions": expressions, "variables": DATA}).encode())
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first == {"name": "a", "result": "holds", "why": "", "detail": ""}
    assert (second["name"], second["result"]) == ("b", "no result")


def test_a_judged_rule_is_told_apart_by_its_name() -> None:
    assert Judged(name="a", result=Result.HOLDS) != Judged(name="b", result=Result.HOLDS)
