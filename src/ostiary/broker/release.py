"""Release a configuration to a program that has proved what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ostiary.appraisal import AttestationResult, admit_unattested, appraise, refuse_unprovable
from ostiary.attester.binding import qualifying_data, report_data
from ostiary.audit import Kind, entry
from ostiary.broker.access_token import answer_token_proof
from ostiary.broker.admission import Admission, admission_of
from ostiary.broker.attestation_token import claims_of_token
from ostiary.broker.cas import Cas, log
from ostiary.broker.configure import MAX_FILES_BYTES, Configuration, configure, templates_of
from ostiary.broker.denial import Attempt, deny
from ostiary.broker.file_state import Report
from ostiary.broker.file_systems import Grant, file_systems, has_file_systems
from ostiary.broker.last_evidence import FORESEEN, LastEvidence
from ostiary.broker.memory import Made
from ostiary.broker.one_time_password import spend_one_time_password
from ostiary.broker.outside import Errands
from ostiary.broker.renewal import renewal_writes
from ostiary.broker.resolution import Resolution
from ostiary.broker.session_records import StoredSession
from ostiary.errors import ConflictError, EvidenceFormatError, NotFoundError, RefusedError, ReleaseRefusedError
from ostiary.evidence.claims import Claims
from ostiary.evidence.endorsements.choice import Chosen
from ostiary.evidence.verifier import TEES
from ostiary.secret import secrets_used
from ostiary.session.model import Service, Session, Variable
from ostiary.store import Expect, Write

MAX_TRIES = 8
"""How often a release begins anew because a session that it rests on changed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a program says of itself on one TLS connection.

    client_spki, server_spki: DER SubjectPublicKeyInfo that each end showed in this connection's handshake. nonce: 32
    bytes. tee: of `evidence.verifier.TEES`, "maa" or "none". evidence, endorsements: bytes nobody has looked at yet.
    one_time_password: what stood behind the `@`, None without one. access_token_proof: empty if the program sent none.
    """

    session: str
    service: str
    client_spki: bytes
    server_spki: bytes
    client_key_hash: bytes
    nonce: bytes
    tee: str
    evidence: bytes
    endorsements: bytes
    one_time_password: str | None = field(default=None, repr=False)
    access_token_proof: bytes = b""


@dataclass(kw_only=True, eq=False)
class Start:
    """A program that was admitted, for as long as its connection lasts.

    stored: the version of the session that admitted it. software_identity: its measurement, None if it was not
    attested. configuration: what was released to it. access_token_proof: the service's own, 32 bytes, empty where the
    session has no token. waiting: paths of templates that it may still have rendered; room_bytes: what all of them may
    have together. grants: the protected file systems whose changes it may report, by target; reported: its last report
    on the main one.
    """

    stored: StoredSession
    service: Service
    software_identity: bytes | None
    configuration: Configuration
    access_token_proof: bytes
    waiting: set[str]
    room_bytes: int
    grants: Mapping[str, Grant] = field(default_factory=dict)
    reported: Report | None = None

    @property
    def service_id(self) -> str:
        return f"{self.stored.parsed.session.name}/{self.service.name}"

    def attempt(self, stage: str) -> Attempt:
        """What is known of the program when something is refused to it later on."""
        return Attempt(
            session=self.stored.parsed.session.name, service=self.service.name, stage=stage, stored=self.stored
        )


async def release_configuration(cas: Cas, request: Request) -> Start:
    """Decide whether the program behind `request` gets the configuration of its service, and make it.

    Guarantees on return: (1) the nonce was fresh, for this TLS key, and is spent; (2) where the session or service asks
    for a one-time password, the program brought one and it is spent; where it has an access token, the program has
    proved to have it; (3) the evidence is authentic under a configured root, or by the attestation service that the
    session names, and bound to this connection; (4) the session admits it, in the version that was current when the
    release was written down, and so were all records that its variables and imports rest on; (5) the release stands
    durably in the audit log; (6) every volume and main file system is told with its recorded state.
    They are judged in this order, and what fails ends it: a one-time password is spent even if the evidence is refused.
    Kept endorsements that were looked for are among what the release is committed on; a refusal is told only if, by a
    look at the database after it, what it rests on still stands.
    Does not guarantee that the program is free of faults, nor that it keeps what it receives.

    Raises DeniedRelease (challenge, password, token, evidence, appraisal, or a configuration that cannot be made),
    NotFoundError (no such session or service), StoreError.
    """
    attempt = Attempt(session=request.session, service=request.service)
    try:
        cas.challenges.spend(request.nonce, request.client_key_hash, cas.now())
        password = _Password(cas, request)
        errands = cas.outside.errands()
        for _ in range(MAX_TRIES):
            # Without a look: what is released is committed on these grounds, what is refused is looked at once more.
            await cas.sessions.prepare(request.session, looking=False)
            attempt.stored = stored = cas.sessions.prepared(request.session)
            grounds = {stored.is_current}
            try:
                service = _service(stored.parsed.session, request.service)
                attempt.stage = "admission"
                admission = admission_of(cas, stored, service)
                grounds.update(admission.rests_on)
                attempt.admission, attempt.stage = admission.thing, "password"
                await password.spend(admission.thing.one_time_password_secret)
                attempt.stage = "token"
                proof = _prove_token(admission.thing, request)
                result = await _attest(cas, stored.parsed.session, admission.thing, request, attempt, grounds)
                attempt.stage = "configuration"
                return await _release(cas, stored, service, result, proof, grounds, errands)
            except ConflictError:
                errands.forget()
            except (RefusedError, EvidenceFormatError, NotFoundError):
                cas.store.look()
                if cas.store.holds(grounds):
                    raise
                errands.forget()
        raise ReleaseRefusedError(
            f"session {request.session} changes faster than it can be released", "start the program again"
        )
    except (RefusedError, EvidenceFormatError) as refusal:
        raise await deny(cas, attempt, refusal) from refusal


def _service(session: Session, name: str) -> Service:
    for service in session.services:
        if service.name == name:
            return service
    raise NotFoundError(f"session {session.name} has no service {name!r}")


class _Password:
    """The one-time password of a request, which is spent once, however often the release begins anew."""

    def __init__(self, cas: Cas, request: Request) -> None:
        self._cas = cas
        self._request = request
        self._spent_under: bytes | None = None

    async def spend(self, secret: bytes | None) -> None:
        """Spend it under the shared secret of the newest version, unless that was done. Raises as `spend_…`."""
        if secret is not None and secret == self._spent_under:
            return
        await spend_one_time_password(
            self._cas,
            session=self._request.session,
            service=self._request.service,
            secret=secret,
            password=self._request.one_time_password,
        )
        self._spent_under = secret


def _prove_token(admission: Admission, request: Request) -> bytes:
    return answer_token_proof(
        admission.access_token,
        request.access_token_proof,
        nonce=request.nonce,
        client_spki=request.client_spki,
        server_spki=request.server_spki,
    )


async def _attest(
    cas: Cas, session: Session, admission: Admission, request: Request, attempt: Attempt, grounds: set[Expect]
) -> AttestationResult:
    """grounds: gets what the result rests on besides."""
    service, security = admission.service, admission.security
    attempt.stage = "evidence"
    if security.mode == "none":
        refuse_unprovable(service, security, singleton_enclaves=admission.singleton_enclaves)
        return admit_unattested(service, security)
    if request.tee == "none":
        raise ReleaseRefusedError(
            f"service {session.name}/{service.name} needs evidence and the program sent none",
            "start it where a TEE or the software platform makes evidence, without --no-attestation",
        )
    if (request.tee == "maa") != (security.mode == "maa"):
        wanted = "maa" if security.mode == "maa" else " or ".join(TEES)
        raise ReleaseRefusedError(
            f"service {session.name}/{service.name} needs evidence of kind {wanted}, and the program sent {request.tee}"
        )
    now = cas.now()
    chosen: Chosen | None = None
    if request.tee == "maa":
        claims = await claims_of_token(cas, session.name, security, request.evidence)
    else:
        # A variable in its place refuses the start, whatever the endorsements.
        max_age = None if isinstance(security.max_age, Variable) else security.max_age
        grounds.update(cas.endorsements.grounds(request.tee, request.evidence))
        chosen = await cas.endorsements.choose(request.tee, request.evidence, request.endorsements, max_age=max_age)
        claims = cas.verifier.verify(request.tee, request.evidence, chosen.endorsements, now=chosen.at)
    attempt.claims, attempt.binding, attempt.stage = claims, _binding(request), "appraisal"
    refuse_unprovable(service, security, singleton_enclaves=admission.singleton_enclaves)
    result = appraise(claims, service, security, binding=attempt.binding, now=now)
    if chosen is not None:
        _learn(cas, session, service, request, chosen, claims)
    return result


def _binding(request: Request) -> bytes:
    """What evidence of this TEE must have been made over."""
    data = report_data(nonce=request.nonce, client_spki=request.client_spki, server_spki=request.server_spki)
    return qualifying_data(data) if request.tee == "tpm" else data


def _learn(cas: Cas, session: Session, service: Service, request: Request, chosen: Chosen, claims: Claims) -> None:
    """Keep what the program's platform brought, for others and for a forecast, now that it was admitted."""
    if claims.software:
        return
    cas.endorsements.accept(chosen)
    if request.tee not in FORESEEN:
        return
    cas.last_evidence.note(
        LastEvidence(
            session=session.name,
            service=service.name,
            tee=claims.tee,
            platform=claims.platform_id,
            at=cas.now(),
            evidence=request.evidence,
            sent=request.endorsements if claims.tee == "snp" else b"",
        )
    )


