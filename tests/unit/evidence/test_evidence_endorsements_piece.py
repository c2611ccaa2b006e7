"""An endorsement counts only if its vendor signed it, for what it is named after."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.chains import revoke
from tests.simulators.genuine import cases
from tests.simulators.genuine import pem as to_pem
from tests.simulators.sgx_platform import LIFETIME, NOW, make_platform, with_byte_flipped
from tests.simulators.snp_chip import CHIP_ID, TCB, make_chip
from tests.simulators.vendors import (
    AMD_CHAIN,
    AMD_CRL,
    DAY,
    OF_QUOTE,
    OF_REPORT,
    PCK_CRL,
    QE_IDENTITY,
    ROOT_CRL,
    TCB_INFO,
    VCEK,
    Vendor,
    another_signer,
    sign_list,
)

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, OstiaryError
from ostiary.evidence.bundle import parse_bundle
from ostiary.evidence.endorsements.choice import read_collateral
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import MAX_TEXT_BYTES, Anchors, Piece, pck_ca, verify_piece
from ostiary.evidence.roots import amd_roots, intel_root
from ostiary.platform import pki


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


def refused(piece: Piece, vendor: Vendor, match: str) -> None:
    with pytest.raises((EvidenceRefusedError, EvidenceFormatError), match=match):
        verify_piece(piece, vendor.anchors, now=NOW)


@pytest.mark.parametrize("part", [*OF_QUOTE, *OF_REPORT], ids=str)
def test_what_a_vendor_signed_counts(vendor: Vendor, part: Part) -> None:
    made = vendor.endorsement(part)
    assert made.part == part
    assert made.number == (vendor.number if part.is_statement else 0)
    assert made.issued <= NOW < made.until
    if part.is_statement:
        assert made.issued == vendor.issued.replace(microsecond=0)
        assert made.until == made.issued + vendor.life


@pytest.mark.parametrize("part", [*OF_QUOTE, *OF_REPORT], ids=str)
def test_another_vendors_roots_vouch_for_nothing(vendor: Vendor, part: Part) -> None:
    swapped = Anchors(intel=vendor.anchors.amd, amd=vendor.anchors.intel)
    with pytest.raises(EvidenceRefusedError, match="root"):
        verify_piece(vendor.piece(part), swapped, now=NOW)


@pytest.mark.parametrize("part", [TCB_INFO, QE_IDENTITY], ids=str)
@pytest.mark.parametrize("offset", [0, 100, -1])
def test_a_changed_byte_of_signed_text_is_refused(vendor: Vendor, part: Part, offset: int) -> None:
    piece = vendor.piece(part)
    refused(replace(piece, data=with_byte_flipped(piece.data, offset)), vendor, "not signed by its signer")
    refused(replace(piece, signature=with_byte_flipped(piece.signature, 5)), vendor, "not signed by its signer")
    refused(replace(piece, signature=piece.signature[:-1]), vendor, "not signed by its signer")


@pytest.mark.parametrize("part", [PCK_CRL, ROOT_CRL, AMD_CRL, VCEK], ids=str)
def test_a_changed_byte_of_a_certificate_or_list_is_refused(vendor: Vendor, part: Part) -> None:
    piece = vendor.piece(part)
    with pytest.raises(OstiaryError):
        verify_piece(replace(piece, data=with_byte_flipped(piece.data, -5)), vendor.anchors, now=NOW)


def test_tcb_info_signed_by_a_platform_is_refused(vendor: Vendor) -> None:
    """Whoever breaks one platform has a PCK key, whose certificate leads to Intel's root as well."""
    broken = replace(vendor, signer=another_signer(vendor, platform=True))
    refused(broken.piece(TCB_INFO), vendor, "root that this service does not trust")
    keys, root = vendor.platform.keys, vendor.platform.certificates.root
    beside = pki._certificate("x", keys.platform, root, keys.root, LIFETIME, extension=pki._sgx_extension(keys))
    directly = replace(vendor, signer=(beside, keys.platform))
    refused(directly.piece(TCB_INFO), vendor, "signed by the certificate of a platform, expected Intel's TCB signer")


