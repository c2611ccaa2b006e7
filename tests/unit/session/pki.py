"""Keys and certificates for session texts, made once for a test run."""

from __future__ import annotations

import datetime
import ssl
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def private_key(kind: str = "P-256") -> PrivateKey:
    """The one key of this kind."""
    return _make(kind)


@cache
def _make(kind: str) -> PrivateKey:
    curves: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    if kind == "secp256k1":
        return ec.generate_private_key(ec.SECP256K1())
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))


def pkcs8_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def sec1_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate_pem(kind: str = "P-256", *, serial: int = 1) -> str:
    """A self-signed certificate of `private_key(kind)`."""
    return _certify(kind, serial)


@cache
def _certify(kind: str, serial: int) -> str:
    key = private_key(kind)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2126, 1, 1, tzinfo=datetime.UTC))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def odd_certificate_pem() -> str:
    """A certificate whose key is on a curve that nobody knows."""
    der = ssl.PEM_cert_to_DER_cert(certificate_pem())
    prime256v1 = bytes.fromhex("06082a8648ce3d030107")
    return ssl.DER_cert_to_PEM_cert(der.replace(prime256v1, prime256v1[:-1] + b"\x7f"))
