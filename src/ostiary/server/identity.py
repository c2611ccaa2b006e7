"""Who is at the other end of a TLS connection: a key, or nobody we know.

Any self-signed certificate is accepted, and nothing in it is believed but its public key: TLS proves that the peer
holds the private half. Names, dates, usages and issuers of client certificates are never looked at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A peer that proved possession of a key. certificate: PEM as OpenSSL writes it. spki: DER SubjectPublicKeyInfo."""

    certificate: str
    spki: bytes

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes: what access policies compare."""
        return hashlib.sha256(self.spki).digest()

    @property
    def key_bits_hash(self) -> bytes:
        """SHA-256 of `subjectPublicKey` alone, the bits of the BIT STRING in the SubjectPublicKeyInfo, 32 bytes."""
        return hashlib.sha256(_key_bits(self.spki)).digest()


@dataclass(frozen=True, kw_only=True)
class Anonymous:
    """A peer that showed no certificate. It has no identity, so nothing can be granted to it by key."""


Peer = Identity | Anonymous


def _key_bits(spki: bytes) -> bytes:
    """SEQUENCE { SEQUENCE algorithm, BIT STRING key } (RFC 5280 section 4.1), the key without its count of unused bits.

    The DER is OpenSSL's own, made of a key that it has parsed.
    """
    inside, _ = _element(spki, 0)
    _, after_algorithm = _element(spki, inside)
    start, end = _element(spki, after_algorithm)
    return spki[start + 1 : end]


def _element(der: bytes, offset: int) -> tuple[int, int]:
    """Where the content of the DER element at `offset` begins and ends."""
    size, start = der[offset + 1], offset + 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[offset + 2 : start], "big")
    return start, start + size
