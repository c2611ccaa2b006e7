"""What a proposal is: the facts that its id is the hash of, so that nobody can swap one of them. Pure.

The text, UTF-8 (in fact ASCII), every line ended by one LF::

    ostiary-proposal-v1
    cas <64 hex digits>
    session <name>
    predecessor <64 hex digits, or none>
    session-hash <64 hex digits>
    break-glass <yes or no>
    created <YYYY-MM-DDTHH:MM:SSZ>
    nonce <32 hex digits>
    note <JSON string>

Hex digits are lower case. The JSON string has nothing but ASCII: `"` and `\\` are escaped by `\\`; U+0008, 9, A, C and
D are `\\b \\t \\n \\f \\r`; all else outside U+0020 to U+007E is `\\u` and four lower-case hex digits, above U+FFFF
two of them, the surrogate pair. So no note can look like another line.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from ostiary.errors import InputError, TooLargeError
from ostiary.session.name import MAX_NAME_CHARACTERS

MAX_NOTE_CHARS = 1000

HASH_BYTES = 32
NONCE_BYTES = 16

_NAME = re.compile(r"[A-Za-z0-9_.~/-]+")


class State(StrEnum):
    """How far a proposal is. Closed ones never change again."""

    OPEN = "open"
    APPROVED = "approved"
    """Its time lock runs."""
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    """Another version has become the current one."""

    @property
    def is_pending(self) -> bool:
        """Whether it may still be applied."""
        return self in (State.OPEN, State.APPROVED)


@dataclass(frozen=True, kw_only=True)
class ProposalFacts:
    """One proposal to make `session_hash` the version after `predecessor` (None: the first) of a session.

    cas: SHA-256 of the DER SubjectPublicKeyInfo of the service's root certificate, 32 bytes: its lasting identity.
    session: its name. predecessor, session_hash: 32 bytes. created: UTC, whole seconds. note: the proposer's, at most
    MAX_NOTE_CHARS characters. nonce: 16 random bytes, so that no two proposals are the same.
    Raises InputError (TooLargeError) when any of this is not so.
    """

    cas: bytes
    session: str
    predecessor: bytes | None
    session_hash: bytes
    break_glass: bool
    created: datetime
    note: str
    nonce: bytes

    def __post_init__(self) -> None:
        for name, value, expected in (
            ("cas", self.cas, HASH_BYTES),
            ("predecessor", self.predecessor, HASH_BYTES),
            ("session hash", self.session_hash, HASH_BYTES),
            ("nonce", self.nonce, NONCE_BYTES),
        ):
            if value is not None and len(value) != expected:
                raise InputError(f"the {name} of a proposal has {len(value)} bytes, expected {expected}")
        if not _NAME.fullmatch(self.session) or len(self.session) > MAX_NAME_CHARACTERS:
            raise InputError(f"a proposal names the session {self.session[:80]!r}, which is no name of a session")
        if self.created.utcoffset() != timedelta(0) or self.created.microsecond:
            raise InputError(f"a proposal was created at {self.created.isoformat()}, expected UTC and whole seconds")
        json_text("note", self.note, max_chars=MAX_NOTE_CHARS)

    def proposal_hash(self) -> bytes:
        """32 bytes, SHA-256 of the text. In hex it is the id of the proposal."""
        return self._hash

    @cached_property
    def _hash(self) -> bytes:
        return hashlib.sha256(self.text()).digest()

    def text(self) -> bytes:
        """The text above: two proposals have the same one only if all their facts are the same."""
        predecessor = "none" if self.predecessor is None else self.predecessor.hex()
        return (
            "ostiary-proposal-v1\n"
            f"cas {self.cas.hex()}\n"
            f"session {self.session}\n"
            f"predecessor {predecessor}\n"
            f"session-hash {self.session_hash.hex()}\n"
            f"break-glass {yes_or_no(self.break_glass)}\n"
            f"created {self.created.replace(tzinfo=None).isoformat(timespec='seconds')}Z\n"
            f"nonce {self.nonce.hex()}\n"
            f"note {json_text('note', self.note, max_chars=MAX_NOTE_CHARS)}\n"
        ).encode("ascii")


def yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def json_text(what: str, text: str, *, max_chars: int) -> str:
    """A JSON string of `text` on one line of ASCII.

    Raises TooLargeError over `max_chars` characters; InputError for half a surrogate pair, which is no character and
    which other languages write otherwise.
    """
    if len(text) > max_chars:
        raise TooLargeError(f"the {what} has {len(text)} characters, at most {max_chars} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"the {what} is not text: it has half a surrogate pair; write whole characters") from None
    return json.dumps(text, ensure_ascii=True)
