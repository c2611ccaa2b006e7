"""The two versions of PKCS#8 that an Ed25519 key may be written in. The other key types have one.

Version 1 (RFC 5208, version field 0) holds the private key alone; version 2 (RFC 5958, version field 1) the public key
as well. The language describes generated Ed25519 keys as version 2; OpenSSL 3.0 reads version 1 only (docs/adr/0006).
"""

from __future__ import annotations

import base64
import re
from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ObjectIdentifier

_BLOCK = re.compile(r"-----BEGIN PRIVATE KEY-----(.*?)-----END PRIVATE KEY-----", re.DOTALL)
_ED25519 = ObjectIdentifier("1.3.101.112")
_VERSION_2 = 1


@asn1.sequence
class _Algorithm:
    algorithm: ObjectIdentifier


@asn1.sequence
class _OneAsymmetricKey:
    """RFC 5958 section 2, without attributes, as RFC 8410 section 7 writes an Ed25519 key with its public key."""

    version: int
    algorithm: _Algorithm
    private_key: bytes
    public_key: Annotated[asn1.BitString, asn1.Implicit(1)]


def encode_version_2(key: ed25519.Ed25519PrivateKey) -> bytes:
    """DER of version 2: 83 bytes, the version field 1, the public key at the end."""
    return asn1.encode_der(
        _OneAsymmetricKey(
            version=_VERSION_2,
            algorithm=_Algorithm(algorithm=_ED25519),
            private_key=asn1.encode_der(key.private_bytes_raw()),
            public_key=asn1.BitString(data=key.public_key().public_bytes_raw(), padding_bits=0),
        )
    )


def to_version_1(der: bytes) -> bytes:
    """DER of version 1 of an Ed25519 key in version 2; anything else unchanged, whatever it is.

    Raises ValueError, with one sentence, for a version 2 that names another public key than the private key's own.
    """
    try:
        found = asn1.decode_der(_OneAsymmetricKey, der)
        if found.version != _VERSION_2 or found.algorithm.algorithm != _ED25519:
            return der
        key = ed25519.Ed25519PrivateKey.from_private_bytes(asn1.decode_der(bytes, found.private_key))
    except ValueError:
        return der
    if found.public_key.as_bytes() != key.public_key().public_bytes_raw():
        raise ValueError("expected a key beside its own public key, found an Ed25519 key beside another")
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def pem_to_version_1(text: str) -> str:
    """The same for the one block PRIVATE KEY of a PEM text. Text around the block, and what is no PEM, is kept."""
    block = _BLOCK.search(text)
    if block is None:
        return text
    try:
        der = base64.b64decode("".join(block[1].split()), validate=True)
    except ValueError:
        return text
    converted = to_version_1(der)
    if converted == der:
        return text
    body = base64.encodebytes(converted).decode("ascii")
    return f"{text[: block.start(1)]}\n{body}{text[block.end(1) :]}"
