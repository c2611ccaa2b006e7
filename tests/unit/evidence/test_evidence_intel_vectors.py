"""Genuine SGX and TDX quotes: what independent tools made of them, and the two paths held against each other."""

from __future__ import annotations

from datetime import timedelta

import pytest
from dcap_qvl import verify_with_root_ca  # type: ignore[import-untyped]
from tests.simulators.genuine import Case, cases
from tests.simulators.sgx_platform import with_byte_flipped

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, OstiaryError
from ostiary.evidence.claims import Claims
from ostiary.evidence.intel.collateral import parse_collateral
from ostiary.evidence.intel.decide import decide
from ostiary.evidence.intel.quote import parse_signed_quote
from ostiary.evidence.intel.verifier import Verifier
from ostiary.evidence.roots import intel_root
from ostiary.evidence.sgx.layout import parse_quote as parse_sgx
from ostiary.evidence.sgx.layout import shown as shown_sgx
from ostiary.evidence.sgx.verify import verify as verify_sgx
from ostiary.evidence.tdx.layout import parse_quote as parse_tdx
from ostiary.evidence.tdx.layout import shown as shown_tdx
from ostiary.evidence.tdx.verify import verify as verify_tdx

SGX, TDX = cases("sgx"), cases("tdx")
REASONS = {
    "sgx-signal-dcap-expired": "has run out; have the platform fetch new",
    "sgx-signal-dcap-too-early": "the endorsements are from the future",
    "sgx-intel-lookalike-pki": "certification data of type 1, without a PCK certificate",
    "tdx-dcapqvl-v5-unsupported-tcb": "the platform meets no TCB level of the endorsements",
    "tdx-fraunhofer-badsig": "the quote is not signed by its attestation key: it was changed after signing",
}
CONDITIONS = {"sept_ve_disable_off": "sept-ve-disable-off", "mr_servicetd_nonzero": "service-td"}


def verified(case: Case) -> Claims:
    verify = verify_tdx if case in TDX else verify_sgx
    return verify(case.files["quote.bin"], case.files["collateral.json"], roots=[intel_root()], now=case.verify_at)


@pytest.mark.parametrize("case", SGX, ids=str)
def test_every_field_of_sgx_quotes(case: Case) -> None:
    assert shown_sgx(parse_sgx(case.files["quote.bin"])) == case.claims


@pytest.mark.parametrize("case", TDX, ids=str)
def test_every_field_of_tdx_quotes(case: Case) -> None:
    assert shown_tdx(parse_tdx(case.files["quote.bin"])) == case.claims


@pytest.mark.parametrize("case", [case for case in [*SGX, *TDX] if "collateral.json" in case.files], ids=str)
def test_genuine_quotes_give_the_expected_verdict_and_claims(case: Case) -> None:
    if not case.valid:
        with pytest.raises(EvidenceRefusedError, match=REASONS[case.name]):
            verified(case)
        return
    claims = verified(case)
    assert claims.raw == case.claims
    assert claims.identity.hex() == case.claims.get("mrenclave", case.claims.get("mrtd"))
    assert claims.tcb_status == case.expected["tcb_status"]
    if case.expected["advisories"] is not None:
        assert sorted(claims.advisories) == case.expected["advisories"]
    assert claims.tcb_date is not None
    assert claims.debug is ("debug" in case.expected["flags"])
    assert claims.conditions == {CONDITIONS[flag] for flag in case.expected["flags"] if flag in CONDITIONS}
    assert not claims.software
    assert claims.qe_id is not None


SUPERSEDED = {
    "sgx-teepot-later-outofdate": "2023-08-09",
    "sgx-azure-intelsdk-prodid": "2024-03-13",
    "sgx-azure-intelsdk-debug": "2024-03-13",
    "sgx-azure-oe-svn8888": "2020-06-10",
    "sgx-integritee-oodconfig": "2024-03-13",
    "sgx-fraunhofer-2026": "2024-11-13",
    "sgx-occlum-debug": "2022-08-10",
    "sgx-teepot-legacy-tcbinfo-v2": "2022-11-09",
    "tdx-dcapqvl-sample-2026": "2025-08-13",
    "tdx-coco-gnr-ood": "2024-03-13",
    "tdx-fraunhofer-2026": "2024-11-13",
    "tdx-oasis-ood": "2024-11-13",
}
"""Read off the TCB levels of each case: the date of the oldest that is newer than the one that is met."""


