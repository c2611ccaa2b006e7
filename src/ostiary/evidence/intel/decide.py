"""A decision of our own over a quote and Intel's collateral, for what dcap-qvl refuses by itself.

dcap-qvl refuses debug programs, TDs without SEPT_VE_DISABLE and TDs bound to a service TD outright, and knows neither
TCB info of version 2 nor SGX quotes of versions 4 and 5. A session may tolerate the first by name, so that they have to
be verified all the same. The checks here are those of dcap-qvl and of Intel's own library; tests hold both paths
against each other wherever both may speak.
"""

from __future__ import annotations

import hashlib
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from dcap_qvl import PckExtension, QuoteCollateralV3, parse_pck_extension_from_pem  # type: ignore[import-untyped]

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import in_order
from ostiary.evidence.chain import parse_certificate, parse_revocation_list, verify_chain
from ostiary.evidence.intel.quote import PCK_CHAIN, SignedQuote
from ostiary.evidence.intel.statement import instant_of, parse_statement, require_p256_signature
from ostiary.evidence.intel.tcb import Platform, Rating, module_identity, rate_by_svn, rate_sgx, rate_tdx
from ostiary.evidence.roots import TrustedRoot

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,40000})-----END CERTIFICATE-----")
_MAX_CERTIFICATES = 8
_INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_IDS = {"sgx": "QE", "tdx": "TD_QE"}
_TCB_INFO_IDS = {"sgx": ("SGX", None), "tdx": ("TDX",)}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """rating: of platform, quoting enclave and TDX module together. ppid: of the platform, 16 bytes."""

    rating: Rating
    ppid: bytes


def decide(quote: SignedQuote, collateral: QuoteCollateralV3, *, root: TrustedRoot, now: datetime) -> Decision:
    """Decide whether a quote is authentic under one root, whatever the program says of itself.

    1. The quote's certificates lead from the PCK to `root`, hold at `now`, and none is revoked; the revocation lists of
       the root and of the CA that issued the PCK are there, signed, and in force. The platform's versions are read from
       that very PCK certificate.
    2. TCB info and QE identity are signed by a TCB signer that leads to `root` and is not revoked, were issued before
       `now`, are not past `nextUpdate`, and are for this TEE; the TCB info is for this FMSPC and PCE.
    3. The QE report is signed by the PCK; the QE is that of the QE identity; it names the attestation key.
    4. The attestation key signed header and body.
    5. The TDX module is signed by whom the TCB info says, with the attributes that it says.
    6. A TCB level matches platform, QE and module, and none is Revoked.

    Does not judge attributes of the program: debug and the like are the caller's.
    Raises EvidenceFormatError (a part of another form) and EvidenceRefusedError.
    """
    revocations = [
        parse_revocation_list(der, "revocation list") for der in (collateral.root_ca_crl, collateral.pck_crl)
    ]
    # 1.
    chain = _chain(_pck_chain(quote))
    pck = verify_chain(chain, roots=[root], revocation_lists=revocations, now=now, revocation_required=True).leaf
    extension = _extension(pck)
    # 2.
    tcb_info = _signed_json(
        collateral.tcb_info, collateral.tcb_info_signature, collateral.tcb_info_issuer_chain, "TCB info",
        root=root, revocation_list=revocations[0], now=now,
    )  # fmt: skip
    identity = _signed_json(
        collateral.qe_identity, collateral.qe_identity_signature, collateral.qe_identity_issuer_chain, "QE identity",
        root=root, revocation_list=revocations[0], now=now,
    )  # fmt: skip
    _require_for(quote, tcb_info, identity, extension)
    # 3.
    if quote.qe_vendor_id != _INTEL_QE:
        raise EvidenceRefusedError("the quote was not made by the quoting enclave that the endorsements describe")
    require_p256_signature(
        pck,
        quote.qe_report_signature,
        quote.qe_report,
        "the report of the quoting enclave is not signed by the platform's key",
    )
    qe = _rate_qe(quote.qe_report, identity)
    named = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    if quote.qe_report[0x140:0x160] != named:
        raise EvidenceRefusedError("the quoting enclave does not vouch for the attestation key of the quote")
    # 4.
    require_p256_signature(
        _attestation_key(quote.attestation_key), quote.signature, quote.signed,
        "the quote is not signed by its attestation key: it was changed after signing",
    )  # fmt: skip
    # 5., 6.
    platform = Platform(cpu_svn=extension.cpu_svn, pce_svn=extension.pce_svn)
    if quote.tee == "sgx":
        return Decision(rating=rate_sgx(tcb_info, platform, qe), ppid=extension.ppid)
    svn, svn2 = quote.body[:16], quote.body[584:600] or None
    _require_module(quote.body, module_identity(tcb_info, svn))
    rating = rate_tdx(tcb_info, platform, qe, tee_tcb_svn=svn, tee_tcb_svn2=svn2)
    return Decision(rating=rating, ppid=extension.ppid)


