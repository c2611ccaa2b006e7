"""Private keys: made in five types, read from a session text as PKCS#8 PEM only."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ostiary.errors import InputError
from ostiary.secret.format import public_text
from ostiary.secret.pem import encode_pem
from ostiary.secret.private_key import generate_private_key, load_private_key, parse_private_key, signature_hash
from ostiary.secret.render import render
from ostiary.secret.value import PrivateKeyValue, Value
from ostiary.session.placeholder import parse_template


def pem(key: object, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()  # type: ignore[attr-defined, no-any-return]


def old_pem(value: Value) -> str:
    return render(parse_template("$$SCONE::key:pkcs8-v1:pem$$"), {"key": value}).decode()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("key_type", "shown"),
    [
        ("P-256", "ASN1 OID: prime256v1"),
        ("P-384", "ASN1 OID: secp384r1"),
        ("Ed25519", "ED25519 Private-Key:"),
        ("RSA-2048", "Private-Key: (2048 bit"),
        ("RSA-3072", "Private-Key: (3072 bit"),
    ],
)
def test_each_type_is_read_by_openssl_with_its_curve_or_size(
    keys: Mapping[str, Value], key_type: str, shown: str
) -> None:
    """Feature F099, F100."""
    command = ["openssl", "pkey", "-noout", "-text"]
    text = old_pem(keys[key_type])
    assert shown in subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def test_f103_a_generated_ed25519_key_is_pkcs8_of_version_2(keys: Mapping[str, Value]) -> None:
    """Feature F103: the version field is 1, and the public key is present (RFC 5958, RFC 8410)."""
    value = keys["Ed25519"]
    assert isinstance(value, PrivateKeyValue)
    public = load_private_key(value).public_key()
    assert isinstance(public, ed25519.Ed25519PublicKey)
    assert len(value.pkcs8_der) == 83
    assert value.pkcs8_der[2:5] == bytes.fromhex("020101")
    assert value.pkcs8_der[-35:] == bytes.fromhex("812100") + public.public_bytes_raw()


def test_f103_its_old_format_is_written_as_openssl_writes_it(keys: Mapping[str, Value]) -> None:
    """Feature F103: version 1, whose version field is 0, for OpenSSL 3.0 reads no other (docs/adr/0006)."""
    text = old_pem(keys["Ed25519"])
    command = ["openssl", "pkey"]
    assert subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout == text


@pytest.mark.parametrize("key_type", ["P-256", "P-384", "RSA-2048", "RSA-3072"])
def test_other_types_have_one_version(keys: Mapping[str, Value], key_type: str) -> None:
    assert old_pem(keys[key_type]) == public_text(keys[key_type])


def test_an_explicit_ed25519_key_keeps_its_version(keys: Mapping[str, Value]) -> None:
    new, old = public_text(keys["Ed25519"]), old_pem(keys["Ed25519"])
    assert public_text(parse_private_key(new)) == new
    assert public_text(parse_private_key(old)) == old
    assert old_pem(parse_private_key(new)) == old
    found = [load_private_key(parse_private_key(text)).public_key() for text in (new, old)]
    assert found[0] == found[1]


def test_a_version_2_beside_another_public_key_is_refused(keys: Mapping[str, Value]) -> None:
    value, other = keys["Ed25519"], generate_private_key("Ed25519")
    assert isinstance(value, PrivateKeyValue)
    mixed = encode_pem("PRIVATE KEY", value.pkcs8_der[:-32] + other.pkcs8_der[-32:]).decode()
    with pytest.raises(InputError, match=r"^value: expected a key beside its own public key, found an Ed25519 key"):
        parse_private_key(mixed)


@pytest.mark.parametrize("offset", [4, 8, 13])
def test_a_damaged_version_2_is_refused(keys: Mapping[str, Value], offset: int) -> None:
    """Its version, its algorithm, its inner length."""
    value = keys["Ed25519"]
    assert isinstance(value, PrivateKeyValue)
    damaged = bytearray(value.pkcs8_der)
    damaged[offset] ^= 2
    with pytest.raises(InputError, match=r"^value is not a private key that can be read"):
        parse_private_key(encode_pem("PRIVATE KEY", bytes(damaged)).decode())


def test_two_keys_are_different() -> None:
    assert generate_private_key("P-256") != generate_private_key("P-256")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(InputError, match=r"^key_type is 'RSA-1024', expected one of P-256, P-384, Ed25519, RSA-2048, "):
        generate_private_key("RSA-1024")


@pytest.mark.parametrize(
    ("key_type", "digest"), [("P-256", "sha256"), ("P-384", "sha384"), ("RSA-3072", "sha256"), ("Ed25519", None)]
)
def test_the_hash_is_as_strong_as_the_key(keys: Mapping[str, Value], key_type: str, digest: str | None) -> None:
    value = keys[key_type]
    assert isinstance(value, PrivateKeyValue)
    found = signature_hash(load_private_key(value))
    assert (found and found.name) == digest


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "P-521", "Ed25519"],
)
def test_an_explicit_key_is_taken_as_it_is(key: object) -> None:
    assert public_text(parse_private_key(pem(key))) == pem(key)


def test_an_explicit_rsa_key_is_taken_as_it_is(rsa_key: rsa.RSAPrivateKey) -> None:
    assert public_text(parse_private_key("a comment before\n" + pem(rsa_key))) == pem(rsa_key)


def test_sec1_and_pkcs1_are_refused_with_the_command_that_converts(rsa_key: rsa.RSAPrivateKey) -> None:
    """Feature F101."""
    for key in (rsa_key, ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(InputError, match=r"(RSA|EC) PRIVATE KEY', expected .* openssl pkcs8 -topk8 -nocrypt"):
            parse_private_key(pem(key, PrivateFormat.TraditionalOpenSSL))


def test_an_encrypted_key_is_refused_with_the_command_that_decrypts() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    with pytest.raises(InputError, match=r"'ENCRYPTED PRIVATE KEY', expected .*; convert it with: openssl pkcs8"):
        parse_private_key(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^value holds PEM 0 blocks, expected one block 'PRIVATE KEY' \(PKCS#8\); give the key alone$"),
        ("hunter2", r"^value holds PEM 0 blocks"),
        ("-----BEGIN CERTIFICATE-----\n", r"^value holds PEM 'CERTIFICATE', expected one block"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", r"^value is not a private key that can"),
        ("-----BEGIN PRIVATE KEY-----\n\ud800", r"^value is not a private key that can be read; write it as openssl"),
        ("-----BEGIN PRIVATE KEY-----\n" * 3, r"^value holds PEM 3 blocks"),
    ],
)
def test_text_that_is_no_key_is_refused_without_quoting_it(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_private_key(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [x25519.X25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())],
    ids=["X25519", "secp256k1"],
)
def test_a_key_of_another_type_is_refused(key: object) -> None:
    with pytest.raises(InputError, match=r"^value is a private key of another type, expected P-256, P-384, P-521,"):
        parse_private_key(pem(key))


def test_an_rsa_key_is_refused_by_its_size() -> None:
    short = rsa.generate_private_key(65537, 1024)
    with pytest.raises(InputError, match=r"^value is an RSA key of 1024 bits, expected 2048 to 4096$"):
        parse_private_key(pem(short))


def test_an_rsa_key_whose_parts_do_not_fit_together_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    numbers = rsa_key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=numbers.d + 2,
        dmp1=numbers.dmp1,
        dmq1=numbers.dmq1,
        iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(InputError, match=r"^value is not a private key that can be read"):
        parse_private_key(pem(wrong))


def test_a_dsa_key_is_refused() -> None:
    with pytest.raises(InputError, match=r"^value is a private key of another type"):
        parse_private_key(pem(dsa.generate_private_key(1024)))