@pytest.mark.parametrize("case", [case for case in [*SGX, *TDX] if "collateral.json" in case.files], ids=str)
def test_since_when_a_genuine_platform_is_out_of_date(case: Case) -> None:
    """A date for each that is out of date and for no other; issued before it was verified, within Intel's 30 days."""
    if not case.valid:
        return
    claims = verified(case)
    outdated = claims.tcb_status.startswith(("OutOfDate", "TDRelaunchAdvised"))
    assert (claims.superseded is not None) is outdated
    assert claims.mended <= claims.advisories
    assert outdated or not claims.mended
    assert claims.issued is not None
    assert timedelta(0) < case.verify_at - claims.issued < timedelta(days=31)
    if case.name in SUPERSEDED and claims.superseded is not None:
        assert f"{claims.superseded:%Y-%m-%d}" == SUPERSEDED[case.name]


def test_what_an_update_mends_is_told_apart_from_what_stays() -> None:
    (case,) = (case for case in SGX if case.name == "sgx-azure-intelsdk-prodid")
    claims = verified(case)
    assert claims.mended == {"INTEL-SA-00828"}
    assert claims.advisories - claims.mended == {f"INTEL-SA-00{number}" for number in (219, 289, 334, 615)}


def test_a_quote_without_a_certificate_cannot_be_verified() -> None:
    (case,) = (case for case in SGX if case.name == "sgx-oasis-ppid-type3")
    endorsements = SGX[0].files["collateral.json"]
    with pytest.raises(EvidenceRefusedError, match="certification data of type 3, without a PCK certificate: have the"):
        verify_sgx(case.files["quote.bin"], endorsements, roots=[intel_root()], now=case.verify_at)


@pytest.mark.parametrize("case", [case for case in [*SGX, *TDX] if "collateral.json" in case.files], ids=str)
def test_both_paths_say_the_same_wherever_dcap_qvl_decides(case: Case) -> None:
    quote, collateral = case.files["quote.bin"], parse_collateral(case.files["collateral.json"])
    root, seconds = intel_root(), int(case.verify_at.timestamp())
    try:
        theirs = verify_with_root_ca(quote, collateral, root.certificate_der, seconds)
    except ValueError as error:
        reason = str(error)
        by_itself = any(mark in reason for mark in ("Debug", "SEPT_VE", "MR service TD", "decode TcbInfo"))
        assert by_itself is case.valid
        if not case.valid:
            with pytest.raises((EvidenceRefusedError, EvidenceFormatError)):
                decide(parse_signed_quote(quote), collateral, root=root, now=case.verify_at)
        return
    ours = decide(parse_signed_quote(quote), collateral, root=root, now=case.verify_at)
    assert ours.rating.status == theirs.status
    assert ours.rating.advisories == set(theirs.advisory_ids)
    assert ours.ppid == theirs.ppid
    claims = verified(case)
    assert (claims.superseded, claims.mended) == (ours.rating.superseded, ours.rating.mended)


@pytest.mark.parametrize("name", ["tdx-dcapqvl-sample", "tdx-goguest-v5", "tdx-coco-debug", "sgx-teepot-azure-debug"])
def test_no_byte_of_a_genuine_quote_can_be_changed(name: str) -> None:
    """A change may leave the claims as they are, such as one in a certificate's text; others it never gives."""
    (case,) = (case for case in [*SGX, *TDX] if case.name == name)
    quote, collateral = case.files["quote.bin"], case.files["collateral.json"]
    verifier = Verifier((intel_root(),))
    expected = verifier.verify(quote, collateral, now=case.verify_at)
    signed = len(parse_signed_quote(quote).signed)
    for offset in [*range(signed + 4 + 64 + 64), *range(signed + 132, len(quote), 13)]:
        try:
            found = verifier.verify(with_byte_flipped(quote, offset, 1 + offset % 255), collateral, now=case.verify_at)
        except OstiaryError:
            continue
        assert found == expected
        assert offset > signed + 4 + 64 + 64


def test_a_quote_of_the_other_tee_is_refused() -> None:
    with pytest.raises(EvidenceFormatError, match="quote: of TEE TDX, expected SGX"):
        parse_sgx(TDX[0].files["quote.bin"])
    with pytest.raises(EvidenceFormatError, match="quote: of TEE SGX, expected TDX"):
        parse_tdx(SGX[0].files["quote.bin"])


def test_endorsements_of_the_other_tee_are_refused() -> None:
    sgx = next(case for case in SGX if case.name == "sgx-dcapqvl-sample")
    tdx = next(case for case in TDX if case.name == "tdx-dcapqvl-sample")
    for quote, other in ((sgx, tdx), (tdx, sgx)):
        with pytest.raises(EvidenceRefusedError, match=r"for another|not signed by a certificate of the chain"):
            decide(
                parse_signed_quote(quote.files["quote.bin"]),
                parse_collateral(other.files["collateral.json"]),
                root=intel_root(),
                now=tdx.verify_at,
            )
