"""SGX quotes through the files that Gramine shows, here FIFOs and files with genuine quotes in them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.simulators.genuine import Case, cases

from ostiary.attester import Evidence
from ostiary.attester.gramine import MAX_QUOTE_BYTES, GramineAttester
from ostiary.errors import OutsideError
from ostiary.evidence.sgx.layout import parse_quote

QUOTE = next(case for case in cases("sgx") if case.name == "sgx-signal-dcap-2023").files["quote.bin"]
REPORT_DATA = parse_quote(QUOTE).report.report_data


@pytest.fixture
def enclave(tmp_path: Path) -> Path:
    """`/dev/attestation` of an enclave that gives QUOTE."""
    (tmp_path / "attestation_type").write_text("dcap")
    (tmp_path / "user_report_data").touch()
    (tmp_path / "quote").write_bytes(QUOTE)
    return tmp_path


def test_the_quote_is_read_after_the_report_data_were_written_in_one_piece(enclave: Path) -> None:
    """The enclave answers with a quote once it has read the 64 bytes, and not before."""
    for name in ("user_report_data", "quote"):
        (enclave / name).unlink()
        os.mkfifo(enclave / name)
    written: list[bytes] = []

    def answer() -> None:
        descriptor = os.open(enclave / "user_report_data", os.O_RDONLY)
        written.append(os.read(descriptor, 4096))
        os.close(descriptor)
        (enclave / "quote").write_bytes(QUOTE)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    assert GramineAttester(str(enclave)).attest(REPORT_DATA, None) == Evidence(
        tee="sgx", evidence=QUOTE, endorsements=b""
    )
    thread.join()
    assert written == [REPORT_DATA]


@pytest.mark.parametrize("case", [case for case in cases("sgx") if case.name != "sgx-oasis-ppid-type3"], ids=str)
def test_every_genuine_quote_is_brought_back_as_it_is(enclave: Path, case: Case) -> None:
    """The place of the report data is that of the verifier, in each quote version."""
    quote = case.files["quote.bin"]
    (enclave / "quote").write_bytes(quote)
    report_data = parse_quote(quote).report.report_data
    assert GramineAttester(str(enclave)).attest(report_data, None).evidence == quote
    assert (enclave / "user_report_data").read_bytes() == report_data


def test_a_quote_about_other_report_data_is_not_brought_back(enclave: Path) -> None:
    """Another thread wrote in between."""
    with pytest.raises(OutsideError, match="about other report data; another thread"):
        GramineAttester(str(enclave)).attest(bytes(64), None)


def test_an_enclave_that_attests_by_dcap_is_available(enclave: Path) -> None:
    assert GramineAttester(str(enclave)).unavailable() is None
    (enclave / "attestation_type").write_text("dcap\n")
    assert GramineAttester(str(enclave)).unavailable() is None


@pytest.mark.parametrize(("kind", "reason"), [
    ("none", 'built without remote attestation; set sgx.remote_attestation = "dcap"'),
    ("epid", "attests by 'epid', which nobody verifies any more"),
    ("", "attests by ''"),
])  # fmt: skip
def test_an_enclave_without_dcap_is_not_available_and_the_manifest_line_is_told(
    enclave: Path, kind: str, reason: str
) -> None:
    (enclave / "attestation_type").write_text(kind)
    told = GramineAttester(str(enclave)).unavailable()
    assert told is not None
    assert reason in told
    assert 'sgx.remote_attestation = "dcap"' in told
    assert "\n" not in told
    (enclave / "quote").unlink()
    with pytest.raises(OutsideError, match=r"gives no quote in .*No such file or directory") as refusal:
        GramineAttester(str(enclave)).attest(REPORT_DATA, None)
    assert refusal.value.causes == (told,)


def test_without_the_files_there_is_no_quote(tmp_path: Path) -> None:
    assert "no attestation_type that can be read: No such file" in str(GramineAttester(str(tmp_path)).unavailable())
    with pytest.raises(OutsideError, match="gives no quote"):
        GramineAttester(str(tmp_path / "none")).attest(REPORT_DATA, None)


def test_a_quote_that_cannot_be_made_points_at_the_quoting_service(enclave: Path) -> None:
    (enclave / "quote").unlink()
    with pytest.raises(OutsideError, match="AESM"):
        GramineAttester(str(enclave)).attest(REPORT_DATA, None)


def test_a_quote_without_end_is_refused(enclave: Path) -> None:
    (enclave / "quote").write_bytes(QUOTE.ljust(MAX_QUOTE_BYTES + 1, b"\x00"))
    with pytest.raises(OutsideError, match="quote has more than 65536 bytes"):
        GramineAttester(str(enclave)).attest(REPORT_DATA, None)