def _pck_chain(quote: SignedQuote) -> bytes:
    if quote.certification_type != PCK_CHAIN:
        raise EvidenceRefusedError(
            f"the quote has certification data of type {quote.certification_type}, without a PCK certificate",
            "have the platform make quotes with the PCK certificate chain in them (type 5)",
        )
    return quote.certification


def _chain(pem: bytes) -> Sequence[x509.Certificate]:
    texts = _CERTIFICATE.findall(pem)
    if not 1 <= len(texts) <= _MAX_CERTIFICATES:
        raise EvidenceFormatError(f"a chain of {len(texts)} certificates, expected 1 to {_MAX_CERTIFICATES}")
    try:
        ders = [a2b_base64(text) for text in texts]
    except Base64Error as error:
        raise EvidenceFormatError("a certificate of a chain is not base64") from error
    return in_order([parse_certificate(der, "a certificate of a chain") for der in ders])


def _extension(pck: x509.Certificate) -> PckExtension:
    """Of this certificate alone: of a whole chain, the parser takes the first, whoever that is."""
    try:
        return parse_pck_extension_from_pem(pck.public_bytes(Encoding.PEM))
    except ValueError as error:
        raise EvidenceFormatError("the PCK certificate has no SGX extension that can be read") from error


def _signed_json(
    text: str,
    signature: bytes,
    issuer_chain: str,
    what: str,
    *,
    root: TrustedRoot,
    revocation_list: x509.CertificateRevocationList,
    now: datetime,
) -> Mapping[str, object]:
    signer = verify_chain(
        _chain(issuer_chain.encode()),
        roots=[root],
        revocation_lists=[revocation_list],
        now=now,
        revocation_required=True,
    ).leaf
    require_p256_signature(
        signer, signature, text.encode(), f"the {what} in the endorsements is not signed by its signer"
    )
    members = parse_statement(text, what)
    if now < instant_of(members, "issueDate", what):
        raise EvidenceRefusedError(
            "the endorsements are from the future; compare the clocks of platform and service",
            f"the {what} was issued after now",
        )
    if now > instant_of(members, "nextUpdate", what):
        raise EvidenceRefusedError(
            "the endorsements have run out; have the platform fetch new ones", f"the {what} is past its next update"
        )
    return members


def _require_for(
    quote: SignedQuote, tcb_info: Mapping[str, object], identity: Mapping[str, object], extension: PckExtension
) -> None:
    if tcb_info.get("id") not in _TCB_INFO_IDS[quote.tee] or identity.get("id") != _QE_IDS[quote.tee]:
        raise EvidenceRefusedError(f"the endorsements are for another TEE than {quote.tee.upper()}")
    named = (str(tcb_info.get("fmspc")).lower(), str(tcb_info.get("pceId")).lower())
    if named != (extension.fmspc.hex(), extension.pce_id.hex()):
        raise EvidenceRefusedError("the endorsements are for another kind of platform")


def _rate_qe(report: bytes, identity: Mapping[str, object]) -> Rating:
    fits = (
        _masked(report[0x010:0x014][::-1], identity, "miscselect", "miscselectMask")
        and _masked(report[0x030:0x040], identity, "attributes", "attributesMask")
        and report[0x080:0x0A0] == _hex(identity, "mrsigner")
        and int.from_bytes(report[0x100:0x102], "little") == identity.get("isvprodid")
    )
    if not fits:
        raise EvidenceRefusedError("the quote was not made by the quoting enclave that the endorsements describe")
    return rate_by_svn(identity, int.from_bytes(report[0x102:0x104], "little"), "quoting enclave")


def _require_module(body: bytes, identity: Mapping[str, object]) -> None:
    fits = body[0x040:0x070] == _hex(identity, "mrsigner") and _masked(
        body[0x070:0x078], identity, "attributes", "attributesMask"
    )
    if not fits:
        raise EvidenceRefusedError("the TDX module of the quote is not one that the endorsements describe")


def _masked(value: bytes, part: Mapping[str, object], name: str, mask_name: str) -> bool:
    expected, mask = _hex(part, name), _hex(part, mask_name)
    if not len(value) == len(expected) == len(mask):
        raise EvidenceFormatError(f"endorsements: {name} and {mask_name} have another length than {len(value)} bytes")
    return all(own & bits == wanted & bits for own, wanted, bits in zip(value, expected, mask, strict=True))


def _hex(part: Mapping[str, object], name: str) -> bytes:
    try:
        return bytes.fromhex(str(part.get(name)))
    except ValueError as error:
        raise EvidenceFormatError(f"endorsements: member {name} is missing or no hex") from error


def _attestation_key(point: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError as error:
        raise EvidenceRefusedError("the attestation key of the quote is no point of P-256") from error
