"""One-time passwords and access tokens beside evidence, on real mTLS: in which order, and what each refusal costs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import pytest
from tests.simulators.authenticator import SECRET_BASE32, password_at, wrong_password
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, NOW, SgxPlatform, make_platform

from ostiary.attester.binding import CLIENT, SERVER
from ostiary.broker.access_token import prove_token

_numbers = count()

TOKEN = "wC2YkzR0pQ7mVbT4xL9e"
USED = "A One-time Password was already used within this time-step. Please try again in the next time-step"
WRONG = "The given One-time Password is invalid. Please try again."


@pytest.fixture(scope="module")
def platform() -> SgxPlatform:
    return make_platform()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, platform: SgxPlatform) -> Iterator[RunningService]:
    directory = tmp_path_factory.mktemp("second-factors") / "data"
    with running_service(directory, roots=(platform.software_root,), fixed_time=NOW) as running:
        yield running


@pytest.fixture(autouse=True)
def _on_time(service: RunningService) -> Iterator[None]:
    yield
    service.clock.ahead = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who starts the genuine program on the genuine platform, with what he knows."""

    program: AttestingProgram
    platform: SgxPlatform

    def start(self, service_id: str, *, token: str | None = None, genuine: bool = True, tee: str = "sgx") -> Answer:
        """genuine: False takes the wrong evidence."""
        nonce = self.program.challenge()
        quote = self.platform.quote(report_data=self.program.binding(nonce if genuine else b"m" * 32))
        more = {}
        if token is not None:
            more["access_token_proof"] = prove_token(token, CLIENT, **self.ends(nonce)).hex()
        answer = self.program.configure(nonce, quote, self.platform.collateral(), service_id, tee, **more)
        if token is not None and answer.status == 200:
            assert answer.body["access_token_proof"] == prove_token(token, SERVER, **self.ends(nonce)).hex()
        return answer

    def ends(self, nonce: bytes) -> dict[str, bytes]:
        return {
            "nonce": nonce,
            "client_spki": self.program.client_spki,
            "server_spki": self.program.server_spki,
        }


@pytest.fixture
def person(service: RunningService, eve: Client, platform: SgxPlatform) -> Iterator[Person]:
    with attesting(service, eve) as program:
        yield Person(program=program, platform=platform)


