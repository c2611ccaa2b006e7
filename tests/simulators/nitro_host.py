"""A host of Nitro enclaves that signs attestation documents under certificates of its own making."""

from __future__ import annotations

from dataclasses import dataclass

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.simulators.chains import NOW, Holder, issue

PCRS = {number: bytes([number + 1]) * 48 for number in range(5)} | {8: bytes(48)}


@dataclass(frozen=True, kw_only=True)
class Host:
    """leaf: the certificate of the key that signs."""

    root: Holder
    middle: Holder
    leaf: Holder

    def members(self, **changes: object) -> dict[str, object]:
        """The members of a payload; what is None is left out."""
        members = {
            "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp() * 1000),
            "pcrs": PCRS,
            "certificate": self.leaf.der,
            "cabundle": [self.root.der, self.middle.der],
            "public_key": None,
            "user_data": b"u" * 64,
            "nonce": b"n" * 8,
            **changes,
        }
        return {name: value for name, value in members.items() if value is not ...}

    def sign(self, payload: bytes, protected: bytes = bytes.fromhex("a1013822")) -> list[object]:
        """COSE_Sign1 over any payload."""
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(self.leaf.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        size = (self.leaf.key.key_size + 7) // 8
        return [protected, {}, payload, (r.to_bytes(size, "big") + s.to_bytes(size, "big")).rjust(96, b"\x00")]

    def document(self, **changes: object) -> bytes:
        """A signed document; changes: to its members, `...` leaves one out."""
        return cbor2.dumps(self.sign(cbor2.dumps(self.members(**changes))))


def make_host(*, root: Holder | None = None, curve: ec.EllipticCurve | None = None) -> Host:
    """A host with a chain of three."""
    root = root or issue("nitro-root")
    middle = issue("nitro-zone", root)
    leaf = issue("nitro-host", middle, ca=False, usage="digital_signature", curve=curve)
    return Host(root=root, middle=middle, leaf=leaf)
