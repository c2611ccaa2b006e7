"""PKCS#12 under the empty password: who opens it, and what they find."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from ostiary.secret.format import FORMS
from ostiary.secret.private_key import load_private_key
from ostiary.secret.value import CertificateValue, PrivateKeyValue, Value
from ostiary.session.model import PrivateKeySecret, X509Secret

FORMAT = FORMS[CertificateValue].formats["pkcs12-with-private-key"]


def encoded(value: Value) -> bytes:
    assert isinstance(value, CertificateValue)
    return FORMAT.encode(value)


def own_key(value: Value) -> bytes:
    assert isinstance(value, CertificateValue)
    assert value.private_key is not None
    return value.private_key


def test_openssl_opens_it_and_finds_key_and_chain(tmp_path: Path, chain: Mapping[str, Value]) -> None:
    """Feature F119: the empty password, in OpenSSL."""
    (tmp_path / "leaf.p12").write_bytes(encoded(chain["leaf"]))
    command = ["openssl", "pkcs12", "-in", "leaf.p12", "-passin", "pass:", "-nodes"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    key = load_pem_private_key(shown, None)
    assert key.public_key() == load_private_key(PrivateKeyValue(pkcs8_der=own_key(chain["leaf"]))).public_key()
    assert len(x509.load_pem_x509_certificates(shown)) == 3


def test_openssl_refuses_another_password(tmp_path: Path, chain: Mapping[str, Value]) -> None:
    (tmp_path / "leaf.p12").write_bytes(encoded(chain["leaf"]))
    command = ["openssl", "pkcs12", "-in", "leaf.p12", "-passin", "pass:x", "-noout"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "invalid password" in done.stderr


def test_the_key_does_not_stand_in_it_unencrypted(chain: Mapping[str, Value]) -> None:
    """Java ignores bags that are not encrypted."""
    assert own_key(chain["leaf"])[-32:] not in encoded(chain["leaf"])
    assert pkcs12.load_pkcs12(encoded(chain["leaf"]), b"").key is not None


@pytest.mark.parametrize("key_type", ["P-256", "Ed25519", "RSA-2048"])
def test_keytool_opens_it_and_signs_with_the_key(
    tmp_path: Path, generated: Callable[..., dict[str, Value]], key_type: str
) -> None:
    """Feature F119: the empty password, in Java's keytool; a certificate request shows that it has the key."""
    values = generated(PrivateKeySecret(name="key", key_type=key_type), X509Secret(name="leaf", private_key="key"))
    (tmp_path / "leaf.p12").write_bytes(encoded(values["leaf"]))
    store = ["-storetype", "PKCS12", "-keystore", "leaf.p12", "-storepass", ""]
    command = ["keytool", "-certreq", "-alias", "1", *store]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    request = x509.load_pem_x509_csr(shown)
    key = load_private_key(PrivateKeyValue(pkcs8_der=own_key(values["leaf"])))
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()


def test_keytool_finds_the_chain(tmp_path: Path, chain: Mapping[str, Value]) -> None:
    """Feature F119: one key entry with the certificates up to the root."""
    (tmp_path / "leaf.p12").write_bytes(encoded(chain["leaf"]))
    command = ["keytool", "-list", "-v", "-storetype", "PKCS12", "-keystore", "leaf.p12", "-storepass", ""]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "Entry type: PrivateKeyEntry" in shown
    assert "Certificate chain length: 3" in shown
