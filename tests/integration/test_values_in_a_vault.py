"""Values of sessions that lie in a key vault, through the real service: kept, verified, moved, and what fails without.

The vault is the one of tests/simulators/azure.py, so that a test can do to its entries what their owner can.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count, pairwise
from os import urandom
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.simulators.azure import CLIENT, LOCALHOST, SECRET, TENANT, TOKEN, Azure
from tests.simulators.canned import answer
from tests.simulators.outside import LOOPBACK
from tests.simulators.processes import start_service, stop
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, NOW, SgxPlatform, make_platform

from ostiary.audit import Kind, entry
from ostiary.broker import key_vaults
from ostiary.errors import StoreError
from ostiary.store import Store, Write

_numbers = count()

OTHER_VAULT = "b.localhost"
HERE, THERE, IN_SERVICE = "!akv {vault: localhost}", f"!akv {{vault: {OTHER_VAULT}}}", "!cas "
WORD = "{name: word, kind: ascii, size: 24}"
TEXT = """
name: {name}
version: "0.3.12"
secret_config: {{store_in: {place}}}
security: {{attestation: {{tolerate: [debug-mode]}}}}
services:
- {{name: app, image_name: image, attestation: {{mrenclave: {measurement}}}, command: "app {argument}"}}
images:
- {{name: image, injection_files: [{{path: /t}}]{volumes}}}
secrets:
- {{name: azure, kind: aad-token, tenant_id: {tenant}, client_id: {client}, application_secret: '{secret}'}}
{secrets}
{more}
"""


def text_of(
    name: str,
    *secrets: str,
    place: str = HERE,
    argument: str = "$$SCONE::word$$",
    measurement: str = MR_ENCLAVE.hex(),
    volumes: str = "",
    secret: str = SECRET,
    more: str = "",
) -> str:
    listed = "\n".join(f"- {each}" for each in secrets or (WORD,))
    return TEXT.format(
        name=name, place=place, measurement=measurement, argument=argument, volumes=volumes, tenant=TENANT,
        client=CLIENT, secret=secret, secrets=listed, more=more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def platform() -> SgxPlatform:
    return make_platform()


@pytest.fixture(scope="module")
def one_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    azure = Azure(tmp_path_factory.mktemp("azure"), LOOPBACK, LOCALHOST, x509.DNSName(OTHER_VAULT))
    yield azure
    azure.server.close()


@pytest.fixture
def azure(one_azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Two vaults: `localhost` and OTHER_VAULT, which no resolver knows."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *more: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == OTHER_VAULT else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    yield one_azure
    one_azure.forget()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, platform: SgxPlatform, one_azure: Azure
) -> Iterator[RunningService]:
    directory = tmp_path_factory.mktemp("vaulted") / "data"
    roots = (platform.software_root,)
    with running_service(directory, roots=roots, fixed_time=NOW, azure=one_azure.cloud) as running:
        yield running


class Stage:
    """Somebody who uploads sessions, and programs that start."""

    def __init__(self, service: RunningService, platform: SgxPlatform, client: Client, azure: Azure) -> None:
        self.service = service
        self.azure = azure
        self.client = client
        self._platform = platform
        self.hashes: dict[str, str] = {}

    def ask(self, method: str, path: str, body: str | None = None, client: Client | None = None) -> Answer:
        sent = None if body is None else body.encode()
        return (client or self.client).request(self.service.client_port, method, path, sent)

    def upload(self, text: str) -> Answer:
        """Create a session, or replace its current version."""
        name = re.findall(r"^name: (\S+)$", text, re.MULTILINE)[0]
        if name in self.hashes:
            text += f"predecessor: '{self.hashes[name]}'\n"
        told = self.ask("POST", "/session", text)
        if told.status == 201:
            self.hashes[name] = told.body["hash"]
        return told

    def store(self, name: str, *secrets: str, **more: str) -> None:
        """As `upload`, and it must be accepted."""
        told = self.upload(text_of(name, *secrets, **more))
        assert told.status == 201, told.body

    @contextlib.contextmanager
    def asked(self, name: str) -> Iterator[tuple[AttestingProgram, Answer]]:
        """A program that attested, and what it was told."""
        with attesting(self.service, self.client) as program:
            yield program, program.start(self._platform, f"{name}/app")

    def start(self, name: str) -> Answer:
        with self.asked(name) as (_, told):
            return told

    def argument(self, name: str) -> str:
        """What a program that starts receives as its first argument."""
        told = self.start(name)
        assert told.status == 200, told.body
        return base64.b64decode(told.body["argv"][1]["value"]).decode()

    def volume_key(self, name: str) -> str:
        told = self.start(name)
        assert told.status == 200, told.body
        return str(told.body["volumes"][0]["key"])

    def entries(self, name: str, vault: str = "localhost") -> dict[str, list[dict[str, Any]]]:
        """What the vault holds for the current version of a session, by name."""
        mine = f"cas-{self.hashes[name]}-"
        found = self.azure.written.get(vault, {})
        return {entry: versions for entry, versions in found.items() if entry.startswith(mine)}

    def record(self, name: str) -> dict[str, Any]:
        found = self.service.cas.store.get(name)
        assert found is not None
        return dict(json.loads(found.value))


@pytest.fixture
def stage(service: RunningService, platform: SgxPlatform, alice: Client, azure: Azure) -> Stage:
    return Stage(service, platform, alice, azure)


@pytest.fixture
def name() -> str:
    return f"vaulted-{next(_numbers)}"


def refused(told: Answer, *words: str) -> None:
    assert told.status == 403, told.body
    for word in words:
        assert word in ": ".join(told.body["msg"])


def only(stage: Stage, name: str) -> tuple[str, list[dict[str, Any]]]:
    (entry,) = stage.entries(name).items()
    return entry


# --- kept ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [HERE, "!akv {vault: 'https://localhost/', token: $$SCONE::azure$$}"])
def test_f158_values_lie_in_the_vault_and_nothing_but_their_key_in_the_service(
    stage: Stage, name: str, place: str
) -> None:
    """F158: `!akv` keeps this session's values in the vault, under names and texts that tell nothing."""
    stage.store(
        name, "{name: word, kind: ascii, value: a-word-of-mine}", "{name: k, kind: binary, size: 9}", place=place
    )
    assert stage.argument(name) == "a-word-of-mine"
    found = stage.entries(name)
    assert len(found) == 2
    for named, versions in found.items():
        assert re.fullmatch(r"cas-[0-9a-f]{64}-[0-9a-f]{32}", named)
        assert len(versions) == 1
        sealed = base64.b64decode(versions[0]["value"], validate=True)
        assert len(sealed) == 256 + 12 + 16
        assert b"word" not in sealed
    record = stage.record(f"session/{name}")
    assert (record["form"], record.get("values")) == (2, None)
    assert sorted(record["vault"]["entries"]) == ["k", "word"]


