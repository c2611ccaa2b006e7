"""What a log sends to a witness: `POST …/add-checkpoint`. Pure.

    old SIZE                    of the checkpoint that the witness cosigned last, 0 if none
    base64 hash                 0 to 63 lines: the consistency proof from there
    an empty line
    the checkpoint, a signed note

Source: C2SP tlog-witness.md.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from ostiary.audit.checkpoint import parse_size
from ostiary.audit.consistency import MAX_PROOF_HASHES
from ostiary.audit.note import MAX_NOTE_BYTES, UnverifiedNote, decode_base64, parse_note
from ostiary.audit.tree import HASH_BYTES
from ostiary.errors import InputError, TooLargeError

MAX_SUBMISSION_BYTES = MAX_NOTE_BYTES + 4096
SIZE_TYPE = "text/x.tlog.size"
"""Content type of an answer 409, whose body is the size that the witness cosigned last."""

_PREFIX = "old "


@dataclass(frozen=True, kw_only=True)
class Submission:
    """old_size: what the log believes the witness saw last. proof: hashes, 32 bytes each. note: not verified."""

    old_size: int
    proof: tuple[bytes, ...]
    note: UnverifiedNote

    def encode(self) -> bytes:
        lines = "".join(f"{base64.b64encode(node).decode()}\n" for node in self.proof)
        return f"{_PREFIX}{self.old_size}\n{lines}\n{self.note}".encode()


def parse_submission(data: bytes) -> Submission:
    """Read a request's body. Authenticates nothing.

    Raises InputError, and nothing else: over MAX_SUBMISSION_BYTES, no line `old`, a size or hash of another form, more
    than MAX_PROOF_HASHES, no note after the empty line.
    """
    if len(data) > MAX_SUBMISSION_BYTES:
        raise TooLargeError(f"a submission of {len(data)} bytes, at most {MAX_SUBMISSION_BYTES} are read")
    head, gap, note = data.partition(b"\n\n")
    try:
        old, *hashes = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise InputError("a submission that does not begin with ASCII text") from None
    if not gap or not old.startswith(_PREFIX):
        raise InputError("a submission without a line `old SIZE` and an empty line before the checkpoint")
    if len(hashes) > MAX_PROOF_HASHES:
        raise TooLargeError(f"a proof of {len(hashes)} hashes, at most {MAX_PROOF_HASHES} are needed")
    return Submission(
        old_size=parse_size(old.removeprefix(_PREFIX)),
        proof=tuple(_hash(number, line) for number, line in enumerate(hashes, 1)),
        note=parse_note(note),
    )


def _hash(number: int, line: str) -> bytes:
    node = decode_base64(line, f"hash {number} of the proof")
    if len(node) != HASH_BYTES:
        raise InputError(f"hash {number} of the proof has {len(node)} bytes, expected {HASH_BYTES}")
    return node
