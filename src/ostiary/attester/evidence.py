"""What an attester brings back. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Bytes for the service to verify; nobody has looked at them yet.

    tee: "sgx", also for the software platform; "tdx", "snp", "nitro". evidence: a DCAP quote, an SNP report, a Nitro
    document. endorsements: of quotes the collateral, JSON text; of SNP reports certificates, PEM; empty where the
    platform has none or the evidence brings them with it.
    """

    tee: str
    evidence: bytes
    endorsements: bytes
