"""The program's side of a session's access token: show that it is here, and see that the CAS has it.

Standard library only. Source: docs/enclave-protocol.md section 3.1. The service's side is `broker.access_token`.
"""

from __future__ import annotations

import hmac

from ostiary.attester.binding import SERVER, TOKEN_KEY_BYTES, TOKEN_KEY_INFO, token_proof_data
from ostiary.errors import InputError, OutsideError

VARIABLE = "SCONE_SERVICE_ACCESS_TOKEN"

_HASH = "sha256"
_HASH_BYTES = 32


def derive_key(secret: bytes, *, info: bytes, salt: bytes = b"", size: int = TOKEN_KEY_BYTES) -> bytes:
    """HKDF-SHA-256 (RFC 5869) of `secret`, at most 32 bytes.

    Written out here, against our rule, because the standard library has HMAC but no HKDF, and nothing else can be
    imported beside the program. For one block it is two lines: extract (2.2) and expand (2.3, T(1)).
    """
    if not 0 < size <= _HASH_BYTES:
        raise ValueError(f"a key of {size} bytes, expected 1 to {_HASH_BYTES}")
    extracted = hmac.digest(salt or bytes(_HASH_BYTES), secret, _HASH)
    return hmac.digest(extracted, info + b"\x01", _HASH)[:size]


def prove_token(token: bytes, end: bytes, *, nonce: bytes, client_spki: bytes, server_spki: bytes) -> bytes:
    """32 bytes that show that `end` of one connection has the token, and tell nobody the token."""
    data = token_proof_data(end, nonce=nonce, client_spki=client_spki, server_spki=server_spki)
    return hmac.digest(derive_key(token, info=TOKEN_KEY_INFO), data, _HASH)


def require_token(
    token: bytes | None, proof: bytes | None, *, nonce: bytes, client_spki: bytes, server_spki: bytes
) -> None:
    """Check what the CAS showed beside a configuration. token: None if none is set here. proof: None if it sent none.

    Guarantees on return: if a token is set here, the CAS at the other end of this very connection has it. Without one
    nothing is known of the CAS.
    Raises OutsideError, as for a server that is not the CAS that --cas-ca names; InputError for a proof nobody asked
    for.
    """
    if token is None:
        if proof is not None:
            raise InputError(f"the CAS proves an access token, and {VARIABLE} is not set here")
        return
    if proof is None:
        raise OutsideError(
            f"{VARIABLE} is set, and the CAS did not prove that it has the token",
            "the session has no service_access_token, or this is not the CAS that was meant: nothing of it was used",
        )
    expected = prove_token(token, SERVER, nonce=nonce, client_spki=client_spki, server_spki=server_spki)
    if not hmac.compare_digest(expected, proof):
        raise OutsideError(
            f"{VARIABLE} is set, and the CAS has another token",
            "this is not the CAS that was meant: nothing of its configuration was used",
        )
