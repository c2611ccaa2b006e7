"""Whether a witness may cosign what a log sends it. Pure.

Source: C2SP tlog-witness.md, add-checkpoint. Its checks, in its order:

1. the origin is one that the witness was told about;
2. the checkpoint bears the signature of a key trusted for that origin, and no failing one of such a key;
3. the old size is not over the size;
4. the old size is that of the checkpoint cosigned last, 0 if there is none;
5. the proof leads from the root cosigned last to the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ostiary.audit.checkpoint import Checkpoint, parse_checkpoint
from ostiary.audit.consistency import verify_consistency
from ostiary.audit.note import KeyKind, VerifierKey, verify_note
from ostiary.audit.submission import Submission
from ostiary.audit.tree import EMPTY_ROOT
from ostiary.errors import (
    ConfigurationError,
    EvidenceRefusedError,
    InconsistentLogError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OtherSizeError,
)

Logs = Mapping[str, tuple[VerifierKey, ...]]
"""The keys that each origin may sign with."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a witness keeps of the newest checkpoint of a log. root: 32 bytes."""

    size: int = 0
    root: bytes = EMPTY_ROOT


def trusted_logs(keys: Sequence[VerifierKey]) -> Logs:
    """The logs of the given keys; a key's name is its log's origin. Raises ConfigurationError.

    One public key under two names is refused. A log that its owner set back on purpose goes on under another name: then
    this name takes the other's place, or whoever has the database of before could go on with that too.
    """
    logs: dict[str, tuple[VerifierKey, ...]] = {}
    names: dict[bytes, str] = {}
    for key in keys:
        if key.kind is not KeyKind.LOG:
            raise ConfigurationError(f"{key.name}: the verifier key of a witness, expected that of a log")
        other = names.setdefault(key.public_key, key.name)
        if other != key.name:
            raise ConfigurationError(
                f"{key.name} and {other} have the same key: a log goes on under one name only; leave out the older one"
            )
        if key not in logs.get(key.name, ()):
            logs[key.name] = (*logs.get(key.name, ()), key)
    return logs


def authenticate(submission: Submission, logs: Logs) -> Checkpoint:
    """The checkpoint of a submission, signed by its log: checks 1, 2 and 3.

    Raises InputError, NotFoundError or NotAuthorizedError.
    """
    checkpoint = parse_checkpoint(submission.note.text)
    keys = logs.get(checkpoint.origin)
    if keys is None:  # 1
        raise NotFoundError("this witness was not told about a log of this origin; ask whoever runs it to add its key")
    try:
        verify_note(submission.note, keys)  # 2
    except EvidenceRefusedError as error:
        raise NotAuthorizedError("the checkpoint is not signed as its origin's must be here", *error.chain) from error
    if submission.old_size > checkpoint.size:  # 3
        raise InputError(f"old size {submission.old_size}, expected at most the checkpoint's, {checkpoint.size}")
    return checkpoint


def judge(submission: Submission, checkpoint: Checkpoint, seen: Seen) -> Seen:
    """What the witness keeps from now on, if it may cosign `checkpoint`: checks 4 and 5.

    Guarantees on return that the log of `seen` is the beginning of this one. The caller has authenticated the
    checkpoint, makes the result durable in the same transaction that `seen` was read in, and signs afterwards only.
    Raises OtherSizeError with the size seen last, or InconsistentLogError.
    """
    if submission.old_size != seen.size:  # 4
        raise OtherSizeError(
            f"old size {submission.old_size}, but this witness cosigned size {seen.size} last", size=seen.size
        )
    try:
        verify_consistency(  # 5
            old_size=seen.size,
            old_root=seen.root,
            new_size=checkpoint.size,
            new_root=checkpoint.root,
            proof=submission.proof,
        )
    except EvidenceRefusedError as error:
        raise InconsistentLogError("the checkpoint does not go on from the one cosigned last", *error.chain) from error
    return Seen(size=checkpoint.size, root=checkpoint.root)
