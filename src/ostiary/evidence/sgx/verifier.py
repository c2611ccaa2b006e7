"""Verification for a service that sees many quotes of few platforms.

dcap-qvl checks some eight signatures for each quote; all but one of them vouch for the platform and are the same, byte
for byte, from quote to quote. `Verifier` lets dcap-qvl judge a platform once in PLATFORM_LIFE and checks only the
quote's own signature in between.

Invariants: an entry was made by `verify` returning, less than PLATFORM_LIFE ago when it is used; its frame is the hash
of every byte of the quote and of the endorsements that dcap-qvl judges, so a quote that fits it differs only in what
the attestation key signs and nobody but `appraise` judges.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ostiary.evidence.claims import Claims
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.sgx.layout import REPORT_BODY, SIGNATURE, SIGNED_BYTES, parse_quote, parse_report_body
from ostiary.evidence.sgx.verify import verify

PLATFORM_LIFE = timedelta(seconds=60)
"""How long dcap-qvl is not asked again about a platform it accepted; revocation and expiry may count so much later."""

MAX_PLATFORMS = 256
"""Platforms remembered, the least recently used forgotten first."""

# Offsets in the quote of what a program's enclave says of itself: mr_enclave, mr_signer, isv_prod_id and isv_svn,
# report_data, and the signature over all that stands before it (`layout.parse_quote`).
_OF_THE_PROGRAM = ((0x070, 0x090), (0x0B0, 0x0D0), (0x130, 0x134), (0x170, 0x1B0), (0x1B4, 0x1F4))


@dataclass(frozen=True, kw_only=True)
class _Platform:
    key: ec.EllipticCurvePublicKey
    claims: Claims
    checked: datetime


class Verifier:
    """`verify` under the roots that the owner of a service configured. Without any, no evidence is accepted."""

    def __init__(self, roots: tuple[TrustedRoot, ...]) -> None:
        self._roots = roots
        self._platforms: OrderedDict[bytes, _Platform] = OrderedDict()

    def verify(self, quote: bytes, endorsements: bytes, *, now: datetime) -> Claims:
        """The claims of a quote, with the guarantees and errors of the function `verify`, but for one:

        certificates, revocation lists and TCB data were judged at some time in the PLATFORM_LIFE before `now`.
        """
        frame = _frame(quote, endorsements)
        platform = self._platforms.get(frame)
        if platform is not None and timedelta(0) <= now - platform.checked < PLATFORM_LIFE:
            try:
                return _claims(quote, platform)
            except InvalidSignature:
                pass  # dcap-qvl decides, and says why
        claims = verify(quote, endorsements, roots=self._roots, now=now)
        self._remember(frame, _Platform(key=_attestation_key(quote), claims=claims, checked=now))
        return claims

    def _remember(self, frame: bytes, platform: _Platform) -> None:
        self._platforms[frame] = platform
        self._platforms.move_to_end(frame)
        if len(self._platforms) > MAX_PLATFORMS:
            self._platforms.popitem(last=False)


def _frame(quote: bytes, endorsements: bytes) -> bytes:
    """SHA-256 over all of the quote but what the program's enclave says of itself, its length, and the endorsements."""
    digest = hashlib.sha256(len(quote).to_bytes(8, "big"))
    start = 0
    for begin, end in _OF_THE_PROGRAM:
        digest.update(quote[start:begin])
        start = end
    digest.update(quote[start:])
    digest.update(endorsements)
    return digest.digest()


def _claims(quote: bytes, platform: _Platform) -> Claims:
    """The claims of a quote that fits the platform's frame. Raises InvalidSignature."""
    signature = quote[SIGNATURE]
    r, s = (int.from_bytes(signature[half : half + 32], "big") for half in (0, 32))
    platform.key.verify(encode_dss_signature(r, s), quote[:SIGNED_BYTES], ec.ECDSA(hashes.SHA256()))
    report = parse_report_body(quote[REPORT_BODY])
    return replace(
        platform.claims,
        measurements={"mrenclave": report.mr_enclave},
        signer=report.mr_signer,
        product_id=report.isv_prod_id,
        svn=report.isv_svn,
        report_data=report.report_data,
    )


def _attestation_key(quote: bytes) -> ec.EllipticCurvePublicKey:
    point = b"\x04" + parse_quote(quote).attestation_key
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
