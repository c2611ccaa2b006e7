"""The CLI's file, `~/.cas/config.json`: our identity and the services we know, as other CLIs write it.

JSON; members::

    identity                              PEM text: PKCS#8 private key, then certificate
    default_cas                           name of an entry of cas_db
    cas_db                                name → {"url": "https://HOST:PORT/", "chain": PEM: instance, then root, …}
    session_signing_keypair_ed25519_seed  32 bytes: 64 hex digits, base64, or a list of numbers
    ostiary                               {"format": N}: N over FORMAT was written by a newer CLI and is refused

Members that we do not know are kept. The identity is made at first need. An absent or empty file is a fresh start.

Concurrent runs are safe: whoever changes the file holds a lock on its directory, reads it again, and replaces it
whole. A file that cannot be replaced (mounted alone into a container) is written in place, under a lock of its own.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ostiary.cli.identity import SEED_BYTES, Identity, make_identity, parse_identity
from ostiary.errors import ConfigurationError

ENVIRONMENT_VARIABLE = "SCONE_CLI_CONFIG"
DEFAULT_PATH = "~/.cas/config.json"
FORMAT = 1
MAX_FILE_BYTES = 16 * 1024 * 1024

_SEED = "session_signing_keypair_ed25519_seed"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

JsonObject: TypeAlias = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class KnownCas:
    """One entry of `cas_db`. chain: PEM, the instance's certificate first, the root last."""

    name: str
    url: str
    chain: str
    is_default: bool = False


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The file at `path`, read anew by each method. warn: takes one sentence for the person at the terminal."""

    path: Path
    warn: Callable[[str], None] = field(repr=False)

    def identity(self) -> Identity:
        """Our identity, made and kept at first need. Raises ConfigurationError."""
        text = self._member("identity", make_identity)
        if not isinstance(text, str):
            raise self._wrong("identity is no text")
        return parse_identity(text, f"{self.path}: identity")

    def signing_seed(self) -> bytes:
        """32 bytes, made and kept at first need. Raises ConfigurationError."""
        seed = _seed(self._member(_SEED, lambda: secrets.token_hex(SEED_BYTES)))
        if len(seed) != SEED_BYTES:
            raise self._wrong(f"{_SEED} is not {SEED_BYTES} bytes in hex, base64 or a list of numbers")
        return seed

    def known(self) -> tuple[KnownCas, ...]:
        """All services, in the order of the file. Raises ConfigurationError."""
        document = self._read()
        return tuple(self._entry(document, name) for name in _object(document.get("cas_db")))

    def set_default(self, name: str) -> None:
        """Make an entry the default. Raises ConfigurationError if there is none of this name."""
        with self._locked():
            document = self._read()
            if name not in _object(document.get("cas_db")):
                raise ConfigurationError(f"CAS {name!r} is not known", f"{self.path} has no entry of that name")
            self._write({**document, "default_cas": name})

    def _member(self, name: str, make: Callable[[], object]) -> object:
        value = self._read().get(name)
        if value is not None:
            return value
        with self._locked():
            document = self._read()
            if document.get(name) is None:
                document[name] = make()
                document.setdefault("cas_db", {})
                self._write(document)
            return document[name]

    def _entry(self, document: JsonObject, name: str) -> KnownCas:
        entry = _object(_object(document.get("cas_db"))[name])
        url, chain = entry.get("url", f"https://{name}/"), entry.get("chain", "")
        if not isinstance(url, str) or not isinstance(chain, str):
            raise self._wrong(f"url and chain of cas_db entry {name!r} are not both texts")
        return KnownCas(name=name, url=url, chain=chain, is_default=document.get("default_cas") == name)

    def _read(self) -> JsonObject:
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(error) from error
        if mode & _OTHERS and content:
            self.warn(f"others may read {self.path}, which holds your private key; run: chmod 600 {self.path}")
        return self._parse(content)

    def _parse(self, content: bytes) -> JsonObject:
        if not content.strip():
            return {}
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise self._wrong("it is not JSON") from None
        if not isinstance(document, dict):
            raise self._wrong("it is not a JSON object")
        written = _object(document.get("ostiary")).get("format", FORMAT)
        if not isinstance(written, int) or written > FORMAT:
            raise self._wrong(f"a newer version wrote it (format {written!r}, this one knows {FORMAT}); update Ostiary")
        return document

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else of this kind changes the file until the block ends."""
        directory = self.path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, document: JsonObject) -> None:
        content = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
        # A link to the file stays one: what it points to is replaced.
        target = Path(os.path.realpath(self.path))
        try:
            try:
                _replace(target, content)
            except OSError:
                _write_in_place(target, content)
        except OSError as error:
            raise self._unusable(error) from error

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"the configuration file {self.path} cannot be used", what)

    def _unusable(self, error: OSError) -> ConfigurationError:
        return self._wrong(error.strerror or str(error))


def _replace(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except OSError:
        os.unlink(name)
        raise


def _write_in_place(target: Path, content: bytes) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _seed(value: object) -> bytes:
    try:
        if isinstance(value, list):
            return bytes(value)
        if isinstance(value, str):
            return bytes.fromhex(value) if len(value) == 2 * SEED_BYTES else base64.b64decode(value, validate=True)
    except (ValueError, TypeError, binascii.Error):
        pass
    return b""


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}
