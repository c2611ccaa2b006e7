"""TDX quotes and SNP reports through configfs, played in a directory: the protocol of generations, and the table."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.chains import NOW
from tests.simulators.genuine import Case, cases, pem
from tests.simulators.snp_chip import make_chip
from tests.simulators.tsm_host import GUIDS, TsmHost, certificate_table, chip_table

from ostiary.attester import Evidence, configfs_tsm
from ostiary.attester.configfs_tsm import (
    ATTEMPTS,
    MAX_BLOB_BYTES,
    MAX_NAMES,
    MAX_TABLE_ENTRIES,
    ConfigfsTsmAttester,
    certificates_as_pem,
)
from ostiary.errors import ConfigurationError, OutsideError
from ostiary.evidence.bundle import parse_bundle
from ostiary.evidence.snp.verify import verify

REPORT_DATA = bytes(range(64))
REPORT = bytes(1184)


def attester(host: TsmHost, **options: Any) -> ConfigfsTsmAttester:
    return ConfigfsTsmAttester(str(host.directory), make=host.mkdir, remove=host.rmdir, **options)


@pytest.mark.parametrize("case", cases("tdx"), ids=str)
def test_genuine_td_quotes_come_back_as_they_are_and_without_endorsements(tmp_path: Path, case: Case) -> None:
    quote = case.files["quote.bin"]
    host = TsmHost(tmp_path, lambda data, _: quote if data == REPORT_DATA else b"", provider="tdx_guest")
    assert attester(host).attest(REPORT_DATA, None) == Evidence(tee="tdx", evidence=quote, endorsements=b"")
    assert host.requests == [(REPORT_DATA, None)], "report data in one piece, and no privilege level"
    assert list(tmp_path.iterdir()) == [], "the request was removed"


@pytest.mark.parametrize("case", [case for case in cases("snp") if "vcek.der" in case.files], ids=str)
def test_genuine_snp_reports_come_with_the_certificates_of_the_table(tmp_path: Path, case: Case) -> None:
    report = case.files["report.bin"]
    names = ("vcek", "ask", "ark")
    table = certificate_table(*((name, case.files[f"{name}.der"]) for name in names))
    made = attester(TsmHost(tmp_path, lambda *_: report, table=table)).attest(REPORT_DATA, None)
    assert (made.tee, made.evidence) == ("snp", report)
    expected = parse_bundle(pem(*(case.files[f"{name}.der"] for name in names)))
    assert parse_bundle(made.endorsements) == expected


def test_a_report_of_a_played_chip_verifies_with_its_table(tmp_path: Path) -> None:
    chip = make_chip()
    host = TsmHost(tmp_path, lambda data, _: chip.report({0x50: data}), table=chip_table(chip))
    made = attester(host).attest(REPORT_DATA, None)
    claims = verify(made.evidence, made.endorsements, roots=(chip.root.root(),), now=NOW)
    assert (claims.tee, claims.report_data) == (made.tee, REPORT_DATA)


def test_a_host_without_certificates_gives_a_report_alone(tmp_path: Path) -> None:
    """The service may have them."""
    made = attester(TsmHost(tmp_path, lambda *_: REPORT)).attest(REPORT_DATA, None)
    assert made == Evidence(tee="snp", evidence=REPORT, endorsements=b"")


def test_a_round_that_somebody_disturbed_is_not_used(tmp_path: Path) -> None:
    """What was read while another wrote may be about the other's data."""
    rounds = iter([b"of another", b"of a third", REPORT])
    host = TsmHost(tmp_path, lambda *_: next(rounds), disturbed=2)
    assert attester(host).attest(REPORT_DATA, None).evidence == REPORT
    assert host.requests == [(REPORT_DATA, None)] * 3


def test_a_report_that_is_always_disturbed_is_refused(tmp_path: Path) -> None:
    host = TsmHost(tmp_path, lambda *_: REPORT, disturbed=ATTEMPTS)
    with pytest.raises(OutsideError, match="the kernel counted other writes than ours"):
        attester(host).attest(REPORT_DATA, None)
    assert len(host.requests) == ATTEMPTS
    assert list(tmp_path.iterdir()) == []


