"""Tokens of Azure's directory and secrets of its key vault, through the real service, from an attested start."""

from __future__ import annotations

import base64
import hashlib
import logging
import ssl
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from tests.simulators.azure import CLIENT, LOCALHOST, SECRET, TENANT, TOKEN, Azure
from tests.simulators.canned import answer
from tests.simulators.outside import LOOPBACK, make_certificate
from tests.simulators.processes import ostiary, serve_process
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, NOW, SgxPlatform, make_platform

_numbers = count()
APPLICATION_KEY = rsa.generate_private_key(65537, 2048)
KEY = bytes(range(32))

TOKEN_SECRET = (
    f"{{name: azure, kind: aad-token, tenant_id: {TENANT}, client_id: {CLIENT}, application_secret: '{SECRET}'}}"
)
SESSION = """
name: NAME
version: "0.3.12"
security: {{attestation: {{tolerate: [debug-mode]}}}}
services:
- name: app
  image_name: image
  attestation: {{mrenclave: {measurement}}}
  command: "app {argument}"
  environment: {{A: b}}
images:
- {{name: image, injection_files: [{{path: /t}}]}}
secrets:
- {token}
{secrets}
"""


@pytest.fixture(scope="module")
def platform() -> SgxPlatform:
    return make_platform()


@pytest.fixture(scope="module")
def one_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    azure = Azure(tmp_path_factory.mktemp("azure"))
    yield azure
    azure.server.close()


@pytest.fixture
def azure(one_azure: Azure) -> Iterator[Azure]:
    yield one_azure
    one_azure.forget()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, platform: SgxPlatform, one_azure: Azure
) -> Iterator[RunningService]:
    directory = tmp_path_factory.mktemp("attested") / "data"
    roots = (platform.software_root,)
    with running_service(directory, roots=roots, fixed_time=NOW, azure=one_azure.cloud) as running:
        yield running


@pytest.fixture
def program(service: RunningService, eve: Client) -> Iterator[AttestingProgram]:
    with attesting(service, eve) as attesting_program:
        yield attesting_program


Upload = Callable[..., str]


def uploaded(service: RunningService, owner: Client, *secrets: str, argument: str, token: str = TOKEN_SECRET) -> str:
    """A session of a new name; the id of its service."""
    name = f"azure-{next(_numbers)}"
    made = owner.request(
        service.client_port, "POST", "/session", session_text(name, *secrets, argument=argument, token=token)
    )
    assert made.status == 201, made.body
    return f"{name}/app"


def session_text(
    name: str, *secrets: str, argument: str, token: str = TOKEN_SECRET, measurement: str = MR_ENCLAVE.hex()
) -> bytes:
    listed = "\n".join(f"- {secret}" for secret in secrets)
    text = SESSION.format(measurement=measurement, argument=argument, secrets=listed, token=token)
    return text.replace("NAME", name).encode()


@pytest.fixture
def upload(service: RunningService, alice: Client) -> Upload:
    return lambda *secrets, **more: uploaded(service, alice, *secrets, **more)


def argument_of(started: Answer) -> bytes:
    assert started.status == 200, started.body
    return base64.b64decode(started.body["argv"][1]["value"])


def refused(started: Answer, secret: str) -> None:
    """A denial that tells the program the name of the secret, and nothing of what happened outside."""
    assert started.status == 403, started.body
    assert started.body["msg"] == [
        f"secret {secret!r} cannot be fetched",
        "ask those who may read the session; the service's log has the reason",
    ]


