"""A version as a CAS gives it, checked before it is believed."""

from __future__ import annotations

import hmac

from ostiary.client import StoredText
from ostiary.errors import OutsideError, SessionFormatError, TooLargeError
from ostiary.session import ParsedSession, parse_session


def parse_stored(stored: StoredText, name: str) -> ParsedSession:
    """The session in what a CAS answered to a read.

    Guarantees on return: its hash is that of the text, whatever the CAS says, and the same if the CAS says one.
    Raises OutsideError.
    """
    try:
        parsed = parse_session(stored.text)
    except (SessionFormatError, TooLargeError) as error:
        raise OutsideError(
            f"the CAS's text of session {name!r} is not a session this version knows", *error.chain
        ) from error
    if stored.session_hash is not None and not hmac.compare_digest(stored.session_hash, parsed.hash):
        raise OutsideError(
            f"the CAS's text of session {name!r} does not have the hash that the CAS says",
            f"text {parsed.hash.hex()}, CAS {stored.session_hash.hex()}",
        )
    return parsed
