"""From settings to a running service: state opened and verified, identity ready."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ostiary import __version__
from ostiary.audit import Kind, entry
from ostiary.broker import identity, session_encryption
from ostiary.broker.cas import Cas
from ostiary.broker.challenge import Challenges
from ostiary.broker.denial_records import DenialRecords
from ostiary.broker.file_records import FileRecords
from ostiary.broker.guesses import Guesses
from ostiary.broker.kept_endorsements import Endorsements
from ostiary.broker.key_sets import KeySets
from ostiary.broker.key_vaults import KeyVaults
from ostiary.broker.last_evidence import LastEvidences
from ostiary.broker.memory import Memory
from ostiary.broker.open_storage import anchor_identity, open_storage
from ostiary.broker.outside import Outside
from ostiary.broker.proposal_lists import ProposalLists
from ostiary.broker.proposal_records import ProposalRecords
from ostiary.broker.session_records import SessionRecords
from ostiary.broker.shelf import Shelf
from ostiary.broker.storage import Storage
from ostiary.broker.vendors import Sources, Vendors
from ostiary.broker.webhooks import NO_HOSTS, WebhookHosts, Webhooks
from ostiary.errors import ConflictError, OstiaryError, StoreError
from ostiary.evidence.endorsements.piece import Anchors
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.verifier import Verifier
from ostiary.freshness.recovery import ANCHOR_RECORD, OWNER_RECORD, record_owner, require_anchor
from ostiary.secret.azure import PUBLIC_CLOUD, AzureCloud
from ostiary.session.encrypted import KEY_BYTES
from ostiary.store import Store, Write

MAX_CACHED_ADMISSIONS = 4096
MAX_CACHED_READERS = 262_144
"""Sessions and the subjects that may read them, together."""
MAX_CACHED_BYTES = 16 * 1024 * 1024
"""All configurations that are kept ready, together."""
OVERHEAD_BYTES = 1024
"""Counted for each configuration beside what it holds."""


def open_cas(
    storage: Storage,
    *,
    roots: tuple[TrustedRoot, ...],
    warn: Callable[[str], None],
    azure: AzureCloud = PUBLIC_CLOUD,
    aks: frozenset[bytes] = frozenset(),
    owner: bytes | None = None,
    sources: Sources | None = None,
    bundle: Path | None = None,
    webhook_hosts: WebhookHosts = NO_HOSTS,
) -> Cas:
    """The service whose state lies where `storage` says, with the system's clock and generator.

    warn: called with sentences that the operator should read at every start. azure, aks, sources, bundle,
    webhook_hosts: as in `make_cas`. owner: DER of the public key that may accept a rollback, recorded at the first
    start that names one. The caller closes `cas.store`.
    Raises ConfigurationError, StoreError, TamperedError, RollbackError; RefusedError for another anchor or owner than
    the store has.
    """
    store = open_storage(storage, random=os.urandom, warn=warn)
    try:
        require_anchor(store, anchor_identity(storage.freshness), now=datetime.now(UTC), random=os.urandom)
        if owner is not None:
            record_owner(store, owner, now=datetime.now(UTC), random=os.urandom)
        return make_cas(
            store,
            roots=roots,
            now=lambda: datetime.now(UTC),
            random=os.urandom,
            azure=azure,
            aks=aks,
            sources=sources,
            bundle=bundle,
            webhook_hosts=webhook_hosts,
        )
    except BaseException:
        store.close()
        raise


def make_cas(
    store: Store,
    *,
    roots: tuple[TrustedRoot, ...],
    now: Callable[[], datetime],
    random: Callable[[int], bytes],
    azure: AzureCloud = PUBLIC_CLOUD,
    aks: frozenset[bytes] = frozenset(),
    sources: Sources | None = None,
    bundle: Path | None = None,
    webhook_hosts: WebhookHosts = NO_HOSTS,
) -> Cas:
    """A service over an open store.

    The first thing it does is a commit, so an anchor that remembers the log tells this run from every other.
    azure: where tokens and secrets of sessions are fetched. aks: TPMs' keys that the owner pinned, as `Verifier` takes
    them. sources: whom to ask for endorsements; None: nobody. bundle: a file with endorsements that the owner keeps up
    to date. webhook_hosts: whom policy boards may have told.
    Raises StoreError, TamperedError, and ConfigurationError for the anchors of `azure`, `sources`, `webhook_hosts`.
    """
    outside = Outside(azure, now=now, random=random)
    anchors = Anchors.of(roots)
    vaults = KeyVaults(outside, random=random)
    sessions = SessionRecords(store, vaults.fetch)
    proposals = ProposalRecords(store)
    leaf = entry(Kind.CAS_STARTED, {"version": __version__, "roots": len(roots)}, now(), random)
    _log_start(store, sessions, leaf, random)
    return Cas(
        store=store,
        sessions=sessions,
        files=FileRecords(store),
        challenges=Challenges(random),
        guesses=Guesses(),
        denials=DenialRecords(store, now=now, random=random),
        admissions=Memory(store, capacity=MAX_CACHED_ADMISSIONS),
        configurations=Memory(
            store, capacity=MAX_CACHED_BYTES, size=lambda configuration: configuration.size_bytes + OVERHEAD_BYTES
        ),
        proposals=proposals,
        lists=ProposalLists(proposals),
        readers=Memory(store, capacity=MAX_CACHED_READERS, size=lambda readers: readers.size),
        webhooks=Webhooks(outside, webhook_hosts),
        verifier=Verifier(roots, aks),
        outside=outside,
        vaults=vaults,
        key_sets=KeySets(outside, now=now),
        endorsements=Endorsements(
            Shelf(store, anchors, now=now, random=random),
            anchors,
            outside,
            now=now,
            random=random,
            vendors=None if sources is None else Vendors(sources, anchors, now=now),
            bundle=bundle,
        ),
        last_evidence=LastEvidences(store, now=now, random=random),
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
    none beside those of its sessions, the identity, and what `open_cas` has just recorded; a store of this version has
    the encryption key as well.
    """
    if store.version(session_encryption.RECORD) is not None:
        return []
    writes = [session_encryption.new_key_write(random(KEY_BYTES))]
    others = sum(store.version(name) is not None for name in (identity.RECORD, ANCHOR_RECORD, OWNER_RECORD))
    has_sessions = store.records > others
    if has_sessions and not sessions.root_is_claimed and not sessions.root_is_sealed:
        writes.append(sessions.seal_root())
    return writes


def close_cas(cas: Cas) -> None:
    """End in order: the last entry of the audit log, then the store. Does not raise if the store has failed."""
    cas.outside.close()
    with suppress(OstiaryError):
        cas.last_evidence.write()
    cas.denials.close()
    with suppress(StoreError):
        cas.store.commit([], entry(Kind.CAS_EXITED, {}, cas.now(), cas.random)).result()
    cas.store.close()