def test_tcb_info_with_a_ca_in_between_is_refused(vendor: Vendor) -> None:
    broken = replace(vendor, signer=another_signer(vendor, platform=True)).piece(TCB_INFO)
    chain = vendor.platform.certificates.pck_chain
    refused(replace(broken, chain=chain), vendor, "2 certificates below the root, expected one that it issued")


def test_a_signer_with_intels_name_and_another_root_is_refused(vendor: Vendor) -> None:
    forged = replace(vendor, signer=another_signer(vendor))
    refused(forged.piece(TCB_INFO), vendor, "root that this service does not trust")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("id", "TDX", "another TEE than SGX"),
        ("fmspc", "00606a000000", "another kind of platform"),
        ("tcbEvaluationDataNumber", None, "tcbEvaluationDataNumber is missing or no number"),
        ("tcbEvaluationDataNumber", True, "tcbEvaluationDataNumber is missing or no number"),
        ("tcbEvaluationDataNumber", -1, "tcbEvaluationDataNumber is missing or no number"),
        ("issueDate", "yesterday", "issueDate is no instant"),
        ("nextUpdate", "2027-01-01T00:00:00", "nextUpdate has no time zone"),
        ("issueDate", "2026-12-24T00:00:00Z", "from the future"),
    ],
)
def test_signed_tcb_info_that_says_something_else_is_refused(
    vendor: Vendor, name: str, value: object, match: str
) -> None:
    changed = replace(vendor, change=lambda members: members.update({name: value}))
    refused(changed.piece(TCB_INFO), vendor, match)


def test_text_that_is_no_object_is_refused(vendor: Vendor) -> None:
    for text, match in ((b"[]", "not a JSON object"), (b"{", "not JSON"), (b"[" * 100_000, "not JSON")):
        signature = pki.sign_raw(vendor.platform.keys.tcb_signer, text)
        refused(Piece(part=TCB_INFO, data=text, signature=signature, chain=vendor.signer_chain), vendor, match)
    refused(Piece(part=TCB_INFO, data=b" " * (MAX_TEXT_BYTES + 1)), vendor, f"expected at most {MAX_TEXT_BYTES}")


def test_text_without_its_signer_is_refused(vendor: Vendor) -> None:
    refused(replace(vendor.piece(TCB_INFO), chain=b""), vendor, "no certificate of who signed it")


def test_a_list_of_another_ca_is_refused(vendor: Vendor) -> None:
    piece = replace(vendor.piece(PCK_CRL), part=Part(kind="pck-crl", name="processor"))
    refused(piece, vendor, "revocation list of another CA")


def test_the_roots_list_is_not_that_of_the_ca_of_platforms(vendor: Vendor) -> None:
    """It is signed by a key that counts, and revokes no platform."""
    piece = Piece(part=PCK_CRL, data=vendor.piece(ROOT_CRL).data, chain=vendor.piece(PCK_CRL).chain)
    refused(piece, vendor, "pck-crl/platform is the revocation list of the root, which revokes no platform")


@pytest.mark.parametrize("part", [TCB_INFO, PCK_CRL, VCEK], ids=str)
def test_a_chain_with_anything_but_ascii_is_refused(vendor: Vendor, part: Part) -> None:
    """It verifies, as what stands between certificates is left out, and could not be written down."""
    piece = vendor.piece(part)
    refused(replace(piece, chain=piece.chain + "é".encode()), vendor, "not ASCII text")
    chain = vendor.piece(AMD_CHAIN)
    refused(replace(chain, data=chain.data + b"\xff"), vendor, "not ASCII text")


def test_a_list_without_its_ca_is_refused(vendor: Vendor) -> None:
    refused(
        replace(vendor.piece(PCK_CRL), chain=vendor.signer_chain), vendor, "0 certificates of the CA that signed it"
    )


