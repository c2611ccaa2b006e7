"""An attested start on real mTLS with the quote of a live TPM (swtpm): admitted, and every way to be refused."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from tests.simulators.chains import issue
from tests.simulators.processes import ostiary, serve_process
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.quoting_tpm import extend, running_tpm
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.tpm_maker import certify, ek_spki, pem

from ostiary.attester import Evidence
from ostiary.attester.tpm import TpmAttester
from ostiary.evidence.tpm.layout import parse_public_area
from ostiary.evidence.tpm.verify import pinned_ak

LOADER, POLICY, KERNEL = b"l" * 32, b"p" * 32, b"k" * 32
MEASURED = {4: LOADER, 7: POLICY, 11: KERNEL}
VALUES = {pcr: hashlib.sha256(bytes(32) + digest).hexdigest() for pcr, digest in MEASURED.items()}
OTHER = "ab" * 32

_numbers = count()

TEXT = """
name: NAME
version: "0.3.12"
services:
- name: web
  attestation: [{tpm: {pcrs: {sha256: PCRS}}}]
  command: server
  pwd: /
"""
Upload = Callable[[dict[int, str]], str]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine with a TPM, started with MEASURED."""

    path: str

    def quote(self, binding: bytes) -> Evidence:
        return TpmAttester(self.path).attest(binding, None)

    @property
    def ak(self) -> bytes:
        members = json.loads(self.quote(bytes(64)).evidence)
        return parse_public_area(base64.b64decode(members["ak_public"])).spki


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    """One whose key the owner pinned, and one that nobody knows; both started alike."""
    directory = tmp_path_factory.mktemp
    with running_tpm(directory("known")) as known, running_tpm(directory("stranger")) as stranger:
        for path in (known, stranger):
            for pcr, digest in MEASURED.items():
                extend(path, pcr, digest)
        yield Machine(path=known), Machine(path=stranger)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, machines: tuple[Machine, Machine]) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("tpm") / "data", aks=frozenset({machines[0].ak})) as running:
        yield running


@pytest.fixture
def machine(machines: tuple[Machine, Machine]) -> Machine:
    return machines[0]


@pytest.fixture
def program(service: RunningService, eve: Client) -> Iterator[AttestingProgram]:
    with attesting(service, eve) as attesting_program:
        yield attesting_program


