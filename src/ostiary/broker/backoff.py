"""When a server that failed is asked again. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

FIRST_WAIT = timedelta(seconds=30)
MOST_WAIT = timedelta(hours=1)
MOST_RETRY_AFTER = timedelta(days=1)
"""A server that asks for more does not get it."""


def wait_after(failures: int, *, retry_after: timedelta | None, jitter: float) -> timedelta:
    """How long to leave a server alone after so many failures in a row, one or more.

    Twice as long each time from FIRST_WAIT to MOST_WAIT, and longer if the server says so, up to MOST_RETRY_AFTER; then
    up to half of it more. jitter: 0 to 1, so that services which failed together do not come back together.
    """
    grown = min(FIRST_WAIT * (1 << min(failures - 1, 16)), MOST_WAIT)
    asked = min(max(retry_after or timedelta(0), timedelta(0)), MOST_RETRY_AFTER)
    wait = max(grown, asked)
    return wait + wait * (jitter / 2)


def read_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """The header Retry-After: seconds, or a date of HTTP (RFC 9110, 10.2.3). None if absent or unreadable."""
    if text is None:
        return None
    if text.isascii() and text.strip().isdigit():
        return timedelta(seconds=min(int(text.strip()[:9]), MOST_RETRY_AFTER.total_seconds()))
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)) - now
