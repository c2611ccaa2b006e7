"""How often one-time passwords of a session may be guessed: five wrong ones a minute, then nobody is heard for a while.

Kept in memory only: a restart forgets. Whoever can restart the service again and again, or turn its clock, has more
guesses; each still costs him a challenge.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta

from ostiary.errors import RefusedError

MAX_FAILURES = 5
"""Wrong one-time passwords for one session within PERIOD; whatever comes after them is refused unread."""
PERIOD = timedelta(minutes=1)
MAX_SESSIONS = 16_384
"""Sessions whose failures are remembered; beyond that the one that failed longest ago is forgotten."""


class Guesses:
    """The newest failures of each session. Use on the event loop only, and without a pause from `check` to `failed`."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[datetime, ...]] = OrderedDict()

    def check(self, session: str, now: datetime) -> None:
        """Guarantees on return: fewer than MAX_FAILURES within PERIOD before `now`. Raises RefusedError."""
        recent = self._recent(session, now)
        if len(recent) >= MAX_FAILURES:
            wait = PERIOD - abs(now - recent[0])
            raise RefusedError(
                f"too many wrong One-time Passwords were given for session {session}",
                f"try again in {max(1, round(wait.total_seconds()))} s",
            )

    def failed(self, session: str, now: datetime) -> None:
        """Remember a wrong one-time password."""
        self._failures[session] = (*self._recent(session, now), now)
        self._failures.move_to_end(session)
        if len(self._failures) > MAX_SESSIONS:
            self._failures.popitem(last=False)

    def _recent(self, session: str, now: datetime) -> tuple[datetime, ...]:
        # A clock that was turned back must not lock a session for as long as it was turned.
        return tuple(instant for instant in self._failures.get(session, ()) if abs(now - instant) < PERIOD)
