"""Evidence in files of any kind: recognised, shown, and verified with what lies beside it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.chains import NOW, pem, revoke
from tests.simulators.genuine import Case, cases
from tests.simulators.snp_chip import make_chip
from tests.simulators.tpm import Tpm

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.offline import MAX_EVIDENCE_BYTES, detect, show, verify_files
from ostiary.evidence.roots import amd_roots, intel_root, nitro_root

ROOTS = [intel_root(), *amd_roots(), nitro_root()]
EVIDENCE = {
    "sgx": "quote.bin",
    "tdx": "quote.bin",
    "snp": "report.bin",
    "nitro": "attestation.cbor",
    "maa": "token.jwt",
}
ALL = [(tee, case) for tee in EVIDENCE for case in cases(tee)]


@pytest.mark.parametrize(("tee", "case"), ALL, ids=str)
def test_genuine_evidence_of_every_kind(tee: str, case: Case) -> None:
    data = case.files[EVIDENCE[tee]]
    beside = {name: content for name, content in case.files.items() if name != EVIDENCE[tee]}
    assert show(data) == (tee, case.claims)
    if case.valid:
        finding = verify_files(data, beside, roots=ROOTS, issuer=None, now=case.verify_at)
        assert (finding.kind, finding.fields) == (tee, case.claims)
    else:
        with pytest.raises((EvidenceFormatError, EvidenceRefusedError)):
            verify_files(data, beside, roots=ROOTS, issuer=None, now=case.verify_at)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(100), b"\x05\x00\x02\x00", b"a.b.c.d", b"\3\0" + bytes(2000)])
def test_what_is_no_evidence_is_refused(data: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match=r"no evidence of a kind that is known here|quote: "):
        detect(data)


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(EvidenceFormatError, match="evidence of 65537 bytes, expected at most 65536"):
        detect(bytes(MAX_EVIDENCE_BYTES + 1))


def test_a_quote_needs_one_collateral() -> None:
    case = cases("sgx")[0]
    quote, collateral = case.files["quote.bin"], case.files["collateral.json"]
    for files, named in (
        ({}, "none"),
        ({"a.json": b"{}", "b": b'{"tcb_info"', "c": b"\xff", "d": b"[]"}, "none"),
        ({"a.json": collateral, "b.json": collateral}, "a.json, b.json"),
    ):
        with pytest.raises(EvidenceFormatError, match=f"one JSON file with the member tcb_info, found {named}"):
            verify_files(quote, files, roots=ROOTS, issuer=None, now=case.verify_at)
    finding = verify_files(quote, {"x": b"text", "any": collateral}, roots=ROOTS, issuer=None, now=case.verify_at)
    assert finding.claims is not None
    assert finding.claims.tcb_status == case.expected["tcb_status"]


def test_certificates_may_be_der_or_pem_in_any_files() -> None:
    chip = make_chip()
    roots = [chip.root.root()]
    spread = {"vcek.der": chip.leaf.der, "chain.pem": b"text\n" + chip.middle.pem + chip.root.pem, "note": b"0"}
    assert verify_files(chip.report(), spread, roots=roots, issuer=None, now=NOW).kind == "snp"
    revoked = revoke(chip.middle, chip.leaf.certificate.serial_number)
    with pytest.raises(EvidenceRefusedError, match="revoked"):
        verify_files(chip.report(), {**spread, "list.pem": pem(revoked)}, roots=roots, issuer=None, now=NOW)
    spread["list.crl"] = revoked.public_bytes(Encoding.DER)
    with pytest.raises(EvidenceRefusedError, match="revoked"):
        verify_files(chip.report(), spread, roots=roots, issuer=None, now=NOW)


def test_a_token_of_another_issuer_than_asked_for_is_refused() -> None:
    case = cases("maa")[0]
    files = {"jwks.json": case.files["jwks.json"]}
    with pytest.raises(EvidenceRefusedError, match="which is not the attestation service"):
        verify_files(case.files["token.jwt"], files, roots=ROOTS, issuer="https://other.example", now=case.verify_at)
    finding = verify_files(
        case.files["token.jwt"] + b"\n", files, roots=ROOTS, issuer=case.claims["iss"], now=case.verify_at
    )
    assert json.dumps(finding.fields)
    assert finding.claims is None


def test_evidence_of_a_tpm_in_its_wire_form_may_lie_in_a_file() -> None:
    tpm = Tpm()
    data = tpm.evidence({"sha256": (0,)})
    kind, fields = show(data)
    assert kind == "tpm"
    assert fields["ak_type"] == "secp256r1"
    assert show(tpm.evidence({"sha256": (0,)}, ak_public=..., ak=tpm.spki))[1]["ak_type"] == "secp256r1"
    assert "ak_type" not in show(tpm.evidence({"sha256": (0,)}, ak_public=...))[1]
    finding = verify_files(data, {"ak_pub.pem": tpm.pem}, roots=ROOTS, issuer=None, now=NOW)
    assert (finding.kind, finding.fields["ak_trust"]) == ("tpm", "pinned")
    with pytest.raises(EvidenceRefusedError, match="nobody vouches for the key"):
        verify_files(data, {}, roots=ROOTS, issuer=None, now=NOW)
    with pytest.raises(EvidenceRefusedError, match="name different AKs"):
        verify_files(data, {"ak_pub.pem": Tpm().pem}, roots=ROOTS, issuer=None, now=NOW)


@pytest.mark.parametrize(("tee", "case"), [pair for pair in ALL if pair[0] != "maa" and pair[1].valid][::9], ids=str)
def test_a_root_counts_for_its_own_tees(tee: str, case: Case) -> None:
    others = [replace(root, tees=root.tees - {tee}) for root in ROOTS]
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        verify_files(case.files[EVIDENCE[tee]], case.files, roots=others, issuer=None, now=case.verify_at)
