"""Names of endorsements: closed forms, so that no name reaches an address or a record that nobody meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.endorsements.part import Part, parse_part


@pytest.mark.parametrize(
    "text",
    [
        "tcb-info/sgx/00606a000000",
        "tcb-info/tdx/b0c06f000000",
        "qe-identity/tdx",
        "pck-crl/processor",
        "root-crl/intel",
        f"vcek/Milan/{'ab' * 64}/0300000000000873",
        "vcek/Turin/3b42092f69c656d3/0001000200000000",
        "amd-chain/vlek/Genoa",
        "amd-crl/Turin",
    ],
)
def test_a_name_comes_back(text: str) -> None:
    assert str(parse_part(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcb-info",
        "tcb-info/sgx/00606A000000",
        "tcb-info/sgx/00606a00000",
        "tcb-info/snp/00606a000000",
        "tcb-info/sgx/00606a000000\n",
        "tcb-info/sgx/../../x",
        "qe-identity/sgx?x=1",
        "pck-crl/other",
        "root-crl/amd",
        "vcek/Milan/3b42092f69c656d3/0001000200000000",
        f"vcek/Turin/{'ab' * 64}/0300000000000873",
        "amd-chain/Milan",
        "amd-crl/Rome",
        "other/x",
    ],
)
def test_any_other_name_is_refused(text: str) -> None:
    with pytest.raises(EvidenceFormatError, match="no endorsement has the name"):
        parse_part(text)


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        part = parse_part(text)
    except EvidenceFormatError:
        return
    assert str(part) == text


def test_statements_are_what_vendors_renew() -> None:
    assert Part(kind="pck-crl", name="platform").is_statement
    assert not Part(kind="amd-chain", name="vcek/Milan").is_statement
