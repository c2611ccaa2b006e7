"""Refusals of programs: the whole reason goes to the log, the program learns what it can mend on its side."""

from __future__ import annotations

from ostiary.broker.cas import Cas, log
from ostiary.errors import (
    AppraisalRefusedError,
    EvidenceFormatError,
    KeysUnavailableError,
    OstiaryError,
    RefusedError,
    SecretUnavailableError,
    VolumeUnavailableError,
)


class DeniedRelease(Exception):  # noqa: N818 - the outcome of a request, not a fault
    """A release was refused. `denial` is the id under which the log has the whole reason; `told` is for the peer."""

    def __init__(self, denial: str, told: OstiaryError) -> None:
        super().__init__(denial)
        self.denial = denial
        self.told = told


def deny(cas: Cas, service_id: str, refusal: RefusedError | EvidenceFormatError) -> DeniedRelease:
    """Log the refusal of a program of SESSION/SERVICE, and make of it what that program is told."""
    denial = cas.random(8).hex()
    log.warning("denied %s, denial %s: %s", service_id, denial, refusal)
    return DeniedRelease(denial, _for_the_peer(refusal))


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
