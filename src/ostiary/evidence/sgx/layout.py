"""An SGX ECDSA quote, version 3: bytes to fields. Nothing here is authenticated; `verify` does that."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.errors import EvidenceFormatError

MAX_QUOTE_BYTES = 16 * 1024
REPORT_BODY_BYTES = 384
SIGNED_BYTES = 0x1B0
QE_ID_BYTES = 16
REPORT_BODY = slice(0x030, 0x1B0)
SIGNATURE = slice(0x1B4, 0x1F4)

_DEBUG = 0x02
_CERTIFICATION_TYPE_PCK_CHAIN = 5
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
    """A quote cut into fields. `signed` is what the attestation key signed; `pck_chain` is PEM text as it stood."""

    signed: bytes
    qe_svn: int
    pce_svn: int
    qe_vendor_id: bytes
    user_data: bytes
    report: ReportBody
    signature: bytes
    attestation_key: bytes
    qe_report: ReportBody
    qe_report_signature: bytes
    qe_auth_data: bytes
    pck_chain: bytes

    @property
    def qe_id(self) -> bytes:
        """16 bytes: what Intel's QE puts first into the user data, to name itself on this machine."""
        return self.user_data[:QE_ID_BYTES]


class _Reader:
    """Cuts fields off the front of `data` and names field and offset when it ends too soon."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0

    def take(self, size: int, field: str) -> bytes:
        end = self.offset + size
        if end > len(self._data):
            found = len(self._data) - self.offset
            raise EvidenceFormatError(
                f"SGX quote: {field} at offset {self.offset:#x} needs {size} bytes, found {found}"
            )
        taken = self._data[self.offset : end]
        self.offset = end
        return taken

    def integer(self, size: int, field: str, expected: int | None = None) -> int:
        start = self.offset
        value = int.from_bytes(self.take(size, field), "little")
        if expected is not None and value != expected:
            raise EvidenceFormatError(f"SGX quote: {field} at offset {start:#x} is {value}, expected {expected}")
        return value


def parse_quote(data: bytes) -> Quote:
    """Split an SGX ECDSA quote, version 3, into fields. Authenticates nothing.

    Offsets and sizes in bytes, integers little-endian:

        0x000    48  header: version u16 = 3, attestation key type u16 = 2 (ECDSA P-256), TEE type u32 = 0 (SGX),
                     QE SVN u16, PCE SVN u16, QE vendor id 16, user data 20, of which the first 16 are the QE id
        0x030   384  report body of the program's enclave
        0x1B0     4  n, u32: size of the signature data
        0x1B4    64  signature of data[0x000:0x1B0], r and s
        0x1F4    64  attestation key, x and y
        0x234   384  report body of the quoting enclave (QE)
        0x3B4    64  signature of the QE report by the PCK key, r and s
        0x3F4     2  a, u16: size of the QE authentication data, which follows
        0x3F6+a   2  certification data type u16 = 5 (PCK certificate chain in PEM)
        0x3F8+a   4  c, u32: size of the chain, which follows; the quote ends with it

    A report body, offsets from its start: cpu_svn 16 at 0x000, misc_select u32 at 0x010, attributes 16 at 0x030,
    mr_enclave 32 at 0x040, mr_signer 32 at 0x080, isv_prod_id u16 at 0x100, isv_svn u16 at 0x102, report_data 64 at
    0x140. Bytes at 0x014 (12), 0x060 (32), 0x0A0 (32), 0x106 (42) are reserved and zero. The extended fields (product
    and family id, config id and SVN) may have any value and are not kept.

    Raises EvidenceFormatError, and nothing else for any bytes: over MAX_QUOTE_BYTES, short or trailing data, another
    version, key type, TEE or certification data type, reserved bytes not zero.
    Source: Intel SGX ECDSA Quote Library API Reference, appendix A.4; Intel SDM volume 3D, REPORT.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise EvidenceFormatError(f"SGX quote: {len(data)} bytes, expected at most {MAX_QUOTE_BYTES}")
    reader = _Reader(data)
    reader.integer(2, "version", expected=3)
    reader.integer(2, "attestation key type", expected=2)
    reader.integer(4, "TEE type", expected=0)
    qe_svn = reader.integer(2, "QE SVN")
    pce_svn = reader.integer(2, "PCE SVN")
    qe_vendor_id = reader.take(16, "QE vendor id")
    user_data = reader.take(20, "user data")
    report = _report_body(reader, "report body")
    size = reader.integer(4, "size of the signature data")
    _expect_end(reader.offset + size, data, "signature data")
    signature = reader.take(64, "signature")
    attestation_key = reader.take(64, "attestation key")
    qe_report = _report_body(reader, "QE report body")
    qe_report_signature = reader.take(64, "QE report signature")
    qe_auth_data = reader.take(reader.integer(2, "size of the QE authentication data"), "QE authentication data")
    return Quote(
        signed=data[:SIGNED_BYTES],
        qe_svn=qe_svn,
        pce_svn=pce_svn,
        qe_vendor_id=qe_vendor_id,
        user_data=user_data,
        report=report,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        pck_chain=_pck_chain(reader, data),
    )


def _report_body(reader: _Reader, field: str) -> ReportBody:
    start = reader.offset
    body = reader.take(REPORT_BODY_BYTES, field)
    for offset, size in _RESERVED:
        if any(body[offset : offset + size]):
            raise EvidenceFormatError(
                f"SGX quote: {field}, reserved bytes at offset {start + offset:#x} are not zero, expected {size} zeros"
            )
    return parse_report_body(body)


def parse_report_body(body: bytes) -> ReportBody:
    """Name the fields of a report body, offsets as in `parse_quote`. The caller has seen to its REPORT_BODY_BYTES."""
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


def _pck_chain(reader: _Reader, data: bytes) -> bytes:
    reader.integer(2, "certification data type", expected=_CERTIFICATION_TYPE_PCK_CHAIN)
    size = reader.integer(4, "size of the PCK certificate chain")
    _expect_end(reader.offset + size, data, "PCK certificate chain")
    return reader.take(size, "PCK certificate chain")


def _expect_end(end: int, data: bytes, field: str) -> None:
    if end != len(data):
        raise EvidenceFormatError(
            f"SGX quote: {field} ends at offset {end:#x}, expected the end of the quote at {len(data):#x}"
        )
