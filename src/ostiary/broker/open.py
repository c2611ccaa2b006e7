"""From a directory to a running service: state opened and verified, identity ready."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ostiary import __version__
from ostiary.audit import Frontier, Kind, entry
from ostiary.broker import identity, session_encryption
from ostiary.broker.cas import Cas
from ostiary.broker.challenge import Challenges
from ostiary.broker.file_records import FileRecords
from ostiary.broker.guesses import Guesses
from ostiary.broker.key_sets import KeySets
from ostiary.broker.key_vaults import KeyVaults
from ostiary.broker.memory import Memory
from ostiary.broker.outside import Outside
from ostiary.broker.session_records import SessionRecords
from ostiary.errors import ConflictError, StoreError
from ostiary.evidence.intel.verifier import Verifier
from ostiary.evidence.roots import TrustedRoot
from ostiary.secret.azure import PUBLIC_CLOUD, AzureCloud
from ostiary.session.encrypted import KEY_BYTES
from ostiary.store import Store, Write, open_store

MAX_CACHED_ADMISSIONS = 4096
MAX_CACHED_BYTES = 16 * 1024 * 1024
"""All configurations that are kept ready, together."""
OVERHEAD_BYTES = 1024
"""Counted for each configuration beside what it holds."""


def open_cas(
    directory: Path,
    *,
    roots: tuple[TrustedRoot, ...],
    warn: Callable[[str], None],
    azure: AzureCloud = PUBLIC_CLOUD,
) -> Cas:
    """The service whose state lies in `directory`, with the system's clock and generator.

    warn: called with sentences that the operator should read at every start. The caller closes `cas.store`.
    azure: as in `make_cas`.
    Raises StoreError, TamperedError, ConfigurationError.
    """
    store = open_store(directory, random=os.urandom, log=Frontier(), warn=warn)
    return make_cas(store, roots=roots, now=lambda: datetime.now(UTC), random=os.urandom, azure=azure)


def make_cas(
    store: Store,
    *,
    roots: tuple[TrustedRoot, ...],
    now: Callable[[], datetime],
    random: Callable[[int], bytes],
    azure: AzureCloud = PUBLIC_CLOUD,
) -> Cas:
    """A service over an open store.

    azure: where tokens and secrets of sessions are fetched.
    Raises StoreError, TamperedError, and ConfigurationError for the anchors of `azure`.
    """
    outside = Outside(azure, now=now, random=random)
    vaults = KeyVaults(outside, random=random)
    sessions = SessionRecords(store, vaults.fetch)
    _log_start(store, sessions, entry(Kind.CAS_STARTED, {"version": __version__, "roots": len(roots)}, now()), random)
    return Cas(
        store=store,
        sessions=sessions,
        files=FileRecords(store),
        challenges=Challenges(random),
        guesses=Guesses(),
        admissions=Memory(store, capacity=MAX_CACHED_ADMISSIONS),
        configurations=Memory(
            store, capacity=MAX_CACHED_BYTES, size=lambda configuration: configuration.size_bytes + OVERHEAD_BYTES
        ),
        verifier=Verifier(roots),
        outside=outside,
        vaults=vaults,
        key_sets=KeySets(outside, now=now),
        now=now,
        random=random,
    )


def _log_start(store: Store, sessions: SessionRecords, leaf: bytes, random: Callable[[int], bytes]) -> None:
    try:
        store.commit(_first_writes(store, sessions, random), leaf).result()
    except ConflictError:
        # Another process over the same database started first; its writes are there now.
        _log_start(store, sessions, leaf, random)


def _first_writes(store: Store, sessions: SessionRecords, random: Callable[[int], bytes]) -> list[Write]:
    """What belongs in a store from the first start of this version on.

    A store that is older than the root namespace may hold sessions, and nothing that says so: its root must count as
    sealed, for sessions were created before anybody updated it. Records cannot be listed by name, but such a store has
    none beside those of its sessions and the identity; a store of this version has the encryption key as well.
    """
    if store.version(session_encryption.RECORD) is not None:
        return []
    writes = [session_encryption.new_key_write(random(KEY_BYTES))]
    has_sessions = store.records > (0 if store.version(identity.RECORD) is None else 1)
    if has_sessions and not sessions.root_is_claimed and not sessions.root_is_sealed:
        writes.append(sessions.seal_root())
    return writes


def close_cas(cas: Cas) -> None:
    """End in order: the last entry of the audit log, then the store. Does not raise if the store has failed."""
    cas.outside.close()
    with suppress(StoreError):
        cas.store.commit([], entry(Kind.CAS_EXITED, {}, cas.now())).result()
    cas.store.close()