def test_f158_cas_is_the_default_and_asks_nobody(stage: Stage, name: str) -> None:
    """F158: `!cas` keeps values in the service."""
    stage.store(name, place=IN_SERVICE)
    assert len(stage.argument(name)) == 24
    assert stage.azure.asked == []


def test_the_entries_are_read_at_every_start_by_one_token(stage: Stage, name: str) -> None:
    stage.store(name, WORD, "{name: other, kind: ascii, size: 5}")
    word = stage.argument(name)
    stage.azure.server.requests.clear()
    assert stage.argument(name) == word
    assert sorted(asked.method for asked in stage.azure.asked) == ["GET", "GET", "POST"]


def test_a_session_without_values_asks_nobody(stage: Stage, name: str) -> None:
    stage.store(name, "{name: i, import: {session: none, secret: x}}", argument="x")
    assert stage.argument(name) == "x"
    assert stage.azure.asked == []


def test_a_large_value_lies_in_several_entries(stage: Stage, name: str) -> None:
    stage.store(name, WORD, "{name: big, kind: binary, size: 65536}")
    assert len(stage.entries(name)) == 1 + 6
    assert len(stage.argument(name)) == 24


def test_too_many_entries_are_refused_before_anything_is_written(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_vaults, "MAX_ENTRIES", 6)
    told = stage.upload(text_of(name, "{name: big, kind: binary, size: 65536}", WORD, argument="x"))
    assert told.status == 400
    assert "need 7 entries in its key vault, one for 16 KiB of each, expected at most 6" in told.body["msg"][0]
    assert stage.azure.asked == []


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_measurement_in_the_vault_decides_whom_to_admit(stage: Stage, name: str, tolerant: bool) -> None:
    """Configuration variables are read as if the values lay here."""
    value = MR_ENCLAVE.hex() if tolerant else "ab" * 32
    secret = f"{{name: m, kind: ascii, value: '{value}'}}"
    stage.store(name, secret, measurement="$$SCONE::m$$", argument="x")
    assert stage.start(name).status == (200 if tolerant else 403)


