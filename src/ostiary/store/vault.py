"""The keys of one database at work: rows sealed and unsealed, each tied to its place, and keyed hashes. Pure."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from ostiary.store.backend import HeadRow, LeafRow, RecordRow
from ostiary.store.box import Box
from ostiary.store.keys import derive_keys

MAX_REMEMBERED_IDS = 4096
_U64_BYTES = 8


class Vault:
    """The keys of one database, ready for use: seals and unseals its three kinds of rows."""

    def __init__(self, database_key: bytes) -> None:
        self.keys = derive_keys(database_key)
        # The same few names come again and again, several times in each release.
        self.id_of = lru_cache(maxsize=MAX_REMEMBERED_IDS)(self.keys.id_of)
        self._records = Box(self.keys.record, b"ostiary-store-v1 record")
        self._leaves = Box(self.keys.leaf, b"ostiary-store-v1 leaf")
        self._heads = Box(self.keys.head, b"ostiary-store-v1 head")

    def seal_record(self, record_id: bytes, version: int, value: bytes, *, nonce: bytes) -> RecordRow:
        return RecordRow(record_id, version, self._records.seal(value, context=record_id + u64(version), nonce=nonce))

    def unseal_record(self, row: RecordRow) -> bytes:
        """The value. Raises TamperedError if these bytes were never sealed for this id and version."""
        return self._records.unseal(row.sealed, context=row.id + u64(row.version))

    def seal_leaf(self, position: int, leaf: bytes, *, nonce: bytes) -> LeafRow:
        return LeafRow(position, self._leaves.seal(leaf, context=u64(position), nonce=nonce))

    def unseal_leaf(self, row: LeafRow) -> bytes:
        """The leaf. Raises TamperedError if these bytes were never sealed for this position."""
        return self._leaves.unseal(row.sealed, context=u64(row.position))

    def seal_head(self, seq: int, body: bytes, *, nonce: bytes) -> HeadRow:
        return HeadRow(seq, self._heads.seal(body, context=u64(seq), nonce=nonce))

    def unseal_head(self, row: HeadRow) -> bytes:
        """The body. Raises TamperedError if these bytes were never sealed for this seq."""
        return self._heads.unseal(row.sealed, context=u64(row.seq))

    def element(self, record_id: bytes, entry: bytes) -> int:
        """What a record adds to `State.total`: HMAC-SHA-256(state key, id ‖ version ‖ SHA-256 of the sealed bytes)."""
        return int.from_bytes(hmac.digest(self.keys.state, record_id + entry, "sha256"), "big")

    def digest(self, seq: int, body: bytes) -> bytes:
        """`Head.digest`: HMAC-SHA-256(anchor key, seq ‖ body)."""
        return hmac.digest(self.keys.anchor, u64(seq) + body, "sha256")


def index_entry(row: RecordRow) -> bytes:
    """What the index keeps of a record, 40 bytes: version, u64 big-endian, then SHA-256 of the sealed bytes.

    Packed, because a million of them as objects would not fit the memory budget.
    """
    return u64(row.version) + hashlib.sha256(row.sealed).digest()


def entry_version(entry: bytes) -> int:
    """The version in an index entry."""
    return int.from_bytes(entry[:_U64_BYTES], "big")


def u64(number: int) -> bytes:
    """8 bytes, unsigned, big-endian."""
    return number.to_bytes(_U64_BYTES, "big")
