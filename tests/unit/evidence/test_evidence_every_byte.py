"""No byte of any genuine sample can be changed so that it is accepted and says something else.

Each run changes every STRIDE-th byte of each sample, from another start in each, so that every kind of field is met in
some sample. `OSTIARY_EVERY_BYTE=1` changes all of them, which takes some minutes. Samples of TPMs, which lie in several
files, have tests of their own (`test_evidence_tpm_vectors`).
"""

from __future__ import annotations

import os
import zlib

import pytest
from tests.simulators.genuine import Case, cases
from tests.simulators.sgx_platform import with_byte_flipped

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.offline import Finding, verify_files
from ostiary.evidence.roots import amd_roots, intel_root, nitro_root

STRIDE = 1 if os.environ.get("OSTIARY_EVERY_BYTE") else 37
ROOTS = [intel_root(), *amd_roots(), nitro_root()]
EVIDENCE = {
    "sgx": "quote.bin",
    "tdx": "quote.bin",
    "snp": "report.bin",
    "nitro": "attestation.cbor",
    "maa": "token.jwt",
}
SAMPLES = [(name, case) for tee, name in EVIDENCE.items() for case in cases(tee) if case.valid]


def test_there_is_a_sample_of_every_kind() -> None:
    assert {finding(case, case.files[name]).kind for name, case in SAMPLES} == set(EVIDENCE)


def finding(case: Case, evidence: bytes) -> Finding:
    beside = {name: content for name, content in case.files.items() if name not in EVIDENCE.values()}
    return verify_files(evidence, beside, roots=ROOTS, issuer=None, now=case.verify_at)


@pytest.mark.parametrize(("name", "case"), SAMPLES, ids=str)
def test_no_changed_byte_is_accepted_with_other_claims(name: str, case: Case) -> None:
    evidence = case.files[name]
    expected = finding(case, evidence)
    for offset in range(zlib.crc32(str(case).encode()) % STRIDE, len(evidence), STRIDE):
        try:
            found = finding(case, with_byte_flipped(evidence, offset, 1 + offset % 255))
        except (EvidenceFormatError, EvidenceRefusedError):
            continue
        assert found == expected