def test_a_service_that_starts_again_reads_the_same_values(
    tmp_path: Path, platform: SgxPlatform, azure: Azure, alice: Client, name: str
) -> None:
    def running() -> contextlib.AbstractContextManager[RunningService]:
        roots = (platform.software_root,)
        return running_service(tmp_path / "data", roots=roots, fixed_time=NOW, azure=azure.cloud)

    with running() as service:
        stage = Stage(service, platform, alice, azure)
        stage.store(name)
        word = stage.argument(name)
    with running() as service:
        assert Stage(service, platform, alice, azure).argument(name) == word


def test_a_template_that_a_program_brings_is_rendered_from_the_vault(stage: Stage, name: str) -> None:
    stage.store(name)
    with stage.asked(name) as (program, told):
        assert told.status == 200, told.body
        brought = base64.b64encode(b"<$$SCONE::word$$>").decode()
        rendered = program.post("/v1/render", {"path": "/t", "content": brought})
    assert rendered.status == 200, rendered.body
    assert base64.b64decode(rendered.body["content"]).decode() == f"<{stage.argument(name)}>"


# --- updates ---------------------------------------------------------------------------------------------------------


def test_generated_values_survive_an_update_and_the_entries_before_stay(stage: Stage, name: str) -> None:
    stage.store(name)
    word, before = stage.argument(name), stage.entries(name)
    stage.store(name, WORD, "{name: other, kind: ascii, size: 5}")
    assert stage.argument(name) == word
    assert len(stage.entries(name)) == 2
    assert before.items() <= stage.azure.written["localhost"].items()
    del stage.azure.written["localhost"][next(iter(before))]
    assert stage.argument(name) == word


@pytest.mark.parametrize(("first", "second"), [(IN_SERVICE, HERE), (HERE, IN_SERVICE), (HERE, THERE), (THERE, HERE)])
def test_values_migrate_when_an_update_changes_the_backend(stage: Stage, name: str, first: str, second: str) -> None:
    stage.store(name, place=first)
    word = stage.argument(name)
    stage.store(name, place=second)
    places = {HERE: "localhost", THERE: OTHER_VAULT}
    if first in places:
        stage.azure.written[places[first]].clear()
    if second in places:
        assert len(stage.entries(name, places[second])) == 1
    assert stage.argument(name) == word


def test_credentials_that_ran_out_are_renewed_by_an_update(stage: Stage, name: str) -> None:
    stage.store(name)
    word = stage.argument(name)
    stage.azure.application_secret = "a new one"
    refused(stage.start(name), "no token of 'azure'")
    assert stage.upload(text_of(name, place=THERE, secret="a new one")).status == 403
    stage.store(name, secret="a new one")
    assert stage.argument(name) == word


def test_of_two_updates_of_one_version_one_wins(stage: Stage, name: str) -> None:
    stage.store(name)
    word = stage.argument(name)
    texts = [text_of(name, argument=f"{n}$$SCONE::word$$") + f"predecessor: '{stage.hashes[name]}'\n" for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda text: stage.ask("POST", "/session", text), texts))
    assert sorted(each.status for each in told) == [201, 409, 409, 409]
    (winner,) = (n for n, each in enumerate(told) if each.status == 201)
    assert stage.argument(name) == f"{winner}{word}"


# --- entries that are not as they were written -----------------------------------------------------------------------


def _delete(stage: Stage, name: str, entry: str) -> None:
    del stage.azure.written["localhost"][entry]


def _flip(stage: Stage, name: str, entry: str) -> None:
    newest = stage.azure.written["localhost"][entry][-1]
    text = newest["value"]
    assert isinstance(text, str)
    newest["value"] = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]


