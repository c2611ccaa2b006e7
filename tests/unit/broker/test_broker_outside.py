"""What releases take from outside: whose turn it is, what a release rests on, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.simulators.azure import CLIENT, SECRET, TENANT, TOKEN, Azure
from tests.simulators.canned import answer

from ostiary.board import Caller
from ostiary.broker.attestation_token import claims_of_token
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.outside import MAX_OF_ONE_SESSION, Outside
from ostiary.broker.upload import upload_session
from ostiary.errors import ConfigurationError, OutsideError, ReleaseRefusedError
from ostiary.secret.azure import PUBLIC_CLOUD, AzureCloud
from ostiary.session.model import SecurityAttestation, Variable
from ostiary.session.placeholder import Placeholder

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

TOKEN_SECRET = (
    f"{{name: azure, kind: aad-token, tenant_id: {TENANT}, client_id: {CLIENT}, application_secret: '{SECRET}'"
)
WAIT_SECONDS = 60


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Azure]:
    azure = Azure(tmp_path)
    yield azure
    azure.server.close()


@pytest.fixture
def azure_desk(desk: Desk, azure: Azure) -> Desk:
    """A service that fetches from the simulated Azure."""
    outside = Outside(azure.cloud, now=desk.cas.now, random=desk.cas.random)
    return replace(desk, cas=replace(desk.cas, outside=outside))


def session(name: str, command: str, *secrets: str) -> str:
    listed = "".join(f"- {secret}\n" for secret in secrets)
    return (
        f'version: "0.3.12"\nname: {name}\nsecurity: {{attestation: {{mode: none}}}}\n'
        f'services: [{{name: s, command: "p {command}"}}]\nsecrets:\n{listed}'
    )


def sealed(data: bytes, key: bytes) -> str:
    header = bytes.fromhex("00a10002") + len(data).to_bytes(2, "big") + bytes(12)
    return base64.b64encode(header + AESGCM(key).encrypt(bytes(12), data, None)).decode()


# --- what a release rests on -----------------------------------------------------------------------------------------


def test_a_release_rests_on_what_the_vault_was_read_with(
    azure_desk: Desk, azure: Azure, alice: Caller, eve: Caller
) -> None:
    """The key that decrypts comes from another session, which changes it while the vault is asked."""
    old, new = bytes(32), bytes(range(32))

    def keys(value: bytes, predecessor: str) -> str:
        exported = f"{{name: key, kind: binary, value: {value.hex()}, export: {{session: b}}}}"
        return session("a", "x", exported) + predecessor

    first = azure_desk.upload(keys(old, ""), alice)
    importing = "{name: mine, import: {session: a, secret: key}, kind: binary, size: 32}"
    vaulted = "{name: word, import_akv: {vault: localhost, decryption_key: $$SCONE::mine$$}}"
    azure_desk.upload(session("b", "$$SCONE::word$$", importing, vaulted, TOKEN_SECRET + "}"), eve)
    replaced: list[str] = []

    def meanwhile(_request: bytes, stream: ssl.SSLSocket) -> None:
        if replaced:
            stream.sendall(answer(200, {"value": sealed(b"new", new)}))
            return
        future = asyncio.run_coroutine_threadsafe(change(), loop)
        replaced.append(future.result(WAIT_SECONDS))
        stream.sendall(answer(200, {"value": sealed(b"old", old)}))

    async def change() -> str:
        text = keys(new, f"predecessor: '{first}'\n")
        return (await upload_session(azure_desk.cas, text.encode(), alice)).session_hash.hex()

    azure.in_place_of["/secrets/word"] = meanwhile
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        start = runner.run(azure_desk.begin("b/s"))
    assert start.configuration.argv == (b"p", b"new")
    assert len(replaced) == 1
    assert [asked.method for asked in azure.asked] == ["POST", "GET"] * 2, "the token was not taken over"


def test_a_session_that_changes_again_and_again_is_refused(
    azure_desk: Desk, azure: Azure, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.broker.release.MAX_TRIES", 2)
    text = session("a", "$$SCONE::azure$$", TOKEN_SECRET + "}")
    hashes = [azure_desk.upload(text, alice)]

    async def change() -> None:
        newer = text.replace("p $$", f"p{len(hashes)} $$") + f"predecessor: '{hashes[-1]}'\n"
        hashes.append((await upload_session(azure_desk.cas, newer.encode(), alice)).session_hash.hex())

    def meanwhile(_request: bytes, stream: ssl.SSLSocket) -> None:
        asyncio.run_coroutine_threadsafe(change(), loop).result(WAIT_SECONDS)
        stream.sendall(answer(200, {"token_type": "Bearer", "access_token": TOKEN}))

    azure.in_place_of[azure.token_path] = meanwhile
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        with pytest.raises(DeniedRelease) as denied:
            runner.run(azure_desk.begin("a/s"))
    assert "changes faster than it can be released" in str(denied.value.told)
    assert len(hashes) == 3


# --- nothing stays ---------------------------------------------------------------------------------------------------


def test_a_key_that_another_session_has_of_a_vault_is_stored_in_neither(
    azure_desk: Desk, azure: Azure, alice: Caller, eve: Caller
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    azure.entries["word"] = {"value": sealed(der, bytes(32)), "contentType": "PKCS#1"}
    vaulted = (
        "{name: word, kind: private-key, export: {session: b}, "
        "import_akv: {vault: localhost, decryption_key: $$SCONE::key$$}}"
    )
    unlocking = f"{{name: key, kind: binary, value: {bytes(32).hex()}}}"
    azure_desk.upload(session("a", "x", vaulted, unlocking, TOKEN_SECRET + "}"), alice)
    importing = "{name: mine, kind: private-key, import: {session: a, secret: word}}"
    own = "{name: own, kind: private-key}"
    tls = "{name: tls, kind: x509, private_key: mine, common_name: a}"
    own_tls = "{name: own_tls, kind: x509, private_key: own, common_name: a}"
    azure_desk.upload(session("b", "$$SCONE::tls:crt$$$$SCONE::own_tls:crt$$", importing, own, tls, own_tls), eve)
    pem = azure_desk.argv("b/s")[1]
    assert isinstance(pem, bytes)
    first, second = x509.load_pem_x509_certificates(pem)
    assert first.public_key() == key.public_key()
    assert second.public_key() != key.public_key()
    assert set(azure_desk.cas.sessions.require("a").values) == {"key"}
    assert set(azure_desk.cas.sessions.require("b").values) == {"own", "own_tls"}


def test_a_token_can_be_lent_to_another_session(azure_desk: Desk, azure: Azure, alice: Caller, eve: Caller) -> None:
    """Its credential stays with the session that has it."""
    azure.entries["word"] = {"value": "from there"}
    azure_desk.upload(session("a", "x", TOKEN_SECRET + ", export: {session: b}}"), alice)
    token = "{name: lent, kind: aad-token, import: {session: a, secret: azure}}"
    vaulted = "{name: word, import_akv: {vault: localhost, token: $$SCONE::lent$$}}"
    azure_desk.upload(session("b", "$$SCONE::word$$", token, vaulted), eve)
    assert azure_desk.argv("b/s") == [b"p", b"from there"]
    assert azure_desk.cas.sessions.require("b").values == {}


# --- turns -----------------------------------------------------------------------------------------------------------


def make_outside(cloud: AzureCloud = PUBLIC_CLOUD) -> Outside:
    return Outside(cloud, now=lambda: datetime.now(UTC), random=bytes)


def test_one_session_does_not_take_the_turns_of_others() -> None:
    """More than MAX_OF_ONE_SESSION errands of one session wait; one of another session does not."""
    outside = make_outside()
    running, go_on = threading.Semaphore(0), threading.Event()
    most, now = [0], [0]
    lock = threading.Lock()

    def block() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        running.release()
        go_on.wait(WAIT_SECONDS)
        with lock:
            now[0] -= 1

    async def story() -> None:
        slow = [
            asyncio.create_task(outside.run("slow", block, seconds=WAIT_SECONDS)) for _ in range(MAX_OF_ONE_SESSION + 3)
        ]
        await asyncio.sleep(0)
        for _ in range(MAX_OF_ONE_SESSION):
            assert await asyncio.to_thread(running.acquire, timeout=WAIT_SECONDS)
        assert await outside.run("quick", lambda: "done", seconds=WAIT_SECONDS) == "done"
        go_on.set()
        await asyncio.gather(*slow)

    asyncio.run(story())
    assert most[0] == MAX_OF_ONE_SESSION
    outside.close()


def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    outside = make_outside()
    go_on = threading.Event()

    async def story() -> None:
        slow = [
            asyncio.create_task(outside.run("slow", lambda: go_on.wait(WAIT_SECONDS), seconds=WAIT_SECONDS))
            for _ in range(MAX_OF_ONE_SESSION)
        ]
        await asyncio.sleep(0)
        with pytest.raises(OutsideError, match="too many starts wait"):
            await outside.run("slow", lambda: None, seconds=0.05)
        go_on.set()
        await asyncio.gather(*slow)

    asyncio.run(story())
    outside.close()


def test_a_service_that_ends_asks_nobody() -> None:
    outside = make_outside()
    outside.close()
    with pytest.raises(OutsideError, match="the service is ending"):
        asyncio.run(outside.run("a", lambda: None, seconds=1))


def test_without_anchors_of_the_owner_those_of_the_system_count() -> None:
    outside = make_outside()
    trust = outside.trust()
    assert (trust.verify_mode, trust.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert outside.trust() is trust


def test_anchors_that_are_none_end_the_start_of_the_service() -> None:
    with pytest.raises(ConfigurationError, match="certificates to trust cannot be read"):
        make_outside(replace(PUBLIC_CLOUD, anchors="no certificate"))


# --- attestation services --------------------------------------------------------------------------------------------

X = Variable(placeholder=Placeholder(name="x"))


@pytest.mark.parametrize(
    "security",
    [
        SecurityAttestation(mode="maa", url=X),
        SecurityAttestation(mode="maa", url=None),
        SecurityAttestation(mode="maa", url="https://t.r.attest.azure.net", certificates=(X,)),
    ],
)
def test_an_attestation_service_that_is_not_known_whole_vouches_for_nobody(
    desk: Desk, security: SecurityAttestation
) -> None:
    """A certificate that is left out must not become trust in all others."""
    with pytest.raises(ReleaseRefusedError, match="url or certificates of security"):
        asyncio.run(claims_of_token(desk.cas, "a", security, b"a.b.c"))