@pytest.fixture
def upload(service: RunningService, alice: Client) -> Upload:
    """Upload a session of a new name that admits machines with these PCRs; the id of its service."""

    def send(pcrs: dict[int, str]) -> str:
        name = f"tpm-{next(_numbers)}"
        text = TEXT.replace("NAME", name).replace("PCRS", json.dumps(pcrs).replace('"', "'"))
        answer = alice.request(service.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return f"{name}/web"

    return send


def start(program: AttestingProgram, machine: Machine, service_id: str) -> Answer:
    """Everything as an honest program does it."""
    nonce = program.challenge()
    return send(program, nonce, machine.quote(program.binding(nonce)), service_id)


def send(program: AttestingProgram, nonce: bytes, evidence: Evidence, service_id: str) -> Answer:
    return program.configure(nonce, evidence.evidence, evidence.endorsements, service_id, tee=evidence.tee)


def refused(answer: Answer, *words: str) -> None:
    assert answer.status == 403, answer.body
    text = " ".join(answer.body["msg"])
    for word in words:
        assert word in text


@pytest.mark.parametrize("pcrs", [(4,), (7, 11), (4, 7, 11)])
def test_a_machine_whose_key_is_pinned_and_whose_registers_are_named_is_admitted(
    program: AttestingProgram, machine: Machine, upload: Upload, pcrs: tuple[int, ...]
) -> None:
    answer = start(program, machine, upload({pcr: VALUES[pcr] for pcr in pcrs}))
    assert answer.status == 200, answer.body
    assert base64.b64decode(answer.body["argv"][0]["value"]) == b"server"


@pytest.mark.parametrize("pcr", [4, 7, 11])
def test_another_value_of_one_register_is_refused(
    program: AttestingProgram, machine: Machine, upload: Upload, pcr: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"):
        answer = start(program, machine, upload({**VALUES, pcr: OTHER}))
    refused(answer, f"sha256:{pcr}", VALUES[pcr])
    assert OTHER not in json.dumps(answer.body)
    assert OTHER in caplog.text


def test_a_register_that_was_not_quoted_is_refused(program: AttestingProgram, machine: Machine, upload: Upload) -> None:
    nonce = program.challenge()
    evidence = TpmAttester(machine.path, pcrs=(4,)).attest(program.binding(nonce), None)
    refused(send(program, nonce, evidence, upload(VALUES)), "sha256:7")


def test_another_nonce_is_refused(program: AttestingProgram, machine: Machine, upload: Upload) -> None:
    evidence = machine.quote(program.binding(program.challenge()))
    answer = send(program, program.challenge(), evidence, upload(VALUES))
    refused(answer, "another nonce or another connection")


def test_another_connection_is_refused(
    service: RunningService, alice: Client, program: AttestingProgram, machine: Machine, upload: Upload
) -> None:
    nonce = program.challenge()
    with attesting(service, alice) as genuine:
        evidence = machine.quote(genuine.binding(nonce))
    refused(send(program, nonce, evidence, upload(VALUES)), "another nonce or another connection")


def test_a_quote_is_admitted_once(program: AttestingProgram, machine: Machine, upload: Upload) -> None:
    nonce, service_id = program.challenge(), upload(VALUES)
    evidence = machine.quote(program.binding(nonce))
    assert send(program, nonce, evidence, service_id).status == 200
    refused(send(program, nonce, evidence, service_id), "was used before")


def test_another_tpm_is_refused(program: AttestingProgram, machines: tuple[Machine, Machine], upload: Upload) -> None:
    """Its registers and its nonce are right; nobody vouches for its key."""
    refused(start(program, machines[1], upload(VALUES)), "nobody vouches for the key that signed the quote (the AK)")


def test_the_key_of_another_tpm_in_the_evidence_is_refused(
    program: AttestingProgram, machines: tuple[Machine, Machine], upload: Upload
) -> None:
    known, stranger = machines
    nonce = program.challenge()
    members = json.loads(stranger.quote(program.binding(nonce)).evidence)
    members["ak_public"] = json.loads(known.quote(bytes(64)).evidence)["ak_public"]
    evidence = Evidence(tee="tpm", evidence=json.dumps(members).encode(), endorsements=b"")
    refused(send(program, nonce, evidence, upload(VALUES)), "the quote is not signed by this AK")


def test_a_service_for_another_tee_refuses_it_as_a_mismatch(
    service: RunningService, alice: Client, program: AttestingProgram, machine: Machine
) -> None:
    text = TEXT.replace("NAME", "tpm-sgx").replace("{tpm: {pcrs: {sha256: PCRS}}}", f"{{mrenclave: '{OTHER}'}}")
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    refused(start(program, machine, "tpm-sgx/web"), "tee: evidence of tpm is not admitted")


def test_the_owner_names_keys_and_roots_in_files(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> None:
    directory = tmp_path_factory.mktemp("options")
    (directory / "ak.pem").write_text(ostiary("evidence", "tpm-ak", "--tpm", machine.path))
    assert pinned_ak((directory / "ak.pem").read_bytes()) == machine.ak
    (directory / "root.pem").write_bytes(issue("TPM maker").pem)
    options = ("--trust-tpm-ak", str(directory / "ak.pem"), "--trust-tpm-root", str(directory / "root.pem"))
    with serve_process(directory / "data", *options) as served:
        assert served["enclave"]


def test_a_key_that_was_enrolled_is_admitted(
    tmp_path: Path, machines: tuple[Machine, Machine], alice: Client, eve: Client
) -> None:
    """The machine that nobody knew proves that its key is in a TPM of a maker whom the owner believes."""
    machine = machines[1]
    now = datetime.now(UTC)
    since, until = now - timedelta(days=1), now + timedelta(days=1)
    maker = issue("TPM maker", start=since, end=until)
    middle = issue("TPM maker, 2026", maker, start=since, end=until)
    files = {name: tmp_path / name for name in ("ek", "root", "middle", "offer", "challenge", "kept", "answer", "ak")}
    files["ek"].write_bytes(pem(certify(ek_spki(machine.path, "ecc"), middle, start=since, end=until)))
    files["root"].write_bytes(maker.pem)
    files["middle"].write_bytes(middle.pem)

    def step(name: str, *arguments: str, to: str) -> None:
        files[to].write_text(ostiary("tpm", name, *(str(files.get(word, word)) for word in arguments)))

    step("offer", "--tpm", machine.path, "--ek-certificate", "ek", "--ek", "ecc", to="offer")
    step(
        *("challenge", "offer", "--ek-root", "root", "--certificates", "middle", "--keep", "kept"),
        to="challenge",
    )
    step("answer", "challenge", "--tpm", machine.path, to="answer")
    step("accept", "answer", "--kept", "kept", to="ak")

    accepted = frozenset({pinned_ak(files["ak"].read_bytes())})
    with running_service(tmp_path / "data", aks=accepted) as service, attesting(service, eve) as program:
        text = TEXT.replace("NAME", "tpm-enrolled").replace("PCRS", f"{{4: '{VALUES[4]}'}}")
        assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
        assert start(program, machine, "tpm-enrolled/web").status == 200
        refused(start(program, machines[0], "tpm-enrolled/web"), "nobody vouches for the key that signed the quote")


def test_the_answer_of_another_machine_is_refused_with_its_own_exit_code(
    tmp_path: Path, machines: tuple[Machine, Machine]
) -> None:
    now = datetime.now(UTC)
    since, until = now - timedelta(days=1), now + timedelta(days=1)
    maker = issue("TPM maker", start=since, end=until)
    offer, challenge, root = tmp_path / "offer", tmp_path / "challenge", tmp_path / "root"
    certificate = pem(certify(ek_spki(machines[0].path, "rsa"), maker, start=since, end=until))
    (tmp_path / "ek").write_bytes(certificate)
    root.write_bytes(maker.pem)
    offer.write_text(ostiary("tpm", "offer", "--tpm", machines[0].path, "--ek-certificate", str(tmp_path / "ek")))
    kept = str(tmp_path / "kept")
    challenge.write_text(ostiary("tpm", "challenge", str(offer), "--ek-root", str(root), "--keep", kept))
    said = ostiary("tpm", "answer", str(challenge), "--tpm", machines[1].path, expect=77)
    assert "the challenge is for another attestation key than this machine's" in " ".join(said.split())
    stranger = tmp_path / "stranger"
    stranger.write_bytes(issue("Another maker", start=since, end=until).pem)
    said = ostiary("tpm", "challenge", str(offer), "--ek-root", str(stranger), "--keep", f"{kept}2", expect=77)
    assert "the EK's certificate does not hold under the roots that were named" in said
    said = ostiary("tpm", "answer", str(offer), "--tpm", machines[0].path, expect=64)
    assert "this is not a challenge of `ostiary tpm challenge`" in said
    said = ostiary("tpm", "offer", "--tpm", machines[0].path, expect=69)
    assert "the TPM holds no certificate of an endorsement key" in said


def test_a_machine_without_a_tpm_has_no_key_to_name(tmp_path: Path) -> None:
    said = ostiary("evidence", "tpm-ak", "--tpm", str(tmp_path / "none"), expect=69)
    assert "the machine has no TPM 2.0, or its kernel no driver for it" in " ".join(said.split())
