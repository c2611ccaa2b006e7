"""Addresses of vendors, and what may come back from there."""

from __future__ import annotations

import contextlib
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.snp_chip import CHIP_ID
from tests.simulators.vendors import (
    AMD_CHAIN,
    OF_QUOTE,
    OF_REPORT,
    PCK_CRL,
    QE_IDENTITY,
    ROOT_CRL,
    TCB_INFO,
    VCEK,
    Vendor,
)

from ostiary.errors import ConfigurationError, EvidenceFormatError
from ostiary.evidence.endorsements.part import Part, parse_part
from ostiary.evidence.endorsements.piece import MAX_TEXT_BYTES
from ostiary.evidence.endorsements.vendors import (
    AMD_KDS,
    INTEL_PCS,
    INTEL_ROOT_CRL,
    Places,
    address_of,
    members_as_written,
    place,
    read_answer,
    read_thim,
)

BOTH = Places(pcs=INTEL_PCS, kds=AMD_KDS)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("tcb-info/sgx/00606a000000", "/sgx/certification/v4/tcb?fmspc=00606A000000&update=standard"),
        ("tcb-info/tdx/b0c06f000000", "/tdx/certification/v4/tcb?fmspc=B0C06F000000&update=standard"),
        ("qe-identity/tdx", "/tdx/certification/v4/qe/identity?update=standard"),
        ("pck-crl/processor", "/sgx/certification/v4/pckcrl?ca=processor&encoding=der"),
    ],
)
def test_intel_is_asked_at_its_addresses(part: str, path: str) -> None:
    assert address_of(parse_part(part), BOTH) == INTEL_PCS + path


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("amd-chain/vlek/Genoa", "/vlek/v1/Genoa/cert_chain"),
        ("amd-crl/Turin", "/vcek/v1/Turin/crl"),
        (
            f"vcek/Milan/{CHIP_ID.hex()}/0300000000000873",
            f"/vcek/v1/Milan/{CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115",
        ),
        (
            "vcek/Turin/3b42092f69c656d3/0101020400000052",
            "/vcek/v1/Turin/3b42092f69c656d3?fmcSPL=01&blSPL=01&teeSPL=02&snpSPL=04&ucodeSPL=82",
        ),
    ],
)
def test_amd_is_asked_at_its_addresses(part: str, path: str) -> None:
    assert address_of(parse_part(part), BOTH) == AMD_KDS + path


def test_the_list_of_intels_root_is_elsewhere_at_intel_and_not_at_a_pccs() -> None:
    assert address_of(ROOT_CRL, BOTH) == INTEL_ROOT_CRL
    assert address_of(ROOT_CRL, Places(pcs="https://p:8081")) == "https://p:8081/sgx/certification/v4/rootcacrl"


def test_early_data_is_asked_for_by_name() -> None:
    assert str(address_of(TCB_INFO, Places(pcs=INTEL_PCS, update="early"))).endswith("&update=early")


def test_nobody_is_asked_who_is_not_named() -> None:
    assert address_of(VCEK, Places(pcs=INTEL_PCS)) is None
    assert address_of(TCB_INFO, Places(kds=AMD_KDS)) is None


@pytest.mark.parametrize(
    "text",
    [
        "https://p:8081",
        "https://p:8081/",
        "https://p:8081/sgx/certification/v4/",
        "https://p:8081/tdx/certification/v4",
    ],
)
def test_an_address_may_be_written_as_in_other_programs(text: str) -> None:
    assert place(text, option="--pcs") == "https://p:8081"


@pytest.mark.parametrize(
    "text",
    ["", "p:8081", "http://p", "https://", "https://p/?x=1", "https://p/#a", "https://u@p", "https://p q"],
)
def test_an_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--pcs .*expected https://HOST"):
        place(text, option="--pcs")


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [*OF_QUOTE, *OF_REPORT], ids=str)
def test_a_good_answer_is_read(vendor: Vendor, part: Part) -> None:
    assert vendor.piece(part).part == part


