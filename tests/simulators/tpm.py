"""A TPM that tests make themselves: keys, quotes, event logs, and Azure's HCL report around a key."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

BANKS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
CURVES = {"secp256r1": 0x0003, "secp384r1": 0x0004, "secp521r1": 0x0005}
ATTRIBUTES = 0x00050072
ENDORSEMENT = 0x4000000B
NONCE = b"nonce"


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(data)) + data


def value(pcr: int, bank: str = "sha256") -> bytes:
    """What the PCRs of a simulated TPM hold."""
    return hashlib.new(bank, b"pcr %d" % pcr).digest()


def selections(selected: Mapping[str, Sequence[int]]) -> bytes:
    """TPML_PCR_SELECTION."""
    return struct.pack(">I", len(selected)) + b"".join(
        struct.pack(">HB", BANKS[bank], 3) + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
        for bank, pcrs in selected.items()
    )


@dataclass(frozen=True, kw_only=True)
class Tpm:
    """A TPM with one attestation key. scheme: rsassa, rsapss or ecdsa, with a hash."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    scheme: str = "ecdsa"
    hash: str = "sha256"

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def public_area(self, *, attributes: int = ATTRIBUTES) -> bytes:
        """TPMT_PUBLIC."""
        numbers = self.key.public_key().public_numbers()
        head = struct.pack(">HIHH", BANKS["sha256"], attributes, 0, 0x0010)
        if isinstance(numbers, rsa.RSAPublicNumbers):
            size = (numbers.n.bit_length() + 7) // 8
            return (
                struct.pack(">H", 0x0001)
                + head
                + struct.pack(">HHI", 0x0010, 8 * size, 0)
                + sized(numbers.n.to_bytes(size, "big"))
            )
        size = (numbers.curve.key_size + 7) // 8
        curve = struct.pack(">HHHH", 0x0018, BANKS["sha256"], CURVES[numbers.curve.name], 0x0010)
        return (
            struct.pack(">H", 0x0023)
            + head
            + curve
            + sized(numbers.x.to_bytes(size, "big"))
            + sized(numbers.y.to_bytes(size, "big"))
        )

    @property
    def qualified_name(self) -> bytes:
        """Of the key as a primary one of the endorsement hierarchy."""
        name = struct.pack(">H", BANKS["sha256"]) + hashlib.sha256(self.public_area()).digest()
        return name[:2] + hashlib.sha256(struct.pack(">I", ENDORSEMENT) + name).digest()

    def attest(
        self, selected: Mapping[str, Sequence[int]], *, nonce: bytes = NONCE, digest: bytes | None = None
    ) -> bytes:
        """TPMS_ATTEST over PCRs that hold `value`."""
        if digest is None:
            values = b"".join(value(pcr, bank) for bank, pcrs in selected.items() for pcr in sorted(pcrs))
            digest = hashlib.new(self.hash, values).digest()
        return (
            bytes.fromhex("ff544347 8018")
            + sized(self.qualified_name)
            + sized(nonce)
            + struct.pack(">QIIB", 1234, 5, 6, 1)
            + bytes(range(8))
            + selections(selected)
            + sized(digest)
        )

    def sign(self, data: bytes) -> bytes:
        """TPMT_SIGNATURE."""
        algorithm = HASHES[self.hash]
        code = {"rsassa": 0x0014, "rsapss": 0x0016, "ecdsa": 0x0018}[self.scheme]
        head = struct.pack(">HH", code, BANKS[self.hash])
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            size = (self.key.key_size + 7) // 8
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(algorithm)))
            return head + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
        pad: padding.AsymmetricPadding = padding.PKCS1v15()
        if self.scheme == "rsapss":
            pad = padding.PSS(padding.MGF1(algorithm), padding.PSS.MAX_LENGTH)
        return head + sized(self.key.sign(data, pad, algorithm))

    def members(self, selected: Mapping[str, Sequence[int]], **changes: object) -> dict[str, object]:
        """The members of evidence in its wire form, which `changes` replace; ... leaves one out."""
        quote = self.attest(selected)
        members: dict[str, object] = {
            "quote": quote,
            "signature": self.sign(quote),
            "ak_public": self.public_area(),
            "pcrs": {bank: {str(pcr): value(pcr, bank).hex() for pcr in pcrs} for bank, pcrs in selected.items()},
            **changes,
        }
        return {name: member for name, member in members.items() if member is not ...}

    def evidence(self, selected: Mapping[str, Sequence[int]], **changes: object) -> bytes:
        """Evidence in its wire form: JSON text."""
        return wire(self.members(selected, **changes))


def wire(members: Mapping[str, object]) -> bytes:
    """JSON text, bytes in base64."""
    return json.dumps(
        {
            name: base64.b64encode(member).decode() if isinstance(member, bytes) else member
            for name, member in members.items()
        }
    ).encode()


def hcl_report(
    ak: rsa.RSAPublicKey, *, kind: int = 2, report: bytes = bytes(1184), claims: bytes | None = None, after: int = 100
) -> bytes:
    """Azure's HCL report. claims: the runtime claims; None: those that name `ak`."""
    claims = runtime_claims(ak) if claims is None else claims
    data = struct.pack("<5I", len(claims) + 20, 1, kind, 1, len(claims)) + claims
    return b"HCLA" + struct.pack("<7I", 2, 2436, 2, 0, 0, 0, 0) + report + data + bytes(after)


def runtime_claims(ak: rsa.RSAPublicKey, **changes: object) -> bytes:
    """The JSON text that the hardware's report data have the hash of."""
    numbers = ak.public_numbers()
    key = {"kid": "HCLAkPub", "kty": "RSA", "e": _base64url(numbers.e), "n": _base64url(numbers.n)}
    members = {"keys": [key], "user-data": "00", "vm-configuration": {"vmUniqueId": "ID"}, **changes}
    return json.dumps({name: member for name, member in members.items() if member is not ...}).encode()


def _base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def old_event(pcr: int, kind: int, digest: bytes, data: bytes = b"") -> bytes:
    """TCG_PCR_EVENT."""
    return struct.pack("<II", pcr, kind) + digest + struct.pack("<I", len(data)) + data


def spec_id(banks: Sequence[tuple[int, int]] = ((0x0004, 20), (0x000B, 32)), vendor: bytes = b"") -> bytes:
    """The first event of a crypto-agile log."""
    data = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(banks))
    data += b"".join(struct.pack("<HH", *bank) for bank in banks) + bytes([len(vendor)]) + vendor
    return old_event(0, 3, bytes(20), data)


def event(pcr: int, kind: int, data: bytes, banks: Sequence[str] = ("sha1", "sha256")) -> bytes:
    """TCG_PCR_EVENT2 whose digests are those of its data."""
    digests = b"".join(struct.pack("<H", BANKS[bank]) + hashlib.new(bank, data).digest() for bank in banks)
    return struct.pack("<III", pcr, kind, len(banks)) + digests + struct.pack("<I", len(data)) + data
