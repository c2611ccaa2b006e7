"""An attested start on real mTLS for each TEE but SGX: admitted, and every way in which it is refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import pytest
from tests.simulators.chains import NOW
from tests.simulators.nitro_host import PCRS, Host, make_host
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, make_platform
from tests.simulators.snp_chip import MEASUREMENT, Chip, make_chip
from tests.simulators.tdx_host import DEBUG, MRTD, RTMR1, TdxHost, make_tdx_host

from ostiary.evidence.roots import TrustedRoot, software_root
from ostiary.evidence.verifier import TEES

_numbers = count()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One TEE as a program in it sees it.

    root: of its platform. admitted, other: a variant for its program, and one for another program. make: evidence over
    report data, of a debug program or not. endorsements: of that evidence.
    """

    tee: str
    root: TrustedRoot
    admitted: str
    other: str
    other_says: str
    make: Callable[[bytes, bool], bytes]
    endorsements: bytes


def _tdx(host: TdxHost) -> Kind:
    return Kind(
        tee="tdx",
        root=host.platform.hardware_root,
        admitted=f"{{tdx: {{mrtd: {MRTD.hex()}, rtmr1: {RTMR1.hex()}}}}}",
        other=f"{{tdx: {{mrtd: {MRTD.hex()}, rtmr1: {'ab' * 48}}}}}",
        other_says=f"tdx.rtmr1: {RTMR1.hex()}",
        make=lambda data, debug: host.quote({0x078: DEBUG} if debug else {}, report_data=data),
        endorsements=host.collateral(),
    )


def _snp(chip: Chip) -> Kind:
    def make(data: bytes, debug: bool) -> bytes:
        return chip.report({0x050: data, **({0x008: (0xB0000).to_bytes(8, "little")} if debug else {})})

    return Kind(
        tee="snp",
        root=chip.root.root(),
        admitted=f"{{snp: {{measurement: {MEASUREMENT.hex()}, guest_svn_min: 5, vmpl_max: 0}}}}",
        other=f"{{snp: {{measurement: {'ab' * 48}}}}}",
        other_says=f"snp.measurement: {MEASUREMENT.hex()}",
        make=make,
        endorsements=chip.endorsements,
    )


def _nitro(host: Host) -> Kind:
    def make(data: bytes, debug: bool) -> bytes:
        pcrs = {**PCRS, **dict.fromkeys(range(3), bytes(48))} if debug else PCRS
        return host.document(user_data=data, pcrs=pcrs)

    return Kind(
        tee="nitro",
        root=host.root.root(),
        admitted=f"{{nitro: {{pcr0: ['{'00' * 48}', {PCRS[0].hex()}]}}}}",
        other=f"{{nitro: {{pcr0: [{'ab' * 48}, '{'00' * 48}']}}}}",
        other_says=f"nitro.pcr0: {PCRS[0].hex()}",
        make=make,
        endorsements=b"",
    )


SGX = make_platform()
CHIP, HOST, TDX_HOST = make_chip(), make_host(), TdxHost(platform=SGX)
KINDS = {kind.tee: kind for kind in (_tdx(TDX_HOST), _snp(CHIP), _nitro(HOST))}
STRANGERS = {kind.tee: kind for kind in (_tdx(make_tdx_host()), _snp(make_chip()), _nitro(make_host()))}
"""The same programs on platforms whose roots nobody trusts."""

