"""What an authenticator app shows, written from RFC 4226 section 5.3 and RFC 6238, apart from the service's library."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

SECRET = b"12345678901234567890"
"""The shared secret of the RFCs' vectors for SHA-1."""
SECRET_BASE32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def password_at(now: datetime, secret: bytes = SECRET, *, steps: int = 0) -> str:
    """The six digits of the time step of `now`, or of one so many steps after it."""
    counter = int(now.timestamp()) // 30 + steps
    digest = hmac.new(secret, counter.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[19] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**6:06}"


def wrong_password(now: datetime, secret: bytes = SECRET) -> str:
    """Six digits that are none of the steps around `now`."""
    right = {password_at(now, secret, steps=steps) for steps in range(-3, 4)}
    return next(text for text in map("{:06}".format, range(8)) if text not in right)
