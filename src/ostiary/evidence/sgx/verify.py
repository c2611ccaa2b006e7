"""Is an SGX quote authentic? The only place that makes `Claims` of SGX evidence; dcap-qvl decides."""

from __future__ import annotations

import hashlib
import json
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Sequence
from datetime import datetime

from dcap_qvl import QuoteCollateralV3, VerifiedReport, verify_with_root_ca  # type: ignore[import-untyped]

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.claims import Claims
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.sgx.collateral import parse_collateral, tcb_date
from ostiary.evidence.sgx.layout import ReportBody, parse_quote

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


def verify(quote: bytes, endorsements: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> Claims:
    """Verify an SGX quote, version 3, with its endorsements. Pure: `now` (aware) is the only clock.

    Checks, in this order; 3 is dcap-qvl's, under the one root that 2 picked:
    1. Form: the quote ends with its signature data, the endorsements have all parts (`layout`, `collateral`).
    2. The quote's PCK certificate chain holds the public key of one of `roots`. Names are not looked at.
    3. a) certificates of PCK, TCB signer and CAs lead to that root, hold at `now`, none is revoked; both CRLs are
          there, signed, and not past `nextUpdate`;
       b) TCB info and QE identity are signed by the TCB signer, issued before `now`, not past `nextUpdate`, for SGX,
          for this FMSPC;
       c) the QE report is signed by the PCK and is the QE of the QE identity; it names the attestation key, which
          signed header and report of the quote;
       d) a TCB level matches platform and QE, and neither is Revoked; the enclave is not a debug enclave.
    4. The report that 3 verified is the one parsed in 1, so that all claims are of verified bytes.

    Guarantees: the holder of the root's key vouches for every field of the claims at `now`. Evidence of a software root
    carries `software` and `debug`, whatever the quote says.
    Does not guarantee: that the TCB status is a good one, that the quote is for this connection, or that anybody wants
    this program (`appraise` judges all three). A CRL's `thisUpdate` in the future is not refused: dcap-qvl does not
    look, and a newer list only revokes more.

    Raises EvidenceFormatError (1) and EvidenceRefusedError (2 to 4).
    Source: Intel SGX DCAP Quote Verification; RFC 5280 for chains and CRLs; dcap-qvl 0.7.0.
    """
    # 1.
    parsed = parse_quote(quote)
    collateral = parse_collateral(endorsements)
    # 2.
    root = _pick_root(parsed.pck_chain, roots)
    # 3.
    report = _decide(quote, collateral, root, now)
    # 4.
    _require_same_report(report, parsed.report)
    return Claims(
        tee="sgx",
        measurements={"mrenclave": parsed.report.mr_enclave},
        signer=parsed.report.mr_signer,
        product_id=parsed.report.isv_prod_id,
        svn=parsed.report.isv_svn,
        report_data=parsed.report.report_data,
        debug=parsed.report.debug or root.software,
        software=root.software,
        tcb_status=report.status,
        advisories=frozenset(report.advisory_ids),
        tcb_date=tcb_date(collateral.tcb_info, parsed.pck_chain),
        platform_id=report.ppid.hex(),
        qe_id=parsed.qe_id,
    )


def _pick_root(pck_chain: bytes, roots: Sequence[TrustedRoot]) -> TrustedRoot:
    """The root whose key stands in the chain. No trust comes of it: dcap-qvl verifies the chain under this root."""
    certificates = _certificates(pck_chain)
    for certificate in reversed(certificates):
        for root in roots:
            if root.public_key in certificate:
                return root
    fingerprint = hashlib.sha256(certificates[-1]).hexdigest()
    raise EvidenceRefusedError(
        "the quote's certificates lead to a root that this service does not trust",
        f"SHA-256 of that certificate is {fingerprint}; if it is the root.pem of a software platform for development, "
        "the owner of this service can admit it with `ostiary serve --trust-software-root root.pem`",
    )


def _certificates(pck_chain: bytes) -> list[bytes]:
    try:
        certificates = [a2b_base64(match[1]) for match in _CERTIFICATE.finditer(pck_chain)]
    except Base64Error as error:
        raise EvidenceFormatError("SGX quote: a certificate of the PCK chain is not base64") from error
    if not certificates:
        raise EvidenceFormatError("SGX quote: the PCK chain holds no certificate, expected PEM text")
    return certificates


def _decide(quote: bytes, collateral: QuoteCollateralV3, root: TrustedRoot, now: datetime) -> VerifiedReport:
    try:
        return verify_with_root_ca(quote, collateral, root.certificate_der, int(now.timestamp()))
    except ValueError as error:
        text = " ".join(str(error).split())
        raise EvidenceRefusedError(_explain(text), text) from error


_EXPLANATIONS = (
    (
        "Debug mode is enabled",
        "debug enclaves of hardware are refused by this version; start a production build",
    ),
    ("CertRevoked", "a certificate of the quote or its endorsements is revoked"),
    ("status is invalid: Revoked", "the TCB level of this platform is revoked"),
    ("No matching TCB level", "the platform meets no TCB level of the endorsements"),
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


def _require_same_report(verified: VerifiedReport, parsed: ReportBody) -> None:
    fields = json.loads(verified.to_json())["report"]["SgxEnclave"]
    same = (
        fields["mr_enclave"] == parsed.mr_enclave.hex()
        and fields["mr_signer"] == parsed.mr_signer.hex()
        and fields["isv_prod_id"] == parsed.isv_prod_id
        and fields["isv_svn"] == parsed.isv_svn
        and fields["attributes"] == parsed.attributes.hex()
        and fields["report_data"] == parsed.report_data.hex()
    )
    if not same:
        raise EvidenceRefusedError("dcap-qvl read other fields from the quote than this service; report this as a bug")
