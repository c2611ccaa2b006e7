"""The append-only Merkle tree of RFC 6962 section 2.1 (the same tree as RFC 9162 section 2.1.1), SHA-256. Pure.

    leaf hash  SHA-256(0x00 ‖ leaf)
    node hash  SHA-256(0x01 ‖ left ‖ right), where the left part holds the largest power of two of leaves below the size
    root       of no leaves SHA-256(""), of one its leaf hash, else the node hash of the two parts

To append, a tree needs no leaves: the roots of its complete subtrees are enough, at most one for each bit of its size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ostiary.errors import InputError

HASH_BYTES = 32
MAX_LEAVES = 2**63 - 1
EMPTY_ROOT = hashlib.sha256().digest()

_SIZE_BYTES = 8


def leaf_hash(leaf: bytes) -> bytes:
    """The hash, 32 bytes, of one leaf of any length."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash, 32 bytes, of two subtrees given by their hashes, 32 bytes each."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Frontier:
    """A tree of `size` leaves, as the roots of its complete subtrees. `Frontier()` is the empty tree.

    nodes: 32 bytes each, the largest subtree (the oldest leaves) first; one for each 1 bit of `size`, highest bit
    first. Immutable: `append` gives another tree, so whoever cannot keep a leaf goes on with the tree he had.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        """The Merkle tree hash, 32 bytes."""
        if not self.nodes:
            return EMPTY_ROOT
        *left, root = self.nodes
        for node in reversed(left):
            root = node_hash(node, root)
        return root

    def append(self, leaf: bytes) -> Frontier:
        """The tree with one more leaf, at position `size`. Costs one hash for the leaf and, on average, one more."""
        if self.size >= MAX_LEAVES:
            raise ValueError(f"a tree of {self.size} leaves is full")
        node = leaf_hash(leaf)
        completed = _trailing_ones(self.size)
        kept = len(self.nodes) - completed
        for left in reversed(self.nodes[kept:]):
            node = node_hash(left, node)
        return Frontier(self.size + 1, (*self.nodes[:kept], node))

    def encode(self) -> bytes:
        """Offset 0x00, 8 bytes: size, unsigned, big-endian; then the nodes, 32 bytes each, in their order."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.nodes)

    @classmethod
    def decode(cls, data: bytes) -> Frontier:
        """The tree that `encode` wrote. Authenticates nothing: any nodes of the right number are taken.

        Raises InputError, and nothing else for any input: shorter than 8 bytes, size over MAX_LEAVES, or not exactly
        one node for each 1 bit of the size.
        """
        size = int.from_bytes(data[:_SIZE_BYTES], "big")
        expected = _SIZE_BYTES + HASH_BYTES * size.bit_count()
        if len(data) != expected or size > MAX_LEAVES:
            raise InputError(
                f"a Merkle frontier of {len(data)} bytes for {size} leaves, expected {expected} bytes and at most "
                f"{MAX_LEAVES} leaves: it was not written by this program"
            )
        return cls(size, tuple(data[at : at + HASH_BYTES] for at in range(_SIZE_BYTES, len(data), HASH_BYTES)))


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1
