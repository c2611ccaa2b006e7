"""Verified evidence in one common form, the same for every TEE. Only `evidence/*/verify.py` builds it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

MAA_MANAGED = "MaaManaged"
"""The `tcb_status` of claims whose platform was judged by Microsoft's attestation service, which does not say how."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a verified statement says. Authentic under a configured root; nobody has judged yet whether to accept it.

    tee: "sgx". mrenclave, mrsigner: 32 bytes. isvprodid, isvsvn: 0 to 65535. report_data: 64 bytes.
    debug: the program's memory is open to its host: a debug enclave, or any evidence of a software root.
    software: made under a root that the CAS owner configured as a software platform; such claims always carry `debug`.
    tcb_status: Intel's word, such as `UpToDate`, or MAA_MANAGED. advisories: ids of the TCB level. tcb_date: its date,
    None if unknown.
    platform_id: hex text that names the machine: the PPID, or the FMSPC where evidence has none.
    qe_id: 16 bytes by which the quoting enclave names itself and its machine, the same in all of its quotes; None where
    the evidence has no such thing.
    attestation_service: https address of the service that verified the evidence in our place; None: we did.
    """

    tee: str
    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    report_data: bytes
    debug: bool
    software: bool
    tcb_status: str
    advisories: frozenset[str]
    tcb_date: datetime | None
    platform_id: str
    qe_id: bytes | None = None
    attestation_service: str | None = None
