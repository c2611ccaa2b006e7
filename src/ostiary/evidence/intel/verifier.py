"""Verification for a service that sees many quotes of few platforms.

dcap-qvl checks some eight signatures for each quote; all but one of them vouch for the platform and are the same, byte
for byte, from quote to quote. `Verifier` lets dcap-qvl judge a platform once in PLATFORM_LIFE and checks only the
quote's own signature in between.

Invariants: an entry was made by a whole verification returning, less than PLATFORM_LIFE ago when it is used; its frame
is the hash of every byte of the quote and of the endorsements that such a verification judges, so a quote that fits it
differs only in what the attestation key signs and nobody but `appraise` judges.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ostiary.evidence.claims import Claims
from ostiary.evidence.intel.collateral import digest_of
from ostiary.evidence.intel.quote import QuoteTee, SignedQuote, parse_signed_quote
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.sgx import verify as sgx
from ostiary.evidence.tdx import verify as tdx

PLATFORM_LIFE = timedelta(seconds=60)
"""How long dcap-qvl is not asked again about a platform it accepted; revocation and expiry may count so much later."""

MAX_PLATFORMS = 256
"""Platforms remembered, the least recently used forgotten first."""

_P256_WITH_SHA256 = ec.ECDSA(hashes.SHA256())

# Offsets in the body of what a program says of itself; the rest of the body says something of its platform.
_OF_THE_PROGRAM: Mapping[QuoteTee, tuple[tuple[int, int], ...]] = {
    # mr_enclave, mr_signer, isv_prod_id and isv_svn, report_data (`sgx.layout.parse_quote`)
    "sgx": ((0x040, 0x060), (0x080, 0x0A0), (0x100, 0x104), (0x140, 0x180)),
    # mrtd to rtmr3, report_data (`tdx.layout.parse_quote`)
    "tdx": ((0x088, 0x208), (0x208, 0x248)),
}


@dataclass(frozen=True, kw_only=True)
class _Platform:
    key: ec.EllipticCurvePublicKey
    claims: Claims
    checked: datetime


class Verifier:
    """Verifies SGX and TDX quotes under the roots that the owner configured; without any, it accepts none."""

    def __init__(self, roots: tuple[TrustedRoot, ...]) -> None:
        self._roots = roots
        self._platforms: OrderedDict[bytes, _Platform] = OrderedDict()

    def verify(self, quote: bytes, endorsements: bytes, *, now: datetime) -> Claims:
        """The claims of an SGX or TDX quote, with the guarantees and errors of `sgx.verify` and `tdx.verify`, but for
        one: certificates, revocation lists and TCB data were judged at some time in the PLATFORM_LIFE before `now`.
        """
        signed = parse_signed_quote(quote)
        frame = _frame(quote, signed, endorsements)
        platform = self._platforms.get(frame)
        if platform is not None and timedelta(0) <= now - platform.checked < PLATFORM_LIFE:
            try:
                return _claims(quote, signed, platform)
            except InvalidSignature:
                pass  # the whole verification decides, and says why
        verify = sgx.verify if signed.tee == "sgx" else tdx.verify
        claims = verify(quote, endorsements, roots=self._roots, now=now)
        self._remember(frame, _Platform(key=_attestation_key(signed), claims=claims, checked=now))
        return claims

    def _remember(self, frame: bytes, platform: _Platform) -> None:
        self._platforms[frame] = platform
        self._platforms.move_to_end(frame)
        if len(self._platforms) > MAX_PLATFORMS:
            self._platforms.popitem(last=False)


def _frame(quote: bytes, signed: SignedQuote, endorsements: bytes) -> bytes:
    """SHA-256 over all of the quote but what the program says of itself and its signature, its length, and the SHA-256
    of the endorsements.
    """
    digest = hashlib.sha256(len(quote).to_bytes(8, "big"))
    signature = len(signed.signed) + 4
    start = 0
    for begin, end in _OF_THE_PROGRAM[signed.tee]:
        digest.update(quote[start : signed.body_offset + begin])
        start = signed.body_offset + end
    digest.update(quote[start:signature])
    digest.update(quote[signature + len(signed.signature) :])
    digest.update(digest_of(endorsements))
    return digest.digest()


def _claims(quote: bytes, signed: SignedQuote, platform: _Platform) -> Claims:
    """The claims of a quote that fits the platform's frame. Raises InvalidSignature."""
    r, s = (int.from_bytes(signed.signature[half : half + 32], "big") for half in (0, 32))
    platform.key.verify(encode_dss_signature(r, s), signed.signed, _P256_WITH_SHA256)
    program_of = sgx.program_of if signed.tee == "sgx" else tdx.program_of
    return replace(platform.claims, **program_of(quote))


def _attestation_key(signed: SignedQuote) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + signed.attestation_key)
