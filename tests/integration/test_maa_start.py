"""Mode maa on real mTLS: a token of an attestation service in place of a quote, and every way to be refused."""

from __future__ import annotations

import base64
import contextlib
import logging
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.simulators.azure import Azure
from tests.simulators.canned import answer
from tests.simulators.maa import AttestationService
from tests.simulators.outside import LOOPBACK, make_certificate
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, MR_SIGNER, NOW, SgxPlatform, make_platform

from ostiary.broker.key_sets import ASK_AT_MOST_EVERY, KEY_SET_LIFE, MAX_KEY_SETS, Trust, _Entry

_numbers = count()
SESSION = """
name: NAME
version: "0.3.12"
security:
  attestation:
    mode: maa
    url: URL
    tolerate: [TOLERATE]
CERTIFICATES
services:
- name: app
  attestation: ATTESTATION
  PLATFORMS
  command: "app $$SCONE::word$$"
secrets:
- {name: word, kind: ascii, value: released}
"""
REFUSED_KEYS = "the keys of the session's attestation service cannot be had"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Azure]:
    azure = Azure(tmp_path)
    yield azure
    azure.server.close()


@pytest.fixture
def maa(azure: Azure) -> AttestationService:
    """Listens with TLS; its answer to GET /certs is its key set."""
    service = AttestationService(issuer=azure.server.url)
    serve_keys(azure, service)
    return service


def serve_keys(azure: Azure, maa: AttestationService) -> None:
    azure.certs = lambda: answer(200, maa.key_set())


@pytest.fixture
def service(tmp_path: Path, azure: Azure) -> Iterator[RunningService]:
    """Trusts no root at all, and the simulated Azure's servers."""
    with running_service(tmp_path / "data", fixed_time=NOW, azure=azure.cloud) as running:
        yield running


@pytest.fixture
def program(service: RunningService, eve: Client) -> Iterator[AttestingProgram]:
    with attesting(service, eve) as attesting_program:
        yield attesting_program


Upload = Callable[..., str]


@pytest.fixture
def upload(service: RunningService, alice: Client, azure: Azure) -> Upload:
    """Upload a session of a new name; the id of its service."""

    def made(
        url: str | None = None,
        tolerate: str = "maa-managed-tcb",
        attestation: str = f"{{mrenclave: '{MR_ENCLAVE.hex()}'}}",
        certificates: str = "",
        platforms: str = "",
    ) -> str:
        name = f"maa-{next(_numbers)}"
        text = SESSION.replace("NAME", name).replace("URL", url or azure.server.url).replace("TOLERATE", tolerate)
        text = text.replace("ATTESTATION", attestation).replace("PLATFORMS", platforms)
        listed = f"    certificates:\n    - |\n{textwrap.indent(certificates, '      ')}" if certificates else ""
        answered = alice.request(service.client_port, "POST", "/session", text.replace("CERTIFICATES", listed).encode())
        assert answered.status == 201, answered.body
        return f"{name}/app"

    return made


def start(program: AttestingProgram, maa: AttestationService, service_id: str, **others: Any) -> Answer:
    """As an honest program does it, but for what `others` say of the token."""
    nonce = program.challenge()
    token = maa.token(**{"report_data": program.binding(nonce), **others})
    return program.configure(nonce, token, b"", service_id, tee="maa")


def admitted(started: Answer) -> None:
    assert started.status == 200, started.body
    assert base64.b64decode(started.body["argv"][1]["value"]) == b"released"


def refused(started: Answer, *words: str) -> None:
    assert started.status == 403, started.body
    text = " ".join(started.body["msg"])
    for word in words:
        assert word in text


def certs_asked(azure: Azure) -> int:
    assert {asked.path for asked in azure.asked} <= {"/certs"}
    return len(azure.asked)


