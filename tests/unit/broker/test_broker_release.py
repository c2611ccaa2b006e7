"""A release rests on records: all of them must still stand when it is written down."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from ostiary.attester.binding import report_data
from ostiary.board import Caller
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.memory import FOR_EVER, Made, Memory
from ostiary.broker.release import Request, Start, _binding
from ostiary.broker.resolution import Resolution
from ostiary.broker.upload import upload_session
from ostiary.errors import ConflictError
from ostiary.evidence.claims import IDENTITIES, Tee
from ostiary.store import Expect, Store, Write

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

OPEN = "security: {attestation: {mode: none}}\n"


def text(name: str, command: str, more: str = "") -> str:
    return f'version: "0.3.12"\nname: {name}\n{OPEN}services: [{{name: s, command: "{command}"}}]\n{more}'


def overtake(desk: Desk, update: str, author: Caller, service_id: str) -> Start:
    """A start whose release waits to be written down behind an update that it was judged without."""
    store = desk.cas.store

    async def queued(count: int, task: asyncio.Task[object]) -> None:
        while len(store._waiting) < count and not task.done():
            await asyncio.sleep(0.001)

    async def run(begin: Callable[[], Awaitable[Start]]) -> Start:
        with store._lock:
            # The writer takes this one and then stands before the lock.
            bait = store.commit([], b"leaf")
            while store._waiting:
                await asyncio.sleep(0.001)
            first: asyncio.Task[object] = asyncio.create_task(upload_session(desk.cas, update.encode(), author))
            await queued(1, first)
            second = asyncio.ensure_future(begin())
            await queued(2, second)
            assert len(store._waiting) == 2
        await asyncio.wrap_future(bait)
        await first
        return await second

    return asyncio.run(run(lambda: desk.begin(service_id)))


def test_a_start_overtaken_by_an_update_gets_the_updated_session(desk: Desk, alice: Caller) -> None:
    first = desk.upload(text("a", "old"), alice)
    desk.start("a/s")
    start = overtake(desk, text("a", "new", f"predecessor: {first}\n"), alice, "a/s")
    assert start.configuration.argv == (b"new",)


def test_a_start_overtaken_by_the_end_of_an_export_is_denied(desk: Desk, alice: Caller) -> None:
    export = "secrets: [{{name: x, kind: ascii, value: v, export: {{session: {}}}}}]\n"
    first = desk.upload(text("a", "p", export.format("b")), alice)
    desk.upload(text("b", "p $$SCONE::y$$", "secrets: [{name: y, import: {session: a, secret: x}}]\n"), alice)
    assert desk.argv("b/s") == [b"p", b"v"]
    with pytest.raises(DeniedRelease) as denied:
        overtake(desk, text("a", "p", export.format("c") + f"predecessor: {first}\n"), alice, "b/s")
    assert denied.value.told.message == "secret 'y' cannot be imported"


def test_nothing_can_rest_on_a_record_that_moved_while_it_was_looked_at(desk: Desk, alice: Caller) -> None:
    secrets = "secrets: [{name: x, kind: ascii, value: v, export: {session: b}}]\n"
    first = desk.upload(text("a", "p", secrets), alice)
    desk.upload(text("b", "p", "secrets: [{name: y, import: {session: a, secret: x}}]\n"), alice)
    importer = desk.cas.sessions.require("b")
    resolution = Resolution(desk.cas.sessions, random=desk.cas.random, now=desk.cas.now())
    resolution.released(desk.cas.sessions.require("a"), ("x",))
    desk.upload(text("a", "q", secrets + f"predecessor: {first}\n"), alice)
    resolution.released(importer, ("y",))
    with pytest.raises(ConflictError):
        desk.cas.store.commit([], b"leaf", expect=resolution.rests_on).result()


def put(store: Store, name: str, expected: int) -> int:
    return store.commit([Write(name=name, value=b"", expected_version=expected)], b"leaf").result().log_size


def test_what_was_made_of_records_is_recalled_while_they_stand(desk: Desk) -> None:
    memory: Memory[str, str] = Memory(desk.cas.store, capacity=4)
    version = put(desk.cas.store, "r", 0)
    rests_on = (Expect(name="r", version=version), Expect(name="absent", version=0))
    made = Made(thing="thing", rests_on=rests_on, until=FOR_EVER)
    memory.keep("key", made)
    assert memory.recall("key", desk.cas.now()) is made
    assert memory.recall("other", desk.cas.now()) is None
    put(desk.cas.store, "r", version)
    assert memory.recall("key", desk.cas.now()) is None


def test_what_was_made_of_absence_is_forgotten_with_it(desk: Desk) -> None:
    memory: Memory[str, str] = Memory(desk.cas.store, capacity=4)
    memory.keep("key", Made(thing="thing", rests_on=(Expect(name="absent", version=0),)))
    put(desk.cas.store, "absent", 0)
    assert memory.recall("key", desk.cas.now()) is None


def test_what_was_made_for_a_time_is_forgotten_at_its_end(desk: Desk) -> None:
    memory: Memory[str, str] = Memory(desk.cas.store, capacity=4)
    memory.keep("key", Made(thing="thing", rests_on=(), until=desk.cas.now()))
    assert memory.recall("key", desk.cas.now()) is None


def test_the_least_used_goes_first_and_what_is_too_large_is_not_kept(desk: Desk) -> None:
    memory: Memory[str, str] = Memory(desk.cas.store, capacity=4, size=len)
    now = desk.cas.now()
    for key in ("a", "b"):
        memory.keep(key, Made(thing=key * 2, rests_on=()))
    memory.recall("a", now)
    memory.keep("c", Made(thing="cc", rests_on=()))
    memory.keep("c", Made(thing="c", rests_on=()))
    memory.keep("d", Made(thing="d" * 5, rests_on=()))
    assert [memory.recall(key, now) is not None for key in "abcd"] == [True, False, True, False]


def test_a_configuration_is_made_once(desk: Desk, alice: Caller) -> None:
    desk.upload(text("a", "p $$SCONE::x$$", "secrets: [{name: x, kind: ascii}]\n"), alice)
    assert desk.start("a/s") is desk.start("a/s")


def test_a_token_is_made_at_each_start(desk: Desk, alice: Caller) -> None:
    secrets = (
        "secrets:\n- {name: k, kind: private-key, key_type: P-384}\n"
        "- {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 1 h}, payload: {sub: x}}\n"
    )
    desk.upload(text("a", "p $$SCONE::t$$", secrets), alice)
    assert desk.argv("a/s") != desk.argv("a/s")


def test_a_token_that_names_the_program_is_refused_to_one_that_proved_nothing(desk: Desk, alice: Caller) -> None:
    secrets = (
        "secrets:\n- {name: k, kind: private-key, key_type: P-384}\n- {name: t, kind: jwt, signer: k, alg: ES384, "
        "validity: {for: 1 h}, payload: {sub: $$SCONE::self::software_identity$$}}\n"
    )
    desk.upload(text("a", "p $$SCONE::t$$", secrets), alice)
    with pytest.raises(DeniedRelease) as denied:
        desk.start("a/s")
    assert "the program proved none" in str(denied.value.told)


@pytest.mark.parametrize("tee", IDENTITIES)
def test_evidence_of_a_tpm_is_bound_by_a_digest_and_all_other_by_the_report_data(tee: Tee) -> None:
    nonce, client, server = bytes(range(32)), b"client", b"server"
    request = Request(
        session="s", service="w", client_spki=client, server_spki=server, client_key_hash=b"", nonce=nonce, tee=tee,
        evidence=b"", endorsements=b"",
    )  # fmt: skip
    data = report_data(nonce=nonce, client_spki=client, server_spki=server)
    assert _binding(request) == (hashlib.sha256(data).digest() if tee == "tpm" else data)
