"""Who a TLS peer is: hashes of its key, of every size and kind."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.server.identity import Identity

KEYS: dict[str, tuple[PublicKeyTypes, Encoding, PublicFormat]] = {
    "P-256": (ec.generate_private_key(ec.SECP256R1()).public_key(), Encoding.X962, PublicFormat.UncompressedPoint),
    "P-521": (ec.generate_private_key(ec.SECP521R1()).public_key(), Encoding.X962, PublicFormat.UncompressedPoint),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate().public_key(), Encoding.Raw, PublicFormat.Raw),
    "RSA-3072": (rsa.generate_private_key(65537, 3072).public_key(), Encoding.DER, PublicFormat.PKCS1),
}


@pytest.mark.parametrize("case", KEYS)
def test_the_hashes_are_of_the_key_with_and_without_its_algorithm(case: str) -> None:
    key, encoding, bits = KEYS[case]
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    identity = Identity(certificate="", spki=spki)
    assert identity.key_hash == hashlib.sha256(spki).digest()
    assert identity.key_bits_hash == hashlib.sha256(key.public_bytes(encoding, bits)).digest()
