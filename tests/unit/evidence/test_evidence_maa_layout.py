"""Tokens and key sets of an attestation service: what is read, what is left out, and that all else is refused."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from tests.simulators.maa import AttestationService
from tests.simulators.outside import LOOPBACK, make_certificate

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.maa import parse_key_set, parse_token
from ostiary.evidence.maa.layout import (
    MAX_KEY_ID_CHARACTERS,
    MAX_KEY_SET_BYTES,
    MAX_KEYS,
    MAX_TOKEN_BYTES,
    parse_sgx_payload,
    parse_validity,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "maa"
SERVICE = AttestationService(issuer="https://t.r.attest.azure.net")


def part(value: object) -> bytes:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def token(header: object) -> bytes:
    return b".".join((part(header), b"e30", b"c2ln"))


def test_the_key_of_a_token_is_known_before_its_signature_is_verified() -> None:
    assert parse_token(SERVICE.token()).key_id == "the-key"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "1 parts joined by dots, expected 3"),
        (b"e30.e30", "2 parts joined by dots"),
        (b"a.b.c.d.e", "5 parts joined by dots"),
        (b"=.e30.e30", "header: not JSON"),
        (b"a.e30.e30", "header is not base64url"),
        (part([]) + b".e30.e30", "header: not JSON, expected an object"),
        (token({}), "kid is missing"),
        (token({"kid": 7}), "kid is missing"),
        (token({"kid": "x" * (MAX_KEY_ID_CHARACTERS + 1)}), "no text of at most 256 characters"),
        (token({"kid": "x", "crit": ["b64"]}), "crit is not supported"),
        (b"x" * (MAX_TOKEN_BYTES + 1), "32769 bytes, expected at most 32768"),
        (urlsafe_b64encode(b"[" * 20_000) + b".e30.e30", "header: not JSON"),
    ],
)
def test_what_is_no_token_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=r"^MAA token") as caught:
        parse_token(data)
    assert message in str(caught.value)


def keys(*entries: object) -> bytes:
    return json.dumps({"keys": entries}).encode()


def rsa_jwk(bits: int, key_id: str = "k") -> dict[str, str]:
    public = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, bits).public_key(), as_dict=True)
    return {"kty": "RSA", "kid": key_id, "n": public["n"], "e": public["e"]}


def certified(pem: str) -> list[str]:
    return [b64encode(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)).decode()]


def test_a_key_may_stand_bare_or_in_a_certificate() -> None:
    """Genuine key sets have either."""
    bare = parse_key_set((VECTORS / "maa-cvm-midnight" / "jwks.json").read_bytes())
    assert set(bare.keys) == {"J0pAPdfXXHqWWimgrH853wMIdh5/fLe1z6uSXYPXCa0="}
    shared = parse_key_set((VECTORS / "maa-sgx-sharedeus" / "jwks.json").read_bytes())
    assert set(shared.keys) == {"rFl9xM+g7TvX63y0iseZtIn20MD5SYAnGblKFasau8I=", "dSsaF5uUxZO_LRycmQ4KJu3ctMc"}
    assert shared.unfit == {"lH/VQ9TL53cXpeFt3Vf9tiOv+rkWwV+5PbiNzgWcySQ="}


EC_CERTIFICATE = certified(make_certificate(LOOPBACK)[1])


@pytest.mark.parametrize(
    "entry",
    [
        rsa_jwk(1024),
        {**rsa_jwk(2048), "use": "enc"},
        {"kid": "k", "kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kid": "k", "kty": "RSA", "n": "*", "e": "AQAB"},
        {"kid": "k", "kty": "RSA", "n": 7, "e": "AQAB"},
        {"kid": "k", "kty": "RSA", "n": "AQAB"},
        {"kid": "k", "kty": "EC", "n": "AQAB", "e": "AQAB"},
        {"kid": "k", "kty": "RSA"},
        {"kid": "k", "x5c": []},
        {"kid": "k", "x5c": [7]},
        {"kid": "k", "x5c": ["*"]},
        {"kid": "k", "x5c": ["AAAA"]},
        {"kid": "k", "kty": "RSA", "x5c": EC_CERTIFICATE},
        {"kid": "k", "kty": "oct", "k": "AAAA"},
    ],
)
def test_a_key_that_cannot_sign_tokens_is_left_out(entry: dict[str, object]) -> None:
    found = parse_key_set(keys(entry, rsa_jwk(2048, "good")))
    assert set(found.keys) == {"good"}
    assert found.unfit == {"k"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "not JSON, expected an object"),
        (b"{}", "keys is no list"),
        (b'{"keys": {}}', "keys is no list"),
        (keys(*[{"kid": str(n)} for n in range(MAX_KEYS + 1)]), "keys is no list of at most 64 keys"),
        (keys(7), r"keys[0]: expected a JSON object"),
        (keys({}), r"keys[0]: kid is missing"),
        (keys({"kid": "a"}, {"kid": "a"}), r"keys[1]: two keys have the kid 'a'"),
        (b" " * (MAX_KEY_SET_BYTES + 1), "262145 bytes, expected at most 262144"),
    ],
)
def test_what_is_no_key_set_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=r"^MAA key set") as caught:
        parse_key_set(data)
    assert message in str(caught.value)


def payload(**others: object) -> bytes:
    return json.dumps(SERVICE.claims(**others)).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"x_ms_sgx_mrenclave": None}, "x-ms-sgx-mrenclave is missing or not 64 hex digits"),
        ({"x_ms_sgx_mrenclave": "ab" * 31}, "x-ms-sgx-mrenclave is missing or not 64 hex digits"),
        ({"x_ms_sgx_mrsigner": "zz" * 32}, "x-ms-sgx-mrsigner is missing or not 64 hex digits"),
        ({"x_ms_sgx_mrsigner": 7}, "x-ms-sgx-mrsigner is missing or not 64 hex digits"),
        ({"x_ms_sgx_report_data": "ab" * 32}, "x-ms-sgx-report-data is missing or not 128 hex digits"),
        ({"x_ms_sgx_product_id": None}, "x-ms-sgx-product-id is missing or no number from 0 to 65535"),
        ({"x_ms_sgx_product_id": True}, "x-ms-sgx-product-id is missing or no number"),
        ({"x_ms_sgx_svn": 65536}, "x-ms-sgx-svn is missing or no number from 0 to 65535"),
        ({"x_ms_sgx_svn": -1}, "x-ms-sgx-svn is missing or no number"),
        ({"x_ms_sgx_svn": "3"}, "x-ms-sgx-svn is missing or no number"),
        ({"x_ms_sgx_is_debuggable": None}, "x-ms-sgx-is-debuggable is missing or neither true nor false"),
        ({"x_ms_sgx_is_debuggable": "false"}, "x-ms-sgx-is-debuggable is missing or neither true nor false"),
    ],
)
def test_a_claim_that_is_missing_or_of_another_form_is_refused(others: dict[str, object], message: str) -> None:
    """Nothing stands for a claim that is not there: copies under the names of a policy say nothing."""
    copies = {"is_debuggable": False, "sgx_mrenclave": "ab" * 32, "svn": 3, "product_id": 7, **others}
    with pytest.raises(EvidenceFormatError) as caught:
        parse_sgx_payload(payload(**copies))
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["azurevm", "sevsnpvm", "tdxvm", None, 7, "SGX"])
def test_a_token_about_something_else_than_an_enclave_is_refused(kind: object) -> None:
    with pytest.raises(EvidenceRefusedError, match="expected 'sgx'"):
        parse_sgx_payload(payload(x_ms_attestation_type=kind))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"iss": None}, "iss is missing or not text"),
        ({"nbf": None}, "nbf is missing"),
        ({"exp": None}, "exp is missing"),
        ({"exp": "1"}, "exp is missing or no number of seconds since 1970"),
        ({"exp": 1.5}, "exp is missing or no number"),
        ({"exp": True}, "exp is missing or no number"),
        ({"nbf": 10**30}, "nbf is missing or no number"),
    ],
)
def test_a_token_without_issuer_or_times_is_refused(others: dict[str, object], message: str) -> None:
    with pytest.raises(EvidenceFormatError) as caught:
        parse_validity(payload(**others))
    assert message in str(caught.value)


def test_times_are_in_utc() -> None:
    validity = parse_validity(payload(nbf=0, exp=60))
    assert validity.not_before == datetime(1970, 1, 1, tzinfo=UTC)
    assert validity.expires == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["keys", "kid", "kty", "n", "e", "x5c", "iss", "nbf", "exp"]), inner)
    ),
    max_leaves=10,
)
PARSERS: tuple[Callable[[bytes], object], ...] = (parse_key_set, parse_sgx_payload, parse_validity, parse_token)


@given(data=st.binary(max_size=300) | VALUE.map(lambda value: json.dumps(value).encode()) | VALUE.map(token))
def test_no_bytes_raise_anything_but_the_documented_errors(data: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(data)
        except (EvidenceFormatError, EvidenceRefusedError):
            continue
