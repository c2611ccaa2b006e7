"""From the log's leaves to proofs that it began as somebody remembers it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import islice

from ostiary.audit import Frontier
from ostiary.audit.consistency import prove_consistency
from ostiary.audit.tree import leaf_hash
from ostiary.errors import TamperedError
from ostiary.store import Head

Leaves = Callable[[int], Iterator[bytes]]
"""leaves(start): the log's leaves in the clear, from position `start` up to the size of a head."""


class Growth:
    """The log up to one head, asked for what lies before it. Safe to use from any thread.

    trees: trees of earlier heads, by size, which spare reading the leaves before them; new ones are added.
    """

    def __init__(self, head: Head, leaves: Leaves, trees: dict[int, Frontier]) -> None:
        self._head = head
        self._leaves = leaves
        self._trees = trees
        self._proofs: dict[int, tuple[bytes, ...]] = {}
        self._lock = threading.Lock()

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` leaves. Raises as `proof_from`."""
        self.proof_from(size)
        return self._trees[size].root

    def proof_from(self, size: int) -> tuple[bytes, ...]:
        """The consistency proof from `size` leaves, at most the head's.

        Guarantees that the leaves give the head's root, so the proof verifies against that.
        Raises TamperedError if they do not, StoreError if they cannot be read.
        """
        with self._lock:
            if size not in self._proofs:
                self._proofs[size] = self._prove(size)
            return self._proofs[size]

    def _prove(self, size: int) -> tuple[bytes, ...]:
        known = max((at for at in self._trees if at <= size), default=0)
        tree = self._trees.get(known, Frontier())
        for leaf in islice(self._leaves(tree.size), size - tree.size):
            tree = tree.append(leaf)
        old, added = tree, []
        for leaf in self._leaves(size):
            added.append(leaf_hash(leaf))
            tree = tree.append(leaf)
        if (tree.size, tree.root) != (self._head.log_size, self._head.log_root):
            raise TamperedError(
                f"the audit log has {tree.size} leaves and not the root of head {self._head.seq}, expected "
                f"{self._head.log_size}"
            )
        self._trees[size], self._trees[tree.size] = old, tree
        return prove_consistency(old, added)
