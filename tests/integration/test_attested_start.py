"""An attested start on real mTLS: what is released, and every way in which it is refused, with the reason."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, exchange, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, MR_SIGNER, NOW, SgxPlatform, make_platform, with_byte_flipped

from ostiary.audit import Kind, entry
from ostiary.broker.session_records import StoredSession, values_write
from ostiary.evidence.claims import Claims
from ostiary.secret import generate
from ostiary.server.enclave_api import MAX_REMEMBERED_CHARACTERS
from ostiary.session import ParsedSession, parse_session, with_creator
from ostiary.store import Head

_numbers = count()

SESSION = """
name: NAME
version: "0.3.10"
security:
  attestation:
    tolerate: TOLERATE
services:
- name: web
  image_name: image
  attestation: ATTESTATION
  command: server --name "a b" @@2 $$SCONE::token$$
  pwd: /srv
  environment:
    GREETING: hello
    TOKEN: "<$$SCONE::token$$>"
    \\@\\@HOME: ""
images:
- name: image
  injection_files:
  - path: /app/cert.pem
    content: $$SCONE::cert:crt$$
  - path: /app/key.pem
    content: $$SCONE::cert:privatekey$$
    permission: 0o400
  - path: /app/template
    content: |
      {"literal": "$$SCONE::looks-like-one$$"}
