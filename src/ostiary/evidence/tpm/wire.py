"""What an attester sends of a TPM: two JSON objects, evidence and endorsements. Authenticates nothing."""

from __future__ import annotations

import json
from binascii import a2b_base64, a2b_hex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.tpm.layout import DIGEST_BYTES, MAX_PCR, Hash

MAX_EVIDENCE_BYTES = 1024 * 1024
EVIDENCE_REMEMBERED = 4
MAX_ENDORSEMENTS_BYTES = 1024 * 1024

Values: TypeAlias = Mapping[Hash, Mapping[int, bytes]]
"""PCR values, by bank and number."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the machine says; each part as its own parser takes it. None: it is not there.

    quote: TPMS_ATTEST. signature: TPMT_SIGNATURE, or raw. pcrs: values of the quoted PCRs. ak: DER
    SubjectPublicKeyInfo of the key that signed. ak_public: its TPMT_PUBLIC. event_log: of the TCG. hcl_report,
    snp_report, td_quote: of Azure's vTPM.
    """

    quote: bytes
    signature: bytes
    pcrs: Values | None = None
    ak: bytes | None = None
    ak_public: bytes | None = None
    event_log: bytes | None = None
    hcl_report: bytes | None = None
    snp_report: bytes | None = None
    td_quote: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Endorsements:
    """What others say of the machine. ak: PEM, the AK's certificate, its issuers, revocation lists; may be empty.

    snp, tdx: the endorsements of `snp_report` and `td_quote`, as their own verifiers take them; may be empty.
    """

    ak: bytes = b""
    snp: bytes = b""
    tdx: bytes = b""


_BINARY = ("ak", "ak_public", "event_log", "hcl_report", "snp_report", "td_quote")


@lru_cache(maxsize=EVIDENCE_REMEMBERED)
def parse_evidence(data: bytes) -> Evidence:
    """Read the evidence of a TPM. Authenticates nothing. Pure, and a start asks several times: the last
    EVIDENCE_REMEMBERED answers are remembered.

    A JSON object in UTF-8; `?` marks what may be missing. Binary values are standard base64 with padding.
        quote, signature      base64
        pcrs?                 {"sha256": {"0": "<hex>", …}, …}: banks sha1, sha256, sha384, sha512; numbers 0 to 31
        ak?, ak_public?, event_log?, hcl_report?, snp_report?, td_quote?      base64, see `Evidence`

    Raises EvidenceFormatError, and nothing else for any bytes: over MAX_EVIDENCE_BYTES, another form or member, a
    member twice.
    """
    members = json_object(data, MAX_EVIDENCE_BYTES, "TPM evidence")
    unknown = sorted(members.keys() - {"quote", "signature", "pcrs", *_BINARY})
    if unknown:
        raise EvidenceFormatError(f"TPM evidence: unknown member {unknown[0][:40]!r}")
    return Evidence(
        quote=_binary(members, "quote"),
        signature=_binary(members, "signature"),
        pcrs=values_of(members["pcrs"]) if "pcrs" in members else None,
        **{name: _binary(members, name) for name in _BINARY if name in members},
    )


def parse_endorsements(data: bytes) -> Endorsements:
    """Read the endorsements of a TPM. Authenticates nothing.

    Nothing at all, or a JSON object in UTF-8 with texts, each of which may be missing: `ak`, `snp`, PEM; `tdx`, JSON.
    Raises EvidenceFormatError, and nothing else for any bytes: over MAX_ENDORSEMENTS_BYTES, another form or member.
    """
    if not data:
        return Endorsements()
    members = json_object(data, MAX_ENDORSEMENTS_BYTES, "TPM endorsements")
    unknown = sorted(members.keys() - {"ak", "snp", "tdx"})
    if unknown:
        raise EvidenceFormatError(f"TPM endorsements: unknown member {unknown[0][:40]!r}, expected ak, snp or tdx")
    return Endorsements(**{name: _text(members, name) for name in members})


def parse_pcrs(data: bytes) -> Values:
    """Read PCR values: the JSON object that `parse_evidence` has under `pcrs`. Raises EvidenceFormatError."""
    return values_of(json_object(data, MAX_EVIDENCE_BYTES, "PCR values"))


def values_of(value: object) -> Values:
    """PCR values from JSON that was read. Raises EvidenceFormatError for another form."""
    if not isinstance(value, dict) or not value:
        raise EvidenceFormatError("PCR values: expected an object of banks, such as sha256")
    found: dict[Hash, dict[int, bytes]] = {}
    for bank, registers in value.items():
        if bank not in DIGEST_BYTES:
            raise EvidenceFormatError(f"PCR values: bank {bank[:40]!r}, expected {', '.join(DIGEST_BYTES)}")
        if not isinstance(registers, dict):
            raise EvidenceFormatError(f"PCR values, {bank}: expected an object of values by number")
        found[bank] = _registers(registers, bank)
    return found


def _registers(texts: Mapping[str, object], bank: Hash) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    size = DIGEST_BYTES[bank]
    for number, text in texts.items():
        # Few spellings, so that no number occurs twice.
        pcr = _NUMBERS.get(number)
        if pcr is None:
            raise EvidenceFormatError(f"PCR values, {bank}: {number[:40]!r} is no number of a PCR, 0 to {MAX_PCR}")
        try:
            digest = a2b_hex(text) if isinstance(text, str) else b""
        except ValueError:
            digest = b""
        if len(digest) != size:
            raise EvidenceFormatError(f"PCR values, {bank}:{number}: expected {2 * size} hex digits")
        found[pcr] = digest
    return found


_NUMBERS = {str(number): number for number in range(MAX_PCR + 1)}


def json_object(data: bytes, most: int, what: str) -> dict[str, object]:
    """The members of a JSON object in UTF-8. Raises EvidenceFormatError: over `most` bytes, another form, one twice."""
    if len(data) > most:
        raise EvidenceFormatError(f"{what}: {len(data)} bytes, expected at most {most}")
    try:
        members = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError(f"{what}: not JSON, or with a member twice; expected an object in UTF-8") from error
    if not isinstance(members, dict):
        raise EvidenceFormatError(f"{what}: found {type(members).__name__}, expected a JSON object")
    return members


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _binary(members: Mapping[str, object], name: str) -> bytes:
    value = members.get(name)
    try:
        binary = a2b_base64(value, strict_mode=True) if isinstance(value, str) else b""
    except ValueError:
        binary = b""
    if not binary:
        raise EvidenceFormatError(f"TPM evidence, {name}: expected base64, not empty")
    return binary


def _text(members: Mapping[str, object], name: str) -> bytes:
    value = members[name]
    if not isinstance(value, str) or not value.isascii():
        raise EvidenceFormatError(f"TPM endorsements, {name}: expected ASCII text")
    return value.encode("ascii")