def _swap(stage: Stage, name: str, entry: str) -> None:
    """With the entry of another secret of the session; versions are left as they were."""
    newest = stage.azure.written["localhost"][entry][-1]
    other = next(versions[-1] for each, versions in stage.entries(name).items() if each != entry)
    newest["value"], other["value"] = other["value"], newest["value"]


def _put_again(stage: Stage, name: str, entry: str) -> None:
    """The same text, in a version that the service did not write."""
    versions = stage.azure.written["localhost"][entry]
    versions.append(versions[-1] | {"id": f"https://localhost/secrets/{entry}/{'f' * 32}"})


def _older(stage: Stage, name: str, entry: str) -> None:
    """The text of the version before this one, under the newest name and version."""
    mine = stage.azure.written["localhost"][entry][-1]
    current = stage.entries(name)
    older = next(
        versions[-1]
        for each, versions in stage.azure.written["localhost"].items()
        if each not in current and each.startswith("cas-")
    )
    mine["value"] = older["value"]


def _entry_of(stage: Stage, name: str, value: str) -> str:
    ((tag, _, _),) = stage.record(f"session/{name}")["vault"]["entries"][value]
    return f"cas-{stage.hashes[name]}-{tag}"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_delete, "SecretNotFound"),
        (_flip, "was changed, or put back to an older text"),
        (_swap, "was changed, or put back to an older text"),
        (_older, "was changed, or put back to an older text"),
        (_put_again, "not in the version that this service wrote"),
    ],
)
def test_an_entry_that_is_not_as_it_was_written_ends_every_operation(
    stage: Stage,
    name: str,
    eve: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Stage, str, str], None],
    why: str,
) -> None:
    """Starts, reports, templates, reads, updates, public values, sessions below: those who may know learn which."""
    monkeypatch.setattr("ostiary.broker.update_tag.MAX_LOOK_AGE_SECONDS", 0.0)
    policy = "access_policy: {create_sessions: ANY}\nsalt: '" + "ab" * 16 + "'\nvolumes: [{name: data}]\n"
    secrets = (WORD, "{name: open, kind: ascii, value: v, export_public: true}")
    kept = {"more": policy, "volumes": ", volumes: [{name: data, path: /d}]"}
    stage.store(name, *secrets, **kept)
    stage.store(name, *secrets, argument="x", **kept)
    child = f"name: {name}/child\nversion: '0.3.12'\n"
    with stage.asked(name) as (program, told):
        assert told.status == 200, told.body
        assert program.report("volume:data", None, "11" * 16).status == 200
        saved = {
            entry: [dict(each) for each in versions] for entry, versions in stage.azure.written["localhost"].items()
        }
        spoil(stage, name, _entry_of(stage, name, "word"))
        # Secrets are looked at in their order, so that the message names the first.
        named = ("secret 'word'", f"session {name} cannot be had from its key vault")
        with caplog.at_level(logging.INFO):
            # Whoever may not know: programs in general learn the name of the secret, strangers learn nothing.
            reported = program.report("volume:data", "11" * 16, "22" * 16)
            rendered = program.post("/v1/render", {"path": "/t", "content": ""})
            refused(reported, *named)
            refused(rendered, *named)
            denied = stage.start(name)
            refused(denied, *named)
            # What was refused stays readable: that is how readers learn of it.
            kept_denial = stage.ask("GET", f"/v1/denials/{denied.body['denial']}")
            assert kept_denial.status == 200
            assert why in str(kept_denial.body)
            assert stage.ask("GET", f"/v1/denials/{denied.body['denial']}", client=eve).status == 404
            assert why not in str(reported.body) + str(rendered.body)
            refused(stage.ask("GET", f"/session/{name}"), *named, why)
            refused(stage.ask("GET", f"/v1/sessions/{name}?hash={stage.hashes[name]}"), *named, why)
            refused(stage.upload(text_of(name, *secrets, **kept)), *named, why)
            refused(stage.upload(text_of(name, *secrets, place=IN_SERVICE, **kept)), *named, why)
            read = stage.ask("GET", f"/session/{name}", client=eve)
            assert read.status == 403
            created = stage.ask("POST", "/session", child, client=eve)
            refused(created, "the values of its namespace")
            hashed = stage.ask("GET", f"/v1/session_hashes/{name}", client=eve)
            refused(hashed, "cannot be had at this time")
            assert "word" not in str(read.body) + str(created.body) + str(hashed.body)
            assert stage.ask("GET", f"/v1/values/session={name}", client=Client()).status == 404
            assert stage.ask("GET", f"/v1/values/session={name},secret=open", client=Client()).status == 404
        assert why in caplog.text
    stage.azure.written["localhost"].clear()
    stage.azure.written["localhost"].update(saved)
    assert stage.argument(name) == "x"
    assert stage.ask("GET", f"/session/{name}").status == 200
    assert stage.ask("GET", f"/v1/values/session={name},secret=open", client=Client()).status == 200
    assert stage.ask("POST", "/session", child, client=eve).status == 201
    stage.store(name, *secrets, **kept)


