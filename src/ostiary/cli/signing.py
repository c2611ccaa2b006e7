"""Keys that sign sessions: ours from the configuration, others wherever they lie."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519

from ostiary.cli.connection import read_text
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError
from ostiary.member_key import KnownKey, MemberKey
from ostiary.session.access import signer_key
from ostiary.session.signed import Signature, message_to_be_signed, signer_pem


def own_signing_key(terminal: Terminal) -> KnownKey:
    """Our session signing key, made at first need. Raises ConfigurationError."""
    seed = terminal.configuration.signing_seed()
    return KnownKey(name="our session signing key", key=ed25519.Ed25519PrivateKey.from_private_bytes(seed))


def require_session_signer(spki: bytes, name: str) -> None:
    """Raises ConfigurationError for a key, DER SubjectPublicKeyInfo, that decides about sessions and signs none."""
    try:
        signer_key(signer_pem(spki))
    except ValueError as error:
        raise ConfigurationError(f"{name} cannot sign sessions: {error}") from None


def sign_session(session_hash: bytes, key: MemberKey) -> Signature:
    """The key's signature of the session with this hash, 32 bytes, not verified. Raises as the key does."""
    # A key signs as sessions are signed: Ed25519 the message itself, P-384 its SHA-384.
    signature = key.sign(message_to_be_signed(session_hash))
    return Signature(signer=signer_pem(key.spki), spki=key.spki, signature=signature)


def read_signer(file: str) -> bytes:
    """DER SubjectPublicKeyInfo of the public key in a file, PEM or base58check. Raises ConfigurationError."""
    try:
        return signer_key(read_text(file, "SIGNER").strip())
    except ValueError as error:
        raise ConfigurationError(f"SIGNER {file}: no public key of a signer: {error}") from None
