"""From the one database key to a key for each purpose."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32

_SALT = b"ostiary-store-v1"


@dataclass(frozen=True, kw_only=True, repr=False)
class Keys:
    """Keys of 32 bytes, each for one purpose, derived by HKDF-SHA-256 (RFC 5869) from the database key.

    Salt "ostiary-store-v1"; info is the field's name as written in docs/store-format.md.
    record_id: names to record ids. record, leaf, head: seal those rows. state: the set hash over all records.
    anchor: the digest of a head that is shown to the world.
    """

    record_id: bytes
    record: bytes
    leaf: bytes
    head: bytes
    state: bytes
    anchor: bytes

    def id_of(self, name: str) -> bytes:
        """The record id, 32 bytes, of a logical name: HMAC-SHA-256(record_id key, name in UTF-8)."""
        return hmac.digest(self.record_id, name.encode(), "sha256")


def derive_keys(database_key: bytes) -> Keys:
    """All keys of a database. Raises ValueError for a database key that is not 32 bytes long."""
    if len(database_key) != KEY_BYTES:
        raise ValueError(f"a database key of {len(database_key)} bytes, expected {KEY_BYTES}")
    return Keys(
        record_id=_derive(database_key, b"record id"),
        record=_derive(database_key, b"record"),
        leaf=_derive(database_key, b"leaf"),
        head=_derive(database_key, b"head"),
        state=_derive(database_key, b"state"),
        anchor=_derive(database_key, b"anchor"),
    )


def _derive(database_key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=_SALT, info=info).derive(database_key)
