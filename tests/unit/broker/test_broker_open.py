"""What a start writes into a store that this version has not opened before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.broker.conftest import Desk

from ostiary.audit import Frontier, Kind, entry
from ostiary.board import Caller
from ostiary.broker.identity import open_identity
from ostiary.broker.namespace import ROOT, default_root
from ostiary.broker.open import make_cas
from ostiary.broker.session_encryption import RECORD
from ostiary.broker.session_records import SessionRecords, upload_writes
from ostiary.errors import NotAuthorizedError
from ostiary.session import parse_session
from ostiary.store import Store, Write, open_store

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
LEAF = entry(Kind.SESSION_CREATED, {}, NOW, os.urandom)
CLAIM = f'version: "0.3.12"\nname: /\npredecessor: {default_root().hash.hex()}\n'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as opened:
        yield opened


def opened(store: Store) -> Desk:
    return Desk(cas=make_cas(store, roots=(), now=lambda: NOW, random=os.urandom))


def older(store: Store, *sessions: str) -> None:
    """Make the store one that an older version left: an identity, sessions, and nothing that says more."""
    open_identity(opened(store).cas, ("cas",))
    record = store.get(RECORD)
    assert record is not None
    store.commit([Write(name=RECORD, value=None, expected_version=record.version)], LEAF).result()
    for text in sessions:
        parsed = parse_session(text)
        store.commit(upload_writes(parsed, creator=None, values={}, replaced=None, salted=False), LEAF).result()


def test_a_store_older_than_the_root_namespace_that_has_sessions_has_a_sealed_root(store: Store, alice: Caller) -> None:
    older(store, "version: '0.3'\nname: old")
    assert not SessionRecords(store).root_is_sealed
    desk = opened(store)
    assert desk.cas.sessions.root_is_sealed
    with pytest.raises(NotAuthorizedError, match="the root namespace is sealed"):
        desk.upload(CLAIM, alice)
    desk.upload("version: '0.3'\nname: new", alice)


@pytest.mark.parametrize("prepare", [lambda _: None, older], ids=["a new store", "an older one without sessions"])
def test_a_store_without_sessions_has_a_root_that_can_be_claimed(
    store: Store, alice: Caller, prepare: Callable[[Store], None]
) -> None:
    prepare(store)
    desk = opened(store)
    desk.upload(CLAIM, alice)
    assert not opened(store).cas.sessions.root_is_sealed


def test_a_root_that_was_claimed_in_an_older_store_stays_its_owners(store: Store) -> None:
    older(store, CLAIM, "version: '0.3'\nname: old")
    assert not opened(store).cas.sessions.root_is_sealed
    assert SessionRecords(store).root_is_claimed


def test_what_a_start_adds_is_added_once(store: Store, alice: Caller) -> None:
    """A store that this version opened before may have records of any kind, and its root is open or not as it says."""
    desk = opened(store)
    open_identity(desk.cas, ("cas",))
    store.commit([Write(name="something else", value=b"", expected_version=0)], LEAF).result()
    records = store.records
    assert not opened(store).cas.sessions.root_is_sealed
    assert store.records == records
    desk.upload(CLAIM, alice)
    assert SessionRecords(store).current(ROOT) is not None
