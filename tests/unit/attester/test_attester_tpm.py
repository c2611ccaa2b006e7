"""Quotes of a live TPM (swtpm), and what answers that is none."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.chains import NOW, issue
from tests.simulators.quoting_tpm import OWNER, command, define, extend, running_tpm
from tests.simulators.snp_chip import make_chip
from tests.simulators.tpm import hcl_report, runtime_claims, sized, wire

from ostiary.attester.binding import qualifying_data
from ostiary.attester.tpm import (
    AK_TEMPLATE,
    AZURE_AK,
    AZURE_HCL_REPORT,
    GOOGLE_AKS,
    MAX_EVENT_LOG_BYTES,
    TpmAttester,
)
from ostiary.attester.tpm2 import ENDORSEMENT, MAX_ANSWER_BYTES, MAX_TRIES, SHA256, Tpm, TpmError
from ostiary.errors import ConfigurationError, EvidenceRefusedError, OutsideError
from ostiary.evidence.claims import Claims
from ostiary.evidence.tpm.layout import parse_public_area, parse_quote
from ostiary.evidence.tpm.verify import TrustedAks, verify
from ostiary.evidence.tpm.wire import parse_evidence

REPORT_DATA = bytes(range(64))
RSA_TEMPLATE = bytes.fromhex("0001 000b 00050072 0000 0010 0014 000b 0800 00000000 0000")


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of one fresh TPM for all tests of this module that leave nothing behind in it."""
    with running_tpm(tmp_path_factory.mktemp("tpm")) as path:
        yield path


@pytest.fixture
def own_tpm(tmp_path: Path) -> Iterator[str]:
    with running_tpm(tmp_path) as path:
        yield path


def quoted(path: str, **how: Any) -> tuple[dict[str, Any], bytes, bytes]:
    """The members of fresh evidence, the evidence itself, and its endorsements."""
    evidence = TpmAttester(path, **how).attest(REPORT_DATA, None)
    assert evidence.tee == "tpm"
    return json.loads(evidence.evidence), evidence.evidence, evidence.endorsements


def key_of(members: dict[str, Any]) -> bytes:
    return parse_public_area(b64decode(members["ak_public"])).spki


def judged(evidence: bytes, endorsements: bytes, aks: TrustedAks) -> Claims:
    return verify(evidence, endorsements, roots=[], aks=aks, now=NOW)


def test_a_live_quote_is_verified_for_its_nonce_and_its_registers(tpm: str) -> None:
    members, evidence, endorsements = quoted(tpm, pcrs=(0, 7, 17))
    claims = judged(evidence, endorsements, TrustedAks(keys=frozenset({key_of(members)})))
    assert claims.report_data == qualifying_data(REPORT_DATA)
    assert {name: value for name, value in claims.measurements.items() if name != "pcrs"} == {
        "sha256:0": bytes(32),
        "sha256:7": bytes(32),
        "sha256:17": b"\xff" * 32,
    }
    assert claims.raw["ak_hierarchy"] == "endorsement"
    assert claims.raw["firmware_version"] == "2019102300163636"
    assert endorsements == b""


def test_every_register_but_that_of_ima_is_quoted_unless_told(tpm: str) -> None:
    members, evidence, endorsements = quoted(tpm)
    claims = judged(evidence, endorsements, TrustedAks(keys=frozenset({key_of(members)})))
    assert claims.raw["pcrs"] == [pcr for pcr in range(24) if pcr != 10]


def test_a_tpm_makes_the_same_key_at_each_start_and_another_tpm_another(tpm: str, own_tpm: str) -> None:
    keys = [key_of(quoted(path)[0]) for path in (tpm, tpm, own_tpm)]
    assert keys[0] == keys[1] != keys[2]


def test_nothing_is_left_in_the_tpm(own_tpm: str) -> None:
    """It holds three keys at most: a fourth attestation would fail if they stayed."""
    for _ in range(5):
        quoted(own_tpm)


