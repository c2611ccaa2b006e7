"""The witness at work: a request comes in, its memory moves, a cosignature goes out. In this order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.audit.checkpoint import cosign, witness_key
from ostiary.audit.note import UnverifiedNote, VerifierKey, lines_of
from ostiary.audit.submission import parse_submission
from ostiary.errors import NotFoundError
from ostiary.witness.judge import Logs, Seen, authenticate, judge
from ostiary.witness.memory import Kept, Memory


class Witness:
    """Cosigns checkpoints of `logs`. Safe to use from any thread. now: aware UTC time."""

    def __init__(
        self, *, name: str, key: Ed25519PrivateKey, logs: Logs, memory: Memory, now: Callable[[], datetime]
    ) -> None:
        self.name = name
        self._key = key
        self._logs = logs
        self._memory = memory
        self._now = now
        self._origins = {hashlib.sha256(origin.encode()).hexdigest(): origin for origin in logs}

    @property
    def verifier_key(self) -> VerifierKey:
        """What logs are told to verify with."""
        return witness_key(self.name, self._key)

    @property
    def logs(self) -> Logs:
        return self._logs

    def add_checkpoint(self, body: bytes) -> bytes:
        """The cosignature line for the checkpoint in a request's body.

        Guarantees that it is durable before this returns, so that no smaller or other log of that origin is ever
        cosigned again, whatever happens to this process.
        Raises InputError (400), NotFoundError (404: origin unknown), NotAuthorizedError (403), OtherSizeError (409),
        InconsistentLogError (422), StoreError (the outcome is open).
        """
        submission = parse_submission(body)
        checkpoint = authenticate(submission, self._logs)

        def advance(seen: Seen) -> Kept:
            newest = judge(submission, checkpoint, seen)
            line = cosign(submission.note.text, self.name, self._key, time=int(self._now().timestamp()))
            return Kept(seen=newest, note=self._signed(submission.note, checkpoint.origin), cosignature=str(line))

        return self._memory.update(checkpoint.origin, advance).cosignature.encode()

    def checkpoint(self, origin_hash: str) -> bytes:
        """The checkpoint cosigned last, with the log's signature and ours. origin_hash: SHA-256 in lower-case hex.

        Raises NotFoundError.
        """
        origin = self._origins.get(origin_hash)
        kept = None if origin is None else self._memory.read(origin)
        if kept is None:
            raise NotFoundError("this witness has cosigned no log with this hash of its origin")
        return (kept.note + kept.cosignature).encode()

    def _signed(self, note: UnverifiedNote, origin: str) -> str:
        """The note with the lines of its log only."""
        lines = tuple(line for key in self._logs[origin] for line in lines_of(note, key))
        return str(dataclasses.replace(note, signatures=lines))

    def close(self) -> None:
        self._memory.close()
