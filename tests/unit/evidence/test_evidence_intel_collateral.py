"""Endorsements: nine members, each of its form, and the date of the TCB level that a platform meets."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from tests.simulators.sgx_platform import TCB_DATE, SgxPlatform

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.intel.collateral import MAX_COLLATERAL_BYTES, parse_collateral, tcb_date


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
