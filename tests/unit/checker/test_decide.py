"""From results to a decision: approve only if every rule holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ostiary.board import MAX_REASON_CHARS, Choice
from ostiary.checker.decide import decide, reject_unread
from ostiary.checker.expression import Judged, Result
from ostiary.checker.rules import Rule, Rules

A, B = Rule(name="a", must="true", says="a must be"), Rule(name="b", must="true")
HELD = [Judged(name="a", result=Result.HOLDS), Judged(name="b", result=Result.HOLDS)]


def test_all_rules_hold_so_it_approves_and_names_them() -> None:
    verdict = decide(Rules(rules=(A, B)), HELD)
    assert (verdict.choice, verdict.fired, verdict.reason) == (Choice.APPROVE, (), "all rules hold: a, b")


def test_rules_that_do_not_approve_say_nothing_about_what_keeps_them() -> None:
    assert decide(Rules(rules=(A, B), approves=False), HELD).choice is None


def test_rules_that_do_not_approve_still_reject() -> None:
    failed = [Judged(name="a", result=Result.FAILS), HELD[1]]
    assert decide(Rules(rules=(A, B), approves=False), failed).choice is Choice.REJECT


def test_one_rule_that_fails_rejects_and_is_named_with_its_sentence() -> None:
    verdict = decide(Rules(rules=(A, B)), [Judged(name="a", result=Result.FAILS), HELD[1]])
    assert (verdict.choice, verdict.fired, verdict.reason) == (Choice.REJECT, ("a",), "rejected by a: a must be")


def test_a_rule_without_a_result_rejects_and_does_not_abstain() -> None:
    verdict = decide(Rules(rules=(A, B)), [HELD[0], Judged(name="b", result=Result.NO_RESULT, why="it stumbled")])
    assert (verdict.choice, verdict.reason) == (Choice.REJECT, "rejected by b: it stumbled")


def test_a_rule_that_nobody_judged_rejects() -> None:
    verdict = decide(Rules(rules=(A, B)), HELD[:1])
    assert (verdict.choice, verdict.reason) == (Choice.REJECT, "rejected by b: it was not judged")


def test_no_rules_reject() -> None:
    assert decide(Rules(rules=()), []).choice is Choice.REJECT


def test_a_result_of_no_rule_changes_nothing() -> None:
    stray = Judged(name="c", result=Result.HOLDS)
    assert decide(Rules(rules=(A,)), [stray]).choice is Choice.REJECT


def test_what_cannot_be_read_is_rejected_with_the_reason() -> None:
    verdict = reject_unread("the session is of version 9.9")
    assert (verdict.choice, verdict.reason) == (Choice.REJECT, "rejected unread: the session is of version 9.9")


RESULTS = st.lists(st.sampled_from([*Result, None]), min_size=1, max_size=40)


@given(results=RESULTS, approves=st.booleans(), says=st.text(max_size=200))
def test_it_approves_if_and_only_if_every_rule_holds(results: list[Result | None], approves: bool, says: str) -> None:
    rules = Rules(
        rules=tuple(Rule(name=f"rule-{at}", must="true", says=says) for at in range(len(results))), approves=approves
    )
    judged = [Judged(name=f"rule-{at}", result=one, why="why") for at, one in enumerate(results) if one is not None]
    verdict = decide(rules, judged)
    held = all(one is Result.HOLDS for one in results)
    assert (verdict.choice is Choice.REJECT) == (not held)
    assert (verdict.choice is Choice.APPROVE) == (held and approves)
    assert verdict.fired == tuple(f"rule-{at}" for at, one in enumerate(results) if one is not Result.HOLDS)
    assert len(verdict.reason) <= MAX_REASON_CHARS


@given(why=st.text(max_size=3000))
def test_no_reason_is_longer_than_what_can_be_signed(why: str) -> None:
    assert len(reject_unread(why).reason) <= MAX_REASON_CHARS


def test_a_reason_that_would_be_too_long_names_as_many_rules_as_it_can_and_counts_the_rest() -> None:
    rules = Rules(rules=tuple(Rule(name=f"rule-{at}", must="true", says="x" * 200) for at in range(20)))
    verdict = decide(rules, [])
    assert MAX_REASON_CHARS - 250 < len(verdict.reason) <= MAX_REASON_CHARS
    assert verdict.reason.startswith("rejected by rule-0: xxx")
    assert verdict.reason.endswith("; and 16 more")
    assert len(verdict.fired) == 20


def test_a_reason_of_one_part_that_is_too_long_says_how_many_there_are() -> None:
    assert reject_unread("x" * 2000).reason == "rejected unread: and 1 more"
