"""Read a session, or a version of its past."""

from __future__ import annotations

from ostiary.board import Caller, Operation, authorize
from ostiary.broker.admission import access_policy_of
from ostiary.broker.cas import Cas
from ostiary.errors import InputError, NotFoundError, RefusedError
from ostiary.session import ParsedSession


async def read_session(cas: Cas, name: str, *, session_hash: bytes | None, caller: Caller | None) -> ParsedSession:
    """The current version of session `name`, or the one with `session_hash`, for `caller`, None without certificate.

    Guarantees on return: the access policy of the *current* version admits the caller to read; past versions are
    judged by it too. Explicit values are in the text, generated ones never.
    Raises NotFoundError, IdentityRequiredError, NotAuthorizedError, TamperedError.
    """
    await cas.sessions.prepare(name)
    current = cas.sessions.require(name)
    authorize(
        Operation.READ,
        access_policy_of(cas, current).thing,
        session=name,
        creator=current.creator,
        caller=caller,
    )
    current.require_values()
    if session_hash is None:
        return current.parsed
    await cas.sessions.prepare_version(name, session_hash)
    version = cas.sessions.version(name, session_hash)
    if version is None:
        raise NotFoundError("Session not found", f"it never had a version with hash {session_hash.hex()}")
    return version.parsed


async def read_session_hash(cas: Cas, name: str, *, caller: Caller | None) -> bytes:
    """The hash, 32 bytes, of the current version of session `name`.

    Guarantees on return: this version or one before it has a salt, so that the hash tells nothing about explicit
    secrets and anyone may know it; or the access policy of this version admits the caller to read.
    Raises NotFoundError, IdentityRequiredError, NotAuthorizedError, TamperedError.
    """
    await cas.sessions.prepare(name)
    current = cas.sessions.require(name)
    if not await cas.sessions.is_salted(current):
        authorize(
            Operation.READ,
            access_policy_of(cas, current).thing,
            session=name,
            creator=current.creator,
            caller=caller,
        )
        current.require_values()
    elif not current.has_values:
        raise RefusedError("Failed to read the hash", "the values of the session's secrets cannot be had at this time")
    return current.parsed.hash


def parse_hash(text: str) -> bytes:
    """32 bytes from 64 hex digits. Raises InputError."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise InputError(f"a session hash has 64 hex digits, found {text[:80]!r}")
    return digest
