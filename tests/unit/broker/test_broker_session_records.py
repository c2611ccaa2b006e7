"""Sessions in the store: text and values in one record, read back as they were written, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from os import urandom
from pathlib import Path

import pytest

from ostiary.audit import Frontier, Kind, entry
from ostiary.broker import session_records
from ostiary.broker.session_records import SessionRecords, StoredSession, upload_writes, values_write
from ostiary.errors import ConflictError, NotFoundError, StoreError, TamperedError
from ostiary.secret import AsciiValue, Value
from ostiary.session import ParsedSession, parse_session
from ostiary.store import Record, Store, Write, open_store

LEAF = entry(Kind.SESSION_CREATED, {}, datetime(2026, 11, 23, tzinfo=UTC), os.urandom)
VALUES: dict[str, Value] = {"token": AsciiValue(text="hidden")}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data", random=urandom, log=Frontier(), warn=lambda _: None) as opened:
        yield opened


def parsed(name: str = "s", more: str = "") -> ParsedSession:
    return parse_session(f"name: {name}\nversion: '0.3.10'\nsecrets: [{{name: token, kind: ascii}}]\n{more}")


def put(store: Store, session: ParsedSession, replaced: StoredSession | None = None) -> None:
    store.commit(
        upload_writes(session, creator=b"c" * 32, values=VALUES, replaced=replaced, salted=False), LEAF
    ).result()


def current(records: SessionRecords, name: str = "s") -> StoredSession:
    return records.require(name)


def test_what_was_written_is_read_back_values_included(store: Store) -> None:
    put(store, parsed())
    found = current(SessionRecords(store))
    assert found.parsed.hash == parsed().hash
    assert found.creator == b"c" * 32
    assert found.values == VALUES
    assert "hidden" not in repr(found)


def test_a_version_of_the_past_is_kept_without_its_values(store: Store) -> None:
    records = SessionRecords(store)
    put(store, parsed())
    first = current(records)
    put(store, parsed(more=f"predecessor: '{first.parsed.hash.hex()}'"), replaced=first)
    past = records.version("s", first.parsed.hash)
    assert past is not None
    assert past.values == {}
    assert current(records).parsed.hash != first.parsed.hash


def test_a_session_that_does_not_exist_is_not_found(store: Store) -> None:
    records = SessionRecords(store)
    assert records.current("none") is None
    assert records.version("none", b"h" * 32) is None
    with pytest.raises(NotFoundError, match="Session not found"):
        current(records, "none")


def test_a_session_is_read_from_the_store_once_and_again_when_it_changed(store: Store) -> None:
    records = SessionRecords(store)
    put(store, parsed())
    first = current(records)
    assert current(records) is first
    store.commit([values_write(first, {"token": AsciiValue(text="renewed")})], LEAF).result()
    assert current(records).values == {"token": AsciiValue(text="renewed")}


def test_a_session_that_was_prepared_is_read_from_the_cache(store: Store) -> None:
    records = SessionRecords(store)
    put(store, parsed())
    asyncio.run(records.prepare("s"))
    asyncio.run(records.prepare("none"))
    first = current(records)
    asyncio.run(records.prepare("s"))
    assert current(records) is first


def importing(name: str, *exporters: str) -> ParsedSession:
    secrets = ", ".join(
        f"{{name: s{number}, import: {{session: {exporter}, secret: token}}}}"
        for number, exporter in enumerate(exporters)
    )
    return parse_session(f"name: {name}\nversion: '0.3.10'\nsecrets: [{secrets}]\n")


def prepared(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> set[str]:
    """The sessions that `prepare` reads, each of them on another thread than the event loop's."""
    found: list[str] = []

    def parse_elsewhere(text: str) -> ParsedSession:
        assert threading.current_thread() is not threading.main_thread()
        found.append(parse_session(text).session.name)
        return parse_session(text)

    monkeypatch.setattr(session_records, "parse_session", parse_elsewhere)
    asyncio.run(SessionRecords(store).prepare(name))
    assert len(found) == len(set(found))
    return set(found)


