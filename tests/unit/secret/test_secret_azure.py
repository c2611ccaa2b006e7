"""Requests to Azure and what its answers mean: what is asked, what is believed, and that nothing secret is told."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import OutsideError, ReleaseRefusedError
from ostiary.https import Answer
from ostiary.secret.azure import (
    MAX_TOKEN_CHARACTERS,
    PUBLIC_CLOUD,
    AzureRequest,
    put_request,
    read_entry,
    read_token,
    token_request,
    vault_request,
)
from ostiary.secret.vault import VaultEntry
from ostiary.session.model import AadTokenSecret, AkvSecret

NOW = datetime(2026, 11, 23, 12, 0, 0, 900_000, tzinfo=UTC)
AAD = AadTokenSecret(name="aad", tenant_id="contoso.example", client_id="me & you", application_secret="hun=ter&2 ü")
AKV = AkvSecret(name="word", vault="v.vault.azure.net", secret_name="db-password", token="aad")


def zeros(size: int) -> bytes:
    return bytes(size)


def asked(secret: AadTokenSecret) -> AzureRequest:
    return token_request(secret, PUBLIC_CLOUD, now=NOW, random=zeros)


def answered(members: object, status: int = 200) -> Answer:
    return Answer(status=status, headers={}, body=json.dumps(members).encode())


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_f123_a_secret_goes_to_the_directory_in_the_form_of_rfc_6749() -> None:
    """F123: every character survives, and the scope is that of the cloud's vaults."""
    request = asked(AAD)
    assert (request.method, request.url) == (
        "POST",
        "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token",
    )
    assert parse_qs((request.body or b"").decode(), strict_parsing=True) == {
        "client_id": ["me & you"],
        "scope": ["https://vault.azure.net/.default"],
        "grant_type": ["client_credentials"],
        "client_secret": ["hun=ter&2 ü"],
    }


def test_a_request_shows_no_credential() -> None:
    assert "ter" not in repr(asked(AAD))
    assert "ey.token" not in repr(vault_request(AKV, PUBLIC_CLOUD, "ey.token"))


