"""What a service is admitted by: its attestation and the session's security, with configuration variables resolved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ostiary.board import Caller, Creator, Operation, admits
from ostiary.broker.carried_out import check_release
from ostiary.broker.cas import Cas, log
from ostiary.broker.memory import FOR_EVER, Made
from ostiary.broker.resolution import Resolution
from ostiary.broker.session_records import StoredSession
from ostiary.broker.variables import Lookup, Variables
from ostiary.errors import ReleaseRefusedError, SecretUnavailableError
from ostiary.secret import fragment, secrets_used
from ostiary.session import JsonValue, Template
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CertificateHashSubject,
    CreatorSubject,
    KeySubject,
    PolicyBoard,
    PrivateKeySecret,
    PublicKeySecret,
    SecurityAttestation,
    Service,
    Variable,
    variables_in,
)
from ostiary.session.placeholder import Placeholder
from ostiary.store import Expect

_Part = TypeVar("_Part")

MAX_TOLD = 8
"""Failures that are logged, and variables that are named, at one time."""


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The service with its attestation resolved as far as it can be, and the security section, which has no variable.

    A variable that is left in the attestation fulfils nothing.
    one_time_password_secret: the service's own, else the session's, 16 bytes or more; None: no password is asked for.
    access_token: None: the session has none.
    """

    service: Service
    security: SecurityAttestation
    singleton_enclaves: bool
    one_time_password_secret: bytes | None = field(repr=False)
    access_token: str | None = field(repr=False)


def admission_of(cas: Cas, stored: StoredSession, service: Service) -> Made[Admission]:
    """What admits programs to `service` of a current version of a session, and the records that say so.

    Raises SecretUnavailableError: a variable of `security` that cannot be resolved, which refuses every start of the
    session, or the service's own one-time password secret, for which the session's never stands in;
    ReleaseRefusedError: the session asks for what is not carried out.
    """
    key, now = (stored.parsed.session.name, service.name), cas.now()
    known = cas.admissions.recall(key, now)
    if known is not None:
        return known
    session = stored.parsed.session
    resolution = _resolution(cas)
    variables = Variables(session, _lookup(resolution, stored))
    security, resolved = variables.security(session.security), variables.service(service)
    failures = _few(variables.failures)
    for failure in failures:
        log.warning("session %s, service %s: variable %s", session.name, service.name, failure)
    own_secret = resolved.one_time_password_shared_secret
    left = sorted(str(variable.placeholder) for variable in variables_in((security, own_secret)))
    if left:
        # Nothing is known of the peer yet: it learns that this cannot be resolved, and no name of a secret.
        raise SecretUnavailableError(
            f"service {session.name}/{service.name}: security rests on what cannot be resolved",
            ", ".join(_few(left)),
            *failures,
        )
    attestation = check_release(session, resolved, security)
    section = _without_variable(security)
    secret = attestation.one_time_password_shared_secret if own_secret is None else own_secret
    made = Made(
        thing=Admission(
            service=resolved,
            security=attestation,
            singleton_enclaves=_without_variable(section.singleton_enclaves),
            one_time_password_secret=_without_variable(secret),
            access_token=_without_variable(section.service_access_token),
        ),
        rests_on=(stored.is_current, *resolution.rests_on),
        until=resolution.until,
    )
    if resolution.lasting and not variables.failures:
        cas.admissions.keep(key, made)
    return made


