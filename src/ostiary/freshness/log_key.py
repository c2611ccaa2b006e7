"""The key that signs the audit log's checkpoints."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SALT = b"ostiary-log-v1"
_INFO = b"log key"
_SEED_BYTES = 32


def derive_log_key(database_key: bytes) -> Ed25519PrivateKey:
    """The Ed25519 key with the seed HKDF-SHA-256 (RFC 5869) of the database key, salt "ostiary-log-v1", info "log key".

    So it is there before the database is opened, lies nowhere, and is the same in every process that has the database.
    Whoever has the database key can sign any history; but a witness cosigns one only.
    """
    hkdf = HKDF(algorithm=SHA256(), length=_SEED_BYTES, salt=_SALT, info=_INFO)
    return Ed25519PrivateKey.from_private_bytes(hkdf.derive(database_key))
