"""Which sessions a namespace has: their names, in buckets, written by the very commit that creates a session.

Records `children/<bucket>/<namespace>`, JSON: {"form": 1, "names": [the last segments, in order]}. The bucket is the
first two bytes of SHA-256 of the last segment modulo BUCKETS, so that two creations at one moment seldom meet in one
record. Nothing is ever taken out, as sessions are never deleted.
"""

from __future__ import annotations

import hashlib
import json
from bisect import insort
from dataclasses import dataclass

from ostiary.board import Caller, Operation, authorize
from ostiary.broker.admission import access_policy_of
from ostiary.broker.cas import Cas
from ostiary.broker.namespace import ROOT, parent_of
from ostiary.errors import InputError, RefusedError, StoreError
from ostiary.store import Store, Write

BUCKETS = 1024
ENOUGH_NAMES = 1000
"""An answer ends with the bucket in which it comes to so many names."""

_FORM = 1


@dataclass(frozen=True, kw_only=True)
class Listed:
    """sessions: whole names. next: where the next answer goes on; None: this was the last."""

    sessions: tuple[str, ...]
    next: int | None


def created_write(store: Store, session: str) -> Write:
    """The write that puts a new session into its namespace's list. For the commit that creates it; not of the root."""
    namespace, last = parent_of(session) or ROOT, session.rpartition("/")[2]
    record = store.get(_record_name(namespace, bucket := _bucket(last)))
    names = [] if record is None else _names(record.value)
    insort(names, last)
    return Write(
        name=_record_name(namespace, bucket),
        value=json.dumps({"form": _FORM, "names": names}).encode(),
        expected_version=0 if record is None else record.version,
    )


async def list_sessions(cas: Cas, namespace: str, *, start: int, caller: Caller | None) -> Listed:
    """Sessions whose namespace is `namespace`, from one bucket on; in no order, each once.

    Guarantees on return: the namespace's current access policy admits the caller to list its sessions, or to create
    some. Those that are created meanwhile may be there or not; all others are.
    Raises InputError (no such bucket), NotFoundError, IdentityRequiredError, NotAuthorizedError, StoreError.
    """
    if not 0 <= start < BUCKETS:
        raise InputError(f"the list of sessions begins at {start}, expected `next` of an earlier answer")
    await cas.sessions.prepare(namespace)
    _authorize(cas, namespace, caller)
    prefix = "" if namespace == ROOT else f"{namespace}/"
    found: list[str] = []
    record_names = [_record_name(namespace, bucket) for bucket in range(start, BUCKETS)]
    for bucket, version in enumerate(cas.store.versions(record_names), start):
        record = None if version is None else cas.store.get(record_names[bucket - start])
        if record is not None:
            found += (f"{prefix}{name}" for name in _names(record.value))
            if len(found) >= ENOUGH_NAMES:
                return Listed(sessions=tuple(found), next=bucket + 1 if bucket + 1 < BUCKETS else None)
    return Listed(sessions=tuple(found), next=None)


def _authorize(cas: Cas, namespace: str, caller: Caller | None) -> None:
    current = cas.sessions.require(namespace)
    policy = access_policy_of(cas, current).thing
    try:
        authorize(Operation.LIST_SESSIONS, policy, session=namespace, creator=current.creator, caller=caller)
    except RefusedError:
        try:
            authorize(Operation.CREATE_SESSIONS, policy, session=namespace, creator=current.creator, caller=caller)
        except RefusedError:
            pass
        else:
            return
        raise


def _bucket(last: str) -> int:
    return int.from_bytes(hashlib.sha256(last.encode()).digest()[:2], "big") % BUCKETS


def _record_name(namespace: str, bucket: int) -> str:
    return f"children/{bucket}/{namespace}"


def _names(value: bytes) -> list[str]:
    members = json.loads(value)
    if members["form"] != _FORM:
        raise StoreError(f"a list of sessions has form {members['form']}, expected {_FORM}: a newer Ostiary wrote it")
    return list(members["names"])
