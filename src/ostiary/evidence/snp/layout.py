"""An SEV-SNP report, versions 2 to 5: bytes to fields. Nothing here is authenticated; `verify` does that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.claims import JsonValue

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
CHIP_ID = slice(0x1A0, 0x1E0)

_SIGNATURE_HALF_BYTES = 72
_NUMBER_BYTES = 48
_ECDSA_P384_SHA384 = 1
_VERSIONS = range(2, 6)
_VERSION_WITH_CPUID = 3
_VERSION_WITH_MITIGATIONS = 5
_POLICY_DEBUG = 1 << 19
_POLICY_MIGRATE = 1 << 18
_POLICY_SMT = 1 << 16
_POLICY_SINGLE_SOCKET = 1 << 20
_SIGNING_KEYS = {0: "VCEK", 1: "VLEK", 7: "none"}
# Family and model of a CPUID to the product whose certificates vouch for it.
_TURIN_FAMILY = 0x1A
_MILAN_FAMILY = 0x19
_LAST_MILAN_MODEL = 0x0F


@dataclass(frozen=True, kw_only=True)
class Report:
    """The fields of a report. Sizes in bytes as in `parse_report`; integers are little-endian there.

    signed: what the signature is over. r, s: the signature. cpuid: family, model, stepping; None before version 3.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    author_key_en: bool
    mask_chip_key: bool
    signing_key: str
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    signed: bytes
    r: int
    s: int

    @property
    def debug(self) -> bool:
        """The host may read and write the guest's memory."""
        return bool(self.policy & _POLICY_DEBUG)

    @property
    def migratable(self) -> bool:
        """The guest may be bound to a migration agent, which can be given its keys."""
        return bool(self.policy & _POLICY_MIGRATE)

    @property
    def product(self) -> str | None:
        """Milan, Genoa or Turin by the CPUID in the report; None where it has none, or a family not known here."""
        if self.cpuid is None:
            return None
        family, model, _ = self.cpuid
        if family == _TURIN_FAMILY:
            return "Turin"
        if family == _MILAN_FAMILY:
            return "Milan" if model <= _LAST_MILAN_MODEL else "Genoa"
        return None


