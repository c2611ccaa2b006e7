"""Private keys: made, read from a session text, loaded again from a stored value.

New keys come from the generator inside the cryptography library (OpenSSL's, seeded by the operating system), which
takes no random bytes from its caller. They are therefore the one thing here that a test cannot repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from ostiary.errors import InputError
from ostiary.secret.pem import pem_labels
from ostiary.secret.value import PrivateKeyValue
from ostiary.session.pkcs8 import encode_version_2, pem_to_version_1, to_version_1

MIN_RSA_BITS = 2048
# Checking an RSA key costs about 0.2 s at 4096 bits and 3.5 s at 8192, on the connection of whoever uploads it.
MAX_RSA_BITS = 4096
_RSA_PUBLIC_EXPONENT = 65537

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
SignatureHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

KEY_TYPES: Mapping[str, Callable[[], PrivateKey]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA-2048": lambda: rsa.generate_private_key(_RSA_PUBLIC_EXPONENT, 2048),
    "RSA-3072": lambda: rsa.generate_private_key(_RSA_PUBLIC_EXPONENT, 3072),
}
CURVES: Mapping[str, SignatureHash] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_CONVERT = "convert it with: openssl pkcs8 -topk8 -nocrypt -in key.pem -out key-pkcs8.pem"


def generate_private_key(key_type: str) -> PrivateKeyValue:
    """A new key of one of KEY_TYPES, from the cryptography library's own generator. Raises InputError for others."""
    make = KEY_TYPES.get(key_type)
    if make is None:
        raise InputError(f"key_type is {key_type!r}, expected one of {', '.join(KEY_TYPES)}")
    key = make()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return PrivateKeyValue(pkcs8_der=encode_version_2(key))
    return _to_value(key)


def parse_private_key(text: str) -> PrivateKeyValue:
    """A key given in a session text: one PEM block `PRIVATE KEY`, which is unencrypted PKCS#8 and keeps its version.

    Guarantees: P-256, P-384, P-521, Ed25519, or RSA of MIN_RSA_BITS to MAX_RSA_BITS whose parts fit together.
    Does not guarantee that the key is secret or was made with good randomness.
    Raises InputError; the message never quotes the text.
    """
    labels = pem_labels(text)
    if labels != ("PRIVATE KEY",):
        found = ", ".join(f"{label!r}" for label in labels) if labels and len(labels) <= 2 else f"{len(labels)} blocks"
        convertible = any(label.endswith("PRIVATE KEY") and label != "PRIVATE KEY" for label in labels)
        raise InputError(
            f"value holds PEM {found}, expected one block 'PRIVATE KEY' (PKCS#8)"
            + (f"; {_CONVERT}" if convertible else "; give the key alone")
        )
    readable = _readable(text)
    key = _load_pem(readable, skip_slow_checks=True)
    if isinstance(key, rsa.RSAPrivateKey):
        _check_rsa_size(key)
        key = _load_pem(readable, skip_slow_checks=False)
    if isinstance(key, ed25519.Ed25519PrivateKey) and readable != text:
        return PrivateKeyValue(pkcs8_der=encode_version_2(key))
    return _to_value(key)


def load_private_key(value: PrivateKeyValue) -> PrivateKey:
    """The key of a value that this module made; it was checked then, so the slow RSA checks are not repeated."""
    key = load_der_private_key(to_version_1(value.pkcs8_der), None, unsafe_skip_rsa_key_validation=True)
    return _check_type(key)


def signature_hash(key: PrivateKey) -> SignatureHash | None:
    """The hash to sign with: as strong as the curve, SHA-256 for RSA, None for Ed25519, which has its own."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return CURVES[key.curve.name]
    return hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None


def _readable(text: str) -> str:
    try:
        return pem_to_version_1(text)
    except ValueError as error:
        raise InputError(f"value: {error}") from None


def _load_pem(text: str, *, skip_slow_checks: bool) -> PrivateKey:
    try:
        key = load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=skip_slow_checks)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError("value is not a private key that can be read; write it as openssl pkcs8 -topk8 does") from None
    return _check_type(key)


def _check_type(key: object) -> PrivateKey:
    known_curve = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES
    if known_curve or isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key  # type: ignore[return-value]
    raise InputError("value is a private key of another type, expected P-256, P-384, P-521, Ed25519 or RSA")


def _check_rsa_size(key: rsa.RSAPrivateKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InputError(f"value is an RSA key of {key.key_size} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")


def _to_value(key: PrivateKey) -> PrivateKeyValue:
    return PrivateKeyValue(pkcs8_der=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
