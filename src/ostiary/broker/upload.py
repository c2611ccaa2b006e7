"""Create or update a session: one operation, as the API has one request for both."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.audit import Kind, entry
from ostiary.audit.entry import Json
from ostiary.board import Caller, Operation, Party, authorize
from ostiary.board.count import compiled_rule
from ostiary.broker.admission import access_policy_of, policy_board_of
from ostiary.broker.cas import Cas, log
from ostiary.broker.children import created_write
from ostiary.broker.file_records import Succession
from ostiary.broker.file_state import KEY_BYTES
from ostiary.broker.key_vaults import has_other_credentials
from ostiary.broker.namespace import ROOT, parent_of
from ostiary.broker.permit import Permit, as_stored, permit
from ostiary.broker.session_records import StoredSession, all_values, upload_writes
from ostiary.errors import (
    ConflictError,
    Finding,
    IdentityRequiredError,
    InputError,
    NotAuthorizedError,
    RefusedError,
    SecretUnavailableError,
    StoreError,
)
from ostiary.secret import generate
from ostiary.session import ParsedSession, parse_session, with_creator
from ostiary.session.model import AccessPolicy, PolicyBoard, Session, SignerSubject, Volume
from ostiary.session.pem import certificate_key_hash
from ostiary.session.signed import VerifiedSigners
from ostiary.store import Expect, Head, Write

MAX_TRIES = 8
"""How often an upload is judged anew because what it was judged by changed before it was stored."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """session_hash: 32 bytes. warnings: of the checks, for the author."""

    session_hash: bytes
    warnings: tuple[Finding, ...]


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
    return await store_upload(cas, await asyncio.to_thread(read_upload, text, caller), caller)


async def store_upload(cas: Cas, parsed: ParsedSession, caller: Party) -> Uploaded:
    """As `upload_session`, of a session that was read and whose creator was judged: `caller` is who uploads it."""
    if isinstance(caller, VerifiedSigners) and not hmac.compare_digest(caller.session_hash, parsed.hash):
        raise ValueError("signatures of another session than the one to be stored")
    judge = _Uploader(cas, caller)
    by = _by(caller)
    creator = caller.key_hash if isinstance(caller, Caller) else None
    for _ in range(MAX_TRIES):
        await prepare(cas, parsed)
        with cas.store.one_look():
            found = permit(cas, parsed, judge)
        try:
            await store_version(cas, parsed, found, creator=creator, by=by)
        except ConflictError:
            continue
        return Uploaded(session_hash=parsed.hash, warnings=parsed.warnings)
    raise ConflictError(
        f"session {parsed.session.name} or its namespace changes faster than this upload can be judged", "try again"
    )


async def prepare(cas: Cas, parsed: ParsedSession) -> None:
    """Read beforehand what `permit` looks at, so that nobody else waits for it."""
    name = parsed.session.name
    exporters = () if parsed.session.policy_board is None else as_stored(parsed, None).exporters
    await cas.sessions.prepare(name, parent_of(name) or ROOT, *exporters)


class _Uploader:
    """The judge of an upload: an access policy says who may, by TLS identity or signatures.

    Where a policy board decides, only the signatures that its rule asks for do, and never a TLS identity.
    """

    def __init__(self, cas: Cas, caller: Party) -> None:
        self._cas = cas
        self._caller = caller

    def admit(self, operation: Operation, judged: StoredSession) -> tuple[Expect, ...]:
        name = judged.parsed.session.name
        if judged.parsed.session.board_decides(operation.value):
            board = policy_board_of(self._cas, judged)
            self._require_rule(board.thing, operation, name, "its policy board decides that")
            return board.rests_on
        policy = access_policy_of(self._cas, judged)
        authorize(operation, policy.thing, session=name, creator=judged.creator, caller=self._caller)
        return policy.rests_on

    def found(self, founded: StoredSession) -> tuple[Expect, ...]:
        board = policy_board_of(self._cas, founded)
        because = "a policy board must itself approve the first version that names it"
        self._require_rule(board.thing, Operation.UPDATE, founded.parsed.session.name, because)
        return board.rests_on

    def _require_rule(self, board: PolicyBoard, operation: Operation, session: str, because: str) -> None:
        rule = compiled_rule(board)
        decided = AccessPolicy(read=(), update=rule, create_sessions=rule)
        try:
            authorize(operation, decided, session=session, creator=None, caller=self._caller)
        except RefusedError as error:
            ways = "" if rule else "; an upload carries no decision of this board, whoever signed it"
            raise NotAuthorizedError(
                error.message,
                f"{because}, {board.tolerated_faults + 1} of {len(board.members)} members together{ways}",
                "propose the version: `ostiary board propose`, or POST /v1/proposals",
            ) from None


async def store_version(
    cas: Cas,
    parsed: ParsedSession,
    found: Permit,
    *,
    creator: bytes | None,
    by: Mapping[str, Json],
    writes: tuple[Write, ...] = (),
) -> Head:
    """Make `parsed` the current version as `found` permits, in one commit with `writes`. Returns what that gave.

    creator: key hash of the TLS client. by: who did it, for the audit log.
    Raises ConflictError: something changed since `found` was; SecretUnavailableError, StoreError. Nothing is stored.
    """
    name = parsed.session.name
    current = None if found.current is None else await _readable(cas, found.current, parsed.session)
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
    leaf = entry(kind, {"session": name, **by, **hashed}, cas.now(), cas.random)
    async with cas.files.succeeding(None if current is None else current.parsed.session, parsed.session) as files:
        kept = all_values(values, _volume_keys(cas, parsed.session, current, files))
        all_writes = upload_writes(
            parsed,
            creator=creator,
            # A vault has them before the record says so: what fails now leaves entries that nothing names.
            values=kept
            if parsed.session.secret_store is None
            else await cas.vaults.keep(parsed.session, parsed.hash, kept),
            replaced=current,
            salted=salted,
        )
        all_writes += [*found.writes, *files.writes, *writes]
        if current is None and name != ROOT:
            all_writes.append(created_write(cas.store, name))
        head = await asyncio.wrap_future(cas.store.commit(all_writes, leaf, expect=(*found.expect, *files.expect)))
    log.info("%s %s", kind.value, name)
    return head


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


def read_upload(text: bytes, caller: Caller | None) -> ParsedSession:
    """The session of an upload without signatures, with `caller` as its creator where it names CREATOR.

    Raises SessionFormatError, TooLargeError, InputError (another creator), IdentityRequiredError.
    """
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
