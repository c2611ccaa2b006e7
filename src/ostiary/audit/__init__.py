"""The log of decisions: the Merkle tree over it, the form of its entries, and what it shows of itself to witnesses.
Pure; the store keeps the bytes.
"""

from ostiary.audit.entry import Kind, entry
from ostiary.audit.tree import Frontier

__all__ = ["Frontier", "Kind", "entry"]
