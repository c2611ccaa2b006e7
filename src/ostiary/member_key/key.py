"""What every place of a key gives: the public key if it is open to all, and the key itself once it is unlocked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.errors import ConfigurationError

Asking = Callable[[str], str]
"""Asks a person for a secret; given what for, in a few words. Raises ConfigurationError if there is nobody to ask."""


class MemberKey(Protocol):
    """A key that can be used now."""

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`: Ed25519 of itself; P-384 of its SHA-384, P-256 of its SHA-256, ECDSA in DER.

        Raises ConfigurationError, OutsideError: the key cannot be used, or whoever keeps it did not sign.
        """
        ...


class KeyPlace(Protocol):
    """Where a key lies. Nothing was asked of anybody yet."""

    @property
    def name(self) -> str:
        """The place, for a person."""
        ...

    def public(self) -> bytes | None:
        """DER SubjectPublicKeyInfo, None if that is locked away, too. Raises ConfigurationError, OutsideError."""
        ...

    def unlocked(self, ask: Asking) -> AbstractContextManager[MemberKey]:
        """The key, usable until the block ends; `ask` is called if a passphrase or PIN is needed.

        Raises ConfigurationError, OutsideError.
        """
        ...


EXPECTED = "expected Ed25519, P-384 or P-256"


def digest_of(key: ec.EllipticCurvePublicKey, where: str) -> HashAlgorithm:
    """The hash that goes with the curve. Raises ConfigurationError: another curve."""
    if isinstance(key.curve, ec.SECP384R1):
        return SHA384()
    if isinstance(key.curve, ec.SECP256R1):
        return SHA256()
    raise ConfigurationError(f"{where}: the key is on the curve {key.curve.name}, {EXPECTED}")


def spki_of(key: PublicKeyTypes, where: str) -> bytes:
    """DER SubjectPublicKeyInfo of a key that may decide. Raises ConfigurationError: of another type."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        digest_of(key, where)
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigurationError(f"{where}: the key is of another type, {EXPECTED}")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
