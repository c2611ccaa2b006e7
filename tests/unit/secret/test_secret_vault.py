"""What a key vault holds, to the value of a secret."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.format import public_text
from ostiary.secret.private_key import load_private_key
from ostiary.secret.value import AsciiValue, BinaryValue, CertificateValue, PrivateKeyValue, Value
from ostiary.secret.vault import VaultEntry, vault_value
from ostiary.session.model import AkvSecret

SECRET = AkvSecret(name="mine", vault="v.vault.azure.net", secret_name="theirs", token="aad")
KEY = bytes(range(32))


def sealed(data: bytes, kind: str = "") -> VaultEntry:
    header = bytes.fromhex("00a10002") + len(data).to_bytes(2, "big") + bytes(12)
    return VaultEntry(text=base64.b64encode(header + AESGCM(KEY).encrypt(bytes(12), data, None)).decode(), type=kind)


def pkcs1(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


RSA_KEY = rsa.generate_private_key(65537, 2048)


def refusal(secret: AkvSecret, entry: VaultEntry, key: bytes | None) -> str:
    with pytest.raises(ReleaseRefusedError) as caught:
        vault_value(secret, entry, key=key)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [None, "ascii"])
def test_text_is_text(kind: str | None) -> None:
    secret = replace(SECRET, kind=kind)
    assert vault_value(secret, VaultEntry(text="two\nlines \u00e9"), key=None) == AsciiValue(text="two\nlines \u00e9")
    assert vault_value(secret, sealed("\u00e9".encode()), key=KEY) == AsciiValue(text="\u00e9")


def test_pkcs12_stays_the_text_that_it_is() -> None:
    entry = VaultEntry(text="MIIKDgIBAzCCCcQ=", type="application/x-pkcs12")
    assert vault_value(SECRET, entry, key=None) == AsciiValue(text="MIIKDgIBAzCCCcQ=")


@pytest.mark.parametrize("kind", [None, "x509", "x509-ca"])
def test_a_pem_certificate_is_a_certificate_with_its_chain(chain: Mapping[str, Value], kind: str | None) -> None:
    leaf = chain["leaf"]
    assert isinstance(leaf, CertificateValue)
    text = "".join(public_text(chain[name]) for name in ("leaf", "middle", "root"))
    value = vault_value(replace(SECRET, kind=kind), VaultEntry(text=text), key=None)
    assert value == replace(leaf, private_key=None)


def test_a_key_beside_the_certificate_is_its_key(chain: Mapping[str, Value]) -> None:
    leaf = chain["leaf"]
    text = "".join(public_text(chain[name]) for name in ("leaf_key", "leaf", "middle", "root"))
    assert vault_value(SECRET, VaultEntry(text=text), key=None) == leaf
    assert vault_value(SECRET, sealed(text.encode()), key=KEY) == leaf


def test_the_author_may_want_the_text_of_a_certificate(chain: Mapping[str, Value]) -> None:
    text = public_text(chain["leaf"])
    secret = replace(SECRET, kind="ascii")
    assert vault_value(secret, VaultEntry(text=text), key=None) == AsciiValue(text=text)


def test_a_private_key_that_the_author_expects_is_one(keys: Mapping[str, Value]) -> None:
    secret, entry = replace(SECRET, kind="private-key"), VaultEntry(text=public_text(keys["P-256"]))
    assert vault_value(secret, entry, key=None) == keys["P-256"]
    assert vault_value(SECRET, entry, key=None) == AsciiValue(text=entry.text)


@pytest.mark.parametrize("kind", [None, "binary"])
def test_encrypted_bytes_are_bytes(kind: str | None) -> None:
    secret = replace(SECRET, kind=kind, size=2)
    assert vault_value(secret, sealed(b"\xff\x00", "binary"), key=KEY) == BinaryValue(data=b"\xff\x00")


def test_an_encrypted_rsa_key_is_a_private_key() -> None:
    value = vault_value(SECRET, sealed(pkcs1(RSA_KEY), "PKCS#1"), key=KEY)
    assert isinstance(value, PrivateKeyValue)
    assert load_private_key(value).public_key() == RSA_KEY.public_key()


SMALL_KEY = rsa.generate_private_key(65537, 1024)
SOURCE = "secret 'theirs' of key vault v.vault.azure.net"


@pytest.mark.parametrize(
    ("secret", "entry", "key", "message"),
    [
        (
            SECRET,
            sealed(b"\xff\x00"),
            KEY,
            f"{SOURCE}: it is not UTF-8 text; set the content type 'binary' in the vault",
        ),
        (SECRET, VaultEntry(text="hunter2\0"), None, f"{SOURCE}: value has a NUL or half a surrogate pair, which"),
        (SECRET, VaultEntry(text="hunter2\ud800"), None, f"{SOURCE}: value has a NUL or half a surrogate pair"),
        (SECRET, sealed(b"hunter2", "PKCS#1"), KEY, f"{SOURCE}: it is not the DER of an RSA private key of 2048 to"),
        (SECRET, sealed(pkcs1(SMALL_KEY), "PKCS#1"), KEY, f"{SOURCE}: it is not the DER of an RSA private key"),
        (
            SECRET,
            sealed(pkcs1(ec.generate_private_key(ec.SECP256R1())), "PKCS#1"),
            KEY,
            f"{SOURCE}: it is not the DER of an RSA private key",
        ),
        (
            SECRET,
            VaultEntry(text="-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"),
            None,
            f"{SOURCE}: value holds a certificate that cannot be read",
        ),
        (
            replace(SECRET, kind="private-key"),
            VaultEntry(text="hunter2"),
            None,
            f"{SOURCE}: value holds PEM 0 blocks, expected one block 'PRIVATE KEY'",
        ),
        (
            replace(SECRET, kind="binary"),
            VaultEntry(text="hunter2"),
            None,
            f"{SOURCE} is of kind ascii, expected binary; correct the kind, or leave it out",
        ),
        (
            replace(SECRET, kind="ascii"),
            sealed(b"hunter2", "binary"),
            KEY,
            f"{SOURCE} is of kind binary, expected ascii",
        ),
        (
            replace(SECRET, kind="x509"),
            VaultEntry(text="hunter2"),
            None,
            f"{SOURCE} is of kind ascii, expected x509",
        ),
        (replace(SECRET, size=3), VaultEntry(text="hunter2"), None, f"{SOURCE} has size 7, expected 3"),
        (
            SECRET,
            VaultEntry(text="hunter2"),
            KEY,
            "the encrypted text in the key vault is not base64; encrypt and upload",
        ),
    ],
)
def test_what_is_not_what_it_should_be_is_refused(
    secret: AkvSecret, entry: VaultEntry, key: bytes | None, message: str
) -> None:
    assert refusal(secret, entry, key).startswith(message)


def test_a_certificate_with_another_key_beside_it_is_refused(chain: Mapping[str, Value]) -> None:
    text = public_text(chain["root_key"]) + public_text(chain["leaf"])
    assert "private_key is not the key of the certificate in value" in refusal(SECRET, VaultEntry(text=text), None)
