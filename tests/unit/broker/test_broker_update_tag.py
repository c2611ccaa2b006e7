"""Reports, starts and updates that overtake each other: what counts is what held at the commit."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.simulators.azure import CLIENT, SECRET, TENANT, Azure

from ostiary.board import Caller
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.file_records import volume_write
from ostiary.broker.file_systems import file_systems
from ostiary.broker.outside import Outside
from ostiary.broker.release import Start
from ostiary.broker.update_tag import update_tag
from ostiary.broker.upload import upload_session
from ostiary.errors import (
    ConflictError,
    InputError,
    ReleaseRefusedError,
    StoreError,
    TagConflictError,
    VolumeUnavailableError,
)
from ostiary.session.model import Service
from ostiary.store import Head, Write

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

T1, T2, T3 = (bytes([number]) * 16 for number in (1, 2, 3))
KEY = "11" * 32
_Result = TypeVar("_Result")


def text(volume: str = "name: v", more: str = "") -> str:
    return (
        'version: "0.3.12"\nname: a\nsecurity: {attestation: {mode: none}}\n'
        "services: [{name: s, image_name: i}]\nimages: [{name: i, volumes: [{name: v, path: /v}]}]\n"
        f"volumes: [{{{volume}}}]\n{more}"
    )


def given(tag: bytes) -> str:
    return f"name: v, fspf_key: '{KEY}', fspf_tag: '{tag.hex()}'"


def behind(
    desk: Desk, *steps: Callable[[], Awaitable[_Result]], queued: int | None = None
) -> list[_Result | BaseException]:
    """All steps are judged now, and committed only when each of them waits for the store, in this order.

    queued: so many come to the store, the others wait for those before them.
    """
    most = len(steps) if queued is None else queued
    store = desk.cas.store

    async def run() -> list[_Result | BaseException]:
        with store._lock:
            # The writer takes this one and then stands before the lock.
            bait = store.commit([], b"leaf")
            while store._waiting:
                await asyncio.sleep(0.001)
            tasks: list[asyncio.Future[_Result]] = []
            for step in steps:
                tasks.append(asyncio.ensure_future(step()))
                while len(store._waiting) < min(most, len(tasks)) and not tasks[-1].done():
                    await asyncio.sleep(0.001)
            assert len(store._waiting) == most
        await asyncio.wrap_future(bait)
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


def start(desk: Desk) -> Start:
    return asyncio.run(desk.begin("a/s"))


def report(desk: Desk, started: Start, old: bytes | None, new: bytes) -> bool:
    return asyncio.run(update_tag(desk.cas, started, "volume:v", old=old, new=new))


def test_f161_two_first_starts_at_once_receive_one_key(desk: Desk, alice: Caller) -> None:
    """F161: the slower one's key is thrown away before anybody has seen it."""
    desk.upload(text(), alice)
    first, second = behind(desk, lambda: desk.begin("a/s"), lambda: desk.begin("a/s"))
    assert isinstance(first, Start)
    assert isinstance(second, Start)
    assert first.configuration.volumes == second.configuration.volumes
    assert first.grants == second.grants


def test_a_report_behind_an_update_that_replaces_the_state_is_denied(desk: Desk, alice: Caller) -> None:
    version = desk.upload(text(given(T1)), alice)
    started = start(desk)
    update = text(given(T2), f"predecessor: {version}\n").encode()
    stored, reported = behind(
        desk,
        lambda: upload_session(desk.cas, update, alice),
        lambda: update_tag(desk.cas, started, "volume:v", old=T1, new=T3),
        queued=1,
    )
    assert not isinstance(stored, BaseException)
    assert isinstance(reported, DeniedRelease)
    assert reported.told.message == "volume 'v' is not used as it was when this program started"
    assert start(desk).configuration.volumes[0].tag == T2


def test_an_update_that_replaces_the_state_waits_for_the_report_before_it(desk: Desk, alice: Caller) -> None:
    version = desk.upload(text(given(T1)), alice)
    started = start(desk)
    update = text(given(T2), f"predecessor: {version}\n").encode()

    reported, stored = behind(
        desk,
        lambda: update_tag(desk.cas, started, "volume:v", old=T1, new=T3),
        lambda: upload_session(desk.cas, update, alice),
        queued=1,
    )
    assert reported is True
    assert not isinstance(stored, BaseException)
    assert start(desk).configuration.volumes[0].tag == T2


def test_a_first_start_behind_an_update_makes_the_state_that_the_update_gives(desk: Desk, alice: Caller) -> None:
    version = desk.upload(text(given(T1)), alice)
    update = text(given(T2), f"predecessor: {version}\n").encode()
    stored, started = behind(desk, lambda: upload_session(desk.cas, update, alice), lambda: desk.begin("a/s"))
    assert not isinstance(stored, BaseException)
    assert isinstance(started, Start)
    assert started.configuration.volumes[0].tag == T2


