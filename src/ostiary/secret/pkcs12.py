"""PKCS#12 under the empty password, so that OpenSSL and Java both open it. Why so: docs/adr/0008."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from ostiary.secret.private_key import load_private_key
from ostiary.secret.value import CertificateValue, PrivateKeyValue


def encode_pkcs12(value: CertificateValue, private_key: bytes) -> bytes:
    """Key, certificate and chain of `value` as one PKCS#12 file (RFC 7292), DER.

    private_key: unencrypted PKCS#8 DER of the certified key. Encryption (PBES2, AES-256-CBC) and integrity check use
    the empty password, which is a form that readers expect and protects nothing: keep the file as you keep the key.
    """
    key = load_private_key(PrivateKeyValue(pkcs8_der=private_key))
    certificate = x509.load_der_x509_certificate(value.certificate_der)
    chain = [x509.load_der_x509_certificate(der) for der in value.chain_der]
    return pkcs12.serialize_key_and_certificates(None, key, certificate, chain, _EmptyPassword())


class _EmptyPassword(BestAvailableEncryption):
    """The library's encryption under a password of no characters, which its constructor does not take."""

    def __init__(self) -> None:
        self.password = b""
