"""SNP reports under AMD's roots and under one that the tests make: what is authentic, and everything that is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.simulators.chains import NOW, pem, revoke
from tests.simulators.genuine import Case, cases
from tests.simulators.genuine import pem as certificates
from tests.simulators.snp_chip import CHIP_ID, MEASUREMENT, REPORT_DATA, Chip, make_chip

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, OstiaryError
from ostiary.evidence.claims import Claims
from ostiary.evidence.roots import amd_roots
from ostiary.evidence.snp.verify import Verifier, verify

CHIP = make_chip()
GENUINE = cases("snp")


def endorsements(case: Case) -> bytes:
    return certificates(*(data for name, data in case.files.items() if name.endswith(".der")))


def judged(chip: Chip, report: bytes | None = None, *, more: bytes = b"", software: bool = False) -> Claims:
    root = chip.root.root(software=software)
    return verify(report or chip.report(), chip.endorsements + more, roots=[*amd_roots(), root], now=NOW)


def refused(chip: Chip, report: bytes | None = None, *, more: bytes = b"") -> str:
    with pytest.raises(EvidenceRefusedError) as caught:
        judged(chip, report, more=more)
    return str(caught.value)


REASONS = {
    "snp-coco-milan-bad-vcek-legacy": "a certificate is not signed by the next one of its chain",
    "snp-coco-milan-bad-vcek-new": "a certificate is not signed by the next one of its chain",
    "snp-coco-vlek-expired": "fetch new endorsements: the chain held until 2025-12-10T22:14:21Z",
    "snp-fraunhofer-bad-signature": "the report is not signed by the key of its certificate",
    "snp-wrong-chip-vcek": "the certificate is that of another chip than the report",
}


@pytest.mark.parametrize("case", GENUINE, ids=str)
def test_genuine_reports_give_the_expected_verdict_and_claims(case: Case) -> None:
    if not case.valid:
        with pytest.raises(EvidenceRefusedError, match=REASONS[case.name]):
            verify(case.files["report.bin"], endorsements(case), roots=amd_roots(), now=case.verify_at)
        return
    claims = verify(case.files["report.bin"], endorsements(case), roots=amd_roots(), now=case.verify_at)
    assert claims.raw == case.claims
    assert claims.identity.hex() == case.claims["measurement"]
    assert claims.report_data.hex() == case.claims["report_data"]
    assert claims.debug is ("debug" in case.expected["flags"])
    assert not claims.software


@pytest.mark.parametrize("case", [case for case in GENUINE if case.valid], ids=str)
def test_no_byte_of_a_genuine_report_can_be_changed(case: Case) -> None:
    verifier, proof = Verifier(amd_roots()), endorsements(case)
    verifier.verify(case.files["report.bin"], proof, now=case.verify_at)
    for offset in range(len(case.files["report.bin"])):
        changed = bytearray(case.files["report.bin"])
        changed[offset] ^= 1 + offset % 255
        with pytest.raises((EvidenceFormatError, EvidenceRefusedError)):
            verifier.verify(bytes(changed), proof, now=case.verify_at)


def test_claims_of_a_report() -> None:
    claims = judged(CHIP)
    assert claims.tee == "snp"
    assert claims.identity == MEASUREMENT
    assert claims.measurements["host_data"] == b"h" * 32
    assert (claims.signer, claims.product_id, claims.svn) == (None, None, 5)
    assert claims.report_data == REPORT_DATA
    assert (claims.debug, claims.software) == (False, False)
    assert claims.platform_id == CHIP_ID.hex()


def test_a_guest_that_its_host_may_debug_says_so() -> None:
    assert judged(CHIP, CHIP.report({0x008: (0xB0000).to_bytes(8, "little")})).debug


def test_a_software_root_makes_software_evidence_which_is_debug() -> None:
    claims = judged(CHIP, software=True)
    assert claims.software
    assert claims.debug


def test_an_id_key_is_the_signer() -> None:
    assert judged(CHIP, CHIP.report({0x0E0: b"k" * 48})).signer == b"k" * 48


def test_a_key_of_a_provider_names_no_chip() -> None:
    provider = make_chip(hardware_id=None, provider="CN=cloud.example")
    claims = judged(provider, provider.report({0x1A0: bytes(64)}, signing_key=1))
    assert claims.platform_id == ""


def test_a_chip_id_that_the_host_masks_is_not_compared() -> None:
    assert judged(CHIP, CHIP.report({0x1A0: bytes(64)})).platform_id == ""


def test_turin_shows_eight_bytes_of_its_chip_id() -> None:
    turin = make_chip(product="Turin", parts={1: 1, 2: 0, 3: 2, 8: 71, 9: 0}, hardware_id=CHIP_ID[:8])
    fields = {0x180: bytes((0, 1, 0, 2, 0, 0, 0, 71)), 0x188: bytes((0x1A, 2, 1))}
    assert judged(turin, turin.report(fields)).raw["reported_tcb_parts"] == {
        "fmc": 0,
        "bl": 1,
        "tee": 0,
        "snp": 2,
        "ucode": 71,
    }
    other = make_chip(product="Turin", parts={1: 1, 2: 0, 3: 2, 8: 71, 9: 0}, hardware_id=bytes(8))
    assert "another chip" in refused(other, other.report(fields))


@pytest.mark.parametrize(
    ("chip", "fields", "says"),
    [
        (CHIP, {0x048: b"\x04"}, "says that a VLEK signed it, the certificate is that of a VCEK"),
        (CHIP, {0x048: b"\x1c"}, "says that a none signed it"),
        (CHIP, {0x188: bytes((0x19, 0x11, 1))}, "is of a Genoa processor, and the certificate of a Milan"),
        (
            CHIP,
            {0x180: bytes(8)},
            "for another TCB version than the report: the report has bl 0 snp 0 tee 0 ucode 0",
        ),
        (CHIP, {0x1A0: bytes(63) + b"\x01"}, "the certificate is that of another chip than the report"),
        (make_chip(parts={1: 3, 2: 0, 3: 8}), {}, "the certificate bl 3 snp 8 tee 0; have the platform fetch"),
        (make_chip(hardware_id=b""), {}, "names neither one chip nor one provider"),
        (make_chip(provider="CN=x"), {}, "names neither one chip nor one provider"),
        (make_chip(hardware_id=None), {}, "names neither one chip nor one provider"),
        (make_chip(product=None), {}, "has no product name, as AMD's have"),
        (make_chip(product="Naples"), {}, "is for 'Naples', which its root is not for"),
        (make_chip(curve=ec.SECP256R1()), {}, "not of a P-384 key, as AMD's are"),
        (make_chip(end=NOW - timedelta(hours=1)), {}, "has run out"),
    ],
)
def test_what_does_not_fit_together_is_refused(chip: Chip, fields: dict[int, bytes], says: str) -> None:
    assert says in refused(chip, chip.report(fields))


def test_a_version_in_the_certificate_that_is_no_number_is_refused() -> None:
    with pytest.raises(EvidenceFormatError, match=r"extension 1\.3\.6\.1\.4\.1\.3704\.1\.3\.1: not an integer"):
        judged(make_chip(parts={2: 0, 3: 8, 8: 115}, extra=(("3.1", b"\x05\x00"),)))


def test_a_report_that_another_chip_signed_is_refused() -> None:
    assert "not signed by the key of its certificate" in refused(CHIP, make_chip(root=CHIP.root).report())


def test_a_signature_of_zeros_is_refused() -> None:
    assert "not signed by the key of its certificate" in refused(CHIP, CHIP.report()[:0x2A0] + bytes(512))


def test_a_chip_that_is_revoked_is_refused() -> None:
    revoked = revoke(CHIP.middle, CHIP.leaf.certificate.serial_number)
    assert "is revoked: certificate 'CN=SEV-VCEK'" in refused(CHIP, more=pem(revoked))
    assert "is revoked: certificate 'CN=SEV-Test'" in refused(
        CHIP, more=pem(revoke(CHIP.root, CHIP.middle.certificate.serial_number))
    )


def test_without_roots_nothing_is_authentic() -> None:
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        verify(CHIP.report(), CHIP.endorsements, roots=[], now=NOW)


class TestRemembering:
    def test_certificates_are_verified_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = Verifier((CHIP.root.root(),))
        first = verifier.verify(CHIP.report(), CHIP.endorsements, now=NOW)
        monkeypatch.setattr("ostiary.evidence.snp.verify.verify_endorsements", None)
        assert verifier.verify(CHIP.report(), CHIP.endorsements, now=NOW) == first

    def test_they_are_not_believed_after_their_end(self) -> None:
        verifier = Verifier((CHIP.root.root(),))
        verifier.verify(CHIP.report(), CHIP.endorsements, now=NOW)
        with pytest.raises(EvidenceRefusedError, match="has run out"):
            verifier.verify(CHIP.report(), CHIP.endorsements, now=NOW + timedelta(days=2))

    def test_others_do_not_profit(self) -> None:
        verifier, other = Verifier((CHIP.root.root(),)), make_chip()
        verifier.verify(CHIP.report(), CHIP.endorsements, now=NOW)
        with pytest.raises(OstiaryError, match="not signed by the key of its certificate"):
            verifier.verify(other.report(), CHIP.endorsements, now=NOW)
        with pytest.raises(OstiaryError, match="a root that this service does not trust"):
            verifier.verify(other.report(), other.endorsements, now=NOW)

    def test_the_least_recently_used_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ostiary.evidence.snp.verify.MAX_CHIPS", 1)
        other = make_chip(root=CHIP.root)
        verifier = Verifier((CHIP.root.root(),))
        for chip in (CHIP, other, CHIP):
            assert verifier.verify(chip.report(), chip.endorsements, now=NOW).identity == MEASUREMENT


@pytest.mark.parametrize(("policy", "conditions"), [
    (0x30000, set()),
    (0x30000 | 1 << 18, {"migration-agent"}),
    (0x30000 | 1 << 17, set()),
])  # fmt: skip
def test_a_guest_that_may_have_a_migration_agent_says_so(policy: int, conditions: set[str]) -> None:
    claims = judged(CHIP, CHIP.report({0x008: policy.to_bytes(8, "little")}))
    assert claims.conditions == conditions
    assert claims.raw["policy_migrate_ma"] is bool(conditions)


def test_endorsements_are_as_old_as_the_oldest_revocation_list() -> None:
    """Without one of the root, nobody says how old they are."""
    assert judged(CHIP).issued is None
    older, newer = (revoke(CHIP.root, start=NOW - timedelta(hours=hours)) for hours in (5, 2))
    between = revoke(CHIP.middle, start=NOW - timedelta(hours=3))
    assert judged(CHIP, more=pem(older) + pem(newer)).issued == NOW - timedelta(hours=5)
    assert judged(CHIP, more=pem(between) + pem(newer)).issued == NOW - timedelta(hours=3)
    assert judged(CHIP, more=pem(between)).issued is None