def test_a_read_that_would_block_begins_the_round_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so when the request changed during the read."""
    host = TsmHost(tmp_path, lambda *_: REPORT, provider="tdx_guest")
    pending = [BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")]

    def opened(path: str, mode: str, **options: Any) -> Any:
        file = open(path, mode, **options)  # noqa: SIM115 - the caller closes it
        if path.endswith("outblob") and pending:
            file.close()
            raise pending.pop()
        return file

    monkeypatch.setattr(configfs_tsm, "open", opened, raising=False)
    assert attester(host).attest(REPORT_DATA, None).evidence == REPORT
    assert len(host.requests) == 2


@pytest.mark.parametrize(("floor", "asked", "expected"), [
    (None, None, None), (0, None, None), (2, None, 2), (0, 3, 3), (None, 0, 0),
])  # fmt: skip
def test_the_privilege_level_is_the_one_asked_for_or_the_kernels_own(
    tmp_path: Path, floor: int | None, asked: int | None, expected: int | None
) -> None:
    """Under an SVSM a kernel runs at a level below 0, and may not have reports of level 0."""
    host = TsmHost(tmp_path, lambda *_: REPORT, floor=floor)
    attester(host, privlevel=asked).attest(REPORT_DATA, None)
    assert host.requests == [(REPORT_DATA, expected)]


@pytest.mark.parametrize("level", [-1, 4])
def test_privilege_levels_that_do_not_exist_are_refused(level: int) -> None:
    with pytest.raises(ConfigurationError, match="expected 0 to 3"):
        ConfigfsTsmAttester(privlevel=level)


def test_a_provider_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    host = TsmHost(tmp_path, lambda *_: REPORT, provider="arm_cca_guest")
    reason = "reports of the provider 'arm_cca_guest' are not known; expected sev_guest or tdx_guest"
    assert attester(host).unavailable() == reason
    with pytest.raises(OutsideError, match="arm_cca_guest"):
        attester(host).attest(REPORT_DATA, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("provider", ["sev_guest", "tdx_guest"])
def test_known_providers_are_available_and_nothing_is_left_behind(tmp_path: Path, provider: str) -> None:
    host = TsmHost(tmp_path, lambda *_: REPORT, provider=provider)
    assert attester(host).unavailable() is None
    assert list(tmp_path.iterdir()) == []
    assert host.requests == []


@pytest.mark.parametrize(("number", "reason"), [
    (errno.ENXIO, "no driver gives reports in /d; load tdx_guest or sev-guest"),
    (errno.EACCES, "a report of this virtual machine takes root: /d may not be written to"),
    (errno.EPERM, "a report of this virtual machine takes root: /d may not be written to"),
    (errno.ENOENT, "no request can be made in /d: No such file or directory"),
])  # fmt: skip
def test_why_the_kernel_makes_no_request_is_told(number: int, reason: str) -> None:
    def refuse(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    tsm = ConfigfsTsmAttester("/d", make=refuse)
    assert tsm.unavailable() == reason
    with pytest.raises(OutsideError, match=reason):
        tsm.attest(REPORT_DATA, None)


def test_names_that_killed_processes_left_are_passed_over(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"ostiary-{os.getpid()}-{number}").mkdir()
    host = TsmHost(tmp_path, lambda *_: REPORT)
    assert attester(host).attest(REPORT_DATA, None).evidence == REPORT


def test_without_a_free_name_the_request_is_refused() -> None:
    tried: list[str] = []

    def refuse(path: str) -> None:
        tried.append(path)
        raise FileExistsError(errno.EEXIST, "File exists", path)

    assert "full of requests that nobody removed" in str(ConfigfsTsmAttester("/d", make=refuse).unavailable())
    assert len(set(tried)) == MAX_NAMES


@pytest.mark.parametrize(("report", "reason"), [
    (lambda *_: b"", "gives an empty report"),
    (lambda *_: bytes(MAX_BLOB_BYTES + 1), "outblob has more than 32768 bytes"),
])  # fmt: skip
def test_reports_that_are_none_are_refused(
    tmp_path: Path, report: Callable[[bytes, int | None], bytes], reason: str
) -> None:
    with pytest.raises(OutsideError, match=reason):
        attester(TsmHost(tmp_path, report, provider="tdx_guest")).attest(REPORT_DATA, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("generation", None, "gives no report at .*: No such file or directory"),
    ("generation", b"\n", "generation is b'', expected a number"),
    ("generation", b"-1\n", "generation is b'-1', expected a number"),
    ("privlevel_floor", b"high\n", "privlevel_floor is b'high', expected a number"),
    ("inblob", None, "gives no report at .*: No such file|Is a directory"),
    ("provider", None, "does not name its provider at .*: No such file"),
    ("provider", bytes(100), "does not name its provider at .*: provider has more than 64 bytes"),
])  # fmt: skip
def test_a_directory_that_is_no_request_of_the_kernel_is_refused(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    """An ordinary directory, or one of another system: no evidence, and no wait without end."""

    def make(path: str) -> None:
        os.mkdir(path)
        for file, usual in (("generation", b"0\n"), ("privlevel_floor", b"0\n"), ("provider", b"tdx_guest\n")):
            (Path(path) / file).write_bytes(usual)
        (Path(path) / "inblob").touch()
        if content is None:
            (Path(path) / name).unlink()
            if name == "inblob":
                (Path(path) / name).mkdir()
        else:
            (Path(path) / name).write_bytes(content)

    with pytest.raises(OutsideError, match=reason):
        ConfigfsTsmAttester(str(tmp_path), make=make).attest(REPORT_DATA, None)


# The certificate table.

DER = bytes.fromhex("3003020101")
OTHER = bytes.fromhex("3003020102")
LINES = b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"
OF_VLEK = REPORT[:0x48] + (1 << 2).to_bytes(4, "little") + REPORT[0x4C:]


def test_of_vcek_and_vlek_the_one_that_signed_is_sent() -> None:
    """A service takes one certificate that is no CA."""
    table = certificate_table(("vlek", OTHER), ("vcek", DER))
    assert certificates_as_pem(table, REPORT) == LINES
    assert certificates_as_pem(table, OF_VLEK) == LINES.replace(b"QE=", b"QI=")
    assert certificates_as_pem(table, bytes(0x48) + b"\xff" * 4) == b""


def test_guids_count_in_both_orders() -> None:
    """Seen on hardware in the order of RFC 9562; the kernel's guid_t has the first three parts reversed."""
    assert bytes.fromhex(GUIDS["vcek"])[:8].hex() == "63da758de6644564"
    assert certificates_as_pem(certificate_table(("8d75da6364e66445adc5f4b93be8accd", DER)), REPORT) == LINES