def parse_report(data: bytes) -> Report:
    """Split a report into fields. Authenticates nothing.

    Offsets and sizes in bytes, integers little-endian:
        0x000   4  version, 2 to 5          0x004   4  guest_svn
        0x008   8  policy: ABI minor 7:0 and major 15:8, SMT 16, migration agent 18, debug 19, single socket 20
        0x010  16  family_id                0x020  16  image_id
        0x030   4  vmpl                     0x034   4  signature algorithm = 1, ECDSA P-384 with SHA-384
        0x038   8  current_tcb              0x040   8  platform_info
        0x048   4  author_key_en 0, mask_chip_key 1, signing key 4:2 (0 VCEK, 1 VLEK, 7 none); other bits 0
        0x04C   4  zero
        0x050  64  report_data              0x090  48  measurement
        0x0C0  32  host_data                0x0E0  48  id_key_digest
        0x110  48  author_key_digest        0x140  32  report_id
        0x160  32  report_id_ma             0x180   8  reported_tcb
        0x188   3  CPUID family, model, stepping from version 3 on; then zeros, 21
        0x1A0  64  chip_id                  0x1E0   8  committed_tcb
        0x1E8   8  current and committed versions of the firmware
        0x1F0   8  launch_tcb               0x1F8  16  mitigation vectors from version 5 on
        0x208 152  zero
        0x2A0 144  signature: r and s, 72 bytes each, the last 24 of each zero; then zeros, 368
    The signature is over data[0x000:0x2A0].

    Raises EvidenceFormatError, and nothing else for any input: another length, version or algorithm, reserved bytes
    that are not zero. Source: AMD, SEV Secure Nested Paging Firmware ABI Specification (publication 56860), ATTESTATION
    REPORT structure.
    """
    if len(data) != REPORT_BYTES:
        raise EvidenceFormatError(f"SNP report: {len(data)} bytes, expected {REPORT_BYTES}")
    version = _number(data, 0x000, 4)
    if version not in _VERSIONS:
        raise EvidenceFormatError(
            f"SNP report, version at 0x000: {version}, expected {_VERSIONS[0]} to {_VERSIONS[-1]}"
        )
    algorithm = _number(data, 0x034, 4)
    if algorithm != _ECDSA_P384_SHA384:
        raise EvidenceFormatError(f"SNP report, signature algorithm at 0x034: {algorithm}, expected 1 (ECDSA P-384)")
    flags = _number(data, 0x048, 4)
    signing_key = _SIGNING_KEYS.get(flags >> 2)
    if signing_key is None:
        raise EvidenceFormatError(
            f"SNP report, signing key at 0x048: {flags:#x}, expected VCEK (0), VLEK (1) or none (7)"
        )
    _require_zeros(data, version)
    half = SIGNED_BYTES + _SIGNATURE_HALF_BYTES
    return Report(
        version=version,
        guest_svn=_number(data, 0x004, 4),
        policy=_number(data, 0x008, 8),
        family_id=data[0x010:0x020],
        image_id=data[0x020:0x030],
        vmpl=_number(data, 0x030, 4),
        current_tcb=data[0x038:0x040],
        platform_info=_number(data, 0x040, 8),
        author_key_en=bool(flags & 1),
        mask_chip_key=bool(flags & 2),
        signing_key=signing_key,
        report_data=data[0x050:0x090],
        measurement=data[0x090:0x0C0],
        host_data=data[0x0C0:0x0E0],
        id_key_digest=data[0x0E0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=data[0x180:0x188],
        cpuid=(data[0x188], data[0x189], data[0x18A]) if version >= _VERSION_WITH_CPUID else None,
        chip_id=data[CHIP_ID],
        committed_tcb=data[0x1E0:0x1E8],
        launch_tcb=data[0x1F0:0x1F8],
        signed=data[:SIGNED_BYTES],
        r=_number(data, SIGNED_BYTES, _NUMBER_BYTES),
        s=_number(data, half, _NUMBER_BYTES),
    )


def tcb_parts(tcb: bytes, product: str) -> Mapping[str, int]:
    """The security version numbers of the parts of a TCB version, 8 bytes, by the names of AMD's extensions.

    Turin: byte 0 fmc, 1 bl, 2 tee, 3 snp, 7 ucode. Milan and Genoa: 0 bl, 1 tee, 6 snp, 7 ucode.
    Source: publication 56860, TCB_VERSION; AMD, VCEK Certificate and KDS Interface Specification (publication 57230).
    """
    if product == "Turin":
        return {"fmc": tcb[0], "bl": tcb[1], "tee": tcb[2], "snp": tcb[3], "ucode": tcb[7]}
    return {"bl": tcb[0], "tee": tcb[1], "snp": tcb[6], "ucode": tcb[7]}


def shown(report: Report, product: str) -> dict[str, JsonValue]:
    """Every field, for people and programs to read: bytes in hex as they stand, TCB versions as numbers in hex."""
    return {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": hex(report.policy),
        "policy_debug": report.debug,
        "policy_migrate_ma": report.migratable,
        "policy_smt": bool(report.policy & _POLICY_SMT),
        "policy_single_socket": bool(report.policy & _POLICY_SINGLE_SOCKET),
        "abi": f"{report.policy >> 8 & 0xFF}.{report.policy & 0xFF}",
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "vmpl": report.vmpl,
        "signature_algo": _ECDSA_P384_SHA384,
        "current_tcb": report.current_tcb.hex(),
        "platform_info": hex(report.platform_info),
        "author_key_en": report.author_key_en,
        "mask_chip_key": report.mask_chip_key,
        "signing_key": report.signing_key,
        "report_data": report.report_data.hex(),
        "measurement": report.measurement.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "reported_tcb": report.reported_tcb.hex(),
        "reported_tcb_parts": dict(tcb_parts(report.reported_tcb, product)),
        "cpuid": None if report.cpuid is None else bytes(report.cpuid).hex(),
        "chip_id": report.chip_id.hex(),
        "committed_tcb": report.committed_tcb.hex(),
        "launch_tcb": report.launch_tcb.hex(),
    }


def _number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")


def _require_zeros(data: bytes, version: int) -> None:
    reserved = [
        (0x04C, 0x050),
        (0x18B if version >= _VERSION_WITH_CPUID else 0x188, 0x1A0),
        (0x208 if version >= _VERSION_WITH_MITIGATIONS else 0x1F8, 0x2A0),
        (0x2A0 + _NUMBER_BYTES, 0x2A0 + _SIGNATURE_HALF_BYTES),
        (0x2E8 + _NUMBER_BYTES, REPORT_BYTES),
    ]
    for start, end in reserved:
        if any(data[start:end]):
            raise EvidenceFormatError(f"SNP report, reserved bytes at {start:#05x}: not zero, expected zeros")
