"""Keys in PEM files, PKCS#8 or older, with a passphrase or without, and in OpenSSH's form without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from ostiary.errors import ConfigurationError
from ostiary.member_key.key import EXPECTED, Asking, MemberKey, digest_of, spki_of

MAX_KEY_FILE_BYTES = 64 * 1024

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_PUBLIC = b"-----BEGIN PUBLIC KEY-----"
_PUBLIC_SSH = (b"ssh-ed25519 ", b"ecdsa-sha2-nistp256 ", b"ecdsa-sha2-nistp384 ")


@dataclass(frozen=True, kw_only=True)
class KnownKey:
    """A key in this process's memory, which is place and key in one. Raises ConfigurationError: of another type."""

    name: str
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        spki_of(self.key.public_key(), self.name)

    @property
    def spki(self) -> bytes:
        return spki_of(self.key.public_key(), self.name)

    def public(self) -> bytes:
        return self.spki

    @contextmanager
    def unlocked(self, _ask: Asking) -> Iterator[MemberKey]:
        yield self

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ec.ECDSA(digest_of(self.key.public_key(), self.name)))


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """A private key in a file; of a public key too, which is good for asking what waits for it, not for signing."""

    path: Path

    @property
    def name(self) -> str:
        return f"key file {self.path}"

    def public(self) -> bytes | None:
        content = self._content()
        if content.startswith((_PUBLIC, *_PUBLIC_SSH)):
            return self._public(content)
        key = self._private(content, None)
        return None if key is None else key.spki

    @contextmanager
    def unlocked(self, ask: Asking) -> Iterator[MemberKey]:
        content = self._content()
        if content.startswith((_PUBLIC, *_PUBLIC_SSH)):
            raise ConfigurationError(f"{self.name} has a public key, and only a private one signs")
        key = self._private(content, None)
        if key is None:
            passphrase = ask(f"Passphrase of {self.name}").encode()
            key = self._private(content, passphrase) if passphrase else None
            if key is None:
                raise ConfigurationError(f"{self.name}: the passphrase is wrong")
        yield key

    def _content(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_KEY_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"{self.name}: {error.strerror}") from error
        if len(content) > MAX_KEY_FILE_BYTES:
            raise ConfigurationError(f"{self.name} has more than {MAX_KEY_FILE_BYTES} bytes, and is no key")
        return content.strip()

    def _public(self, content: bytes) -> bytes:
        load = load_pem_public_key if content.startswith(_PUBLIC) else load_ssh_public_key
        try:
            return spki_of(load(content), self.name)
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError(f"{self.name}: the public key cannot be read, {EXPECTED}") from None

    def _private(self, content: bytes, passphrase: bytes | None) -> KnownKey | None:
        """None: it needs a passphrase, or another one."""
        try:
            key = _load(content, passphrase)
        except TypeError:
            # The library's word for a passphrase that is missing.
            if content.startswith(_OPENSSH):
                raise ConfigurationError(
                    f"{self.name} has a passphrase and is in OpenSSH's own form, which only OpenSSH opens",
                    f"add it to an agent, `ssh-add {self.path}`, and name it: --key ssh:COMMENT",
                ) from None
            return None
        except (ValueError, UnsupportedAlgorithm):
            if passphrase is not None:
                return None
            raise ConfigurationError(
                f"{self.name}: expected one private key, PEM, and there is none that can be read"
            ) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise ConfigurationError(f"{self.name}: the key is of another type, {EXPECTED}")
        return KnownKey(name=self.name, key=key)


def _load(content: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    if content.startswith(_OPENSSH):
        return load_ssh_private_key(content, passphrase)
    return load_pem_private_key(content, passphrase)
