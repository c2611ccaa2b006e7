"""The Nitro Security Module: the bytes on the wire, and the ioctl that carries them."""

from __future__ import annotations

from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.chains import NOW
from tests.simulators.genuine import Case, cases
from tests.simulators.nitro_host import make_host
from tests.simulators.nsm import ANSWER_SAMPLE, ERROR_SAMPLE, IOCTL_RAW, REQUEST_SAMPLE, Nsm, document_answer

from ostiary.attester import Evidence, nitro
from ostiary.attester.nitro import NitroAttester, attestation_request, parse_answer
from ostiary.errors import OutsideError
from ostiary.evidence.nitro.verify import verify

REPORT_DATA = bytes(range(64))
REQUEST = {"Attestation": {"user_data": REPORT_DATA, "nonce": None, "public_key": None}}


@pytest.fixture
def device(tmp_path: Path) -> str:
    """Something that can be opened; the ioctl is played."""
    (tmp_path / "nsm").touch()
    return str(tmp_path / "nsm")


def test_the_request_is_in_the_form_of_the_published_sample() -> None:
    """The same members in the same order as AWS's library encodes them, which the published bytes pin."""
    sample, decoded = bytes.fromhex(REQUEST_SAMPLE[0]), REQUEST_SAMPLE[1]
    assert cbor2.loads(sample) == decoded
    assert cbor2.dumps(decoded) == sample, "cbor2 encodes as that library does"
    assert attestation_request(REPORT_DATA) == cbor2.dumps(REQUEST)
    changed = sample.replace(b"\x42\x09\x09", b"\x58\x40" + REPORT_DATA).replace(
        b"public_key\x41\x07", b"public_key\xf6"
    )
    assert attestation_request(REPORT_DATA) == changed


def test_the_offsets_of_the_request_are_as_documented() -> None:
    request = attestation_request(REPORT_DATA)
    assert len(request) == 109
    assert [request[at : at + 1].hex() for at in (0, 1, 13, 14, 24, 25, 90, 96, 97, 108)] == [
        *("a1", "6b", "a3", "69", "58", "40", "65", "f6", "6a", "f6"),
    ]
    assert request[26:90] == REPORT_DATA


def test_report_data_of_another_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="report data of 63 bytes, expected 64"):
        attestation_request(bytes(63))


def test_published_answers_are_understood() -> None:
    assert parse_answer(bytes.fromhex(ANSWER_SAMPLE[0])) == ANSWER_SAMPLE[1]
    with pytest.raises(OutsideError) as refusal:
        parse_answer(bytes.fromhex(ERROR_SAMPLE[0]))
    assert refusal.value.chain == ("the Nitro Security Module refuses to attest", ERROR_SAMPLE[1])


@pytest.mark.parametrize("size", [1, 23, 24, 255, 256, 5000, 65535])
def test_documents_of_every_size_are_cut_out(size: int) -> None:
    assert parse_answer(document_answer(bytes(size))) == bytes(size)


@pytest.mark.parametrize("answer", [
    b"",
    b"\xa1",
    cbor2.dumps({"GetRandom": {"random": b"x"}}),
    cbor2.dumps({"Attestation": {"documents": b"x"}}),
    cbor2.dumps({"Attestation": {"document": "text"}}),
    document_answer(b""),
    document_answer(b"x" * 300)[:-1],
    document_answer(b"x" * 300) + b"\x00",
    document_answer(b"x" * 300)[:25],
    document_answer(b"x" * 70000),
])  # fmt: skip
def test_answers_of_another_form_are_refused(answer: bytes) -> None:
    with pytest.raises(OutsideError, match="does not answer in the form expected"):
        parse_answer(answer)


@pytest.mark.parametrize("error", [b"", b"\x60", b"\x63a\x1bb", b"\x64abc", b"\x03", "\x64äbc".encode(), b"\x63abcd"])
def test_an_error_that_is_no_name_is_not_shown(error: bytes) -> None:
    with pytest.raises(OutsideError, match="with an error that is not text"):
        parse_answer(b"\xa1\x65Error" + error)


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xa1\x65Error", b"\xa1\x6bAttestation\xa1\x68document"]))
def test_any_answer_gives_a_document_or_the_documented_error(rest: bytes, head: bytes) -> None:
    """And a document is what CBOR says it is."""
    try:
        document = parse_answer(head + rest)
    except OutsideError:
        return
    assert cbor2.loads(head + rest) == {"Attestation": {"document": document}}


@pytest.mark.parametrize("case", cases("nitro"), ids=str)
def test_genuine_documents_come_back_as_they_are(device: str, case: Case) -> None:
    document = case.files["attestation.cbor"]
    nsm = Nsm(lambda _: document_answer(document))
    made = NitroAttester(device, ioctl=nsm.ioctl).attest(REPORT_DATA, None)
    assert made == Evidence(tee="nitro", evidence=document, endorsements=b"")
    assert nsm.requests == [REQUEST]


def test_a_document_of_a_played_module_verifies_with_the_report_data_in_it(device: str) -> None:
    host = make_host()
    nsm = Nsm(lambda request: document_answer(host.document(user_data=request["Attestation"]["user_data"])))
    made = NitroAttester(device, ioctl=nsm.ioctl).attest(REPORT_DATA, None)
    claims = verify(made.evidence, roots=(host.root.root(),), now=NOW)
    assert (claims.tee, claims.report_data) == (made.tee, REPORT_DATA)


def test_the_number_of_the_ioctl_is_that_of_the_kernels_header() -> None:
    assert nitro.IOCTL_RAW == IOCTL_RAW


def test_an_answer_that_the_driver_cut_is_refused(device: str) -> None:
    nsm = Nsm(lambda _: document_answer(bytes(nitro.MAX_ANSWER_BYTES)))
    with pytest.raises(OutsideError, match="12288 bytes with a document of 12288 bytes from offset 26"):
        NitroAttester(device, ioctl=nsm.ioctl).attest(REPORT_DATA, None)


def test_a_device_that_can_be_opened_is_available(device: str, tmp_path: Path) -> None:
    assert NitroAttester(device).unavailable() is None
    told = NitroAttester(str(tmp_path / "none")).unavailable()
    assert told == f"the NSM device {tmp_path}/none cannot be opened: No such file or directory"


def test_without_a_module_the_reason_is_told(device: str, tmp_path: Path) -> None:
    """The real ioctl, at a file and at nothing."""
    with pytest.raises(OutsideError, match="gives no attestation document: Inappropriate ioctl for device"):
        NitroAttester(device).attest(REPORT_DATA, None)
    with pytest.raises(OutsideError, match="gives no attestation document: No such file or directory"):
        NitroAttester(str(tmp_path / "none")).attest(REPORT_DATA, None)
