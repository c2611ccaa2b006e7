"""Public keys: derived, or read from a session text."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ostiary.errors import InputError
from ostiary.secret.format import public_text
from ostiary.secret.private_key import KEY_TYPES
from ostiary.secret.public_key import PublicKey, derive_public_key, parse_public_key
from ostiary.secret.render import render
from ostiary.secret.value import PrivateKeyValue, PublicKeyValue, Value
from ostiary.session.placeholder import Placeholder, Template, parse_template


def derived(keys: Mapping[str, Value], key_type: str) -> PublicKeyValue:
    key = keys[key_type]
    assert isinstance(key, PrivateKeyValue)
    return derive_public_key(key)


def pem(key: PublicKey | x25519.X25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_it_is_what_openssl_derives(keys: Mapping[str, Value], key_type: str) -> None:
    """Feature F105: as `openssl pkey -pubout` writes it."""
    old_form = parse_template("$$SCONE::key:pkcs8-v1:pem$$")
    private = render(old_form, {"key": keys[key_type]}).decode()
    command = ["openssl", "pkey", "-pubout"]
    shown = subprocess.run(command, input=private, capture_output=True, text=True, check=True).stdout
    assert public_text(derived(keys, key_type)) == shown


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_key_given_in_the_text_is_that_key(keys: Mapping[str, Value], key_type: str) -> None:
    """Feature F105: explicit."""
    value = derived(keys, key_type)
    assert parse_public_key(public_text(value)) == value


def test_a_p521_key_is_accepted() -> None:
    assert parse_public_key(pem(ec.generate_private_key(ec.SECP521R1()).public_key()))


def test_formats(keys: Mapping[str, Value]) -> None:
    """Feature F106: bare and spki:pem are PEM, spki:der is DER."""
    values = {"pub": derived(keys, "P-256")}

    def one(form: str) -> bytes:
        return render(Template(parts=(Placeholder(name="pub", format=form),)), values)

    assert one("") == one("spki:pem") == public_text(values["pub"]).encode()
    assert load_der_public_key(one("spki:der")) == load_der_public_key(values["pub"].spki_der)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "value is not one PEM block 'PUBLIC KEY'; write it as openssl pkey -pubout does"),
        ("-----BEGIN RSA PUBLIC KEY-----\n", "value is not one PEM block 'PUBLIC KEY'"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2", "value is not one PEM block 'PUBLIC KEY'"),
        ("-----BEGIN PUBLIC KEY-----\n" * 2, "value is not one PEM block 'PUBLIC KEY'"),
        ("-----BEGIN PUBLIC KEY-----\nhunter2", "value is not a public key that can be read"),
        (pem(x25519.X25519PrivateKey.generate().public_key()), "value is a public key of another type, expected P-256"),
        (pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "value is a public key of another type"),
        (pem(rsa.generate_private_key(65537, 1024).public_key()), "value is an RSA key of 1024 bits, expected 2048 to"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_public_key(text)
    assert message in caught.value.message
    assert "hunter2" not in caught.value.message
