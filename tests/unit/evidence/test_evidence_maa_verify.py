"""Is a token of an attestation service authentic? Each check with a token that fails it alone, and genuine tokens."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_encode
from tests.simulators.maa import AttestationService
from tests.simulators.sgx_platform import MR_ENCLAVE, MR_SIGNER, NOW, REPORT_DATA

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, InputError, OstiaryError, RefusedError
from ostiary.evidence.claims import MAA_MANAGED, Claims
from ostiary.evidence.maa import authenticate, verify

VECTORS = sorted(path for path in (Path(__file__).parents[2] / "vectors" / "maa").iterdir() if path.is_dir())
ISSUER = "https://t.r.attest.azure.net"
SERVICE = AttestationService(issuer=ISSUER)
TOKEN = SERVICE.token()


def refusal(token: bytes, key_set: bytes | None = None, issuer: str = ISSUER, now: datetime = NOW) -> OstiaryError:
    with pytest.raises(OstiaryError) as caught:
        verify(token, SERVICE.key_set() if key_set is None else key_set, issuer=issuer, now=now)
    return caught.value


def test_the_claims_of_a_good_token_say_who_vouches_for_them() -> None:
    assert verify(TOKEN, SERVICE.key_set(), issuer=ISSUER, now=NOW) == Claims(
        tee="sgx",
        measurements={"mrenclave": MR_ENCLAVE},
        signer=MR_SIGNER,
        product_id=7,
        svn=3,
        report_data=REPORT_DATA,
        debug=False,
        software=False,
        tcb_status=MAA_MANAGED,
        advisories=frozenset(),
        tcb_date=None,
        platform_id="",
        attestation_service=ISSUER,
        issued=NOW,
    )


def test_a_debug_enclave_is_reported_and_not_judged() -> None:
    token = SERVICE.token(x_ms_sgx_is_debuggable=True)
    assert verify(token, SERVICE.key_set(), issuer=ISSUER, now=NOW).debug


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.name)
def test_genuine_tokens_have_the_verdict_that_is_known(vector: Path) -> None:
    expected = json.loads((vector / "expected.json").read_text())
    token, key_set = (vector / "token.jwt").read_bytes(), (vector / "jwks.json").read_bytes()
    issuer, now = expected["issuer"], datetime.fromisoformat(expected["verify_at"])
    if expected["verdict"] == "valid":
        assert json.loads(authenticate(token, key_set, issuer=issuer, now=now))["iss"] == issuer
    else:
        with pytest.raises(EvidenceRefusedError):
            authenticate(token, key_set, issuer=issuer, now=now)
    if expected["refusal"] is not None:
        assert expected["refusal"] in str(refusal(token, key_set, issuer, now))
        return
    claims = verify(token, key_set, issuer=issuer, now=now)
    found = {
        "mrenclave": claims.identity,
        "mrsigner": claims.signer,
        "isvprodid": claims.product_id,
        "isvsvn": claims.svn,
        **{name: getattr(claims, name) for name in expected["claims"] if hasattr(claims, name)},
    }
    assert {name: value.hex() if isinstance(value, bytes) else value for name, value in found.items()} == expected[
        "claims"
    ]


def test_every_vector_is_there() -> None:
    assert len(VECTORS) == 5


def test_a_key_that_the_service_does_not_have_is_refused() -> None:
    stranger = AttestationService(issuer=ISSUER, key_id="another")
    error = refusal(stranger.token())
    assert isinstance(error, EvidenceRefusedError)
    assert error.message == (
        "the key 'another' that signed the token is none of the attestation service's; have the enclave attested anew"
    )


def test_a_key_of_another_that_takes_the_name_of_the_right_one_is_refused() -> None:
    stranger = AttestationService(issuer=ISSUER)
    assert refusal(stranger.token()).message == "the token is not signed with RS256 by the key that it names"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_short_key_is_refused_even_if_the_service_shows_it() -> None:
    weak = replace(SERVICE, key=rsa.generate_private_key(65537, 1024))
    assert "is no RSA key of 2048 bits or more" in refusal(weak.token(), weak.key_set()).message


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_another_algorithm_is_refused_although_the_key_signed(algorithm: str) -> None:
    assert "not signed with RS256" in refusal(SERVICE.token(algorithm=algorithm)).message


def test_a_token_without_signature_is_refused() -> None:
    """The service answers so to whoever brings a policy of his own."""
    header = {"kid": SERVICE.key_id}
    unsigned = jwt.encode(SERVICE.claims(), "", algorithm="none", headers=header).encode()
    assert "not signed with RS256" in refusal(unsigned).message


def test_the_public_key_is_no_secret_to_sign_with() -> None:
    """RFC 8725, 2.1: a token whose header says HS256, made with the public key as its secret."""
    spki = SERVICE.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    parts = ({"alg": "HS256", "kid": SERVICE.key_id}, SERVICE.claims())
    text = b".".join(base64url_encode(json.dumps(part).encode()) for part in parts)
    forged = text + b"." + base64url_encode(hmac.digest(spki, text, "sha256"))
    assert "not signed with RS256" in refusal(forged).message


@pytest.mark.parametrize(
    "issuer",
    [
        "https://t.r.test.attest.azure.net",
        "https://evil.attest.azure.net",
        "https://t.r.attest.azure.net/",
        "https://T.R.attest.azure.net",
        "http://t.r.attest.azure.net",
        "t.r.attest.azure.net",
        "",
    ],
)
def test_another_issuer_is_refused_even_with_the_right_key(issuer: str) -> None:
    error = refusal(replace(SERVICE, issuer=issuer).token())
    assert error.message == (f"the token was issued by {issuer!r}, which is not the attestation service of the session")


@pytest.mark.parametrize(("ahead", "valid"), [(-61, False), (-60, True), (0, True), (28799, True), (28800, False)])
def test_a_token_counts_from_a_minute_before_its_beginning_to_its_end(ahead: int, valid: bool) -> None:
    now = NOW + timedelta(seconds=ahead)
    if valid:
        verify(TOKEN, SERVICE.key_set(), issuer=ISSUER, now=now)
    else:
        assert refusal(TOKEN, now=now).message.startswith(
            "the token begins at 2026-11-23T12:00:00Z" if ahead < 0 else "the token ended at 2026-11-23T20:00:00Z"
        )


def test_a_token_without_an_end_is_refused() -> None:
    assert isinstance(refusal(SERVICE.token(exp=None)), EvidenceFormatError)


def test_a_token_that_brings_its_own_key_is_refused() -> None:
    """`jwk`, `x5c` and `jku` of the header are not looked at."""
    stranger = AttestationService(issuer=ISSUER)
    headers = {"jwk": stranger.jwk(), "jku": "https://evil.example/certs", "x5u": "https://evil.example/"}
    assert "not signed with RS256" in refusal(stranger.token(headers=headers)).message


@given(position=st.integers(0, len(TOKEN) - 1), byte=st.integers(0, 255))
def test_a_token_changed_in_one_byte_is_refused_or_says_the_same(position: int, byte: int) -> None:
    changed = TOKEN[:position] + bytes([byte]) + TOKEN[position + 1 :]
    try:
        claims = verify(changed, SERVICE.key_set(), issuer=ISSUER, now=NOW)
    except (InputError, RefusedError):
        return
    assert claims == verify(TOKEN, SERVICE.key_set(), issuer=ISSUER, now=NOW)


def test_time_is_passed_in() -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    verify(SERVICE.token(issued=long_ago), SERVICE.key_set(), issuer=ISSUER, now=long_ago)
