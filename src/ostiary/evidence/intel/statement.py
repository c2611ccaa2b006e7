"""Intel's signed statements: JSON text, a raw ECDSA P-256 signature over it, and two instants within.

Source: Intel's "API Documentation of the Provisioning Certification Service", TCB info and enclave identity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError

SIGNATURE_BYTES = 64
"""r and s, 32 bytes each, the most significant byte first."""


def parse_statement(text: str | bytes, what: str) -> Mapping[str, object]:
    """The members of a statement, which are nobody's word yet. Raises EvidenceFormatError, naming `what`."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError(f"{what}: not JSON") from error
    if not isinstance(members, dict):
        raise EvidenceFormatError(f"{what}: not a JSON object")
    return members


def instant_of(members: Mapping[str, object], name: str, what: str) -> datetime:
    """A member that holds an instant, in UTC. Raises EvidenceFormatError where it is missing or has no time zone."""
    try:
        instant = datetime.fromisoformat(str(members.get(name)))
    except ValueError as error:
        raise EvidenceFormatError(f"{what}: {name} is no instant") from error
    if instant.tzinfo is None:
        raise EvidenceFormatError(f"{what}: {name} has no time zone")
    return instant.astimezone(UTC)


def require_p256_signature(
    signer: x509.Certificate | ec.EllipticCurvePublicKey, signature: bytes, data: bytes, otherwise: str
) -> None:
    """ECDSA P-256 with SHA-256, by a signer whom the caller trusts. Raises EvidenceRefusedError(otherwise)."""
    key = signer.public_key() if isinstance(signer, x509.Certificate) else signer
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EvidenceRefusedError(otherwise, "its key is not of P-256")
    if len(signature) != SIGNATURE_BYTES:
        raise EvidenceRefusedError(otherwise, f"the signature has {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    r, s = (int.from_bytes(signature[half : half + 32], "big") for half in (0, 32))
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise EvidenceRefusedError(otherwise) from error
