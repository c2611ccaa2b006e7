"""Which endorsements count: fresh ones that were sent, unless the vendor has newer; kept ones; stale ones by age."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.chains import issue, pem, revoke
from tests.simulators.genuine import cases
from tests.simulators.genuine import pem as to_pem
from tests.simulators.sgx_platform import LIFETIME, NOW, make_platform, with_pck_chain
from tests.simulators.snp_chip import CHIP_ID, make_chip
from tests.simulators.tpm import Tpm, hcl_report, runtime_claims, wire
from tests.simulators.vendors import (
    AMD_CHAIN,
    AMD_CRL,
    DAY,
    OF_QUOTE,
    OF_REPORT,
    PCK_CRL,
    ROOT_CRL,
    TCB_INFO,
    VCEK,
    Vendor,
    another_signer,
    sign_list,
)

from ostiary.errors import EndorsementsMissingError, EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.claims import Claims
from ostiary.evidence.endorsements import choice
from ostiary.evidence.endorsements.choice import Chooser, Chosen, Kept, parts_of
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, Origin
from ostiary.evidence.intel.collateral import parse_collateral
from ostiary.evidence.roots import amd_roots, intel_root
from ostiary.evidence.sgx.verify import verify
from ostiary.evidence.snp import verify as snp
from ostiary.evidence.tpm.verify import TrustedAks
from ostiary.evidence.tpm.verify import Verifier as TpmVerifier
from ostiary.platform import pki


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


def kept(*endorsements: Endorsement, origin: Origin = "vendor") -> dict[Part, Kept]:
    return {one.part: Kept(endorsement=one, origin=origin) for one in endorsements}


def all_of(vendor: Vendor, parts: tuple[Part, ...] = OF_QUOTE, *, origin: Origin = "vendor") -> dict[Part, Kept]:
    return kept(*(vendor.endorsement(part) for part in parts), origin=origin)


def choose(
    vendor: Vendor,
    held: Mapping[Part, Kept],
    sent: bytes = b"",
    *,
    quote: bytes | None = None,
    tee: str = "sgx",
    now: datetime = NOW,
    max_age: timedelta | None = None,
) -> Chosen:
    evidence = vendor.platform.quote() if quote is None else quote
    return Chooser(vendor.anchors, held.get).choose(tee, evidence, sent, now=now, max_age=max_age)


def number_of(chosen: Chosen) -> int:
    return int(json.loads(parse_collateral(chosen.endorsements).tcb_info)["tcbEvaluationDataNumber"])


# --- quotes ----------------------------------------------------------------------------------------------------------


def test_what_was_sent_counts_as_it_was_sent(vendor: Vendor) -> None:
    sent = vendor.collateral()
    chosen = choose(vendor, {}, sent)
    assert (chosen.endorsements, chosen.at, chosen.parts) == (sent, NOW, OF_QUOTE)
    assert {one.part for one in chosen.sent} == set(OF_QUOTE)


def test_what_is_kept_verifies_a_quote_that_came_alone(vendor: Vendor) -> None:
    chosen = choose(vendor, all_of(vendor))
    claims = verify(vendor.platform.quote(), chosen.endorsements, roots=vendor.anchors.intel, now=chosen.at)
    assert claims.tcb_status == "UpToDate"
    assert chosen.sent == ()


def test_a_newer_copy_of_the_vendor_takes_the_place_of_an_older_one_that_was_sent(vendor: Vendor) -> None:
    """No platform hides behind TCB data that is still in force."""
    newer = replace(vendor, number=6, status="OutOfDate").endorsement(TCB_INFO)
    chosen = choose(vendor, kept(newer), vendor.collateral())
    assert number_of(chosen) == 6
    claims = verify(vendor.platform.quote(), chosen.endorsements, roots=vendor.anchors.intel, now=chosen.at)
    assert claims.tcb_status == "OutOfDate"


def test_a_newer_copy_of_another_attester_does_not(vendor: Vendor) -> None:
    """Or anybody could bring everybody under TCB data that does not count yet."""
    early = replace(vendor, number=6, status="OutOfDate").endorsement(TCB_INFO)
    chosen = choose(vendor, kept(early, origin="attester"), vendor.collateral())
    assert number_of(chosen) == 5


def test_who_sends_newer_data_than_the_vendors_is_judged_by_it(vendor: Vendor) -> None:
    assert number_of(choose(vendor, all_of(replace(vendor, number=4)), vendor.collateral())) == 5


@pytest.mark.parametrize("origin", ["vendor", "attester"])
def test_kept_copies_stand_in_for_sent_ones_that_ran_out(vendor: Vendor, origin: Origin) -> None:
    old = replace(vendor, issued=NOW - 30 * DAY, number=4)
    assert number_of(choose(vendor, all_of(vendor, origin=origin), old.collateral())) == 5


@pytest.mark.parametrize("sent", [b"", b"garbage", b"{}"])
def test_kept_copies_stand_in_for_garbage(vendor: Vendor, sent: bytes) -> None:
    assert number_of(choose(vendor, all_of(vendor), sent)) == 5


def test_a_forged_part_spoils_all_that_was_sent(vendor: Vendor) -> None:
    forged = replace(vendor, signer=another_signer(vendor, platform=True), number=9).collateral()
    assert number_of(choose(vendor, all_of(vendor), forged)) == 5
    with pytest.raises(EvidenceRefusedError, match="root that this service does not trust"):
        choose(vendor, {}, forged)


def test_only_what_is_missing_is_named(vendor: Vendor) -> None:
    held = all_of(vendor)
    del held[PCK_CRL]
    with pytest.raises(EndorsementsMissingError, match="the platform sent no endorsements that can be used") as missing:
        choose(vendor, held)
    assert missing.value.parts == (str(PCK_CRL),)


def test_what_ran_out_is_told_to_who_sent_it(vendor: Vendor) -> None:
    old = replace(vendor, issued=NOW - 30 * DAY)
    with pytest.raises(EndorsementsMissingError, match="the endorsements have run out; have the platform fetch"):
        choose(vendor, {}, old.collateral())


def test_endorsements_of_another_kind_of_platform_are_told_apart(vendor: Vendor) -> None:
    other = replace(vendor, change=lambda members: members.update(fmspc="00606a000000"))
    with pytest.raises(EndorsementsMissingError, match="the endorsements are for another kind of platform"):
        choose(vendor, {}, other.collateral())


def test_nobody_is_asked_about_a_platform_that_is_none(vendor: Vendor) -> None:
    """A certificate that names Intel's key, and is not signed by it."""
    other = make_platform()
    forged = other.certificates.pck_chain + vendor.platform.certificates.pck_chain
    quote = with_pck_chain(other.quote(), forged.replace(b"\n-----BEGIN", b"\n\n-----BEGIN"))
    with pytest.raises((EvidenceRefusedError, EvidenceFormatError)) as refused:
        choose(vendor, {}, quote=quote)
    assert not isinstance(refused.value, EndorsementsMissingError)