secrets:
- {name: token, kind: ascii}
- {name: looks-like-one, kind: ascii, value: "$$SCONE::token$$"}
- {name: ca_key, kind: private-key}
- {name: ca, kind: x509-ca, private_key: ca_key, export_public: true}
- {name: key, kind: private-key}
- {name: cert, kind: x509, private_key: key, issuer: ca, dns: localhost, endpoint: server, VALID}
"""
MEASUREMENT = f"[{{mrenclave: ['{MR_ENCLAVE.hex()}']}}]"


@pytest.fixture(scope="module")
def platform() -> SgxPlatform:
    return make_platform()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, platform: SgxPlatform) -> Iterator[RunningService]:
    """A service that trusts the platform of these tests; its clock stands at the time of their evidence."""
    directory = tmp_path_factory.mktemp("attested") / "data"
    with running_service(directory, roots=(platform.software_root,), fixed_time=NOW) as running:
        yield running


@pytest.fixture(autouse=True)
def _on_time(service: RunningService) -> Iterator[None]:
    yield
    service.clock.ahead = timedelta(0)


@pytest.fixture
def program(service: RunningService, eve: Client) -> Iterator[AttestingProgram]:
    with attesting(service, eve) as attesting_program:
        yield attesting_program


@pytest.fixture
def session(service: RunningService, alice: Client) -> Callable[..., str]:
    """Upload a session of a new name; the id of its service."""

    def upload(attestation: str = MEASUREMENT, tolerate: str = "[debug-mode]", valid: str = "migrate: x") -> str:
        name = f"start-{next(_numbers)}"
        text = SESSION.replace("NAME", name).replace("ATTESTATION", attestation).replace("TOLERATE", tolerate)
        text = text.replace(", VALID", "" if valid == "migrate: x" else f", {valid}")
        answer = alice.request(service.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return f"{name}/web"

    return upload


def decoded(member: dict[str, str]) -> bytes:
    return base64.b64decode(member["value"])


def test_an_admitted_program_receives_its_whole_configuration(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    answer = program.start(platform, session())
    assert answer.status == 200
    body = answer.body
    assert set(body) == {"session_hash", "argv", "environment", "pwd", "injection_files", "file_templates"}
    assert [decoded(word) for word in body["argv"][:3]] == [b"server", b"--name", b"a b"]
    assert body["argv"][3] == {"host_argument": 2}
    token = decoded(body["argv"][4])
    assert len(token) == 20
    assert list(body["environment"]) == ["GREETING", "TOKEN", "HOME"]
    assert decoded(body["environment"]["TOKEN"]) == b"<" + token + b">"
    assert body["environment"]["HOME"] == {"host_variable": "HOME"}
    assert body["pwd"] == "/srv"
    files = {file["path"]: file for file in body["injection_files"]}
    assert files["/app/key.pem"]["permission"] == 0o400
    assert files["/app/cert.pem"]["permission"] == 0o700
    certificate = x509.load_pem_x509_certificate(base64.b64decode(files["/app/cert.pem"]["content"]))
    assert certificate.subject.rfc4514_string() == "CN=localhost"


def test_a_value_that_looks_like_a_placeholder_is_not_replaced_again(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    files = program.start(platform, session()).body["injection_files"]
    content = next(base64.b64decode(file["content"]) for file in files if file["path"] == "/app/template")
    assert json.loads(content) == {"literal": "$$SCONE::token$$"}


def test_every_start_of_a_version_receives_the_same_secrets(
    service: RunningService, alice: Client, eve: Client, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    service_id = session()
    answers = []
    for client in (alice, eve):
        with attesting(service, client) as program:
            answers.append(program.start(platform, service_id).body)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("factors", [
    f"{{mrsigner: '{MR_SIGNER.hex()}', isvprodid: 7}}",
    f"{{mrsigner: '{MR_SIGNER.hex()}', isvprodid: 7, isvsvn: 3}}",
    f"{{mrsigner: '{MR_SIGNER.hex()}', isvprodid: 7, isvsvn_min: 2}}",
])  # fmt: skip
def test_a_program_is_admitted_by_its_signer(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str], factors: str
) -> None:
    assert program.start(platform, session(attestation=f"{{signer: {factors}}}")).status == 200


def refused(answer: Answer, *words: str) -> str:
    """The answer must be a denial whose text has all these words; its id."""
    assert answer.status == 403, answer.body
    assert set(answer.body) == {"msg", "denial", "version"}
    text = " ".join(answer.body["msg"])
    for word in words:
        assert word in text
    return str(answer.body["denial"])


def test_another_program_is_refused_and_only_the_log_says_what_was_expected(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = "ab" * 32
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"):
        answer = program.start(platform, session(attestation=f"[{{mrenclave: ['{expected}']}}]"))
    denial = refused(answer, "mrenclave", MR_ENCLAVE.hex(), "is not admitted")
    assert expected not in json.dumps(answer.body)
    assert f"denial {denial}" in caplog.text
    assert f"expected {expected}" in caplog.text


def test_another_signer_is_refused(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    wanted = f"{{signer: {{mrsigner: '{'cd' * 32}', isvprodid: 7}}}}"
    refused(program.start(platform, session(attestation=wanted)), "signer.mrsigner", MR_SIGNER.hex())


def test_an_older_version_of_the_program_is_refused(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    wanted = f"{{signer: {{mrsigner: '{MR_SIGNER.hex()}', isvprodid: 7, isvsvn_min: 4}}}}"
    refused(program.start(platform, session(attestation=wanted)), "signer.isvsvn: 3 is not admitted")


@pytest.mark.parametrize(("platform_id", "status"), [("0" * 32, 200), ("ab" * 16, 403)])
def test_a_service_that_names_platforms_starts_on_them_only(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str], platform_id: str, status: int
) -> None:
    """The platform of these tests names itself by zeros."""
    attestation = f"{MEASUREMENT}\n  platforms: ['INTEL_QE_ID:{platform_id}']"
    answer = program.start(platform, session(attestation=attestation))
    assert answer.status == status, answer.body
    if status == 403:
        refused(answer, "platforms: INTEL_QE_ID:" + "0" * 32 + " is not admitted")


def test_an_unknown_root_is_refused(program: AttestingProgram, session: Callable[..., str]) -> None:
    """Nothing built in trusts a software platform; another one than the owner named does not count."""
    refused(
        program.start(make_platform(), session()), "a root that this service does not trust", "--trust-software-root"
    )


def test_a_software_platform_that_the_session_does_not_tolerate_is_refused(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    answer = program.start(platform, session(tolerate="[hyperthreading]"))
    refused(answer, "software platform, which protects nothing is not admitted")


def test_a_nonce_that_was_never_given_is_refused(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    nonce = b"n" * 32
    quote = platform.quote(report_data=program.binding(nonce))
    refused(program.configure(nonce, quote, platform.collateral(), session()), "nonce is unknown")


def test_evidence_for_another_nonce_is_refused(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    quote = platform.quote(report_data=program.binding(program.challenge()))
    answer = program.configure(program.challenge(), quote, platform.collateral(), session())
    refused(answer, "another nonce or another connection")


def test_a_nonce_is_spent_by_its_first_use(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    nonce, service_id = program.challenge(), session()
    quote = platform.quote(report_data=program.binding(nonce))
    assert program.configure(nonce, quote, platform.collateral(), service_id).status == 200
    refused(program.configure(nonce, quote, platform.collateral(), service_id), "was used before")


def test_a_nonce_is_spent_by_a_refused_start_too(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    nonce, service_id = program.challenge(), session()
    refused(program.configure(nonce, b"", b"", service_id))
    quote = platform.quote(report_data=program.binding(nonce))
    refused(program.configure(nonce, quote, platform.collateral(), service_id), "was used before")


def test_evidence_for_another_tls_key_is_refused(
    service: RunningService,
    alice: Client,
    program: AttestingProgram,
    platform: SgxPlatform,
    session: Callable[..., str],
) -> None:
    """A genuine program's evidence, relayed over the connection of somebody who is not that program."""
    with attesting(service, alice) as genuine:
        nonce = program.challenge()
        quote = platform.quote(report_data=genuine.binding(nonce))
    answer = program.configure(nonce, quote, platform.collateral(), session())
    refused(answer, "another nonce or another connection")


