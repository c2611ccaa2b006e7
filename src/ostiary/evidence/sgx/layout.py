"""An SGX ECDSA quote: bytes to fields. Nothing here is authenticated; `verify` does that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.claims import JsonValue
from ostiary.evidence.intel.quote import QUOTES_REMEMBERED, SignedQuote, parse_signed_quote

_DEBUG = 0x02
_MODE_64_BIT = 0x04
_PROVISION_KEY = 0x10
_RESERVED = ((0x014, 12), (0x060, 32), (0x0A0, 32), (0x106, 42))


@dataclass(frozen=True, kw_only=True)
class ReportBody:
    """What an SGX report says of one enclave. Sizes in bytes as in `parse_quote`; attributes are flags and XFRM."""

    cpu_svn: bytes
    misc_select: int
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes

    @property
    def debug(self) -> bool:
        """The enclave's memory can be read and written from outside."""
        return bool(self.attributes[0] & _DEBUG)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quote cut into fields. report: of the program's enclave; qe_report: of the quoting enclave."""

    frame: SignedQuote
    report: ReportBody
    qe_report: ReportBody


def parse_quote(data: bytes) -> Quote:
    """Split an SGX ECDSA quote, versions 3 to 5, into fields. Authenticates nothing.

    The frame is that of `intel.quote.parse_signed_quote`. A report body, offsets from its start: cpu_svn 16 at 0x000,
    misc_select u32 at 0x010, attributes 16 at 0x030, mr_enclave 32 at 0x040, mr_signer 32 at 0x080, isv_prod_id u16 at
    0x100, isv_svn u16 at 0x102, report_data 64 at 0x140. Bytes at 0x014 (12), 0x060 (32), 0x0A0 (32), 0x106 (42) are
    reserved and zero. The extended fields (product and family id, config id and SVN) may have any value and are not
    kept.

    Raises EvidenceFormatError, and nothing else for any bytes: what `parse_signed_quote` refuses, a quote of another
    TEE, reserved bytes not zero.
    Source: Intel SGX ECDSA Quote Library API Reference, appendix A.4; Intel SDM volume 3D, REPORT.
    """
    frame = parse_signed_quote(data)
    if frame.tee != "sgx":
        raise EvidenceFormatError(f"quote: of TEE {frame.tee.upper()}, expected SGX")
    return Quote(
        frame=frame,
        report=_report_body(frame.body, "report body"),
        qe_report=_qe_report_body(frame.qe_report),
    )


def shown(quote: Quote) -> dict[str, JsonValue]:
    """Every field, for people and programs to read, bytes in hex."""
    report = quote.report
    return {
        "quote_version": quote.frame.version,
        "att_key_type": 2,
        "qe_svn": quote.frame.qe_svn,
        "pce_svn": quote.frame.pce_svn,
        "cpu_svn": report.cpu_svn.hex(),
        "misc_select": report.misc_select,
        "attributes": report.attributes.hex(),
        "debug": report.debug,
        "mode64bit": bool(report.attributes[0] & _MODE_64_BIT),
        "provision_key": bool(report.attributes[0] & _PROVISION_KEY),
        "mrenclave": report.mr_enclave.hex(),
        "mrsigner": report.mr_signer.hex(),
        "isvprodid": report.isv_prod_id,
        "isvsvn": report.isv_svn,
        "report_data": report.report_data.hex(),
    }


@lru_cache(maxsize=QUOTES_REMEMBERED)
def _qe_report_body(body: bytes) -> ReportBody:
    """The same bytes in all quotes of a platform."""
    return _report_body(body, "QE report body")


def _report_body(body: bytes, field: str) -> ReportBody:
    for offset, size in _RESERVED:
        if any(body[offset : offset + size]):
            raise EvidenceFormatError(
                f"quote: {field}, reserved bytes at offset {offset:#x} of it are not zero, expected {size} zeros"
            )
    return parse_report_body(body)


def parse_report_body(body: bytes) -> ReportBody:
    """Name the fields of a report body, offsets as in `parse_quote`. The caller has seen to its size, 384 bytes."""
    return ReportBody(
        cpu_svn=body[0x000:0x010],
        misc_select=int.from_bytes(body[0x010:0x014], "little"),
        attributes=body[0x030:0x040],
        mr_enclave=body[0x040:0x060],
        mr_signer=body[0x080:0x0A0],
        isv_prod_id=int.from_bytes(body[0x100:0x102], "little"),
        isv_svn=int.from_bytes(body[0x102:0x104], "little"),
        report_data=body[0x140:0x180],
    )
