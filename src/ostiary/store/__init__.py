"""Sealed records in a database that is not trusted. The only package that writes state; it knows bytes, not
sessions.
"""

from ostiary.store.backend import Backend
from ostiary.store.freshness import Anchor
from ostiary.store.log import LeafLog
from ostiary.store.opening import open_store
from ostiary.store.record import Expect, Head, Record, Write
from ostiary.store.store import Store

__all__ = ["Anchor", "Backend", "Expect", "Head", "LeafLog", "Record", "Store", "Write", "open_store"]
