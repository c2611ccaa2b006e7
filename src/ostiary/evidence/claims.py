"""Verified evidence in one common form, the same for every TEE. Only `evidence/*/verify.py` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias, TypedDict

Tee: TypeAlias = Literal["sgx", "tdx", "snp", "nitro", "tpm"]
JsonValue: TypeAlias = "bool | int | str | list[JsonValue] | dict[str, JsonValue] | None"

IDENTITIES: Mapping[Tee, str] = {
    "sgx": "mrenclave",
    "tdx": "mrtd",
    "snp": "measurement",
    "nitro": "pcr0",
    "tpm": "pcrs",
}
"""Which of its measurements stands for the program of a TEE."""


class ProgramClaims(TypedDict):
    """The claims that are a program's own, not its platform's: members of `Claims` by their names."""

    measurements: Mapping[str, bytes]
    signer: bytes | None
    product_id: int | None
    svn: int | None
    report_data: bytes
    raw: Mapping[str, JsonValue]


MAA_MANAGED = "MaaManaged"
"""The `tcb_status` of claims whose platform was judged by Microsoft's attestation service, which does not say how."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a verified statement says. Authentic under a configured root; nobody has judged yet whether to accept it.

    tee: what made it. measurements: digests by the names that the session language has for them; `IDENTITIES` says
    which names the program:
        sgx    mrenclave 32
        tdx    mrtd, rtmr0 to rtmr3, mrseam, mrsignerseam, mrconfigid, mrowner, mrownerconfig, mrservicetd; 48 each
        snp    measurement 48, host_data 32, id_key_digest 48, author_key_digest 48, family_id 16, image_id 16
        nitro  pcr0 to pcr31 as far as the document has them, 48 each (of SHA-384)
        tpm    pcrs: the quoted digest over all selected; sha256:0 and so on: one PCR of one bank. Azure's vTPM adds
               these to the measurements of SNP and TDX
    signer: who signed the program: of SGX the mrsigner, 32 bytes; of SNP the id_key_digest; of Nitro PCR8; None if
    nobody did. product_id, svn: 0 to 2^32 - 1, None where the TEE has none.
    events: what was extended into PCRs, by the names that they have in the measurements, in order, one digest or more;
    of those whose quoted value the event log leads to.
    report_data: what the program bound into the evidence: 64 bytes of SGX, TDX and SNP; of Nitro the user data; of TPM
    and Azure's vTPM the nonce, at most 66 bytes.
    debug: the program's memory is open to its host: a debug enclave or guest, or any evidence of a software root.
    conditions: what vendors' tools refuse by themselves and a session may tolerate by the same name:
        sept-ve-disable-off  of TDX: the host may make the guest take page faults that it does not expect
        service-td           of TDX: another TD is bound to this one, which may migrate it
        migration-agent      of SNP: a migration agent may be given the guest's keys
        sha1                 of TPM: the quote rests on SHA-1
    software: made under a root that the CAS owner configured as a software platform; such claims always carry `debug`.
    tcb_status: Intel's word, such as `UpToDate`, or MAA_MANAGED; of others `UpToDate`, if the endorsements say nothing
    against it. advisories: ids of the TCB level. tcb_date: its date, None if unknown.
    superseded: of a platform that is out of date: the date of the oldest TCB level that is newer than its own, of the
    part for which that is earliest; None for any other platform, and where the endorsements do not say. mended: those
    of `advisories` that the newest levels do not have any more.
    issued: when the oldest was issued of the vendor's statements that have a date and are renewed: of Intel's TCB info,
    QE identity and revocation list of PCKs; AMD's revocation lists; of Nitro and MAA the evidence itself. None: none.
    platform_id: hex text that names the machine: the PPID or, without one, the FMSPC; the chip id; of TPM the SHA-256
    of the AK; "" if unknown.
    qe_id: 16 bytes by which Intel's quoting enclave names itself and its machine, the same in all of its quotes; None
    where the evidence has no such thing.
    attestation_service: https address of the service that verified the evidence in our place; None: we did.
    raw: every field of the statement by the vendor's name, bytes as hex, for people and for rules beyond these.
    """

    tee: Tee
    measurements: Mapping[str, bytes]
    signer: bytes | None
    product_id: int | None
    svn: int | None
    report_data: bytes
    debug: bool
    software: bool
    tcb_status: str
    advisories: frozenset[str]
    tcb_date: datetime | None
    platform_id: str
    qe_id: bytes | None = None
    conditions: frozenset[str] = frozenset()
    attestation_service: str | None = None
    superseded: datetime | None = None
    mended: frozenset[str] = frozenset()
    issued: datetime | None = None
    events: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    raw: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def has_vtpm(self) -> bool:
        """A guest with a TPM of its cloud, as Azure's: its own system is told by the PCRs, the firmware by the rest."""
        return self.tee in ("snp", "tdx") and IDENTITIES["tpm"] in self.measurements

    @property
    def identity(self) -> bytes:
        """The measurement that stands for the program."""
        return self.measurements[IDENTITIES[self.tee]]