async def _release(
    cas: Cas,
    stored: StoredSession,
    service: Service,
    result: AttestationResult,
    proof: bytes,
    rests_on: Iterable[Expect],
    errands: Errands,
) -> Start:
    """Make the configuration and write the release down, if all is still so that the program was admitted by."""
    stored.require_values()
    session = stored.parsed.session
    identity = None if result.claims is None else result.claims.identity
    made = cas.configurations.recall((session.name, service.name), cas.now())
    writes: tuple[Write, ...] = ()
    if made is None:
        made, writes = await _make(cas, stored, service, identity, errands)
    expect = {*rests_on, *made.rests_on}
    configuration, grants = made.thing, dict[str, Grant]()
    if has_file_systems(session, service):
        files = await errands.with_outside(lambda: file_systems(cas, stored, service, errands))
        configuration = replace(configuration, volumes=files.volumes, main_file_system=files.main)
        grants.update(files.grants)
        writes += files.writes
        expect.update(files.rests_on)
    await asyncio.wrap_future(cas.store.commit(writes, _leaf(cas, stored, service, result), expect=tuple(expect)))
    log.debug("released %s/%s", session.name, service.name)
    return Start(
        stored=stored,
        service=service,
        software_identity=identity,
        configuration=configuration,
        access_token_proof=proof,
        waiting={template.path for template in configuration.templates},
        room_bytes=MAX_FILES_BYTES - sum(len(file.content) for file in configuration.files),
        grants=grants,
    )


