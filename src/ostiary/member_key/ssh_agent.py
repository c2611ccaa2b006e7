"""Keys that an SSH agent keeps: Ed25519, ECDSA with nistp256 and nistp384. The agent signs; we never see the key.

Messages, integers big-endian, `string` is a u32 length and that many bytes::

    to the agent      string of: u8 type, content
        11            REQUEST_IDENTITIES
        13            SIGN_REQUEST: string key blob, string data, u32 flags = 0
    from the agent
         5            FAILURE
        12            IDENTITIES_ANSWER: u32 n, then n times string key blob, string comment
        14            SIGN_RESPONSE: string of: string algorithm, string signature

A signature is 64 bytes with ssh-ed25519; with ecdsa-sha2-nistp256 (SHA-256) and ecdsa-sha2-nistp384 (SHA-384) it is two
mpints, r and s. What we have signed is no SSH authentication, which begins with the length of a session identifier: a
decision begins with words of our own, and the 34 bytes of a session with 00 01, of a length that they have not.
Keys on security keys (`sk-…`) sign other bytes than they are given, and are left out.
Source: draft-ietf-sshm-ssh-agent, 3.5, 3.6; RFC 4253, 6.6; RFC 5656, 3.1.2; RFC 8709, 6 (sections).
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from ostiary.errors import ConfigurationError, OutsideError
from ostiary.member_key.key import Asking, MemberKey, spki_of

AGENT_VARIABLE = "SSH_AUTH_SOCK"
MAX_ANSWER_BYTES = 256 * 1024
"""As OpenSSH bounds its own messages."""
LIST_SECONDS = 10.0
SIGN_SECONDS = 120.0
"""An agent may ask a person to confirm each use of a key."""

_REQUEST_IDENTITIES, _IDENTITIES_ANSWER, _SIGN_REQUEST, _SIGN_RESPONSE = 11, 12, 13, 14
_ALGORITHMS = (b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384")


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """blob: the public key as SSH writes it."""

    blob: bytes
    comment: str

    @property
    def algorithm(self) -> bytes:
        return _Reader(self.blob).string()

    @property
    def fingerprint(self) -> str:
        """As `ssh-add -l` prints it."""
        return f"SHA256:{base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')}"


@dataclass(frozen=True, kw_only=True)
class AgentKey:
    """The one key of the agent at `path` with that fingerprint, `SHA256:…`, or comment."""

    path: str
    wanted: str

    @property
    def name(self) -> str:
        return f"SSH agent key {self.wanted}"

    def public(self) -> bytes:
        return _spki(self._identity(), self.name)

    @contextmanager
    def unlocked(self, _ask: Asking) -> Iterator[MemberKey]:
        yield _Usable(path=self.path, name=self.name, identity=self._identity())

    def _identity(self) -> _Identity:
        known = _identities(self.path)
        usable = [one for one in known if one.algorithm in _ALGORITHMS]
        found = {one.blob: one for one in usable if self.wanted in (one.fingerprint, one.comment)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            prints = ", ".join(one.fingerprint for one in found.values())
            raise ConfigurationError(
                f"{self.name}: the agent has {len(found)} such keys", f"name one by its fingerprint: {prints}"
            )
        there = ", ".join(f"{one.fingerprint} ({one.comment})" for one in usable) or "none that can decide"
        hint = ("keys on security keys and RSA keys do not decide",) if len(usable) < len(known) else ()
        raise ConfigurationError(f"{self.name}: the agent does not have it", f"it has: {there}", *hint)


@dataclass(frozen=True, kw_only=True)
class _Usable:
    path: str
    name: str
    identity: _Identity

    @property
    def spki(self) -> bytes:
        return _spki(self.identity, self.name)

    def sign(self, message: bytes) -> bytes:
        content = _string(self.identity.blob) + _string(message) + bytes(4)
        answer = _ask(self.path, _SIGN_REQUEST, content, expected=_SIGN_RESPONSE, seconds=SIGN_SECONDS)
        if answer is None:
            raise OutsideError(f"{self.name}: the agent refused to sign", "it may be locked, or you said no to it")
        try:
            return _signature(answer, self.identity.algorithm)
        except ValueError as error:
            raise _strange(self.path, error) from None


def agent_path() -> str:
    """The socket of this process's agent. Raises ConfigurationError."""
    path = os.environ.get(AGENT_VARIABLE)
    if not path:
        raise ConfigurationError(
            f"no SSH agent: {AGENT_VARIABLE} is not set", "start one: eval $(ssh-agent); ssh-add KEY"
        )
    return path


def _identities(path: str) -> tuple[_Identity, ...]:
    answer = _ask(path, _REQUEST_IDENTITIES, b"", expected=_IDENTITIES_ANSWER, seconds=LIST_SECONDS)
    if answer is None:
        raise OutsideError(f"the SSH agent at {path} does not list its keys", "it may be locked: ssh-add -X")
    reader = _Reader(answer)
    try:
        found = tuple(
            _Identity(blob=reader.string(), comment=reader.string().decode(errors="replace"))
            for _ in range(reader.number())
        )
        for one in found:
            _ = one.algorithm
    except ValueError as error:
        raise _strange(path, error) from None
    return found


def _spki(identity: _Identity, name: str) -> bytes:
    line = identity.algorithm + b" " + base64.b64encode(identity.blob)
    try:
        return spki_of(load_ssh_public_key(line), name)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{name}: its public key cannot be read") from None


def _ask(path: str, kind: int, content: bytes, *, expected: int, seconds: float) -> bytes | None:
    """The content of the answer; None if the agent says it failed. Raises ConfigurationError, OutsideError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(path)
        except OSError as error:
            raise ConfigurationError(f"no SSH agent answers at {path}: {error.strerror or error}") from error
        try:
            connection.sendall(_string(bytes((kind,)) + content))
            with connection.makefile("rb") as stream:
                answer = _read_answer(stream)
        except TimeoutError:
            raise OutsideError(f"the SSH agent at {path} did not answer within {seconds:.0f} s") from None
        except OSError as error:
            raise OutsideError(f"the SSH agent at {path} broke off: {error.strerror or error}") from error
        except ValueError as error:
            raise _strange(path, error) from None
    return answer[1:] if answer[0] == expected else None


def _read_answer(stream: BufferedReader) -> bytes:
    size = int.from_bytes(_exactly(stream.read(4), 4), "big")
    if not 0 < size <= MAX_ANSWER_BYTES:
        raise ValueError(f"it answers with {size} bytes, expected 1 to {MAX_ANSWER_BYTES}")
    return _exactly(stream.read(size), size)


def _strange(path: str, error: ValueError) -> OutsideError:
    return OutsideError(f"what answers at {path} is no SSH agent: {error}")


def _signature(answer: bytes, expected: bytes) -> bytes:
    reader = _Reader(_Reader(answer).string())
    algorithm, signature = reader.string(), reader.string()
    if algorithm != expected:
        raise ValueError(f"it signed with {algorithm.decode(errors='replace')}, expected {expected.decode()}")
    if algorithm == b"ssh-ed25519":
        return signature
    reader = _Reader(signature)
    return encode_dss_signature(int.from_bytes(reader.string(), "big"), int.from_bytes(reader.string(), "big"))


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"it ends after {len(data)} bytes, expected {size}")
    return data


class _Reader:
    """Reads numbers and strings one after the other. Raises ValueError where the data ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def _take(self, size: int) -> bytes:
        taken = _exactly(self._data[self._at : self._at + size], size)
        self._at += size
        return taken
