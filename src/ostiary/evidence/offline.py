"""Evidence in files: what it is, and whether it is authentic with what lies beside it. Pure: bytes in, no file read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.bundle import pem_of
from ostiary.evidence.claims import Claims, JsonValue
from ostiary.evidence.intel.quote import parse_signed_quote
from ostiary.evidence.maa.layout import MAX_TOKEN_BYTES
from ostiary.evidence.maa.layout import shown as shown_token
from ostiary.evidence.maa.verify import authenticate
from ostiary.evidence.nitro.layout import parse_document
from ostiary.evidence.nitro.layout import shown as shown_document
from ostiary.evidence.nitro.verify import verify as verify_nitro
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.sgx.layout import parse_quote as parse_sgx
from ostiary.evidence.sgx.layout import shown as shown_sgx
from ostiary.evidence.sgx.verify import verify as verify_sgx
from ostiary.evidence.snp.layout import REPORT_BYTES, parse_report
from ostiary.evidence.snp.layout import shown as shown_report
from ostiary.evidence.snp.verify import verify as verify_snp
from ostiary.evidence.tdx.layout import parse_quote as parse_tdx
from ostiary.evidence.tdx.layout import shown as shown_tdx
from ostiary.evidence.tdx.verify import verify as verify_tdx
from ostiary.evidence.tpm import offline as tpm

Kind: TypeAlias = Literal["sgx", "tdx", "snp", "nitro", "maa", "tpm"]

MAX_EVIDENCE_BYTES = 64 * 1024

_QUOTE_VERSIONS = (3, 4, 5)
_COSE_SIGN1 = (b"\x84\x44\xa1\x01\x38\x22", b"\xd2\x84\x44\xa1\x01\x38\x22")
_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\s*")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Evidence that is authentic. fields: all of it by the vendor's names, as `show` gives them.

    claims: in the common form, None for a token about a TEE that the common form does not take from a token.
    """

    kind: Kind
    fields: Mapping[str, JsonValue]
    claims: Claims | None


def detect(data: bytes) -> Kind:
    """What kind of evidence the bytes look like. Authenticates nothing. Raises EvidenceFormatError for none known."""
    if tpm.looks_like_it(data):
        return "tpm"
    if len(data) > MAX_EVIDENCE_BYTES:
        raise EvidenceFormatError(f"evidence of {len(data)} bytes, expected at most {MAX_EVIDENCE_BYTES}")
    if data.startswith(_COSE_SIGN1):
        return "nitro"
    if len(data) == REPORT_BYTES:
        return "snp"
    if len(data) <= MAX_TOKEN_BYTES and _TOKEN.fullmatch(data):
        return "maa"
    if int.from_bytes(data[:2], "little") in _QUOTE_VERSIONS:
        return parse_signed_quote(data).tee
    raise EvidenceFormatError(
        "no evidence of a kind that is known here, expected an SGX or TDX quote, an SNP report, a Nitro document, a "
        "TPM quote, or a token of Azure Attestation"
    )


def show(data: bytes) -> tuple[Kind, Mapping[str, JsonValue]]:
    """The fields of evidence of any kind, by the vendor's names. Authenticates nothing. Raises EvidenceFormatError."""
    kind = detect(data)
    return kind, _SHOW[kind](data)


def verify_files(
    data: bytes,
    files: Mapping[str, bytes],
    *,
    roots: Sequence[TrustedRoot],
    issuer: str | None,
    now: datetime,
    name: str = tpm.QUOTE_FILE,
    ak_roots: Sequence[TrustedRoot] = (),
) -> Finding:
    """Verify evidence with the endorsements in `files`, contents by name; others among them are not looked at.

    name: of the file with the evidence, which those that belong to a TPM quote are named for. roots: each counts for
    its own TEEs. ak_roots: of certificates of TPMs' keys.
    SGX, TDX: the JSON object with `tcb_info`. SNP: certificates and revocation lists, in DER or PEM. Nitro: none. Azure
    Attestation: the JSON object with `keys`, which the caller trusts to be the keys of `issuer`; None: of whom the
    token names. TPM: the parts that `tpm.offline` names.
    Guarantees what `verify` of the kind does. Raises EvidenceFormatError, EvidenceRefusedError.
    """
    kind = detect(data)
    if kind not in ("maa", "tpm"):
        roots = [root for root in roots if kind in root.tees]
    if kind == "maa":
        token = data.strip()
        fields = shown_token(token)
        named = issuer if issuer is not None else str(fields["iss"])
        authenticate(token, _json_with("keys", files), issuer=named, now=now)
        return Finding(kind=kind, fields=fields, claims=None)
    if kind == "tpm":
        claims = tpm.verify_files(data, files, name=name, roots=roots, ak_roots=ak_roots, now=now)
    elif kind == "nitro":
        claims = verify_nitro(data, roots=roots, now=now)
    elif kind == "snp":
        claims = verify_snp(data, pem_of(files), roots=roots, now=now)
    else:
        verify = verify_sgx if kind == "sgx" else verify_tdx
        claims = verify(data, _json_with("tcb_info", files), roots=roots, now=now)
    return Finding(kind=kind, fields=claims.raw, claims=claims)


def _shown_report(data: bytes) -> Mapping[str, JsonValue]:
    report = parse_report(data)
    # Reports of version 2 do not name their product; Milan and Genoa are alike, and Turin's begin with version 3.
    return shown_report(report, report.product or "Milan")


_SHOW: Mapping[Kind, Callable[[bytes], Mapping[str, JsonValue]]] = {
    "sgx": lambda data: shown_sgx(parse_sgx(data)),
    "tdx": lambda data: shown_tdx(parse_tdx(data)),
    "snp": _shown_report,
    "nitro": lambda data: shown_document(parse_document(data)),
    "maa": lambda data: shown_token(data.strip()),
    "tpm": tpm.show,
}


def _json_with(member: str, files: Mapping[str, bytes]) -> bytes:
    found = [name for name, content in sorted(files.items()) if _has_member(content, member)]
    if len(found) != 1:
        named = ", ".join(found) or "none"
        raise EvidenceFormatError(f"endorsements: expected one JSON file with the member {member}, found {named}")
    return files[found[0]]


def _has_member(content: bytes, member: str) -> bool:
    if not content.lstrip().startswith(b"{"):
        return False
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return member in members