def test_evidence_of_an_unknown_root_is_left_to_the_verification(vendor: Vendor) -> None:
    other = make_platform()
    assert choose(vendor, {}, b"sent", quote=other.quote()).endorsements == b"sent"
    chosen = choose(vendor, all_of(vendor), quote=other.quote())
    with pytest.raises(EvidenceRefusedError, match="root that this service does not trust"):
        verify(other.quote(), chosen.endorsements, roots=vendor.anchors.intel, now=NOW)


def test_what_is_left_to_the_verification_it_refuses(vendor: Vendor) -> None:
    """A chain that mentions the root's key and does not end with it: what was sent with it has not been looked at."""
    certificates, key = vendor.platform.certificates, ec.generate_private_key(ec.SECP256R1())
    mention = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), vendor.anchors.intel[0].public_key)
    beside = pki._certificate("x", key, None, key, LIFETIME, authority=True, extension=mention)
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (certificates.platform, certificates.issuer, beside))
    quote = with_pck_chain(vendor.platform.quote(), chain)
    old = vendor.collateral()
    chosen = choose(vendor, {}, old, quote=quote, max_age=timedelta(minutes=1))
    assert chosen.endorsements == old
    with pytest.raises(EvidenceRefusedError, match="root that this service does not trust"):
        verify(quote, chosen.endorsements, roots=vendor.anchors.intel, now=chosen.at)


