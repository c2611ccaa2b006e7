"""One entry of the audit log as the exact bytes of its Merkle leaf."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from ostiary.errors import InputError, TooLargeError

MAX_ENTRY_BYTES = 64 * 1024
MAX_DEPTH = 8
NONCE_BYTES = 16
MAX_INTEGER = 2**53 - 1

Json = str | int | bool | None | Sequence["Json"] | Mapping[str, "Json"]

_KEY = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry as it was written. kind: its `type`, which may be one that a later version brought."""

    time: str
    kind: str
    data: Mapping[str, Json]


class Kind(Enum):
    """What an entry can be about; the value is its `type`."""

    SESSION_CREATED = "session_created"
    SESSION_UPDATED = "session_updated"
    PROPOSAL_CREATED = "proposal_created"
    PROPOSAL_DECIDED = "proposal_decided"
    PROPOSAL_CLOSED = "proposal_closed"
    SERVICE_ATTESTED = "service_attested"
    SERVICE_REFUSED = "service_refused"
    SERVICE_FILE_RENDERED = "service_file_rendered"
    SERVICE_FSPF_TAG_UPDATED = "service_fspf_tag_updated"
    VOLUME_FSPF_TAG_UPDATED = "volume_fspf_tag_updated"
    ONE_TIME_PASSWORD_USED = "one_time_password_used"  # noqa: S105 - the name of an event
    ENDORSEMENTS_STORED = "endorsements_stored"
    EVIDENCE_KEPT = "evidence_kept"
    CAS_STARTED = "cas_started"
    CAS_EXITED = "cas_exited"
    OWNER_RECORDED = "owner_recorded"
    ANCHOR_RECORDED = "anchor_recorded"
    ROLLBACK_ACCEPTED = "rollback_accepted"


def entry(kind: Kind, data: Mapping[str, Json], now: datetime, random: Callable[[int], bytes]) -> bytes:
    """The bytes of one entry: UTF-8, one JSON object in one line, no two of them equal.

    Shape: {"data":{…},"nonce":"32 hex digits","time":"2026-01-02T03:04:05.678Z","type":"session_created","v":1}, keys
    sorted, no blanks, times cut to milliseconds. This is the canonical form of RFC 8785: keys are lower-case ASCII
    names, so every sorting order agrees; numbers are integers from -(2^53 - 1) to 2^53 - 1, which every JSON reader
    keeps exact; floats are refused.
    random: n bytes of a cryptographic generator. By the nonce the log's root, which may be all that an anchor knows,
    tells apart two histories in which the same happened at the same moment.

    Does not guarantee that `data` holds no secret: entries are for auditors to read, so the caller gives names, hashes
    and public keys, never values.
    Raises TooLargeError over MAX_ENTRY_BYTES; ValueError, a mistake of the caller, for a time without zone, a value of
    another type, a number out of range, a key of another form, text that UTF-8 cannot hold, more than MAX_DEPTH levels.
    """
    if now.tzinfo is None or now.utcoffset() != timedelta(0):
        raise ValueError(f"audit entry at {now.isoformat()}, expected a time in UTC")
    _check(data, "data", MAX_DEPTH)
    time = now.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    leaf = _ENCODER.encode(
        {"v": 1, "time": time, "type": kind.value, "data": data, "nonce": random(NONCE_BYTES).hex()}
    ).encode()
    if len(leaf) > MAX_ENTRY_BYTES:
        raise TooLargeError(f"an audit entry {kind.value} of {len(leaf)} bytes, at most {MAX_ENTRY_BYTES} are kept")
    return leaf


def read_entry(leaf: bytes) -> Entry:
    """What `entry` wrote. Raises InputError, and nothing else: not of this form."""
    try:
        found = json.loads(leaf)
    except (ValueError, RecursionError):
        raise InputError("an audit entry must be JSON in UTF-8, and this is not") from None
    match found:
        case {"v": 1, "time": str(time), "type": str(kind), "data": dict(data)}:
            return Entry(time=time, kind=kind, data=data)
    raise InputError("an audit entry has v 1, time, type and data, and this one has not")


def _check(value: object, path: str, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"{path}: more than {MAX_DEPTH} levels deep")
    match value:
        case str():
            _check_text(value, path)
        case None | bool():
            return
        case int():
            if abs(value) > MAX_INTEGER:
                raise ValueError(f"{path}: an integer beyond 2^53 - 1, which JSON readers round; write it as text")
        case dict():
            for key, member in value.items():
                if not isinstance(key, str) or not _KEY.fullmatch(key):
                    raise ValueError(f"{path}: a key that is not a lower-case ASCII name")
                _check(member, f"{path}.{key}", depth - 1)
        case list() | tuple():
            for index, element in enumerate(value):
                _check(element, f"{path}[{index}]", depth - 1)
        case _:
            raise ValueError(f"{path}: a {type(value).__name__}, expected text, integer, boolean, null, list or object")


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: a lone surrogate at {error.start}, which UTF-8 cannot hold") from None
