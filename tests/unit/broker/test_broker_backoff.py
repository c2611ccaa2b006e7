"""Servers that failed are left alone: longer each time, as long as they ask, never for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.broker.backoff import FIRST_WAIT, MOST_RETRY_AFTER, MOST_WAIT, read_retry_after, wait_after

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_waits_grow_twofold_up_to_a_bound() -> None:
    waits = [wait_after(failures, retry_after=None, jitter=0) for failures in (1, 2, 3, 20, 10_000)]
    assert waits == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, MOST_WAIT, MOST_WAIT]


def test_a_server_may_ask_for_more_and_not_for_less() -> None:
    assert wait_after(1, retry_after=timedelta(minutes=5), jitter=0) == timedelta(minutes=5)
    assert wait_after(1, retry_after=timedelta(seconds=1), jitter=0) == FIRST_WAIT
    assert wait_after(1, retry_after=timedelta(days=365), jitter=0) == MOST_RETRY_AFTER
    assert wait_after(1, retry_after=timedelta(days=-1), jitter=0) == FIRST_WAIT


@given(st.integers(1, 100), st.floats(0, 1), st.none() | st.timedeltas())
def test_a_wait_is_within_its_bounds(failures: int, jitter: float, asked: timedelta | None) -> None:
    wait = wait_after(failures, retry_after=asked, jitter=jitter)
    assert FIRST_WAIT <= wait <= MOST_RETRY_AFTER * 1.5


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("120", timedelta(minutes=2)),
        (" 7 ", timedelta(seconds=7)),
        ("9" * 400, MOST_RETRY_AFTER),
        ("Mon, 23 Nov 2026 12:01:00 GMT", timedelta(minutes=1)),
        ("Mon, 23 Nov 2026 12:01:00 -0000", timedelta(minutes=1)),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, wait: timedelta) -> None:
    assert read_retry_after(text, NOW) == wait


@pytest.mark.parametrize("text", [None, "", "soon", "-1", "1.5", "²", "Mon, 99 Nov 2026 12:01:00 GMT"])
def test_what_is_neither_is_left_out(text: str | None) -> None:
    assert read_retry_after(text, NOW) is None
