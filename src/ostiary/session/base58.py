"""Base58check texts of keys and key hashes.

37 bytes in the Bitcoin alphabet: version u8, payload 32, then the first 4 bytes of SHA-256(SHA-256(version ‖ payload)).
Source: session language, "Base58check texts".
"""

from __future__ import annotations

import hashlib

KEY_HASH_VERSION = 1
ED25519_KEY_VERSION = 10

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: digit for digit, character in enumerate(_ALPHABET)}
_SIZE = 37
_MAX_CHARACTERS = 51  # of 37 bytes, the largest


def encode_key_hash(key_hash: bytes) -> str:
    """The text of a key hash of 32 bytes, 50 or 51 characters."""
    body = bytes([KEY_HASH_VERSION]) + key_hash
    number = int.from_bytes(body + _checksum(body), "big")
    digits = []
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def decode_key_hash(text: str) -> bytes:
    """The 32 bytes of a key hash. Raises ValueError with one sentence: alphabet, length, checksum or version."""
    return _payload(text, KEY_HASH_VERSION, "a key hash")


def decode_ed25519_key(text: str) -> bytes:
    """The 32 bytes of an Ed25519 public key, the older form of a signer. Raises ValueError as `decode_key_hash`."""
    return _payload(text, ED25519_KEY_VERSION, "an Ed25519 key")


def _payload(text: str, version: int, what: str) -> bytes:
    data = _decode(text)
    if data[-4:] != _checksum(data[:-4]):
        raise ValueError("its checksum is wrong; copy it again")
    if data[0] != version:
        raise ValueError(f"it is a base58check text of version {data[0]}, expected {version}, {what}")
    return data[1:33]


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]


def _decode(text: str) -> bytes:
    if not 1 <= len(text) <= _MAX_CHARACTERS or any(character not in _DIGITS for character in text):
        raise ValueError("it is not base58check")
    number = 0
    for character in text:
        number = number * len(_ALPHABET) + _DIGITS[character]
    leading_zeros = len(text) - len(text.lstrip(_ALPHABET[0]))
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if leading_zeros + len(body) != _SIZE:
        raise ValueError(f"it holds {leading_zeros + len(body)} bytes, expected {_SIZE}")
    return bytes(leading_zeros) + body
