"""An attested start in a guest whose vTPM quotes for it: by firmware and registers together, by neither alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.simulators.chains import NOW
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.snp_chip import MEASUREMENT, Chip, make_chip
from tests.simulators.tpm import Tpm, event, hcl_report, runtime_claims, spec_id, wire
from tests.simulators.vendors import VCEK, Vendor, VendorServer

from ostiary.attester.binding import qualifying_data

LOADER, KERNEL, OTHER = (hashlib.sha256(data).digest() for data in (b"loader", b"kernel", b"other"))
LOG = spec_id() + event(4, 0x80000003, b"loader") + event(4, 0x80000003, b"kernel")
BOOTED = hashlib.sha256(hashlib.sha256(bytes(32) + LOADER).digest() + KERNEL).digest()

CHIP = make_chip()
AK = rsa.generate_private_key(65537, 2048)
TPM = Tpm(key=AK, scheme="rsassa")

_numbers = count()

TEXT = """
name: NAME
version: "0.3.12"
services:
- {name: web, attestation: [ATTESTATION], command: server, pwd: /}
"""
FIRMWARE = f"measurement: {MEASUREMENT.hex()}"
REGISTERS = f"pcrs: {{sha256: {{4: {BOOTED.hex()}}}}}"
EVENTS = f"events: {{sha256: {{4: [{LOADER.hex()}, {KERNEL.hex()}, {OTHER.hex()}]}}}}"
Upload = Callable[[str], str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    data = tmp_path_factory.mktemp("vtpm") / "data"
    with running_service(data, roots=(CHIP.root.root(),), fixed_time=NOW) as running:
        yield running


@pytest.fixture
def program(service: RunningService, eve: Client) -> Iterator[AttestingProgram]:
    with attesting(service, eve) as attesting_program:
        yield attesting_program


@pytest.fixture
def upload(service: RunningService, alice: Client) -> Upload:
    """Upload a session of a new name with one variant; the id of its service."""

    def send(variant: str) -> str:
        name = f"vtpm-{next(_numbers)}"
        text = TEXT.replace("NAME", name).replace("ATTESTATION", variant)
        answer = alice.request(service.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return f"{name}/web"

    return send


def evidence(extra_data: bytes, chip: Chip = CHIP) -> bytes:
    """Of a guest that was started as LOG says, with the nonce that its program asked for."""
    claims = runtime_claims(AK.public_key())
    report = chip.report({0x050: hashlib.sha256(claims).digest() + bytes(32)})
    quote = TPM.attest({"sha256": (4,)}, nonce=extra_data, digest=hashlib.sha256(BOOTED).digest())
    return TPM.evidence(
        {},
        quote=quote,
        signature=TPM.sign(quote),
        ak_public=...,
        pcrs={"sha256": {"4": BOOTED.hex()}},
        event_log=LOG,
        hcl_report=hcl_report(AK.public_key(), report=report, claims=claims),
    )


def start(
    program: AttestingProgram,
    service_id: str,
    binding: Callable[[bytes], bytes] = qualifying_data,
    tee: str = "tpm",
) -> Answer:
    """As an honest program does it; binding: of the report data to what the quote is made over."""
    nonce = program.challenge()
    made = evidence(binding(program.binding(nonce)))
    return program.configure(nonce, made, wire({"snp": CHIP.endorsements.decode()}), service_id, tee=tee)


@pytest.mark.parametrize("system", [REGISTERS, EVENTS, f"{REGISTERS}, {EVENTS}"])
def test_firmware_and_registers_together_admit(program: AttestingProgram, upload: Upload, system: str) -> None:
    answer = start(program, upload(f"snp: {{{FIRMWARE}, {system}}}"))
    assert answer.status == 200, answer.body
    assert base64.b64decode(answer.body["argv"][0]["value"]) == b"server"


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        (f"snp: {{{FIRMWARE}}}", "snp.pcrs: a guest whose firmware its cloud gives to all"),
        (f"snp: {{measurement: {'ab' * 48}, {REGISTERS}}}", f"snp.measurement: {MEASUREMENT.hex()}"),
        (f"snp: {{{FIRMWARE}, pcrs: {{sha256: {{4: {'ab' * 32}}}}}}}", f"snp.sha256:4: {BOOTED.hex()}"),
        (
            f"snp: {{{FIRMWARE}, events: {{sha256: {{4: [{LOADER.hex()}, {OTHER.hex()}]}}}}}}",
            f"snp.events:sha256:4: {KERNEL.hex()}",
        ),
        (f"tpm: {{{REGISTERS}}}", "tee: evidence of snp"),
    ],
)
def test_either_alone_is_refused(program: AttestingProgram, upload: Upload, variant: str, says: str) -> None:
    answer = start(program, upload(variant))
    assert answer.status == 403, answer.body
    assert any(says in line for line in answer.body["msg"]), answer.body["msg"]


def test_a_quote_for_another_connection_is_refused(program: AttestingProgram, upload: Upload) -> None:
    answer = start(program, upload(f"snp: {{{FIRMWARE}, {REGISTERS}}}"), lambda _: bytes(32))
    assert answer.status == 403
    assert "another nonce or another connection" in " ".join(answer.body["msg"])


def test_a_vtpm_under_the_name_of_its_guest_is_refused(program: AttestingProgram, upload: Upload) -> None:
    answer = start(program, upload(f"snp: {{{FIRMWARE}, {REGISTERS}}}"), tee="snp")
    assert answer.status in (400, 403)
    assert "argv" not in answer.body


def test_a_guest_without_certificates_starts_with_those_that_the_service_fetches(
    tmp_path: Path, alice: Client, eve: Client
) -> None:
    vendor = Vendor()
    amd = VendorServer(tmp_path, vendor)
    roots, data = vendor.anchors.amd, tmp_path / "data"
    text = TEXT.replace("NAME", "a").replace("ATTESTATION", f"snp: {{{FIRMWARE}, {REGISTERS}}}")
    with running_service(data, roots=roots, fixed_time=NOW, sources=amd.sources) as running:
        assert alice.request(running.client_port, "POST", "/session", text.encode()).status == 201
        for _ in range(2):
            with attesting(running, eve) as program:
                nonce = program.challenge()
                made = evidence(qualifying_data(program.binding(nonce)), vendor.chip)
                answer = program.configure(nonce, made, b"", "a/web", tee="tpm")
            assert answer.status == 200, answer.body
            assert sorted(set(amd.asked_parts())) == sorted(amd.asked_parts()), "a part was asked for twice"
    assert VCEK in amd.asked_parts()
    amd.server.close()
