"""What a key vault holds encrypted."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.akv import MAX_TEXT_CHARACTERS, decode_akv

KEY = bytes(range(32))
VECTOR = "AKEAAgAOAAECAwQFBgcICQoLL2e6d6rFpGniLLfI8LrjcabBR99Ezvks2vrXL0im"


def encoded(data: bytes, *, header: str = "00a10002", length: int | None = None, key: bytes = KEY) -> str:
    sealed = AESGCM(key).encrypt(bytes(12), data, None)
    size = (len(data) if length is None else length).to_bytes(2, "big")
    return base64.b64encode(bytes.fromhex(header) + size + bytes(12) + sealed).decode()


def changed(position: int) -> str:
    data = bytearray(base64.b64decode(VECTOR))
    data[position] ^= 1
    return base64.b64encode(data).decode()


def test_the_published_vector_is_decrypted() -> None:
    """Feature F157: the vector of the language's description."""
    assert decode_akv(VECTOR, KEY) == b"hello from CAS"


@pytest.mark.parametrize("size", [0, 1, 0xFFFF])
def test_every_length_is_decrypted(size: int) -> None:
    assert decode_akv(encoded(bytes(size)), KEY) == bytes(size)
    assert len(encoded(bytes(size))) <= MAX_TEXT_CHARACTERS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with version 00 A1 and key type 00 02"),
        ("AKEAAgAO", "does not begin with version 00 A1 and key type 00 02"),
        (encoded(b"x", header="00a20002"), "does not begin with version 00 A1 and key type 00 02"),
        (encoded(b"x", header="00a10001"), "does not begin with version 00 A1 and key type 00 02"),
        (encoded(b"hello", length=4), "is 39 bytes long, expected 38 by its length field"),
        (encoded(b"hello", length=6), "is 39 bytes long, expected 40 by its length field"),
        (VECTOR + "\n", "is not base64"),
        (VECTOR[:-1], "is not base64"),
        ("\u00e9" * 48, "is not base64"),
        ("A" * (MAX_TEXT_CHARACTERS + 1), "expected at most"),
        (changed(6), "was encrypted under another key, or changed"),
        (changed(20), "was encrypted under another key, or changed"),
        (changed(-1), "was encrypted under another key, or changed"),
        (encoded(b"x", key=bytes(32)), "was encrypted under another key, or changed"),
    ],
)
def test_everything_else_is_refused(text: str, message: str) -> None:
    """Feature F157: wrong version, type, length, tag or key."""
    with pytest.raises(ReleaseRefusedError) as caught:
        decode_akv(text, KEY)
    assert message in caught.value.message
    assert caught.value.message.endswith("; encrypt and upload the secret again")


@pytest.mark.parametrize("size", [0, 16, 24, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ReleaseRefusedError, match=rf"^decryption_key has {size} bytes, expected 32; declare a binary"):
        decode_akv(VECTOR, bytes(size))
