"""One verifier for every kind of evidence that a service takes: the table of TEEs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from ostiary.errors import EvidenceRefusedError
from ostiary.evidence.claims import Claims, Tee
from ostiary.evidence.intel.verifier import Verifier as IntelVerifier
from ostiary.evidence.nitro.verify import Verifier as NitroVerifier
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.snp.verify import Verifier as SnpVerifier
from ostiary.evidence.tpm.verify import TrustedAks
from ostiary.evidence.tpm.verify import Verifier as TpmVerifier

_Roots = tuple[TrustedRoot, ...]
_Keys = frozenset[bytes]


class _Verify(Protocol):
    def __call__(self, evidence: bytes, endorsements: bytes, /, *, now: datetime) -> Claims: ...


def _nitro(roots: _Roots, keys: _Keys) -> _Verify:  # noqa: ARG001 - as the table has it
    verifier = NitroVerifier(_of("nitro", roots))

    def verify(evidence: bytes, endorsements: bytes, *, now: datetime) -> Claims:  # noqa: ARG001
        """A document brings its own certificates; endorsements are not looked at."""
        return verifier.verify(evidence, now=now)

    return verify


def _of(tee: Tee, roots: _Roots) -> _Roots:
    return tuple(root for root in roots if tee in root.tees)


_VERIFIERS: Mapping[Tee, Callable[[_Roots, _Keys], _Verify]] = {
    "sgx": lambda roots, _: IntelVerifier(_of("sgx", roots)).verify,
    "tdx": lambda roots, _: IntelVerifier(_of("tdx", roots)).verify,
    "snp": lambda roots, _: SnpVerifier(_of("snp", roots)).verify,
    "nitro": _nitro,
    "tpm": lambda roots, keys: TpmVerifier(roots, TrustedAks(roots=_of("tpm", roots), keys=keys)).verify,
}
"""What makes the verifier of a TEE, of all roots, among which it takes those that count for it, and of pinned keys of
TPMs. A TEE that stands here is one the service takes.
"""
_VOUCHING: Mapping[str, tuple[Tee, ...]] = {"tpm": ("snp", "tdx")}
"""Of which other TEE the claims may be: that of the machine which vouches for the TPM's key."""

TEES: tuple[str, ...] = tuple(_VERIFIERS)


class Verifier:
    """Verifies evidence of each TEE under those of `roots` that count for it; without any, it accepts none.

    aks: DER SubjectPublicKeyInfo of TPMs' attestation keys that count without a certificate.
    """

    def __init__(self, roots: _Roots, aks: _Keys = frozenset()) -> None:
        self._by_tee: dict[str, _Verify] = {tee: make(roots, aks) for tee, make in _VERIFIERS.items()}

    def verify(self, tee: str, evidence: bytes, endorsements: bytes, *, now: datetime) -> Claims:
        """The claims of evidence of `tee`, with the guarantees and errors of the `verify` of its package.

        They are of this TEE, or, of a TPM that an SNP or TDX guest vouches for, of the guest's.
        Raises EvidenceRefusedError as well for a TEE that is not known, and for evidence of another one.
        """
        verify = self._by_tee.get(tee)
        if verify is None:
            raise EvidenceRefusedError(f"evidence of kind {tee[:20]!r} is not known, expected {', '.join(TEES)}")
        claims = verify(evidence, endorsements, now=now)
        if claims.tee not in (tee, *_VOUCHING.get(tee, ())):
            raise EvidenceRefusedError(f"the evidence is of kind {claims.tee}, and was sent as {tee}")
        return claims