def test_revocation_lists_are_taken_and_what_is_unknown_is_not() -> None:
    table = certificate_table(("00" * 15 + "01", OTHER), ("crl", DER), ("ark", DER))
    assert certificates_as_pem(table, REPORT) == LINES + LINES.replace(b"CERTIFICATE", b"X509 CRL")


def test_of_each_kind_the_first_is_taken_and_of_long_tables_the_begin() -> None:
    """A table whose entries all point at one place would grow beyond what a request may carry."""
    assert certificates_as_pem(certificate_table(("vcek", DER), ("vcek", OTHER)), REPORT) == LINES
    unknown = [("ff" * 16, OTHER)] * (MAX_TABLE_ENTRIES - 1)
    assert certificates_as_pem(certificate_table(*unknown, ("vcek", DER)), REPORT) == LINES
    assert certificates_as_pem(certificate_table(*unknown, unknown[0], ("vcek", DER)), REPORT) == b""


def test_certificates_that_are_pem_already_stay_so() -> None:
    assert certificates_as_pem(certificate_table(("vcek", LINES + b"\x00")), REPORT) == LINES


@pytest.mark.parametrize("table", [
    b"",
    bytes(4096),
    certificate_table(("vcek", DER))[:-1],
    certificate_table(("vcek", b"text")),
    certificate_table(("vcek", b"")),
    certificate_table()[:-1],
    bytes(24) + certificate_table(("vcek", DER)),
    bytes.fromhex(GUIDS["vcek"]) + b"\xff" * 8,
])  # fmt: skip
def test_what_is_no_table_gives_no_certificates(table: bytes) -> None:
    assert certificates_as_pem(table, REPORT) == b""


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_no_table_and_no_report_raise(table: bytes, report: bytes) -> None:
    """Both come through the host; the service judges what becomes of them."""
    certificates_as_pem(table, report)
    certificates_as_pem(bytes.fromhex(GUIDS["vcek"]) + table, report)
