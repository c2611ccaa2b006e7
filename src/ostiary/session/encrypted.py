"""Encrypted sessions: a signed session that only one service can read, and their JSON form. Decides nothing.

The form, which `session encrypt` prints and `PUT /v1/encrypted_sessions` takes::

    {"encrypted_session": "<base64>", "encryption_key": "<64 hex digits>"}

encryption_key    X25519 public key, 32 bytes, of the service that can open it
encrypted_session encapsulated key, 32 bytes ‖ ciphertext, HPKE (RFC 9180) base mode with DHKEM(X25519, HKDF-SHA256),
                  HKDF-SHA256, AES-256-GCM, info `ostiary-session-v1`, no additional data; the plaintext is the UTF-8
                  JSON of a signed session (`ostiary.session.signed`)

HPKE hides a session; it says nothing about who made it. That is what the signatures inside are for.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ostiary.errors import InputError, TooLargeError
from ostiary.session.signed import MAX_SIGNED_BYTES, json_members

KEY_BYTES = 32
"""An X25519 public key, and the encapsulated key."""
MAX_ENCRYPTED_BYTES = (MAX_SIGNED_BYTES + KEY_BYTES + 16) * 4 // 3 + 1024
"""The JSON form: a signed session of full size with encapsulated key and authentication tag, in base64."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO = b"ostiary-session-v1"
_MEMBERS = ("encrypted_session", "encryption_key")


@dataclass(frozen=True, kw_only=True)
class EncryptedSession:
    """ciphertext: encapsulated key, then ciphertext; of whatever scheme it is. key: 32 bytes, whom it is for."""

    ciphertext: bytes = field(repr=False)
    key: bytes

    def to_json(self) -> str:
        """The JSON form, on lines of its own, ending in a line feed."""
        members = {
            "encrypted_session": base64.b64encode(self.ciphertext).decode("ascii"),
            "encryption_key": self.key.hex(),
        }
        return json.dumps(members, indent=2) + "\n"


def parse_encrypted_session(text: bytes | str) -> EncryptedSession:
    """Read the JSON form. Raises InputError: not of this form. Raises TooLargeError over MAX_ENCRYPTED_BYTES."""
    if len(text) > MAX_ENCRYPTED_BYTES:
        raise TooLargeError(f"the encrypted session has more than {MAX_ENCRYPTED_BYTES} bytes")
    members = json_members(text, _MEMBERS, "an encrypted session")
    sealed, key = members["encrypted_session"], members["encryption_key"]
    if not isinstance(sealed, str) or not isinstance(key, str):
        raise InputError("encrypted_session and encryption_key must both be text")
    try:
        ciphertext = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("encrypted_session is not base64") from None
    return EncryptedSession(ciphertext=ciphertext, key=parse_encryption_key(key))


def parse_encryption_key(text: str) -> bytes:
    """32 bytes of 64 hex digits. Raises InputError."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
        raise InputError(f"a session encryption key has {2 * KEY_BYTES} hex digits, found {text[:80]!r}")
    return key


def encrypt_session(signed: str, key: bytes) -> EncryptedSession:
    """The JSON of a signed session for the service with the X25519 public `key`, 32 bytes.

    Each call gives another ciphertext: HPKE draws a fresh key from the system's generator.
    Guarantees that without the private key nothing is learnt of it but its size. Raises InputError: no usable key.
    """
    try:
        ciphertext = _SUITE.encrypt(signed.encode(), X25519PublicKey.from_public_bytes(key), _INFO)
    except ValueError:
        raise InputError(f"{key.hex()} is no X25519 public key that a session can be encrypted for") from None
    return EncryptedSession(ciphertext=ciphertext, key=key)


def decrypt_session(encrypted: EncryptedSession, key: X25519PrivateKey) -> bytes:
    """What was encrypted for `key`, whole and unchanged. Who encrypted it stays open.

    Raises InputError: for another key, or not of this scheme; SCONE's, which nobody has documented, is not.
    """
    own = key.public_key().public_bytes_raw()
    if encrypted.key != own:
        raise InputError(
            f"the session is encrypted for {encrypted.key.hex()}, and the key of this service is {own.hex()}",
            f"encrypt it again for this key, or {_INSTEAD}",
        )
    try:
        return _SUITE.decrypt(encrypted.ciphertext, key, _INFO)
    except (InvalidTag, ValueError):
        raise InputError(
            "encrypted_session cannot be opened: it was changed, or it was not made by `ostiary session encrypt`, "
            "whose scheme is HPKE; that of SCONE's CLI is not known",
            f"encrypt the signed session again, or {_INSTEAD}",
        ) from None


_INSTEAD = "upload it signed and not encrypted: PUT /v1/signed_sessions"
