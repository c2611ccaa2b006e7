"""Where the database key lives: one file a way of keeping it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ostiary.store.sealing.keyfile import KeyFile

__all__ = ["KeyFile", "Sealing"]


class Sealing(Protocol):
    """Keeps the database key, 32 bytes, so that the same machine or identity gets it back after a restart.

    A key is made in two steps, because a kept key without its database is refused for ever (a deleted database must not
    look like a first start): `draft` before the database gets its first head, `keep` once that head is durable. A start
    that was killed in between finds the draft and carries on.
    All methods raise StoreError when the key cannot be read or written, or is not as it must be.
    """

    @property
    def place(self) -> str:
        """Where the key is, for messages."""

    @property
    def warning(self) -> str:
        """One sentence to show at every start about what this way does not protect; "" if there is nothing to say."""

    def kept(self) -> bytes | None:
        """The key that was kept; None if none ever was."""

    def drafted(self) -> bytes | None:
        """The key of a start that did not come to its end; None if there is none."""

    def draft(self, random: Callable[[int], bytes]) -> bytes:
        """Make a new key, durable, in place of any draft."""

    def keep(self) -> None:
        """Turn the draft into the key that `kept` returns, durably."""
