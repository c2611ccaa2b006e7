"""What the store needs of the audit log's tree. `audit.Frontier` has this shape; neither package imports the other."""

from __future__ import annotations

from typing import Protocol, Self


class LeafLog(Protocol):
    """An immutable append-only tree: whoever cannot keep a leaf goes on with the tree he had."""

    @property
    def size(self) -> int:
        """The number of leaves."""

    @property
    def root(self) -> bytes:
        """32 bytes that commit to all leaves and their order."""

    def append(self, leaf: bytes) -> Self:
        """The tree with one more leaf."""

    def encode(self) -> bytes:
        """All that is needed to append further. Equal trees give equal bytes."""

    def decode(self, data: bytes) -> Self:
        """The tree that `encode` wrote; the receiver's leaves play no part. Raises an OstiaryError if it is none."""
