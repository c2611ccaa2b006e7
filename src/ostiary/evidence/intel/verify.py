"""Is a quote authentic? dcap-qvl decides; where it refuses by its own rules what a session may tolerate, we do."""

from __future__ import annotations

import json
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dcap_qvl import QuoteCollateralV3, verify_with_root_ca  # type: ignore[import-untyped]

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.chain import parse_certificate
from ostiary.evidence.intel.collateral import issued_at, parse_collateral, rate_again, tcb_date
from ostiary.evidence.intel.decide import decide
from ostiary.evidence.intel.quote import PCK_CHAIN, SGX_EXTENSION, SignedQuote
from ostiary.evidence.roots import TrustedRoot

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_BEGIN = b"-----BEGIN"
_REFUSED_BY_ITSELF = ("Debug mode is enabled", "SEPT_VE_DISABLE", "MR service TD", "Failed to decode TcbInfo")
"""What dcap-qvl says when it refuses what a session may tolerate by name, and TCB info of version 2."""
_FIRST_VERSION_OF_OURS_ALONE = 4
"""dcap-qvl knows SGX quotes of version 3 only."""
CHAINS_REMEMBERED = 64
"""Chains of certificates whose reading is remembered: of TCB signers, which are few, and of platforms."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A quote is authentic under `root`. status: Intel's word. date: of the TCB level, None if unknown.

    superseded, mended, issued: as in `Claims`.
    report: the fields of the body as dcap-qvl read them, None where it did not decide. ppid: 16 bytes.
    """

    root: TrustedRoot
    status: str
    advisories: frozenset[str]
    date: datetime | None
    ppid: bytes
    report: Mapping[str, object] | None
    superseded: datetime | None
    mended: frozenset[str]
    issued: datetime | None


def verify_quote(
    data: bytes, quote: SignedQuote, endorsements: bytes, *, roots: Sequence[TrustedRoot], now: datetime
) -> Verdict:
    """Decide whether a quote is authentic. Pure: `now` (aware) is the only clock. quote: `data`, cut into its parts.

    Checks, in this order:
    1. Form: the endorsements have all parts (`collateral`).
    2. A certificate of the quote's PCK chain has the public key of one of `roots`. Names are not looked at. No
       certificate behind TCB info and QE identity is a platform's (a PCK): it leads to the same root, and whoever
       breaks one platform has its key. Chains are nothing but plain certificates in PEM.
    3. dcap-qvl under that one root:
       a) certificates of PCK, TCB signer and CAs lead to that root, hold at `now`, none is revoked; both CRLs are
          there, signed, and not past `nextUpdate`;
       b) TCB info and QE identity are signed by the TCB signer, issued before `now`, not past `nextUpdate`, for this
          TEE, for this FMSPC;
       c) the QE report is signed by the PCK and is the QE of the QE identity; it names the attestation key, which
          signed header and body of the quote;
       d) a TCB level matches platform, QE and TDX module, and none is Revoked;
       e) it is no debug program, SEPT_VE_DISABLE is on, and no service TD is bound.
       Where it refuses by e), or does not know the version of the quote or of the TCB info, `decide.decide` makes the
       checks a) to d) in its stead: the program's attributes are the caller's to tell.

    Guarantees: the holder of the root's key vouches for every byte of the body at `now`.
    Does not guarantee: that the TCB status is a good one, nor anything about the program. A CRL's `thisUpdate` in the
    future is not refused by dcap-qvl; a newer list only revokes more.

    Raises EvidenceFormatError (1) and EvidenceRefusedError (2, 3).
    Source: Intel SGX DCAP Quote Verification; RFC 5280 for chains and CRLs; dcap-qvl 0.7.0.
    """
    # 1.
    collateral = parse_collateral(endorsements)
    # 2.
    if quote.certification_type != PCK_CHAIN:
        raise EvidenceRefusedError(
            f"the quote has certification data of type {quote.certification_type}, without a PCK certificate",
            "have the platform make quotes with the PCK certificate chain in them (type 5)",
        )
    root = _pick_root(quote.certification, roots)
    _require_no_platform(collateral.tcb_info_issuer_chain)
    _require_no_platform(collateral.qe_identity_issuer_chain)
    # 3.
    if quote.tee == "sgx" and quote.version >= _FIRST_VERSION_OF_OURS_ALONE:
        return _decide_here(quote, collateral, root, now)
    try:
        report = verify_with_root_ca(data, collateral, root.certificate_der, int(now.timestamp()))
    except ValueError as error:
        text = " ".join(str(error).split())
        if any(mark in text for mark in _REFUSED_BY_ITSELF):
            return _decide_here(quote, collateral, root, now)
        raise EvidenceRefusedError(_explain(text), text) from error
    (fields,) = json.loads(report.to_json())["report"].values()
    rating = rate_again(
        collateral.tcb_info, collateral.qe_identity, quote.certification, _qe_svn(quote), _module_svns(quote)
    )
    agreed = rating is not None and (rating.status, rating.advisories) == (
        report.status,
        frozenset(report.advisory_ids),
    )
    return Verdict(
        root=root,
        status=report.status,
        advisories=frozenset(report.advisory_ids),
        date=tcb_date(collateral.tcb_info, quote.certification, quote.body[:16] if quote.tee == "tdx" else None),
        ppid=report.ppid,
        report=fields,
        superseded=rating.superseded if rating is not None and agreed else None,
        mended=rating.mended if rating is not None and agreed else frozenset(),
        issued=issued_at(collateral.tcb_info, collateral.qe_identity, collateral.pck_crl),
    )


