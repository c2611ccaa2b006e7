"""Is a Nitro attestation document authentic? The only place that makes `Claims` of Nitro evidence."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ostiary.errors import EvidenceRefusedError
from ostiary.evidence.chain import VerifiedChain, parse_certificate, verify_chain
from ostiary.evidence.claims import Claims
from ostiary.evidence.nitro.layout import SIGNATURE_BYTES, Document, parse_document, shown
from ostiary.evidence.roots import TrustedRoot

MAX_CHAINS = 256
"""Chains remembered by a `Verifier`, the least recently used forgotten first."""

_SIGNER_PCR = 8
_MAX_AHEAD = timedelta(minutes=5)
"""How far a document may be dated after `now`: clocks differ."""


def verify(document: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> Claims:
    """Verify a Nitro attestation document; it brings its own certificates. Pure: `now` (aware) is the only clock.

    1. Form (`layout`).
    2. The chain, its leaf first and then the cabundle from its end, leads to the key of one of `roots` and is in force
       at `now` (`chain`). AWS publishes no revocation lists; leaf certificates live for three hours.
    3. The leaf's key is P-384 and signed these bytes (ES384, RFC 9053 section 2.1).
    4. The document is not from the future.

    Guarantees: the Nitro hypervisor under that root made this document within the life of its leaf certificate.
    Does not guarantee: that it was made for this connection, or that anybody wants this enclave (`appraise` judges it).
    Raises EvidenceFormatError (1) and EvidenceRefusedError (2 to 4).
    Source: AWS, "Verifying the root of trust", Nitro Enclaves documentation.
    """
    # 1.
    parsed = parse_document(document)
    # 2.
    chain = _verify_chain(parsed, roots, now)
    return _verify_document(parsed, chain, now)


class Verifier:
    """`verify` for a service that sees many documents of few hosts: a chain is verified once.

    Invariant: an entry was made by `verify` from exactly these certificates under these roots; whether it is in force
    is asked at each use.
    """

    def __init__(self, roots: tuple[TrustedRoot, ...]) -> None:
        self._roots = roots
        self._chains: OrderedDict[bytes, VerifiedChain] = OrderedDict()

    def verify(self, document: bytes, *, now: datetime) -> Claims:
        """The claims of a document, with the guarantees and errors of the function `verify`."""
        parsed = parse_document(document)
        digest = hashlib.sha256(b"".join(_framed(der) for der in (parsed.certificate, *parsed.cabundle))).digest()
        chain = self._chains.get(digest)
        if chain is None:
            chain = self._chains[digest] = _verify_chain(parsed, self._roots, now)
            if len(self._chains) > MAX_CHAINS:
                self._chains.popitem(last=False)
        self._chains.move_to_end(digest)
        chain.require(now)
        return _verify_document(parsed, chain, now)


def _framed(der: bytes) -> bytes:
    return len(der).to_bytes(8, "big") + der


def _verify_chain(document: Document, roots: Sequence[TrustedRoot], now: datetime) -> VerifiedChain:
    ders = (document.certificate, *reversed(document.cabundle))
    names = ("certificate", *(f"cabundle[{number}]" for number in reversed(range(len(document.cabundle)))))
    certificates = [parse_certificate(der, f"Nitro document, {name}") for der, name in zip(ders, names, strict=True)]
    return verify_chain(certificates, roots=roots, now=now)


def _verify_document(document: Document, chain: VerifiedChain, now: datetime) -> Claims:
    # 3.
    key = chain.leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceRefusedError("the certificate of the document's key is not of a P-384 key, as those of Nitro are")
    half = SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(document.signature[start : start + half], "big") for start in (0, half))
    try:
        key.verify(encode_dss_signature(r, s), document.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise EvidenceRefusedError(
            "the document is not signed by the key of its certificate: it was changed after signing"
        ) from error
    # 4.
    made = datetime.fromtimestamp(document.timestamp_ms / 1000, UTC)
    if made > now + _MAX_AHEAD:
        raise EvidenceRefusedError(
            "the document is from the future",
            f"it is dated {made:%Y-%m-%dT%H:%M:%SZ}; compare the clocks of platform and service",
        )
    signer = document.pcrs.get(_SIGNER_PCR, b"")
    software = chain.root.software
    return Claims(
        tee="nitro",
        measurements={f"pcr{number}": value for number, value in document.pcrs.items()},
        signer=signer if any(signer) else None,
        product_id=None,
        svn=None,
        report_data=document.user_data or b"",
        debug=document.debug or software,
        software=software,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=None,
        platform_id=document.module_id.partition("-enc")[0],
        issued=made,
        raw=shown(document),
    )