def test_a_list_that_somebody_else_signed_is_refused(vendor: Vendor) -> None:
    other = make_platform()
    issuer = vendor.platform.certificates.issuer
    forged = sign_list(issuer, other.keys.issuer, number=9, issued=NOW - DAY, end=None)
    refused(replace(vendor.piece(PCK_CRL), data=forged), vendor, "not signed by the CA that it names")
    root = sign_list(other.certificates.root, other.keys.root, number=9, issued=NOW - DAY, end=None)
    refused(Piece(part=ROOT_CRL, data=root), vendor, "not signed by a root that this service trusts")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (f"Milan/{'00' * 64}/{TCB.hex()}", "the certificate is for another chip"),
        (f"Genoa/{CHIP_ID.hex()}/{TCB.hex()}", "the certificate is for another chip"),
        (f"Milan/{CHIP_ID.hex()}/{'04' + TCB.hex()[2:]}", "the certificate is for another TCB version"),
    ],
)
def test_a_vcek_of_another_chip_or_version_is_refused(vendor: Vendor, name: str, match: str) -> None:
    refused(replace(vendor.piece(VCEK), part=Part(kind="vcek", name=name)), vendor, match)


def test_a_vcek_under_another_root_is_refused(vendor: Vendor) -> None:
    other = make_chip(end=NOW + 300 * DAY)
    piece = Piece(part=VCEK, data=other.leaf.der, chain=other.middle.pem + other.root.pem)
    refused(piece, vendor, "root that this service does not trust")


def test_a_chain_of_amd_is_that_of_its_kind(vendor: Vendor) -> None:
    piece = replace(vendor.piece(AMD_CHAIN), part=Part(kind="amd-chain", name="vlek/Milan"))
    refused(piece, vendor, "that of another issuer")
    refused(replace(vendor.piece(AMD_CHAIN), data=vendor.chip.root.pem), vendor, "no certificate")


def test_a_certificate_that_ran_out_vouches_for_nothing(vendor: Vendor) -> None:
    with pytest.raises(EvidenceRefusedError, match="has run out"):
        verify_piece(vendor.piece(TCB_INFO), vendor.anchors, now=NOW + 100 * DAY)


# --- until when ------------------------------------------------------------------------------------------------------


def test_a_statement_is_used_until_its_next_update_and_not_after(vendor: Vendor) -> None:
    made = vendor.endorsement(TCB_INFO)
    made.require(made.until - timedelta(seconds=1), None)
    with pytest.raises(EvidenceRefusedError, match="could be used until"):
        made.require(made.until, None)


def test_a_session_may_allow_stale_statements_up_to_an_age(vendor: Vendor) -> None:
    made = vendor.endorsement(TCB_INFO)
    made.require(made.until + DAY, 22 * DAY)
    with pytest.raises(EvidenceRefusedError, match="could be used until"):
        made.require(made.until + 3 * DAY, 22 * DAY)


def test_a_session_may_demand_younger_statements_than_the_vendor(vendor: Vendor) -> None:
    made = vendor.endorsement(TCB_INFO)
    with pytest.raises(EvidenceRefusedError, match="could be used until"):
        made.require(made.issued + 2 * DAY, DAY)


def test_the_list_of_intels_root_comes_once_a_year_and_counts_as_long(vendor: Vendor) -> None:
    """As `max_age` is held against the claims, whose date leaves it out; a longer age makes it last longer, too."""
    made = vendor.endorsement(ROOT_CRL)
    made.require(made.until - timedelta(seconds=1), DAY)
    with pytest.raises(EvidenceRefusedError, match="could be used until"):
        made.require(made.until, DAY)
    made.require(made.until + DAY, 22 * DAY)


