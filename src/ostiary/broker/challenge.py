"""Nonces that make evidence fresh: each valid once, for one TLS key, for a minute.

Kept in memory only: a restart forgets them all, and a forgotten nonce is refused.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ostiary.attester.binding import NONCE_BYTES
from ostiary.errors import ChallengeRefusedError

CHALLENGE_LIFE = timedelta(seconds=60)
MAX_CHALLENGES = 65_536
"""Nonces waiting at one time; beyond that the oldest is forgotten."""

_AGAIN = "ask for a new challenge on this connection and attest again"


@dataclass(frozen=True, kw_only=True)
class _Challenge:
    client: bytes
    expires: datetime


class Challenges:
    """Nonces given out and not yet spent, oldest first. A nonce leaves at its first use, whatever comes of it."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._waiting: OrderedDict[bytes, _Challenge] = OrderedDict()

    def issue(self, client: bytes, now: datetime) -> bytes:
        """A new nonce of 32 bytes for the TLS client whose key hash is `client`."""
        self._forget_expired(now)
        if len(self._waiting) >= MAX_CHALLENGES:
            self._waiting.popitem(last=False)
        nonce = self._random(NONCE_BYTES)
        self._waiting[nonce] = _Challenge(client=client, expires=now + CHALLENGE_LIFE)
        return nonce

    def spend(self, nonce: bytes, client: bytes, now: datetime) -> None:
        """Use up `nonce` for the TLS client whose key hash is `client`.

        Guarantees on return: this service gave the nonce to this very key, at most 60 s before `now`, and it was not
        used before. Raises ChallengeRefusedError, and the nonce is spent all the same.
        """
        challenge = self._waiting.pop(nonce, None)
        if challenge is None:
            raise ChallengeRefusedError("the nonce is unknown, was used before, or expired long ago", _AGAIN)
        if not hmac.compare_digest(challenge.client, client):
            raise ChallengeRefusedError("the nonce was given to another client key", _AGAIN)
        if now >= challenge.expires:
            raise ChallengeRefusedError(f"the challenge expired after {CHALLENGE_LIFE.seconds} s", _AGAIN)

    def _forget_expired(self, now: datetime) -> None:
        while self._waiting:
            nonce, challenge = next(iter(self._waiting.items()))
            if now < challenge.expires:
                return
            del self._waiting[nonce]
