"""Where a witness lives.

DIR/                 mode 0700
  witness.pem        its Ed25519 key, PKCS#8, mode 0600
  witness.vkey       its verifier key, to give to logs; holds its name
  witness.sqlite     what it saw; without it the key must not be used any more
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from ostiary.audit.checkpoint import witness_key
from ostiary.audit.note import VerifierKey, check_name, parse_verifier_key
from ostiary.errors import ConfigurationError, InputError
from ostiary.store.durable import sync_directory
from ostiary.witness.judge import trusted_logs
from ostiary.witness.memory import Memory
from ostiary.witness.witness import Witness

KEY_FILE = "witness.pem"
VERIFIER_FILE = "witness.vkey"
MEMORY_FILE = "witness.sqlite"


def init_witness(directory: Path, name: str) -> VerifierKey:
    """Make a witness named `name` in a directory that is not there yet.

    The verifier key is written last: an init that was killed before leaves nothing that starts.
    Raises ConfigurationError, InputError, StoreError.
    """
    check_name(name)
    key = Ed25519PrivateKey.generate()
    verifier = witness_key(name, key)
    try:
        directory.mkdir(mode=0o700)
        _write(directory / KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        Memory.make(directory / MEMORY_FILE)
        _write(directory / VERIFIER_FILE, f"{verifier}\n".encode(), 0o644)
        sync_directory(directory)
        sync_directory(directory.absolute().parent)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{directory} is there already, expected none: a witness keeps its key and memory for ever; name another "
            "directory for another witness"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{directory}: {error.strerror}", "make its parent directory, writable for us"
        ) from error
    return verifier


def open_witness(directory: Path, logs: Sequence[VerifierKey], *, now: Callable[[], datetime]) -> Witness:
    """The witness that `init_witness` made, for the logs with these keys. Raises ConfigurationError, StoreError."""
    trusted = trusted_logs(logs)
    if not trusted:
        raise ConfigurationError("no log is named, expected at least one verifier key", "nothing would be cosigned")
    key = _read_key(directory / KEY_FILE)
    verifier = _read_verifier(directory / VERIFIER_FILE)
    if verifier != witness_key(verifier.name, key):
        raise ConfigurationError(f"{directory}: {KEY_FILE} is not the key of {VERIFIER_FILE}, expected a pair")
    return Witness(name=verifier.name, key=key, logs=trusted, memory=Memory(directory / MEMORY_FILE), now=now)


def _read_key(path: Path) -> Ed25519PrivateKey:
    content = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(f"{path} has mode {mode:04o}, expected 0600", "others may have read the key")
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is no Ed25519 key")
    return key


def _read_verifier(path: Path) -> VerifierKey:
    try:
        return parse_verifier_key(_read(path).decode("utf-8", "replace"))
    except InputError as error:
        raise ConfigurationError(f"{path} is no verifier key", *error.chain) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", "expected the directory that `ostiary witness init` made"
        ) from error


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
