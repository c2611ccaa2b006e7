"""What a verifier remembers of a platform never lets through what the full check would refuse."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.simulators.sgx_platform import LIFETIME, MR_ENCLAVE, NOW, SgxPlatform, make_platform, with_byte_flipped

from ostiary.errors import EvidenceRefusedError, OstiaryError
from ostiary.evidence.intel import verifier
from ostiary.evidence.intel.verifier import Verifier
from ostiary.evidence.sgx.verify import verify

JUST_BEFORE = verifier.PLATFORM_LIFE - timedelta(microseconds=1)


class Counting:
    """Counts how often the full check is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr("ostiary.evidence.sgx.verify.verify", self._verify)

    def _verify(self, *arguments: object, **named: object) -> object:
        self.calls += 1
        return verify(*arguments, **named)  # type: ignore[arg-type]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.fixture
def collateral(platform: SgxPlatform) -> bytes:
    """One collateral for all quotes of a test: a new one would be another platform to the verifier."""
    return platform.collateral()


@pytest.fixture
def warm(platform: SgxPlatform, collateral: bytes) -> Verifier:
    """A verifier that has seen the platform at NOW."""
    made = Verifier((platform.software_root,))
    made.verify(platform.quote(), collateral, now=NOW)
    return made


def test_a_known_platform_gives_the_claims_that_the_full_check_gives(
    warm: Verifier, platform: SgxPlatform, collateral: bytes, counting: Counting
) -> None:
    quote = platform.quote(mr_enclave=b"m" * 32, report_data=b"d" * 64)
    claims = warm.verify(quote, collateral, now=NOW + JUST_BEFORE)
    assert counting.calls == 0
    assert claims == verify(quote, collateral, roots=[platform.software_root], now=NOW)
    assert claims.identity == b"m" * 32
    assert claims.debug


@pytest.mark.parametrize("ahead", [verifier.PLATFORM_LIFE, timedelta(days=1), timedelta(microseconds=-1)])
def test_a_platform_is_judged_anew_when_its_time_is_over_or_the_clock_went_back(
    warm: Verifier, platform: SgxPlatform, collateral: bytes, counting: Counting, ahead: timedelta
) -> None:
    warm.verify(platform.quote(), collateral, now=NOW + ahead)
    assert counting.calls == 1


def test_endorsements_that_ran_out_are_refused_once_the_platform_is_judged_anew(
    warm: Verifier, platform: SgxPlatform, collateral: bytes
) -> None:
    end = LIFETIME.end
    warm.verify(platform.quote(), collateral, now=end - timedelta(seconds=1))
    with pytest.raises(EvidenceRefusedError, match="run out"):
        warm.verify(platform.quote(), collateral, now=end + verifier.PLATFORM_LIFE)


def test_other_endorsements_are_another_platform(warm: Verifier, platform: SgxPlatform) -> None:
    revoking = platform.collateral(revoked=[platform.certificates.platform])
    with pytest.raises(EvidenceRefusedError, match="revoked"):
        warm.verify(platform.quote(), revoking, now=NOW)


def test_another_platform_under_another_root_is_refused(warm: Verifier, collateral: bytes) -> None:
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        warm.verify(make_platform().quote(), collateral, now=NOW)


def test_a_debug_enclave_of_a_known_platform_is_one(platform: SgxPlatform, collateral: bytes) -> None:
    verifier = Verifier((platform.hardware_root,))
    for debug in (False, True, False, True):
        assert verifier.verify(platform.quote(debug=debug), collateral, now=NOW).debug is debug


def test_a_quote_that_another_key_signed_is_refused(warm: Verifier, platform: SgxPlatform, collateral: bytes) -> None:
    """Everything of the known platform, but the quote's own signature is a stranger's."""
    genuine, forged = platform.quote(), make_platform().quote()
    mixed = genuine[:0x1B4] + forged[0x1B4:0x1F4] + genuine[0x1F4:]
    with pytest.raises(EvidenceRefusedError, match="changed after signing"):
        warm.verify(mixed, collateral, now=NOW)


def test_every_byte_that_is_signed_counts(warm: Verifier, platform: SgxPlatform, collateral: bytes) -> None:
    """Header, report and signature of a quote of a known platform, each byte changed in turn."""
    quote = platform.quote()
    for offset in range(0x1F4):
        with pytest.raises(OstiaryError):
            warm.verify(with_byte_flipped(quote, offset), collateral, now=NOW)


def test_no_change_is_accepted_that_the_full_check_refuses(
    warm: Verifier, platform: SgxPlatform, collateral: bytes
) -> None:
    quote = platform.quote()
    for offset in range(0x1F4, len(quote), 7):
        changed = with_byte_flipped(quote, offset)
        try:
            verify(changed, collateral, roots=[platform.software_root], now=NOW)
        except OstiaryError:
            with pytest.raises(OstiaryError):
                warm.verify(changed, collateral, now=NOW)


def test_without_roots_nothing_is_accepted(platform: SgxPlatform, collateral: bytes) -> None:
    with pytest.raises(EvidenceRefusedError, match="does not trust"):
        Verifier(()).verify(platform.quote(), collateral, now=NOW)


def test_the_least_recently_used_platform_is_forgotten(
    platform: SgxPlatform, collateral: bytes, monkeypatch: pytest.MonkeyPatch, counting: Counting
) -> None:
    monkeypatch.setattr(verifier, "MAX_PLATFORMS", 1)
    other = make_platform()
    bounded = Verifier((platform.software_root, other.software_root))
    other_collateral = other.collateral()
    for quote, endorsements in ((platform.quote(), collateral), (other.quote(), other_collateral)) * 2:
        assert bounded.verify(quote, endorsements, now=NOW).identity == MR_ENCLAVE
    assert counting.calls == 4
