"""JSON Web Tokens of kind `jwt`: JWS (RFC 7515) in compact form, signed with ES384 (RFC 7518 section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from ostiary.errors import InputError
from ostiary.secret.private_key import load_private_key
from ostiary.secret.value import PrivateKeyValue

RESERVED_CLAIMS = ("iat", "nbf", "exp")
ALGORITHM = "ES384"


def sign_token(payload: Mapping[str, str], *, signer: PrivateKeyValue, validity: timedelta, now: datetime) -> str:
    """A token with `payload` and the times of RFC 7519 section 4.1, in whole seconds: `iat` = `nbf` = `now`, and `exp`.

    Its header is exactly `{"alg":"ES384","typ":"JWT"}`; claims stand in the order of `payload`, the times last.
    Raises InputError: the signer is not a P-384 key, the payload names a time.
    """
    key = require_signer(signer)
    if taken := [name for name in RESERVED_CLAIMS if name in payload]:
        raise InputError(f"payload names {', '.join(taken)}, which the service sets; remove it")
    issued = int(now.timestamp())
    times = {"iat": issued, "nbf": issued, "exp": issued + int(validity.total_seconds())}
    return jwt.encode({**payload, **times}, key, algorithm=ALGORITHM)


def require_signer(value: PrivateKeyValue) -> ec.EllipticCurvePrivateKey:
    """The key that signs with ES384. Raises InputError if it is not on P-384."""
    key = load_private_key(value)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    raise InputError("signer is not a P-384 key, which alg ES384 needs; set key_type: P-384 in the signer")
