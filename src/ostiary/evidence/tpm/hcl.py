"""The report that Azure's host compatibility layer (HCL) keeps in a vTPM: bytes to fields. Authenticates nothing."""

from __future__ import annotations

import hashlib
import json
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.tpm.reader import Reader

MAX_HCL_BYTES = 16 * 1024
MAX_KEYS = 16

_HARDWARE_REPORT_BYTES = 1184
_KINDS: dict[int, Literal["snp", "tdx"]] = {2: "snp", 4: "tdx"}
_SHA256 = 1
_AK = "HCLAkPub"


@dataclass(frozen=True, kw_only=True)
class HclReport:
    """kind: what made the hardware report. hardware_report: an SNP report, 1184 bytes; of TDX a TD report, local only.

    digest: SHA-256 of the runtime claims, which the hardware's evidence must have in its report data.
    ak: DER SubjectPublicKeyInfo. user_data: hex text that the guest chose. vm_unique_id: "" if the claims have none.
    """

    kind: Literal["snp", "tdx"]
    hardware_report: bytes
    digest: bytes
    ak: bytes
    user_data: str
    vm_unique_id: str


def parse_hcl_report(data: bytes) -> HclReport:
    """Split an HCL report into fields. Authenticates nothing.

    Integers are little-endian:
        0x000     4  "HCLA"    4  version, sizes and flags, 28, not looked at
        0x020  1184  hardware report
        0x4C0     4  size    4  version = 1    4  kind: 2 SNP, 4 TDX    4  hash = 1, SHA-256    4  n
        0x4D4     n  runtime claims, JSON; what follows is not looked at
    Of the runtime claims: `keys`, a list with exactly one JWK of kid HCLAkPub, RSA; `user-data`;
    `vm-configuration.vmUniqueId`.

    Raises EvidenceFormatError, and nothing else for any input: over MAX_HCL_BYTES, another form than this.
    Source: Microsoft, "Azure confidential VM guest attestation", the report at NV index 0x01400001.
    """
    if len(data) > MAX_HCL_BYTES:
        raise EvidenceFormatError(f"HCL report: {len(data)} bytes, expected at most {MAX_HCL_BYTES}")
    reader = Reader(data, "HCL report", "little")
    reader.expect(0x414C4348, 4, "signature")
    reader.take(28, "header")
    hardware_report = reader.take(_HARDWARE_REPORT_BYTES, "hardware report")
    reader.number(4, "runtime data size")
    reader.expect(1, 4, "runtime data version")
    kind = _KINDS.get(number := reader.number(4, "report type"))
    if kind is None:
        raise reader.wrong("report type", str(number), "2 (SNP) or 4 (TDX)", back=4)
    reader.expect(_SHA256, 4, "hash type")
    claims = reader.take(reader.number(4, "runtime claims size"), "runtime claims")
    members = _object(claims)
    user_data = members.get("user-data", "")
    configuration = members.get("vm-configuration")
    vm_unique_id = configuration.get("vmUniqueId", "") if isinstance(configuration, dict) else ""
    if not isinstance(user_data, str) or not isinstance(vm_unique_id, str):
        raise EvidenceFormatError("HCL report, runtime claims: user-data or vmUniqueId is no text")
    return HclReport(
        kind=kind,
        hardware_report=hardware_report,
        digest=hashlib.sha256(claims).digest(),
        ak=_attestation_key(members),
        user_data=user_data,
        vm_unique_id=vm_unique_id,
    )


def _object(claims: bytes) -> dict[str, object]:
    try:
        members = json.loads(claims)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError("HCL report, runtime claims: not JSON") from error
    if not isinstance(members, dict):
        raise EvidenceFormatError("HCL report, runtime claims: expected a JSON object")
    return members


def _attestation_key(members: dict[str, object]) -> bytes:
    keys = members.get("keys")
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise EvidenceFormatError(f"HCL report, runtime claims: expected keys, a list of at most {MAX_KEYS}")
    named = [key for key in keys if isinstance(key, dict) and key.get("kid") == _AK]
    if len(named) != 1 or named[0].get("kty") != "RSA":
        raise EvidenceFormatError(f"HCL report, runtime claims: {len(named)} keys {_AK}, expected one, of RSA")
    try:
        key = rsa.RSAPublicNumbers(_number(named[0].get("e")), _number(named[0].get("n"))).public_key()
    except ValueError as error:
        raise EvidenceFormatError(f"HCL report, runtime claims: {_AK} is no RSA key") from error
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _number(text: object) -> int:
    """An integer of a JWK: base64url without padding. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("not text")  # noqa: TRY004 - one error for all that is wrong with a key
    standard = text.translate(str.maketrans("-_", "+/"))
    return int.from_bytes(a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True), "big")