def access_policy_of(cas: Cas, stored: StoredSession) -> Made[AccessPolicy | Variable]:
    """Who may do what with a session, by a version that is current, and the records that say so."""
    policy = stored.parsed.session.access_policy
    if next(variables_in(policy), None) is None:
        return Made(thing=policy, rests_on=(stored.is_current,))
    resolution = _resolution(cas)
    variables = Variables(stored.parsed.session, _lookup(resolution, stored))
    resolved = variables.access_policy(policy)
    for failure in _few(variables.failures):
        log.warning("session %s, access policy: variable %s", stored.parsed.session.name, failure)
    return Made(thing=resolved, rests_on=(stored.is_current, *resolution.rests_on), until=resolution.until)


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Who may read a session by its current version, as far as records say; if there is no session: nobody.

    policy: nothing but the subjects that can admit anybody to read, as what else is in it could be large.
    """

    policy: AccessPolicy
    creator: Creator

    @property
    def size(self) -> int:
        """What it counts among those that are kept: some sessions name thousands."""
        return 1 + len(self.policy.read)

    def admit(self, caller: Caller | None) -> bool:
        """Whether the caller is one of them."""
        return admits(Operation.READ, self.policy, creator=self.creator, caller=caller)


async def readers_of(cas: Cas, name: str) -> Readers:
    """By what the store knows: whoever asks looked at the database for this request before, once for all sessions.

    No key vault is asked: a variable whose value lies in one admits nobody here. So it is made of records alone, and
    kept for as long as they stand. Values of variables are read on a thread.
    """
    known = cas.readers.recall(name, cas.now())
    if known is not None:
        return known.thing
    current = await cas.sessions.as_recorded(name)
    if current is None:
        made = Made(thing=Readers(policy=AccessPolicy(read=()), creator=None), rests_on=(cas.sessions.is_absent(name),))
    else:
        made = await _readers(cas, current)
    cas.readers.keep(name, made)
    return made.thing


async def _readers(cas: Cas, stored: StoredSession) -> Made[Readers]:
    session, whole = stored.parsed.session, stored.parsed.session.access_policy
    policy = whole if isinstance(whole, Variable) else AccessPolicy(read=whole.read)
    rests_on: tuple[Expect, ...] = (stored.is_current,)
    until = FOR_EVER
    wanted = dict.fromkeys(variable.placeholder for variable in variables_in(policy))
    if wanted:
        await cas.sessions.prepare(session.name, looking=False, asking=False)
        resolution = _resolution(cas, vaulted=False)
        look_up = _lookup(resolution, stored)
        variables = Variables(session, _looked_up({one: _outcome(look_up, one) for one in wanted}))
        rests_on, until = (stored.is_current, *resolution.rests_on), resolution.until
        policy = await asyncio.to_thread(variables.access_policy, policy)
        for failure in _few(variables.failures):
            log.info("session %s, readers: variable %s", session.name, failure)
    subjects = () if isinstance(policy, Variable) else policy.read
    kept = AccessPolicy(read=tuple(subject for subject in subjects if isinstance(subject, _READERS)))
    return Made(thing=Readers(policy=kept, creator=stored.creator), rests_on=rests_on, until=until)


_READERS = (AnySubject, CreatorSubject, KeySubject, CertificateHashSubject)
"""What can admit to read; rules and signers never do (`authorize`), nor does a variable that is left."""


def _outcome(look_up: Lookup, placeholder: Placeholder) -> JsonValue | ReleaseRefusedError:
    try:
        return look_up(placeholder)
    except ReleaseRefusedError as error:
        return error


def _looked_up(outcomes: Mapping[Placeholder, JsonValue | ReleaseRefusedError]) -> Lookup:
    """What was looked up before, for a thread, which must not look at records."""

    def look_up(placeholder: Placeholder) -> JsonValue:
        found = outcomes[placeholder]
        if isinstance(found, ReleaseRefusedError):
            raise found
        return found

    return look_up


def policy_board_of(cas: Cas, stored: StoredSession) -> Made[PolicyBoard]:
    """The policy board of a version that is current or about to be, and the records that say who its members are.

    A member whose key cannot be resolved keeps its variable, and is nobody. Raises ValueError for a session without.
    """
    board = stored.parsed.session.policy_board
    if board is None:
        raise ValueError(f"session {stored.parsed.session.name} has no policy board")
    if not any(isinstance(member.signer, Variable) for member in board.members):
        return Made(thing=board, rests_on=(stored.is_current,))
    resolution = _resolution(cas)
    variables = Variables(stored.parsed.session, _lookup(resolution, stored))
    resolved = variables.policy_board(board)
    for failure in _few(variables.failures):
        log.warning("session %s, policy board: variable %s", stored.parsed.session.name, failure)
    return Made(thing=resolved, rests_on=(stored.is_current, *resolution.rests_on), until=resolution.until)


def unmade(board: PolicyBoard, founded: StoredSession) -> frozenset[str]:
    """Names of the members without a key whose keys this version makes itself."""
    made = {name for name, secret in founded.secrets.items() if isinstance(secret, PrivateKeySecret)}
    public = {
        secret.name: secret.private_key for secret in founded.secrets.values() if isinstance(secret, PublicKeySecret)
    }
    return frozenset(
        member.name
        for member in board.members
        if isinstance(member.signer, Variable) and public.get(member.signer.placeholder.name) in made
    )


def _without_variable(part: _Part | Variable) -> _Part:
    """`part`, which was found to be resolved."""
    if isinstance(part, Variable):
        raise ReleaseRefusedError(f"security rests on {part.placeholder}, which is not resolved")
    return part


def _few(texts: list[str]) -> list[str]:
    """As many as a person reads."""
    left = len(texts) - MAX_TOLD
    return texts if left <= 0 else [*texts[:MAX_TOLD], f"and {left} more"]


def _resolution(cas: Cas, *, vaulted: bool = True) -> Resolution:
    """Nothing is made anew to decide who may do what: that waits for a release, which can store it."""
    return Resolution(cas.sessions, random=cas.random, now=cas.now(), renewing=False, vaulted=vaulted)


def _lookup(resolution: Resolution, stored: StoredSession) -> Lookup:
    session = stored.parsed.session

    def look_up(placeholder: Placeholder) -> JsonValue:
        wanted = secrets_used(session, (Template(parts=(placeholder,)),))
        return fragment(resolution.released(stored, wanted), placeholder)

    return look_up