def test_no_age_makes_certificates_last_longer(vendor: Vendor) -> None:
    """The root of the synthetic PKI ends after 30 days."""
    made = vendor.endorsement(TCB_INFO)
    with pytest.raises(EvidenceRefusedError, match="could be used until"):
        made.require(NOW + 31 * DAY, 1000 * DAY)
    with pytest.raises(EvidenceRefusedError, match="could be used until"):
        vendor.endorsement(VCEK).require(NOW + 301 * DAY, 1000 * DAY)
    assert made.last_use(timedelta.max) == made.chain_until


def test_newer_is_a_higher_number_or_a_later_day(vendor: Vendor) -> None:
    old = vendor.endorsement(TCB_INFO)
    later = replace(vendor, issued=vendor.issued + timedelta(minutes=5)).endorsement(TCB_INFO)
    higher = replace(vendor, number=6, issued=vendor.issued - DAY).endorsement(TCB_INFO)
    assert later.is_newer_than(old)
    assert higher.is_newer_than(later)
    assert not old.is_newer_than(old)


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_all_parts_of_genuine_endorsements_verify(tee: str) -> None:
    anchors = Anchors(intel=(intel_root(),), amd=amd_roots())
    tried = [case for case in cases(tee) if "collateral.json" in case.files and case.valid]
    assert len(tried) > 10
    for case in tried:
        parts = read_collateral(case.files["collateral.json"], anchors, now=case.verify_at)
        assert [one.part.kind for one in parts] == ["tcb-info", "qe-identity", "pck-crl", "root-crl"]
        fmspc = json.loads(parts[0].piece.data)["fmspc"].lower()
        assert parts[0].part.name == f"{tee}/{fmspc}"


def test_the_names_of_intels_cas_tell_them_apart(vendor: Vendor) -> None:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    assert pck_ca(named("Intel SGX PCK Processor CA")) == "processor"
    assert pck_ca(named("Intel SGX PCK Platform CA")) == "platform"


def test_what_is_from_the_future_cannot_be_used(vendor: Vendor) -> None:
    with pytest.raises(EvidenceRefusedError, match="from the future"):
        vendor.endorsement(TCB_INFO).require(NOW - 2 * DAY, None)


def test_a_ca_in_place_of_a_vcek_is_refused(vendor: Vendor) -> None:
    piece = Piece(part=VCEK, data=vendor.chip.middle.der, chain=vendor.chip.leaf.pem)
    refused(piece, vendor, "came with another certificate that is no CA")


def test_genuine_issuers_of_one_product_are_not_those_of_another() -> None:
    anchors = Anchors(intel=(intel_root(),), amd=amd_roots())
    (case,) = (case for case in cases("snp") if case.name == "snp-oak-genoa-v5")
    certificates = [
        data if b"-----BEGIN" in data else to_pem(data) for name, data in case.files.items() if name != "report.bin"
    ]
    bundle = parse_bundle(b"".join(certificates))
    ask = bundle.chain[1].public_bytes(Encoding.PEM)
    for product in ("Genoa", "Milan"):
        piece = Piece(part=Part(kind="amd-chain", name=f"vcek/{product}"), data=ask)
        if product == "Genoa":
            assert verify_piece(piece, anchors, now=case.verify_at).part.name == "vcek/Genoa"
        else:
            with pytest.raises(EvidenceRefusedError, match="signed by the root of another product"):
                verify_piece(piece, anchors, now=case.verify_at)


def test_a_list_without_a_number_counts_as_number_zero(vendor: Vendor) -> None:
    plain = revoke(vendor.chip.root)
    made = verify_piece(Piece(part=AMD_CRL, data=plain.public_bytes(Encoding.DER)), vendor.anchors, now=NOW)
    assert made.number == 0


def test_a_list_signed_by_an_algorithm_that_its_key_does_not_know_is_refused(vendor: Vendor) -> None:
    """Signed by ECDSA, held against a root with an RSA key."""
    anchors = Anchors(intel=vendor.anchors.intel, amd=amd_roots())
    with pytest.raises(EvidenceRefusedError, match="not signed by a root that this service trusts"):
        verify_piece(vendor.piece(AMD_CRL), anchors, now=NOW)