def test_a_quote_without_certificates_is_left_to_the_verification(vendor: Vendor) -> None:
    (case,) = (case for case in cases("sgx") if case.name == "sgx-oasis-ppid-type3")
    assert choose(vendor, {}, b"sent", quote=case.files["quote.bin"]).endorsements == b"sent"
    assert parts_of("sgx", case.files["quote.bin"]) == ()


@pytest.mark.parametrize("tee", ["nitro", "maa"])
def test_evidence_without_such_endorsements_is_left_alone(vendor: Vendor, tee: str) -> None:
    assert choose(vendor, {}, b"sent", quote=b"evidence", tee=tee).endorsements == b"sent"
    assert parts_of(tee, b"evidence") == ()


def test_garbage_in_place_of_evidence_is_refused(vendor: Vendor) -> None:
    for tee in ("sgx", "tdx", "snp", "tpm"):
        with pytest.raises(EvidenceFormatError):
            choose(vendor, {}, quote=b"garbage", tee=tee)


def test_software_endorsements_are_not_kept_and_not_replaced() -> None:
    software = Vendor()
    anchors = Anchors(intel=(software.platform.software_root,), amd=())
    newer = replace(software, number=9).endorsement(TCB_INFO)
    chooser = Chooser(anchors, kept(newer).get)
    chosen = chooser.choose("sgx", software.platform.quote(), software.collateral(), now=NOW, max_age=None)
    assert chosen.sent == ()
    assert number_of(chosen) == 5


# --- stale -----------------------------------------------------------------------------------------------------------


def test_stale_copies_count_up_to_the_age_that_a_session_allows(vendor: Vendor) -> None:
    held, later = all_of(vendor), NOW + 22 * DAY
    with pytest.raises(EndorsementsMissingError):
        choose(vendor, held, now=later)
    with pytest.raises(EndorsementsMissingError):
        choose(vendor, held, now=later, max_age=21 * DAY)
    chosen = choose(vendor, held, now=later, max_age=23 * DAY)
    assert chosen.at < held[TCB_INFO].endorsement.until < later
    claims = verify(vendor.platform.quote(), chosen.endorsements, roots=vendor.anchors.intel, now=chosen.at)
    assert claims.tcb_status == "UpToDate"


def test_copies_that_were_never_in_force_together_are_refused(vendor: Vendor) -> None:
    fresh = replace(vendor, issued=NOW + 21 * DAY).endorsement(PCK_CRL, now=NOW + 22 * DAY)
    with pytest.raises(EvidenceRefusedError, match="were at no time in force together"):
        choose(vendor, {**all_of(vendor), **kept(fresh)}, now=NOW + 22 * DAY, max_age=30 * DAY)


def test_an_age_of_days_is_fulfilled_beside_the_yearly_list_of_intels_root(vendor: Vendor) -> None:
    old = replace(vendor, issued=NOW - 15 * DAY).endorsement(ROOT_CRL)
    chosen = choose(vendor, {**all_of(vendor), **kept(old)}, max_age=DAY)
    claims = verify(vendor.platform.quote(), chosen.endorsements, roots=vendor.anchors.intel, now=chosen.at)
    assert claims.issued == vendor.issued


def test_a_younger_age_than_the_vendors_is_kept(vendor: Vendor) -> None:
    with pytest.raises(EndorsementsMissingError):
        choose(vendor, all_of(vendor), now=NOW + 2 * DAY, max_age=DAY)


def test_stale_copies_make_no_certificate_of_the_platform_last_longer(vendor: Vendor) -> None:
    """That of the synthetic platform ends with those of its issuers, so that theirs are not looked at here."""
    held = {
        part: Kept(endorsement=replace(one.endorsement, chain_until=NOW + 99 * DAY), origin="vendor")
        for part, one in all_of(vendor).items()
    }
    with pytest.raises(EvidenceRefusedError, match="a certificate of the quote has run out"):
        choose(vendor, held, now=NOW + 31 * DAY, max_age=40 * DAY)


