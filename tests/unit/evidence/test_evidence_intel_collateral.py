"""Endorsements: nine members, each of its form, and the date of the TCB level that a platform meets."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from tests.simulators.sgx_platform import LIFETIME, TCB_DATE, SgxPlatform

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.intel.collateral import (
    MAX_COLLATERAL_BYTES,
    issued_at,
    parse_collateral,
    rate_again,
    tcb_date,
)


def test_parts_come_out_as_they_went_in(platform: SgxPlatform) -> None:
    data = platform.collateral()
    members = json.loads(data)
    parts = parse_collateral(data)
    for name in (
        "pck_crl_issuer_chain",
        "tcb_info_issuer_chain",
        "tcb_info",
        "qe_identity_issuer_chain",
        "qe_identity",
    ):
        assert getattr(parts, name) == members[name]
    for name in ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"):
        assert bytes(getattr(parts, name)).hex() == members[name]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"nul"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match="not JSON, expected an object in UTF-8"):
        parse_collateral(data)


def test_json_other_than_an_object_is_refused() -> None:
    with pytest.raises(EvidenceFormatError, match="found list, expected a JSON object"):
        parse_collateral(b"[]")


@pytest.mark.parametrize("name", ["tcb_info", "pck_crl", "qe_identity_issuer_chain"])
@pytest.mark.parametrize("value", [None, 1, ["a"], "\N{GREEK SMALL LETTER OMEGA}"])
def test_member_that_is_no_text_is_refused(platform: SgxPlatform, name: str, value: object) -> None:
    members = json.loads(platform.collateral()) | {name: value}
    with pytest.raises(EvidenceFormatError, match=f"member {name} is missing or not ASCII text"):
        parse_collateral(json.dumps(members).encode())


def test_binary_member_that_is_not_hex_is_refused(platform: SgxPlatform) -> None:
    members = json.loads(platform.collateral()) | {"root_ca_crl": "zz"}
    with pytest.raises(EvidenceFormatError, match="member root_ca_crl is not hex"):
        parse_collateral(json.dumps(members).encode())


def test_oversized_endorsements_are_refused() -> None:
    with pytest.raises(EvidenceFormatError, match="262145 bytes, expected at most 262144"):
        parse_collateral(b" " * (MAX_COLLATERAL_BYTES + 1))


def _levels(*levels: tuple[int, int, str]) -> str:
    """Of (SVN of all components, PCE SVN, date)."""
    return json.dumps(
        {
            "tcbLevels": [
                {
                    "tcb": {"sgxtcbcomponents": [{"svn": svn}] * 16, "pcesvn": pce},
                    "tcbDate": f"{date}T00:00:00Z",
                    "tcbStatus": "UpToDate",
                }
                for svn, pce, date in levels
            ]
        }
    )


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (_levels((1, 1, "2026-01-01"), (0, 0, "2020-01-01")), datetime(2026, 1, 1, tzinfo=UTC)),
        (_levels((2, 1, "2026-01-01"), (1, 1, "2020-01-01")), datetime(2020, 1, 1, tzinfo=UTC)),
        (_levels((1, 2, "2026-01-01"), (1, 0, "2020-01-01")), datetime(2020, 1, 1, tzinfo=UTC)),
        (_levels((2, 2, "2026-01-01")), None),
        (_levels(), None),
        ("{}", None),
        ('{"tcbLevels": [{"tcb": {"sgxtcbcomponents": [], "pcesvn": 1}, "tcbDate": "x"}]}', None),
    ],
)
def test_tcb_date_is_that_of_the_first_level_met(platform: SgxPlatform, levels: str, expected: datetime | None) -> None:
    assert tcb_date(levels, platform.certificates.pck_chain, None) == expected


def test_tcb_date_of_the_platform_itself(platform: SgxPlatform) -> None:
    tcb_info = json.loads(platform.collateral())["tcb_info"]
    assert tcb_date(tcb_info, platform.certificates.pck_chain, None) == TCB_DATE


def test_the_oldest_statement_says_how_old_the_endorsements_are(platform: SgxPlatform) -> None:
    parts = json.loads(platform.collateral())
    crl = bytes.fromhex(parts["pck_crl"])
    assert issued_at(parts["tcb_info"], parts["qe_identity"], crl) == LIFETIME.start
    for text in ({"issueDate": "2019-01-01T00:00:00Z"}, {"issueDate": "2030-01-01T00:00:00Z"}):
        expected = min(LIFETIME.start, datetime.fromisoformat(text["issueDate"]))
        assert issued_at(parts["tcb_info"], json.dumps(text), crl) == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"issueDate": 1}', '{"issueDate": "2026-01-01T00:00:00"}'])
def test_endorsements_without_a_date_have_no_age(platform: SgxPlatform, text: str) -> None:
    parts = json.loads(platform.collateral())
    assert issued_at(text, parts["qe_identity"], bytes.fromhex(parts["pck_crl"])) is None
    assert issued_at(parts["tcb_info"], parts["qe_identity"], b"no list") is None


def test_a_platform_is_rated_again_by_all_its_parts(platform: SgxPlatform) -> None:
    parts = json.loads(platform.collateral(status="OutOfDate", advisories=("INTEL-SA-00001",)))
    chain = platform.certificates.pck_chain
    found = rate_again(parts["tcb_info"], parts["qe_identity"], chain, 1, None)
    assert found is not None
    assert (found.status, set(found.advisories), found.date) == ("OutOfDate", {"INTEL-SA-00001"}, TCB_DATE)
    assert rate_again("{}", parts["qe_identity"], chain, 1, None) is None
    assert rate_again(parts["tcb_info"], "[]", chain, 1, None) is None
    assert rate_again(parts["tcb_info"], parts["qe_identity"], b"no chain", 1, None) is None