def test_what_a_session_imports_from_is_prepared_with_it_link_by_link(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where sessions import from each other in a circle, and where one is missing."""
    for session in (importing("a", "b", "none", "b"), importing("b", "c", "a"), parsed("c"), parsed("other")):
        put(store, session)
    assert prepared(store, monkeypatch, "a") == {"a", "b", "c"}


def test_no_more_sessions_are_prepared_than_its_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_records, "MAX_PREPARED_SESSIONS", 3)
    for session in (importing("a", "b", "c", "d"), importing("b", "c", "e"), *map(parsed, "cde")):
        put(store, session)
    assert prepared(store, monkeypatch, "a") == {"a", "b", "c"}


def test_a_version_of_the_past_is_prepared_on_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    records = SessionRecords(store)
    put(store, parsed())
    asyncio.run(records.prepare_version("s", parsed().hash))
    asyncio.run(records.prepare_version("s", b"h" * 32))
    monkeypatch.delattr(session_records, "parse_session")
    past = records.version("s", parsed().hash)
    assert past is not None
    assert past.parsed.hash == parsed().hash


def test_values_written_over_a_session_that_changed_meanwhile_are_a_conflict(store: Store) -> None:
    records = SessionRecords(store)
    put(store, parsed())
    stale = current(records)
    put(store, parsed(more=f"predecessor: '{stale.parsed.hash.hex()}'"), replaced=stale)
    with pytest.raises(ConflictError):
        store.commit([values_write(stale, VALUES)], LEAF).result()
    with pytest.raises(ConflictError):
        put(store, parsed(more="# late\n"), replaced=stale)
    with pytest.raises(ConflictError):
        store.commit([], LEAF, expect=[stale.is_current]).result()


def test_the_hash_of_a_session_is_that_of_its_newest_version_and_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without parsing it: there may be thousands, and large ones."""
    records = SessionRecords(store)
    assert asyncio.run(records.current_hash("s")) is None
    first, second = parsed(), parsed(more="access_policy: {read: ANY}\n")
    put(store, first)
    read: list[str] = []
    get = store.get

    def reading(name: str) -> Record | None:
        read.append(name)
        return get(name)

    monkeypatch.setattr(store, "get", reading)
    for _ in range(2):
        assert asyncio.run(records.current_hash("s")) == first.hash
    assert read == ["session/s"]
    assert not records._sessions
    put(store, second, current(records))
    assert asyncio.run(records.current_hash("s")) == second.hash


def test_the_hash_of_the_root_namespace_is_that_of_the_default_until_it_is_updated(store: Store) -> None:
    records = SessionRecords(store)
    assert asyncio.run(records.current_hash("/")) == records.require("/").parsed.hash
    claimed = parse_session("name: /\nversion: '0.3.12'\n")
    put(store, claimed)
    assert asyncio.run(records.current_hash("/")) == claimed.hash


def test_hashes_that_are_kept_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_records, "MAX_KNOWN_HASHES", 2)
    records = SessionRecords(store)
    for name in ("a", "b", "c"):
        put(store, parsed(name))
        assert asyncio.run(records.current_hash(name)) == parsed(name).hash
    assert list(records._hashes) == ["b", "c"]


def test_the_cache_forgets_the_least_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_records, "MAX_CACHED_SESSIONS", 1)
    records = SessionRecords(store)
    for name in ("a", "b"):
        put(store, parsed(name))
    first = current(records, "a")
    current(records, "b")
    assert current(records, "a") is not first


def _spoil(store: Store, **members: object) -> None:
    """Rewrite the record with other members, as somebody with the database key could."""
    put(store, parsed())
    record = store.get("session/s")
    assert record is not None
    spoiled = {**json.loads(record.value), **members}
    write = Write(name="session/s", value=json.dumps(spoiled).encode(), expected_version=record.version)
    store.commit([write], LEAF).result()


def test_a_text_that_does_not_have_its_hash_is_refused(store: Store) -> None:
    _spoil(store, hash="00" * 32)
    with pytest.raises(TamperedError, match="does not have the hash that was recorded"):
        current(SessionRecords(store))


def test_a_record_of_a_newer_form_is_refused(store: Store) -> None:
    _spoil(store, form=3)
    with pytest.raises(StoreError, match="form 3, expected 1 or 2: a newer Ostiary wrote it"):
        current(SessionRecords(store))