def test_a_nonce_given_to_another_key_is_refused(
    service: RunningService,
    alice: Client,
    program: AttestingProgram,
    platform: SgxPlatform,
    session: Callable[..., str],
) -> None:
    with attesting(service, alice) as other:
        nonce = other.challenge()
    quote = platform.quote(report_data=program.binding(nonce))
    refused(program.configure(nonce, quote, platform.collateral(), session()), "given to another client key")


def test_an_expired_challenge_is_refused(
    service: RunningService, program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    service_id, nonce = session(), program.challenge()
    service.clock.ahead = timedelta(seconds=60)
    quote = platform.quote(report_data=program.binding(nonce))
    refused(program.configure(nonce, quote, platform.collateral(), service_id), "the challenge expired after 60 s")


def test_endorsements_that_have_run_out_are_refused(
    service: RunningService, program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    service_id = session()
    service.clock.ahead = timedelta(days=60)
    refused(program.start(platform, service_id), "run out")


@pytest.mark.parametrize("offset", [0x70, 0x1B8])
def test_a_quote_changed_in_one_bit_is_refused(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str], offset: int
) -> None:
    nonce = program.challenge()
    quote = with_byte_flipped(platform.quote(report_data=program.binding(nonce)), offset)
    refused(program.configure(nonce, quote, platform.collateral(), session()), "changed after signing")


@pytest.mark.parametrize(("quote", "endorsements"), [(b"", b"{}"), (b"\0" * 2000, b"{}"), (b"x" * 436, b"not json")])
def test_what_is_no_evidence_is_refused(
    program: AttestingProgram, session: Callable[..., str], quote: bytes, endorsements: bytes
) -> None:
    refused(program.configure(program.challenge(), quote, endorsements, session()), "quote: version at offset 0x0")


def test_no_evidence_is_refused_where_the_session_wants_some(
    program: AttestingProgram, session: Callable[..., str]
) -> None:
    answer = program.configure(program.challenge(), b"", b"", session(), tee="none")
    refused(answer, "needs evidence and the program sent none")


@pytest.mark.parametrize("service_id", ["nonesuch/web", "start-0/nonesuch"])
def test_an_unknown_session_or_service_is_not_found(
    program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str], service_id: str
) -> None:
    session()
    answer = program.start(platform, service_id)
    assert answer.status == 404
    assert answer.body["msg"][0]


def test_a_binary_secret_with_nul_bytes_cannot_become_an_argument(
    service: RunningService, alice: Client, program: AttestingProgram, platform: SgxPlatform
) -> None:
    text = f"""
name: nul
version: "0.3.10"
security: {{attestation: {{tolerate: [debug-mode]}}}}
services:
- {{name: web, attestation: {MEASUREMENT}, command: "x $$SCONE::raw$$"}}
secrets:
- {{name: raw, kind: binary, value: "610062"}}
"""
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    refused(program.start(platform, "nul/web"), "an argument would contain a NUL byte", ":hex")