def _qe_svn(quote: SignedQuote) -> int:
    return int.from_bytes(quote.qe_report[0x102:0x104], "little")


def _module_svns(quote: SignedQuote) -> tuple[bytes, bytes | None] | None:
    """tee_tcb_svn and, of TD 1.5, tee_tcb_svn2."""
    return None if quote.tee == "sgx" else (quote.body[:16], quote.body[584:600] or None)


def _decide_here(quote: SignedQuote, collateral: QuoteCollateralV3, root: TrustedRoot, now: datetime) -> Verdict:
    decision = decide(quote, collateral, root=root, now=now)
    return Verdict(
        root=root,
        status=decision.rating.status,
        advisories=decision.rating.advisories,
        date=decision.rating.date,
        ppid=decision.ppid,
        report=None,
        superseded=decision.rating.superseded,
        mended=decision.rating.mended,
        issued=issued_at(collateral.tcb_info, collateral.qe_identity, collateral.pck_crl),
    )


@lru_cache(maxsize=CHAINS_REMEMBERED)
def _require_no_platform(issuer_chain: str) -> None:
    for certificate in _certificates(issuer_chain.encode(), "issuer"):
        if any(extension.oid == SGX_EXTENSION for extension in certificate.extensions):
            raise EvidenceRefusedError("the endorsements are signed by a platform, expected Intel's TCB signer")


def _pick_root(pck_chain: bytes, roots: Sequence[TrustedRoot]) -> TrustedRoot:
    root = named_root(pck_chain, roots)
    if root is not None:
        return root
    fingerprint = _certificates(pck_chain, "PCK")[-1].fingerprint(SHA256()).hex()
    raise EvidenceRefusedError(
        "the quote's certificates lead to a root that this service does not trust",
        f"SHA-256 of that certificate is {fingerprint}; if it is the root.pem of a software platform for development, "
        "the owner of this service can admit it with `ostiary serve --trust-software-root root.pem`",
    )


def named_root(pck_chain: bytes, roots: Sequence[TrustedRoot]) -> TrustedRoot | None:
    """The root of which a certificate in the chain has the key. No trust comes of it: dcap-qvl verifies the chain
    under this root. Raises EvidenceFormatError.
    """
    for certificate in reversed(_certificates(pck_chain, "PCK")):
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for root in roots:
            if root.public_key == key:
                return root
    return None


@lru_cache(maxsize=CHAINS_REMEMBERED)
def _certificates(chain: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """All certificates of a chain in PEM. dcap-qvl sees blocks with headers too, so there must be none of another form
    beside those that are looked at here. Raises EvidenceFormatError.
    """
    try:
        ders = [a2b_base64(match[1]) for match in _CERTIFICATE.finditer(chain)]
    except Base64Error as error:
        raise EvidenceFormatError(f"SGX quote: a certificate of the {what} chain is not base64") from error
    if not ders:
        raise EvidenceFormatError(f"SGX quote: the {what} chain holds no certificate, expected PEM text")
    if len(ders) != chain.count(_BEGIN):
        raise EvidenceFormatError(f"SGX quote: the {what} chain has PEM blocks that are no plain certificates")
    return tuple(parse_certificate(der, f"a certificate of the {what} chain") for der in ders)


_EXPLANATIONS = (
    (
        "Debug mode is enabled",
        "debug enclaves of hardware are refused by this version; start a production build",
    ),
    ("CertRevoked", "a certificate of the evidence or its endorsements is revoked"),
    ("status is invalid: Revoked", "the TCB level of this platform is revoked"),
    ("No matching TCB level", "the platform meets no TCB level of the endorsements"),
    (
        "UnknownRevocationStatus",
        "there is no revocation list of who issued a certificate; have the platform fetch new endorsements",
    ),
    ("CrlExpired", "a revocation list in the endorsements has run out; have the platform fetch new endorsements"),
    ("expired", "the endorsements have run out; have the platform fetch new ones"),
    ("CertExpired", "a certificate of the quote or its endorsements has run out; have the platform fetch new ones"),
    ("date is in the future", "the endorsements are from the future; compare the clocks of platform and service"),
    ("CertNotValidYet", "a certificate is from the future; compare the clocks of platform and service"),
    ("non-SGX TCB info", "the endorsements are for another TEE than SGX"),
    ("QE Identity id/version", "the endorsements are for another TEE than SGX"),
    ("Fmspc mismatch", "the endorsements are for another kind of platform"),
    ("TcbInfo", "the TCB info is not of version 3; have the platform fetch endorsements from version 4 of Intel's API"),
    ("enclave report signature", "the quote is not signed by its attestation key: it was changed after signing"),
    ("hash mismatch", "the quoting enclave does not vouch for the attestation key of the quote"),
    ("qe_report", "the report of the quoting enclave is not signed by the platform's key"),
    ("QE ", "the quote was not made by the quoting enclave that the endorsements describe"),
    ("tcb_info", "the TCB info in the endorsements is not signed by its signer"),
    ("qe_identity", "the QE identity in the endorsements is not signed by its signer"),
    ("ForPublicKey", "a certificate or revocation list is not signed by the trusted root or what it certified"),
    ("UnknownIssuer", "a certificate does not lead to the trusted root"),
)


def _explain(text: str) -> str:
    return next(
        (explanation for mark, explanation in _EXPLANATIONS if mark in text),
        "the quote or its endorsements do not verify",
    )