def test_f123_an_assertion_says_who_for_whom_and_for_five_minutes() -> None:
    """F123: the key signs what the directory's documentation asks for, and nothing more."""
    key = rsa.generate_private_key(65537, 2048)
    secret = replace(AAD, application_secret=None, private_key=pem(key), certificate_thumbprint="00" * 32)
    request = asked(secret)
    form = parse_qs((request.body or b"").decode())
    assert "client_secret" not in form
    claims = jwt.decode(
        form["client_assertion"][0],
        key.public_key(),
        algorithms=["PS256"],
        audience=request.url,
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    seconds = int(NOW.timestamp())
    assert claims == {
        "aud": request.url,
        "iss": "me & you",
        "sub": "me & you",
        "jti": "00000000-0000-4000-8000-000000000000",
        "iat": seconds,
        "nbf": seconds,
        "exp": seconds + 300,
    }


@pytest.mark.parametrize("text", ["", "no PEM", pem(ec.generate_private_key(ec.SECP256R1()))])
def test_a_key_that_cannot_sign_is_refused(text: str) -> None:
    secret = replace(AAD, application_secret=None, private_key=text, certificate_thumbprint="00" * 20)
    with pytest.raises(ReleaseRefusedError, match="private_key is no RSA key"):
        asked(secret)


@pytest.mark.parametrize("tenant", ["", "a/b", "..", "-a", "a?b", "a#b", "ä", "a" * 256, "a\n"])
def test_a_tenant_that_would_change_the_address_is_refused(tenant: str) -> None:
    with pytest.raises(ReleaseRefusedError, match="tenant_id is no id or domain name"):
        asked(replace(AAD, tenant_id=tenant))


def test_a_vault_is_asked_for_the_newest_version() -> None:
    request = vault_request(AKV, PUBLIC_CLOUD, "ey.token")
    assert request.url == "https://v.vault.azure.net:443/secrets/db-password?api-version=7.4"
    assert request.headers["Authorization"] == "Bearer ey.token"


@pytest.mark.parametrize("vault", ["vault.azure.net.evil.example", "evilvault.azure.net", "a.vault.azure.cn", ""])
def test_a_vault_outside_the_cloud_gets_no_token(vault: str) -> None:
    with pytest.raises(ReleaseRefusedError, match=r"is not below vault\.azure\.net"):
        vault_request(replace(AKV, vault=vault), PUBLIC_CLOUD, "ey.token")


@pytest.mark.parametrize("name", ["", ".", "a/b", "a_b", "a b", "ä", "a?b", "a" * 128, "a\n"])
def test_a_name_that_no_vault_has_is_refused(name: str) -> None:
    with pytest.raises(ReleaseRefusedError, match="is no name in a key vault"):
        vault_request(replace(AKV, secret_name=name), PUBLIC_CLOUD, "ey.token")


@pytest.mark.parametrize("kind", ["Bearer", "bearer"])
def test_a_bearer_token_is_taken(kind: str) -> None:
    """RFC 6749, 5.1: the type has no case."""
    assert read_token(answered({"token_type": kind, "access_token": "ey.a-b_c~+/="})) == "ey.a-b_c~+/="


def test_a_token_may_be_so_long_and_no_longer() -> None:
    token = "x" * MAX_TOKEN_CHARACTERS
    assert read_token(answered({"token_type": "Bearer", "access_token": token})) == token
    with pytest.raises(OutsideError, match="none of at most 16384 characters"):
        read_token(answered({"token_type": "Bearer", "access_token": f"{token}x"}))


def test_a_secret_of_a_vault_has_text_and_perhaps_a_type() -> None:
    assert read_entry(answered({"value": "a"})) == VaultEntry(text="a", type="")
    assert read_entry(answered({"value": "", "contentType": "binary"})) == VaultEntry(text="", type="binary")


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ("https://v.vault.azure.net/secrets/name/03bcccc7c8cf4546a0e3e21e52560441", "03bcccc7c8cf4546a0e3e21e52560441"),
        ("https://v.vault.azure.net:443/secrets/name/1", "1"),
        ("https://v.vault.azure.net/secrets/name/", ""),
        ("https://v.vault.azure.net/secrets/name/a b", ""),
        ("", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_the_version_of_a_secret_is_the_last_part_of_its_id(place: object, version: str) -> None:
    assert read_entry(answered({"value": "a", "id": place})).version == version


def test_a_secret_is_set_with_its_value_alone() -> None:
    request = put_request("v.vault.azure.net", "cas-0", 'a"b', PUBLIC_CLOUD, "ey.token")
    assert (request.method, request.url) == ("PUT", "https://v.vault.azure.net:443/secrets/cas-0?api-version=7.4")
    assert request.headers["Authorization"] == "Bearer ey.token"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body or b"") == {"value": 'a"b'}
    assert 'a"b' not in repr(request)
    assert "ey.token" not in repr(request)


@pytest.mark.parametrize("vault", ["vault.azure.net.evil.example", "evilvault.azure.net", "localhost"])
def test_nothing_is_set_in_a_vault_elsewhere(vault: str) -> None:
    with pytest.raises(ReleaseRefusedError, match=r"is not below vault\.azure\.net"):
        put_request(vault, "cas-0", "a", PUBLIC_CLOUD, "ey.token")


@pytest.mark.parametrize("members", [{}, {"value": 1}, {"value": None}, {"value": "a", "contentType": 7}])
def test_a_secret_of_another_form_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(OutsideError, match="the key vault gave no value that is text, or a contentType that is none"):
        read_entry(answered(members))


def test_the_directory_says_why_in_codes_only() -> None:
    said = {"error": "invalid_client", "error_codes": [7000215, "x", -1, True], "error_description": "hunter2"}
    with pytest.raises(OutsideError) as caught:
        read_token(answered(said, 401))
    assert caught.value.chain == ("the directory refused with status 401", "invalid_client, AADSTS7000215")


def test_a_vault_says_why_in_codes_only() -> None:
    error = {"code": "Forbidden", "message": "hunter2", "innererror": {"code": "ForbiddenByPolicy"}}
    with pytest.raises(OutsideError) as caught:
        read_entry(answered({"error": error}, 403))
    assert caught.value.chain == ("the key vault refused with status 403", "Forbidden, ForbiddenByPolicy")


@pytest.mark.parametrize("wait", ["", "hunter2", "-1", "9" * 20])
def test_a_wait_that_is_no_number_is_not_repeated(wait: str) -> None:
    with pytest.raises(OutsideError) as caught:
        read_entry(Answer(status=429, headers={"retry-after": wait}, body=b""))
    assert caught.value.chain == ("the key vault refused with status 429",)


NAMES = st.sampled_from(
    ["error", "error_codes", "code", "innererror", "token_type", "access_token", "value", "contentType"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()), status=st.sampled_from([200, 400]))
def test_no_answer_raises_anything_else(body: bytes, status: int) -> None:
    for read in (read_token, read_entry):
        with suppress(OutsideError):
            read(Answer(status=status, headers={}, body=body))
