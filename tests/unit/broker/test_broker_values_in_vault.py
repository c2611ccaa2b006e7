"""Sessions whose values lie in a key vault: looked at by every preparation, and never handed out without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from os import urandom
from pathlib import Path

import pytest

from ostiary.audit import Frontier, Kind, entry
from ostiary.broker import session_records
from ostiary.broker.session_records import (
    Absent,
    SessionRecords,
    StoredSession,
    all_values,
    upload_writes,
    values_write,
)
from ostiary.errors import ConflictError, SecretUnavailableError, StoreError
from ostiary.secret import AsciiValue, Value
from ostiary.secret.kept_entry import KeptEntry, KeptValues
from ostiary.session import parse_session
from ostiary.session.model import Session
from ostiary.store import Store, Write, open_store

LEAF = entry(Kind.SESSION_CREATED, {}, datetime(2026, 11, 23, tzinfo=UTC), urandom)
VALUES: Mapping[str, Value] = {"token": AsciiValue(text="hidden")}
VOLUME_KEYS = {"data": bytes(32)}
AAD = "{name: aad, kind: aad-token, tenant_id: t, client_id: c, application_secret: s}"


def kept(number: int = 1) -> KeptValues:
    entries = (KeptEntry(tag=bytes([number]) * 16, version=str(number), digest=b"d" * 32),)
    return KeptValues(key=b"k" * 32, entries={"token": entries})


class Vault:
    """What plays the way to a vault. asked: tags of the entries that were looked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.trouble: SecretUnavailableError | None = None
        self.waiting = asyncio.Event()
        self.waiting.set()

    async def fetch(self, session: Session, session_hash: bytes, found: KeptValues) -> Mapping[str, Value]:
        self.asked.append(found.entries["token"][0].tag[0])
        await self.waiting.wait()
        if self.trouble is not None:
            raise self.trouble
        return all_values(VALUES, VOLUME_KEYS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data", random=urandom, log=Frontier(), warn=lambda _: None) as opened:
        yield opened


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def records(store: Store, vault: Vault) -> SessionRecords:
    put(store)
    return SessionRecords(store, vault.fetch)


def put(store: Store, name: str = "s", more: str = "") -> None:
    session = parse_session(
        f"name: {name}\nversion: '0.3.12'\nsecret_config: {{store_in: !akv {{vault: v.vault.azure.net}}}}\n"
        f"secrets: [{AAD}, {{name: token, kind: ascii}}{more}]\n"
    )
    store.commit(upload_writes(session, creator=None, values=kept(), replaced=None, salted=False), LEAF).result()


def test_what_was_prepared_has_its_values(records: SessionRecords, vault: Vault) -> None:
    asyncio.run(records.prepare("s"))
    found = records.require("s")
    assert found.values == VALUES
    assert found.volume_keys == VOLUME_KEYS
    assert found.in_vault == kept()
    assert found.has_values
    found.require_values()
    assert vault.asked == [1]


def test_what_nobody_looked_at_has_none(records: SessionRecords) -> None:
    found = records.require("s")
    assert not found.has_values
    for ask in (found.require_values, lambda: found.values["token"], lambda: list(found.volume_keys)):
        with pytest.raises(ConflictError, match="its key vault was not asked yet"):
            ask()


def test_every_preparation_looks_anew(records: SessionRecords, vault: Vault) -> None:
    asyncio.run(records.prepare("s"))
    vault.trouble = SecretUnavailableError("secret 'token' is gone", "404")
    asyncio.run(records.prepare("s"))
    with pytest.raises(SecretUnavailableError) as caught:
        records.require("s").require_values()
    assert caught.value.chain == ("secret 'token' is gone", "404")
    vault.trouble = None
    asyncio.run(records.prepare("s"))
    assert records.require("s").values == VALUES
    assert vault.asked == [1, 1, 1]


def test_who_is_content_with_an_older_look_has_that(records: SessionRecords, vault: Vault) -> None:
    asyncio.run(records.prepare("s", old_seconds=600))
    asyncio.run(records.prepare("s", old_seconds=600))
    assert records.require("s").values == VALUES
    assert vault.asked == [1]


def test_an_older_look_that_found_nothing_counts_for_nobody(records: SessionRecords, vault: Vault) -> None:
    vault.trouble = SecretUnavailableError("the vault does not answer")
    asyncio.run(records.prepare("s", old_seconds=600))
    vault.trouble = None
    asyncio.run(records.prepare("s", old_seconds=600))
    assert records.require("s").values == VALUES


def test_what_was_seen_long_ago_is_not_used(records: SessionRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(records.prepare("s"))
    assert records.require("s").has_values
    monkeypatch.setattr(session_records, "MAX_LOOK_SECONDS", 0.0)
    assert not records.require("s").has_values


def test_exporters_are_looked_at_too(store: Store, vault: Vault) -> None:
    put(store)
    put(store, "importer", ", {name: other, import: {session: s, secret: token}}")
    records = SessionRecords(store, vault.fetch)
    asyncio.run(records.prepare("importer"))
    assert records.require("s").values == VALUES
    assert vault.asked == [1, 1]


def test_a_version_that_comes_while_the_vault_is_asked_is_looked_at(
    store: Store, records: SessionRecords, vault: Vault
) -> None:
    async def race() -> None:
        vault.waiting.clear()
        preparing = asyncio.create_task(records.prepare("s"))
        while not vault.asked:
            await asyncio.sleep(0)
        replaced = records.require("s")
        await asyncio.wrap_future(store.commit([values_write(replaced, kept(2))], LEAF))
        assert not records.require("s").has_values
        vault.waiting.set()
        await preparing

    asyncio.run(race())
    assert records.require("s").values == VALUES
    assert records.require("s").in_vault == kept(2)
    assert vault.asked == [1, 2]


def test_a_session_that_never_stands_still_is_given_up(
    store: Store, records: SessionRecords, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_records, "MAX_LOOKS", 2)
    fetch = vault.fetch

    async def moving(session: Session, session_hash: bytes, found: KeptValues) -> Mapping[str, Value]:
        await asyncio.wrap_future(store.commit([values_write(records.require("s"), kept(9))], LEAF))
        return await fetch(session, session_hash, found)

    asyncio.run(SessionRecords(store, moving).prepare("s"))
    with pytest.raises(ConflictError):
        records.require("s").require_values()


def test_who_comes_while_the_vault_is_asked_waits_for_one_more_look_together(
    records: SessionRecords, vault: Vault
) -> None:
    """A look that began before somebody came does not count for him."""

    async def crowd() -> None:
        vault.waiting.clear()
        first = asyncio.create_task(records.prepare("s"))
        while not vault.asked:
            await asyncio.sleep(0)
        others = [asyncio.create_task(records.prepare("s")) for _ in range(20)]
        await asyncio.sleep(0)
        vault.waiting.set()
        await asyncio.gather(first, *others)

    asyncio.run(crowd())
    assert len(vault.asked) == 2


def test_without_a_way_to_vaults_nothing_is_there(store: Store) -> None:
    put(store)
    records = SessionRecords(store)
    asyncio.run(records.prepare("s"))
    with pytest.raises(SecretUnavailableError, match="no way leads there"):
        records.require("s").require_values()


def test_looks_are_forgotten_when_there_are_too_many(
    store: Store, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_records, "MAX_CACHED_SESSIONS", 1)
    put(store, "a")
    put(store, "b")
    records = SessionRecords(store, vault.fetch)
    asyncio.run(records.prepare("a"))
    asyncio.run(records.prepare("b"))
    assert records.require("b").has_values
    assert not records.require("a").has_values


def test_an_older_ostiary_refuses_the_record(store: Store) -> None:
    """It would take it for a session without values otherwise: the form is one that it does not know."""
    put(store)
    record = store.get("session/s")
    assert record is not None
    assert b'"form": 2' in record.value
    spoiled = Write(
        name="session/s", value=record.value.replace(b'"form": 2', b'"form": 3'), expected_version=record.version
    )
    store.commit([spoiled], LEAF).result()
    with pytest.raises(StoreError, match="form 3, expected 1 or 2"):
        SessionRecords(store).current("s")


def test_neither_key_nor_values_show(records: SessionRecords) -> None:
    asyncio.run(records.prepare("s"))
    shown = repr(records.require("s"))
    assert "hidden" not in shown
    assert repr(b"k" * 32) not in shown


def test_absent_values_raise_whatever_is_asked_of_them() -> None:
    absent: Absent[Value] = Absent(SecretUnavailableError, "gone")
    for ask in (
        lambda: absent["x"],
        lambda: "x" in absent,
        lambda: len(absent),
        lambda: list(absent),
        lambda: dict(absent),
    ):
        with pytest.raises(SecretUnavailableError, match="gone"):
            ask()


def test_keys_of_volumes_stand_beside_values_in_a_record_too(store: Store) -> None:
    session = parse_session("name: s\nversion: '0.3.12'\nsecrets: [{name: token, kind: ascii}]\n")
    values = all_values(VALUES, VOLUME_KEYS)
    store.commit(upload_writes(session, creator=None, values=values, replaced=None, salted=False), LEAF).result()
    found: StoredSession = SessionRecords(store).require("s")
    assert (found.values, found.volume_keys, found.in_vault) == (VALUES, VOLUME_KEYS, None)
