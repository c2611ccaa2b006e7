"""Encrypted sessions: only the one service opens them, and what it cannot open it says how to replace."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ostiary.errors import InputError, TooLargeError
from ostiary.session import encrypted as module
from ostiary.session.encrypted import (
    EncryptedSession,
    decrypt_session,
    encrypt_session,
    parse_encrypted_session,
    parse_encryption_key,
)

KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
SIGNED = '{"session": "name: ä", "signatures": []}'
KEPT = EncryptedSession(
    key=PUBLIC,
    ciphertext=bytes.fromhex(
        "6051cb5e33196bb28016d7a4c89e1061af573f63d951eadda801e353b0ba03596d8103d1126cb4d13a7b764a6c57cda5"
        "3d08a6b1ab374e2ed26ffab2194a59f0a45cc1e57daec76434dd39d26e3a85dbbd8a577410ecd60ea0"
    ),
)
"""Made by this code for KEY on 2026-11-23, so that containers that people keep can be opened by later versions."""


def test_f210_what_was_encrypted_for_a_key_is_opened_with_it() -> None:
    """F210: round trip, by way of the JSON form."""
    made = encrypt_session(SIGNED, PUBLIC)
    assert decrypt_session(parse_encrypted_session(made.to_json()), KEY) == SIGNED.encode()
    assert json.loads(made.to_json())["encryption_key"] == PUBLIC.hex()
    assert len(made.ciphertext) == 32 + len(SIGNED.encode()) + 16, "encapsulated key, ciphertext, tag"
    assert encrypt_session(SIGNED, PUBLIC).ciphertext != made.ciphertext


def test_a_container_of_an_earlier_version_is_opened() -> None:
    assert decrypt_session(KEPT, KEY) == SIGNED.encode()


def test_f210_a_container_for_another_service_is_refused_with_help() -> None:
    """F210: the key that is meant is named, and the way without encryption."""
    other = X25519PrivateKey.generate()
    made = encrypt_session(SIGNED, other.public_key().public_bytes_raw())
    with pytest.raises(InputError) as caught:
        decrypt_session(made, KEY)
    assert made.key.hex() in caught.value.message
    assert f"the key of this service is {PUBLIC.hex()}" in caught.value.message
    assert "PUT /v1/signed_sessions" in caught.value.causes[0]


@pytest.mark.parametrize("ciphertext", [
    b"", b"x", bytes(32), bytes(48), bytes(200), b"\x01" * 300,
    KEPT.ciphertext[:-1], KEPT.ciphertext + b"\0",
    bytes([KEPT.ciphertext[0] ^ 1]) + KEPT.ciphertext[1:],
    KEPT.ciphertext[:-1] + bytes([KEPT.ciphertext[-1] ^ 1]),
])  # fmt: skip
def test_f210_a_foreign_or_changed_container_is_refused_with_help(ciphertext: bytes) -> None:
    """F210: SCONE's own scheme is not known."""
    with pytest.raises(InputError, match="that of SCONE's CLI is not known") as caught:
        decrypt_session(EncryptedSession(ciphertext=ciphertext, key=PUBLIC), KEY)
    assert "PUT /v1/signed_sessions" in caught.value.causes[0]


def test_a_container_whose_key_is_relabelled_is_not_opened() -> None:
    made = encrypt_session(SIGNED, X25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(InputError, match="cannot be opened"):
        decrypt_session(EncryptedSession(ciphertext=made.ciphertext, key=PUBLIC), KEY)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_nothing_is_encrypted_for_a_key_that_makes_the_secret_known(key: bytes) -> None:
    with pytest.raises(InputError, match="is no X25519 public key that a session can be encrypted for"):
        encrypt_session(SIGNED, key)


@pytest.mark.parametrize(("members", "says"), [
    ({"encrypted_session": "###", "encryption_key": PUBLIC.hex()}, "encrypted_session is not base64"),
    ({"encrypted_session": "QUJD", "encryption_key": 5}, "must both be text"),
    ({"encrypted_session": "QUJD", "encryption_key": "ab"}, "has 64 hex digits, found 'ab'"),
    ({"encrypted_session": "QUJD"}, "exactly the members encrypted_session and encryption_key"),
    ({"encrypted_session": "QUJD", "encryption_key": PUBLIC.hex(), "x": 1}, "exactly the members"),
])  # fmt: skip
def test_what_is_no_encrypted_session_is_refused(members: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_encrypted_session(json.dumps(members))


def test_the_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"encrypted_session": base64.b64encode(bytes(100)).decode(), "encryption_key": PUBLIC.hex()})
    parse_encrypted_session(text)
    monkeypatch.setattr(module, "MAX_ENCRYPTED_BYTES", 100)
    with pytest.raises(TooLargeError, match="more than 100 bytes"):
        parse_encrypted_session(text)


def test_a_key_is_64_hex_digits_and_nothing_else() -> None:
    assert parse_encryption_key(PUBLIC.hex().upper()) == PUBLIC
    for text in (PUBLIC.hex()[:-2], f"{PUBLIC.hex()} ", "x" * 64, PUBLIC.hex()[:-2] + "  "):
        with pytest.raises(InputError, match="64 hex digits"):
            parse_encryption_key(text)


def test_no_repr_shows_the_ciphertext_whole() -> None:
    assert KEPT.ciphertext.hex()[:32] not in repr(KEPT)
    assert "ciphertext" not in repr(KEPT)