def test_an_extended_register_is_another_claim(own_tpm: str) -> None:
    extend(own_tpm, 4, b"d" * 32)
    members, evidence, endorsements = quoted(own_tpm, pcrs=(4,))
    claims = judged(evidence, endorsements, TrustedAks(keys=frozenset({key_of(members)})))
    assert claims.measurements["sha256:4"] == hashlib.sha256(bytes(32) + b"d" * 32).digest()


def test_the_quote_of_another_tpm_is_refused(tpm: str, own_tpm: str) -> None:
    mine, _, _ = quoted(tpm)
    _, evidence, endorsements = quoted(own_tpm)
    with pytest.raises(EvidenceRefusedError, match="nobody vouches for the key"):
        judged(evidence, endorsements, TrustedAks(keys=frozenset({key_of(mine)})))


def test_a_persistent_key_signs_where_the_caller_names_one(own_tpm: str) -> None:
    handle = persist(own_tpm, RSA_TEMPLATE, 0x81010009)
    members, evidence, endorsements = quoted(own_tpm, ak_handle=handle)
    claims = judged(evidence, endorsements, TrustedAks(keys=frozenset({key_of(members)})))
    assert (claims.raw["ak_type"], claims.raw["signature_alg"]) == ("rsa2048", "rsassa")


def persist(path: str, template: bytes, handle: int) -> int:
    """TPM2_EvictControl of a primary key."""
    with Tpm(path) as device:
        key, _ = device.create_primary(OWNER, template)
        device._command("TPM2_EvictControl", 0x120, [OWNER, key], struct.pack(">I", handle))
        device.flush(key)
    return handle


@pytest.mark.parametrize("which", [0, 1], ids=["ECC", "RSA"])
def test_googles_key_comes_with_its_certificate(own_tpm: str, which: int) -> None:
    template, certificate = GOOGLE_AKS[which]
    define(own_tpm, template, (AK_TEMPLATE, RSA_TEMPLATE)[which])
    with Tpm(own_tpm) as device:
        key, area = device.create_primary(ENDORSEMENT, (AK_TEMPLATE, RSA_TEMPLATE)[which])
        device.flush(key)
    root = issue("TPM maker")
    define(own_tpm, certificate, certificate_for(parse_public_area(area).spki, root))
    _, evidence, endorsements = quoted(own_tpm)
    claims = judged(evidence, endorsements, TrustedAks(roots=(root.root(),)))
    assert claims.raw["ak_trust"] == "certificate"


def certificate_for(spki: bytes, issuer: Any) -> bytes:
    from datetime import timedelta

    from cryptography.hazmat.primitives import hashes

    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(serialization.load_der_public_key(spki))  # type: ignore[arg-type]
        .serial_number(9)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("template", [AK_TEMPLATE, sized(AK_TEMPLATE)], ids=["bare", "with its size"])
def test_googles_template_without_a_certificate_is_used_all_the_same(own_tpm: str, template: bytes) -> None:
    define(own_tpm, GOOGLE_AKS[0][0], template)
    _, _, endorsements = quoted(own_tpm)
    assert endorsements == b""


def test_azures_key_comes_with_the_report_that_names_it(own_tpm: str) -> None:
    persist(own_tpm, RSA_TEMPLATE, AZURE_AK)
    with Tpm(own_tpm) as device:
        spki = parse_public_area(device.read_public(AZURE_AK)).spki
    ak: Any = serialization.load_der_public_key(spki)
    chip = make_chip()
    claims = runtime_claims(ak)
    report = chip.report({0x050: hashlib.sha256(claims).digest() + bytes(32)})
    blob = hcl_report(ak, report=report, claims=claims)
    assert len(blob) > 512, "it takes more than one command to read"
    define(own_tpm, AZURE_HCL_REPORT, blob)
    members, evidence, _ = quoted(own_tpm)
    assert b64decode(members["hcl_report"]) == blob
    endorsements = wire({"snp": chip.endorsements.decode()})
    found = verify(evidence, endorsements, roots=[chip.root.root()], aks=TrustedAks(), now=NOW)
    assert (found.tee, found.report_data) == ("snp", qualifying_data(REPORT_DATA))
    assert ak.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki


