"""Genuine quotes of TPMs, as they lie in files: the expected verdicts and claims, and no changed byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.simulators.genuine import Case, cases
from tests.simulators.tpm import wire

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.claims import Claims
from ostiary.evidence.offline import Finding, show, verify_files
from ostiary.evidence.roots import amd_roots, google_tpm_roots, intel_root, nitro_root
from ostiary.evidence.tpm.layout import parse_quote, shown
from ostiary.evidence.tpm.verify import TrustedAks, Verifier

ROOTS = (intel_root(), *amd_roots(), nitro_root())
GENUINE = cases("tpm")
BY_NAME = {case.name: case for case in GENUINE}
QUOTE_FIELDS = set(shown(parse_quote(GENUINE[0].files["quote.msg"])))
TRUST = {
    "tpm-azure-snp-milan": "snp",
    "tpm-azure-snp-genoa": "snp",
    "tpm-azure-snp-2023": "snp",
    "tpm-azure-tdx": "tdx",
    "tpm-gcp-cos-nonce": "certificate",
}
OF_AZURE = {"hcl_user_data", "vm_unique_id"}
MORE = {
    "snp": {*OF_AZURE, "snp_measurement", "snp_reported_tcb", "snp_chip_id", "snp_report", "vmpl"},
    "tdx": {*OF_AZURE, "td_quote"},
}
"""Fields beyond those of the MANIFEST, by who vouches for the AK; not every case of the MANIFEST lists the same."""
MORE_OF_ALL = {"ak_trust", "ak_hierarchy", "ak_cert_subject_empty", "event_log_pcrs", "events"}


def verified(case: Case, changes: Mapping[str, bytes | None] | None = None, name: str = "quote.msg") -> Finding:
    """The finding for a case with some files changed, or left out."""
    files = {name: data for name, data in {**case.files, **(changes or {})}.items() if data is not None}
    return verify_files(
        files.pop(name),
        files,
        roots=ROOTS,
        issuer=None,
        now=case.verify_at,
        name=name,
        ak_roots=google_tpm_roots(),
    )


@pytest.mark.parametrize("case", GENUINE, ids=str)
def test_genuine_quotes_give_the_expected_verdict_and_claims(case: Case) -> None:
    fields = show(case.files["quote.msg"])[1]
    assert fields.keys() == QUOTE_FIELDS
    assert fields.items() <= case.claims.items()
    if not case.valid:
        with pytest.raises(EvidenceRefusedError, match="the quote is not signed by this AK"):
            verified(case)
        return
    finding = verified(case)
    trust = TRUST.get(case.name, "pinned")
    assert {name: finding.fields[name] for name in case.claims} == case.claims
    assert finding.fields.keys() - case.claims.keys() <= MORE_OF_ALL | MORE.get(trust, set())
    assert finding.fields["ak_trust"] == trust
    claims = finding.claims
    assert claims is not None
    assert claims.has_vtpm is (trust in ("snp", "tdx"))
    assert claims.raw == finding.fields
    assert claims.measurements["pcrs"].hex() == case.claims["pcr_digest"]
    assert claims.report_data.hex() == case.claims["nonce"]
    assert ("sha1" in claims.conditions) is ("sha1" in case.expected["flags"])
    assert not claims.debug


def test_azures_claims_are_those_of_the_hardware_with_the_pcrs() -> None:
    """Whoever makes such a report chooses the AK: a session has to name what runs in the guest at VMPL 0."""
    case = BY_NAME["tpm-azure-snp-milan"]
    claims = verified(case).claims
    assert claims is not None
    assert claims.tee == "snp"
    assert claims.identity.hex() == case.claims["snp_measurement"]
    assert claims.platform_id == case.claims["snp_chip_id"]
    pcrs = json.loads(case.files["pcrs.json"])["sha256"]
    assert {number: claims.measurements[f"sha256:{number}"].hex() for number in pcrs} == pcrs


def test_azures_td_is_judged_as_its_quote_is() -> None:
    case = BY_NAME["tpm-azure-tdx"]
    claims = verified(case).claims
    assert claims is not None
    assert claims.tee == "tdx"
    assert claims.tcb_status == "OutOfDate"
    assert claims.conditions == {"sept-ve-disable-off"}


def test_a_pcr_of_a_plain_quote_is_a_measurement() -> None:
    claims = verified(BY_NAME["tpm-coco-swtpm"]).claims
    assert claims is not None
    assert claims.tee == "tpm"
    assert claims.identity == claims.measurements["pcrs"]
    assert claims.measurements["sha256:0"] == bytes(32)
    assert claims.platform_id == claims.raw["ak_sha256_spki"]


@pytest.mark.parametrize("bank", ["sha1", "sha384"])
def test_the_digest_is_of_the_signing_schemes_hash_whatever_the_bank(bank: str) -> None:
    finding = verified(BY_NAME["tpm-gcp-cos-nonce"], name=f"quote_{bank}.msg")
    assert (finding.fields["pcr_bank"], finding.fields["signature_hash"]) == (bank, "sha256")
    assert finding.claims is not None
    assert len(finding.claims.measurements[f"{bank}:0"]) == {"sha1": 20, "sha384": 48}[bank]
    assert finding.claims.conditions == ({"sha1"} if bank == "sha1" else set())


def test_event_logs_lead_to_the_quoted_pcrs() -> None:
    finding = verified(BY_NAME["tpm-gcp-cos-nonce"])
    assert finding.fields["event_log_pcrs"] == list(range(10))
    events = finding.fields["events"]
    assert isinstance(events, dict)
    assert events["0"] == [
        "d0fcf11a32a8fbf5a4e1a58cd74dd2357d07e7503b5b6afd5a7989a98e17be7f",
        "6ac9241348a80c5755a63bcd1865b9f6d5720f6e925dc869bb4694281c1510c5",
        "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119",
    ]
    windows = verified(BY_NAME["tpm-gcp-windows-sha1"])
    assert windows.fields["event_log_pcrs"] == [0, 4, 5, 7, 11, 12, 13, 14]


def test_googles_ak_is_primary_in_the_endorsement_hierarchy_and_that_of_windows_is_not() -> None:
    assert verified(BY_NAME["tpm-gcp-cos-nonce"]).fields["ak_hierarchy"] == "endorsement"
    assert verified(BY_NAME["tpm-gcp-windows-sha1"]).fields["ak_hierarchy"] is None


@pytest.mark.parametrize("case", [case for case in GENUINE if case.valid], ids=str)
@pytest.mark.parametrize("name", ["quote.msg", "quote.sig"])
def test_no_byte_of_a_genuine_quote_can_be_changed(case: Case, name: str) -> None:
    """Verified once as it is, then with each byte changed; SNP, TDX and chains of certificates are remembered."""
    judge, expected = remembering(case)
    accepted = 0
    for offset in range(len(case.files[name])):
        changed = bytearray(case.files[name])
        changed[offset] ^= 1 + offset % 255
        try:
            found = judge({name: bytes(changed)})
        except (EvidenceFormatError, EvidenceRefusedError):
            continue
        accepted += 1
        assert found == expected
    assert accepted == 0


@pytest.mark.parametrize("name", ["hcl_report.bin", "pcrs.json", "eventlog.bin"])
def test_no_byte_beside_a_genuine_quote_makes_other_claims(name: str) -> None:
    case = BY_NAME["tpm-azure-snp-milan" if name == "hcl_report.bin" else "tpm-gcp-cos-nonce"]
    judge, expected = remembering(case)
    data = case.files[name]
    accepted = 0
    for offset in range(0, len(data), 1 if len(data) < 10_000 else 7):
        changed = bytearray(data)
        changed[offset] ^= 1 + offset % 255
        try:
            found = judge({name: bytes(changed)})
        except (EvidenceFormatError, EvidenceRefusedError):
            continue
        accepted += 1
        assert found == expected
    assert accepted < len(data) / 2


def remembering(case: Case) -> tuple[Callable[[Mapping[str, bytes]], Claims], Claims]:
    """What judges a case with some files changed, in the wire form, and the claims without any change."""
    from ostiary.evidence.bundle import pem_of
    from ostiary.evidence.tpm.verify import pinned_ak

    pinned = "ak_cert.der" not in case.files or case.name == "tpm-fraunhofer-akcert"
    ak = pinned_ak(case.files["ak_pub.pem"])
    verifier = Verifier(ROOTS, TrustedAks(roots=google_tpm_roots(), keys=frozenset({ak}) if pinned else frozenset()))
    certificates = {name: data for name, data in case.files.items() if name.endswith(".der")}
    of_ak = {name: data for name, data in certificates.items() if name.startswith(("ak_", "ca"))}
    endorsements = {
        "ak": pem_of(of_ak).decode().strip(),
        "snp": pem_of({name: data for name, data in certificates.items() if name not in of_ak}).decode(),
        "tdx": case.files.get("td_collateral.json", b"").decode(),
    }
    names = {
        "quote.msg": "quote",
        "quote.sig": "signature",
        "pcrs.json": "pcrs",
        "eventlog.bin": "event_log",
        "hcl_report.bin": "hcl_report",
        "td_quote.bin": "td_quote",
        "ak_tpmt_public.bin": "ak_public",
    }

    def judge(changes: Mapping[str, bytes]) -> Claims:
        members: dict[str, object] = {"ak": ak}
        for file, member in names.items():
            if file in case.files:
                members[member] = {**case.files, **changes}[file]
        if "pcrs" in members:
            try:
                members["pcrs"] = json.loads({**case.files, **changes}["pcrs.json"])
            except ValueError as error:
                raise EvidenceFormatError("not JSON") from error
        return verifier.verify(wire(members), wire(endorsements), now=case.verify_at)

    return judge, judge({})


def test_files_that_contradict_each_other_are_refused() -> None:
    milan, genoa, gcp = (BY_NAME[f"tpm-{name}"] for name in ("azure-snp-milan", "azure-snp-genoa", "gcp-cos-nonce"))
    for case, changes, says in (
        (milan, {"quote.sig": None}, "its signature is missing, expected quote.sig"),
        (milan, {"hcl_report.bin": genoa.files["hcl_report.bin"]}, "name different AKs: the AK, the HCL report"),
        (milan, {"vcek.der": None}, "0 certificates that are no CA"),
        (
            milan,
            {"snp_report.bin": genoa.files["snp_report.bin"], **certificates_of(genoa)},
            "not the one that the hardware vouches for",
        ),
        (milan, {"pcrs.json": genoa.files["pcrs.json"]}, "the PCR values are not the quoted ones"),
        (gcp, {"ak_pub.pem": milan.files["ak_pub.pem"]}, "name different AKs: the AK, the AK's public area, the AK's"),
        (gcp, {"ak_pub.pem": b"no key"}, "ak_pub.pem: not a public key in PEM or DER"),
        (gcp, {"eventlog.bin": BY_NAME["tpm-gcp-windows-sha1"].files["eventlog.bin"]}, "no digests of a quoted bank"),
        (BY_NAME["tpm-azure-tdx"], {"td_quote.bin": None}, "no TD quote was sent"),
        (BY_NAME["tpm-coco-swtpm"], {"ak_pub.pem": None}, "does not say which key signed the quote"),
    ):
        with pytest.raises((EvidenceFormatError, EvidenceRefusedError), match=says):
            verified(case, changes)


def certificates_of(case: Case) -> dict[str, bytes]:
    return {name: case.files[name] for name in ("vcek.der", "ask.der", "ark.der")}


def test_an_ak_certificate_below_a_root_that_nobody_trusts_vouches_for_nothing() -> None:
    case = BY_NAME["tpm-fraunhofer-akcert"]
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        verified(case, {"ak_pub.pem": None})


def test_an_ak_certificate_of_a_chain_that_does_not_hold_is_refused_even_for_a_pinned_key() -> None:
    case = BY_NAME["tpm-fraunhofer-akcert"]
    broken = case.files["ak_cert.der"][:-1] + bytes([case.files["ak_cert.der"][-1] ^ 1])
    with pytest.raises(EvidenceRefusedError, match=r"is not issued by|not trust"):
        verified(case, {"ak_cert.der": broken})
    alone = verified(case, {"ca.der": None})
    assert alone.fields["ak_trust"] == "pinned"


def test_the_root_need_not_lie_beside_the_certificate() -> None:
    case = BY_NAME["tpm-gcp-cos-nonce"]
    assert verified(case, {"ca_root.der": None}).fields["ak_trust"] == "certificate"
    assert verified(case, {"ca_root.der": None, "ak_pub.pem": None}).fields["ak_trust"] == "certificate"


def test_a_quote_under_another_name_has_the_usual_files_beside_it() -> None:
    case = BY_NAME["tpm-coco-swtpm"]
    files = {**case.files, "evidence.bin": case.files["quote.msg"]}
    finding = verified(replace(case, files=files), {"quote.msg": None}, name="evidence.bin")
    assert finding.fields["ak_trust"] == "pinned"


def test_an_ak_certificate_that_has_run_out_is_refused_even_for_a_pinned_key() -> None:
    case = BY_NAME["tpm-fraunhofer-akcert"]
    with pytest.raises(EvidenceRefusedError, match="has run out"):
        verified(replace(case, verify_at=datetime(2028, 1, 1, tzinfo=UTC)))