def test_f195_a_program_that_the_attestation_service_vouches_for_is_admitted(
    azure: Azure, maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    """F195: with url and maa-managed-tcb."""
    admitted(start(program, maa, upload()))
    assert certs_asked(azure) == 1


@pytest.mark.parametrize("tolerate", ["", "debug-mode", "outdated-tcb"])
def test_f195_without_its_toleration_it_is_refused(
    maa: AttestationService, program: AttestingProgram, upload: Upload, tolerate: str
) -> None:
    """F195: accepted at upload with a warning, refused at the start."""
    refused(start(program, maa, upload(tolerate=tolerate)), "tolerate: maa-managed-tcb: TCB status MaaManaged")


@pytest.mark.parametrize(
    ("attestation", "factor"),
    [
        (f"{{mrenclave: '{'ab' * 32}'}}", "mrenclave: "),
        (f"{{signer: {{mrsigner: '{'ab' * 32}', isvprodid: 7}}}}", "signer.mrsigner: "),
        (f"{{signer: {{mrsigner: '{MR_SIGNER.hex()}', isvprodid: 8}}}}", "signer.isvprodid: 7 is not admitted"),
        (f"{{signer: {{mrsigner: '{MR_SIGNER.hex()}', isvprodid: 7, isvsvn_min: 4}}}}", "signer.isvsvn: 3"),
    ],
)
def test_f196_a_wrong_program_is_refused_though_azure_agrees(
    maa: AttestationService, program: AttestingProgram, upload: Upload, attestation: str, factor: str
) -> None:
    """F196: the session's measurements count as well."""
    refused(start(program, maa, upload(attestation=attestation)), factor)


def test_f196_a_debug_enclave_is_refused_though_azure_agrees(
    maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    """F196: the session's rule on debug mode counts as well."""
    refused(start(program, maa, upload(), x_ms_sgx_is_debuggable=True), "tolerate: debug-mode: a debug enclave")
    admitted(start(program, maa, upload(tolerate="maa-managed-tcb, debug-mode"), x_ms_sgx_is_debuggable=True))


def test_f090_platforms_have_no_effect(maa: AttestationService, program: AttestingProgram, upload: Upload) -> None:
    """F090: a token names no platform."""
    admitted(start(program, maa, upload(platforms=f"platforms: ['INTEL_QE_ID:{'ab' * 16}']")))


def test_a_token_for_another_connection_is_refused(
    service: RunningService, alice: Client, maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    """Somebody else's token, relayed; and one for an older nonce."""
    service_id = upload()
    with attesting(service, alice) as genuine:
        nonce = program.challenge()
        refused(start(program, maa, service_id, report_data=genuine.binding(nonce)), "another nonce or another")
    refused(start(program, maa, service_id, report_data=program.binding(nonce)), "another nonce or another connection")
    admitted(start(program, maa, service_id))


def test_report_data_must_be_whole(maa: AttestationService, program: AttestingProgram, upload: Upload) -> None:
    """Half of the binding, as a token about a hash of other data would have it, is not the binding."""
    nonce = program.challenge()
    half = program.binding(nonce)[:32] + bytes(32)
    answered = program.configure(nonce, maa.token(report_data=half), b"", upload(), tee="maa")
    refused(answered, "another nonce or another connection")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"issued": NOW - timedelta(hours=8)}, "the token ended at"),
        ({"issued": NOW + timedelta(minutes=2)}, "the token begins at"),
        ({"iss": "https://sharedweu.weu.attest.azure.net"}, "is not the attestation service of the session"),
        ({"x_ms_attestation_type": "azurevm"}, "of x-ms-attestation-type 'azurevm', expected 'sgx'"),
        ({"x_ms_sgx_report_data": None}, "x-ms-sgx-report-data is missing"),
        ({"algorithm": "RS512"}, "not signed with RS256"),
        ({"headers": {"kid": "another"}}, "the key 'another' that signed the token is none of"),
    ],
)
def test_a_token_that_is_not_authentic_is_refused(
    maa: AttestationService, program: AttestingProgram, upload: Upload, others: dict[str, object], words: str
) -> None:
    refused(start(program, maa, upload(), **others), words)


def test_the_token_of_another_service_is_refused_and_its_jku_is_not_followed(
    azure: Azure, maa: AttestationService, program: AttestingProgram, upload: Upload, tmp_path: Path
) -> None:
    (tmp_path / "evil").mkdir()
    evil = Azure(tmp_path / "evil")
    other = AttestationService(issuer=azure.server.url, key_id=maa.key_id)
    serve_keys(evil, other)
    refused(start(program, other, upload(), headers={"jku": f"{evil.server.url}/certs"}), "not signed with RS256")
    assert evil.asked == []
    evil.server.close()


@pytest.mark.parametrize("evidence", [b"", b"a.b", b"\xff" * 40, b"." * 40_000])
def test_what_is_no_token_is_refused_before_anybody_is_asked(
    azure: Azure, program: AttestingProgram, upload: Upload, evidence: bytes
) -> None:
    refused(program.configure(program.challenge(), evidence, b"", upload(), tee="maa"), "MAA token")
    assert certs_asked(azure) == 0


