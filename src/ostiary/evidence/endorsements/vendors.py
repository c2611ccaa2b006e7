"""Where vendors publish endorsements, and how their answers read. Asks nobody, and authenticates nothing.

Sources: Intel PCS API version 4 and PCCS, which speaks it too; AMD, VCEK Certificate and KDS Interface Specification
(publication 57230); Microsoft, Trusted Hardware Identity Management.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ostiary.errors import ConfigurationError, EvidenceFormatError
from ostiary.evidence.bundle import MAX_BUNDLE_BYTES
from ostiary.evidence.chain import MAX_CRL_BYTES, parse_certificate, parse_revocation_list
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import MAX_TEXT_BYTES, Piece
from ostiary.evidence.snp.layout import tcb_parts

INTEL_PCS = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
AMD_KDS = "https://kdsintf.amd.com"
MAX_ANSWER_BYTES = 2 * MAX_CRL_BYTES + 1024
"""Of any server: a PCCS writes revocation lists in hex."""

Update: TypeAlias = Literal["standard", "early"]

_CHAIN_HEADERS: Mapping[str, tuple[str, ...]] = {
    "tcb-info": ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"),
    "qe-identity": ("sgx-enclave-identity-issuer-chain", "enclave-identity-issuer-chain"),
    "pck-crl": ("sgx-pck-crl-issuer-chain",),
}
_JSON_MEMBERS = {"tcb-info": "tcbInfo", "qe-identity": "enclaveIdentity"}
_HEX = re.compile(rb"\s*[0-9A-Fa-f]+\s*")
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Whom to ask. pcs: Intel's PCS or a PCCS, kds: AMD's KDS, each `https://HOST[:PORT]`; None: nobody.

    update: early asks Intel for TCB data that it has published and that does not count yet.
    """

    pcs: str | None = None
    kds: str | None = None
    update: Update = "standard"


def place(text: str, *, option: str) -> str:
    """An address of a PCS or KDS as people write it. Raises ConfigurationError, naming the option."""
    address = re.sub(r"(?:/(?:sgx|tdx)/certification/v4)?/*\Z", "", text)
    if re.fullmatch(r"https://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~/-]+)?", address) is None:
        raise ConfigurationError(f"{option} {text}: expected https://HOST[:PORT], such as {INTEL_PCS}")
    return address


def address_of(part: Part, places: Places) -> str | None:
    """Where a part is to be had; None: from none of these places."""
    if part.vendor == "amd":
        return None if places.kds is None else places.kds + _kds_path(part)
    if places.pcs is None:
        return None
    match part.kind:
        case "tcb-info":
            tee, fmspc = part.words
            return f"{places.pcs}/{tee}/certification/v4/tcb?fmspc={fmspc.upper()}&update={places.update}"
        case "qe-identity":
            return f"{places.pcs}/{part.name}/certification/v4/qe/identity?update={places.update}"
        case "pck-crl":
            return f"{places.pcs}/sgx/certification/v4/pckcrl?ca={part.name}&encoding=der"
        case _:
            # Intel's own service has the root's list elsewhere.
            return INTEL_ROOT_CRL if places.pcs == INTEL_PCS else f"{places.pcs}/sgx/certification/v4/rootcacrl"


def read_answer(part: Part, headers: Mapping[str, str], body: bytes, *, amd_chain: bytes = b"") -> Piece:
    """The piece in a good answer. headers: by lower-case names. amd_chain: PEM, of who issues VCEKs of the product.

    TCB info and identities: JSON object of `tcbInfo` or `enclaveIdentity` and `signature` in hex; the text between is
    kept byte for byte, as it is what was signed. Issuer chains: PEM, percent-encoded, in a header. Revocation lists:
    DER, PEM, or hex of DER. VCEK: DER. Chains of AMD: PEM.
    Raises EvidenceFormatError, and nothing else for any answer.
    """
    what = f"the answer for {part}"
    match part.kind:
        case "tcb-info" | "qe-identity":
            data, signature = _signed_json(body, _JSON_MEMBERS[part.kind], what)
            return Piece(part=part, data=data, signature=signature, chain=_chain(part, headers, what))
        case "pck-crl":
            return Piece(part=part, data=_revocation_list(body, what), chain=_chain(part, headers, what))
        case "root-crl" | "amd-crl":
            return Piece(part=part, data=_revocation_list(body, what))
        case "vcek":
            parse_certificate(body, what)
            return Piece(part=part, data=body, chain=amd_chain)
        case _:
            if len(body) > MAX_BUNDLE_BYTES or b"-----BEGIN CERTIFICATE-----" not in body:
                raise EvidenceFormatError(f"{what}: not PEM certificates")
            return Piece(part=part, data=body)


