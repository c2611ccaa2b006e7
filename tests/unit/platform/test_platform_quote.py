"""Quotes of the software platform are made of parts of the right size."""

from __future__ import annotations

import pytest
from tests.simulators.sgx_platform import make_platform

from ostiary.platform.quote import Enclave, Quoter


@pytest.mark.parametrize(
    ("enclave", "report_data", "message"),
    [
        (Enclave(mr_enclave=bytes(31), mr_signer=bytes(32)), bytes(64), "part at 0x40 has 31 bytes, expected 32"),
        (Enclave(mr_enclave=bytes(32), mr_signer=bytes(33)), bytes(64), "part at 0x80 has 33 bytes, expected 32"),
        (Enclave(mr_enclave=bytes(32), mr_signer=bytes(32)), bytes(32), "part at 0x140 has 32 bytes, expected 64"),
    ],
)
def test_part_of_another_size_is_refused(enclave: Enclave, report_data: bytes, message: str) -> None:
    platform = make_platform()
    quoter = Quoter(attestation_key=platform.keys.attestation, platform_key=platform.keys.platform, pck_chain=b"chain")
    with pytest.raises(ValueError, match=message):
        quoter.quote(enclave, report_data)
