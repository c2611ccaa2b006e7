"""The log of decisions: the Merkle tree over it and the form of its entries. Pure; the store keeps the bytes."""

from ostiary.audit.entry import Kind, entry
from ostiary.audit.tree import Frontier

__all__ = ["Frontier", "Kind", "entry"]
