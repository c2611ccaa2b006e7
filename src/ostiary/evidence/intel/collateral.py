"""Endorsements of an SGX or TDX quote: JSON text to what dcap-qvl takes. Authenticates nothing; `verify` does that."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from functools import lru_cache

from dcap_qvl import QuoteCollateralV3, parse_pck_extension_from_pem  # type: ignore[import-untyped]

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.chain import parse_revocation_list
from ostiary.evidence.intel.tcb import Platform, Rating, level_of, rate_by_svn, rate_sgx, rate_tdx

MAX_COLLATERAL_BYTES = 256 * 1024
COLLATERALS_REMEMBERED = 16
TCB_DATES_REMEMBERED = 256

_TEXTS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "tcb_info", "qe_identity_issuer_chain", "qe_identity")
_BINARIES = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")


@lru_cache(maxsize=COLLATERALS_REMEMBERED)
def parse_collateral(data: bytes) -> QuoteCollateralV3:
    """Read endorsements. Authenticates nothing. Pure, so the last COLLATERALS_REMEMBERED answers are remembered.

    A JSON object of nine members. PEM text: `pck_crl_issuer_chain`, `tcb_info_issuer_chain`,
    `qe_identity_issuer_chain`. JSON text, exactly as signed: `tcb_info`, `qe_identity`. Hex: `root_ca_crl` and
    `pck_crl` (DER), `tcb_info_signature` and `qe_identity_signature` (64 bytes, r and s). Other members are not
    looked at; above all `pck_certificate_chain`, as the chain that counts is the quote's own.

    Raises EvidenceFormatError, and nothing else for any bytes.
    Source: the collateral form of dcap-qvl; Intel PCS API version 4 for the parts.
    """
    if len(data) > MAX_COLLATERAL_BYTES:
        raise EvidenceFormatError(f"endorsements: {len(data)} bytes, expected at most {MAX_COLLATERAL_BYTES}")
    members = _object(data)
    texts = {name: _text(members, name) for name in _TEXTS}
    binaries = {name: _binary(members, name) for name in _BINARIES}
    return QuoteCollateralV3(
        pck_crl_issuer_chain=texts["pck_crl_issuer_chain"],
        root_ca_crl=binaries["root_ca_crl"],
        pck_crl=binaries["pck_crl"],
        tcb_info_issuer_chain=texts["tcb_info_issuer_chain"],
        tcb_info=texts["tcb_info"],
        tcb_info_signature=binaries["tcb_info_signature"],
        qe_identity_issuer_chain=texts["qe_identity_issuer_chain"],
        qe_identity=texts["qe_identity"],
        qe_identity_signature=binaries["qe_identity_signature"],
    )


@lru_cache(maxsize=COLLATERALS_REMEMBERED)
def digest_of(data: bytes) -> bytes:
    """SHA-256 of endorsements. The last COLLATERALS_REMEMBERED answers are remembered: platforms send theirs at each
    start.
    """
    return hashlib.sha256(data).digest()


@lru_cache(maxsize=TCB_DATES_REMEMBERED)
def tcb_date(tcb_info: str, pck_chain: bytes, tee_tcb_svn: bytes | None) -> datetime | None:
    """The date of the TCB level that a platform meets: the first level with no number above the platform's.

    tee_tcb_svn: 16 bytes of a TD report, None for SGX. All arguments must have been verified. None: no level matches,
    or a part is not of the documented form. Source: Intel PCS API version 4, "Enumerating TCB levels".
    """
    try:
        extension = parse_pck_extension_from_pem(pck_chain)
        platform = Platform(cpu_svn=extension.cpu_svn, pce_svn=extension.pce_svn)
        return level_of(json.loads(tcb_info), platform, tee_tcb_svn).date
    except (ValueError, AttributeError, EvidenceFormatError, EvidenceRefusedError):
        return None


@lru_cache(maxsize=TCB_DATES_REMEMBERED)
def rate_again(
    tcb_info: str, qe_identity: str, pck_chain: bytes, qe_svn: int, module_svns: tuple[bytes, bytes | None] | None
) -> Rating | None:
    """The rating of a platform by all its parts, for what dcap-qvl does not tell: since when it is out of date.

    qe_svn: ISV SVN of the quoting enclave. module_svns: tee_tcb_svn and tee_tcb_svn2 of a TD report, None for SGX. All
    arguments must have been verified. None: as `tcb_date`.
    """
    try:
        extension = parse_pck_extension_from_pem(pck_chain)
        platform = Platform(cpu_svn=extension.cpu_svn, pce_svn=extension.pce_svn)
        levels, qe = json.loads(tcb_info), rate_by_svn(json.loads(qe_identity), qe_svn, "quoting enclave")
        if module_svns is None:
            return rate_sgx(levels, platform, qe)
        return rate_tdx(levels, platform, qe, tee_tcb_svn=module_svns[0], tee_tcb_svn2=module_svns[1])
    except (ValueError, AttributeError, EvidenceFormatError, EvidenceRefusedError):
        return None


@lru_cache(maxsize=COLLATERALS_REMEMBERED)
def issued_at(tcb_info: str, qe_identity: str, pck_crl: bytes) -> datetime | None:
    """When the oldest of these was issued, all of them verified. Intel renews them every day to every month.

    The list of its root, renewed once a year, would say nothing. None: one does not say it.
    """
    try:
        dates = [datetime.fromisoformat(json.loads(text)["issueDate"]) for text in (tcb_info, qe_identity)]
        return min(*dates, parse_revocation_list(pck_crl, "revocation list").last_update_utc)
    except (ValueError, TypeError, KeyError, EvidenceFormatError):
        return None


def _object(data: bytes) -> dict[str, object]:
    try:
        members = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError("endorsements: not JSON, expected an object in UTF-8") from error
    if not isinstance(members, dict):
        raise EvidenceFormatError(f"endorsements: found {type(members).__name__}, expected a JSON object")
    return members


def _text(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise EvidenceFormatError(f"endorsements: member {name} is missing or not ASCII text")
    return value


def _binary(members: dict[str, object], name: str) -> bytes:
    try:
        return bytes.fromhex(_text(members, name))
    except ValueError as error:
        raise EvidenceFormatError(f"endorsements: member {name} is not hex") from error