def read_thim(data: bytes) -> bytes:
    """PEM of what Azure's metadata service answers at /metadata/THIM/amd/certification, as an attester may pass it on.

    A JSON object with PEM text in `vcekCert` and `certificateChain`; other members are not looked at.
    Raises EvidenceFormatError.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise EvidenceFormatError(f"endorsements: {len(data)} bytes, expected at most {MAX_BUNDLE_BYTES}")
    try:
        members = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError("endorsements: neither PEM nor JSON of Azure's metadata service") from error
    texts = [members.get(name) if isinstance(members, dict) else None for name in ("vcekCert", "certificateChain")]
    if not all(isinstance(text, str) and text.isascii() for text in texts):
        raise EvidenceFormatError("endorsements: no PEM text in vcekCert and certificateChain of the JSON object")
    return "\n".join(str(text) for text in texts).encode()


def members_as_written(text: str, what: str) -> Mapping[str, str]:
    """The members of a JSON object, each value exactly as it is written. Raises EvidenceFormatError."""
    try:
        found, end = _members_and_end(text)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError(f"{what}: not a JSON object") from error
    if text[end:].strip():
        raise EvidenceFormatError(f"{what}: text after the JSON object")
    return found


def _members_and_end(text: str) -> tuple[dict[str, str], int]:
    decoder = json.JSONDecoder()
    found: dict[str, str] = {}
    at = _after(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, _skip(text, at))
        start = _skip(text, _after(text, at, ":"))
        _, at = decoder.raw_decode(text, start)
        if not isinstance(name, str) or name in found:
            raise ValueError("a name that is no text, or twice")
        found[name] = text[start:at]
        end = _skip(text, at)
        if text.startswith("}", end):
            return found, end + 1
        at = _after(text, at, ",")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _after(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark}")
    return at + len(mark)


def _signed_json(body: bytes, member: str, what: str) -> tuple[bytes, bytes]:
    if len(body) > MAX_TEXT_BYTES or not body.isascii():
        raise EvidenceFormatError(f"{what}: not ASCII text of at most {MAX_TEXT_BYTES} bytes")
    members = members_as_written(body.decode(), what)
    if member not in members or "signature" not in members:
        raise EvidenceFormatError(f"{what}: no members {member} and signature")
    try:
        signature = bytes.fromhex(str(json.loads(members["signature"])))
    except ValueError as error:
        raise EvidenceFormatError(f"{what}: signature is not hex") from error
    return members[member].encode(), signature


def _chain(part: Part, headers: Mapping[str, str], what: str) -> bytes:
    text = next((headers[name] for name in _CHAIN_HEADERS[part.kind] if name in headers), None)
    if text is None:
        raise EvidenceFormatError(f"{what}: no header {_CHAIN_HEADERS[part.kind][0]} with the chain of who signed it")
    return unquote_to_bytes(text)


def _revocation_list(body: bytes, what: str) -> bytes:
    if b"-----BEGIN X509 CRL-----" in body:
        try:
            return x509.load_pem_x509_crl(body).public_bytes(Encoding.DER)
        except ValueError as error:
            raise EvidenceFormatError(f"{what}: not a revocation list in PEM") from error
    der = body
    if _HEX.fullmatch(body):
        try:
            der = bytes.fromhex(body.decode())
        except ValueError as error:
            raise EvidenceFormatError(f"{what}: half a byte of hex") from error
    parse_revocation_list(der, what)
    return der


def _kds_path(part: Part) -> str:
    if part.kind == "amd-chain":
        kind, product = part.words
        return f"/{kind}/v1/{product}/cert_chain"
    if part.kind == "amd-crl":
        return f"/vcek/v1/{part.name}/crl"
    product, hardware_id, tcb = part.words
    numbers = tcb_parts(bytes.fromhex(tcb), product)
    query = "&".join(f"{name}SPL={number:02d}" for name, number in numbers.items())
    return f"/vcek/v1/{product}/{hardware_id}?{query}"
