"""Checkpoints: the head of a log as the text of a signed note, and what a witness adds to it. Pure.

    origin          the log's name, which is also that of its key
    size            leaves, decimal, no leading zero
    root            of the Merkle tree over them (RFC 6962), 32 bytes in base64
    …               extension lines, kept and not read

A witness signs, with the time, that it saw this checkpoint, and that it never saw another history of this log:

    cosignature/v1
    time UNIX SECONDS
    the checkpoint's text

Source: C2SP tlog-checkpoint.md, tlog-cosignature.md (Ed25519 form, type 0x04).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.audit.note import (
    SIGNATURE_BYTES,
    KeyKind,
    SignatureLine,
    UnverifiedNote,
    VerifierKey,
    check_name,
    decode_base64,
    lines_of,
    sign_note,
    verify_signature,
)
from ostiary.audit.tree import HASH_BYTES, MAX_LEAVES
from ostiary.errors import EvidenceRefusedError, InputError

_TIME_BYTES = 8
_MAX_DIGITS = len(str(MAX_LEAVES))


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """origin: the log's name. size: leaves. root: 32 bytes. extensions: lines without newline, none of them empty."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note's text."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text. Authenticates nothing.

    Raises InputError, and nothing else: fewer than three lines, an empty line, an origin that can name no key, a size
    that is not decimal or over MAX_LEAVES, a root that is not 32 bytes in base64.
    """
    lines = text.removesuffix("\n").split("\n")
    if not text.endswith("\n") or len(lines) < 3 or "" in lines:
        raise InputError("a checkpoint without the three lines origin, size and root")
    origin, size, root, *extensions = lines
    check_name(origin)
    decoded = decode_base64(root, "the root of a checkpoint")
    if len(decoded) != HASH_BYTES:
        raise InputError(f"the root of a checkpoint has {len(decoded)} bytes, expected {HASH_BYTES}")
    return Checkpoint(origin=origin, size=parse_size(size), root=decoded, extensions=tuple(extensions))


def parse_size(text: str) -> int:
    """A number of leaves: decimal ASCII digits without leading zero, at most MAX_LEAVES. Raises InputError."""
    if len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit() and str(int(text)) == text:
        size = int(text)
        if size <= MAX_LEAVES:
            return size
    raise InputError(f"the size {text[:40]!r}, expected a decimal number from 0 to {MAX_LEAVES} without leading zeros")


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> UnverifiedNote:
    """The checkpoint with the signature of its log."""
    line = sign_note(checkpoint.text, checkpoint.origin, key)
    return UnverifiedNote(text=checkpoint.text, signatures=(line,))


def witness_key(name: str, key: Ed25519PrivateKey) -> VerifierKey:
    """The public side of a witness's key."""
    return VerifierKey(name=name, kind=KeyKind.WITNESS, public_key=key.public_key().public_bytes_raw())


def cosign(text: str, name: str, key: Ed25519PrivateKey, *, time: int) -> SignatureLine:
    """A witness's line over the text of a checkpoint. time: Unix seconds, more than 0.

    Says nothing of whether the checkpoint may be cosigned: the caller made sure of that.
    """
    if time <= 0:
        raise ValueError(f"a cosignature at time {time}, expected one after 1970")
    stamp = time.to_bytes(_TIME_BYTES, "big")
    return SignatureLine(
        name=name, key_id=witness_key(name, key).key_id, data=stamp + key.sign(_cosigned(text, time).encode())
    )


def verify_cosignature(note: UnverifiedNote, key: VerifierKey) -> int:
    """When the witness with `key` says it cosigned, in Unix seconds.

    Guarantees that every line which claims to be of `key` verifies over the note's text, and that there is one. Does
    not guarantee that the time is true, or that the answer is newer than the question: anyone can repeat a line, so
    only a text that did not exist before proves that the witness saw it now.
    Raises EvidenceRefusedError otherwise.
    """
    if key.kind is not KeyKind.WITNESS:
        raise ValueError(f"{key.name} is the key of a log, expected one of a witness")
    times = [_verify_line(note.text, key, line) for line in lines_of(note, key)]
    if not times:
        raise EvidenceRefusedError(f"there is no cosignature of {key.name}")
    return max(times)


def _verify_line(text: str, key: VerifierKey, line: SignatureLine) -> int:
    time = int.from_bytes(line.data[:_TIME_BYTES], "big")
    if len(line.data) != _TIME_BYTES + SIGNATURE_BYTES or time == 0:
        raise EvidenceRefusedError(
            f"a cosignature of {key.name} has {len(line.data)} bytes and time {time}, expected "
            f"{_TIME_BYTES + SIGNATURE_BYTES} bytes and a time after 1970"
        )
    verify_signature(_cosigned(text, time).encode(), key, line.data[_TIME_BYTES:])
    return time


def _cosigned(text: str, time: int) -> str:
    return f"cosignature/v1\ntime {time}\n{text}"
