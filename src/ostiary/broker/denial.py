"""Refusals of programs: readers of the session learn the whole reason, the program what it can mend on its side."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ostiary.appraisal.advice import Refused, advise
from ostiary.appraisal.form import write_advice, write_claims, write_report
from ostiary.appraisal.patch import patch_text
from ostiary.broker.admission import Admission
from ostiary.broker.cas import Cas, log
from ostiary.broker.denial_records import FORM, MAX_DENIAL_BYTES, format_time
from ostiary.broker.session_records import StoredSession
from ostiary.errors import (
    AppraisalRefusedError,
    EvidenceFormatError,
    KeysUnavailableError,
    OstiaryError,
    RefusedError,
    SecretUnavailableError,
    VolumeUnavailableError,
)
from ostiary.evidence.claims import Claims

MAX_REASONS = 32
MAX_REASON_CHARACTERS = 500
"""Of each; where they are too long together, the first one is kept."""
MAX_PATCH_BYTES = 4 * 1024
_VARIANTS_TOLD = (16, 8, 4, 2, 1)
"""How many variants are kept: the first number with which the denial has at most MAX_DENIAL_BYTES."""


class DeniedRelease(Exception):  # noqa: N818 - the outcome of a request, not a fault
    """A release was refused. `denial` is the id under which the whole reason is kept; `told` is for the peer."""

    def __init__(self, denial: str, told: OstiaryError) -> None:
        super().__init__(denial)
        self.denial = denial
        self.told = told


@dataclass(kw_only=True)
class Attempt:
    """How far a start has come, filled in on the way.

    stage: what is judged: `challenge`, `admission` (of the session itself), `password`, `token`, `evidence`,
    `appraisal`, `configuration`, `file` or `volume`. claims: of evidence that was found authentic. binding: as of
    `appraise`.
    """

    session: str
    service: str
    stage: str = "challenge"
    stored: StoredSession | None = None
    admission: Admission | None = None
    claims: Claims | None = None
    binding: bytes = b""

    @property
    def service_id(self) -> str:
        return f"{self.session}/{self.service}"


async def deny(cas: Cas, attempt: Attempt, refusal: RefusedError | EvidenceFormatError) -> DeniedRelease:
    """Log and keep the refusal of a program, and make of it what that program is told.

    Nothing is kept for a session or service that does not exist, nor beyond the bounds of `denial_records`. The log has
    every denial.
    """
    if attempt.stored is None:
        await cas.sessions.prepare(attempt.session)
        attempt.stored = cas.sessions.current(attempt.session)
    denial = _keep(cas, attempt, attempt.stored, refusal)
    log.warning("denied %s, denial %s: %s", attempt.service_id, denial, refusal)
    return DeniedRelease(denial, _for_the_peer(refusal))


def _keep(cas: Cas, attempt: Attempt, stored: StoredSession | None, refusal: RefusedError | EvidenceFormatError) -> str:
    """The id of the denial, which is kept if it may be."""
    denial = cas.random(8).hex()
    if stored is None or all(service.name != attempt.service for service in stored.parsed.session.services):
        return denial
    same = hashlib.sha256(
        json.dumps([stored.parsed.hash.hex(), attempt.session, attempt.service, attempt.stage, *refusal.chain]).encode()
    ).digest()
    known = cas.denials.repeated(same)
    if known is None and cas.denials.has_room(attempt.session, authentic=attempt.claims is not None):
        cas.denials.add(_document(cas, denial, attempt, stored, refusal), fingerprint=same)
    elif known is None:
        cas.denials.count((attempt.session, attempt.service, attempt.stage))
    cas.denials.settle()
    return known or denial


def _document(
    cas: Cas, denial: str, attempt: Attempt, stored: StoredSession, refusal: RefusedError | EvidenceFormatError
) -> dict[str, Any]:
    """What readers of the session may know. docs/denials.md has its form."""
    now = format_time(cas.now())
    document: dict[str, Any] = {
        "form": FORM,
        "id": denial,
        "time": now,
        "last_time": now,
        "times": 1,
        "session": attempt.session,
        "session_hash": stored.parsed.hash.hex(),
        "service": attempt.service,
        "stage": attempt.stage,
        "reasons": [reason[:MAX_REASON_CHARACTERS] for reason in refusal.chain[:MAX_REASONS]],
        "evidence": None if attempt.claims is None else write_claims(attempt.claims),
        "report": None,
        "advice": None,
    }
    if _size(document) > MAX_DENIAL_BYTES:
        document["reasons"] = document["reasons"][:1]
    admission = attempt.admission
    if not isinstance(refusal, AppraisalRefusedError) or attempt.claims is None or admission is None:
        return document
    refused = Refused(
        claims=attempt.claims,
        written=stored.parsed,
        service=admission.service,
        security=admission.security,
        binding=attempt.binding,
        now=cas.now(),
        singleton_enclaves=admission.singleton_enclaves,
    )
    return _explained(document, refused)


def _explained(document: dict[str, Any], refused: Refused) -> dict[str, Any]:
    """With report and advice, as much of them as there is room for."""
    report, advice = refused.report(), advise(refused)
    patch = patch_text(refused.written.normal, advice.operations)
    told = {**write_advice(advice), "patch": patch if len(patch.encode()) <= MAX_PATCH_BYTES else ""}
    for most in _VARIANTS_TOLD:
        explained = {**document, "report": write_report(report, most_variants=most), "advice": told}
        if _size(explained) <= MAX_DENIAL_BYTES:
            break
    return explained if _size(explained) <= MAX_DENIAL_BYTES else document


def _size(document: dict[str, Any]) -> int:
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _for_the_peer(refusal: RefusedError | EvidenceFormatError) -> OstiaryError:
    """What the program on the other side may learn: what it showed, not what would have been admitted."""
    if isinstance(refusal, SecretUnavailableError | VolumeUnavailableError | KeysUnavailableError):
        return RefusedError(refusal.message, "ask those who may read the session; the service's log has the reason")
    if not isinstance(refusal, AppraisalRefusedError):
        return refusal
    return RefusedError(
        refusal.message,
        *(f"{mismatch.factor}: {mismatch.found} is not admitted" for mismatch in refusal.mismatches),
    )
