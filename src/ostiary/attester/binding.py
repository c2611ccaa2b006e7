"""What evidence and proofs are made over, to count for one connection and moment only. Standard library only."""

from __future__ import annotations

import hashlib

NONCE_BYTES = 32
REPORT_DATA_BYTES = 64
TOKEN_KEY_INFO = b"ostiary-access-token-v1"
"""The `info` of HKDF (RFC 5869), by which a session's access token becomes the key of its proofs; there is no salt."""
TOKEN_KEY_BYTES = 32
CLIENT = b"client"
"""The end of the program, in a proof of the token."""
SERVER = b"server"
"""The end of the CAS."""

_DOMAIN = b"ostiary-attest-v1"


def report_data(*, nonce: bytes, client_spki: bytes, server_spki: bytes) -> bytes:
    """The 64 bytes of report data that bind evidence to a nonce and to both ends of one TLS connection.

    SHA-512("ostiary-attest-v1" ‖ nonce, 32 bytes ‖ SHA-256(client SPKI) ‖ SHA-256(server SPKI)), where SPKI is the DER
    SubjectPublicKeyInfo of the certificate that the end showed in the handshake. All parts after the domain have fixed
    length, so no two inputs give the same bytes.

    Guarantees nothing by itself: the caller must have made the nonce, and seen both keys prove possession.
    Raises ValueError for a nonce of another length.
    """
    return hashlib.sha512(_DOMAIN + _connection(nonce, client_spki, server_spki)).digest()


def qualifying_data(binding: bytes) -> bytes:
    """What a TPM quotes as its nonce: SHA-256 of the report data, for a TPM takes no more than one digest.

    Source: TPM 2.0 Library part 2, TPM2B_DATA, as large as the largest hash of the TPM with its identifier.
    """
    return hashlib.sha256(binding).digest()


def token_proof_data(end: bytes, *, nonce: bytes, client_spki: bytes, server_spki: bytes) -> bytes:
    """The 102 bytes whose HMAC proves that one end of a TLS connection has the session's access token.

    end, CLIENT or SERVER, 6 bytes ‖ nonce, 32 bytes ‖ SHA-256(client SPKI) ‖ SHA-256(server SPKI). All parts have fixed
    length; the first keeps a proof from being sent back as the answer to itself.
    Raises ValueError for a nonce of another length, or another end.
    """
    if end not in (CLIENT, SERVER):
        raise ValueError(f"a proof of the end {end!r}, expected {CLIENT!r} or {SERVER!r}")
    return end + _connection(nonce, client_spki, server_spki)


def _connection(nonce: bytes, client_spki: bytes, server_spki: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"nonce of {len(nonce)} bytes, expected {NONCE_BYTES}")
    return nonce + hashlib.sha256(client_spki).digest() + hashlib.sha256(server_spki).digest()