class TestEventLog:
    def test_it_is_sent_if_it_can_be_read(self, tpm: str, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_bytes(b"events")
        assert b64decode(quoted(tpm, event_log=str(log))[0]["event_log"]) == b"events"

    @pytest.mark.parametrize("content", [None, b"", bytes(MAX_EVENT_LOG_BYTES + 1)], ids=["none", "empty", "too large"])
    def test_else_the_quote_goes_alone(self, tpm: str, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "log").write_bytes(content)
        assert "event_log" not in quoted(tpm, event_log=str(tmp_path / "log"))[0]


class TestUnavailable:
    def test_no_device(self, tmp_path: Path) -> None:
        attester = TpmAttester(str(tmp_path / "tpmrm0"))
        assert attester.unavailable() == (
            f"tpm: there is no {tmp_path}/tpmrm0; the machine has no TPM 2.0, or its kernel no driver for it"
        )
        with pytest.raises(OutsideError, match="tpm: there is no"):
            attester.attest(REPORT_DATA, None)

    def test_a_device_that_may_not_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        device = tmp_path / "tpmrm0"
        device.write_bytes(b"")
        # Root may open any file; everybody else is told so by the kernel.
        monkeypatch.setattr(os, "access", lambda *_: False)
        said = TpmAttester(str(device)).unavailable()
        assert said == f"tpm: {device} may not be opened; run as root or as a member of its group"

    def test_a_device_that_answers(self, tpm: str) -> None:
        assert TpmAttester(tpm).unavailable() is None

    def test_a_socket_that_nobody_listens_at(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(tmp_path / "s"))
        with pytest.raises(OutsideError, match=r"no TPM answers at .*/s: Connection refused"):
            quoted(str(tmp_path / "s"))

    def test_a_directory_is_no_device(self, tmp_path: Path) -> None:
        with pytest.raises(OutsideError, match=r"no TPM answers at .*: Is a directory"):
            quoted(str(tmp_path))

    def test_a_file_is_no_device(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(OutsideError, match=r"what answers at .*/file is no TPM 2\.0"):
            quoted(str(tmp_path / "file"))


@pytest.mark.parametrize("pcrs", [(), (24,), (-1, 0)])
def test_registers_that_no_tpm_has_are_a_mistake(pcrs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="name some of 0 to 23"):
        TpmAttester(pcrs=pcrs)


def test_a_key_that_is_not_there_is_told_with_the_tpms_code(tpm: str) -> None:
    with pytest.raises(TpmError, match="the TPM refuses TPM2_ReadPublic with code 0x18b") as caught:
        quoted(tpm, ak_handle=0x81010077)
    assert caught.value.not_there


def test_an_endorsement_hierarchy_with_a_password_is_told(own_tpm: str) -> None:
    command(own_tpm, 0x129, (ENDORSEMENT,), sized(b"password"))  # TPM2_HierarchyChangeAuth
    with pytest.raises(OutsideError, match="its endorsement hierarchy may have a password: the TPM refuses") as caught:
        quoted(own_tpm)
    assert "password" in caught.value.message


def test_a_bank_that_the_tpm_does_not_have_is_told(tmp_path: Path) -> None:
    nothing = answer_of(struct.pack(">II", 1, 0) + struct.pack(">I", 0))
    with (
        answering(tmp_path / "s", nothing),
        Tpm(str(tmp_path / "s")) as device,
        pytest.raises(OutsideError, match=r"does not have all of the PCRs \[0\] in bank 0x000b"),
    ):
        device.read_pcrs(SHA256, (0,))


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """What gives one answer a command, the last one for ever, and closes after a short one; yields the commands."""
    commands: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while True:
                    received = connection.recv(MAX_ANSWER_BYTES)
                    if not received:
                        return
                    commands.append(received)
                    answer = answers[min(len(commands), len(answers)) - 1]
                    connection.sendall(answer)
                    if len(answer) < 10:
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield commands
        finally:
            thread.join()


def answer_of(parameters: bytes, *, code: int = 0, size: int | None = None) -> bytes:
    return struct.pack(">HII", 0x8001, 10 + len(parameters) if size is None else size, code) + parameters


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x80\x01",
        answer_of(b""),
        answer_of(b"\x00\x20short"),
        answer_of(b"\x00\x00", size=11),
        answer_of(sized(bytes(3))),
    ],
    ids=["nothing", "no header", "no parameters", "a short one", "another size", "a short area"],
)
def test_what_is_no_tpm_is_told(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "s", answer), pytest.raises(OutsideError, match=r"is no TPM 2\.0: its answer is not of"):
        quoted(str(tmp_path / "s"))


