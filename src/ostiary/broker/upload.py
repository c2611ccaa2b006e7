"""Create or update a session: one operation, as the API has one request for both."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.audit import Kind, entry
from ostiary.board import Operation, authorize
from ostiary.broker.cas import Cas, log
from ostiary.broker.session_records import StoredSession, upload_writes
from ostiary.errors import ConflictError, Finding, IdentityRequiredError, InputError, NotFoundError
from ostiary.secret import Value, generate
from ostiary.session import ParsedSession, parse_session, with_creator
from ostiary.session.pem import certificate_key_hash


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who uploads: PEM certificate and key hash (32 bytes) of the TLS peer."""

    certificate: str
    key_hash: bytes


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """session_hash: 32 bytes. warnings: of the checks, for the author."""

    session_hash: bytes
    warnings: tuple[Finding, ...]


async def upload_session(cas: Cas, text: bytes, caller: Caller | None) -> Uploaded:
    """Make `text` the current version of the session that it names.

    Guarantees on return: the version is durable, follows exactly the version that `predecessor` names (or is the
    first), the replaced version's access policy admitted the caller, and its secrets exist. On any error nothing has
    changed. Two uploads with the same predecessor: one wins, the other gets ConflictError.

    Raises SessionFormatError, TooLargeError (not a session), IdentityRequiredError, NotAuthorizedError (may not),
    NotFoundError (predecessor of nothing), ConflictError (not the current version), StoreError.
    """
    parsed = await asyncio.to_thread(_read, text, caller)
    name = parsed.session.name
    current = await cas.sessions.current(name)
    _check_predecessor(parsed, current)
    if current is not None:
        authorize(
            Operation.UPDATE,
            current.parsed.session.access_policy,
            session=name,
            creator=current.creator,
            caller=None if caller is None else caller.key_hash,
        )
    values = await asyncio.to_thread(_values, cas, parsed, current)
    kind = Kind.SESSION_CREATED if current is None else Kind.SESSION_UPDATED
    writes = upload_writes(parsed, creator=None if caller is None else caller.key_hash, values=values, replaced=current)
    leaf = entry(kind, {"session": name, **({} if caller is None else {"by": caller.key_hash.hex()})}, cas.now())
    await asyncio.wrap_future(cas.store.commit(writes, leaf))
    log.info("%s %s", kind.value, name)
    return Uploaded(session_hash=parsed.hash, warnings=parsed.warnings)


def _read(text: bytes, caller: Caller | None) -> ParsedSession:
    written = parse_session(text)
    named = written.session.creator
    if named is not None and (caller is None or certificate_key_hash(named) != caller.key_hash):
        raise InputError(
            "creator is another key than yours: a session records who uploaded it",
            "leave `creator` out, or upload with the client certificate that it names",
        )
    parsed = with_creator(written, None if caller is None else caller.certificate)
    if caller is None and parsed.names_creator:
        raise IdentityRequiredError(
            f"Failed to create session '{parsed.session.name}'",
            "its access policy names CREATOR, as it does by default, and no client certificate was shown: nobody could "
            "ever read or change it; connect with a client certificate, or set access_policy.read and .update",
        )
    return parsed


def _check_predecessor(parsed: ParsedSession, current: StoredSession | None) -> None:
    name, predecessor = parsed.session.name, parsed.session.predecessor
    if current is None:
        if predecessor is not None:
            raise NotFoundError(
                f"Failed to update session '{name}': Session not found",
                f"predecessor {predecessor.hex()} is given, but there is no session of this name to succeed",
                "remove `predecessor` to create the session",
            )
        return
    if predecessor is None:
        raise ConflictError(
            f"Failed to create session '{name}'",
            "Session already exists, please specify predecessor hash",
            "read the session, merge, and set `predecessor` to its hash",
        )
    if not hmac.compare_digest(predecessor, current.parsed.hash):
        raise ConflictError(
            f"Failed to update session '{name}'",
            f"predecessor {predecessor.hex()} is not the hash of the current version",
            "read the session again, merge, and retry with the new hash",
        )


def _values(cas: Cas, parsed: ParsedSession, current: StoredSession | None) -> Mapping[str, Value]:
    return generate(
        parsed.session,
        previous={} if current is None else current.values,
        previous_session=None if current is None else current.parsed.session,
        random=cas.random,
        now=cas.now(),
    )
