"""One verifier for all TEEs: each kind of evidence under the roots that count for it, and under no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.simulators.chains import NOW, issue
from tests.simulators.genuine import Case, cases
from tests.simulators.nitro_host import make_host
from tests.simulators.snp_chip import make_chip
from tests.simulators.tpm import Tpm, wire

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import pem_of
from ostiary.evidence.claims import Claims
from ostiary.evidence.roots import TrustedRoot, vendor_roots
from ostiary.evidence.verifier import TEES, Verifier

CHIP, HOST = make_chip(), make_host()
MAKER = issue("TPM maker")
AK = issue("AK", MAKER, ca=False, usage="digital_signature", curve=ec.SECP256R1())
TPM = Tpm(key=AK.key)
Verify = Callable[[Verifier], Claims]


def genuine(tee: str) -> Case:
    return next(case for case in cases(tee) if case.valid and "collateral.json" in case.files)


SGX, TDX = genuine("sgx"), genuine("tdx")


def intel(case: Case, tee: str) -> Verify:
    return lambda verifier: verifier.verify(
        tee, case.files["quote.bin"], case.files["collateral.json"], now=case.verify_at
    )


def snp(verifier: Verifier) -> Claims:
    return verifier.verify("snp", CHIP.report(), CHIP.endorsements, now=NOW)


def nitro(verifier: Verifier) -> Claims:
    return verifier.verify("nitro", HOST.document(), b"", now=NOW)


def tpm(verifier: Verifier) -> Claims:
    return verifier.verify("tpm", TPM.evidence({"sha256": (4,)}), wire({"ak": AK.pem.decode()}), now=NOW)


ROOTS = (*vendor_roots(), CHIP.root.root(), HOST.root.root(), MAKER.root())
EVIDENCE: list[tuple[str, Verify]] = [
    ("sgx", intel(SGX, "sgx")),
    ("tdx", intel(TDX, "tdx")),
    ("snp", snp),
    ("nitro", nitro),
    ("tpm", tpm),
]


def test_every_tee_of_the_table_has_its_evidence_here() -> None:
    assert tuple(tee for tee, _ in EVIDENCE) == TEES


@pytest.mark.parametrize(("tee", "verify"), EVIDENCE, ids=TEES)
def test_evidence_of_each_tee_becomes_claims(tee: str, verify: Verify) -> None:
    assert verify(Verifier(ROOTS)).tee == tee


@pytest.mark.parametrize(("tee", "verify"), EVIDENCE, ids=TEES)
def test_a_root_counts_for_its_own_tees_only(tee: str, verify: Verify) -> None:
    """Whoever holds the key of one vendor makes no evidence of another."""
    others = tuple(replace(root, tees=root.tees - {tee}) for root in ROOTS)
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        verify(Verifier(others))


@pytest.mark.parametrize(("tee", "verify"), EVIDENCE, ids=TEES)
def test_without_roots_nothing_is_accepted(tee: str, verify: Verify) -> None:
    roots: tuple[TrustedRoot, ...] = ()
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        verify(Verifier(roots))


@pytest.mark.parametrize(("case", "told", "found"), [(SGX, "tdx", "sgx"), (TDX, "sgx", "tdx")])
def test_evidence_under_another_name_is_refused(case: Case, told: str, found: str) -> None:
    with pytest.raises(EvidenceRefusedError, match=f"the evidence is of kind {found}, and was sent as {told}"):
        intel(case, told)(Verifier(ROOTS))


@pytest.mark.parametrize("tee", TEES)
def test_what_is_no_evidence_is_of_another_form(tee: str) -> None:
    endorsements = CHIP.endorsements
    with pytest.raises(EvidenceFormatError):
        Verifier(ROOTS).verify(tee, b"x" * 2000, endorsements, now=NOW)


@pytest.mark.parametrize("tee", ["", "maa", "none", "SGX", "x" * 1000])
def test_evidence_of_an_unknown_kind_is_refused(tee: str) -> None:
    with pytest.raises(EvidenceRefusedError, match="is not known, expected sgx, tdx, snp, nitro, tpm") as refusal:
        Verifier(ROOTS).verify(tee, b"", b"", now=NOW)
    assert len(str(refusal.value)) < 120


def test_the_key_of_a_tpm_may_be_pinned() -> None:
    evidence = TPM.evidence({"sha256": (4,)})
    assert Verifier((), frozenset({TPM.spki})).verify("tpm", evidence, b"", now=NOW).tee == "tpm"
    with pytest.raises(EvidenceRefusedError, match="nobody vouches for the key that signed the quote"):
        Verifier(ROOTS, frozenset({Tpm().spki})).verify("tpm", evidence, b"", now=NOW)


AZURE = next(case for case in cases("tpm") if case.name == "tpm-azure-snp-milan")


def azure(verifier: Verifier, tee: str = "tpm") -> Claims:
    members = {"quote": "quote.msg", "signature": "quote.sig", "hcl_report": "hcl_report.bin"}
    evidence = wire({member: AZURE.files[file] for member, file in members.items()})
    bundle = pem_of({name: data for name, data in AZURE.files.items() if name.endswith(".der")})
    return verifier.verify(tee, evidence, wire({"snp": bundle.decode()}), now=AZURE.verify_at)


def test_azures_vtpm_is_taken_for_the_guest_that_it_belongs_to() -> None:
    """Anybody's SNP guest can name any AK: the claims are of the guest, whose measurement a session must name."""
    claims = azure(Verifier(vendor_roots()))
    assert (claims.tee, claims.has_vtpm) == ("snp", True)


def test_a_guest_with_a_vtpm_needs_the_roots_of_its_own_vendor() -> None:
    others = tuple(root for root in vendor_roots() if "snp" not in root.tees)
    with pytest.raises(EvidenceRefusedError, match="a root that this service does not trust"):
        azure(Verifier((*others, MAKER.root())))


@pytest.mark.parametrize("tee", ["snp", "tdx", "sgx", "nitro"])
def test_a_vtpm_under_the_name_of_its_guest_is_refused(tee: str) -> None:
    """Its quote is made over something else than a report of the guest."""
    with pytest.raises(EvidenceFormatError):
        azure(Verifier(vendor_roots()), tee)
