"""What anyone may read without authentication."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from ostiary.errors import NotFoundError
from ostiary.secret.format import public_text
from ostiary.secret.public import public_value, public_values
from ostiary.secret.value import Value
from ostiary.session.model import (
    AsciiSecret,
    BinarySecret,
    PrivateKeySecret,
    Secret,
    Session,
    X509CaSecret,
    X509Secret,
)

SECRETS: tuple[Secret, ...] = (
    AsciiSecret(name="answer", value="42", export_public=True),
    BinarySecret(name="data", value=b"\xde\xad", export_public=True),
    AsciiSecret(name="private", value="hunter2"),
    PrivateKeySecret(name="key", export_public=True),
    X509CaSecret(name="ca", private_key="key", export_public=True),
    X509Secret(name="tls", private_key="key", issuer="ca", valid_for=timedelta(days=90), export_public=True),
)
SESSION = Session(version="0.3.12", name="ns/demo", secrets=SECRETS)


@pytest.fixture(scope="module")
def values(generated: Callable[..., dict[str, Value]]) -> dict[str, Value]:
    return generated(*SECRETS)


def test_ascii_is_shown_as_string(values: Mapping[str, Value]) -> None:
    assert public_value(SESSION, values, "answer") == {"kind": "string", "value": "42", "expires": None, "renew": None}


def test_binary_is_shown_in_hex(values: Mapping[str, Value]) -> None:
    assert public_value(SESSION, values, "data") == {"kind": "binary", "value": "dead", "expires": None, "renew": None}


def test_a_private_key_made_public_is_shown_in_pem(values: Mapping[str, Value]) -> None:
    shown = public_value(SESSION, values, "key")
    assert shown["kind"] == "private-key"
    assert str(shown["value"]).startswith("-----BEGIN PRIVATE KEY-----\n")


def test_a_certificate_without_end_does_not_expire(values: Mapping[str, Value]) -> None:
    certificate = public_text(values["ca"])
    assert public_value(SESSION, values, "ca") == {
        "kind": "x509-ca",
        "value": certificate,
        "expires": None,
        "renew": None,
    }
    assert certificate.count("-----BEGIN") == 1


def test_a_certificate_shows_when_it_expires_and_is_renewed(values: Mapping[str, Value]) -> None:
    shown = public_value(SESSION, values, "tls")
    assert (shown["kind"], shown["expires"], shown["renew"]) == ("x509", "2030-04-01T12:00:00Z", "2030-03-02T12:00:00Z")


def test_a_certificate_given_in_the_text_expires_and_is_not_renewed(
    generated: Callable[..., dict[str, Value]], values: Mapping[str, Value]
) -> None:
    given = X509Secret(name="given", value=public_text(values["tls"]), export_public=True)
    shown = public_value(Session(version="0.3", name="s", secrets=(given,)), generated(given), "given")
    assert (shown["expires"], shown["renew"]) == ("2030-04-01T12:00:00Z", None)


def test_certificates_are_shown_without_their_keys(values: Mapping[str, Value]) -> None:
    for name in ("ca", "tls"):
        assert "PRIVATE KEY" not in str(public_value(SESSION, values, name))


def test_all_public_values_and_no_others(values: Mapping[str, Value]) -> None:
    shown = public_values(SESSION, values)
    assert list(shown) == ["answer", "data", "key", "ca", "tls"]
    assert all(shown[name] == public_value(SESSION, values, name) for name in shown)
    assert "hunter2" not in str(shown)


@pytest.mark.parametrize("name", ["private", "lost", ""])
def test_a_private_secret_is_refused_as_an_unknown_one_is(values: Mapping[str, Value], name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        public_value(SESSION, values, name)
    assert caught.value.chain == (
        f"Failed to read value '{name}' of '/session=ns/demo' requested by a public client",
        "Secret does not exist or is not visible for a public client",
    )


def test_a_public_secret_without_value_is_refused() -> None:
    assert public_values(SESSION, {}) == {}
    with pytest.raises(NotFoundError, match=r"Failed to read value 'answer'"):
        public_value(SESSION, {}, "answer")


def test_a_session_without_public_secrets_shows_nothing(values: Mapping[str, Value]) -> None:
    assert public_values(Session(version="0.3", name="s", secrets=(SECRETS[2],)), values) == {}