# --- reports ---------------------------------------------------------------------------------------------------------


def report(vendor: Vendor, held: Mapping[Part, Kept], sent: bytes = b"", *, data: bytes | None = None) -> Chosen:
    return choose(vendor, held, sent, quote=vendor.chip.report() if data is None else data, tee="snp")


def test_certificates_that_were_sent_count(vendor: Vendor) -> None:
    chosen = report(vendor, {}, vendor.chip.endorsements)
    assert chosen.endorsements == vendor.chip.endorsements
    assert {one.part for one in chosen.sent} == {VCEK}
    assert snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=NOW).tee == "snp"


def test_a_report_that_came_alone_is_verified_by_chip_and_tcb(vendor: Vendor) -> None:
    chosen = report(vendor, all_of(vendor, OF_REPORT))
    assert b"X509 CRL" in chosen.endorsements
    assert snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=NOW).tee == "snp"


def test_a_certificate_that_came_alone_gets_its_issuers(vendor: Vendor) -> None:
    chosen = report(vendor, all_of(vendor, (AMD_CHAIN,)), vendor.chip.leaf.pem)
    assert snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=NOW).tee == "snp"


def test_what_azures_metadata_service_gave_counts(vendor: Vendor) -> None:
    chain = (vendor.chip.middle.pem + vendor.chip.root.pem).decode()
    sent = json.dumps({"vcekCert": vendor.chip.leaf.pem.decode(), "certificateChain": chain}).encode()
    chosen = report(vendor, {}, sent)
    assert snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=NOW).tee == "snp"


def test_a_report_without_certificates_names_what_would_help(vendor: Vendor) -> None:
    with pytest.raises(EndorsementsMissingError, match="the platform sent no endorsements") as missing:
        report(vendor, {})
    assert set(missing.value.parts) == {str(part) for part in OF_REPORT}


def test_a_report_that_does_not_name_its_product_may_be_of_two(vendor: Vendor) -> None:
    parts = parts_of("snp", vendor.chip.report(version=2))
    assert {part.words[0] for part in parts if part.kind == "vcek"} == {"Milan", "Genoa"}
    chosen = report(vendor, all_of(vendor, OF_REPORT), data=vendor.chip.report(version=2))
    assert set(chosen.parts) == set(OF_REPORT)


def test_a_masked_chip_cannot_be_asked_for(vendor: Vendor) -> None:
    parts = parts_of("snp", vendor.chip.report({0x1A0: bytes(64)}))
    assert {part.kind for part in parts} == {"amd-chain", "amd-crl"}


def test_a_turin_chip_is_named_by_eight_bytes() -> None:
    (case,) = (case for case in cases("snp") if case.name == "snp-oak-turin-v5")
    (part,) = (part for part in parts_of("snp", case.files["report.bin"]) if part.kind == "vcek")
    assert part.name.startswith("Turin/3b42092f69c656d3/")


@pytest.mark.parametrize("fields", [{0x180: bytes((4, 0, 0, 0, 0, 0, 8, 115))}, {0x1A0: b"x" * 64}])
def test_a_certificate_of_another_chip_or_version_leads_to_the_kept_one(
    vendor: Vendor, fields: dict[int, bytes]
) -> None:
    with pytest.raises(EndorsementsMissingError, match=r"another TCB version|another chip"):
        report(vendor, {}, vendor.chip.endorsements, data=vendor.chip.report(fields))


def test_garbage_is_told_and_kept_ones_stand_in(vendor: Vendor) -> None:
    with pytest.raises(EvidenceFormatError, match="neither PEM nor JSON"):
        report(vendor, {}, b"garbage")
    broken = vendor.chip.leaf.pem.replace(b"M", b"N", 3)
    assert report(vendor, all_of(vendor, OF_REPORT), broken).sent == ()


