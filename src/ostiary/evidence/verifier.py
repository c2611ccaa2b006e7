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
    verifier = NitroVerifier(roots)

    def verify(evidence: bytes, endorsements: bytes, *, now: datetime) -> Claims:  # noqa: ARG001
        """A document brings its own certificates; endorsements are not looked at."""
        return verifier.verify(evidence, now=now)

    return verify


def _tpm(roots: _Roots, keys: _Keys) -> _Verify:
    """SNP or TDX evidence vouches for no key here: no session can name PCRs beside the guest's measurement (ADR 26)."""
    return TpmVerifier((), TrustedAks(roots=roots, keys=keys)).verify


_VERIFIERS: Mapping[Tee, Callable[[_Roots, _Keys], _Verify]] = {
    "sgx": lambda roots, _: IntelVerifier(roots).verify,
    "tdx": lambda roots, _: IntelVerifier(roots).verify,
    "snp": lambda roots, _: SnpVerifier(roots).verify,
    "nitro": _nitro,
    "tpm": _tpm,
}
"""What makes the verifier of a TEE, of the roots that count for it and pinned keys of TPMs. A TEE that stands here is
one the service takes.
"""

TEES: tuple[str, ...] = tuple(_VERIFIERS)


class Verifier:
    """Verifies evidence of each TEE under those of `roots` that count for it; without any, it accepts none.

    aks: DER SubjectPublicKeyInfo of TPMs' attestation keys that count without a certificate.
    """

    def __init__(self, roots: _Roots, aks: _Keys = frozenset()) -> None:
        self._by_tee: dict[str, _Verify] = {
            tee: make(tuple(root for root in roots if tee in root.tees), aks) for tee, make in _VERIFIERS.items()
        }

    def verify(self, tee: str, evidence: bytes, endorsements: bytes, *, now: datetime) -> Claims:
        """The claims of evidence of `tee`, with the guarantees and errors of the `verify` of its package.

        Raises EvidenceRefusedError as well for a TEE that is not known, and for evidence of another one.
        """
        verify = self._by_tee.get(tee)
        if verify is None:
            raise EvidenceRefusedError(f"evidence of kind {tee[:20]!r} is not known, expected {', '.join(TEES)}")
        claims = verify(evidence, endorsements, now=now)
        if claims.tee != tee:
            raise EvidenceRefusedError(f"the evidence is of kind {claims.tee}, and was sent as {tee}")
        return claims
