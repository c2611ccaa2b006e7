"""A chip that signs SNP reports under certificates of its own making, in AMD's formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.simulators.chains import NOW, Holder, issue

CHIP_ID = bytes(range(1, 65))
MEASUREMENT = b"m" * 48
REPORT_DATA = b"r" * 64
TCB = bytes((3, 0, 0, 0, 0, 0, 8, 115))
"""Of Milan and Genoa: boot loader 3, TEE 0, SNP 8, microcode 115."""
PARTS = {1: 3, 2: 0, 3: 8, 8: 115}

_AMD = "1.3.6.1.4.1.3704.1"


def _extension(suffix: str, value: bytes) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_AMD}.{suffix}"), value), False


@dataclass(frozen=True, kw_only=True)
class Chip:
    """leaf: the certificate of the key that signs."""

    root: Holder
    middle: Holder
    leaf: Holder

    @property
    def endorsements(self) -> bytes:
        return self.leaf.pem + self.middle.pem + self.root.pem

    def report(self, fields: Mapping[int, bytes] | None = None, *, signing_key: int = 0, version: int = 3) -> bytes:
        """A signed report; fields: bytes by their offset, in place of the usual ones."""
        body = bytearray(0x2A0)
        usual = {
            0x000: version.to_bytes(4, "little"),
            0x004: (5).to_bytes(4, "little"),
            0x008: (0x30000).to_bytes(8, "little"),
            0x034: (1).to_bytes(4, "little"),
            0x048: (signing_key << 2).to_bytes(4, "little"),
            0x050: REPORT_DATA,
            0x090: MEASUREMENT,
            0x0C0: b"h" * 32,
            0x180: TCB,
            0x188: bytes((0x19, 0x01, 0x01)) if version >= 3 else b"",
            0x1A0: CHIP_ID,
        }
        for offset, value in {**usual, **(fields or {})}.items():
            body[offset : offset + len(value)] = value
        r, s = decode_dss_signature(self.leaf.key.sign(bytes(body), ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return bytes(body) + signature.ljust(512, b"\x00")


def make_chip(
    *,
    root: Holder | None = None,
    product: str | None = "Milan-B0",
    parts: Mapping[int, int] = PARTS,
    hardware_id: bytes | None = CHIP_ID,
    provider: str | None = None,
    curve: ec.EllipticCurve | None = None,
    end: datetime | None = None,
    extra: tuple[tuple[str, bytes], ...] = (),
) -> Chip:
    """A chip with a VCEK, or with a VLEK if `provider` is given and `hardware_id` is None. parts: TCB by extension."""
    root = root or issue("ARK-Test", usage="")
    middle = issue("SEV-Test", root, usage="")
    extensions = [_extension(f"3.{part}", asn1.encode_der(number)) for part, number in parts.items()]
    if product is not None:
        extensions.append(_extension("2", asn1.encode_der(asn1.IA5String(product))))
    if hardware_id is not None:
        extensions.append(_extension("4", hardware_id))
    if provider is not None:
        extensions.append(_extension("5", asn1.encode_der(asn1.IA5String(provider))))
    extensions += [_extension(suffix, value) for suffix, value in extra]
    end = end or NOW + timedelta(days=1)
    leaf = issue("SEV-VCEK", middle, ca=None, usage="", extensions=extensions, curve=curve, end=end)
    return Chip(root=root, middle=middle, leaf=leaf)
