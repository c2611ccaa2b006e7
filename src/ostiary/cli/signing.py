"""Keys that sign sessions: ours from the configuration, others from files."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ostiary.cli.connection import read_text
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError
from ostiary.session.access import signer_key
from ostiary.session.signed import Signature, message_to_be_signed, signer_pem


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key, Ed25519 or P-384."""

    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, session_hash: bytes) -> Signature:
        """Our signature of the session with this hash, 32 bytes."""
        message = message_to_be_signed(session_hash)
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            signature = self.key.sign(message)
        else:
            signature = self.key.sign(message, ec.ECDSA(SHA384()))
        return Signature(signer=signer_pem(self.spki), spki=self.spki, signature=signature)


def signing_key(file: str | None, terminal: Terminal) -> SigningKey:
    """The private key in the file that `--key` names, else our session signing key. Raises ConfigurationError."""
    if file is None:
        return SigningKey(key=ed25519.Ed25519PrivateKey.from_private_bytes(terminal.configuration.signing_seed()))
    where = f"--key {file}"
    try:
        key = load_pem_private_key(read_text(file, "--key").encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{where}: expected one private key in PEM, without a password") from None
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    ):
        return SigningKey(key=key)
    raise ConfigurationError(f"{where}: sessions are signed with Ed25519 or P-384 keys, and this is another one")


def read_signer(file: str) -> bytes:
    """DER SubjectPublicKeyInfo of the public key in a file, PEM or base58check. Raises ConfigurationError."""
    try:
        return signer_key(read_text(file, "SIGNER").strip())
    except ValueError as error:
        raise ConfigurationError(f"SIGNER {file}: no public key of a signer: {error}") from None
