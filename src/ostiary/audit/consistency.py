"""Proofs that one log is the beginning of another: RFC 6962 section 2.1.2. Pure.

A proof from m to n leaves needs the old tree's complete subtrees, which `Frontier` keeps, and the hashes of the leaves
since; the m old leaves themselves are not read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ostiary.audit.tree import EMPTY_ROOT, Frontier, leaf_hash, node_hash
from ostiary.errors import EvidenceRefusedError

MAX_PROOF_HASHES = 63
"""So many suffice for any two sizes below 2^63."""


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """The hashes, 32 bytes each, of leaves in their order."""
    return [leaf_hash(leaf) for leaf in leaves]


def prove_consistency(old: Frontier, added: Sequence[bytes]) -> tuple[bytes, ...]:
    """The proof that `old` is the beginning of the tree with the leaf hashes `added` after it.

    Empty from no leaves, and to no further ones, where there is nothing to show.
    """
    if not old.size or not added:
        return ()
    return tuple(_subproof(_Tree(old, added), 0, old.size + len(added), whole=True))


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raises EvidenceRefusedError unless a tree of `new_size` leaves with `new_root` begins with the old one.

    Guarantees on return: whoever made `new_root` had the same first `old_size` leaves, in the same order, as whoever
    made `old_root`, by the collision resistance of SHA-256. From an old size of 0 nothing is to be shown but the root.
    Source: RFC 9162 section 2.1.4.2; the same proofs as in RFC 6962. Numbers below are its steps.
    """
    if not 0 <= old_size <= new_size:
        raise EvidenceRefusedError(f"a log of {new_size} leaves cannot begin with {old_size}")
    if old_size in (0, new_size):
        same = old_root == (EMPTY_ROOT if old_size == 0 else new_root)
        if proof or not same or (new_size == 0 and new_root != EMPTY_ROOT):
            raise EvidenceRefusedError(
                f"the roots at {old_size} and {new_size} leaves, with {len(proof)} hashes between them, do not agree"
            )
        return
    if _fold(old_size, old_root, new_size, proof) != (old_root, new_root):
        raise EvidenceRefusedError(f"the proof does not lead from the root at {old_size} leaves to that at {new_size}")


def _fold(old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The two roots that a proof leads to; None for a proof of another length."""
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # 2
        path.insert(0, old_root)
    first, second = old_size - 1, new_size - 1  # 3
    while first & 1:  # 4
        first, second = first >> 1, second >> 1
    if not path:  # 1
        return None
    old = new = path[0]  # 5
    for node in path[1:]:  # 6
        if second == 0:
            return None
        if first & 1 or first == second:
            old, new = node_hash(node, old), node_hash(node, new)
            while first and not first & 1:
                first, second = first >> 1, second >> 1
        else:
            new = node_hash(new, node)
        first, second = first >> 1, second >> 1
    return (old, new) if second == 0 else None  # 7


class _Tree:
    """The tree with `added` after `old`. Roots are asked for ranges that lie on one side of the border, or below it."""

    def __init__(self, old: Frontier, added: Sequence[bytes]) -> None:
        self.border = old.size
        self._added = added
        self._nodes: dict[tuple[int, int], bytes] = {}
        start = 0
        for bit, node in zip(_bits(old.size), old.nodes, strict=True):
            self._nodes[start, start + bit] = node
            start += bit

    def root(self, start: int, end: int) -> bytes:
        """The root over the leaves from `start` up to `end`."""
        if end <= self.border:
            return self._nodes[start, end]
        if end - start == 1:
            return self._added[start - self.border]
        middle = start + _split(end - start)
        return node_hash(self.root(start, middle), self.root(middle, end))


def _subproof(tree: _Tree, start: int, end: int, *, whole: bool) -> Iterator[bytes]:
    """SUBPROOF(m, D[start:end], whole) of RFC 6962, where m is the border."""
    if end == tree.border:
        if not whole:
            yield tree.root(start, end)
        return
    middle = start + _split(end - start)
    if tree.border <= middle:
        yield from _subproof(tree, start, middle, whole=whole)
        yield tree.root(middle, end)
    else:
        yield from _subproof(tree, middle, end, whole=False)
        yield tree.root(start, middle)


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _bits(size: int) -> Iterator[int]:
    """The powers of two that make up `size`, the largest first."""
    while size:
        bit = 1 << (size.bit_length() - 1)
        yield bit
        size -= bit
