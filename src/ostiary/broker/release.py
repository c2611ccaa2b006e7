"""Release a configuration to a program that has proved what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.appraisal import AttestationResult, admit_unattested, appraise
from ostiary.attester.binding import report_data
from ostiary.audit import Kind, entry
from ostiary.broker.cas import Cas, log
from ostiary.broker.configure import Configuration, configure
from ostiary.broker.session_records import StoredSession, values_write
from ostiary.errors import (
    AppraisalRefusedError,
    ConflictError,
    EvidenceFormatError,
    NotFoundError,
    OstiaryError,
    RefusedError,
    ReleaseRefusedError,
)
from ostiary.secret import CertificateValue, Value, needs_renewal, renew
from ostiary.session.model import Service, Session

MAX_TRIES = 8
"""How often a release begins anew because the session changed before the release could be written down."""


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


class DeniedRelease(Exception):  # noqa: N818 - the outcome of a request, not a fault
    """A release was refused. `denial` is the id under which the log has the whole reason; `told` is for the peer."""

    def __init__(self, denial: str, told: OstiaryError) -> None:
        super().__init__(denial)
        self.denial = denial
        self.told = told


async def release_configuration(cas: Cas, request: Request) -> Configuration:
    """Decide whether the program behind `request` gets the configuration of its service, and make it.

    Guarantees on return: (1) the nonce was fresh, for this TLS key, and is spent; (2) the evidence is authentic under
    a configured root and bound to this connection; (3) the version of the session whose secrets are released admits it,
    and was the current one when (4) the release was written durably into the audit log. Whatever is refused is refused
    before a secret is touched.
    Does not guarantee that the program is free of faults, nor that it keeps what it receives.

    Raises DeniedRelease (challenge, evidence, appraisal, or a configuration that cannot be made), NotFoundError (no
    such session or service), StoreError.
    """
    try:
        cas.challenges.spend(request.nonce, request.client_key_hash, cas.now())
        for _ in range(MAX_TRIES):
            stored = await cas.sessions.require(request.session)
            service = _service(stored.parsed.session, request.service)
            result = _attest(cas, stored.parsed.session, service, request)
            try:
                return await _release(cas, stored, service, result)
            except ConflictError:
                continue
        raise ReleaseRefusedError(
            f"session {request.session} changed {MAX_TRIES} times while it was being released",
            "start the program again",
        )
    except (RefusedError, EvidenceFormatError) as refusal:
        raise _deny(cas, request, refusal) from refusal


def _service(session: Session, name: str) -> Service:
    for service in session.services:
        if service.name == name:
            return service
    raise NotFoundError(f"session {session.name} has no service {name!r}")


def _attest(cas: Cas, session: Session, service: Service, request: Request) -> AttestationResult:
    if session.attestation.mode == "none":
        return admit_unattested(service, session.attestation)
    if request.tee != "sgx":
        raise ReleaseRefusedError(
            f"service {session.name}/{service.name} needs evidence and the program sent none",
            "start it where a TEE or the software platform makes evidence, without --no-attestation",
        )
    claims = cas.verifier.verify(request.evidence, request.endorsements, now=cas.now())
    binding = report_data(nonce=request.nonce, client_spki=request.client_spki, server_spki=request.server_spki)
    return appraise(claims, service, session.attestation, binding=binding)


async def _release(cas: Cas, stored: StoredSession, service: Service, result: AttestationResult) -> Configuration:
    """Raises ConflictError if the session is no longer the version that was judged."""
    values = _renewed(cas, stored)
    writes, expect = [], [stored.still_current]
    if values is stored.values:
        configuration = cas.configurations.of(stored, service)
    else:
        configuration = configure(stored, service, values)
        writes, expect = [values_write(stored, values)], []
    leaf = _leaf(cas, stored, service, result)
    await asyncio.wrap_future(cas.store.commit(writes, leaf, expect=expect))
    log.debug("released %s/%s", stored.parsed.session.name, service.name)
    return configuration


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


def _renewed(cas: Cas, stored: StoredSession) -> Mapping[str, Value]:
    """The session's values, with certificates that are due made anew; the very same object if none is."""
    now = cas.now()
    if not any(isinstance(value, CertificateValue) and needs_renewal(value, now) for value in stored.values.values()):
        return stored.values
    renewed = renew(stored.parsed.session, stored.values, random=cas.random, now=now)
    return stored.values if renewed == stored.values else renewed


def _deny(cas: Cas, request: Request, refusal: RefusedError | EvidenceFormatError) -> DeniedRelease:
    denial = cas.random(8).hex()
    log.warning("denied %s/%s, denial %s: %s", request.session, request.service, denial, refusal)
    return DeniedRelease(denial, _for_the_peer(refusal))


def _for_the_peer(refusal: RefusedError | EvidenceFormatError) -> OstiaryError:
    """What the program on the other side may learn: what it showed, not what would have been admitted."""
    if not isinstance(refusal, AppraisalRefusedError):
        return refusal
    return RefusedError(
        refusal.message,
        *(f"{mismatch.factor}: {mismatch.found} is not admitted" for mismatch in refusal.mismatches),
    )