TEXT = """
name: NAME
version: "0.3.12"
security: {attestation: SECURITY}
services:
- name: web
  attestation: ATTESTATION
  command: server $$SCONE::token$$
  pwd: /
secrets: [{name: token, kind: ascii}]
"""
Upload = Callable[..., str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    roots = tuple(kind.root for kind in KINDS.values())
    with running_service(tmp_path_factory.mktemp("tees") / "data", roots=roots, fixed_time=NOW) as running:
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
def upload(service: RunningService, alice: Client) -> Upload:
    """Upload a session of a new name; the id of its service."""

    def send(attestation: str, security: str = "{}", *, to: RunningService = service) -> str:
        name = f"tee-{next(_numbers)}"
        text = TEXT.replace("NAME", name).replace("ATTESTATION", attestation).replace("SECURITY", security)
        answer = alice.request(to.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return f"{name}/web"

    return send


def start(program: AttestingProgram, kind: Kind, service_id: str, *, debug: bool = False) -> Answer:
    """Everything as an honest program does it."""
    nonce = program.challenge()
    evidence = kind.make(program.binding(nonce), debug)
    return program.configure(nonce, evidence, kind.endorsements, service_id, tee=kind.tee)


def admitted(answer: Answer) -> None:
    assert answer.status == 200, answer.body
    assert base64.b64decode(answer.body["argv"][0]["value"]) == b"server"


def refused(answer: Answer, *words: str) -> None:
    assert answer.status == 403, answer.body
    text = " ".join(answer.body["msg"])
    for word in words:
        assert word in text


EACH = pytest.mark.parametrize("tee", KINDS)


def test_every_tee_of_the_service_is_started_here() -> None:
    """SGX and TPM have files of their own."""
    assert {"sgx", "tpm", *KINDS} == set(TEES)


@EACH
def test_a_program_that_its_variant_names_is_admitted(program: AttestingProgram, upload: Upload, tee: str) -> None:
    admitted(start(program, KINDS[tee], upload(KINDS[tee].admitted)))


@EACH
def test_another_program_is_refused_and_only_the_log_says_what_was_expected(
    program: AttestingProgram, upload: Upload, tee: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ostiary.broker"):
        answer = start(program, KINDS[tee], upload(KINDS[tee].other))
    refused(answer, KINDS[tee].other_says, "is not admitted")
    assert "ab" * 48 not in json.dumps(answer.body)
    assert f"expected {'ab' * 48}" in caplog.text


@EACH
def test_a_debug_program_is_admitted_by_name_only(program: AttestingProgram, upload: Upload, tee: str) -> None:
    kind = KINDS[tee]
    refused(start(program, kind, upload(kind.admitted), debug=True), "a debug enclave, whose memory its host can read")
    refused(start(program, kind, upload(kind.admitted, "{tolerate: [software-platform]}"), debug=True), "debug")
    admitted(start(program, kind, upload(kind.admitted, "{tolerate: [debug-mode]}"), debug=True))


@EACH
def test_a_foreign_root_is_refused(program: AttestingProgram, upload: Upload, tee: str) -> None:
    """Every field of the evidence is right; nobody vouches for it."""
    tolerant = upload(KINDS[tee].admitted, "{tolerate: [debug-mode, software-platform]}")
    refused(start(program, STRANGERS[tee], tolerant), "a root that this service does not trust")


@EACH
def test_evidence_for_another_nonce_is_refused(program: AttestingProgram, upload: Upload, tee: str) -> None:
    kind = KINDS[tee]
    evidence = kind.make(program.binding(program.challenge()), False)
    answer = program.configure(program.challenge(), evidence, kind.endorsements, upload(kind.admitted), tee=tee)
    refused(answer, "another nonce or another connection")


@EACH
def test_evidence_is_admitted_once(program: AttestingProgram, upload: Upload, tee: str) -> None:
    kind, service_id, nonce = KINDS[tee], upload(KINDS[tee].admitted), program.challenge()
    evidence = kind.make(program.binding(nonce), False)
    admitted(program.configure(nonce, evidence, kind.endorsements, service_id, tee=tee))
    refused(program.configure(nonce, evidence, kind.endorsements, service_id, tee=tee), "was used before")
    refused(program.configure(program.challenge(), evidence, kind.endorsements, service_id, tee=tee), "another nonce")


@EACH
def test_evidence_for_another_tls_key_is_refused(
    service: RunningService, alice: Client, program: AttestingProgram, upload: Upload, tee: str
) -> None:
    kind, nonce = KINDS[tee], program.challenge()
    with attesting(service, alice) as genuine:
        evidence = kind.make(genuine.binding(nonce), False)
    answer = program.configure(nonce, evidence, kind.endorsements, upload(kind.admitted), tee=tee)
    refused(answer, "another nonce or another connection")


@EACH
def test_evidence_that_is_bound_to_nothing_is_refused(program: AttestingProgram, upload: Upload, tee: str) -> None:
    kind = KINDS[tee]
    answer = program.configure(
        program.challenge(), kind.make(bytes(64), False), kind.endorsements, upload(kind.admitted), tee=tee
    )
    refused(answer, "another nonce or another connection")


@pytest.mark.parametrize("user_data", [None, b""])
def test_a_document_without_user_data_is_bound_to_nothing(
    program: AttestingProgram, upload: Upload, user_data: bytes | None
) -> None:
    """Whatever stands in `nonce`, which the protocol does not use."""
    nonce = program.challenge()
    document = HOST.document(user_data=user_data, nonce=program.binding(nonce))
    answer = program.configure(nonce, document, b"", upload(KINDS["nitro"].admitted), tee="nitro")
    refused(answer, "another nonce or another connection")


@EACH
def test_a_service_for_another_tee_refuses_it_as_a_mismatch(
    program: AttestingProgram, upload: Upload, tee: str
) -> None:
    sgx = f"{{mrenclave: '{MR_ENCLAVE.hex()}'}}"
    refused(start(program, KINDS[tee], upload(sgx)), f"tee: evidence of {tee} is not admitted")
    others = ", ".join([sgx, *(kind.admitted for kind in KINDS.values() if kind.tee != tee)])
    refused(start(program, KINDS[tee], upload(f"[{others}]")), f"tee: evidence of {tee} is not admitted")


def test_a_service_for_several_tees_admits_each(program: AttestingProgram, upload: Upload) -> None:
    variants = [f"{{mrenclave: '{MR_ENCLAVE.hex()}'}}", *(kind.admitted for kind in KINDS.values())]
    service_id = upload(f"[{', '.join(variants)}]")
    for kind in KINDS.values():
        admitted(start(program, kind, service_id))
    admitted(program.start(SGX, service_id))


@EACH
@pytest.mark.parametrize("told", [*TEES])
def test_evidence_under_the_name_of_another_tee_is_refused(
    program: AttestingProgram, upload: Upload, tee: str, told: str
) -> None:
    """Refused, not failed: whoever sends it learns that it is no such evidence."""
    if told == tee:
        return
    kind, nonce = KINDS[tee], program.challenge()
    evidence = kind.make(program.binding(nonce), False)
    refused(program.configure(nonce, evidence, kind.endorsements, upload(kind.admitted), tee=told))


@pytest.mark.parametrize("tee", [*TEES])
@pytest.mark.parametrize(("evidence", "endorsements"), [(b"", b""), (b"x" * 5000, b"{}"), (b"\0" * 5000, b"\0")])
def test_what_is_no_evidence_is_refused(
    program: AttestingProgram, upload: Upload, tee: str, evidence: bytes, endorsements: bytes
) -> None:
    service_id = upload(KINDS["snp"].admitted)
    refused(program.configure(program.challenge(), evidence, endorsements, service_id, tee=tee))


@pytest.mark.parametrize("tee", ["SNP", "", "sev", "x" * 100])
def test_a_kind_that_the_protocol_does_not_have_is_a_mistake(
    program: AttestingProgram, upload: Upload, tee: str
) -> None:
    answer = program.configure(program.challenge(), b"", b"", upload(KINDS["snp"].admitted), tee=tee)
    assert answer.status == 400
    assert "expected one of sgx, tdx, snp, nitro, tpm, maa, none" in answer.body["msg"][0]


@EACH
def test_changed_evidence_is_refused(program: AttestingProgram, upload: Upload, tee: str) -> None:
    kind, nonce, service_id = KINDS[tee], program.challenge(), upload(KINDS[tee].admitted)
    evidence = kind.make(program.binding(nonce), False)
    place = evidence.index(program.binding(nonce))
    changed = evidence[:place] + bytes([evidence[place] ^ 1]) + evidence[place + 1 :]
    refused(program.configure(nonce, changed, kind.endorsements, service_id, tee=tee), "not signed by")


@EACH
def test_a_software_root_protects_nothing_for_any_tee(
    tmp_path_factory: pytest.TempPathFactory, eve: Client, upload: Upload, tee: str
) -> None:
    kind = KINDS[tee]
    root = software_root(kind.root.certificate_der)
    directory = tmp_path_factory.mktemp("software") / "data"
    with (
        running_service(directory, roots=(root,), fixed_time=NOW) as service,
        attesting(service, eve) as program,
    ):
        refused(
            start(program, kind, upload(kind.admitted, to=service)),
            "evidence of a software platform, which protects nothing",
        )
        admitted(start(program, kind, upload(kind.admitted, "{tolerate: [software-platform]}", to=service)))


# --- what only some of them have -------------------------------------------------------------------------------------


def test_a_td_out_of_date_is_admitted_within_its_grace(
    service: RunningService, program: AttestingProgram, upload: Upload
) -> None:
    """Until so many days after the newer level is dated; the platform's newer level is of 2026-10-24."""
    levels = (("UpToDate", "2026-10-24", ["INTEL-SA-00001"]),
              ("OutOfDate", "2025-08-13", ["INTEL-SA-00001", "INTEL-SA-00002"]))  # fmt: skip
    kind = dataclasses.replace(KINDS["tdx"], endorsements=TDX_HOST.collateral(*levels, meets=1))
    within = upload(kind.admitted, "{tcb: {grace: 31 days}, ignore_advisories: [INTEL-SA-00001]}")
    admitted(start(program, kind, within))
    refused(
        start(program, kind, upload(kind.admitted, "{tcb: {grace: 29 days}, ignore_advisories: [INTEL-SA-00001]}")),
        "TCB status OutOfDate, tolerated until 2026-11-22",
        "a platform open to INTEL-SA-00002",
    )
    refused(start(program, kind, upload(kind.admitted)), "tolerate: outdated-tcb")
    service.clock.ahead = timedelta(days=2)
    refused(start(program, kind, within), "tolerated until 2026-11-24")


def test_endorsements_may_be_as_old_as_the_session_says(
    service: RunningService, program: AttestingProgram, upload: Upload
) -> None:
    """Those of the synthetic TDX platform were issued a day ago; a Nitro document now; SNP's have no date."""
    two_days, hour = "{max_age: 2 days}", "{max_age: 1h}"
    admitted(start(program, KINDS["tdx"], upload(KINDS["tdx"].admitted, two_days)))
    refused(start(program, KINDS["tdx"], upload(KINDS["tdx"].admitted, hour)), "endorsements of 2026-11-22")
    admitted(start(program, KINDS["nitro"], upload(KINDS["nitro"].admitted, hour)))
    refused(start(program, KINDS["snp"], upload(KINDS["snp"].admitted, two_days)), "endorsements without a date")
    service_id = upload(KINDS["tdx"].admitted, two_days)
    service.clock.ahead = timedelta(days=1, seconds=1)
    refused(start(program, KINDS["tdx"], service_id), "endorsements of 2026-11-22")


def test_a_guest_that_may_be_migrated_is_admitted_by_name_only(program: AttestingProgram, upload: Upload) -> None:
    policy = (0x30000 | 1 << 18).to_bytes(8, "little")
    kind = dataclasses.replace(KINDS["snp"], make=lambda data, _: CHIP.report({0x050: data, 0x008: policy}))
    refused(start(program, kind, upload(kind.admitted)), "evidence with migration-agent")
    admitted(start(program, kind, upload(kind.admitted, "{tolerate: [migration-agent]}")))


def test_a_td_without_sept_ve_disable_is_admitted_by_name_only(program: AttestingProgram, upload: Upload) -> None:
    kind = dataclasses.replace(KINDS["tdx"], make=lambda data, _: TDX_HOST.quote({0x078: bytes(8)}, report_data=data))
    refused(start(program, kind, upload(kind.admitted)), "evidence with sept-ve-disable-off")
    admitted(start(program, kind, upload(kind.admitted, "{tolerate: [sept-ve-disable-off]}")))


def test_variants_may_come_from_a_secret(service: RunningService, alice: Client, program: AttestingProgram) -> None:
    kind = KINDS["snp"]
    text = f"""
name: from-a-secret
version: "0.3.12"
services:
- {{name: whole, attestation: {{snp: $$SCONE::factors$$}}, command: server x, pwd: /}}
- {{name: one, attestation: {{snp: {{measurement: $$SCONE::measurement$$}}}}, command: server x, pwd: /}}
- {{name: none, attestation: {{snp: {{id_key_digest: $$SCONE::zeros$$}}}}, command: server x, pwd: /}}
secrets:
- {{name: factors, kind: config-fragment, value: {{measurement: [{MEASUREMENT.hex()}], guest_svn_min: 5}}}}
- {{name: measurement, kind: ascii, value: {MEASUREMENT.hex()}}}
- {{name: zeros, kind: ascii, value: '{"00" * 48}'}}
"""
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    for name in ("whole", "one"):
        admitted(start(program, kind, f"from-a-secret/{name}"))
    refused(start(program, kind, "from-a-secret/none"), "attestation")