def test_with_mode_none_whoever_asks_is_configured(
    service: RunningService, alice: Client, program: AttestingProgram
) -> None:
    text = b"""
name: open
version: "0.3.10"
security: {attestation: {mode: none}}
services:
- {name: web, command: "hello world", pwd: /}
"""
    assert alice.request(service.client_port, "POST", "/session", text).status == 201
    answer = program.configure(program.challenge(), b"", b"", "open/web", tee="none")
    assert answer.status == 200
    assert [decoded(word) for word in answer.body["argv"]] == [b"hello", b"world"]
    assert answer.body["injection_files"] == []


ADMINISTRATION = """
name: NAME
version: "0.3.10"
secrets:
- {name: measurements, kind: config-fragment, value: [MEASUREMENT], export: {session: NAME-app}}
- {name: security, kind: config-fragment, value: {attestation: {tolerate: [TOLERATE]}}, export: {session: NAME-app}}
"""
ADMINISTERED = """
name: NAME-app
version: "0.3.10"
security: $$SCONE::security$$
services:
- {name: web, attestation: [{mrenclave: $$SCONE::measurements$$}], command: hello}
secrets:
- {name: measurements, import: {session: NAME, secret: measurements}}
- {name: security, import: {session: NAME, secret: security}}
"""


@dataclass(frozen=True, kw_only=True)
class Administered:
    """A session that rests on another one, which `administer` uploads. service_id: of its service."""

    name: str
    upload: Callable[[str], str]

    @property
    def service_id(self) -> str:
        return f"{self.name}-app/web"

    def administer(
        self, predecessor: str = "", *, measured: str = MR_ENCLAVE.hex(), tolerate: str = "debug-mode"
    ) -> str:
        text = ADMINISTRATION.replace("NAME", self.name).replace("MEASUREMENT", f"'{measured}'")
        text = text.replace("TOLERATE", tolerate)
        return self.upload(f"{text}predecessor: {predecessor}\n" if predecessor else text)


