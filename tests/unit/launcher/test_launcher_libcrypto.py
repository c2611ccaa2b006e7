"""libcrypto through ctypes, judged by the cryptography package."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from ostiary.errors import OutsideError
from ostiary.launcher.libcrypto import Libcrypto, load_libcrypto


def write_identity(path: Path) -> tuple[bytes, bytes]:
    with path.open("wb") as file:
        spki = load_libcrypto().write_identity(file.fileno())
    return path.read_bytes(), spki


def test_a_fresh_identity_is_a_p256_key_and_its_self_signed_certificate(tmp_path: Path) -> None:
    pem, spki = write_identity(tmp_path / "identity.pem")
    key = load_pem_private_key(pem, None)
    certificate = x509.load_pem_x509_certificate(pem)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == certificate.public_key()
    assert key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki
    certificate.verify_directly_issued_by(certificate)
    assert certificate.version is x509.Version.v3
    assert 0 < certificate.serial_number < 1 << 63
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc < now - timedelta(hours=23)
    assert certificate.not_valid_after_utc > now + timedelta(hours=23)


def test_no_two_identities_share_a_key(tmp_path: Path) -> None:
    first, second = write_identity(tmp_path / "1"), write_identity(tmp_path / "2")
    assert first[1] != second[1]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p384", "rsa", "ed25519"],
)
def test_spki_of_any_certificate_is_what_cryptography_finds(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 5, now, now + timedelta(days=1))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )  # fmt: skip
    expected = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert load_libcrypto().certificate_spki(certificate.public_bytes(Encoding.DER)) == expected


@pytest.mark.parametrize("der", [b"", b"\x30\x00", os.urandom(64)])
def test_bytes_that_are_no_certificate_are_refused(der: bytes) -> None:
    with pytest.raises(OutsideError, match="libcrypto: d2i_X509 failed: error:"):
        load_libcrypto().certificate_spki(der)


def test_a_descriptor_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with path.open("rb") as file, pytest.raises(OutsideError, match="libcrypto: PEM_write_bio_PrivateKey failed"):
        load_libcrypto().write_identity(file.fileno())


@pytest.mark.parametrize("library", ["libc.so.6", "libnosuch.so.0"])
def test_a_library_that_is_no_libcrypto_3_is_refused(library: str) -> None:
    with pytest.raises(OutsideError, match=r"libcrypto of OpenSSL 3.0 or later cannot be called: "):
        Libcrypto(library)


def test_where_ssl_hides_its_libcrypto_the_systems_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("_ssl.__file__", "libc.so.6")
    assert write_identity(tmp_path / "identity.pem")[1]
