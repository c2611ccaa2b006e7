"""A TDX quote: the report of a trust domain (TD), bytes to fields. Authenticates nothing; `verify` does that."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.claims import JsonValue
from ostiary.evidence.intel.quote import TD_15_BODY_BYTES, SignedQuote, parse_signed_quote

TEE_TYPE = 0x81

_SEPT_VE_DISABLE = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the TDX module says of one TD. Sizes in bytes as in `parse_quote`. The last two are of TD 1.5 only."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None
    mrservicetd: bytes | None

    @property
    def debug(self) -> bool:
        """The host can read and write the TD's memory: a bit of the group TUD, bits 7:0, is set."""
        return bool(self.td_attributes[0])

    @property
    def sept_ve_disable(self) -> bool:
        """Whether the host is kept from raising #VE for pages that it takes away."""
        return bool(int.from_bytes(self.td_attributes, "little") & _SEPT_VE_DISABLE)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quote cut into fields."""

    frame: SignedQuote
    report: Report


def parse_quote(data: bytes) -> Quote:
    """Split a TDX quote, version 4 or 5, into fields. Authenticates nothing.

    The frame is that of `intel.quote.parse_signed_quote`. A TD report body, offsets and sizes in bytes:
        0x000  16  tee_tcb_svn        0x010  48  mrseam           0x040  48  mrsignerseam
        0x070   8  seam_attributes    0x078   8  td_attributes    0x080   8  xfam
        0x088  48  mrtd               0x0B8  48  mrconfigid       0x0E8  48  mrowner
        0x118  48  mrownerconfig      0x148  48  rtmr0, then rtmr1, rtmr2, rtmr3
        0x208  64  report_data        of TD 1.5: 0x248  16  tee_tcb_svn2, 0x258  48  mrservicetd

    Raises EvidenceFormatError, and nothing else for any bytes: what `parse_signed_quote` refuses, a quote of another
    TEE. Source: Intel TDX DCAP Quoting Library API, appendix 3; Intel TDX Module ABI, TDREPORT.
    """
    frame = parse_signed_quote(data)
    if frame.tee != "tdx":
        raise EvidenceFormatError(f"quote: of TEE {frame.tee.upper()}, expected TDX")
    body = frame.body
    later = len(body) >= TD_15_BODY_BYTES
    rtmr0, rtmr1, rtmr2, rtmr3 = (body[start : start + 48] for start in (0x148, 0x178, 0x1A8, 0x1D8))
    report = Report(
        tee_tcb_svn=body[0x000:0x010],
        mrseam=body[0x010:0x040],
        mrsignerseam=body[0x040:0x070],
        seam_attributes=body[0x070:0x078],
        td_attributes=body[0x078:0x080],
        xfam=body[0x080:0x088],
        mrtd=body[0x088:0x0B8],
        mrconfigid=body[0x0B8:0x0E8],
        mrowner=body[0x0E8:0x118],
        mrownerconfig=body[0x118:0x148],
        rtmr=(rtmr0, rtmr1, rtmr2, rtmr3),
        report_data=body[0x208:0x248],
        tee_tcb_svn2=body[0x248:0x258] if later else None,
        mrservicetd=body[0x258:0x288] if later else None,
    )
    return Quote(frame=frame, report=report)


def shown(quote: Quote) -> dict[str, JsonValue]:
    """Every field, for people and programs to read, bytes in hex."""
    report = quote.report
    fields: dict[str, JsonValue] = {
        "quote_version": quote.frame.version,
        "att_key_type": 2,
        "tee_type": hex(TEE_TYPE),
        "body_type": quote.frame.body_type,
        "tee_tcb_svn": report.tee_tcb_svn.hex(),
        "mrseam": report.mrseam.hex(),
        "mrsignerseam": report.mrsignerseam.hex(),
        "seam_attributes": report.seam_attributes.hex(),
        "td_attributes": report.td_attributes.hex(),
        "debug": report.debug,
        "sept_ve_disable": report.sept_ve_disable,
        "xfam": report.xfam.hex(),
        "mrtd": report.mrtd.hex(),
        "mrconfigid": report.mrconfigid.hex(),
        "mrowner": report.mrowner.hex(),
        "mrownerconfig": report.mrownerconfig.hex(),
        **{f"rtmr{number}": value.hex() for number, value in enumerate(report.rtmr)},
        "report_data": report.report_data.hex(),
    }
    if report.tee_tcb_svn2 is not None:
        fields["tee_tcb_svn2"] = report.tee_tcb_svn2.hex()
    if report.mrservicetd is not None:
        fields["mr_servicetd"] = report.mrservicetd.hex()
    return fields