@pytest.fixture
def session(service: RunningService, alice: Client) -> Callable[[str, str], str]:
    """Upload a session with these members of `security` and of its attestation; the id of its service."""

    def upload(members: str = "", attestation: str = "") -> str:
        name = f"second-{next(_numbers)}"
        text = (
            f'name: {name}\nversion: "0.3.11"\nsecurity: {{{members} attestation: {{tolerate: [debug-mode,'
            f" local-attestation-trust-cas-tcb]{attestation}}}}}\n"
            f"services: [{{name: web, command: server, attestation: [{{mrenclave: ['{MR_ENCLAVE.hex()}']}}]}}]\n"
        )
        answer = alice.request(service.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return f"{name}/web"

    return upload


PASSWORD = f", one_time_password_shared_secret: {SECRET_BASE32}"


def refused(answer: Answer, *words: str) -> None:
    assert answer.status == 403, answer.body
    assert set(answer.body) == {"msg", "denial", "version"}
    text = ": ".join(answer.body["msg"])
    for word in words:
        assert word in text


def test_f201_a_start_with_a_password_and_evidence(person: Person, session: Callable[..., str]) -> None:
    """F201: once in its step, over the wire; another step, another start."""
    service_id = session(attestation=PASSWORD)
    password = password_at(NOW)
    assert person.start(f"{service_id}@{password}").status == 200
    refused(person.start(f"{service_id}@{password}"), USED)
    assert person.start(f"{service_id}@{password_at(NOW, steps=-1)}").status == 200


def test_the_password_is_judged_before_the_evidence(person: Person, session: Callable[..., str]) -> None:
    """Section 16 of the language: whoever has no password learns nothing of what the evidence is worth."""
    service_id = session(attestation=PASSWORD)
    refused(person.start(f"{service_id}@{wrong_password(NOW)}", genuine=False), WRONG)
    refused(person.start(service_id, genuine=False), f"SCONE_CONFIG_ID={service_id}@<otp>")


def test_a_password_is_spent_even_if_the_evidence_is_refused(person: Person, session: Callable[..., str]) -> None:
    service_id = f"{session(attestation=PASSWORD)}@{password_at(NOW)}"
    refused(person.start(service_id, genuine=False), "another nonce or another connection")
    refused(person.start(service_id), USED)


def test_without_evidence_a_password_opens_nothing_that_asks_for_evidence(
    person: Person, session: Callable[..., str]
) -> None:
    service_id = session(attestation=PASSWORD)
    refused(person.start(f"{service_id}@{password_at(NOW)}", tee="none"), "needs evidence and the program sent none")


def test_f199_a_start_with_a_token_and_evidence(person: Person, session: Callable[..., str]) -> None:
    """F199: each answer has the proof of its own connection and nonce."""
    service_id = session(f"service_access_token: {TOKEN},")
    for _ in range(2):
        assert person.start(service_id, token=TOKEN).status == 200
    refused(person.start(service_id, token=TOKEN[::-1]), "another service access token than the session")
    refused(person.start(service_id), "the session has a service access token and the program has none")
    refused(person.start(session(), token=TOKEN), "the program has a service access token and the session has none")
    assert "access_token_proof" not in person.start(session()).body


def test_f199_the_token_is_judged_before_the_evidence(person: Person, session: Callable[..., str]) -> None:
    """F199."""
    service_id = session(f"service_access_token: {TOKEN},")
    refused(person.start(service_id, token="x", genuine=False), "another service access token than the session")
    refused(person.start(service_id, token=TOKEN, genuine=False), "another nonce or another connection")


@pytest.mark.parametrize("proof", ["", "ab", "x" * 64, "ab" * 33])
def test_a_proof_of_another_form_is_no_request(person: Person, session: Callable[..., str], proof: str) -> None:
    answer = person.program.configure(b"n" * 32, b"", b"", session(), access_token_proof=proof)
    assert answer.status == 400
    assert "member 'access_token_proof' must have 64 hex digits" in answer.body["msg"][0]


@pytest.mark.parametrize("behind", ["@1@2", "@12 456", "@" + "1" * 33, "@/x"])
def test_a_service_id_of_another_form_is_refused_without_what_stands_behind_the_at(
    person: Person, session: Callable[..., str], behind: str
) -> None:
    service_id = session()
    answer = person.program.configure(b"n" * 32, b"", b"", service_id + behind)
    assert answer.status == 400
    expected = f"member 'service' is {service_id!r}, expected SESSION/SERVICE or SESSION/SERVICE@OTP"
    assert answer.body["msg"] == [expected]


def test_f204_an_instance_that_cannot_prove_to_be_fresh_is_refused(
    person: Person, session: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """F204: no evidence known here can, the first of an instance no more than the second; the denial says so."""
    service_id = session("singleton_enclaves: true,")
    for _ in range(2):
        with caplog.at_level(logging.WARNING, logger="ostiary.broker"):
            told = "singleton_enclaves: evidence that cannot prove a fresh and unused instance is not admitted"
            refused(person.start(service_id), told)
    assert "take singleton_enclaves: true out of security" in caplog.text
    assert person.start(session("singleton_enclaves: false,")).status == 200


def test_f197_local_attestation_is_refused_for_want_of_an_enclave_here(
    person: Person, session: Callable[..., str]
) -> None:
    """F197: the reason is told, not only that it cannot be."""
    reason = "this CAS has no SGX enclave of its own to attest locally with"
    refused(person.start(session(attestation=", must_be_sgx_local: true")), "must_be_sgx_local", reason)
    without_evidence = session(attestation=", must_be_sgx_local: true, mode: none")
    refused(person.start(without_evidence, tee="none"), "must_be_sgx_local", reason)
    assert person.start(session(attestation=", must_be_sgx_local: false")).status == 200


def test_forged_evidence_is_called_forged_whatever_else_the_session_demands(
    person: Person, session: Callable[..., str]
) -> None:
    """What the session demands is told to genuine programs alone: evidence is verified first."""
    answer = person.program.configure(person.program.challenge(), b"", b"", session("singleton_enclaves: true,"), "sgx")
    assert answer.status == 403
    assert "singleton" not in str(answer.body)


def test_passwords_go_with_the_clock_of_the_service(
    person: Person, service: RunningService, session: Callable[..., str]
) -> None:
    service_id = session(attestation=PASSWORD)
    service.clock.ahead = timedelta(seconds=60)
    refused(person.start(f"{service_id}@{password_at(NOW)}"), WRONG)
    assert person.start(f"{service_id}@{password_at(NOW, steps=2)}").status == 200
