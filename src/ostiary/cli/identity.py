"""Who a person is to a CAS: one private key and one self-signed certificate, in one PEM text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from ostiary.errors import ConfigurationError
from ostiary.session.base58 import encode_key_hash
from ostiary.session.pem import labels

SEED_BYTES = 32

_COMMON_NAME = "rcgen self signed cert"
_ALTERNATIVE_NAME = "scone cli"
_BEGIN = datetime(1975, 1, 1, tzinfo=UTC)
_END = datetime(4096, 1, 1, tzinfo=UTC)
_TO_PKCS8 = "convert the key: openssl pkcs8 -topk8 -nocrypt -in key.pem -out pkcs8.pem"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """pem: PKCS#8 key, then certificate, to show in TLS. certificate: the latter alone, as OpenSSL writes it."""

    pem: str = field(repr=False)
    certificate: str

    @property
    def key_hash(self) -> str:
        """Base58check text of the SHA-256 of the certificate's SubjectPublicKeyInfo."""
        return key_hash(self.certificate)


def make_identity() -> str:
    """A new identity as PEM text: P-256, self-signed, in the form of other CLIs; only key and form matter."""
    return self_signed(ec.generate_private_key(ec.SECP256R1()))


def self_signed(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    """A key and a certificate of its own, as PEM text: in TLS only the key matters."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
    names = x509.SubjectAlternativeName([x509.DNSName(_ALTERNATIVE_NAME)])
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_BEGIN).not_valid_after(_END)
    certificate = builder.add_extension(names, critical=False).sign(
        key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (pem + certificate.public_bytes(Encoding.PEM)).decode()


def parse_identity(text: str, where: str) -> Identity:
    """One unencrypted PKCS#8 key and the one certificate of it. Raises ConfigurationError that names `where`."""
    found = labels(text)
    if sorted(found) != ["CERTIFICATE", "PRIVATE KEY"]:
        hint = (_TO_PKCS8,) if any(label.endswith(" PRIVATE KEY") for label in found) else ()
        shown = ", ".join(found) or "none"
        raise ConfigurationError(
            f"{where}: expected the PEM blocks PRIVATE KEY (PKCS#8) and CERTIFICATE, found {shown}",
            *hint,
        )
    certificate = load_certificate(text, where)
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{where}: the private key cannot be read") from None
    if _spki(certificate) != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise ConfigurationError(f"{where}: the certificate is of another key than the private key beside it")
    return Identity(pem=text, certificate=_pem(certificate))


def load_certificate(text: str, where: str) -> x509.Certificate:
    """The first certificate of a PEM text. Raises ConfigurationError that names `where`."""
    try:
        return x509.load_pem_x509_certificates(text.encode())[0]
    except ValueError:
        raise ConfigurationError(f"{where}: expected a PEM certificate, and there is none that can be read") from None


def certificate_pem(text: str, where: str) -> str:
    """The first certificate of a PEM text, as OpenSSL writes it."""
    return _pem(load_certificate(text, where))


def key_hash(certificate: str) -> str:
    """Base58check text of the key hash of a PEM certificate."""
    return encode_key_hash(hashlib.sha256(_spki(load_certificate(certificate, "certificate"))).digest())


def signing_public_key(seed: bytes) -> str:
    """PEM of the Ed25519 public key that belongs to a seed of 32 bytes."""
    public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
