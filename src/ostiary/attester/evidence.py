"""What an attester brings back. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Bytes for the service to verify; nobody has looked at them yet.

    tee: "sgx", also for the software platform, "tdx", "snp", "nitro" or "tpm". evidence, endorsements: of the forms
    that docs/enclave-protocol.md, section 2, has for each.
    """

    tee: str
    evidence: bytes
    endorsements: bytes
