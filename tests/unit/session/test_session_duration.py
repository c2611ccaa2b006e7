"""Durations of certificates."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ostiary.session.duration import format_duration, parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1 year", timedelta(days=365, hours=6)),
        ("59d", timedelta(days=59)),
        ("90 days", timedelta(days=90)),
        ("3560d", timedelta(days=3560)),
        ("24h", timedelta(days=1)),
        ("11months 30days 3h 50m 24s", timedelta(days=365)),
        ("1w2d", timedelta(days=9)),
        ("1M", timedelta(days=30, hours=10, minutes=33, seconds=36)),
        ("1m 1min 1 minute 1 minutes", timedelta(minutes=4)),
        ("1s 1sec 1second 1seconds", timedelta(seconds=4)),
        ("1 hr 1 hour 1hours", timedelta(hours=3)),
        (
            "1 day 1 month 1 months 1y 1 years 1week 1weeks",
            timedelta(seconds=86400 * 15 + 2_630_016 * 2 + 31_557_600 * 2),
        ),
        ("100 years", timedelta(seconds=3_155_760_000)),
    ],
)
def test_numbers_with_units_are_added_up(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3 parsecs", "unknown unit parsecs"),
        ("3 D", "unknown unit D"),
        ("", "more than zero"),
        ("0s", "more than zero"),
        ("101 years", "at most 100 years"),
        ("100 years 1s", "at most 100 years"),
        ("90", "with a unit"),
        ("-1d", "with a unit"),
        ("1.5h", "with a unit"),
        ("1d, 2h", "with a unit"),
        ("9999999999999 s", "with a unit"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=365), "11months 30days 3h 50m 24s"),
        (timedelta(seconds=1), "1s"),
        (timedelta(days=1), "1day"),
        (timedelta(seconds=2 * 31_557_600 + 2_630_016), "2years 1month"),
    ],
)
def test_the_normal_form_uses_the_largest_units(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@pytest.mark.parametrize(("duration", "shown"), [
    (timedelta(days=7), "7 days"),
    (timedelta(days=365), "365 days"),
    (timedelta(days=1, hours=2, minutes=3, seconds=4), "1 day 2 h 3 min 4 s"),
    (timedelta(seconds=1), "1 s"),
    (timedelta(0), "0 s"),
])  # fmt: skip
def test_people_read_days_hours_minutes_and_seconds(duration: timedelta, shown: str) -> None:
    assert show_duration(duration) == shown