async def _make(
    cas: Cas, stored: StoredSession, service: Service, identity: bytes | None, errands: Errands
) -> tuple[Made[Configuration], tuple[Write, ...]]:
    """The configuration, and what must be stored before it is used. It is kept ready if it would be the same again."""

    def attempt() -> tuple[Resolution, Made[Configuration]]:
        resolution = Resolution(cas.sessions, random=cas.random, now=cas.now(), errands=errands)
        return resolution, _configure(resolution, stored, service, identity)

    resolution, made = await errands.with_outside(attempt)
    if resolution.lasting and not resolution.renewals:
        cas.configurations.keep((stored.parsed.session.name, service.name), made)
    return made, await renewal_writes(cas, resolution.renewals)


def _configure(
    resolution: Resolution, stored: StoredSession, service: Service, identity: bytes | None
) -> Made[Configuration]:
    session = stored.parsed.session
    wanted = secrets_used(session, templates_of(session, service))
    values = resolution.released(stored, wanted, software_identity=identity)
    configuration = configure(stored, service, values)
    return Made(thing=configuration, rests_on=resolution.rests_on, until=resolution.until)


def _leaf(cas: Cas, stored: StoredSession, service: Service, result: AttestationResult) -> bytes:
    claims = result.claims
    evidence: dict[str, str | int | list[str]] = (
        {"tee": "none"}
        if claims is None
        else {
            "tee": claims.tee,
            "platform": _platform(claims),
            "measurement": claims.identity.hex(),
            **({} if claims.signer is None else {"signer": claims.signer.hex()}),
            **({} if claims.product_id is None else {"product": claims.product_id}),
            **({} if claims.svn is None else {"svn": claims.svn}),
        }
    )
    data = {
        "session": stored.parsed.session.name,
        "service": service.name,
        "tolerated": list(result.tolerated),
        **evidence,
    }
    return entry(Kind.SERVICE_ATTESTED, data, cas.now(), cas.random)


def _platform(claims: Claims) -> str:
    """What the audit log says of who vouched for the platform: an attestation service by its address."""
    return claims.attestation_service or ("software" if claims.software else "hardware")