def test_a_provider_key_has_to_be_sent() -> None:
    vlek = Vendor(chip=make_chip(hardware_id=None, provider="cc", end=NOW + 300 * DAY))
    data = vlek.chip.report(signing_key=1)
    assert report(vlek, {}, vlek.chip.endorsements, data=data).sent == ()
    with pytest.raises(EndorsementsMissingError) as missing:
        report(vlek, {}, data=data)
    assert set(missing.value.parts) == {"amd-chain/vlek/Milan", "amd-crl/Milan"}
    with pytest.raises(EndorsementsMissingError, match="says that a VCEK signed it"):
        report(vlek, {}, vlek.chip.endorsements)


def test_the_vendors_list_revokes_what_was_sent(vendor: Vendor) -> None:
    revoked = replace(vendor, revoked=[vendor.chip.middle.certificate])
    chosen = report(vendor, kept(revoked.endorsement(AMD_CRL)), vendor.chip.endorsements)
    with pytest.raises(EvidenceRefusedError, match="is revoked"):
        snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=NOW)


def test_a_revoked_ca_does_not_hide_the_vendors_list_behind_its_own(vendor: Vendor) -> None:
    middle = vendor.chip.middle
    own = sign_list(middle.certificate, middle.key, number=99, issued=NOW, end=None)
    assert x509.load_der_x509_crl(own).issuer == middle.certificate.subject
    sent = vendor.chip.endorsements + x509.load_der_x509_crl(own).public_bytes(Encoding.PEM)
    alone = choose(vendor, {}, sent, quote=vendor.chip.report(), tee="snp")
    claims = snp.verify(vendor.chip.report(), alone.endorsements, roots=vendor.anchors.amd, now=alone.at)
    assert claims.issued is None
    held = kept(replace(vendor, revoked=[middle.certificate]).endorsement(AMD_CRL))
    chosen = choose(vendor, held, sent, quote=vendor.chip.report(), tee="snp")
    with pytest.raises(EvidenceRefusedError, match="is revoked"):
        snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=chosen.at)


def test_a_list_that_ran_out_revokes_still_and_stops_nobody_else(vendor: Vendor) -> None:
    old = replace(vendor, issued=NOW - 30 * DAY)
    chosen = report(vendor, kept(old.endorsement(AMD_CRL)), vendor.chip.endorsements)
    assert b"X509 CRL" not in chosen.endorsements
    revoked = replace(old, revoked=[vendor.chip.middle.certificate])
    with pytest.raises(EvidenceRefusedError, match="is revoked"):
        report(vendor, kept(revoked.endorsement(AMD_CRL)), vendor.chip.endorsements)


def test_a_list_that_was_sent_counts_unless_the_kept_one_is_newer(vendor: Vendor) -> None:
    """Or a revoked chip would bring the list of the day before."""
    sent = vendor.chip.endorsements + pem(revoke(vendor.chip.root, start=NOW - 2 * DAY))
    assert report(vendor, {}, sent).endorsements == sent
    older = replace(vendor, issued=NOW - 3 * DAY)
    assert report(vendor, all_of(older, (AMD_CRL,)), sent).endorsements == sent
    revoked = replace(vendor, revoked=[vendor.chip.middle.certificate])
    chosen = report(vendor, kept(revoked.endorsement(AMD_CRL)), sent)
    with pytest.raises(EvidenceRefusedError, match="is revoked"):
        snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=chosen.at)


def test_a_stale_list_counts_up_to_the_age_that_a_session_allows(vendor: Vendor) -> None:
    held = kept(replace(vendor, issued=NOW - 20 * DAY - timedelta(hours=1)).endorsement(AMD_CRL))
    assert b"X509 CRL" not in report(vendor, held, vendor.chip.endorsements).endorsements
    chosen = choose(vendor, held, vendor.chip.endorsements, quote=vendor.chip.report(), tee="snp", max_age=30 * DAY)
    assert b"X509 CRL" in chosen.endorsements
    assert chosen.at < NOW
    assert snp.verify(vendor.chip.report(), chosen.endorsements, roots=vendor.anchors.amd, now=chosen.at)


