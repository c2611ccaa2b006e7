from __future__ import annotations

import os

import pytest

from ostiary.errors import TamperedError
from ostiary.store.box import Box
from ostiary.store.keys import derive_keys

KEY = bytes(range(32))
BOX = Box(KEY, b"domain")
SEALED = BOX.seal(b"value", context=b"place", nonce=bytes(12))


def test_what_is_sealed_unseals_in_its_place() -> None:
    assert BOX.unseal(SEALED, context=b"place") == b"value"


@pytest.mark.parametrize("context", [b"", b"elsewhere", b"place\x00"])
def test_it_unseals_nowhere_else(context: bytes) -> None:
    with pytest.raises(TamperedError, match="do not verify under this database key"):
        BOX.unseal(SEALED, context=context)


@pytest.mark.parametrize("other", [Box(KEY, b"another"), Box(bytes(32), b"domain")])
def test_it_unseals_for_no_other_domain_or_key(other: Box) -> None:
    with pytest.raises(TamperedError, match="do not verify"):
        other.unseal(SEALED, context=b"place")


@pytest.mark.parametrize("at", range(len(SEALED)))
def test_every_byte_is_authenticated(at: int) -> None:
    changed = bytearray(SEALED)
    changed[at] ^= 0x01
    with pytest.raises(TamperedError, match="do not verify" if at else "format byte is 00, expected 01"):
        BOX.unseal(bytes(changed), context=b"place")


@pytest.mark.parametrize("length", [0, 1, 12, 13, 28, len(SEALED) - 1])
def test_nothing_shorter_unseals(length: int) -> None:
    with pytest.raises(TamperedError):
        BOX.unseal(SEALED[:length], context=b"place")


def test_the_same_value_never_looks_the_same() -> None:
    one, other = (BOX.seal(b"value", context=b"place", nonce=os.urandom(12)) for _ in range(2))
    assert one[13:] != other[13:]


def test_each_purpose_has_its_own_key_and_none_shows() -> None:
    keys = derive_keys(KEY)
    assert len({keys.record_id, keys.record, keys.leaf, keys.head, keys.state, keys.anchor, KEY}) == 7
    assert keys.record.hex() not in repr(keys)
    assert repr(keys.record) not in repr(keys)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_database_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"a database key of {length} bytes, expected 32"):
        derive_keys(bytes(length))
