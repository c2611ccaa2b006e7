"""Places where people keep private keys, the real ones: an SSH agent, and PKCS#11 tokens of SoftHSM."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

HANG_SECONDS = 60
PIN = "94017"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def p256_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def p384_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def p521_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP521R1())


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def pem(key: PrivateKey, passphrase: str | None = None, *, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, form, protection).decode()


@dataclass(frozen=True, kw_only=True)
class SshAgent:
    """A running ssh-agent. path: its socket."""

    path: str

    def add(self, directory: Path, key: PrivateKey, comment: str, *options: str) -> None:
        """Give it a key, by way of a file that is gone again afterwards."""
        file = directory / "key-for-agent"
        file.touch(mode=0o600)
        file.write_text(pem(key, form=PrivateFormat.OpenSSH))
        # ssh-add takes the comment from the public key beside the private one.
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        public = directory / "key-for-agent.pub"
        public.write_text(f"{line} {comment}\n")
        self.run("ssh-keygen", "-c", "-C", comment, "-f", str(file), "-P", "")
        self.run("ssh-add", *options, str(file))
        file.unlink()
        public.unlink()

    def run(self, *words: str, stdin: str = "") -> str:
        """stdout of an OpenSSH program that talks to this agent."""
        environment = {**os.environ, "SSH_AUTH_SOCK": self.path}
        return subprocess.run(
            words, env=environment, input=stdin, check=True, capture_output=True, text=True, timeout=HANG_SECONDS
        ).stdout

    def fingerprints(self) -> dict[str, str]:
        """comment → fingerprint, as `ssh-add -l` says."""
        lines = (line.split() for line in self.run("ssh-add", "-l").splitlines())
        return {words[2]: words[1] for words in lines}


@contextlib.contextmanager
def running_agent() -> Iterator[SshAgent]:
    """An ssh-agent without keys, in the foreground, until the block ends."""
    # Names of sockets are short; those that pytest makes may be too long.
    with tempfile.TemporaryDirectory(prefix="agent-") as directory:
        path = f"{directory}/socket"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            # It prints its variables when the socket is there.
            assert path.encode() in process.stdout.readline()
            yield SshAgent(path=path)
        finally:
            process.terminate()
            process.wait(HANG_SECONDS)
            assert process.stdout is not None
            process.stdout.close()


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens `board` (with keys) and `spare` (with one of the same name) of SoftHSM. keys: of `board`, by label."""

    keys: dict[str, PrivateKey]
    directory: tempfile.TemporaryDirectory[str]

    def uri(self, label: str, *, query: str = "") -> str:
        return f"pkcs11:token=board;object={label}?module-path={MODULE}{query}"


@functools.cache
def tokens() -> Tokens:
    """The same for the whole process: the library reads its configuration once."""
    directory = tempfile.TemporaryDirectory(prefix="softhsm-")
    home = Path(directory.name)
    (home / "tokens").mkdir()
    (home / "softhsm2.conf").write_text(f"directories.tokendir = {home}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(home / "softhsm2.conf")
    keys: dict[str, PrivateKey] = {
        "alice": ed25519_key(),
        "bob": p384_key(),
        "carol": p256_key(),
        "odd": p521_key(),
        "old": rsa_key(),
        "bare": p256_key(),
    }
    for label in ("board", "spare"):
        _util("--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN)
    for number, (label, key) in enumerate([*keys.items(), ("twin", p256_key()), ("twin", p256_key())], start=1):
        _import(home, key, "board", label, number)
    _import(home, ed25519_key(), "spare", "alice", 1)
    return Tokens(keys=keys, directory=directory)


def _import(home: Path, key: PrivateKey, token: str, label: str, number: int) -> None:
    file = home / "key.pem"
    file.write_text(pem(key))
    identifier = ("--label", label, "--id", f"{number:02x}")
    _util("--import", str(file), "--token", token, *identifier, "--pin", PIN)
    file.unlink()


def _util(*words: str) -> None:
    subprocess.run(["softhsm2-util", *words], check=True, capture_output=True, timeout=HANG_SECONDS)
