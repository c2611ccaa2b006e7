"""PEM texts in a session: what they hold, as far as the language has rules about it. Trusts nothing.

Messages name labels and types, never the text: it may be a private key.
"""

from __future__ import annotations

import hashlib
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ostiary.session.pkcs8 import pem_to_version_1

MIN_RSA_BITS = 2048

_BEGIN = re.compile(r"-----BEGIN ([^\r\n-]{1,64})-----")
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_TO_PKCS8 = "convert it: openssl pkcs8 -topk8 -nocrypt -in key.pem -out pkcs8.pem"


def labels(text: str) -> tuple[str, ...]:
    """The labels of all PEM blocks that begin in `text`, in order."""
    return tuple(_BEGIN.findall(text))


def certificate_key_hash(text: str) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo of the one certificate in `text`. Raises ValueError with one sentence."""
    if labels(text) != ("CERTIFICATE",):
        raise ValueError(f"expected one PEM block CERTIFICATE, found {_found(text)}")
    key = _certificate_key(_load_certificates(text)[0])
    return hashlib.sha256(_spki(key)).digest()


def certificates_key(text: str) -> bytes:
    """The DER SubjectPublicKeyInfo of the first certificate of one or more in `text`. Raises ValueError."""
    if not labels(text) or set(labels(text)) != {"CERTIFICATE"}:
        raise ValueError(f"expected PEM blocks CERTIFICATE only, found {_found(text)}")
    return _spki(_certificate_key(_load_certificates(text)[0]))


def private_key(text: str) -> tuple[str, bytes]:
    """Type (`P-256`, `Ed25519`, `RSA-2048`, …) and DER SubjectPublicKeyInfo of an unencrypted PKCS#8 key.

    The parts of an RSA key are not checked against each other, which takes long; whoever uses it must.
    Raises ValueError with one sentence.
    """
    found = labels(text)
    if found != ("PRIVATE KEY",):
        convertible = any(label.endswith("PRIVATE KEY") and label != "PRIVATE KEY" for label in found)
        hint = f"; {_TO_PKCS8}" if convertible else ""
        raise ValueError(f"expected one PEM block PRIVATE KEY (PKCS#8), found {_found(text)}{hint}")
    readable = pem_to_version_1(text)
    try:
        key = load_pem_private_key(readable.encode(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("expected a PKCS#8 private key, found a PEM block that cannot be read as one") from None
    return _key_type(key.public_key()), _spki(key.public_key())


def public_key(text: str) -> tuple[str, bytes]:
    """Type and DER SubjectPublicKeyInfo of the one public key in `text`. Raises ValueError with one sentence."""
    if labels(text) != ("PUBLIC KEY",):
        raise ValueError(f"expected one PEM block PUBLIC KEY (SubjectPublicKeyInfo), found {_found(text)}")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected a public key, found a PEM block that cannot be read as one") from None
    return _key_type(key), _spki(key)


def ed25519_spki(raw: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of an Ed25519 public key of 32 bytes."""
    return _spki(ed25519.Ed25519PublicKey.from_public_bytes(raw))


def _key_type(key: PublicKeyTypes) -> str:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise ValueError(f"expected an RSA key of at least {MIN_RSA_BITS} bits, found {key.key_size}")
        return f"RSA-{key.key_size}"
    raise ValueError("expected a P-256, P-384, P-521, Ed25519 or RSA key, found another type")


def _load_certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ValueError("expected an X.509 certificate, found a PEM block that cannot be read as one") from None


def _certificate_key(certificate: x509.Certificate) -> PublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected a certificate with a key that can be read, found one of an unknown type") from None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _found(text: str) -> str:
    found = labels(text)
    if not found:
        return "no PEM block"
    return ", ".join(found) if len(found) <= 3 else f"{len(found)} blocks"
