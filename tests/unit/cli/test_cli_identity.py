"""Identities: which PEM texts are one, and the forms of what is shown of them."""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ostiary.cli.identity import key_hash, make_identity, parse_identity, signing_public_key
from ostiary.errors import ConfigurationError
from ostiary.session.base58 import decode_key_hash


def test_a_new_identity_is_a_p256_key_and_its_own_certificate() -> None:
    pem = make_identity()
    assert pem.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert pem.count("-----BEGIN") == 2
    certificate = x509.load_pem_x509_certificate(pem.encode())
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=rcgen self signed cert"
    assert make_identity() != pem


def test_an_identity_is_read_back_with_the_certificate_as_openssl_writes_it() -> None:
    pem = make_identity()
    identity = parse_identity(pem.replace("\n", "\r\n"), "here")
    shown = subprocess.run(["openssl", "x509"], input=pem, capture_output=True, text=True, check=True).stdout
    assert identity.certificate == shown
    spki = (
        x509.load_pem_x509_certificate(pem.encode())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    assert decode_key_hash(identity.key_hash) == hashlib.sha256(spki).digest()
    assert key_hash(shown) == identity.key_hash
    assert "PRIVATE" not in repr(identity)


def test_keys_in_other_forms_are_refused_with_the_command_that_converts_them() -> None:
    pem = make_identity()
    key = load_pem_private_key(pem.encode(), None)
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    with pytest.raises(ConfigurationError, match="openssl pkcs8 -topk8 -nocrypt") as caught:
        parse_identity(old + pem[pem.index("-----BEGIN CERT") :], "file.pem")
    assert "file.pem: expected the PEM blocks" in str(caught.value)
    assert "found EC PRIVATE KEY, CERTIFICATE" in str(caught.value)


def split(pem: str) -> tuple[str, str]:
    """The key and the certificate of an identity."""
    key, mark, certificate = pem.partition("-----BEGIN CERTIFICATE-----")
    return key, mark + certificate


KEY, CERTIFICATE = split(make_identity())
OTHER_CERTIFICATE = split(make_identity())[1]
NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(("text", "says"), [
    ("", "found none"),
    (KEY, "found PRIVATE KEY"),
    (CERTIFICATE, "found CERTIFICATE"),
    (KEY + CERTIFICATE + OTHER_CERTIFICATE, "found PRIVATE KEY, CERTIFICATE, CERTIFICATE"),
    (KEY + OTHER_CERTIFICATE, "of another key than the private key beside it"),
    (KEY.replace("MIG", "MIX", 1) + CERTIFICATE, "the private key cannot be read"),
    (KEY + NO_CERTIFICATE, "expected a PEM certificate"),
])  # fmt: skip
def test_what_is_no_identity_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_identity(text, "file.pem")
    assert says in str(caught.value)
    assert KEY.split("\n")[1] not in str(caught.value)


def test_the_signing_key_is_made_of_its_seed() -> None:
    """RFC 8032, 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    shown = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"],
        input=signing_public_key(seed).encode(),
        capture_output=True,
        check=True,
    ).stdout
    assert shown[-32:].hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
