"""The log's head cosigned by a quorum of witnesses: k of n servers that others run, each of which saw one history only.

A witness remembers size and root of the newest checkpoint it cosigned, and cosigns only what goes on from there. Two
quorums of more than half have a witness in common, so an honest majority of them never cosigns two histories, nor an
older state after a newer one. To hold against f witnesses that lie, choose k so that 2k - n > f.

What counts is the cosignature, not the connection: a line may be repeated by whoever is on the way, but only for the
very same log. A log whose last leaf was never seen before cannot have been cosigned before, and each entry has a nonce.
TLS keeps strangers from denying service, no more.

Source: C2SP tlog-witness.md, tlog-checkpoint.md, tlog-cosignature.md; Ed25519 forms.
"""

from __future__ import annotations

import base64
import dataclasses
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import Enum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.audit import Frontier
from ostiary.audit.checkpoint import Checkpoint, parse_size, sign_checkpoint, verify_cosignature
from ostiary.audit.note import (
    MAX_NOTE_BYTES,
    KeyKind,
    UnverifiedNote,
    VerifierKey,
    check_name,
    log_key,
    parse_signatures,
)
from ostiary.audit.submission import Submission
from ostiary.errors import (
    ConfigurationError,
    EvidenceRefusedError,
    InputError,
    OutsideError,
    RollbackError,
    StoreError,
)
from ostiary.freshness.growth import Growth, Leaves
from ostiary.https import Answer, ask
from ostiary.store import Head

REQUEST_SECONDS = 10.0
"""For one request to one witness."""
MAX_REQUESTS = 3
"""To one witness for one head: the first may find it at another size, and another process may move it once more."""
MAX_WITNESSES = 32

_PATH = "/add-checkpoint"


@dataclass(frozen=True, kw_only=True)
class WitnessServer:
    """url: its submission prefix, `https://HOST[:PORT][/PATH]`. key: what it signs with. trust: whose TLS it has."""

    url: str
    key: VerifierKey
    trust: ssl.SSLContext = field(repr=False)


def check_quorum(quorum: int, witnesses: Sequence[VerifierKey]) -> None:
    """Raise ConfigurationError unless any two quorums of these witnesses have one in common.

    Otherwise one half could cosign one history, the other half another one, and both would count.
    """
    number = len(witnesses)
    if not number or number > MAX_WITNESSES:
        raise ConfigurationError(f"{number} witnesses, expected 1 to {MAX_WITNESSES}")
    for key in witnesses:
        if key.kind is not KeyKind.WITNESS:
            raise ConfigurationError(f"{key.name}: the verifier key of a log, expected that of a witness")
    if len({key.public_key for key in witnesses}) < number or len({key.name for key in witnesses}) < number:
        raise ConfigurationError("two witnesses have the same key or name, expected each to count once")
    if not number < 2 * quorum <= 2 * number:
        raise ConfigurationError(
            f"a quorum of {quorum} of {number} witnesses, expected {number // 2 + 1} to {number}: two quorums must "
            "have a witness in common, or each could cosign a history of its own"
        )


def witness_identity(origin: str, quorum: int, witnesses: Sequence[VerifierKey]) -> str:
    """What must not change behind the owner's back, in one line: with other witnesses quorums need not meet."""
    return f"witness {origin} {quorum} of {' '.join(sorted(map(str, witnesses)))}"


class _Verdict(Enum):
    COSIGNED = "has cosigned"
    AHEAD = "remembers a longer log"
    OTHER_HISTORY = "remembers another history"
    NONE = "gives no answer that counts"


