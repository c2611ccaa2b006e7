"""Witnesses as processes of their own on loopback, and logs to be witnessed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulators.outside import LOOPBACK, make_certificate
from tests.simulators.processes import ostiary, start, stop

from ostiary.audit import Frontier
from ostiary.audit.checkpoint import Checkpoint, sign_checkpoint
from ostiary.audit.consistency import leaf_hashes, prove_consistency
from ostiary.audit.note import VerifierKey, log_key, parse_verifier_key
from ostiary.audit.submission import Submission
from ostiary.https import Answer, ask, trusting

KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"log").digest())
ORIGIN = "cas.example/log"
LOG = log_key(ORIGIN, KEY)


@dataclass
class Log:
    """A log in memory, which can say whatever it likes to a witness."""

    origin: str = ORIGIN
    leaves: list[bytes] = field(default_factory=list)

    def tree(self, size: int | None = None) -> Frontier:
        tree = Frontier()
        for leaf in self.leaves[:size]:
            tree = tree.append(leaf)
        return tree

    def read(self, start: int) -> Iterator[bytes]:
        """As `Anchor.settle` gets it."""
        return iter(self.leaves[start:])

    def submission(self, old: int, size: int | None = None) -> Submission:
        size = len(self.leaves) if size is None else size
        checkpoint = Checkpoint(origin=self.origin, size=size, root=self.tree(size).root)
        proof = prove_consistency(self.tree(old), leaf_hashes(self.leaves[old:size])) if old <= size else ()
        return Submission(old_size=old, proof=proof, note=sign_checkpoint(checkpoint, KEY))


class WitnessProcess:
    """`ostiary witness serve` with a certificate of its own; it can be killed and started again."""

    def __init__(self, directory: Path, name: str, *logs: VerifierKey) -> None:
        self.name = name
        self.directory = directory
        self._home = directory / name
        self._log = directory / f"{name}.log"
        self.key = parse_verifier_key(ostiary("witness", "init", "--name", name, "--dir", str(self._home)))
        key, self.certificate = make_certificate(LOOPBACK)
        (directory / f"{name}.key").write_text(key)
        (directory / f"{name}.pem").write_text(self.certificate)
        self._tls = ("--tls-key", str(directory / f"{name}.key"), "--tls-certificate", str(directory / f"{name}.pem"))
        self._logs = [word for log in logs for word in ("--log", str(log))]
        self._address = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"https://{self._address}"

    def start(self) -> None:
        options = ("--dir", str(self._home), "--listen", self._address)
        self._process, ready = start("witness", "serve", *options, *self._tls, *self._logs, log=self._log)
        self._address = ready["address"]
        assert ready["key"] == str(self.key)

    def retell(self, *logs: VerifierKey) -> None:
        """Start it anew for other logs."""
        self.close()
        self._logs = [word for log in logs for word in ("--log", str(log))]
        self.start()

    def kill(self) -> None:
        """End it as a loss of power would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            assert stop(self._process) == 0
            self._process = None

    def post(self, body: bytes, path: str = "/add-checkpoint") -> Answer:
        return ask(f"{self.url}{path}", trust=trusting(self.certificate), method="POST", body=body)

    def get(self, path: str) -> Answer:
        return ask(f"{self.url}{path}", trust=trusting(self.certificate))
