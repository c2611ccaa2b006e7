"""What a report of an appraisal tells: every factor, held or not, with what was found and what was expected."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest

from ostiary.appraisal import appraise, examine
from ostiary.appraisal.advice import Advice
from ostiary.appraisal.form import read_advice, read_report, write_advice, write_claims, write_report
from ostiary.appraisal.patch import Operation, Wisdom
from ostiary.errors import AppraisalRefusedError, AppraisalReport, Held, InputError, Mismatch
from ostiary.evidence.claims import MAA_MANAGED, Claims
from ostiary.session.model import SecurityAttestation, Service, Signer, Variable, Variant
from ostiary.session.placeholder import Placeholder

A, B = bytes([0xA]) * 32, bytes([0xB]) * 32
SIGNER = bytes([0x5]) * 32
BINDING = bytes(range(64))
NOW = datetime(2026, 11, 23, tzinfo=UTC)
QE = bytes(16)
CLAIMS = Claims(
    tee="sgx",
    measurements={"mrenclave": A},
    signer=SIGNER,
    product_id=7,
    svn=3,
    report_data=BINDING,
    debug=False,
    software=False,
    tcb_status="UpToDate",
    advisories=frozenset(),
    tcb_date=None,
    platform_id="00",
    qe_id=QE,
)
URL = "https://tenant.region.attest.azure.net"
SERVICE = Service(name="web", attestation=(Variant(mrenclave=(A,)),))


def report(
    claims: Claims = CLAIMS,
    service: Service = SERVICE,
    binding: bytes = BINDING,
    *,
    singleton_enclaves: bool = False,
    **security: object,
) -> AppraisalReport:
    return examine(
        claims,
        service,
        SecurityAttestation(**security),  # type: ignore[arg-type]
        binding=binding,
        now=NOW,
        singleton_enclaves=singleton_enclaves,
    )


def with_(**changes: object) -> Claims:
    return dataclasses.replace(CLAIMS, **changes)  # type: ignore[arg-type]


def general(found: AppraisalReport, factor: str) -> Held | Mismatch:
    (one,) = (one for one in found.general if one.factor == factor)
    return one


GENERAL = [
    # factor, what does not hold, what holds
    ("report_data", {"binding": bytes(64)}, {}),
    ("tolerate: debug-mode", {"claims": with_(debug=True)}, {"claims": with_(debug=True), "tolerate": {"debug-mode"}}),
    (
        "tolerate: software-platform",
        {"claims": with_(debug=True, software=True)},
        {"claims": with_(debug=True, software=True), "tolerate": {"software-platform"}},
    ),
    (
        "tolerate: service-td",
        {"claims": with_(conditions=frozenset({"service-td"}))},
        {"claims": with_(conditions=frozenset({"service-td"})), "tolerate": {"service-td"}},
    ),
    ("tcb_status", {"claims": with_(tcb_status="Revoked")}, {}),
    (
        "tolerate: outdated-tcb",
        {"claims": with_(tcb_status="OutOfDate")},
        {"claims": with_(tcb_status="OutOfDate"), "tolerate": {"outdated-tcb"}},
    ),
    (
        "tolerate: maa-managed-tcb",
        {"claims": with_(tcb_status=MAA_MANAGED)},
        {"claims": with_(tcb_status=MAA_MANAGED), "tolerate": {"maa-managed-tcb"}},
    ),
    (
        "ignore_advisories: INTEL-SA-00615",
        {"claims": with_(advisories=frozenset({"INTEL-SA-00615"}))},
        {"claims": with_(advisories=frozenset({"INTEL-SA-00615"})), "ignore_advisories": {"INTEL-SA-00615"}},
    ),
    (
        "platforms",
        {"service": dataclasses.replace(SERVICE, platforms=(b"\1" * 16,))},
        {"service": dataclasses.replace(SERVICE, platforms=(b"\1" * 16, QE))},
    ),
    (
        "security.attestation.mode",
        {"claims": with_(attestation_service=URL)},
        {"claims": with_(attestation_service=URL), "mode": "maa", "url": URL},
    ),
]


@pytest.mark.parametrize(("factor", "failing", "holding"), GENERAL, ids=[row[0] for row in GENERAL])
def test_each_general_factor_is_told_whether_it_holds_or_not(
    factor: str, failing: dict[str, object], holding: dict[str, object]
) -> None:
    failed = general(report(**failing), factor)  # type: ignore[arg-type]
    assert isinstance(failed, Mismatch)
    assert failed.found
    assert failed.expected
    assert failed.advice
    held = general(report(**holding), factor)  # type: ignore[arg-type]
    assert isinstance(held, Held)
    assert held.found
    assert held.expected


def test_an_enclave_in_production_holds_as_such() -> None:
    assert isinstance(general(report(), "debug"), Held)


def test_a_status_that_shortcuts_cover_holds() -> None:
    claims = with_(tcb_status="ConfigurationNeeded", advisories=frozenset({"INTEL-SA-00233"}))
    held = general(report(claims, tolerate=frozenset({"hyperthreading"})), "tcb_status")
    assert isinstance(held, Held)
    assert held.expected == "nothing but tolerated advisories"


@pytest.mark.parametrize(
    ("demand", "factor"),
    [({"singleton_enclaves": True}, "singleton_enclaves"), ({"must_be_sgx_local": True}, "must_be_sgx_local")],
)
def test_demands_that_nothing_here_can_fulfil_stand_in_the_report(demand: dict[str, bool], factor: str) -> None:
    assert isinstance(general(report(**demand), factor), Mismatch)  # type: ignore[arg-type]


def test_what_is_not_resolved_in_security_stands_in_the_report() -> None:
    variable = Variable(placeholder=Placeholder(name="x"))
    assert isinstance(general(report(tolerate=frozenset({variable})), "security.attestation"), Mismatch)


FACTORS = [
    # factor, a variant where it fails, one where it holds, found, expected where it fails
    ("mrenclave", Variant(mrenclave=(B,)), Variant(mrenclave=(B, A)), A.hex(), B.hex()),
    (
        "signer.mrsigner",
        Variant(signer=Signer(mrsigner=B, isvprodid=7)),
        Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7)),
        SIGNER.hex(),
        B.hex(),
    ),
    (
        "signer.isvprodid",
        Variant(signer=Signer(mrsigner=SIGNER, isvprodid=8)),
        Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7)),
        "7",
        "8",
    ),
    (
        "signer.isvsvn",
        Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=4)),
        Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=3)),
        "3",
        "4 to 65535",
    ),
]


@pytest.mark.parametrize(
    ("factor", "failing", "holding", "found", "expected"), FACTORS, ids=[row[0] for row in FACTORS]
)
def test_each_factor_of_a_variant_is_told_whether_it_holds_or_not(
    factor: str, failing: Variant, holding: Variant, found: str, expected: str
) -> None:
    service = dataclasses.replace(SERVICE, attestation=(failing, holding))
    failed, held = (
        next(one for one in variant.factors if one.factor == factor) for variant in report(service=service).variants
    )
    assert isinstance(failed, Mismatch)
    assert isinstance(held, Held)
    assert (failed.found, failed.expected) == (found, expected)
    assert held.found == found
    assert len(report(service=service).variants[0].mismatches) == 1


def test_every_variant_is_told_and_the_nearest_is_the_first_of_the_fewest_mismatches() -> None:
    far = Variant(mrenclave=(B,), signer=Signer(mrsigner=B, isvprodid=8))
    near = Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=9))
    also_near = Variant(mrenclave=(B,))
    found = report(service=dataclasses.replace(SERVICE, attestation=(far, near, also_near)))
    assert [len(variant.mismatches) for variant in found.variants] == [3, 1, 1]
    assert found.nearest is not None
    assert found.nearest.index == 1
    assert [mismatch.factor for mismatch in found.mismatches] == ["signer.isvsvn"]


def test_a_long_list_of_measurements_is_counted_and_not_written_out() -> None:
    many = tuple(number.to_bytes(32, "big") for number in range(1000))
    (mismatch,) = report(service=dataclasses.replace(SERVICE, attestation=(Variant(mrenclave=many),))).mismatches
    assert mismatch.expected.endswith("or 984 more")
    assert many[15].hex() in mismatch.expected
    assert many[16].hex() not in mismatch.expected


def test_the_refusal_carries_the_report() -> None:
    with pytest.raises(AppraisalRefusedError) as refusal:
        appraise(CLAIMS, SERVICE, SecurityAttestation(), binding=bytes(64), now=NOW)
    assert refusal.value.report == report(binding=bytes(64))
    assert refusal.value.mismatches == refusal.value.report.mismatches


@pytest.mark.parametrize("row", GENERAL, ids=[row[0] for row in GENERAL])
def test_a_report_survives_json(row: tuple[str, dict[str, object], dict[str, object]]) -> None:
    for arguments in row[1:]:
        before = report(**arguments)  # type: ignore[arg-type]
        assert read_report(json.loads(json.dumps(write_report(before, most_variants=9)))) == before


def test_the_nearest_variants_are_kept_where_there_is_no_room_for_all() -> None:
    variants = (Variant(mrenclave=(B,), signer=Signer(mrsigner=B, isvprodid=8)), Variant(mrenclave=(B,)))
    written = write_report(report(service=dataclasses.replace(SERVICE, attestation=variants)), most_variants=1)
    assert written["variants_left_out"] == 1
    assert [variant.index for variant in read_report(written).variants] == [1]


def test_advice_survives_json() -> None:
    operation = Operation(action="add", path="a.b", value={"c": ["d"]}, wisdom=Wisdom.FOR_A_TIME, why="so")
    advice = Advice(operations=(operation,), obstacles=("no",))
    assert read_advice(json.loads(json.dumps(write_advice(advice)))) == advice


@pytest.mark.parametrize("document", [{}, {"general": 1, "variants": []}, {"general": [{}], "variants": []}])
def test_what_is_no_report_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(InputError, match="this is no report"):
        read_report(document)


@pytest.mark.parametrize("document", [{}, {"operations": [{}]}, {"operations": 1, "obstacles": []}])
def test_what_is_no_advice_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(InputError, match="this is no advice"):
        read_advice(document)


def test_claims_are_written_for_people_and_without_the_vendors_fields() -> None:
    claims = with_(raw={"secret": "field"}, measurements={f"sha256:{n}": A for n in range(100)}, platform_id="f" * 9000)
    written = json.dumps(write_claims(claims))
    assert "secret" not in written
    assert written.count("sha256:") == 48
    assert "f" * 200 in written
    assert "f" * 201 not in written


def test_claims_of_any_length_are_written_short() -> None:
    words = frozenset(f"{number:0>500}" for number in range(500))
    claims = with_(advisories=words, conditions=words, tcb_status="x" * 9000, measurements=dict.fromkeys(words, A * 2))
    assert len(json.dumps(write_claims(claims))) < 24 * 1024