@dataclass(frozen=True, kw_only=True)
class _Told:
    verdict: _Verdict
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What is to be cosigned."""

    checkpoint: Checkpoint
    note: UnverifiedNote
    growth: Growth


class _Member:
    """One witness, asked by one thread at a time. size: what it cosigned last, as far as we know."""

    def __init__(self, server: WitnessServer, seconds: float) -> None:
        self.server = server
        self.name = server.key.name
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="ostiary-witness")
        self.size: int | None = None
        self.closing = False
        self._seconds = seconds

    def cosign(self, target: _Target) -> _Told:
        """What the witness says to `target`. Raises StoreError for trouble with our own log only."""
        size = target.checkpoint.size
        # At a start most witnesses are where we are; one that is not says where.
        old = size if self.size is None else self.size
        for _ in range(MAX_REQUESTS):
            if old > size:
                return _Told(verdict=_Verdict.AHEAD, detail=f"of {old} leaves")
            if self.closing:
                break
            submission = Submission(old_size=old, proof=target.growth.proof_from(old), note=target.note)
            try:
                answer = self._ask(submission)
                if answer.status == 409:
                    found = _parse_size(answer)
                    if found == old == size:
                        return _Told(verdict=_Verdict.OTHER_HISTORY, detail=f"of {size} leaves")
                    self.size = old = found
                    continue
                if answer.status == 422:
                    return _Told(verdict=_Verdict.OTHER_HISTORY, detail=f"of {old} leaves")
                if answer.status != 200:
                    return _Told(verdict=_Verdict.NONE, detail=_status(answer))
                _verify(target.note, answer, self.server.key)
            except (OutsideError, EvidenceRefusedError, InputError) as error:
                return _Told(verdict=_Verdict.NONE, detail=str(error))
            self.size = size
            return _Told(verdict=_Verdict.COSIGNED)
        return _Told(verdict=_Verdict.NONE, detail=f"names another size each time, the last time {old}")

    def _ask(self, submission: Submission) -> Answer:
        return ask(
            self.server.url.rstrip("/") + _PATH,
            trust=self.server.trust,
            method="POST",
            headers={"Content-Type": "text/plain; charset=utf-8"},
            body=submission.encode(),
            seconds=self._seconds,
            max_bytes=MAX_NOTE_BYTES,
        )

    def close(self) -> None:
        self.closing = True
        self.executor.shutdown(cancel_futures=True)


class WitnessAnchor:
    """An `Anchor` that a quorum of witnesses keeps. origin: the log's name with them; key: what its checkpoints are
    signed with (`derive_log_key`); seconds: for one request.

    Guarantees of `settle`: `quorum` witnesses cosigned size and root of the head's log, after whatever they cosigned
    before, and every line was verified. Does not guarantee anything about `seq`, `digest` or the records by
    itself: they are bound because no two commits have the same leaf (`audit.entry`).
    Remembers nothing itself: what witnesses cosigned is asked for after each start.
    Raises ConfigurationError for an origin or quorum that cannot be.
    """

    def __init__(
        self,
        *,
        origin: str,
        key: Ed25519PrivateKey,
        witnesses: Sequence[WitnessServer],
        quorum: int,
        seconds: float = REQUEST_SECONDS,
    ) -> None:
        check_quorum(quorum, [witness.key for witness in witnesses])
        try:
            check_name(origin)
        except InputError as error:
            raise ConfigurationError(f"the origin {origin[:80]!r} cannot name a log", *error.chain) from error
        self.origin = origin
        self.quorum = quorum
        self._key = key
        self._members = [_Member(witness, seconds) for witness in witnesses]
        self._patience = 2 * MAX_REQUESTS * seconds
        self._trees: dict[int, Frontier] = {}
        self._settled: tuple[int, bytes] | None = None
        self._remembered: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.quorum} of {len(self._members)} witnesses of the log {self.origin}"

    @property
    def warning(self) -> str:
        if len(self._members) > 1:
            return ""
        return (
            f"the history of this store is watched by one witness alone, {self._members[0].name}: whoever runs it can "
            "help to turn the store back"
        )

    @property
    def verifier_key(self) -> VerifierKey:
        """What witnesses have to be told to cosign this log."""
        return log_key(self.origin, self._key)

    def settle(self, head: Head, leaves: Leaves) -> None:
        """As `Anchor.settle`; an epoch, which has no leaf, is what the witnesses remember already."""
        if self._settled == (head.log_size, head.log_root):
            return
        checkpoint = Checkpoint(origin=self.origin, size=head.log_size, root=head.log_root)
        note = sign_checkpoint(checkpoint, self._key)
        told = self._ask_all(_Target(checkpoint=checkpoint, note=note, growth=Growth(head, leaves, self._trees)))
        if _count(told, _Verdict.COSIGNED) < self.quorum:
            raise self._refusal(head, told)
        self._settled = head.log_size, head.log_root
        # Of trees, those that a witness which lags behind will need.
        wanted = {head.log_size, *(member.size for member in self._members)}
        for size in [size for size in self._trees if size not in wanted]:
            del self._trees[size]

    def remembered(self) -> tuple[str, ...]:
        """What the witnesses held against the head of the last `settle`: a line for each that did. Empty if none."""
        return self._remembered

    def close(self) -> None:
        """Ends within `seconds`, also while a witness is silent."""
        for member in self._members:
            member.closing = True
        for member in self._members:
            member.close()

    def _ask_all(self, target: _Target) -> dict[str, _Told]:
        """What the witnesses say, as far as it takes to know whether there is a quorum."""
        waiting: dict[Future[_Told], _Member] = {
            member.executor.submit(member.cosign, target): member for member in self._members
        }
        told: dict[str, _Told] = {}
        deadline = time.monotonic() + self._patience
        try:
            while waiting and _count(told, _Verdict.COSIGNED) < self.quorum:
                done, _ = wait(waiting, timeout=max(0.0, deadline - time.monotonic()), return_when=FIRST_COMPLETED)
                if not done:
                    break
                for future in done:
                    told[waiting.pop(future).name] = future.result()
        finally:
            # One that is asked right now goes on in its own thread; a question that still waits for it is void.
            for future in waiting:
                future.cancel()
        for member in waiting.values():
            told[member.name] = _Told(verdict=_Verdict.NONE, detail="is still busy with a question of before")
        return told

    def _refusal(self, head: Head, told: dict[str, _Told]) -> StoreError:
        against = {name: one for name, one in told.items() if one.verdict in (_Verdict.AHEAD, _Verdict.OTHER_HISTORY)}
        causes = [f"{name} {one.verdict.value}: {one.detail}" for name, one in sorted(told.items()) if one.detail]
        self._remembered = tuple(f"{name} {one.verdict.value} {one.detail}" for name, one in sorted(against.items()))
        number = len(self._members)
        found = f"{head.log_size} leaves with the root {base64.b64encode(head.log_root).decode()}"
        if number - len(against) < self.quorum:
            return RollbackError(
                f"{self.place}: expected a log that goes on from what they remember, found {found}: this database was "
                "turned back, or goes on a history of its own; put the newest one back, or, if it is lost, have the "
                "owner accept that with `ostiary store accept-rollback`",
                *causes,
            )
        return StoreError(
            f"{self.place}: {_count(told, _Verdict.COSIGNED)} cosigned {found}, {self.quorum} are needed: see to the "
            f"others, which must know the log as {self.verifier_key}",
            *causes,
        )


def _count(told: dict[str, _Told], verdict: _Verdict) -> int:
    return sum(one.verdict is verdict for one in told.values())


def _verify(note: UnverifiedNote, answer: Answer, key: VerifierKey) -> None:
    lines = parse_signatures(answer.body.decode("utf-8", "replace"))
    verify_cosignature(dataclasses.replace(note, signatures=lines), key)


def _parse_size(answer: Answer) -> int:
    return parse_size(answer.body.decode("ascii", "replace").removesuffix("\n"))


def _status(answer: Answer) -> str:
    meaning = {403: "does not trust this log's key", 404: "was not told about this log"}.get(answer.status, "")
    return f"answers {answer.status}" + (f", it {meaning}" if meaning else "")