def test_an_update_behind_a_first_start_replaces_what_that_made(desk: Desk, alice: Caller) -> None:
    version = desk.upload(text(given(T1)), alice)
    update = text(given(T2), f"predecessor: {version}\n").encode()
    started, stored = behind(desk, lambda: desk.begin("a/s"), lambda: upload_session(desk.cas, update, alice))
    assert isinstance(started, Start)
    assert not isinstance(stored, BaseException)
    assert start(desk).configuration.volumes[0].tag == T2


def test_reports_of_one_volume_take_turns(desk: Desk, alice: Caller) -> None:
    """Of two that follow the same state, the second one is refused with what the first one recorded."""
    desk.upload(text(), alice)
    one, two = start(desk), start(desk)

    async def both() -> tuple[bool | BaseException, bool | BaseException]:
        return await asyncio.gather(
            update_tag(desk.cas, one, "volume:v", old=None, new=T1),
            update_tag(desk.cas, two, "volume:v", old=None, new=T2),
            return_exceptions=True,
        )

    first, second = asyncio.run(both())
    assert first is True
    assert isinstance(second, TagConflictError)
    assert second.current == T1


def test_a_report_that_conflicts_again_and_again_ends_in_a_refusal(
    desk: Desk, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.upload(text(), alice)
    started = start(desk)

    def refuse(*_: object, **__: object) -> Future[Head]:
        future: Future[Head] = Future()
        future.set_exception(ConflictError("always somebody else"))
        return future

    monkeypatch.setattr(desk.cas.store, "commit", refuse)
    with pytest.raises(DeniedRelease) as denied:
        report(desk, started, None, T1)
    assert "changes faster than it can be recorded" in denied.value.told.message


def test_a_report_of_other_files_is_a_mistake(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    with pytest.raises(InputError, match="target 'main' is no volume or main file system"):
        asyncio.run(update_tag(desk.cas, start(desk), "main", old=T1, new=T2))


def test_a_state_that_a_newer_version_wrote_is_not_guessed_at(desk: Desk, alice: Caller) -> None:
    desk.upload(text(), alice)
    started = start(desk)
    name = started.grants["volume:v"].record
    write = Write(name=name, value=json.dumps({"form": 2}).encode(), expected_version=desk.cas.store.version(name) or 0)
    desk.cas.store.commit([write], b"leaf").result()
    with pytest.raises(StoreError, match="has form 2, expected 1: a newer Ostiary wrote it"):
        report(desk, started, None, T1)


def test_the_key_of_a_volume_may_lie_in_a_key_vault(desk: Desk, tmp_path: Path, alice: Caller) -> None:
    """It is fetched by each start, of an importer too, and stored nowhere."""
    azure = Azure(tmp_path)
    iv, plain = bytes(12), bytes.fromhex(KEY)
    sealed = bytes.fromhex("00a100020020") + iv + AESGCM(bytes(32)).encrypt(iv, plain, None)
    azure.entries["k"] = {"value": base64.b64encode(sealed).decode(), "contentType": "binary"}
    outside = Outside(azure.cloud, now=desk.cas.now, random=desk.cas.random)
    vaulted = replace(desk, cas=replace(desk.cas, outside=outside))
    secrets = (
        "secrets:\n"
        f"- {{name: t, kind: aad-token, tenant_id: {TENANT}, client_id: {CLIENT}, application_secret: '{SECRET}'}}\n"
        "- {name: k, kind: binary, size: 32, import_akv: {vault: localhost, decryption_key: $$SCONE::unlock$$}}\n"
        f"- {{name: unlock, kind: binary, value: {bytes(32).hex()}}}\n"
    )
    declared = f"name: v, fspf_key: $$SCONE::k$$, fspf_tag: '{T1.hex()}', export: {{session: b}}"
    vaulted.upload(text(declared, secrets), alice)
    vaulted.upload(text("name: v, import: {session: a, volume: v}").replace("name: a", "name: b"), alice)
    try:
        for number, service in enumerate(("a/s", "b/s", "b/s")):
            assert vaulted.start(service).volumes[0].key == plain
            assert len(azure.asked) == 2 * (number + 1)
    finally:
        azure.server.close()
    state, _ = desk.cas.files.volume("volume/a/v")
    assert state is not None
    assert state.key is None


def test_without_a_key_nothing_is_released(desk: Desk, alice: Caller) -> None:
    """No session that was parsed and no record that was written lacks one; if one did, it must not pass."""
    desk.upload(text(), alice)
    stored = desk.cas.sessions.require("a")
    name = start(desk).grants["volume:v"].record
    state, version = desk.cas.files.volume(name)
    assert state is not None
    desk.cas.store.commit([volume_write(name, replace(state, key=None), version)], b"leaf").result()
    with pytest.raises(VolumeUnavailableError) as caught:
        file_systems(desk.cas, stored, stored.parsed.session.services[0])
    assert "neither the session nor the record" in caught.value.causes[0]
    with pytest.raises(ReleaseRefusedError, match="has no key"):
        file_systems(desk.cas, stored, Service(name="t", fspf_path="/f"))
