"""Public keys: derived from a private key, or read from a session text."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from ostiary.errors import InputError
from ostiary.secret.pem import pem_labels
from ostiary.secret.private_key import CURVES, MAX_RSA_BITS, MIN_RSA_BITS, load_private_key
from ostiary.secret.value import PrivateKeyValue, PublicKeyValue

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def derive_public_key(key: PrivateKeyValue) -> PublicKeyValue:
    return _to_value(load_private_key(key).public_key())


def parse_public_key(text: str) -> PublicKeyValue:
    """A key given in a session text: one PEM block `PUBLIC KEY`, which is SubjectPublicKeyInfo (RFC 5280).

    Guarantees: P-256, P-384, P-521, Ed25519, or RSA of MIN_RSA_BITS to MAX_RSA_BITS. Raises InputError.
    """
    if pem_labels(text) != ("PUBLIC KEY",):
        raise InputError("value is not one PEM block 'PUBLIC KEY'; write it as openssl pkey -pubout does")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InputError("value is not a public key that can be read; write it as openssl pkey -pubout does") from None
    return _to_value(_check_type(key))


def _check_type(key: object) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return key
    if not isinstance(key, rsa.RSAPublicKey):
        raise InputError("value is a public key of another type, expected P-256, P-384, P-521, Ed25519 or RSA")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InputError(f"value is an RSA key of {key.key_size} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    return key


def _to_value(key: PublicKey) -> PublicKeyValue:
    return PublicKeyValue(spki_der=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