def test_reports_of_changed_files_look_once_a_minute(stage: Stage, name: str) -> None:
    stage.store(name, more="volumes: [{name: data}]", volumes=", volumes: [{name: data, path: /d}]")
    with stage.asked(name) as (program, told):
        assert told.status == 200, told.body
        stage.azure.server.requests.clear()
        tags = [None, *(f"{n:032x}" for n in range(1, 6))]
        for old, new in pairwise(tags):
            assert program.report("volume:data", old, new or "").status == 200
    assert stage.azure.asked == []


def test_many_starts_at_one_time_share_what_they_ask(stage: Stage, name: str, people: Path) -> None:
    """Whoever comes while the vault is asked waits for the next time it is asked, and all of them together."""
    stage.store(name)
    word = stage.argument(name)
    stage.azure.server.requests.clear()
    first, go = threading.Event(), threading.Event()

    def slow(request: bytes, stream: ssl.SSLSocket) -> None:
        first.set()
        assert go.wait(60)
        stream.sendall(stage.azure.vault(request))

    stage.azure.in_place_of_vault["GET"] = slow
    with ThreadPoolExecutor(9) as pool:
        begun = pool.submit(stage.argument, name)
        assert first.wait(60)
        others = [pool.submit(stage.ask, "GET", f"/session/{name}") for _ in range(8)]
        seen = len(stage.azure.asked)
        go.set()
        assert begun.result() == word
        assert {other.result().status for other in others} == {200}
    assert seen == 2
    assert len(stage.azure.asked) <= 2 * (1 + len(others))


# --- vaults that do not answer as they should ------------------------------------------------------------------------


def _status(status: int, code: str) -> Callable[[bytes, ssl.SSLSocket], None]:
    body = {"error": {"code": code, "message": "do not quote me"}}
    return lambda _request, stream: stream.sendall(answer(status, body))


def _garbage(_request: bytes, stream: ssl.SSLSocket) -> None:
    stream.sendall(answer(200, b"\xff{"))


def _broken(_request: bytes, _stream: ssl.SSLSocket) -> None:
    """The connection ends without an answer."""


TROUBLE = [
    (_status(401, "Unauthorized"), "status 401: Unauthorized"),
    (_status(403, "Forbidden"), "status 403: Forbidden"),
    (_status(404, "SecretNotFound"), "status 404: SecretNotFound"),
    (_status(429, "Throttled"), "status 429: Throttled"),
    (_status(500, "InternalServerError"), "status 500: InternalServerError"),
    (_garbage, "something else than a JSON object"),
    (_broken, "does not answer"),
]