@pytest.fixture
def administered(service: RunningService, alice: Client) -> Administered:
    def upload(text: str) -> str:
        answer = alice.request(service.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return str(answer.body["hash"])

    name = f"administered-{next(_numbers)}"
    upload(ADMINISTERED.replace("NAME", name))
    return Administered(name=name, upload=upload)


def test_a_program_is_admitted_by_what_another_session_says_now(
    program: AttestingProgram, platform: SgxPlatform, administered: Administered, caplog: pytest.LogCaptureFixture
) -> None:
    service_id = administered.service_id
    told = program.start(platform, service_id)
    refused(told, "security rests on what cannot be resolved")
    assert "$$SCONE" not in str(told.body)
    assert f"denial {told.body['denial']}: " in caplog.text
    assert "security rests on what cannot be resolved: $$SCONE::security$$: " in caplog.text
    assert "there is no session" in caplog.text
    first = administered.administer()
    assert [program.start(platform, service_id).status for _ in range(2)] == [200, 200]
    second = administered.administer(first, measured="ab" * 32)
    refused(program.start(platform, service_id), "mrenclave", "is not admitted")
    third = administered.administer(second, tolerate="hyperthreading")
    refused(program.start(platform, service_id), "tolerate: software-platform")
    administered.administer(third)
    assert program.start(platform, service_id).status == 200


def test_an_attestation_that_cannot_be_resolved_admits_nobody_and_only_the_log_says_why(
    program: AttestingProgram, platform: SgxPlatform, administered: Administered, caplog: pytest.LogCaptureFixture
) -> None:
    administered.administer(measured="not-a-measurement")
    answer = program.start(platform, administered.service_id)
    refused(answer, "mrenclave", "is not admitted")
    assert "$$SCONE::measurements$$: its value is not what the language takes" in caplog.text
    assert "not-a-measurement" not in caplog.text


def test_of_many_variables_that_cannot_be_resolved_a_few_are_named(
    service: RunningService, alice: Client, program: AttestingProgram, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"x{number:02}" for number in range(20)]
    text = f"""
name: many
version: "0.3.12"
security: {{attestation: {{tolerate: [{", ".join(f"$$SCONE::{name}$$" for name in names)}]}}}}
services: [{{name: web, attestation: {MEASUREMENT}}}]
secrets: [{", ".join(f"{{name: {name}, import: {{session: nowhere, secret: x}}}}" for name in names)}]
"""
    answer = alice.request(service.client_port, "POST", "/session", text.encode())
    assert answer.status == 201, answer.body
    told = program.configure(program.challenge(), b"", b"", "many/web")
    refused(told, "security rests on what cannot be resolved")
    assert not any(text in str(told.body) for text in ("$$SCONE", "x07", "there is no session nowhere"))
    assert "$$SCONE::x07$$, and 12 more: " in caplog.text
    assert caplog.text.count("variable $$SCONE") == 8


def test_a_token_says_which_program_it_was_made_for(
    service: RunningService, alice: Client, program: AttestingProgram, platform: SgxPlatform
) -> None:
    text = f"""
name: token
version: "0.3.12"
security: {{attestation: {{tolerate: [debug-mode]}}}}
services:
- {{name: web, attestation: {MEASUREMENT}, command: "x $$SCONE::jwt$$"}}
secrets:
- {{name: key, kind: private-key, key_type: P-384}}
- name: jwt
  kind: jwt
  signer: key
  alg: ES384
  validity: {{for: 1 h}}
  payload: {{sub: $$SCONE::self::software_identity$$}}
"""
    answer = alice.request(service.client_port, "POST", "/session", text.encode())
    assert answer.status == 201, answer.body
    token = decoded(program.start(platform, "token/web").body["argv"][1])
    payload = token.split(b".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    assert claims["sub"] == MR_ENCLAVE.hex()
    assert claims["exp"] - claims["iat"] == 3600


TEMPLATES = f"""
name: templates
version: "0.3.12"
security: {{attestation: {{tolerate: [debug-mode]}}}}
services:
- {{name: web, attestation: {MEASUREMENT}, command: x, image_name: image}}
- {{name: other, attestation: {MEASUREMENT}, command: x}}
images:
- {{name: image, injection_files: [{{path: /etc/app.conf, permission: 0o440}}], provide_secrets: [token]}}
secrets:
- {{name: token, kind: ascii, value: T0KEN}}
- {{name: hidden, kind: ascii}}
"""


@pytest.fixture(scope="module")
def templates(service: RunningService, alice: Client) -> str:
    answer = alice.request(service.client_port, "POST", "/session", TEMPLATES.encode())
    assert answer.status == 201, answer.body
    return "templates/web"


def render(program: AttestingProgram, template: bytes, path: str = "/etc/app.conf") -> Answer:
    return program.post("/v1/render", {"path": path, "content": base64.b64encode(template).decode()})


def test_a_template_is_rendered_on_the_connection_that_was_configured(
    program: AttestingProgram, platform: SgxPlatform, templates: str
) -> None:
    body = program.start(platform, templates).body
    assert body["file_templates"] == [{"path": "/etc/app.conf", "permission": 0o440}]
    answer = render(program, b"<$$SCONE::token$$>" + b" " * 1024 * 1000)
    assert answer.status == 200, answer.body
    assert set(answer.body) == {"content"}
    assert base64.b64decode(answer.body["content"]).strip() == b"<T0KEN>"


def test_a_template_is_rendered_on_no_other_connection(
    service: RunningService, eve: Client, program: AttestingProgram, platform: SgxPlatform, templates: str
) -> None:
    """Not even on another one of the same client key."""
    with attesting(service, eve) as other:
        for step in (lambda: None, lambda: program.start(platform, templates)):
            step()
            answer = render(other, b"$$SCONE::token$$")
            assert (answer.status, "no configuration was released on this connection" in answer.body["msg"][0]) == (
                403, True,
            )  # fmt: skip


def test_what_a_refused_or_other_start_leaves_is_not_rendered(
    program: AttestingProgram, platform: SgxPlatform, templates: str
) -> None:
    program.start(platform, templates)
    assert program.configure(program.challenge(), b"", b"", templates, tee="none").status == 403
    assert "no configuration was released" in render(program, b"$$SCONE::token$$").body["msg"][0]
    program.start(platform, "templates/other")
    answer = render(program, b"$$SCONE::token$$")
    assert (answer.status, "no template of this service" in answer.body["msg"][0]) == (400, True)


def test_a_secret_that_is_not_provided_is_refused_with_file_and_placeholder(
    program: AttestingProgram, platform: SgxPlatform, templates: str
) -> None:
    program.start(platform, templates)
    refused(render(program, b"$$SCONE::hidden$$"), "file '/etc/app.conf'", "$$SCONE::hidden$$", "provide_secrets")


@pytest.mark.parametrize(("body", "status", "message"), [
    (b"{", 400, "not JSON"), (b'{"path": "/f"}', 400, "exactly the members content, path"),
    (b'{"path": "/f", "content": 1}', 400, "'content' must be text"),
    (b'{"path": "/etc/app.conf", "content": "*"}', 400, "'content' is not base64"),
    (b" " * (1536 * 1024 + 1), 413, "more than 1572864 bytes"),
])  # fmt: skip
def test_a_malformed_template_is_refused(
    program: AttestingProgram, platform: SgxPlatform, templates: str, body: bytes, status: int, message: str
) -> None:
    program.start(platform, templates)
    answer = exchange(program.connection, "POST", "/v1/render", body)  # type: ignore[arg-type]
    assert (answer.status, message in answer.body["msg"][0]) == (status, True), answer.body


def test_a_certificate_that_is_due_is_renewed_at_the_next_start_and_kept(
    service: RunningService, program: AttestingProgram, platform: SgxPlatform, session: Callable[..., str]
) -> None:
    service_id = session(valid="valid_for: 30 days")

    def certificate() -> x509.Certificate:
        files = program.start(platform, service_id).body["injection_files"]
        return x509.load_pem_x509_certificate(base64.b64decode(files[0]["content"]))

    first = certificate()
    assert certificate() == first
    service.clock.ahead = timedelta(days=21)
    second = certificate()
    assert second.serial_number != first.serial_number
    assert second.public_key() == first.public_key()
    assert certificate() == second


def test_a_release_is_written_down_before_it_is_made(
    service: RunningService,
    program: AttestingProgram,
    platform: SgxPlatform,
    session: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the store has not said that the entry is durable, nothing is answered; then exactly one entry is there."""
    service_id, store = session(), service.cas.store
    before, commit, durable, asked = store.head.log_size, store.commit, threading.Event(), threading.Event()

    def held_back(*arguments: Any, **named: Any) -> Future[Head]:
        promised: Future[Head] = Future()

        def finish() -> None:
            asked.set()
            durable.wait(60)
            promised.set_result(commit(*arguments, **named).result())

        threading.Thread(target=finish).start()
        return promised

    monkeypatch.setattr(store, "commit", held_back)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(program.start, platform, service_id)
        assert asked.wait(60)
        assert not answer.done()
        durable.set()
        assert answer.result().status == 200
    assert store.head.log_size == before + 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_session_that_changes_while_its_evidence_is_judged_is_judged_anew(
    service: RunningService,
    alice: Client,
    program: AttestingProgram,
    platform: SgxPlatform,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    """A program that only the old version admits never gets the secrets of the new one."""
    name = f"race-{times}"
    old = f"""
name: {name}
version: "0.3.10"
security: {{attestation: {{tolerate: [debug-mode]}}}}
services:
- {{name: web, attestation: {MEASUREMENT}, command: "x $$SCONE::token$$"}}
secrets:
- {{name: token, kind: ascii, value: old-token}}
"""
    uploaded = alice.request(service.client_port, "POST", "/session", old.encode())
    new = old.replace(MR_ENCLAVE.hex(), "ab" * 32).replace("old-token", "new-token")
    new += f"predecessor: '{uploaded.body['hash']}'\n"
    assert alice.certificate is not None
    certificate = alice.certificate.read_text()
    verify, left = service.cas.verifier.verify, [times]

    def meanwhile(*arguments: Any, **named: Any) -> Claims:
        claims = verify(*arguments, **named)
        if left[0]:
            left[0] -= 1
            _replace(service, with_creator(parse_session(new), certificate))
        return claims

    monkeypatch.setattr(service.cas.verifier, "verify", meanwhile)
    refused(program.start(platform, f"{name}/web"), "mrenclave", "is not admitted")


def _replace(service: RunningService, parsed: ParsedSession) -> None:
    """Make `parsed` the current version at once, as another process of the service might, with values of its own."""
    record = service.cas.store.version(f"session/{parsed.session.name}") or 0
    stored = StoredSession(parsed=parsed, creator=None, values={}, record=record)
    values = generate(
        parsed.session, previous={}, previous_session=None, random=service.cas.random, now=service.cas.now()
    )
    entry_now = entry(Kind.SESSION_UPDATED, {"session": parsed.session.name}, service.cas.now(), os.urandom)
    service.cas.store.commit([values_write(stored, values)], entry_now).result()


def test_a_refused_start_changes_nothing_of_the_session(
    service: RunningService, program: AttestingProgram, session: Callable[..., str]
) -> None:
    service_id = session()
    record = f"session/{service_id.removesuffix('/web')}"
    before = service.cas.store.version(record)
    refused(program.start(make_platform(), service_id))
    assert service.cas.store.version(record) == before


def test_without_client_certificate_there_is_no_challenge(service: RunningService) -> None:
    answer = Client().request(service.enclave_port, "POST", "/v1/challenge")
    assert answer.status == 401
    assert "no client certificate" in answer.body["msg"][0]


GOOD = {"service": "a/b", "nonce": "00" * 32, "tee": "sgx", "evidence": "", "endorsements": ""}
MALFORMED = {
    "no JSON": (b"{", "not JSON"),
    "nested too deep": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "exactly the members"),
    "a missing member": (
        json.dumps({**GOOD, "tee": None} | {"tee": "sgx"}).replace('"tee": "sgx", ', "").encode(),
        "exactly",
    ),
    "an unknown member": (json.dumps({**GOOD, "more": ""}).encode(), "exactly the members"),
    "a number": (json.dumps({**GOOD, "nonce": 1}).encode(), "'nonce' must be text"),
    "another TEE": (json.dumps({**GOOD, "tee": "abacus"}).encode(), "'tee' is 'abacus'"),
    "no service": (json.dumps({**GOOD, "service": "only-a-session"}).encode(), "expected SESSION/SERVICE"),
    "a line feed in the service": (json.dumps({**GOOD, "service": "a/b\nc"}).encode(), "expected SESSION/SERVICE"),
    "a short nonce": (json.dumps({**GOOD, "nonce": "00"}).encode(), "64 hex digits"),
    "a nonce that is no hex": (json.dumps({**GOOD, "nonce": "zz" * 32}).encode(), "64 hex digits"),
    "no base64 of endorsements": (json.dumps({**GOOD, "endorsements": "*"}).encode(), "'endorsements' is not base64"),
    "much that is none": (
        json.dumps({**GOOD, "endorsements": "*" * (MAX_REMEMBERED_CHARACTERS + 1)}).encode(),
        "'endorsements' is not base64",
    ),
    "no base64": (json.dumps({**GOOD, "evidence": "*"}).encode(), "'evidence' is not base64"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_is_refused(service: RunningService, eve: Client, case: str) -> None:
    body, message = MALFORMED[case]
    answer = eve.request(service.enclave_port, "POST", "/v1/configure", body)
    assert answer.status == 400
    assert message in answer.body["msg"][0]


def test_a_request_over_the_bound_is_refused(service: RunningService, eve: Client) -> None:
    answer = eve.request(service.enclave_port, "POST", "/v1/configure", b" " * (1024 * 1024 + 1))
    assert answer.status == 413


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/v1/challenge", 405), ("POST", "/session", 404), ("POST", "/", 404),
])  # fmt: skip
def test_the_enclave_api_offers_nothing_else(
    service: RunningService, eve: Client, method: str, path: str, status: int
) -> None:
    answer = eve.request(service.enclave_port, method, path)
    assert answer.status == status
    assert answer.body["msg"][0]


def test_trouble_of_the_service_is_told_without_its_inside(tmp_path: Path, eve: Client, platform: SgxPlatform) -> None:
    with running_service(tmp_path / "data", roots=(platform.software_root,), fixed_time=NOW) as broken:
        broken.cas.store.close()
        with attesting(broken, eve) as program:
            answer = program.start(platform, "a/b")
        assert answer.status == 503
        assert answer.body["msg"] == ["the service cannot do this now; its log says why, and nothing was changed"]
        connection = eve.connect(broken.client_port)
        assert exchange(connection, "GET", "/session/x").status == 503
        connection.close()
