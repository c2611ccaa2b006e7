"""Create or update a session: one operation, as the API has one request for both."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.audit import Kind, entry
from ostiary.board import Caller, Operation, Party, authorize
from ostiary.broker.admission import access_policy_of
from ostiary.broker.cas import Cas, log
from ostiary.broker.file_records import Succession
from ostiary.broker.file_state import KEY_BYTES
from ostiary.broker.key_vaults import has_other_credentials
from ostiary.broker.namespace import ROOT, parent_of
from ostiary.broker.session_records import StoredSession, all_values, upload_writes
from ostiary.errors import (
    ConflictError,
    Finding,
    IdentityRequiredError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    RefusedError,
    SecretUnavailableError,
    StoreError,
)
from ostiary.secret import generate
from ostiary.session import ParsedSession, parse_session, with_creator
from ostiary.session.model import Session, SignerSubject, Volume
from ostiary.session.pem import certificate_key_hash
from ostiary.session.signed import VerifiedSigners
from ostiary.store import Expect, Write

MAX_TRIES = 8
"""How often an upload is judged anew because what it was judged by changed before it was stored."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """session_hash: 32 bytes. warnings: of the checks, for the author."""

    session_hash: bytes
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class _Permit:
    """The upload may be stored if all of `expect` holds, together with `writes`. current: what it replaces."""

    current: StoredSession | None
    expect: tuple[Expect, ...] = ()
    writes: tuple[Write, ...] = ()


async def upload_session(cas: Cas, text: bytes, caller: Caller | None) -> Uploaded:
    """Make `text` the current version of the session that it names.

    Guarantees on return: the version is durable; it follows exactly the version that `predecessor` names, whose access
    policy admitted the caller, or it is the first, and the namespace that it is created in admitted the caller and had
    the hash that `namespace_hash` names; all that was so at the very commit; its secrets exist. On any error nothing
    has changed; what was written into a key vault meanwhile is named by nothing. Two uploads with the same predecessor:
    one wins, the other gets ConflictError.

    Raises SessionFormatError, TooLargeError (not a session), IdentityRequiredError, NotAuthorizedError (may not),
    NotFoundError (predecessor of nothing, no such namespace), ConflictError (not the current version),
    SecretUnavailableError (a key vault does not give or take a value), StoreError.
    """
    return await store_upload(cas, await asyncio.to_thread(_read, text, caller), caller)


async def store_upload(cas: Cas, parsed: ParsedSession, caller: Party) -> Uploaded:
    """As `upload_session`, of a session that was read and whose creator was judged: `caller` is who uploads it."""
    if isinstance(caller, VerifiedSigners) and not hmac.compare_digest(caller.session_hash, parsed.hash):
        raise ValueError("signatures of another session than the one to be stored")
    for _ in range(MAX_TRIES):
        await cas.sessions.prepare(parsed.session.name, parent_of(parsed.session.name) or ROOT)
        permit = _permit(cas, parsed, caller)
        try:
            await _store(cas, parsed, caller, permit)
        except ConflictError:
            continue
        return Uploaded(session_hash=parsed.hash, warnings=parsed.warnings)
    raise ConflictError(
        f"session {parsed.session.name} or its namespace changes faster than this upload can be judged", "try again"
    )


def _permit(cas: Cas, parsed: ParsedSession, caller: Party) -> _Permit:
    name = parsed.session.name
    current = cas.sessions.current(name)
    _check_succession(parsed, current)
    if current is None:
        return _permit_creation(cas, parsed, caller)
    policy = access_policy_of(cas, current)
    authorize(
        Operation.UPDATE,
        policy.thing,
        session=name,
        creator=current.creator,
        caller=caller,
    )
    # After the rights: whoever has none must not find out by trying whether a hash is the right one.
    _check_predecessor(parsed, current)
    if name != ROOT or current.record:
        return _Permit(current=current, expect=policy.rests_on)
    if cas.sessions.root_is_sealed:
        raise NotAuthorizedError(
            f"You have insufficient rights to update session {ROOT}",
            "the root namespace is sealed: other sessions were created before anybody updated it",
        )
    return _Permit(current=current, expect=(*policy.rests_on, cas.sessions.root_is_not_sealed))


def _permit_creation(cas: Cas, parsed: ParsedSession, caller: Party) -> _Permit:
    name = parsed.session.name
    namespace_name = parent_of(name) or ROOT
    namespace = cas.sessions.current(namespace_name)
    if namespace is None:
        raise NotFoundError(
            f"Failed to create session '{name}': Namespace not found",
            f"there is no session {namespace_name}, which is its namespace; create that first",
        )
    policy = access_policy_of(cas, namespace)
    authorize(
        Operation.CREATE_SESSIONS,
        policy.thing,
        session=namespace_name,
        creator=namespace.creator,
        caller=caller,
    )
    _check_namespace_hash(parsed, namespace)
    if not namespace.has_values:
        raise RefusedError(
            f"Failed to create session '{name}'",
            f"the values of its namespace {namespace_name} cannot be had from their key vault",
            "ask those who may read it",
        )
    unclaimed = namespace_name == ROOT and not namespace.record
    if unclaimed and cas.sessions.root_is_sealed:
        return _Permit(current=None)
    writes = (cas.sessions.seal_root(),) if unclaimed else ()
    return _Permit(current=None, expect=policy.rests_on, writes=writes)


def _check_namespace_hash(parsed: ParsedSession, namespace: StoredSession) -> None:
    wanted = parsed.session.namespace_hash
    if wanted is not None and not hmac.compare_digest(wanted, namespace.parsed.hash):
        raise ConflictError(
            f"Failed to create session '{parsed.session.name}'",
            f"namespace_hash {wanted.hex()} is not the hash of the current version of its namespace "
            f"{namespace.parsed.session.name}",
            "read the namespace again, see whether you still trust it, and retry with its hash",
        )


async def _store(cas: Cas, parsed: ParsedSession, caller: Party, permit: _Permit) -> None:
    """Raises ConflictError: something changed since `permit` was given."""
    name = parsed.session.name
    current = None if permit.current is None else await _readable(cas, permit.current, parsed.session)
    salted = parsed.session.salt is not None or (current is not None and await cas.sessions.is_salted(current))
    values = await asyncio.to_thread(
        generate,
        parsed.session,
        previous={} if current is None else current.values,
        previous_session=None if current is None else current.parsed.session,
        random=cas.random,
        now=cas.now(),
    )
    kind = Kind.SESSION_CREATED if current is None else Kind.SESSION_UPDATED
    # Without a salt the hash would let everyone who reads the log try what the secrets in the text might be.
    hashed = {"session_hash": parsed.hash.hex()} if salted else {}
    leaf = entry(kind, {"session": name, **_by(caller), **hashed}, cas.now(), cas.random)
    async with cas.files.succeeding(None if current is None else current.parsed.session, parsed.session) as files:
        kept = all_values(values, _volume_keys(cas, parsed.session, current, files))
        writes = upload_writes(
            parsed,
            creator=caller.key_hash if isinstance(caller, Caller) else None,
            # A vault has them before the record says so: what fails now leaves entries that nothing names.
            values=kept
            if parsed.session.secret_store is None
            else await cas.vaults.keep(parsed.session, parsed.hash, kept),
            replaced=current,
            salted=salted,
        )
        writes += [*permit.writes, *files.writes]
        await asyncio.wrap_future(cas.store.commit(writes, leaf, expect=(*permit.expect, *files.expect)))
    log.info("%s %s", kind.value, name)


async def _readable(cas: Cas, current: StoredSession, after: Session) -> StoredSession:
    """The version to be replaced, with its values; the caller was admitted to replace it.

    If its own credentials do not open its key vault any more, those of the next version may: or a session whose
    credentials ran out could never be mended. Raises SecretUnavailableError naming what is missing.
    """
    try:
        current.require_values()
    except SecretUnavailableError:
        if current.in_vault is None or not has_other_credentials(current.parsed.session, after):
            raise
        return current.with_values(await cas.vaults.fetch(after, current.parsed.hash, current.in_vault))
    return current


def _volume_keys(cas: Cas, after: Session, current: StoredSession | None, files: Succession) -> dict[str, bytes]:
    """The keys of volumes that a version has among its values.

    A key stays as long as its volume does not begin anew, also while no version declares it; a session in a key vault
    has one for every volume that needs one, before anything is started.
    """
    before: Mapping[str, bytes] = {} if current is None else current.volume_keys
    keys: dict[str, bytes] = {name: key for name, key in before.items() if name not in files.dropped}
    keys.update(files.moved)
    for name in sorted(files.elsewhere - keys.keys()):
        raise StoreError(f"the key of volume {name!r} of session {after.name} is nowhere; restore the record")
    if after.secret_store is not None:
        for volume in after.volumes:
            if isinstance(volume, Volume) and volume.fspf_key is None and volume.name not in keys:
                keys[volume.name] = cas.random(KEY_BYTES)
    return keys


def _by(caller: Party) -> dict[str, str | list[str]]:
    """Who uploaded, for the audit log: SHA-256 of SubjectPublicKeyInfo, of a TLS client or of each signer."""
    match caller:
        case Caller():
            return {"by": caller.key_hash.hex()}
        case VerifiedSigners():
            return {"signers": sorted(hashlib.sha256(key).hexdigest() for key in caller.keys)}
        case None:
            return {}


def _read(text: bytes, caller: Caller | None) -> ParsedSession:
    written = parse_session(text)
    named = written.session.creator
    if isinstance(named, SignerSubject):
        raise InputError(
            "creator is a signer, and this upload carries no signatures",
            "leave `creator` out, and the service records your client certificate; or sign it, `session sign`",
        )
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


def _check_succession(parsed: ParsedSession, current: StoredSession | None) -> None:
    """A predecessor is named if there is one, and only then."""
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


def _check_predecessor(parsed: ParsedSession, current: StoredSession) -> None:
    # It is there, as `_check_succession` has seen; what is not there equals nothing.
    name, predecessor = parsed.session.name, parsed.session.predecessor or b""
    if not hmac.compare_digest(predecessor, current.parsed.hash):
        raise ConflictError(
            f"Failed to update session '{name}'",
            f"predecessor {predecessor.hex()} is not the hash of the current version",
            "read the session again, merge, and retry with the new hash",
        )