def test_genuine_reports_need_nothing_more_than_was_sent() -> None:
    anchors = Anchors(intel=(intel_root(),), amd=amd_roots())
    for case in (case for case in cases("snp") if case.valid):
        certificates = (data for name, data in case.files.items() if name.endswith((".pem", ".der", ".crt")))
        ders = [data if b"-----BEGIN" in data else to_pem(data) for data in certificates]
        sent = b"".join(ders)
        chosen = Chooser(anchors, lambda _: None).choose(
            "snp", case.files["report.bin"], sent, now=case.verify_at, max_age=None
        )
        assert chosen.endorsements == sent


# --- memory ----------------------------------------------------------------------------------------------------------


def test_what_was_verified_once_is_remembered_and_its_end_is_not_forgotten(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bytes] = []
    read = choice.read_collateral

    def counting(data: bytes, anchors: Anchors, *, now: datetime) -> tuple[Endorsement, ...]:
        calls.append(data)
        return read(data, anchors, now=now)

    monkeypatch.setattr(choice, "read_collateral", counting)
    monkeypatch.setattr(choice, "MAX_REMEMBERED", 1)
    chooser, quote, sent = Chooser(vendor.anchors, lambda _: None), vendor.platform.quote(), vendor.collateral()
    for _ in range(2):
        chooser.choose("sgx", quote, sent, now=NOW, max_age=None)
    assert len(calls) == 1
    with pytest.raises(EndorsementsMissingError, match="have run out"):
        chooser.choose("sgx", quote, sent, now=NOW + 25 * DAY, max_age=None)
    assert len(calls) == 1
    chooser.choose("sgx", quote, vendor.collateral() + b" ", now=NOW, max_age=None)
    chooser.choose("sgx", quote, sent, now=NOW, max_age=None)
    assert len(calls) == 3


