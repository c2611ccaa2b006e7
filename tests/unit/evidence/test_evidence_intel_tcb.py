"""Intel's TCB data against a platform: which level counts, and what becomes of several parts together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.intel.tcb import Platform, Rating, module_identity, rate_by_svn, rate_sgx, rate_tdx

PLATFORM = Platform(cpu_svn=bytes([2]) * 16, pce_svn=11)
GOOD = Rating(status="UpToDate", advisories=frozenset(), date=None)
OLD = Rating(status="OutOfDate", advisories=frozenset({"INTEL-SA-00001"}), date=None)


def components(*numbers: int) -> list[dict[str, int]]:
    return [{"svn": number} for number in (*numbers, *[0] * 16)][:16]


def level(
    status: str = "UpToDate", *, sgx: int = 2, pce: int = 11, tdx: tuple[int, ...] = (), **more: Any
) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": components(*[sgx] * 16), "pcesvn": pce}
    if tdx:
        tcb["tdxtcbcomponents"] = components(*tdx)
    return {"tcb": tcb, "tcbStatus": status, "tcbDate": "2025-01-01T00:00:00Z", **more}


def info(*levels: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tcbLevels": list(levels), **more}


def module(major: int, *levels: tuple[int, str]) -> dict[str, Any]:
    found = [{"tcb": {"isvsvn": svn}, "tcbStatus": status, "tcbDate": "2025-01-01T00:00:00Z"} for svn, status in levels]
    return {"id": f"TDX_{major:02X}", "tcbLevels": found}


def svn(*numbers: int) -> bytes:
    return bytes(numbers).ljust(16, b"\0")


def rated(tcb_info: dict[str, Any], launched: bytes) -> Rating:
    return rate_tdx(tcb_info, PLATFORM, GOOD, tee_tcb_svn=launched, tee_tcb_svn2=None)


TDX = info(
    level(tdx=(5, 0, 2), advisoryIDs=[]),
    level("OutOfDate", pce=5, tdx=(5, 0, 2), advisoryIDs=["INTEL-SA-00837"]),
    tdxModule={"mrsigner": "00" * 48},
    tdxModuleIdentities=[module(3, (3, "UpToDate")), module(1, (4, "UpToDate"), (2, "OutOfDate"))],
)


@pytest.mark.parametrize(
    ("levels", "status"),
    [
        ([level(), level("OutOfDate", sgx=1)], "UpToDate"),
        ([level(sgx=3), level("OutOfDate", sgx=1)], "OutOfDate"),
        ([level(pce=12), level("OutOfDate", pce=1)], "OutOfDate"),
        ([level("SWHardeningNeeded"), level("UpToDate")], "SWHardeningNeeded"),
    ],
)
def test_the_first_level_counts_that_asks_for_no_more_than_the_platform_has(levels: list[Any], status: str) -> None:
    assert rate_sgx(info(*levels), PLATFORM, GOOD).status == status


def test_tcb_info_of_version_2_has_its_components_by_name() -> None:
    tcb = {f"sgxtcbcomp{number:02}svn": 2 for number in range(1, 17)}
    old = {"tcb": {**tcb, "pcesvn": 11}, "tcbStatus": "UpToDate"}
    assert rate_sgx(info(old), PLATFORM, GOOD) == GOOD
    with pytest.raises(EvidenceRefusedError, match="the platform meets no TCB level of the endorsements"):
        rate_sgx(info({**old, "tcb": {**tcb, "sgxtcbcomp16svn": 3, "pcesvn": 11}}), PLATFORM, GOOD)


@pytest.mark.parametrize(
    ("status", "beside_old"),
    [
        ("UpToDate", "OutOfDate"),
        ("SWHardeningNeeded", "OutOfDate"),
        ("ConfigurationNeeded", "OutOfDateConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"),
        ("OutOfDate", "OutOfDate"),
        ("OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"),
    ],
)
def test_a_quoting_enclave_out_of_date_moves_the_status(status: str, beside_old: str) -> None:
    assert rate_sgx(info(level(status)), PLATFORM, OLD).status == beside_old
    assert rate_sgx(info(level(status)), PLATFORM, OLD).advisories == OLD.advisories
    configure = Rating(status="ConfigurationNeeded", advisories=frozenset(), date=None)
    assert rate_sgx(info(level(status)), PLATFORM, configure).status == status


def test_what_is_revoked_is_refused_whatever_the_rest_says() -> None:
    revoked = Rating(status="Revoked", advisories=frozenset(), date=None)
    for levels, qe in ((info(level("Revoked")), GOOD), (info(level()), revoked), (info(level("OutOfDate")), revoked)):
        with pytest.raises(EvidenceRefusedError, match="the TCB level of this platform is revoked"):
            rate_sgx(levels, PLATFORM, qe)
    with pytest.raises(EvidenceRefusedError, match="revoked"):
        rated({**TDX, "tdxModuleIdentities": [module(1, (0, "Revoked"))]}, svn(6, 1, 3))


@pytest.mark.parametrize(
    ("launched", "status"),
    [
        (svn(6, 1, 3), "UpToDate"),
        (svn(3, 1, 3), "OutOfDate"),
        (svn(3, 3, 3), "UpToDate"),
        (svn(5, 0, 2), "UpToDate"),
    ],
)
def test_a_module_with_a_major_version_is_rated_by_its_own_levels(launched: bytes, status: str) -> None:
    assert rated(TDX, launched).status == status


@pytest.mark.parametrize(
    ("launched", "says"),
    [
        (svn(6, 1, 1), "the platform meets no TCB level"),
        (svn(4, 0, 2), "the platform meets no TCB level"),
        (svn(5, 0, 1), "the platform meets no TCB level"),
        (svn(2, 3, 3), "the TDX module with SVN 2 meets no TCB level"),
        (svn(6, 2, 3), "the endorsements do not know the TDX module TDX_02"),
    ],
)
def test_a_module_that_no_level_knows_is_refused(launched: bytes, says: str) -> None:
    with pytest.raises(EvidenceRefusedError, match=says):
        rated(TDX, launched)


@pytest.mark.parametrize(
    ("launched", "current", "status"),
    [
        (svn(3, 1, 3), svn(6, 1, 3), "TDRelaunchAdvised"),
        (svn(3, 1, 3), svn(3, 3, 3), "TDRelaunchAdvised"),
        (svn(6, 1, 3), svn(3, 1, 3), "UpToDate"),
        (svn(3, 1, 3), svn(2, 1, 3), "OutOfDate"),
    ],
)
def test_a_td_started_under_an_old_module_is_advised_to_start_anew(
    launched: bytes, current: bytes, status: str
) -> None:
    assert rate_tdx(TDX, PLATFORM, GOOD, tee_tcb_svn=launched, tee_tcb_svn2=current).status == status


def test_the_advice_remembers_that_the_configuration_is_to_be_mended() -> None:
    configure = {**TDX, "tcbLevels": [level("ConfigurationNeeded", tdx=(5, 0, 2))]}
    found = rate_tdx(configure, PLATFORM, GOOD, tee_tcb_svn=svn(3, 1, 3), tee_tcb_svn2=svn(6, 1, 3))
    assert found.status == "TDRelaunchAdvisedConfigurationNeeded"


def test_advisories_of_all_levels_are_named() -> None:
    weak = Platform(cpu_svn=PLATFORM.cpu_svn, pce_svn=7)
    found = rate_tdx(TDX, weak, OLD, tee_tcb_svn=svn(6, 1, 3), tee_tcb_svn2=None)
    assert found.advisories == {"INTEL-SA-00837", "INTEL-SA-00001"}


def test_a_module_without_a_major_version_is_the_one_of_the_tcb_info() -> None:
    assert module_identity(TDX, svn(5, 0, 2)) == TDX["tdxModule"]
    with pytest.raises(EvidenceFormatError, match="member tdxModule is missing or no object"):
        module_identity({}, svn(5, 0, 2))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "tcbLevels is not a list of at most 256 objects"),
        (info(*[level()] * 257), "tcbLevels is not a list of at most 256 objects"),
        ({"tcbLevels": [1]}, "tcbLevels is not a list of at most 256 objects"),
        (info({"tcbStatus": "UpToDate"}), "member tcb is missing or no object"),
        (info({"tcb": {}}), "member pcesvn is missing or no number"),
        (info({"tcb": {"pcesvn": True}}), "member pcesvn is missing or no number"),
        (
            info({"tcb": {"pcesvn": 1, "sgxtcbcomponents": []}}),
            "member sgxtcbcomponents is not a list of 16 components",
        ),
        (info({"tcb": {"pcesvn": 1, "sgxtcbcomponents": [1] * 16}}), "member svn is missing or no number"),
        (info(level(advisoryIDs="x")), "advisoryIDs of a TCB level is not a list of texts"),
        (info({**level(), "tcbDate": "soon"}), "tcbDate of a TCB level is no date"),
    ],
)
def test_data_of_another_form_is_refused(data: dict[str, Any], says: str) -> None:
    with pytest.raises(EvidenceFormatError, match=says):
        rate_sgx(data, PLATFORM, GOOD)


@pytest.mark.parametrize("status", ["Fine", "TDRelaunchAdvised", None])
def test_a_status_that_nobody_knows_is_refused(status: str | None) -> None:
    with pytest.raises(EvidenceRefusedError, match="a TCB status that is not known here"):
        rate_sgx(info({**level(), "tcbStatus": status}), PLATFORM, GOOD)


def test_an_enclave_is_rated_by_its_svn() -> None:
    identity = module(0, (4, "UpToDate"), (2, "OutOfDate"))
    assert rate_by_svn(identity, 5, "quoting enclave").status == "UpToDate"
    assert rate_by_svn(identity, 3, "quoting enclave").status == "OutOfDate"
    with pytest.raises(EvidenceRefusedError, match="the quoting enclave with SVN 1 meets no TCB level"):
        rate_by_svn(identity, 1, "quoting enclave")


# --- since when a platform is out of date ----------------------------------------------------------------------------


def dated(date: str, status: str = "OutOfDate", *advisories: str, **more: Any) -> dict[str, Any]:
    return {**level(status, **more), "tcbDate": f"{date}T00:00:00Z", "advisoryIDs": list(advisories)}


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NEW = dated("2025-06-01", "UpToDate", "SA-1", sgx=4)
BETWEEN = dated("2024-06-01", "OutOfDate", "SA-1", "SA-2", sgx=3)
OWN = dated("2023-06-01", "OutOfDate", "SA-1", "SA-2", "SA-3")


@pytest.mark.parametrize(
    ("levels", "superseded", "mended"),
    [
        ([NEW, BETWEEN, OWN], "2024-06-01", {"SA-2", "SA-3"}),
        ([NEW, OWN], "2025-06-01", {"SA-2", "SA-3"}),
        ([{**NEW, "advisoryIDs": []}, dated("2025-06-01", "ConfigurationNeeded", "SA-3", sgx=4), OWN], "2025-06-01",
         {"SA-1", "SA-2"}),
        ([{**NEW, "tcbDate": "2025-06-01"}, OWN], "2025-06-01", {"SA-2", "SA-3"}),
    ],
)  # fmt: skip
def test_the_oldest_newer_level_says_since_when(levels: list[Any], superseded: str, mended: set[str]) -> None:
    """Mended is what none of the newest levels has any more; a date without a zone is UTC."""
    found = rate_sgx(info(*levels), PLATFORM, GOOD)
    assert (found.superseded, set(found.mended)) == (day(superseded), mended)


@pytest.mark.parametrize("levels", [
    [OWN],
    [dated("2023-06-01", "UpToDate", sgx=4), OWN],
    [{name: value for name, value in NEW.items() if name != "tcbDate"}, OWN],
    [NEW, {name: value for name, value in OWN.items() if name != "tcbDate"}],
    [NEW, {**OWN, "tcbStatus": "UpToDate"}],
    [NEW, {**OWN, "tcbStatus": "ConfigurationNeeded"}],
])  # fmt: skip
def test_nobody_says_since_when_without_a_newer_level_with_a_date(levels: list[Any]) -> None:
    """Nor is a platform superseded that is not out of date, whatever newer levels there are."""
    found = rate_sgx(info(*levels), PLATFORM, GOOD)
    assert (found.superseded, found.mended) == (None, frozenset())


def test_of_several_parts_that_are_out_of_date_the_earliest_day_counts() -> None:
    old_qe = Rating(
        status="OutOfDate", advisories=frozenset({"SA-3", "SA-4"}), date=None, superseded=day("2022-01-01"),
        mended=frozenset({"SA-4"}),
    )  # fmt: skip
    both = rate_sgx(info(NEW, OWN), PLATFORM, old_qe)
    assert both.superseded == day("2022-01-01")
    assert both.mended == {"SA-2", "SA-4"}, "SA-3 stays with the quoting enclave"
    alone = rate_sgx(info({**NEW, "tcb": level()["tcb"]}), PLATFORM, old_qe)
    assert (alone.status, alone.superseded) == ("OutOfDate", day("2022-01-01"))
    unknown = rate_sgx(info(NEW, OWN), PLATFORM, OLD)
    assert (unknown.status, unknown.superseded) == ("OutOfDate", None), "of a part nobody knows since when"


def test_a_td_under_an_old_module_was_superseded_with_it() -> None:
    levels = [
        {"tcb": {"isvsvn": 4}, "tcbStatus": "UpToDate", "tcbDate": "2025-02-01T00:00:00Z"},
        {"tcb": {"isvsvn": 2}, "tcbStatus": "OutOfDate", "tcbDate": "2024-02-01T00:00:00Z", "advisoryIDs": ["SA-9"]},
    ]
    tdx = {**TDX, "tdxModuleIdentities": [{"id": "TDX_01", "tcbLevels": levels}]}
    found = rated(tdx, svn(3, 1, 3))
    assert (found.status, found.superseded, set(found.mended)) == ("OutOfDate", day("2025-02-01"), {"SA-9"})
