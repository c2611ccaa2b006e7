"""The access token's proofs: two implementations that must agree, and what the program's side refuses."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TypedDict

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from ostiary.attester.binding import CLIENT, SERVER
from ostiary.broker.access_token import answer_token_proof
from ostiary.broker.access_token import prove_token as service_proof
from ostiary.errors import InputError, OstiaryError, OutsideError, RefusedError
from ostiary.launcher.access_token import derive_key, prove_token, require_token


class Ends(TypedDict):
    """What a proof is bound to."""

    nonce: bytes
    client_spki: bytes
    server_spki: bytes


ENDS = Ends(nonce=b"n" * 32, client_spki=b"client's", server_spki=b"server's")
OTHERS = (
    Ends(nonce=b"m" * 32, client_spki=b"client's", server_spki=b"server's"),
    Ends(nonce=ENDS["nonce"], client_spki=b"another's", server_spki=b"server's"),
    Ends(nonce=ENDS["nonce"], client_spki=b"client's", server_spki=b"another's"),
    Ends(nonce=ENDS["nonce"], client_spki=ENDS["server_spki"], server_spki=ENDS["client_spki"]),
)
TOKEN = "wC2YkzR0pQ7mVbT4xL9e"

# RFC 5869, appendix A.1 to A.3 (SHA-256): IKM, salt, info, and OKM or the beginning of it.
RFC_5869 = (
    (
        "0b" * 22, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(), bytes(range(0x60, 0xB0)).hex(), bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
    ),
    (
        "0b" * 22, "", "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
)  # fmt: skip


@pytest.mark.parametrize(("secret", "salt", "info", "key"), RFC_5869)
@pytest.mark.parametrize("size", [32, 16, 1])
def test_hkdf_by_hand_is_that_of_rfc_5869(secret: str, salt: str, info: str, key: str, size: int) -> None:
    """For the one block that we use: the first 32 bytes of what the RFC prints."""
    made = derive_key(bytes.fromhex(secret), salt=bytes.fromhex(salt), info=bytes.fromhex(info), size=size)
    assert made == bytes.fromhex(key)[:size]


@pytest.mark.parametrize("size", [0, 33])
def test_hkdf_by_hand_makes_one_block_and_no_more(size: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 32"):
        derive_key(b"x", info=b"", size=size)


@given(secret=st.binary(max_size=200), info=st.binary(max_size=80), size=st.integers(1, 32))
def test_hkdf_by_hand_is_the_library_s(secret: bytes, info: bytes, size: int) -> None:
    assert derive_key(secret, info=info, size=size) == HKDF(hashes.SHA256(), size, None, info).derive(secret)


@given(
    token=st.text(min_size=1, max_size=100),
    end=st.sampled_from((CLIENT, SERVER)),
    nonce=st.binary(min_size=32, max_size=32),
    client=st.binary(max_size=100),
    server=st.binary(max_size=100),
)
def test_both_sides_make_the_same_proof(token: str, end: bytes, nonce: bytes, client: bytes, server: bytes) -> None:
    ends = Ends(nonce=nonce, client_spki=client, server_spki=server)
    assert prove_token(token.encode(), end, **ends) == service_proof(token, end, **ends)


def test_a_proof_is_what_the_protocol_document_says() -> None:
    key = HKDF(hashes.SHA256(), 32, None, b"ostiary-access-token-v1").derive(TOKEN.encode())
    spkis = b"".join(hashlib.sha256(spki).digest() for spki in (b"client's", b"server's"))
    assert prove_token(TOKEN.encode(), CLIENT, **ENDS) == hmac.digest(key, b"client" + b"n" * 32 + spkis, "sha256")


@pytest.mark.parametrize("ends", OTHERS, ids=["nonce", "client", "server", "swapped"])
def test_a_proof_counts_for_one_nonce_and_one_pair_of_keys(ends: Ends) -> None:
    with pytest.raises(RefusedError, match="another service access token"):
        answer_token_proof(TOKEN, prove_token(TOKEN.encode(), CLIENT, **ends), **ENDS)
    with pytest.raises(OutsideError, match="the CAS has another token"):
        require_token(TOKEN.encode(), service_proof(TOKEN, SERVER, **ends), **ENDS)


def test_a_proof_cannot_be_sent_back_as_its_answer() -> None:
    proof = prove_token(TOKEN.encode(), CLIENT, **ENDS)
    with pytest.raises(OutsideError, match="the CAS has another token"):
        require_token(TOKEN.encode(), proof, **ENDS)
    with pytest.raises(RefusedError, match="another service access token"):
        answer_token_proof(TOKEN, prove_token(TOKEN.encode(), SERVER, **ENDS), **ENDS)


def test_f199_both_ends_with_the_token_believe_each_other() -> None:
    """F199: and so do both ends without one."""
    answer = answer_token_proof(TOKEN, prove_token(TOKEN.encode(), CLIENT, **ENDS), **ENDS)
    assert answer == service_proof(TOKEN, SERVER, **ENDS)
    require_token(TOKEN.encode(), answer, **ENDS)
    assert answer_token_proof(None, b"", **ENDS) == b""
    require_token(None, None, **ENDS)


@pytest.mark.parametrize(
    ("check", "kind", "says"),
    [
        (lambda: answer_token_proof(TOKEN, b"", **ENDS), RefusedError, "the program has none"),
        (lambda: answer_token_proof(None, b"x" * 32, **ENDS), RefusedError, "the session has none"),
        (lambda: answer_token_proof(TOKEN, b"x" * 32, **ENDS), RefusedError, "program has another .* than the session"),
        (lambda: answer_token_proof(TOKEN, b"x", **ENDS), RefusedError, "program has another .* than the session"),
        (lambda: require_token(b"t", None, **ENDS), OutsideError, "ACCESS_TOKEN is set, and the CAS did not prove"),
        (lambda: require_token(b"t", b"x" * 32, **ENDS), OutsideError, "ACCESS_TOKEN is set, and the CAS has another"),
        (lambda: require_token(None, b"x" * 32, **ENDS), InputError, "the CAS proves .*ACCESS_TOKEN is not set here"),
    ],
)  # fmt: skip
def test_f199_wrong_missing_and_on_one_side_only_are_told_apart(
    check: Callable[[], object], kind: type[OstiaryError], says: str
) -> None:
    """F199: on both sides, and no message has the token."""
    with pytest.raises(kind, match=says) as caught:
        check()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("end", [b"", b"clien", b"program"])
def test_a_proof_has_no_other_end(end: bytes) -> None:
    with pytest.raises(ValueError, match="expected b'client' or b'server'"):
        prove_token(TOKEN.encode(), end, **ENDS)
