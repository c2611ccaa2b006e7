"""Is a TDX quote authentic? The only place that makes `Claims` of TDX evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ostiary.errors import EvidenceRefusedError
from ostiary.evidence.claims import Claims, ProgramClaims
from ostiary.evidence.intel.verify import verify_quote
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.tdx.layout import Report, parse_quote, shown


def verify(quote: bytes, endorsements: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> Claims:
    """Verify a TDX quote with its endorsements. Pure: `now` (aware) is the only clock.

    1. Form (`layout`).
    2. The quote is authentic under one of `roots` (`intel.verify.verify_quote`).
    3. The report that 2 verified is the one parsed in 1, so that all claims are of verified bytes.

    Guarantees: the holder of the root's key vouches for every field of the claims at `now`. What dcap-qvl refuses by
    itself stands in `debug` and `conditions`, for the session to tolerate or not.
    Does not guarantee: that the TCB status is a good one, that the quote is for this connection, or that anybody wants
    this TD (`appraise` judges all three).

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
        tee="tdx",
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
        conditions=_conditions(parsed.report),
        **program_of(quote),
    )


def program_of(quote: bytes) -> ProgramClaims:
    """The claims of a quote that are its TD's own, not its platform's."""
    parsed = parse_quote(quote)
    report = parsed.report
    measurements = {
        "mrtd": report.mrtd,
        **{f"rtmr{number}": value for number, value in enumerate(report.rtmr)},
        "mrseam": report.mrseam,
        "mrsignerseam": report.mrsignerseam,
        "mrconfigid": report.mrconfigid,
        "mrowner": report.mrowner,
        "mrownerconfig": report.mrownerconfig,
    }
    if report.mrservicetd is not None:
        measurements["mrservicetd"] = report.mrservicetd
    return ProgramClaims(
        measurements=measurements,
        signer=report.mrowner if any(report.mrowner) else None,
        product_id=None,
        svn=None,
        report_data=report.report_data,
        raw=shown(parsed),
    )


def _conditions(report: Report) -> frozenset[str]:
    found = set()
    if not report.sept_ve_disable:
        found.add("sept-ve-disable-off")
    if any(report.mrservicetd or b""):
        found.add("service-td")
    return frozenset(found)


def _require_same_report(fields: Mapping[str, object], parsed: Report) -> None:
    base = fields.get("base", fields)
    expected = {
        "mr_td": parsed.mrtd.hex(),
        "mr_config_id": parsed.mrconfigid.hex(),
        "td_attributes": parsed.td_attributes.hex(),
        "rt_mr0": parsed.rtmr[0].hex(),
        "rt_mr1": parsed.rtmr[1].hex(),
        "rt_mr2": parsed.rtmr[2].hex(),
        "rt_mr3": parsed.rtmr[3].hex(),
        "report_data": parsed.report_data.hex(),
    }
    if not isinstance(base, Mapping) or {name: base.get(name) for name in expected} != expected:
        raise EvidenceRefusedError("dcap-qvl read other fields from the quote than this service; report this as a bug")