def test_signed_text_is_kept_byte_for_byte(vendor: Vendor) -> None:
    text = '{"b" : 1,  "a":[1.0, "\\u0041"] }'
    body = f' {{ "signature" : "00ff" ,\n "tcbInfo": {text} }} '.encode()
    piece = read_answer(TCB_INFO, {"sgx-tcb-info-issuer-chain": "x%0Ay"}, body)
    assert (piece.data, piece.signature, piece.chain) == (text.encode(), b"\x00\xff", b"x\ny")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b'{"tcbInfo":{}', "not a JSON object"),
        (b'{"tcbInfo":{},"tcbInfo":{}}', "not a JSON object"),
        (b'{"tcbInfo":{}}', "no members tcbInfo and signature"),
        (b'{"enclaveIdentity":{},"signature":"00"}', "no members tcbInfo and signature"),
        (b'{"tcbInfo":{},"signature":"0g"}', "signature is not hex"),
        (b'{"tcbInfo":{},"signature":"00"} {}', "text after the JSON object"),
        ('{"tcbInfo":{"é":1},"signature":"00"}'.encode(), "not ASCII text"),
        (b"[" * 150_000, "not a JSON object"),
        (b'{"a":' * 20_000, "not a JSON object"),
        (b" " * (MAX_TEXT_BYTES + 1), "not ASCII text of at most"),
    ],
)
def test_an_answer_that_is_no_tcb_info_is_refused(body: bytes, match: str) -> None:
    with pytest.raises(EvidenceFormatError, match=match):
        read_answer(TCB_INFO, {"tcb-info-issuer-chain": "x"}, body)


@pytest.mark.parametrize("part", [TCB_INFO, QE_IDENTITY, PCK_CRL], ids=str)
def test_an_answer_without_issuer_chain_is_refused(vendor: Vendor, part: Part) -> None:
    _, body = vendor.answer(part)
    with pytest.raises(EvidenceFormatError, match=r"no header .*issuer-chain with the chain of who signed it"):
        read_answer(part, {}, body)


def test_a_list_is_read_in_der_pem_and_hex(vendor: Vendor) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    der = vendor.piece(ROOT_CRL).data
    pem = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
    for body in (der, pem, der.hex().encode(), der.hex().upper().encode() + b"\n"):
        assert read_answer(ROOT_CRL, {}, body).data == der


@pytest.mark.parametrize(
    "body",
    [b"", b"abc", b"00", b"-----BEGIN X509 CRL-----\nAA\n-----END X509 CRL-----", b"\x30\x82"],
)
def test_an_answer_that_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match="the answer for root-crl/intel"):
        read_answer(ROOT_CRL, {}, body)


def test_an_answer_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(EvidenceFormatError, match="not a certificate"):
        read_answer(VCEK, {}, b"<html>")
    with pytest.raises(EvidenceFormatError, match="not PEM certificates"):
        read_answer(AMD_CHAIN, {}, b"<html>")


@given(st.binary(max_size=200), st.sampled_from([*OF_QUOTE, *OF_REPORT]))
def test_no_answer_raises_anything_undocumented(body: bytes, part: Part) -> None:
    headers = {"tcb-info-issuer-chain": "", "sgx-enclave-identity-issuer-chain": "", "sgx-pck-crl-issuer-chain": ""}
    with contextlib.suppress(EvidenceFormatError):
        read_answer(part, headers, body)


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_members_come_back_as_they_were_written(members: dict[str, object]) -> None:
    found = members_as_written(json.dumps(members), "x") if members else {}
    assert {name: json.loads(value) for name, value in found.items()} == members


# --- Azure -----------------------------------------------------------------------------------------------------------


def test_what_azures_metadata_service_gives_is_read_as_pem() -> None:
    answer = {"vcekCert": "A\n", "tcbm": "DB18000000000004", "certificateChain": "B\n", "cacheControl": "86400"}
    assert read_thim(json.dumps(answer).encode()) == b"A\n\nB\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"vcekCert":"A"}', b'{"vcekCert":1,"certificateChain":"B"}', b"\xff"],
)
def test_what_azures_metadata_service_would_not_give_is_refused(data: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match="endorsements: "):
        read_thim(data)


def test_quoting_of_chains_is_undone() -> None:
    body = b'{"tcbInfo":{},"signature":"00"}'
    chain = "-----BEGIN CERTIFICATE-----\nA+/=\n"
    assert read_answer(TCB_INFO, {"tcb-info-issuer-chain": quote(chain)}, body).chain == chain.encode()


def test_an_answer_of_azure_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.evidence.endorsements.vendors.MAX_BUNDLE_BYTES", 10)
    with pytest.raises(EvidenceFormatError, match="11 bytes, expected at most 10"):
        read_thim(b"{" + bytes(10))
