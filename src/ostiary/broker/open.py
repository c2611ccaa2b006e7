"""From settings to a running service: state opened and verified, identity ready."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from ostiary import __version__
from ostiary.audit import Kind, entry
from ostiary.broker.cas import Cas
from ostiary.broker.challenge import Challenges
from ostiary.broker.memory import Memory
from ostiary.broker.open_storage import open_storage
from ostiary.broker.session_records import SessionRecords
from ostiary.broker.storage import Storage
from ostiary.errors import StoreError
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.sgx import Verifier
from ostiary.freshness.recovery import record_owner
from ostiary.store import Store

RUN_BYTES = 16
MAX_CACHED_ADMISSIONS = 4096
MAX_CACHED_BYTES = 16 * 1024 * 1024
"""All configurations that are kept ready, together."""
OVERHEAD_BYTES = 1024
"""Counted for each configuration beside what it holds."""


def open_cas(
    storage: Storage, *, roots: tuple[TrustedRoot, ...], warn: Callable[[str], None], owner: bytes | None = None
) -> Cas:
    """The service whose state lies where `storage` says, with the system's clock and generator.

    warn: called with sentences that the operator should read at every start. owner: DER of the public key that may
    accept a rollback, recorded at the first start that names one. The caller closes `cas.store`.
    Raises ConfigurationError, RefusedError, StoreError, TamperedError, RollbackError.
    """
    store = open_storage(storage, random=os.urandom, now=_now, warn=warn)
    try:
        if owner is not None:
            record_owner(store, owner, now=_now())
        return make_cas(store, roots=roots, now=_now, random=os.urandom)
    except BaseException:
        store.close()
        raise


def _now() -> datetime:
    return datetime.now(UTC)


def make_cas(
    store: Store,
    *,
    roots: tuple[TrustedRoot, ...],
    now: Callable[[], datetime],
    random: Callable[[int], bytes],
) -> Cas:
    """A service over an open store.

    The first entry of its run holds random bytes: so a log with it was never cosigned before, and an anchor that
    remembers the log tells this run from every other.
    """
    run = random(RUN_BYTES).hex()
    leaf = entry(Kind.CAS_STARTED, {"version": __version__, "roots": len(roots), "run": run}, now())
    store.commit([], leaf).result()
    return Cas(
        store=store,
        sessions=SessionRecords(store),
        challenges=Challenges(random),
        admissions=Memory(store, capacity=MAX_CACHED_ADMISSIONS),
        configurations=Memory(
            store, capacity=MAX_CACHED_BYTES, size=lambda configuration: configuration.size_bytes + OVERHEAD_BYTES
        ),
        verifier=Verifier(roots),
        now=now,
        random=random,
    )


def close_cas(cas: Cas) -> None:
    """End in order: the last entry of the audit log, then the store. Does not raise if the store has failed."""
    with suppress(StoreError):
        cas.store.commit([], entry(Kind.CAS_EXITED, {}, cas.now())).result()
    cas.store.close()
