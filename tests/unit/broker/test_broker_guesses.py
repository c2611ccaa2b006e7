"""How often one-time passwords may be guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.broker import guesses as guesses_module
from ostiary.broker.guesses import MAX_FAILURES, PERIOD, Guesses
from ostiary.errors import RefusedError

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_a_clock_turned_back_does_not_lock_a_session_for_as_long() -> None:
    guesses = Guesses()
    for _ in range(MAX_FAILURES):
        guesses.failed("a", NOW)
    with pytest.raises(RefusedError, match="try again in 30 s"):
        guesses.check("a", NOW - 30 * SECOND)
    assert guesses._recent("a", NOW - timedelta(days=1)) == ()
    guesses.check("a", NOW - timedelta(days=1))


def test_what_is_remembered_is_bounded_and_the_oldest_failure_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses_module, "MAX_SESSIONS", 2)
    guesses = Guesses()
    for session in ("a", "b", "a", "c"):
        guesses.failed(session, NOW)
    assert list(guesses._failures) == ["a", "c"]


@given(st.lists(st.integers(0, 600), min_size=1, max_size=60).map(sorted))
def test_no_minute_has_more_than_five_failures_and_no_session_more_in_memory(seconds: list[int]) -> None:
    guesses = Guesses()
    heard: list[datetime] = []
    for second in seconds:
        now = NOW + second * SECOND
        try:
            guesses.check("a", now)
        except RefusedError:
            assert sum(now - instant < PERIOD for instant in heard) == MAX_FAILURES
            continue
        guesses.failed("a", now)
        heard.append(now)
        assert sum(now - instant < PERIOD for instant in heard) <= MAX_FAILURES
        assert len(guesses._failures["a"]) <= MAX_FAILURES
