"""Quotes of the software platform: genuine SGX ECDSA quotes, version 3, signed by keys in a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.platform.pki import (
    CPU_SVN,
    PCE_SVN,
    QE_ATTRIBUTES,
    QE_ISV_PROD_ID,
    QE_ISV_SVN,
    QE_MR_SIGNER,
    Key,
    sign_raw,
)

_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_AUTH_DATA = bytes(range(32))
_INITIALISED, _DEBUG, _MODE_64_BIT = 0x01, 0x02, 0x04
_X87_AND_SSE = 0x03


@dataclass(frozen=True, kw_only=True)
class Enclave:
    """What a quote says of a program. mr_enclave, mr_signer: 32 bytes. isvprodid, isvsvn: 0 to 65535."""

    mr_enclave: bytes
    mr_signer: bytes
    isvprodid: int = 1
    isvsvn: int = 1
    debug: bool = False


class Quoter:
    """Signs quotes with one attestation key, which the platform key vouches for through a QE report made here once."""

    def __init__(self, *, attestation_key: Key, platform_key: Key, pck_chain: bytes) -> None:
        self._key = attestation_key
        point = attestation_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        vouched = hashlib.sha256(point + _QE_AUTH_DATA).digest()
        qe_report = _report_body(
            attributes=QE_ATTRIBUTES,
            mr_enclave=hashlib.sha256(QE_MR_SIGNER).digest(),
            mr_signer=QE_MR_SIGNER,
            isvprodid=QE_ISV_PROD_ID,
            isvsvn=QE_ISV_SVN,
            report_data=vouched + bytes(32),
        )
        self._after_signature = (
            point
            + qe_report
            + sign_raw(platform_key, qe_report)
            + _sized(_QE_AUTH_DATA, 2)
            + (5).to_bytes(2, "little")
            + _sized(pck_chain, 4)
        )

    def quote(self, enclave: Enclave, report_data: bytes) -> bytes:
        """A quote of the layout that `evidence.sgx.layout.parse_quote` documents. `report_data`: 64 bytes."""
        flags = _INITIALISED | _MODE_64_BIT | (_DEBUG if enclave.debug else 0)
        signed = _header() + _report_body(
            attributes=bytes([flags]) + bytes(7) + bytes([_X87_AND_SSE]) + bytes(7),
            mr_enclave=enclave.mr_enclave,
            mr_signer=enclave.mr_signer,
            isvprodid=enclave.isvprodid,
            isvsvn=enclave.isvsvn,
            report_data=report_data,
        )
        return signed + _sized(sign_raw(self._key, signed) + self._after_signature, 4)


def _header() -> bytes:
    return (
        (3).to_bytes(2, "little")
        + (2).to_bytes(2, "little")
        + bytes(4)
        + QE_ISV_SVN.to_bytes(2, "little")
        + PCE_SVN.to_bytes(2, "little")
        + _QE_VENDOR_ID
        + bytes(20)
    )


def _report_body(
    *, attributes: bytes, mr_enclave: bytes, mr_signer: bytes, isvprodid: int, isvsvn: int, report_data: bytes
) -> bytes:
    """384 bytes. Raises ValueError for a part of another size."""
    body = bytearray(384)
    for offset, size, part in (
        (0x000, 16, CPU_SVN),
        (0x030, 16, attributes),
        (0x040, 32, mr_enclave),
        (0x080, 32, mr_signer),
        (0x100, 2, isvprodid.to_bytes(2, "little")),
        (0x102, 2, isvsvn.to_bytes(2, "little")),
        (0x140, 64, report_data),
    ):
        if len(part) != size:
            raise ValueError(f"report body: part at {offset:#x} has {len(part)} bytes, expected {size}")
        body[offset : offset + size] = part
    return bytes(body)


def _sized(data: bytes, size_bytes: int) -> bytes:
    return len(data).to_bytes(size_bytes, "little") + data
