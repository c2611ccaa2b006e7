"""A forecast says what a start would come to under other TCB data, and what ends when."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from tests.simulators.sgx_platform import NOW
from tests.simulators.vendors import DAY, OF_QUOTE, OF_REPORT, PCK_CRL, TCB_INFO, Vendor

from ostiary.broker.forecast import Foreseen, forecast, judge_without_session
from ostiary.broker.last_evidence import LastEvidence
from ostiary.evidence.endorsements.choice import Kept
from ostiary.evidence.endorsements.piece import Endorsement


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


def foresee(
    vendor: Vendor,
    *given: Endorsement,
    tee: str = "sgx",
    now: datetime = NOW,
    held: Vendor | None = None,
    evidence: bytes | None = None,
) -> Foreseen:
    parts = OF_QUOTE if tee == "sgx" else OF_REPORT
    kept = {part: Kept(endorsement=(held or vendor).endorsement(part), origin="vendor") for part in parts}
    data = evidence or (vendor.platform.quote() if tee == "sgx" else vendor.chip.report())
    last = LastEvidence(session="a", service="s", tee=tee, platform="p", at=NOW, evidence=data)
    (foreseen,) = forecast(
        [last], held=kept.get, given=given, anchors=vendor.anchors, judge=judge_without_session, now=now
    )
    return foreseen


def test_a_platform_that_stays_up_to_date_is_admitted(vendor: Vendor) -> None:
    found = foresee(vendor, replace(vendor, number=6).endorsement(TCB_INFO))
    assert found.now.admitted
    assert found.then is not None
    assert found.then.admitted
    assert not found.would_be_refused


def test_early_data_refuses_what_is_admitted_today(vendor: Vendor) -> None:
    found = foresee(vendor, replace(vendor, number=6, status="OutOfDate").endorsement(TCB_INFO))
    assert found.now.admitted
    assert found.then is not None
    assert found.then.reasons == ("TCB status OutOfDate, which a session has to tolerate by name",)
    assert found.would_be_refused


def test_given_data_counts_whatever_its_number(vendor: Vendor) -> None:
    found = foresee(vendor, replace(vendor, number=1, status="SWHardeningNeeded").endorsement(TCB_INFO))
    assert found.then is not None
    assert found.then.status == "SWHardeningNeeded"


def test_the_first_end_comes_first(vendor: Vendor) -> None:
    found = foresee(vendor)
    assert found.then is None
    assert [end.at for end in found.ends] == sorted(end.at for end in found.ends)
    by_name = {end.what: end for end in found.ends}
    assert set(by_name) == {*map(str, OF_QUOTE), "a certificate of the platform"}
    assert by_name[str(PCK_CRL)].at == vendor.endorsement(PCK_CRL).until
    assert by_name[str(PCK_CRL)].renewable
    assert not by_name["a certificate of the platform"].renewable
    assert found.refused_from == found.ends[0].at


def test_at_a_later_time_it_is_refused_for_what_ended(vendor: Vendor) -> None:
    found = foresee(vendor, now=NOW + 25 * DAY)
    assert "the endorsements have run out" not in found.now.status
    assert not found.now.admitted
    assert found.would_be_refused
    assert found.refused_from == NOW + 25 * DAY
    assert found.ends == ()


def test_a_report_ends_with_its_certificates(vendor: Vendor) -> None:
    found = foresee(vendor, tee="snp")
    assert found.now.admitted
    assert [end.what for end in found.ends] == ["a certificate of the platform"]
    assert found.refused_from == NOW + DAY
    assert not foresee(vendor, tee="snp", now=NOW + timedelta(days=2)).now.admitted


def test_evidence_that_does_not_parse_is_refused_with_its_reason(vendor: Vendor) -> None:
    found = foresee(vendor, evidence=b"garbage")
    assert (found.now.status, found.ends) == ("", ())
    assert "quote: " in found.now.reasons[0]


def test_advisories_refuse_a_session_that_ignores_none(vendor: Vendor) -> None:
    def open_to(members: dict[str, object]) -> None:
        levels = members["tcbLevels"]
        assert isinstance(levels, list)
        levels[0]["advisoryIDs"] = ["INTEL-SA-00001"]

    found = foresee(vendor, replace(vendor, number=6, change=open_to).endorsement(TCB_INFO))
    assert found.then is not None
    assert found.then.advisories == ("INTEL-SA-00001",)
    assert found.then.reasons == ("open to INTEL-SA-00001, which a session has to ignore by name",)
