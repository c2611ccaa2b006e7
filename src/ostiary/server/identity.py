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


@dataclass(frozen=True, kw_only=True)
class Anonymous:
    """A peer that showed no certificate. It has no identity, so nothing can be granted to it by key."""


Peer = Identity | Anonymous
