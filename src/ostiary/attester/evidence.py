"""What an attester brings back. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Bytes for the service to verify; nobody has looked at them yet.

    tee: "sgx", also for the software platform. evidence: a DCAP quote. endorsements: its collateral, JSON text.
    tee: "tpm". evidence, endorsements: JSON text, see docs/enclave-protocol.md.
    """

    tee: str
    evidence: bytes
    endorsements: bytes
