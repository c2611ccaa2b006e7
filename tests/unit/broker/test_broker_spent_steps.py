"""Which steps of a secret are used up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ostiary.broker.spent_steps import SpentSteps, read_spent, record_name, write_spent
from ostiary.store import Record


@given(st.lists(st.integers(0, 20), max_size=40))
def test_no_step_is_accepted_twice_and_of_the_newest_two_none_is_lost(steps: list[int]) -> None:
    """Whatever the clock does: a step is refused only if it was accepted, or lies before the newest two."""
    spent, accepted = SpentSteps(), set[int]()
    for step in steps:
        if step in spent:
            assert step in accepted or step < max(accepted) - 1
        else:
            assert step not in accepted
            spent = spent.spend(step)
            accepted.add(step)
            assert step in spent
            written = write_spent("n", spent, None)
            assert written.value is not None
            assert read_spent(Record(version=1, value=written.value)) == spent


def test_a_record_replaces_the_one_that_was_read_and_no_other() -> None:
    spent = SpentSteps(newest=7, before=True)
    assert write_spent("n", spent, None).expected_version == 0
    assert write_spent("n", spent, Record(version=9, value=b"")).expected_version == 9


def test_a_secret_has_a_record_in_each_session() -> None:
    names = {record_name(session, secret) for session in ("a", "a/b") for secret in (b"x" * 16, b"y" * 16)}
    assert len(names) == 4
    assert not any("xxxx" in name for name in names)
