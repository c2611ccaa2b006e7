"""SNP reports: bytes to fields, and what is none."""

from __future__ import annotations

import pytest
from tests.simulators.genuine import Case, cases
from tests.simulators.snp_chip import CHIP_ID, MEASUREMENT, REPORT_DATA, make_chip

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.snp.layout import parse_report, shown, tcb_parts

CHIP = make_chip()
GOOD = CHIP.report(version=5)


def patched(offset: int, value: bytes) -> bytes:
    return GOOD[:offset] + value + GOOD[offset + len(value) :]


@pytest.mark.parametrize("case", cases("snp"), ids=str)
def test_every_field_of_genuine_reports(case: Case) -> None:
    """Also of those whose signature or certificates are wrong."""
    product = next(word for word in ("Genoa", "Turin", "Milan") if word.lower() in case.name or word == "Milan")
    assert shown(parse_report(case.files["report.bin"]), product) == case.claims


def test_fields_of_a_report() -> None:
    report = parse_report(GOOD)
    assert (report.version, report.guest_svn, report.vmpl, report.signing_key) == (5, 5, 0, "VCEK")
    assert (report.measurement, report.report_data, report.chip_id) == (MEASUREMENT, REPORT_DATA, CHIP_ID)
    assert report.signed == GOOD[:0x2A0]
    assert not report.debug


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "SNP report: 0 bytes, expected 1184"),
        (GOOD[:-1], "SNP report: 1183 bytes, expected 1184"),
        (GOOD + b"\x00", "SNP report: 1185 bytes, expected 1184"),
        (patched(0, b"\x01"), "version at 0x000: 1, expected 2 to 5"),
        (patched(0, b"\x06"), "version at 0x000: 6, expected 2 to 5"),
        (patched(0x34, b"\x02"), "signature algorithm at 0x034: 2, expected 1"),
        (patched(0x48, b"\x08"), "signing key at 0x048: 0x8, expected VCEK"),
        (patched(0x4B, b"\x80"), "signing key at 0x048: 0x80000000, expected VCEK"),
        (patched(0x4C, b"\x01"), "reserved bytes at 0x04c: not zero"),
        (patched(0x19F, b"\x01"), "reserved bytes at 0x18b: not zero"),
        (patched(0x208, b"\x01"), "reserved bytes at 0x208: not zero"),
        (patched(0x2D0, b"\x01"), "reserved bytes at 0x2d0: not zero"),
        (patched(0x318, b"\x01"), "reserved bytes at 0x318: not zero"),
        (patched(0x49F, b"\x01"), "reserved bytes at 0x318: not zero"),
        (CHIP.report({0x188: b"\x19"}, version=2), "reserved bytes at 0x188: not zero"),
        (CHIP.report({0x1F8: b"\x01"}, version=4), "reserved bytes at 0x1f8: not zero"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        parse_report(data)


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x01, 1), "Milan"),
        ((0x19, 0x11, 1), "Genoa"),
        ((0x19, 0xA0, 2), "Genoa"),
        ((0x1A, 0x02, 1), "Turin"),
        ((0x17, 0x31, 0), None),
    ],
)
def test_the_product_is_that_of_the_cpuid(cpuid: tuple[int, int, int], product: str | None) -> None:
    assert parse_report(CHIP.report({0x188: bytes(cpuid)})).product == product


def test_a_report_of_version_2_names_no_product() -> None:
    assert parse_report(CHIP.report(version=2)).product is None


def test_turin_lays_the_tcb_version_out_otherwise() -> None:
    tcb = bytes(range(8))
    assert tcb_parts(tcb, "Turin") == {"fmc": 0, "bl": 1, "tee": 2, "snp": 3, "ucode": 7}
    assert tcb_parts(tcb, "Milan") == tcb_parts(tcb, "Genoa") == {"bl": 0, "tee": 1, "snp": 6, "ucode": 7}
