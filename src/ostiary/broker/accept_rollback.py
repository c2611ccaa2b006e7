"""The owner goes on with an older state, or with another anchor: what he signs, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from ostiary.broker.open_storage import anchor_identity, make_anchor, open_for_recovery
from ostiary.broker.storage import AnchoredBy, Storage
from ostiary.errors import ConfigurationError
from ostiary.freshness import WitnessAnchor
from ostiary.freshness import recovery as owners
from ostiary.freshness.growth import Leaves
from ostiary.store import Anchor, Head, Store


@runtime_checkable
class Forgetful(Protocol):
    """An anchor that can be told to take any state next."""

    def forget(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """head: that holds the decision. log_key: what witnesses are to be told in place of the old key; "" if none."""

    head: Head
    log_key: str = ""


@dataclass(frozen=True, kw_only=True)
class _Recovery:
    store: Store
    key: bytes
    anchor: owners.Recoverable
    leaves: Leaves


def statement_to_sign(storage: Storage, successor: Storage, *, random: Callable[[int], bytes]) -> str:
    """What the owner signs so that the state of `storage` is accepted, and goes on with the anchor of `successor`.

    Changes nothing. Raises RefusedError if there is nothing to accept; ConfigurationError, StoreError.
    """
    with _opened(storage, random) as found:
        return owners.make_statement(
            found.store,
            found.anchor,
            identity=anchor_identity(storage.freshness),
            successor=_successor(storage, successor),
            leaves=found.leaves,
        )


def accept_rollback(
    storage: Storage, successor: Storage, signature: bytes, *, now: datetime, random: Callable[[int], bytes]
) -> Accepted:
    """Accept the state of `storage`, with the owner's signature over `statement_to_sign`; see `freshness.recovery`.

    Raises as that; NotAuthorizedError for another signature.
    """
    with _opened(storage, random) as found:
        head = owners.accept_rollback(
            found.store,
            found.anchor,
            signature,
            identity=anchor_identity(storage.freshness),
            successor=_successor(storage, successor),
            leaves=found.leaves,
            now=now,
            random=random,
        )
        # It may be the same one, such as a TPM that serves one connection at a time.
        found.anchor.close()
        next_anchor = make_anchor(successor, found.key)
        if next_anchor is None:
            return Accepted(head=head)
        with closing(next_anchor):
            return Accepted(head=head, log_key=_begin(next_anchor, head, found.leaves))


def _begin(anchor: Anchor, head: Head, leaves: Leaves) -> str:
    """Witnesses are told by those who run them; the other anchors here and now."""
    if isinstance(anchor, WitnessAnchor):
        return str(anchor.verifier_key)
    if isinstance(anchor, Forgetful):
        anchor.forget()
    anchor.settle(head, leaves)
    return ""


def _successor(storage: Storage, successor: Storage) -> str:
    identity = anchor_identity(successor.freshness)
    same_log = successor.freshness.origin == storage.freshness.origin
    if storage.freshness.by is successor.freshness.by is AnchoredBy.WITNESS and same_log:
        raise ConfigurationError(
            f"witnesses never forget the log {storage.freshness.origin}, expected another name for it to go on under",
            f"name one, such as {storage.freshness.origin}/2, in the settings of --successor",
        )
    return identity


@contextmanager
def _opened(storage: Storage, random: Callable[[int], bytes]) -> Iterator[_Recovery]:
    if storage.freshness.by is AnchoredBy.NONE:
        raise ConfigurationError(
            "the settings name no anchor, so none holds anything against this state", "give those of `ostiary serve`"
        )
    store, reader, key = open_for_recovery(storage, random=random)
    with store, closing(reader):
        anchor = make_anchor(storage, key)
        if anchor is None or not isinstance(anchor, owners.Recoverable):
            raise ConfigurationError(f"an anchor of the kind {storage.freshness.by} cannot be asked what it remembers")
        with closing(anchor):
            yield _Recovery(store=store, key=key, anchor=anchor, leaves=owners.read_leaves(reader, key))