@pytest.mark.parametrize(
    ("tee", "words"),
    [("none", "the program sent none"), ("sgx", "needs evidence of kind maa, and the program sent sgx")],
)
def test_other_evidence_is_refused(program: AttestingProgram, upload: Upload, tee: str, words: str) -> None:
    refused(program.configure(program.challenge(), b"", b"", upload(), tee=tee), words)


def test_a_session_that_wants_hardware_takes_no_token(
    service: RunningService, alice: Client, maa: AttestationService, program: AttestingProgram
) -> None:
    text = f"""
name: hardware
version: "0.3.12"
security: {{attestation: {{tolerate: [maa-managed-tcb, debug-mode]}}}}
services:
- {{name: app, attestation: {{mrenclave: '{MR_ENCLAVE.hex()}'}}, command: x}}
"""
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    refused(
        start(program, maa, "hardware/app"),
        "needs evidence of kind sgx or tdx or snp or nitro or tpm, and the program sent maa",
    )


def test_a_token_is_no_quote(tmp_path: Path, alice: Client, eve: Client, azure: Azure, maa: AttestationService) -> None:
    """A genuine quote of a trusted platform does not stand for the token that the session wants."""
    platform: SgxPlatform = make_platform()
    (tmp_path / "other").mkdir()
    roots = (platform.software_root,)
    with running_service(tmp_path / "other" / "data", roots=roots, fixed_time=NOW, azure=azure.cloud) as running:
        text = SESSION.replace("NAME", "quoted").replace("URL", maa.issuer).replace("CERTIFICATES", "")
        text = text.replace("TOLERATE", "maa-managed-tcb, debug-mode").replace("PLATFORMS", "")
        text = text.replace("ATTESTATION", f"{{mrenclave: '{MR_ENCLAVE.hex()}'}}")
        assert alice.request(running.client_port, "POST", "/session", text.encode()).status == 201
        with attesting(running, eve) as program:
            refused(program.start(platform, "quoted/app"), "needs evidence of kind maa, and the program sent sgx")


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_asked_for_once_and_kept_for_an_hour(
    azure: Azure, service: RunningService, maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    service_id = upload()
    for _ in range(3):
        admitted(start(program, maa, service_id))
    assert certs_asked(azure) == 1
    service.clock.ahead = KEY_SET_LIFE - timedelta(seconds=1)
    admitted(start(program, maa, service_id))
    assert certs_asked(azure) == 1
    service.clock.ahead = KEY_SET_LIFE
    admitted(start(program, maa, service_id))
    assert certs_asked(azure) == 2


def test_programs_that_start_at_once_have_the_keys_asked_for_once(
    azure: Azure, service: RunningService, maa: AttestationService, upload: Upload, alice: Client, eve: Client
) -> None:
    """And a start that needs none does not wait for them."""
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> bytes:
        asked.set()
        go_on.wait(60)
        return answer(200, maa.key_set())

    azure.certs = slow
    service_id, other_id = upload(), upload()
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(attesting(service, client)) for client in (alice, eve, alice, eve)]
        pool = stack.enter_context(ThreadPoolExecutor(len(programs)))
        started = [pool.submit(start, program, maa, service_id) for program in programs]
        assert asked.wait(60)
        with attesting(service, alice) as quick:
            refused(quick.configure(quick.challenge(), b"", b"", other_id, tee="none"), "the program sent none")
        go_on.set()
        for program in started:
            admitted(program.result())
    assert certs_asked(azure) == 1