def test_a_tpm_that_is_busy_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.attester.tpm2.TRY_AGAIN_SECONDS", 0.0)
    busy = answer_of(b"", code=0x922)
    with answering(tmp_path / "s", busy, busy, answer_of(sized(b"area"))) as commands, Tpm(str(tmp_path / "s")) as tpm:
        assert tpm.read_public(1) == b"area"
        assert len(commands) == 3
        assert len(set(commands)) == 1


def test_a_tpm_that_is_always_busy_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.attester.tpm2.TRY_AGAIN_SECONDS", 0.0)
    with (
        answering(tmp_path / "s", answer_of(b"", code=0x922)) as commands,
        Tpm(str(tmp_path / "s")) as tpm,
        pytest.raises(TpmError, match="code 0x922"),
    ):
        tpm.read_public(1)
    assert len(commands) == MAX_TRIES


def test_an_nv_index_is_bounded_and_cannot_end_early(tmp_path: Path) -> None:
    def public(size: int) -> bytes:
        return answer_of(sized(struct.pack(">IHIHH", 1, SHA256, 0, 0, size)))

    with (
        answering(tmp_path / "a", public(16385)),
        Tpm(str(tmp_path / "a")) as tpm,
        pytest.raises(OutsideError, match="NV index 0x1 has 16385 bytes, expected at most 16384"),
    ):
        tpm.nv_read(1)
    with (
        answering(tmp_path / "b", public(5), answer_of(struct.pack(">IH", 2, 0))),
        Tpm(str(tmp_path / "b")) as tpm,
        pytest.raises(OutsideError, match="is no TPM"),
    ):
        tpm.nv_read(1)
    with (
        answering(tmp_path / "c", answer_of(b"", code=0x101)),
        Tpm(str(tmp_path / "c")) as tpm,
        pytest.raises(TpmError, match="TPM2_NV_ReadPublic with code 0x101"),
    ):
        tpm.nv_read(1)


def test_registers_that_change_all_the_time_are_told(tpm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Tpm.read_pcrs

    def late(self: Tpm, bank: int, pcrs: tuple[int, ...]) -> dict[int, bytes]:
        return {pcr: bytes([1]) + value[1:] for pcr, value in read(self, bank, pcrs).items()}

    monkeypatch.setattr(Tpm, "read_pcrs", late)
    with pytest.raises(OutsideError, match=r"PCRs \[16\] change all the time; quote those that only the start extends"):
        quoted(tpm, pcrs=(16,))


def test_the_evidence_is_of_the_documented_form(tpm: str) -> None:
    _, evidence, _ = quoted(tpm)
    parsed = parse_evidence(evidence)
    assert parse_quote(parsed.quote).nonce == qualifying_data(REPORT_DATA)
