"""People who sign sessions, with keys of their own."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.session import parse_session


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a key, Ed25519 or P-384."""

    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def quoted(self) -> str:
        """The PEM as a YAML and JSON string."""
        return json.dumps(self.pem)

    def sign(self, session_hash: bytes) -> bytes:
        """The signature of a session, written out here once more, apart from the code under test."""
        message = b"\x00\x01" + session_hash
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ec.ECDSA(SHA384()))


def ed25519_person() -> Person:
    return Person(key=ed25519.Ed25519PrivateKey.generate())


def p384_person() -> Person:
    return Person(key=ec.generate_private_key(ec.SECP384R1()))


def signed(text: str, *people: Person, over: str | None = None) -> bytes:
    """The body of a signed upload. over: the text whose hash is signed, if it is another than the one sent."""
    digest = parse_session(text if over is None else over).hash
    signatures = [
        {"signer": person.pem, "signature": base64.b64encode(person.sign(digest)).decode()} for person in people
    ]
    return json.dumps({"session": text, "signatures": signatures}).encode()
