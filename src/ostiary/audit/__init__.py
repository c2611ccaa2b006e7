"""The log of decisions: the Merkle tree over it, the form of its entries, and what it shows of itself to witnesses.
Pure; the store keeps the bytes.
"""

from ostiary.audit.entry import Entry, Kind, entry, read_entry
from ostiary.audit.tree import Frontier

__all__ = ["Entry", "Frontier", "Kind", "entry", "read_entry"]
