"""A session's access token: program and service prove to each other that they have it, and neither sends it.

Source: docs/enclave-protocol.md section 3.1; session language, 12.7. The program's side is `launcher.access_token`.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiary.attester.binding import CLIENT, SERVER, TOKEN_KEY_BYTES, TOKEN_KEY_INFO, token_proof_data
from ostiary.errors import RefusedError


def prove_token(token: str, end: bytes, *, nonce: bytes, client_spki: bytes, server_spki: bytes) -> bytes:
    """32 bytes that show that `end` of one connection has the token: HMAC-SHA-256 under a key made of it."""
    key = HKDF(hashes.SHA256(), TOKEN_KEY_BYTES, salt=None, info=TOKEN_KEY_INFO).derive(token.encode())
    proof = HMAC(key, hashes.SHA256())
    proof.update(token_proof_data(end, nonce=nonce, client_spki=client_spki, server_spki=server_spki))
    return proof.finalize()


def answer_token_proof(
    token: str | None, proof: bytes, *, nonce: bytes, client_spki: bytes, server_spki: bytes
) -> bytes:
    """Judge a program's proof (empty: none) by the session's token (None: it has none). Returns the service's proof.

    Guarantees on return: both have the token, which whoever made `proof` knew for this nonce and these two keys, or
    neither has one, and the answer is empty.
    Does not guarantee that the token is hard to guess: whoever answers a program gets a proof to try guesses on.
    Raises RefusedError that says on which side it fails.
    """
    if token is None:
        if proof:
            raise RefusedError(
                "the program has a service access token and the session has none",
                "unset SCONE_SERVICE_ACCESS_TOKEN, or give the session its security.service_access_token",
            )
        return b""
    if not proof:
        raise RefusedError(
            "the session has a service access token and the program has none",
            "set SCONE_SERVICE_ACCESS_TOKEN to it where the program is started",
        )
    expected = prove_token(token, CLIENT, nonce=nonce, client_spki=client_spki, server_spki=server_spki)
    if not hmac.compare_digest(expected, proof):
        raise RefusedError(
            "the program has another service access token than the session",
            "set SCONE_SERVICE_ACCESS_TOKEN to the session's, without blanks or a newline around it",
        )
    return prove_token(token, SERVER, nonce=nonce, client_spki=client_spki, server_spki=server_spki)