def test_a_withdrawn_key_counts_no_longer_than_that(
    azure: Azure, service: RunningService, maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    service_id = upload()
    admitted(start(program, maa, service_id))
    serve_keys(azure, AttestationService(issuer=maa.issuer, key_id="new"))
    service.clock.ahead = KEY_SET_LIFE
    refused(start(program, maa, service_id), "is none of the attestation service's")


def test_a_new_key_is_asked_for_but_not_too_often(
    azure: Azure, service: RunningService, maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    service_id = upload()
    admitted(start(program, maa, service_id))
    new = AttestationService(issuer=maa.issuer, key_id="new")
    serve_keys(azure, new)
    for _ in range(3):
        refused(start(program, new, service_id), "the key 'new' that signed the token is none of")
    assert certs_asked(azure) == 1
    service.clock.ahead = ASK_AT_MOST_EVERY
    admitted(start(program, new, service_id))
    for _ in range(3):
        refused(start(program, maa, service_id, headers={"kid": "invented"}), "is none of the attestation service's")
    assert certs_asked(azure) == 2


def test_while_the_keys_are_fresh_a_service_that_fails_does_no_harm(
    azure: Azure, service: RunningService, maa: AttestationService, program: AttestingProgram, upload: Upload
) -> None:
    service_id = upload()
    admitted(start(program, maa, service_id))
    azure.certs = lambda: answer(500, {})
    service.clock.ahead = ASK_AT_MOST_EVERY
    refused(start(program, maa, service_id, headers={"kid": "invented"}), "is none of the attestation service's")
    admitted(start(program, maa, service_id))
    assert certs_asked(azure) == 2
    service.clock.ahead = KEY_SET_LIFE
    refused(start(program, maa, service_id), REFUSED_KEYS)


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (answer(404, {}), "/certs answered with status 404"),
        (answer(200, b"hunter2"), "MAA key set: not JSON"),
        (answer(200, {"keys": {}}), "MAA key set: keys is no list"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b" " * 300_000, "answers with more than 262144 bytes"),
        (b"", "does not answer"),
        (answer(302, {}), "status 302"),
    ],
)
def test_without_keys_nobody_is_admitted_and_only_the_log_says_why(
    azure: Azure,
    service: RunningService,
    maa: AttestationService,
    program: AttestingProgram,
    upload: Upload,
    caplog: pytest.LogCaptureFixture,
    said: bytes,
    logged: str,
) -> None:
    azure.certs = lambda: said
    service_id = upload()
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"):
        answered = start(program, maa, service_id)
    refused(answered, REFUSED_KEYS)
    assert answered.body["msg"] == [
        REFUSED_KEYS,
        "ask those who may read the session; the service's log has the reason",
    ]
    assert logged in caplog.text
    refused(start(program, maa, service_id), REFUSED_KEYS)
    assert certs_asked(azure) == 1
    serve_keys(azure, maa)
    service.clock.ahead = ASK_AT_MOST_EVERY
    admitted(start(program, maa, service_id))


def test_the_certificates_of_the_session_say_whom_to_believe(
    azure: Azure, maa: AttestationService, program: AttestingProgram, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    """They count in place of those that the owner of the service trusts, and for this session alone."""
    admitted(start(program, maa, upload()))
    stranger = make_certificate(LOOPBACK)[1]
    refused(start(program, maa, upload(certificates=stranger)), REFUSED_KEYS)
    assert "127.0.0.1 does not prove its name" in caplog.text
    admitted(start(program, maa, upload(certificates=azure.server.certificate)))
    assert certs_asked(azure) == 2


def test_an_attestation_service_must_prove_its_name(
    tmp_path: Path, program: AttestingProgram, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "named").mkdir()
    other = Azure(tmp_path / "named", x509.DNSName("t.r.attest.azure.net"))
    maa = AttestationService(issuer=other.server.url)
    serve_keys(other, maa)
    service_id = upload(url=maa.issuer, certificates=other.server.certificate)
    refused(start(program, maa, service_id), REFUSED_KEYS)
    assert "127.0.0.1 does not prove its name: IP address mismatch" in caplog.text
    other.server.close()


def test_the_least_recently_used_keys_are_forgotten(
    service: RunningService, maa: AttestationService, program: AttestingProgram, upload: Upload, azure: Azure
) -> None:
    """What was kept for one session is asked for again after MAX_KEY_SETS others."""
    service_id = upload()
    admitted(start(program, maa, service_id))
    for number in range(MAX_KEY_SETS):
        service.cas.key_sets._remember(Trust(url=f"https://{number}.example"), _Entry())
    admitted(start(program, maa, service_id))
    assert certs_asked(azure) == 2


def test_the_audit_log_names_the_service_that_vouched(
    service: RunningService,
    maa: AttestationService,
    program: AttestingProgram,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves: list[bytes] = []
    commit = service.cas.store.commit

    def seen(writes: Any, leaf: bytes, **named: Any) -> Any:
        leaves.append(leaf)
        return commit(writes, leaf, **named)

    service_id = upload()
    monkeypatch.setattr(service.cas.store, "commit", seen)
    admitted(start(program, maa, service_id))
    assert maa.issuer.encode() in leaves[0]
    assert b"maa-managed-tcb" in leaves[0]
