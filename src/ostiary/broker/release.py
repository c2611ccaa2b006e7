"""Release a configuration to a program that has proved what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ostiary.appraisal import AttestationResult, admit_unattested, appraise
from ostiary.attester.binding import report_data
from ostiary.audit import Kind, entry
from ostiary.broker.admission import Admission, admission_of
from ostiary.broker.cas import Cas, log
from ostiary.broker.configure import MAX_FILES_BYTES, Configuration, configure, templates_of
from ostiary.broker.denial import deny
from ostiary.broker.file_state import Report
from ostiary.broker.file_systems import Grant, file_systems, has_file_systems
from ostiary.broker.memory import Made
from ostiary.broker.resolution import Resolution
from ostiary.broker.session_records import StoredSession
from ostiary.errors import ConflictError, EvidenceFormatError, NotFoundError, RefusedError, ReleaseRefusedError
from ostiary.secret import secrets_used
from ostiary.session.model import Service, Session
from ostiary.store import Expect, Write

MAX_TRIES = 8
"""How often a release begins anew because a session that it rests on changed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a program says of itself on one TLS connection.

    client_spki, server_spki: DER SubjectPublicKeyInfo that each end showed in this connection's handshake. nonce: 32
    bytes. tee: "sgx" or "none". evidence, endorsements: bytes nobody has looked at yet.
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


@dataclass(kw_only=True, eq=False)
class Start:
    """A program that was admitted, for as long as its connection lasts.

    stored: the version of the session that admitted it. software_identity: its measurement, None if it was not
    attested. configuration: what was released to it. waiting: paths of templates that it may still have rendered;
    room_bytes: what all of them may have together. grants: the protected file systems whose changes it may report, by
    target; reported: its last report on the main one.
    """

    stored: StoredSession
    service: Service
    software_identity: bytes | None
    configuration: Configuration
    waiting: set[str]
    room_bytes: int
    grants: Mapping[str, Grant] = field(default_factory=dict)
    reported: Report | None = None

    @property
    def service_id(self) -> str:
        return f"{self.stored.parsed.session.name}/{self.service.name}"


async def release_configuration(cas: Cas, request: Request) -> Start:
    """Decide whether the program behind `request` gets the configuration of its service, and make it.

    Guarantees on return: (1) the nonce was fresh, for this TLS key, and is spent; (2) the evidence is authentic under
    a configured root and bound to this connection; (3) the session admits it, in the version that was current when the
    release was written down, and so were all records that its variables and imports rest on; (4) the release stands
    durably in the audit log; (5) every volume and main file system that it is told of has its recorded state.
    Does not guarantee that the program is free of faults, nor that it keeps what it receives.

    Raises DeniedRelease (challenge, evidence, appraisal, or a configuration that cannot be made), NotFoundError (no
    such session or service), StoreError.
    """
    try:
        cas.challenges.spend(request.nonce, request.client_key_hash, cas.now())
        for _ in range(MAX_TRIES):
            await cas.sessions.prepare(request.session)
            stored = cas.sessions.require(request.session)
            service = _service(stored.parsed.session, request.service)
            admission = admission_of(cas, stored, service)
            result = _attest(cas, stored.parsed.session, admission.thing, request)
            try:
                return await _release(cas, stored, service, result, admission.rests_on)
            except ConflictError:
                continue
        raise ReleaseRefusedError(
            f"session {request.session} changes faster than it can be released", "start the program again"
        )
    except (RefusedError, EvidenceFormatError) as refusal:
        raise deny(cas, f"{request.session}/{request.service}", refusal) from refusal


def _service(session: Session, name: str) -> Service:
    for service in session.services:
        if service.name == name:
            return service
    raise NotFoundError(f"session {session.name} has no service {name!r}")


def _attest(cas: Cas, session: Session, admission: Admission, request: Request) -> AttestationResult:
    service, security = admission.service, admission.security
    if security.mode == "none":
        return admit_unattested(service, security)
    if request.tee != "sgx":
        raise ReleaseRefusedError(
            f"service {session.name}/{service.name} needs evidence and the program sent none",
            "start it where a TEE or the software platform makes evidence, without --no-attestation",
        )
    claims = cas.verifier.verify(request.evidence, request.endorsements, now=cas.now())
    binding = report_data(nonce=request.nonce, client_spki=request.client_spki, server_spki=request.server_spki)
    return appraise(claims, service, security, binding=binding)


async def _release(
    cas: Cas, stored: StoredSession, service: Service, result: AttestationResult, rests_on: tuple[Expect, ...]
) -> Start:
    """Make the configuration and write the release down, if all is still so that the program was admitted by."""
    session = stored.parsed.session
    key, now = (session.name, service.name), cas.now()
    identity = None if result.claims is None else result.claims.mrenclave
    made = cas.configurations.recall(key, now)
    writes: tuple[Write, ...] = ()
    if made is None:
        resolution = Resolution(cas.sessions, random=cas.random, now=now)
        made, writes = _configure(resolution, stored, service, identity), resolution.writes
        if resolution.lasting and not writes:
            cas.configurations.keep(key, made)
    expect = {*rests_on, *made.rests_on}
    configuration, grants = made.thing, dict[str, Grant]()
    if has_file_systems(session, service):
        files = file_systems(cas, stored, service)
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
        waiting={template.path for template in configuration.templates},
        room_bytes=MAX_FILES_BYTES - sum(len(file.content) for file in configuration.files),
        grants=grants,
    )


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
            "platform": "software" if claims.software else "hardware",
            "measurement": claims.mrenclave.hex(),
            "signer": claims.mrsigner.hex(),
            "product": claims.isvprodid,
            "svn": claims.isvsvn,
        }
    )
    data = {
        "session": stored.parsed.session.name,
        "service": service.name,
        "tolerated": list(result.tolerated),
        **evidence,
    }
    return entry(Kind.SERVICE_ATTESTED, data, cas.now())
