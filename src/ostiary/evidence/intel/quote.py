"""The frame of Intel's ECDSA quotes, versions 3 to 5: header, body, signature data. Nothing here is authenticated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from cryptography import x509

from ostiary.errors import EvidenceFormatError

MAX_QUOTE_BYTES = 32 * 1024
QUOTES_REMEMBERED = 16
QE_ID_BYTES = 16
SGX_BODY_BYTES = 384
TD_BODY_BYTES = 584
TD_15_BODY_BYTES = 648
PCK_CHAIN = 5
"""Certification data type: the PCK certificate chain in PEM."""
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
"""What a PCK certificate has, and no other. Source: Intel SGX PCK Certificate and CRL Profile."""

QuoteTee: TypeAlias = Literal["sgx", "tdx"]

_ECDSA_P256 = 2
_QE_REPORT_CERTIFICATION = 6
_TEES: Mapping[int, QuoteTee] = {0: "sgx", 0x81: "tdx"}
_BODIES: Mapping[int, tuple[QuoteTee, int]] = {
    1: ("sgx", SGX_BODY_BYTES),
    2: ("tdx", TD_BODY_BYTES),
    3: ("tdx", TD_15_BODY_BYTES),
}
_VERSION_WITH_BODY_TYPE = 5


@dataclass(frozen=True, kw_only=True)
class SignedQuote:
    """A quote cut into its parts. signed: what the attestation key signed. body: at body_offset of the quote.

    body_type: of version 5, else None. certification_type, certification: as they stand; of type PCK_CHAIN, PEM text.
    """

    version: int
    tee: QuoteTee
    body_type: int | None
    qe_svn: int
    pce_svn: int
    qe_vendor_id: bytes
    user_data: bytes
    body: bytes
    body_offset: int
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_type: int
    certification: bytes

    @property
    def qe_id(self) -> bytes:
        """16 bytes: what Intel's QE puts first into the user data, to name itself on this machine."""
        return self.user_data[:QE_ID_BYTES]


class Reader:
    """Cuts fields off the front of `data` and names field and offset when it ends too soon."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self.offset = 0

    def take(self, size: int, field: str) -> bytes:
        start = self.offset
        taken = self._data[start : start + size]
        if len(taken) < size:
            raise EvidenceFormatError(
                f"{self._what}: {field} at offset {start:#x} needs {size} bytes, found {len(taken)}"
            )
        self.offset = start + size
        return taken

    def integer(self, size: int, field: str, expected: tuple[int, ...] = ()) -> int:
        start = self.offset
        value = int.from_bytes(self.take(size, field), "little")
        if expected and value not in expected:
            wanted = " or ".join(map(str, expected))
            raise EvidenceFormatError(f"{self._what}: {field} at offset {start:#x} is {value}, expected {wanted}")
        return value

    def end_part(self, size: int, field: str) -> None:
        """The part that begins here has to end with the data; zeros may follow, which some hosts add."""
        end = self.offset + size
        if end > len(self._data) or any(self._data[end:]):
            raise EvidenceFormatError(
                f"{self._what}: {field} ends at offset {end:#x}, expected the end of the quote at {len(self._data):#x}"
            )


@lru_cache(maxsize=QUOTES_REMEMBERED)
def parse_signed_quote(data: bytes) -> SignedQuote:
    """Cut an SGX or TDX quote into its parts. Authenticates nothing. Pure, so the last QUOTES_REMEMBERED answers are
    remembered: a start asks several times.

    Offsets and sizes in bytes, integers little-endian:

        0x000    48  header: version u16 = 3, 4 or 5, attestation key type u16 = 2 (ECDSA P-256), TEE type u32 = 0 (SGX)
                     or 0x81 (TDX, not in version 3), QE SVN u16, PCE SVN u16, QE vendor id 16, user data 20
        0x030        version 5 only: body type u16 = 1 (SGX), 2 (TD 1.0), 3 (TD 1.5), and its size u32
                     then the body: 384 (SGX), 584 (TD 1.0), 648 (TD 1.5)
                  4  n, u32: size of the signature data, which follows; the quote ends with it, or zeros follow
        Signature data, offsets from its start:
        0x000    64  signature of all before n, r and s
        0x040    64  attestation key, x and y
                     versions 4 and 5: certification data type u16 = 6, and its size u32
                384  report body of the quoting enclave (QE)
                 64  signature of the QE report by the PCK key, r and s
                  2  a, u16: size of the QE authentication data, which follows
                  2  certification data type u16, 5 for the PCK certificate chain in PEM
                  4  c, u32: size of the certification data, which follows

    Raises EvidenceFormatError, and nothing else for any bytes: over MAX_QUOTE_BYTES, short, trailing bytes that are not
    zero, another version, key type, TEE or body type, sizes that do not fit.
    Source: Intel SGX ECDSA Quote Library API Reference, appendix A; Intel TDX DCAP Quoting Library API, appendix 3.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise EvidenceFormatError(f"quote: {len(data)} bytes, expected at most {MAX_QUOTE_BYTES}")
    reader = Reader(data, "quote")
    version = reader.integer(2, "version", expected=(3, 4, 5))
    reader.integer(2, "attestation key type", expected=(_ECDSA_P256,))
    tee = _TEES[reader.integer(4, "TEE type", expected=(0,) if version == 3 else tuple(_TEES))]
    qe_svn = reader.integer(2, "QE SVN")
    pce_svn = reader.integer(2, "PCE SVN")
    qe_vendor_id = reader.take(16, "QE vendor id")
    user_data = reader.take(20, "user data")
    body_type, size = None, SGX_BODY_BYTES if tee == "sgx" else TD_BODY_BYTES
    if version >= _VERSION_WITH_BODY_TYPE:
        kinds = tuple(kind for kind, (owner, _) in _BODIES.items() if owner == tee)
        body_type = reader.integer(2, "body type", expected=kinds)
        size = reader.integer(4, "size of the body", expected=(_BODIES[body_type][1],))
    body_offset = reader.offset
    body = reader.take(size, "body")
    signed = data[: reader.offset]
    reader.end_part(reader.integer(4, "size of the signature data"), "signature data")
    signature = reader.take(64, "signature")
    attestation_key = reader.take(64, "attestation key")
    if version > 3:
        reader.integer(2, "certification data type", expected=(_QE_REPORT_CERTIFICATION,))
        reader.end_part(reader.integer(4, "size of the certification data"), "certification data")
    qe_report = reader.take(SGX_BODY_BYTES, "QE report body")
    qe_report_signature = reader.take(64, "QE report signature")
    qe_auth_data = reader.take(reader.integer(2, "size of the QE authentication data"), "QE authentication data")
    certification_type = reader.integer(2, "certification data type")
    certification_size = reader.integer(4, "size of the certification data")
    reader.end_part(certification_size, "certification data")
    return SignedQuote(
        version=version,
        tee=tee,
        body_type=body_type,
        qe_svn=qe_svn,
        pce_svn=pce_svn,
        qe_vendor_id=qe_vendor_id,
        user_data=user_data,
        body=body,
        body_offset=body_offset,
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        certification_type=certification_type,
        certification=reader.take(certification_size, "certification data"),
    )
