"""Base58check texts of key hashes. Vectors: session language, section 11.1."""

from __future__ import annotations

import hashlib

import pytest

from ostiary.session.base58 import decode_key_hash, encode_key_hash

EXAMPLE = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"


def test_the_published_texts_are_key_hashes() -> None:
    assert decode_key_hash(EXAMPLE) == hashlib.sha256(b"example").digest()
    for text in (
        "3s1pm8W6Be6cxvAQRbRP5YXd9YuERAr7KswN97uGtoPkRW87x1",
        "46YyxrywJ8PFRruWX8YLxa9q4axxYJgTbA81tv7NBcJfn43DQt",
    ):
        assert len(decode_key_hash(text)) == 32


def test_a_key_hash_is_written_as_it_was_published() -> None:
    for text in (EXAMPLE, "3s1pm8W6Be6cxvAQRbRP5YXd9YuERAr7KswN97uGtoPkRW87x1"):
        assert encode_key_hash(decode_key_hash(text)) == text
    assert decode_key_hash(encode_key_hash(bytes(32))) == bytes(32)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (EXAMPLE[:-1] + "s", "its checksum is wrong"),
        ("LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM", "of version 10, expected 1"),
        ("", "not base58check"),
        ("0OIl", "not base58check"),
        ("z" * 52, "not base58check"),
        ("z" * 20, "expected 37"),
        ("1" * 37 + "z", "expected 37"),
        ("1" * 37, "its checksum is wrong"),
    ],
)
def test_what_is_no_key_hash_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_key_hash(text)