VAULTED = "{name: word, import_akv: {vault: localhost}}"


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_f123_a_token_is_fetched_with_the_secret_of_the_application(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    """F123: the token itself can be given to a program."""
    assert argument_of(program.start(platform, upload(argument="$$SCONE::azure$$"))) == TOKEN.encode()
    (asked,) = azure.asked
    assert asked.path == f"/{TENANT}/oauth2/v2.0/token"
    assert asked.form == {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "grant_type": "client_credentials",
        "scope": "https://localhost/.default",
    }


@pytest.mark.parametrize(
    ("thumbprint", "algorithm", "header"), [("ab" * 20, "RS256", "x5t"), ("Cd" * 32, "PS256", "x5t#S256")]
)
def test_f123_a_token_is_fetched_with_the_key_of_a_certificate(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    thumbprint: str,
    algorithm: str,
    header: str,
) -> None:
    """F123: a thumbprint of SHA-1 and one of SHA-256 name the certificate each in its own way."""
    azure.application_key = APPLICATION_KEY.public_key()
    assert argument_of(program.start(platform, upload(argument="$$SCONE::azure$$", token=with_key(thumbprint)))) == (
        TOKEN.encode()
    )
    assertion = azure.asked[0].form["client_assertion"]
    found = jwt.get_unverified_header(assertion)
    wanted = base64.urlsafe_b64encode(bytes.fromhex(thumbprint)).decode().rstrip("=")
    assert found == {"alg": algorithm, "typ": "JWT", header: wanted}
    claims = jwt.decode(assertion, options={"verify_signature": False})
    assert claims["nbf"] == claims["iat"] == int(NOW.timestamp())


def with_key(thumbprint: str) -> str:
    pem = APPLICATION_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    indented = textwrap.indent(pem, "    ")
    return (
        f"name: azure\n  kind: aad-token\n  tenant_id: {TENANT}\n  client_id: {CLIENT}\n"
        f"  certificate_thumbprint: '{thumbprint}'\n  private_key: |\n{indented}"
    )


def test_f123_a_key_that_the_directory_does_not_know_is_refused(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    """F123: the program learns which secret, the log learns the directory's codes, and nobody its sentences."""
    azure.application_key = rsa.generate_private_key(65537, 2048).public_key()
    with caplog.at_level(logging.DEBUG):
        refused(program.start(platform, upload(argument="$$SCONE::azure$$", token=with_key("ab" * 20))), "azure")
    assert "the directory refused with status 401: invalid_client, AADSTS7000215" in caplog.text
    assert "Invalid client secret provided" not in caplog.text


def test_each_start_fetches_anew(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    azure.entries["word"] = {"value": "first"}
    service_id = upload(VAULTED, argument="$$SCONE::word$$")
    assert argument_of(program.start(platform, service_id)) == b"first"
    azure.entries["word"] = {"value": "second"}
    assert argument_of(program.start(platform, service_id)) == b"second"
    assert [asked.method for asked in azure.asked] == ["POST", "GET"] * 2


def test_one_token_serves_all_secrets_of_a_release(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    azure.entries |= {"word": {"value": "a"}, "other-name": {"value": "b"}}
    other = "{name: other, import_akv: {vault: 'https://localhost/', secret_name: other-name, token: $$SCONE::azure$$}}"
    service_id = upload(VAULTED, other, argument="$$SCONE::word$$$$SCONE::other$$$$SCONE::azure$$")
    assert argument_of(program.start(platform, service_id)) == b"ab" + TOKEN.encode()
    assert sorted(asked.method for asked in azure.asked) == ["GET", "GET", "POST"]


def test_what_is_not_wanted_is_not_fetched(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    assert argument_of(program.start(platform, upload(VAULTED, argument="x"))) == b"x"
    assert azure.asked == []


# --- kinds -----------------------------------------------------------------------------------------------------------


def sealed(data: bytes) -> str:
    header = bytes.fromhex("00a10002") + len(data).to_bytes(2, "big") + bytes(range(12))
    return base64.b64encode(header + AESGCM(KEY).encrypt(bytes(range(12)), data, None)).decode()


PKCS1 = APPLICATION_KEY.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
DECRYPTED = "{name: word, import_akv: {vault: localhost, decryption_key: $$SCONE::key$$}}"
KEY_SECRET = f"{{name: key, kind: binary, value: {KEY.hex()}}}"


@pytest.mark.parametrize(
    ("entry", "form", "value"),
    [
        ({"value": sealed(b"hello")}, "", b"hello"),
        ({"value": sealed(b"\x00\xff"), "contentType": "binary"}, ":hex", b"00ff"),
        ({"value": sealed(bytes(3)), "contentType": "binary"}, ":base64", b"AAAA"),
    ],
)
def test_f157_what_is_encrypted_in_the_vault_is_decrypted(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    entry: dict[str, object],
    form: str,
    value: bytes,
) -> None:
    """F157: text, and bytes where the vault's type says so."""
    azure.entries["word"] = entry
    service_id = upload(DECRYPTED, KEY_SECRET, argument=f"$$SCONE::word{form}$$")
    assert argument_of(program.start(platform, service_id)) == value


def test_f157_an_rsa_key_in_the_vault_is_a_private_key(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    """F157: type PKCS#1."""
    azure.entries["word"] = {"value": sealed(PKCS1), "contentType": "PKCS#1"}
    service_id = upload(DECRYPTED, KEY_SECRET, argument="$$SCONE::word:pkcs8:pem$$")
    key = load_pem_private_key(argument_of(program.start(platform, service_id)), None)
    assert public(key) == public(APPLICATION_KEY)


def public(key: Any) -> bytes:
    spki: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki


def test_f157_what_another_key_encrypted_is_refused(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    """F157: the program does not learn what is wrong with it."""
    azure.entries["word"] = {"value": sealed(b"hello")}
    other = f"{{name: key, kind: binary, value: {'00' * 32}}}"
    refused(program.start(platform, upload(DECRYPTED, other, argument="$$SCONE::word$$")), "word")
    assert "was encrypted under another key, or changed" in caplog.text


def test_f155_a_certificate_in_the_vault_is_a_certificate(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    """F155: PEM with a certificate and its key; the token is the session's only one."""
    key, certificate = make_certificate(LOOPBACK)
    azure.entries["word"] = {"value": certificate + key, "contentType": "application/x-pem-file"}
    service_id = upload(VAULTED, argument="$$SCONE::word:crt$$$$SCONE::word:privatekey$$")
    pem = argument_of(program.start(platform, service_id))
    assert public(load_pem_private_key(pem, None)) == public(load_pem_private_key(key.encode(), None))
    assert x509.load_pem_x509_certificate(pem) == x509.load_pem_x509_certificate(certificate.encode())


def test_pkcs12_in_the_vault_stays_text(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    azure.entries["word"] = {"value": "MIIKDgIBAzCCCcQ=", "contentType": "application/x-pkcs12"}
    assert argument_of(program.start(platform, upload(VAULTED, argument="$$SCONE::word$$"))) == b"MIIKDgIBAzCCCcQ="
    refusal = program.start(platform, upload(VAULTED, argument="$$SCONE::word:privatekey$$"))
    assert refusal.status == 403


def test_a_template_of_the_program_has_secrets_of_the_vault(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    azure.entries["word"] = {"value": "from there"}
    assert argument_of(program.start(platform, upload(VAULTED, argument="x"))) == b"x"
    content = base64.b64encode(b"<$$SCONE::word$$>").decode()
    rendered = program.post("/v1/render", {"path": "/t", "content": content})
    assert base64.b64decode(rendered.body["content"]) == b"<from there>"


def test_a_key_of_the_vault_is_stored_nowhere_not_in_a_certificate_either(
    service: RunningService, azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    azure.entries["word"] = {"value": sealed(PKCS1), "contentType": "PKCS#1"}
    vaulted = DECRYPTED.replace("{name: word", "{name: word, kind: private-key")
    tls = "{name: tls, kind: x509, private_key: word, common_name: a}"
    service_id = upload(vaulted, KEY_SECRET, tls, argument="$$SCONE::tls:crt$$")
    certificate = x509.load_pem_x509_certificate(argument_of(program.start(platform, service_id)))
    assert certificate.public_key() == APPLICATION_KEY.public_key()
    stored = service.cas.sessions.require(service_id.removesuffix("/app"))
    assert set(stored.values) == {"key"}


def test_what_another_session_has_of_a_vault_can_be_imported(
    service: RunningService,
    alice: Client,
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The importer learns the name of its own secret if it cannot be fetched."""
    azure.entries["word"] = {"value": "shared"}
    exported = VAULTED.replace("{name: word", "{name: word, export: {namespace: /}")
    exporter = uploaded(service, alice, exported, argument="x").removesuffix("/app")
    imported = f"{{name: mine, import: {{session: {exporter}, secret: word}}}}"
    service_id = uploaded(service, alice, imported, argument="$$SCONE::mine$$")
    assert argument_of(program.start(platform, service_id)) == b"shared"
    del azure.entries["word"]
    refusal = program.start(platform, service_id)
    assert refusal.status == 403
    assert refusal.body["msg"][0] == "secret 'mine' cannot be imported"
    assert "secret 'word' cannot be fetched: secret 'word': the key vault refused with status 404" in caplog.text


# --- refusals --------------------------------------------------------------------------------------------------------

FAR_TOO_LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 1_000_000
CASES: dict[str, tuple[bytes, str]] = {
    "401": (answer(401, {"error": {"code": "Unauthorized"}}), "status 401"),
    "404": (answer(404, {"error": {"code": "SecretNotFound", "message": "hunter2"}}), "status 404"),
    "429": (b"HTTP/1.1 429 X\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n", "it asks to come back in 17 s"),
    "500": (answer(500, b"hunter2"), "status 500"),
    "no JSON": (answer(200, b"hunter2"), "answered with something else than a JSON object"),
    "a list": (answer(200, ["hunter2"]), "answered with something else than a JSON object"),
    "an empty object": (answer(200, {}), "the "),
    "too large": (FAR_TOO_LARGE, "answers with more than"),
    "a redirect": (b"HTTP/1.1 302 X\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n", "status 302"),
    "no HTTP": (b"garbage\r\n\r\n", "does not answer"),
    "nothing": (b"", "the connection was closed"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("where", ["the directory", "the key vault"])
def test_a_start_is_refused_if_azure_gives_no_value(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    caplog: pytest.LogCaptureFixture,
    where: str,
    case: str,
) -> None:
    said, logged = CASES[case]
    azure.entries["word"] = {"value": "hunter2"}
    path, secret = (azure.token_path, "azure") if where == "the directory" else ("/secrets/word", "word")
    azure.in_place_of[path] = lambda _request, stream: stream.sendall(said)
    with caplog.at_level(logging.DEBUG):
        refused(program.start(platform, upload(VAULTED, argument="$$SCONE::word$$")), secret)
    assert logged in caplog.text
    for hidden in ("hunter2", TOKEN, SECRET):
        assert hidden not in caplog.text


@pytest.mark.parametrize(
    ("members", "logged"),
    [
        ({"token_type": "pop", "access_token": TOKEN}, "another type than Bearer"),
        ({"access_token": TOKEN}, "another type than Bearer"),
        ({"token_type": "Bearer", "access_token": "two words"}, "no access_token"),
        ({"token_type": "Bearer", "access_token": "x\r\nX: y"}, "no access_token"),
        ({"token_type": "Bearer", "access_token": 7}, "no access_token"),
        ({"token_type": "Bearer", "access_token": "x" * 20_000}, "no access_token"),
    ],
)
def test_what_is_no_bearer_token_is_refused(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    caplog: pytest.LogCaptureFixture,
    members: dict[str, object],
    logged: str,
) -> None:
    azure.in_place_of[azure.token_path] = lambda _request, stream: stream.sendall(answer(200, members))
    refused(program.start(platform, upload(argument="$$SCONE::azure$$")), "azure")
    assert logged in caplog.text


def test_a_vault_that_does_not_prove_its_name_is_refused(
    tmp_path: Path,
    alice: Client,
    eve: Client,
    platform: SgxPlatform,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The token does not leave."""
    azure = Azure(tmp_path, LOOPBACK)
    roots = (platform.software_root,)
    with running_service(tmp_path / "data", roots=roots, fixed_time=NOW, azure=azure.cloud) as running:
        service_id = uploaded(running, alice, VAULTED, argument="$$SCONE::word$$")
        with attesting(running, eve) as program:
            refused(program.start(platform, service_id), "word")
    assert "localhost does not prove its name" in caplog.text
    assert [asked.method for asked in azure.asked] == ["POST"]
    azure.server.close()


def test_servers_that_the_owner_does_not_trust_are_refused(
    azure: Azure, tmp_path: Path, alice: Client, eve: Client, platform: SgxPlatform, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = replace(azure.cloud, anchors=make_certificate(LOCALHOST)[1])
    roots = (platform.software_root,)
    with running_service(tmp_path / "data", roots=roots, fixed_time=NOW, azure=cloud) as running:
        service_id = uploaded(running, alice, argument="$$SCONE::azure$$")
        with attesting(running, eve) as program:
            refused(program.start(platform, service_id), "azure")
    assert "127.0.0.1 does not prove its name" in caplog.text
    assert azure.asked == []


@pytest.mark.parametrize(
    ("akv", "logged"),
    [
        ("vault: v.vault.azure.net", "vault v.vault.azure.net is not below localhost"),
        ("vault: evil-localhost", "vault evil-localhost is not below localhost"),
        ("vault: localhost, secret_name: a/b", "'a/b' is no name in a key vault"),
        ("vault: localhost, secret_name: ..", "'..' is no name in a key vault"),
        ("vault: localhost, secret_name: 'a?api-version=1'", "is no name in a key vault"),
    ],
)
def test_a_token_goes_to_vaults_of_its_cloud_and_for_secrets_only(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    caplog: pytest.LogCaptureFixture,
    akv: str,
    logged: str,
) -> None:
    service_id = upload(f"{{name: word, import_akv: {{{akv}}}}}", argument="$$SCONE::word$$")
    refused(program.start(platform, service_id), "word")
    assert logged in caplog.text
    assert [asked.method for asked in azure.asked] == ["POST"]


def test_a_tenant_that_is_no_name_is_refused(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    token = TOKEN_SECRET.replace(TENANT, "'a/../b'")
    refused(program.start(platform, upload(argument="$$SCONE::azure$$", token=token)), "azure")
    assert "tenant_id is no id or domain name" in caplog.text
    assert azure.asked == []


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_slow_vault_refuses_its_start_and_holds_up_no_other(
    azure: Azure,
    service: RunningService,
    alice: Client,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ostiary.broker.outside.DEFAULT_SECONDS", 1.0)
    asked, done = threading.Event(), threading.Event()

    def slow(_request: bytes, _stream: ssl.SSLSocket) -> None:
        asked.set()
        done.wait(60)

    azure.in_place_of["/secrets/word"] = slow
    slow_id, other_id = upload(VAULTED, argument="$$SCONE::word$$"), upload(argument="x")
    with ThreadPoolExecutor(1) as pool, attesting(service, alice) as other:
        started = pool.submit(program.start, platform, slow_id)
        assert asked.wait(60)
        assert argument_of(other.start(platform, other_id)) == b"x"
        refused(started.result(), "word")
        done.set()
    assert "localhost does not answer: timed out" in caplog.text


def test_a_release_that_takes_too_long_in_all_is_refused(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ostiary.broker.outside.MAX_RELEASE_SECONDS", 0.0)
    refused(program.start(platform, upload(argument="$$SCONE::azure$$")), "azure")
    assert "took too long" in caplog.text
    assert azure.asked == []


def test_a_release_that_wants_too_much_from_outside_is_refused(
    azure: Azure,
    program: AttestingProgram,
    platform: SgxPlatform,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ostiary.broker.outside.MAX_RELEASE_SECRETS", 1)
    azure.entries["word"] = {"value": "x"}
    refused(program.start(platform, upload(VAULTED, argument="$$SCONE::word$$")), "word")
    assert "one release fetches at most 1 secrets" in caplog.text


@pytest.mark.parametrize("admits", [True, False])
def test_a_session_that_changes_while_azure_is_asked_is_judged_anew(
    azure: Azure, service: RunningService, alice: Client, program: AttestingProgram, platform: SgxPlatform, admits: bool
) -> None:
    """The release rests on the version by which it was fetched: nothing that the new version does not give gets out."""
    azure.entries |= {"word": {"value": "old"}, "other": {"value": "new"}}
    service_id = uploaded(service, alice, VAULTED, argument="$$SCONE::word$$")
    name = service_id.removesuffix("/app")
    current = service.cas.sessions.require(name).parsed.hash.hex()
    measurement = MR_ENCLAVE.hex() if admits else "ab" * 32
    other = VAULTED.replace("vault: localhost", "vault: localhost, secret_name: other")
    new = session_text(name, other, argument="$$SCONE::word$$", measurement=measurement)
    new += f"predecessor: '{current}'\n".encode()
    updated: list[Answer] = []

    def meanwhile(_request: bytes, stream: ssl.SSLSocket) -> None:
        if not updated:
            updated.append(alice.request(service.client_port, "POST", "/session", new))
        stream.sendall(answer(200, {"value": "old"}))

    azure.in_place_of["/secrets/word"] = meanwhile
    before = service.cas.store.head.log_size
    started = program.start(platform, service_id)
    assert updated[0].status == 201, updated[0].body
    if admits:
        assert argument_of(started) == b"new"
        assert service.cas.store.head.log_size == before + 2
    else:
        assert started.status == 403
        assert "mrenclave" in " ".join(started.body["msg"])
        # The update, and the entry of the denial, for which nobody waits.
        assert service.cas.store.head.log_size - before in (1, 2)


# --- who may cause it ------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_for_a_program_that_is_not_admitted(
    azure: Azure, program: AttestingProgram, platform: SgxPlatform, upload: Upload
) -> None:
    service_id, nonce = upload(VAULTED, argument="$$SCONE::word$$"), program.challenge()
    quote = platform.quote(report_data=program.binding(nonce), mr_enclave=hashlib.sha256(b"other").digest())
    assert program.configure(nonce, quote, platform.collateral(), service_id).status == 403
    assert azure.asked == []


def test_nothing_is_fetched_to_decide_whom_to_admit(
    azure: Azure,
    service: RunningService,
    alice: Client,
    program: AttestingProgram,
    platform: SgxPlatform,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A measurement in a vault admits nobody."""
    azure.entries["word"] = {"value": MR_ENCLAVE.hex()}
    name = f"azure-{next(_numbers)}"
    text = session_text(name, VAULTED, argument="x", measurement="$$SCONE::word$$")
    made = alice.request(service.client_port, "POST", "/session", text)
    assert made.status == 201, made.body
    assert program.start(platform, f"{name}/app").status == 403
    assert "not to decide that, nor for the public" in caplog.text
    assert azure.asked == []


def test_nothing_is_fetched_for_the_public(
    azure: Azure, service: RunningService, alice: Client, upload: Upload
) -> None:
    exported = VAULTED.replace("{name: word", "{name: word, export: {namespace: /}")
    exporter = upload(exported, argument="x").removesuffix("/app")
    public_import = f"{{name: mine, export_public: true, import: {{session: {exporter}, secret: word}}}}"
    name = upload(public_import, argument="x").removesuffix("/app")
    seen = Client().request(service.client_port, "GET", f"/v1/values/session={name},secret=mine")
    assert seen.status == 404
    assert azure.asked == []


# --- as a process ----------------------------------------------------------------------------------------------------


def test_the_owner_names_the_cloud_on_the_command_line(azure: Azure, tmp_path: Path, alice: Client) -> None:
    """`ostiary serve` with its options, `ostiary run` of a program that prints what it received."""
    azure.entries["word"] = {"value": "from-the-vault"}
    anchors = tmp_path / "azure.pem"
    anchors.write_text(azure.server.certificate)
    options = ("--azure-directory", azure.server.url, "--azure-vaults", f"localhost:{azure.port}")
    program = tmp_path / "program.py"
    program.write_text("import os; print(os.environ['GOT'])")
    text = session_text("processes", VAULTED, argument=str(program)).decode()
    text = text.replace("{tolerate: [debug-mode]}", "{mode: none}").replace("{A: b}", "{GOT: $$SCONE::word$$}")
    text = text.replace("{name: image, injection_files: [{path: /t}]}", "{name: image}")
    with serve_process(tmp_path / "data", *options, "--azure-ca", str(anchors)) as served:
        port = int(served["client"].rpartition(":")[2])
        assert alice.request(port, "POST", "/session", text.encode()).status == 201
        run = ("run", "--cas", served["enclave"], "--service", "processes/app", "--no-attestation")
        assert ostiary(*run, "--", sys.executable) == "from-the-vault\n"
    log = (tmp_path / "data.log").read_text()
    for hidden in ("from-the-vault", TOKEN, SECRET):
        assert hidden not in log
