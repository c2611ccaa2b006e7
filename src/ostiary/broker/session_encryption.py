"""The key for which sessions are encrypted: X25519, made once, sealed in the store, never released."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ostiary.errors import TamperedError
from ostiary.session.encrypted import KEY_BYTES
from ostiary.store import Store, Write

RECORD = "session-encryption-key"
"""Its value is the private key, 32 bytes."""


def new_key_write(random_bytes: bytes) -> Write:
    """The write that makes the key of `random_bytes`, 32 of them, where there is none."""
    return Write(name=RECORD, value=random_bytes, expected_version=0)


def encryption_key(store: Store) -> X25519PrivateKey:
    """The key, for `decrypt_session`. Raises StoreError, TamperedError."""
    record = store.get(RECORD)
    if record is None or len(record.value) != KEY_BYTES:
        raise TamperedError("the stored session encryption key is missing or has another size")
    return X25519PrivateKey.from_private_bytes(record.value)


def public_encryption_key(store: Store) -> bytes:
    """32 bytes: what `session encrypt` encrypts for. Raises as `encryption_key`."""
    return encryption_key(store).public_key().public_bytes_raw()
