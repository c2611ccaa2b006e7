"""Quotes cut into fields: each field at its offset, everything else refused by name."""

from __future__ import annotations

import pytest
from tests.simulators.sgx_platform import (
    MR_ENCLAVE,
    MR_SIGNER,
    REPORT_DATA,
    SgxPlatform,
    with_byte_flipped,
    with_pck_chain,
)

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.intel.quote import MAX_QUOTE_BYTES
from ostiary.evidence.sgx.layout import parse_quote


def test_fields_stand_where_the_layout_says(platform: SgxPlatform) -> None:
    data = platform.quote()
    quote = parse_quote(data)
    frame = quote.frame
    assert frame.signed == data[:0x1B0]
    assert (frame.body, frame.body_offset) == (data[0x30:0x1B0], 0x30)
    assert (quote.report.mr_enclave, quote.report.mr_signer) == (MR_ENCLAVE, MR_SIGNER)
    assert (quote.report.isv_prod_id, quote.report.isv_svn) == (7, 3)
    assert quote.report.report_data == REPORT_DATA
    assert quote.report.cpu_svn == bytes([1]) * 16
    assert quote.report.misc_select == 0
    assert (frame.qe_svn, frame.pce_svn, frame.user_data) == (1, 1, bytes(20))
    assert frame.signature == data[0x1B4:0x1F4]
    assert frame.attestation_key == data[0x1F4:0x234]
    assert frame.qe_report_signature == data[0x3B4:0x3F4]
    assert frame.qe_auth_data == bytes(range(32))
    assert frame.certification == platform.certificates.pck_chain


@pytest.mark.parametrize("debug", [False, True])
def test_debug_is_the_second_attribute_bit(platform: SgxPlatform, debug: bool) -> None:
    assert parse_quote(platform.quote(debug=debug)).report.debug is debug


def test_extended_report_fields_may_have_any_value(platform: SgxPlatform) -> None:
    for offset in (0x30 + 0x20, 0x30 + 0xC0, 0x30 + 0x104, 0x30 + 0x130):
        parse_quote(with_byte_flipped(platform.quote(), offset))


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (0x000, "version at offset 0x0 is 2, expected 3 or 4 or 5"),
        (0x002, "attestation key type at offset 0x2 is 3, expected 2"),
        (0x004, "TEE type at offset 0x4 is 1, expected 0"),
        (0x044, "report body, reserved bytes at offset 0x14 of it are not zero, expected 12 zeros"),
        (0x090, "report body, reserved bytes at offset 0x60 of it are not zero, expected 32 zeros"),
        (0x0D0, "report body, reserved bytes at offset 0xa0 of it are not zero, expected 32 zeros"),
        (0x136, "report body, reserved bytes at offset 0x106 of it are not zero, expected 42 zeros"),
        (0x234 + 0x14, "QE report body, reserved bytes at offset 0x14 of it are not zero, expected 12 zeros"),
        (0x1B0, "signature data ends at offset"),
        (0x418, "certification data ends at offset"),
    ],
)
def test_other_form_is_refused_with_field_and_offset(platform: SgxPlatform, offset: int, message: str) -> None:
    with pytest.raises(EvidenceFormatError) as refusal:
        parse_quote(with_byte_flipped(platform.quote(), offset))
    assert message in str(refusal.value)


def test_trailing_byte_is_refused(platform: SgxPlatform) -> None:
    data = platform.quote()
    with pytest.raises(EvidenceFormatError, match=f"signature data ends at offset {len(data):#x}, expected the end"):
        parse_quote(data + b"\1")


def test_zeros_that_a_host_adds_are_not_part_of_the_quote(platform: SgxPlatform) -> None:
    data = platform.quote()
    assert parse_quote(data + bytes(100)) == parse_quote(data)


def test_every_shorter_quote_is_refused(platform: SgxPlatform) -> None:
    data = platform.quote()
    for size in range(len(data)):
        with pytest.raises(EvidenceFormatError):
            parse_quote(data[:size])


def test_missing_bytes_are_named() -> None:
    with pytest.raises(EvidenceFormatError, match="QE vendor id at offset 0xc needs 16 bytes, found 0"):
        parse_quote(bytes([3, 0, 2, 0]) + bytes(8))


def test_oversized_quote_is_refused(platform: SgxPlatform) -> None:
    data = with_pck_chain(platform.quote(), bytes(MAX_QUOTE_BYTES))
    with pytest.raises(EvidenceFormatError, match="expected at most 32768"):
        parse_quote(data)


def test_the_quoting_enclave_names_itself_in_the_first_16_bytes_of_the_user_data(platform: SgxPlatform) -> None:
    data = bytearray(platform.quote())
    data[0x1C:0x30] = bytes(range(20))
    assert parse_quote(bytes(data)).frame.qe_id == bytes(range(16))
