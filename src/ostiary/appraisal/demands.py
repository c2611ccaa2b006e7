"""What a session may demand and no evidence understood here can show: it is refused, never taken for given. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ostiary.errors import AppraisalRefusedError, Mismatch
from ostiary.session.model import SecurityAttestation, Service


def refuse_unprovable(service: Service, security: SecurityAttestation, *, singleton_enclaves: bool) -> None:
    """Guarantees on return: the session demands neither a provably fresh instance nor local attestation.

    With `mode: none` there is no evidence, and `singleton_enclaves` has no effect, as the upload warned. Local
    attestation is a demand on the service's own machine and is refused in every mode.
    Raises AppraisalRefusedError with every demand. Source: session language, 12.5, 12.9.
    """
    mismatches = tuple(unprovable(security, singleton_enclaves=singleton_enclaves))
    if mismatches:
        raise AppraisalRefusedError(
            f"service {service.name}: the session demands what evidence cannot show here", mismatches
        )


def unprovable(security: SecurityAttestation, *, singleton_enclaves: bool) -> Iterator[Mismatch]:
    """Every such demand of the session."""
    if singleton_enclaves and security.mode != "none":
        yield Mismatch(
            factor="singleton_enclaves",
            found="evidence that cannot prove a fresh and unused instance",
            expected="such a proof, which no platform known to this version gives",
            advice="take singleton_enclaves: true out of security to admit instances without it",
        )
    if security.must_be_sgx_local is not False:
        yield Mismatch(
            factor="must_be_sgx_local",
            found="remote attestation, while this CAS has no SGX enclave of its own to attest locally with,",
            expected="SGX local attestation",
            advice="take must_be_sgx_local: true out of security.attestation to attest remotely",
        )
