"""A whole SGX platform in memory, from the root to quotes, every part of which a test can spoil.

It is built on the software platform, so it takes the same verifier path as hardware does.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ostiary.evidence.roots import TrustedRoot
from ostiary.platform.pki import Certificates, Keys, Lifetime, TcbLevel, issue_certificates, make_collateral, make_root
from ostiary.platform.quote import Enclave, Quoter

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
LIFETIME = Lifetime(start=NOW - timedelta(days=1), end=NOW + timedelta(days=30))
TCB_DATE = datetime(2026, 3, 1, tzinfo=UTC)
MR_ENCLAVE = bytes(range(32))
MR_SIGNER = bytes(range(100, 132))
REPORT_DATA = bytes(range(64))


@dataclass(frozen=True, kw_only=True)
class SgxPlatform:
    """keys, certificates: of this platform alone, in force for `lifetime`.

    `quote` and `collateral` make good ones unless told otherwise.
    """

    keys: Keys
    certificates: Certificates
    lifetime: Lifetime = LIFETIME

    @property
    def root_der(self) -> bytes:
        return self.certificates.root.public_bytes(Encoding.DER)

    @property
    def software_root(self) -> TrustedRoot:
        return TrustedRoot(certificate_der=self.root_der, software=True)

    @property
    def hardware_root(self) -> TrustedRoot:
        """As if the root were a vendor's."""
        return TrustedRoot(certificate_der=self.root_der, software=False)

    def quote(self, *, mr_enclave: bytes = MR_ENCLAVE, report_data: bytes = REPORT_DATA, debug: bool = False) -> bytes:
        enclave = Enclave(mr_enclave=mr_enclave, mr_signer=MR_SIGNER, isvprodid=7, isvsvn=3, debug=debug)
        return self._quoter.quote(enclave, report_data)

    def collateral(
        self,
        *,
        lifetime: Lifetime | None = None,
        status: str = "UpToDate",
        advisories: tuple[str, ...] = (),
        revoked: Collection[x509.Certificate] = (),
    ) -> bytes:
        level = TcbLevel(date=TCB_DATE, status=status, advisories=advisories)
        return make_collateral(self.keys, self.certificates, lifetime or self.lifetime, level=level, revoked=revoked)

    @cached_property
    def _quoter(self) -> Quoter:
        return Quoter(
            attestation_key=self.keys.attestation,
            platform_key=self.keys.platform,
            pck_chain=self.certificates.pck_chain,
        )


def make_platform(lifetime: Lifetime = LIFETIME) -> SgxPlatform:
    """A new platform with keys that nobody else has."""
    keys = Keys(root=_key(), issuer=_key(), platform=_key(), tcb_signer=_key(), attestation=_key())
    root = make_root(keys.root, lifetime)
    return SgxPlatform(keys=keys, certificates=issue_certificates(keys, root, lifetime), lifetime=lifetime)


def with_byte_flipped(data: bytes, offset: int, bits: int = 1) -> bytes:
    return data[:offset] + bytes([data[offset] ^ bits]) + data[offset + 1 :]


def with_pck_chain(quote: bytes, chain: bytes) -> bytes:
    """The quote with another certification data: type 5 and `chain`. Nobody signs these bytes."""
    auth_size = struct.unpack_from("<H", quote, 0x3F4)[0]
    signature_data = quote[0x1B4 : 0x3F6 + auth_size] + struct.pack("<HI", 5, len(chain)) + chain
    return quote[:0x1B0] + struct.pack("<I", len(signature_data)) + signature_data


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
