"""The database key in a file, wrapped under a key that a TEE derives for this very program, and keeps nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiary.errors import StoreError
from ostiary.store.keys import KEY_BYTES
from ostiary.store.sealing.drafted import DraftedFile

FORMAT = 1
NONCE_BYTES = 12
TAG_BYTES = 16
WRAPPED_BYTES = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES

_DOMAIN = b"ostiary-wrapped-key-v1"


class WrappedKey:
    """A `Sealing` in a file of 61 bytes, under a key that `derive` asks of the TEE each time.

    derive: 16 bytes or more of key, the same for the same program on the same machine; raises StoreError.
    purpose: names the TEE and the kind of key. advice: what to tell who has the file but not its key.
    warning: see `Sealing.warning`.
    """

    def __init__(
        self, path: Path, *, derive: Callable[[], bytes], purpose: str, advice: str, warning: str = ""
    ) -> None:
        self._file = DraftedFile(path, what="the wrapped database key", size=WRAPPED_BYTES)
        self._derive = derive
        self._purpose = purpose
        self._advice = advice
        self._warning = warning

    @property
    def place(self) -> str:
        return str(self._file.path)

    @property
    def warning(self) -> str:
        return self._warning

    def kept(self) -> bytes | None:
        return self._unwrap(self._file.kept())

    def drafted(self) -> bytes | None:
        return self._unwrap(self._file.drafted())

    def draft(self, random: Callable[[int], bytes]) -> bytes:
        key = random(KEY_BYTES)
        self._file.draft(wrap(self._derive(), key, purpose=self._purpose, nonce=random(NONCE_BYTES)))
        return key

    def keep(self) -> None:
        self._file.keep()

    def _unwrap(self, wrapped: bytes | None) -> bytes | None:
        if wrapped is None:
            return None
        try:
            return unwrap(self._derive(), wrapped, purpose=self._purpose)
        except InvalidTag:
            raise StoreError(
                f"{self.place}: the {self._purpose} of this program on this machine does not open it: {self._advice}"
            ) from None


def wrap(tee_key: bytes, key: bytes, *, purpose: str, nonce: bytes) -> bytes:
    """The wrapped form of `key`, 61 bytes, under a key derived from `tee_key` for this purpose.

    Offsets and sizes in bytes:
        0x00   1  format, u8 = 1
        0x01  12  nonce, random
        0x0D  48  ciphertext of the key, 32, and tag, 16: AES-256-GCM-SIV (RFC 8452)
    Wrapping key: HKDF-SHA-256 (RFC 5869) of `tee_key`, salt "ostiary-wrapped-key-v1", info `purpose` in UTF-8.
    Additional data: "ostiary-wrapped-key-v1" ‖ 0x00 ‖ format.
    """
    header = bytes([FORMAT])
    return header + nonce + _aead(tee_key, purpose).encrypt(nonce, key, _DOMAIN + b"\x00" + header)


def unwrap(tee_key: bytes, wrapped: bytes, *, purpose: str) -> bytes:
    """The key, if these bytes were wrapped under this key for this purpose. Raises InvalidTag otherwise."""
    header, nonce, sealed = wrapped[:1], wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :]
    if header != bytes([FORMAT]) or len(wrapped) != WRAPPED_BYTES:
        raise InvalidTag
    return _aead(tee_key, purpose).decrypt(nonce, sealed, _DOMAIN + b"\x00" + header)


def _aead(tee_key: bytes, purpose: str) -> AESGCMSIV:
    return AESGCMSIV(HKDF(algorithm=SHA256(), length=32, salt=_DOMAIN, info=purpose.encode()).derive(tee_key))
