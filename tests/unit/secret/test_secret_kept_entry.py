"""Values as entries of a key vault: what is written comes back, and nothing else does."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ostiary.errors import ReleaseRefusedError
from ostiary.secret import AsciiValue, BinaryValue
from ostiary.secret.kept_entry import (
    KEY_BYTES,
    PADDED_BYTES,
    PART_BYTES,
    KeptEntry,
    KeptValues,
    digest_of,
    entry_name,
    open_part,
    parts_of,
    seal_part,
    value_of,
)
from ostiary.secret.vault import VaultEntry

KEY = bytes(range(KEY_BYTES))
NONCE = bytes(12)
NAME = entry_name(b"h" * 32, b"t" * 16)
TEXT = seal_part(b"a part", key=KEY, entry=NAME, nonce=NONCE)
KEPT = KeptEntry(tag=b"t" * 16, version="v1", digest=digest_of(TEXT))


def test_a_name_is_hash_and_tag_in_hex() -> None:
    assert f"cas-{'68' * 32}-{'74' * 16}" == NAME
    assert len(NAME) <= 127


@given(st.binary(max_size=3 * PART_BYTES))
def test_every_value_comes_back_from_its_parts(data: bytes) -> None:
    value = BinaryValue(data=data)
    parts = parts_of("name", value)
    assert value_of("name", parts) == value
    assert sum(map(len, parts)) % PADDED_BYTES == 0
    assert max(map(len, parts)) <= PART_BYTES


def test_the_largest_part_fits_into_a_vault() -> None:
    """A vault holds 25 KB a secret."""
    assert len(seal_part(bytes(PART_BYTES), key=KEY, entry=NAME, nonce=NONCE)) <= 25_000


def test_values_of_like_size_look_alike() -> None:
    lengths = {len(b"".join(parts_of("a", AsciiValue(text="x" * n)))) for n in (1, 20, 100)}
    assert lengths == {PADDED_BYTES}


def test_an_entry_as_it_was_written_is_opened() -> None:
    assert open_part(VaultEntry(text=TEXT, version="v1"), KEPT, key=KEY, entry=NAME) == b"a part"


@pytest.mark.parametrize("version", ["", "v2"])
def test_another_version_is_refused_even_of_the_same_text(version: str) -> None:
    with pytest.raises(ReleaseRefusedError, match="is not in the version that this service wrote"):
        open_part(VaultEntry(text=TEXT, version=version), KEPT, key=KEY, entry=NAME)


@given(st.integers(0, len(TEXT) - 1), st.characters())
@example(0, "\ud800")
def test_another_text_is_refused(position: int, character: str) -> None:
    text = TEXT[:position] + character + TEXT[position + 1 :]
    if text != TEXT:
        with pytest.raises(ReleaseRefusedError, match="was changed, or put back to an older text"):
            open_part(VaultEntry(text=text, version="v1"), KEPT, key=KEY, entry=NAME)


@pytest.mark.parametrize(
    ("text", "key", "entry"),
    [
        (TEXT, bytes(KEY_BYTES), NAME),
        (TEXT, KEY, entry_name(b"h" * 32, b"u" * 16)),
        ("no base64", KEY, NAME),
        ("", KEY, NAME),
        ("\ud800", KEY, NAME),
        (base64.b64encode(bytes(20)).decode(), KEY, NAME),
    ],
)
def test_what_does_not_decrypt_under_this_name_is_refused(text: str, key: bytes, entry: str) -> None:
    """Also if somebody could change what the service remembers of it."""
    kept = replace(KEPT, digest=digest_of(text))
    with pytest.raises(ReleaseRefusedError, match="does not decrypt") as caught:
        open_part(VaultEntry(text=text, version="v1"), kept, key=key, entry=entry)
    assert "no base64" not in str(caught.value)


def test_the_key_does_not_show() -> None:
    assert repr(KEY) not in repr(KeptValues(key=KEY, entries={}))
