"""Secrets that Azure Key Vault holds encrypted. Source: session language, "Import from Azure Key Vault"."""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.errors import ReleaseRefusedError

KEY_BYTES = 32
_HEADER = bytes.fromhex("00a10002")
_IV_BYTES, _TAG_BYTES = 12, 16
_PREFIX_BYTES = len(_HEADER) + 2 + _IV_BYTES
MAX_TEXT_CHARACTERS = 4 * -(-(_PREFIX_BYTES + 0xFFFF + _TAG_BYTES) // 3)


def decode_akv(text: str, key: bytes) -> bytes:
    """Decrypt what a vault stores for a secret with a `decryption_key`: base64 (RFC 4648 section 4) of

        0x00   2  version = 00 A1
        0x02   2  key type = 00 02, AES-256-GCM
        0x04   2  n, u16 big-endian
        0x06  12  initialisation vector
        0x12   n  ciphertext, as long as the plaintext
        +n    16  tag; there is no associated data

    Guarantees: the plaintext is what the owner of `key` (KEY_BYTES) encrypted. Does not guarantee that it is the
    newest, or that it was meant for this name: neither is part of the layout.
    Raises ReleaseRefusedError, which tells nothing of the text: not this layout, another key, changed bytes.
    """
    if len(key) != KEY_BYTES:
        raise ReleaseRefusedError(
            f"decryption_key has {len(key)} bytes, expected {KEY_BYTES}; declare a binary secret of size {KEY_BYTES}"
        )
    data = _decode_base64(text)
    if len(data) < _PREFIX_BYTES + _TAG_BYTES or data[: len(_HEADER)] != _HEADER:
        raise _refuse("does not begin with version 00 A1 and key type 00 02")
    length = int.from_bytes(data[4:6], "big")
    if len(data) != _PREFIX_BYTES + length + _TAG_BYTES:
        raise _refuse(f"is {len(data)} bytes long, expected {_PREFIX_BYTES + length + _TAG_BYTES} by its length field")
    try:
        return AESGCM(key).decrypt(data[6:_PREFIX_BYTES], data[_PREFIX_BYTES:], None)
    except InvalidTag:
        raise _refuse("was encrypted under another key, or changed") from None


def _decode_base64(text: str) -> bytes:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise _refuse(f"has {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _refuse("is not base64") from None


def _refuse(found: str) -> ReleaseRefusedError:
    return ReleaseRefusedError(f"the encrypted text in the key vault {found}; encrypt and upload the secret again")
