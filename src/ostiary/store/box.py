"""Sealed bytes: one kind of row, under one key, tied to the place it stands in."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from ostiary.errors import TamperedError
from ostiary.store.padding import pad, unpad

FORMAT = 1
NONCE_BYTES = 12

_HEADER = bytes([FORMAT])
_START = len(_HEADER) + NONCE_BYTES


class Box:
    """Seals with AES-256-GCM-SIV (RFC 8452), whose nonces may repeat by accident without giving away the key.

    Sealed form, offsets and sizes in bytes:
        0x00   1  format, u8 = 1
        0x01  12  nonce, random
        0x0D   n  ciphertext of the padded value (`padding.pad`), then the tag, 16
    Additional data: `domain` ‖ 0x00 ‖ context, where the context names the place: all of one domain have the same
    length.
    """

    def __init__(self, key: bytes, domain: bytes) -> None:
        self._aead = AESGCMSIV(key)
        self._domain = domain + b"\x00"

    def seal(self, value: bytes, *, context: bytes, nonce: bytes) -> bytes:
        """The sealed form of `value` for the place that `context` names. nonce: 12 fresh random bytes."""
        return _HEADER + nonce + self._aead.encrypt(nonce, pad(value), self._domain + context)

    def unseal(self, sealed: bytes, *, context: bytes) -> bytes:
        """The value, if exactly these bytes were once sealed for this place under this key.

        Does not guarantee that they are the newest ones sealed for it: the caller compares versions and hashes.
        Raises TamperedError otherwise, and nothing else for any input.
        """
        if sealed[: len(_HEADER)] != _HEADER:
            raise TamperedError(
                f"the format byte is {sealed[:1].hex() or 'absent'}, expected {_HEADER.hex()}: changed, or written "
                "by a "
                "newer program, which must then be used to read it"
            )
        try:
            return unpad(self._aead.decrypt(sealed[len(_HEADER) : _START], sealed[_START:], self._domain + context))
        except (InvalidTag, ValueError) as error:
            raise TamperedError("the sealed bytes do not verify under this database key") from error
