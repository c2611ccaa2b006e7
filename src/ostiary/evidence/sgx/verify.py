"""Is an SGX quote authentic? The only place that makes `Claims` of SGX evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ostiary.errors import EvidenceRefusedError
from ostiary.evidence.claims import Claims, ProgramClaims
from ostiary.evidence.intel.verify import verify_quote
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.sgx.layout import ReportBody, parse_quote, shown


def verify(quote: bytes, endorsements: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> Claims:
    """Verify an SGX quote with its endorsements. Pure: `now` (aware) is the only clock.

    1. Form (`layout`).
    2. The quote is authentic under one of `roots` (`intel.verify.verify_quote`).
    3. The report that 2 verified is the one parsed in 1, so that all claims are of verified bytes.

    Guarantees: the holder of the root's key vouches for every field of the claims at `now`. Evidence of a software root
    carries `software` and `debug`, whatever the quote says.
    Does not guarantee: that the TCB status is a good one, that the quote is for this connection, or that anybody wants
    this program (`appraise` judges all three).

    Raises EvidenceFormatError (1) and EvidenceRefusedError.
    """
    # 1.
    parsed = parse_quote(quote)
    # 2.
    verdict = verify_quote(quote, parsed.frame, endorsements, roots=roots, now=now)
    # 3.
    if verdict.report is not None:
        _require_same_report(verdict.report, parsed.report)
    root = verdict.root
    return Claims(
        tee="sgx",
        debug=parsed.report.debug or root.software,
        software=root.software,
        tcb_status=verdict.status,
        advisories=verdict.advisories,
        tcb_date=verdict.date,
        superseded=verdict.superseded,
        mended=verdict.mended,
        issued=verdict.issued,
        platform_id=verdict.ppid.hex(),
        qe_id=parsed.frame.qe_id,
        **program_of(quote),
    )


def program_of(quote: bytes) -> ProgramClaims:
    """The claims of a quote that are its program's own, not its platform's."""
    parsed = parse_quote(quote)
    report = parsed.report
    return ProgramClaims(
        measurements={"mrenclave": report.mr_enclave},
        signer=report.mr_signer,
        product_id=report.isv_prod_id,
        svn=report.isv_svn,
        report_data=report.report_data,
        raw=shown(parsed),
    )


def _require_same_report(fields: Mapping[str, object], parsed: ReportBody) -> None:
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