@pytest.mark.parametrize(("trouble", "why"), TROUBLE)
def test_a_vault_that_does_not_take_an_entry_refuses_the_upload_and_leaves_the_version_before(
    stage: Stage, name: str, trouble: Callable[[bytes, ssl.SSLSocket], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store(name)
    word, head = stage.argument(name), stage.service.cas.store.head
    stage.azure.in_place_of_vault["PUT"] = trouble
    with caplog.at_level(logging.DEBUG):
        refused(stage.upload(text_of(name, argument="x")), "secret 'word'", why)
        created = stage.upload(text_of(f"{name}-new"))
        refused(created, "secret 'word'", why)
    assert "do not quote me" not in caplog.text + str(created.body)
    assert word not in caplog.text
    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text
    assert stage.ask("GET", f"/session/{name}-new").status == 404
    del stage.azure.in_place_of_vault["PUT"]
    assert stage.argument(name) == word
    assert stage.service.cas.store.head.seq > head.seq


@pytest.mark.parametrize(("trouble", "why"), TROUBLE)
def test_a_vault_that_does_not_give_an_entry_refuses_starts_and_uploads(
    stage: Stage, name: str, trouble: Callable[[bytes, ssl.SSLSocket], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Uploads too, as they read back what they wrote: a vault that may be written and not read would lose values."""
    stage.store(name)
    word = stage.argument(name)
    stage.azure.in_place_of_vault["GET"] = trouble
    with caplog.at_level(logging.DEBUG):
        told = stage.start(name)
    refused(told, "secret 'word'")
    assert why not in str(told.body)
    assert why in caplog.text
    refused(stage.upload(text_of(f"{name}-new")), "secret 'word'", why)
    del stage.azure.in_place_of_vault["GET"]
    assert stage.argument(name) == word


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_slow_vault_is_given_up_and_holds_up_no_other_session(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    stage.store(name)
    stage.store(f"{name}-here", place=IN_SERVICE)
    monkeypatch.setattr("ostiary.broker.outside.DEFAULT_SECONDS", 1.0)
    asked, done = threading.Event(), threading.Event()

    def slow(_request: bytes, _stream: ssl.SSLSocket) -> None:
        asked.set()
        done.wait(60)

    stage.azure.in_place_of_vault[method] = slow
    with ThreadPoolExecutor(1) as pool:
        try:
            uploading = pool.submit(stage.upload, text_of(name, argument="x"))
            assert asked.wait(60)
            assert len(stage.argument(f"{name}-here")) == 24
            refused(uploading.result(), "secret 'word'", "timed out")
        finally:
            done.set()


def test_everything_that_one_operation_asks_has_its_time(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.store(name)
    monkeypatch.setattr(key_vaults, "MAX_VAULT_SECONDS", 0.0)
    refused(stage.ask("GET", f"/session/{name}"), "no token of 'azure'", "took too long")


def test_a_write_without_a_version_is_refused(stage: Stage, name: str) -> None:
    stage.azure.in_place_of_vault["PUT"] = lambda _, stream: stream.sendall(answer(200, {"value": "x"}))
    refused(stage.upload(text_of(name)), "did not say which version that is")


def test_a_token_of_another_session_opens_no_vault(stage: Stage, name: str) -> None:
    """`token` names an aad-token of this session: one that is imported would come with that session's vault."""
    imported = "{name: theirs, kind: aad-token, import: {session: other, secret: azure}}"
    told = stage.upload(text_of(name, WORD, imported, place="!akv {vault: localhost, token: $$SCONE::theirs$$}"))
    assert told.status in (400, 403)
    assert "aad-token" in str(told.body)
    assert stage.azure.asked == []


def test_a_vault_outside_the_cloud_is_sent_no_token(stage: Stage, name: str) -> None:
    refused(stage.upload(text_of(name, place="!akv {vault: elsewhere.vault.azure.net}")), "is not below localhost")
    assert [asked.method for asked in stage.azure.asked] == ["POST"]


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_an_upload_that_fails_after_the_vault_took_it_leaves_the_version_before(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.store(name)
    word = stage.argument(name)
    with monkeypatch.context() as patched:

        def failing(self: Store, *_: Any, **__: Any) -> Any:
            raise StoreError("the disk is full")

        patched.setattr(Store, "commit", failing)
        assert stage.upload(text_of(name, argument="x")).status == 503
    assert len(stage.azure.written["localhost"]) == 2
    assert stage.argument(name) == word
    stage.store(name, argument="y$$SCONE::word$$")
    assert stage.argument(name) == f"y{word}"


def test_a_service_that_is_killed_during_an_upload_has_the_version_before(
    request: pytest.FixtureRequest, tmp_path: Path, azure: Azure, alice: Client, name: str
) -> None:
    anchors = tmp_path / "azure.pem"
    anchors.write_text(azure.server.certificate)
    options = ("--azure-directory", azure.server.url, "--azure-vaults", f"localhost:{azure.port}")

    def served() -> tuple[subprocess.Popen[bytes], int]:
        process, told = start_service(tmp_path / "data", *options, "--azure-ca", str(anchors))
        return process, int(told["client"].rpartition(":")[2])

    public = "{name: word, kind: ascii, size: 24, export_public: true}"
    process, port = served()
    request.addfinalizer(process.kill)
    created = alice.request(port, "POST", "/session", text_of(name, public).encode())
    assert created.status == 201, created.body
    word = Client().request(port, "GET", f"/v1/values/session={name},secret=word")
    assert word.status == 200

    def take_and_kill(asked: bytes, stream: ssl.SSLSocket) -> None:
        stream.sendall(azure.vault(asked))
        process.kill()

    azure.in_place_of_vault["PUT"] = take_and_kill
    update = text_of(name, public, argument="x") + f"predecessor: '{created.body['hash']}'\n"
    with pytest.raises((OSError, http.client.HTTPException)):
        alice.request(port, "POST", "/session", update.encode())
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()
    del azure.in_place_of_vault["PUT"]
    process, port = served()
    try:
        read = alice.request(port, "GET", f"/session/{name}")
        assert read.status == 200, read.body
        assert Client().request(port, "GET", f"/v1/values/session={name},secret=word").body == word.body
        assert alice.request(port, "POST", "/session", update.encode()).status == 201
        assert Client().request(port, "GET", f"/v1/values/session={name},secret=word").body == word.body
    finally:
        assert stop(process) == 0


# --- values that are made anew ---------------------------------------------------------------------------------------

CERTIFICATE = "{name: cert, kind: x509, private_key: key, common_name: a, valid_for: 9d}"
KEY = "{name: key, kind: private-key, key_type: P-256}"


def test_a_certificate_that_is_due_is_put_into_the_vault_and_the_rest_stays(stage: Stage, name: str) -> None:
    stage.store(name, CERTIFICATE, KEY, argument="'$$SCONE::cert:crt$$'")
    first, before = stage.argument(name), set(stage.entries(name))
    with ahead(stage, timedelta(days=7)):
        stage.azure.in_place_of_vault["PUT"] = _status(403, "Forbidden")
        refused(stage.start(name), "secret 'cert'")
        del stage.azure.in_place_of_vault["PUT"]
        second = stage.argument(name)
        assert second != first
        after = set(stage.entries(name))
        assert len(after - before) == 1
        assert stage.argument(name) == second
        (replaced,) = before - {_entry_of(stage, name, "cert"), _entry_of(stage, name, "key")}
        del stage.azure.written["localhost"][replaced]
        assert stage.argument(name) == second


@contextlib.contextmanager
def ahead(stage: Stage, time: timedelta) -> Iterator[None]:
    stage.service.clock.ahead = time
    try:
        yield
    finally:
        stage.service.clock.ahead = timedelta(0)


# --- volumes ---------------------------------------------------------------------------------------------------------

VOLUME = {"more": "volumes: [{name: data}]", "volumes": ", volumes: [{name: data, path: /d}]"}


def test_the_key_of_a_volume_lies_in_the_vault(stage: Stage, name: str) -> None:
    stage.store(name, **VOLUME)
    key = stage.volume_key(name)
    assert stage.volume_key(name) == key
    assert stage.record(f"volume/{name}/data")["key"] is None
    del stage.azure.written["localhost"][_entry_of(stage, name, "/volume/data")]
    refused(stage.start(name), "the key of volume 'data'")


@pytest.mark.parametrize(
    "places", [(IN_SERVICE, HERE), (HERE, IN_SERVICE, HERE), (IN_SERVICE, HERE, THERE, IN_SERVICE)]
)
def test_the_key_of_a_volume_migrates_and_its_history_goes_on(stage: Stage, name: str, places: tuple[str, ...]) -> None:
    stage.store(name, place=places[0], **VOLUME)
    key = stage.volume_key(name)
    tags = [None, *(f"{n:032x}" for n in range(1, 9))]
    for at, place in enumerate(places[1:]):
        with stage.asked(name) as (program, _):
            assert program.report("volume:data", tags[at], tags[at + 1] or "").status == 200
            stage.store(name, place=place, **VOLUME)
            # A program that was started before goes on.
            assert program.report("volume:data", tags[at + 1], tags[at + 1] or "").status == 200
        told = stage.start(name).body["volumes"][0]
        assert (told["key"], told["tag"]) == (key, tags[at + 1])


def test_a_first_start_during_the_migration_makes_the_key_that_counts(stage: Stage, name: str) -> None:
    """The start puts a key into the record of the volume, and the upload must not make another one."""
    stage.store(name, place=IN_SERVICE, **VOLUME)
    keys: list[str] = []

    def meanwhile(request: bytes, stream: ssl.SSLSocket) -> None:
        if not keys:
            keys.append(stage.volume_key(name))
        stream.sendall(stage.azure.vault(request))

    stage.azure.in_place_of_vault["PUT"] = meanwhile
    stage.store(name, **VOLUME)
    assert stage.volume_key(name) == keys[0]
    assert stage.record(f"volume/{name}/data")["key"] is None


def test_a_key_that_is_nowhere_is_not_made_anew(stage: Stage, name: str) -> None:
    stage.store(name, place=IN_SERVICE, **VOLUME)
    stage.volume_key(name)
    store, record = stage.service.cas.store, f"volume/{name}/data"
    spoiled = json.dumps(stage.record(record) | {"key": None}).encode()
    leaf = entry(Kind.SESSION_UPDATED, {}, NOW, urandom)
    store.commit([Write(name=record, value=spoiled, expected_version=store.version(record) or 0)], leaf).result()
    refused(stage.start(name), "volume 'data' cannot be used")
    assert stage.upload(text_of(name, **VOLUME)).status == 503


def test_a_volume_that_was_left_out_for_a_version_keeps_its_key(stage: Stage, name: str) -> None:
    stage.store(name, **VOLUME)
    key = stage.volume_key(name)
    stage.store(name)
    stage.store(name, place=IN_SERVICE)
    stage.store(name, **VOLUME)
    assert stage.volume_key(name) == key


def test_a_volume_that_is_given_another_key_in_between_begins_anew(stage: Stage, name: str) -> None:
    stage.store(name, **VOLUME)
    key = stage.volume_key(name)
    given = "volumes: [{name: data, fspf_key: '" + "11" * 32 + "', fspf_tag: '" + "22" * 16 + "'}]"
    stage.store(name, **(VOLUME | {"more": given}))
    assert stage.volume_key(name) == "11" * 32
    stage.store(name, **VOLUME)
    assert stage.volume_key(name) not in (key, "11" * 32)


def test_a_volume_of_a_session_in_a_vault_is_used_by_another(stage: Stage, name: str) -> None:
    user = f"{name}-user"
    stage.store(name, **(VOLUME | {"more": f"volumes: [{{name: data, export: {{session: {user}}}}}]"}))
    imported = f"volumes: [{{name: data, import: {{session: {name}, volume: data}}}}]"
    stage.store(user, place=IN_SERVICE, **(VOLUME | {"more": imported}))
    assert stage.volume_key(user) == stage.volume_key(name)
    _delete(stage, name, _entry_of(stage, name, "word"))
    refused(stage.start(user), "volume 'data' cannot be used")


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [IN_SERVICE, HERE])
def test_a_session_imports_from_one_whose_values_lie_in_a_vault(stage: Stage, name: str, place: str) -> None:
    importer = f"{name}-importer"
    stage.store(name, "{name: word, kind: ascii, size: 24, export: {session: " + importer + "}}")
    imported = f"{{name: word, import: {{session: {name}, secret: word}}}}"
    stage.store(importer, imported, place=place)
    assert stage.argument(importer) == stage.argument(name)
    _delete(stage, name, _entry_of(stage, name, "word"))
    refused(stage.start(importer), "secret 'word' cannot be imported")


def test_a_start_that_needs_no_import_does_not_need_the_vault_of_the_exporter(stage: Stage, name: str) -> None:
    importer = f"{name}-importer"
    stage.store(name, "{name: word, kind: ascii, size: 24, export: {session: " + importer + "}}")
    imported = f"{{name: word, import: {{session: {name}, secret: word}}}}"
    stage.store(importer, imported, place=IN_SERVICE, argument="x")
    _delete(stage, name, _entry_of(stage, name, "word"))
    assert stage.argument(importer) == "x"
