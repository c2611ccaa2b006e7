"""What evidence is made over, so that it counts for one connection and one moment only. Standard library only."""

from __future__ import annotations

import hashlib

NONCE_BYTES = 32
REPORT_DATA_BYTES = 64

_DOMAIN = b"ostiary-attest-v1"


def report_data(*, nonce: bytes, client_spki: bytes, server_spki: bytes) -> bytes:
    """The 64 bytes of report data that bind evidence to a nonce and to both ends of one TLS connection.

    SHA-512("ostiary-attest-v1" ‖ nonce, 32 bytes ‖ SHA-256(client SPKI) ‖ SHA-256(server SPKI)), where SPKI is the DER
    SubjectPublicKeyInfo of the certificate that the end showed in the handshake. All parts after the domain have fixed
    length, so no two inputs give the same bytes.

    Guarantees nothing by itself: the caller must have made the nonce, and seen both keys prove possession.
    Raises ValueError for a nonce of another length.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"nonce of {len(nonce)} bytes, expected {NONCE_BYTES}")
    return hashlib.sha512(
        _DOMAIN + nonce + hashlib.sha256(client_spki).digest() + hashlib.sha256(server_spki).digest()
    ).digest()