def test_a_choice_is_remembered_while_it_would_be_made_again_and_no_longer(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not past a copy's end, not before one begins, not beside other copies, for another age, platform or what it
    sends.
    """
    made: list[datetime] = []
    anew = Chooser._choose_intel_anew

    def counting(self: Chooser, *arguments: Any) -> Any:
        made.append(arguments[2])
        return anew(self, *arguments)

    monkeypatch.setattr(Chooser, "_choose_intel_anew", counting)
    later = replace(vendor, number=6, issued=NOW + 2 * DAY, status="OutOfDate").endorsement(TCB_INFO, now=NOW + 3 * DAY)
    held = kept(later)
    chooser = Chooser(vendor.anchors, held.get)
    quote, sent, other = vendor.platform.quote(), vendor.collateral(), vendor.collateral() + b" "

    def number(now: datetime, sent: bytes = sent, max_age: timedelta | None = None, evidence: bytes = quote) -> int:
        return number_of(chooser.choose("sgx", evidence, sent, now=now, max_age=max_age))

    begins = later.issued
    assert [number(now) for now in (NOW, NOW + DAY, begins - timedelta(seconds=1))] == [5, 5, 5]
    assert made == [NOW]
    assert number(begins) == 6, "from the moment on that the newer one may be used"
    assert made == [NOW, begins]
    assert [number(begins + DAY), number(begins + 2 * DAY)] == [6, 6]
    assert len(made) == 2
    assert number(begins, max_age=9 * DAY) == 6
    assert number(begins, sent=other) == 6
    assert len(made) == 4
    held.clear()
    assert number(begins) == 5, "without the copy that it was made beside"
    assert len(made) == 5
    assert number(NOW) == 5, "a clock that was put back"
    assert len(made) == 6
    chain = vendor.platform.certificates
    without_root = b"".join(one.public_bytes(Encoding.PEM) for one in (chain.platform, chain.issuer))
    assert number(NOW, evidence=with_pck_chain(quote, without_root)) == 5
    assert len(made) == 7


def test_a_choice_that_was_remembered_ends_by_the_sessions_age_and_turns_stale_at_the_vendors_end(
    vendor: Vendor,
) -> None:
    chooser, quote, sent = Chooser(vendor.anchors, lambda _: None), vendor.platform.quote(), vendor.collateral()
    for age in (3 * DAY, 25 * DAY):
        chooser.choose("sgx", quote, sent, now=NOW, max_age=age)
    with pytest.raises(EndorsementsMissingError, match="have run out"):
        chooser.choose("sgx", quote, sent, now=vendor.issued + 3 * DAY, max_age=3 * DAY)
    end = vendor.issued + vendor.life - timedelta(seconds=1)
    times = [end - timedelta(seconds=1), end, end + timedelta(seconds=1), end + DAY]
    chosen = [chooser.choose("sgx", quote, sent, now=now, max_age=25 * DAY) for now in times]
    assert [one.at for one in chosen] == [times[0], end, end, end]


def test_choices_are_remembered_within_a_bound(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MAX_REMEMBERED", 2)
    chooser, sent = Chooser(vendor.anchors, lambda _: None), vendor.collateral()
    for blanks in range(5):
        chooser.choose("sgx", vendor.platform.quote(), sent + b" " * blanks, now=NOW, max_age=None)
    assert len(chooser._choices) == 2


def test_a_choice_beside_something_that_could_not_be_read_is_not_remembered(vendor: Vendor) -> None:
    """It may be read a moment later, as what is from the future."""
    early = replace(vendor, number=6, issued=NOW + DAY).collateral()
    chooser = Chooser(vendor.anchors, all_of(vendor).get)
    assert number_of(chooser.choose("sgx", vendor.platform.quote(), early, now=NOW, max_age=None)) == 5
    assert number_of(chooser.choose("sgx", vendor.platform.quote(), early, now=NOW + 2 * DAY, max_age=None)) == 6


def test_an_unused_issuer_does_not_help() -> None:
    vendor = Vendor()
    stranger = issue("SEV-Milan", usage="")
    with pytest.raises(EndorsementsMissingError, match=r"root that this service does not trust|not signed by"):
        report(vendor, {}, vendor.chip.leaf.pem + stranger.pem)


def test_a_certificate_that_has_no_name_as_a_part_is_used_and_not_kept() -> None:
    """A Milan chip with an id of eight bytes, as Turin has."""
    odd = Vendor(chip=make_chip(hardware_id=CHIP_ID[:8], end=NOW + 300 * DAY))
    chosen = report(odd, {}, odd.chip.endorsements)
    assert (chosen.endorsements, chosen.sent) == (odd.chip.endorsements, ())


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(("text", "match"), [("{", "not JSON"), ("[]", "not a JSON object")])
def test_sent_text_that_is_no_object_is_told(vendor: Vendor, member: str, text: str, match: str) -> None:
    members = json.loads(vendor.collateral())
    members[member] = text
    with pytest.raises(EndorsementsMissingError, match=match):
        choose(vendor, {}, json.dumps(members).encode())


def test_sent_text_of_an_unknown_tee_is_told(vendor: Vendor) -> None:
    members = json.loads(vendor.collateral())
    members["qe_identity"] = '{"id": "QVE"}'
    with pytest.raises(EndorsementsMissingError, match="no endorsement has the name"):
        choose(vendor, {}, json.dumps(members).encode())


def test_endorsements_of_another_tee_are_told_apart(vendor: Vendor) -> None:
    (case,) = (case for case in cases("tdx") if case.name == "tdx-near-mpc-2026")
    (other,) = (case for case in cases("sgx") if case.name == "sgx-fraunhofer-2026")
    anchors = Anchors(intel=(intel_root(),), amd=amd_roots())
    with pytest.raises(EndorsementsMissingError, match="the endorsements are for another TEE than TDX"):
        Chooser(anchors, lambda _: None).choose(
            "tdx", case.files["quote.bin"], other.files["collateral.json"], now=other.verify_at, max_age=None
        )


def test_a_pck_certificate_without_its_extension_is_refused(vendor: Vendor) -> None:
    quote = with_pck_chain(vendor.platform.quote(), vendor.chip.endorsements)
    with pytest.raises(EvidenceFormatError, match="no SGX extension that can be read"):
        choose(vendor, {}, quote=quote)


# --- guests with a vTPM ----------------------------------------------------------------------------------------------

AK = rsa.generate_private_key(65537, 2048)
TPM = Tpm(key=AK, scheme="rsassa")


def vouched(vendor: Vendor, **changes: object) -> bytes:
    """Evidence of a vTPM of a guest on the vendor's chip."""
    claims = runtime_claims(AK.public_key())
    report = vendor.chip.report({0x050: hashlib.sha256(claims).digest() + bytes(32)})
    hcl = hcl_report(AK.public_key(), report=report, claims=claims)
    return TPM.evidence({"sha256": (4,)}, hcl_report=hcl, **changes)


def chosen_for(vendor: Vendor, held: Mapping[Part, Kept], sent: bytes = b"", **changes: object) -> Chosen:
    return choose(vendor, held, sent, quote=vouched(vendor, **changes), tee="tpm")


def judged(vendor: Vendor, chosen: Chosen) -> Claims:
    verifier = TpmVerifier(vendor.anchors.amd, TrustedAks())
    return verifier.verify(vouched(vendor), chosen.endorsements, now=chosen.at)


def test_a_guest_that_sends_no_certificates_is_verified_with_kept_ones(vendor: Vendor) -> None:
    chosen = chosen_for(vendor, all_of(vendor, OF_REPORT))
    assert judged(vendor, chosen).tee == "snp"
    assert chosen.parts == OF_REPORT


def test_certificates_that_a_guest_sends_count_and_are_kept(vendor: Vendor) -> None:
    chosen = chosen_for(vendor, {}, wire({"snp": vendor.chip.endorsements.decode()}))
    assert judged(vendor, chosen).tee == "snp"
    assert {one.part for one in chosen.sent} == {VCEK}


def test_what_vouches_for_the_ak_stays_as_it_was_sent(vendor: Vendor) -> None:
    chosen = chosen_for(vendor, all_of(vendor, OF_REPORT), wire({"ak": "text", "tdx": "{}"}))
    assert {"ak": "text", "tdx": "{}"}.items() <= json.loads(chosen.endorsements).items()


def test_what_a_guest_misses_is_that_of_its_chip(vendor: Vendor) -> None:
    with pytest.raises(EndorsementsMissingError, match="the platform sent no endorsements") as missing:
        chosen_for(vendor, {})
    assert str(VCEK) in missing.value.parts
    assert set(map(str, parts_of("tpm", vouched(vendor)))) == set(missing.value.parts)


def test_a_guest_of_tdx_is_verified_by_its_quote(vendor: Vendor) -> None:
    """The quote is sent beside the report of the HCL, which holds nothing but a local report."""
    claims = runtime_claims(AK.public_key())
    hcl = hcl_report(AK.public_key(), report=bytes(1184), claims=claims, kind=4)
    case = next(one for one in cases("tdx") if one.name == "tdx-dcapqvl-sample")
    evidence = TPM.evidence({"sha256": (4,)}, hcl_report=hcl, td_quote=case.files["quote.bin"])
    alone = TPM.evidence({"sha256": (4,)}, hcl_report=hcl)
    assert parts_of("tpm", evidence) == parts_of("tdx", case.files["quote.bin"])
    assert parts_of("tpm", alone) == ()
    assert choose(vendor, {}, b"", quote=alone, tee="tpm").endorsements == b""
    sent = wire({"tdx": case.files["collateral.json"].decode()})
    anchors = Anchors(intel=(intel_root(),), amd=())
    chosen = Chooser(anchors, lambda _: None).choose("tpm", evidence, sent, now=case.verify_at, max_age=None)
    assert json.loads(chosen.endorsements)["tdx"] == case.files["collateral.json"].decode()


def test_a_tpm_of_no_guest_brings_what_it_needs(vendor: Vendor) -> None:
    evidence = TPM.evidence({"sha256": (4,)})
    assert choose(vendor, {}, b"sent", quote=evidence, tee="tpm").endorsements == b"sent"
    assert parts_of("tpm", evidence) == ()
