"""Durations such as `90 days` or `11months 30days 3h 50m 24s`. Source: session language, "Certificates"."""

from __future__ import annotations

import re
from datetime import timedelta

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MONTH = 2_630_016  # 30.44 days
_YEAR = 31_557_600  # 365.25 days
MAX_SECONDS = 100 * _YEAR

_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hr", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY),
    **dict.fromkeys(("M", "month", "months"), _MONTH),
    **dict.fromkeys(("y", "year", "years"), _YEAR),
}
_PART = re.compile(r" *([0-9]{1,12}) *([A-Za-z]+) *")
_LARGEST_FIRST = ((_YEAR, "year"), (_MONTH, "month"), (_DAY, "day"), (_HOUR, "h"), (_MINUTE, "m"), (1, "s"))
_COUNTED = frozenset({"year", "month", "day"})  # written in full, with a plural


def parse_duration(text: str) -> timedelta:
    """The sum of one or more `<integer><unit>`; `m` is minutes, `M` months. Raises ValueError with one sentence."""
    seconds, end = 0, 0
    while end < len(text):
        part = _PART.match(text, end)
        if part is None:
            raise ValueError("expected one or more numbers with a unit, such as 90 days or 1year 6months")
        if part[2] not in _SECONDS:
            raise ValueError(f"unknown unit {part[2][:20]}, expected one of s m h d w M y or second … year")
        seconds += int(part[1]) * _SECONDS[part[2]]
        end = part.end()
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError("expected more than zero and at most 100 years")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Whole seconds in the largest units: 365 days are `11months 30days 3h 50m 24s`. The inverse of parsing."""
    seconds = duration.days * _DAY + duration.seconds
    words = []
    for size, unit in _LARGEST_FIRST:
        count, seconds = divmod(seconds, size)
        if count:
            words.append(f"{count}{unit}{'s' if count > 1 and unit in _COUNTED else ''}")
    return " ".join(words)


def show_duration(duration: timedelta) -> str:
    """Whole seconds for people: `7 days`, `1 h 30 min`."""
    seconds = duration.days * _DAY + duration.seconds
    words = []
    for size, unit in ((_DAY, "day"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            words.append(f"{count} {unit}{'s' if count > 1 and unit == 'day' else ''}")
    return " ".join(words) or "0 s"
