"""Checkpoints of logs, cosignatures of witnesses, and what logs send to witnesses."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.audit import Frontier
from ostiary.audit.checkpoint import (
    Checkpoint,
    cosign,
    parse_checkpoint,
    parse_size,
    sign_checkpoint,
    verify_cosignature,
    witness_key,
)
from ostiary.audit.consistency import leaf_hashes, prove_consistency
from ostiary.audit.note import (
    SignatureLine,
    UnverifiedNote,
    log_key,
    parse_note,
    parse_signatures,
    parse_verifier_key,
    verify_note,
)
from ostiary.audit.submission import MAX_SUBMISSION_BYTES, Submission, parse_submission
from ostiary.errors import EvidenceRefusedError, InputError

VECTORS = Path(__file__).parents[2] / "vectors" / "c2sp"
LOG = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"log").digest())
WITNESS = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"wit").digest())
TIME = 1760000000
ROOT = "lPvQ3YNvUDAWkubQ6t5yjuGexSv/8WBu2AfIV11aqhk="


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def tree(size: int) -> Frontier:
    log = Frontier()
    for number in range(size):
        log = log.append(b"entry %d" % number)
    return log


def cosigned(text: str, line: SignatureLine) -> UnverifiedNote:
    return UnverifiedNote(text=text, signatures=(line,))


def test_the_request_of_the_vector_is_made_byte_for_byte() -> None:
    """From the leaves and the seed alone: tree, proof, checkpoint, signature, request."""
    now = tree(3)
    checkpoint = Checkpoint(origin="cas.example/log", size=3, root=now.root)
    proof = prove_consistency(tree(1), leaf_hashes([b"entry 1", b"entry 2"]))
    made = Submission(old_size=1, proof=proof, note=sign_checkpoint(checkpoint, LOG))
    assert made.encode() == vector("request.txt")
    assert parse_submission(vector("request.txt")) == made


def test_the_answer_of_the_vector_is_made_byte_for_byte_and_verifies() -> None:
    note = parse_submission(vector("request.txt")).note
    assert str(cosign(note.text, "witness.example", WITNESS, time=TIME)).encode() == vector("answer.txt")
    key = parse_verifier_key(vector("witness.vkey").decode())
    assert key == witness_key("witness.example", WITNESS)
    answered = dataclasses.replace(note, signatures=parse_signatures(vector("answer.txt").decode()))
    assert verify_cosignature(answered, key) == TIME


def test_the_checkpoint_of_the_vector_is_the_logs() -> None:
    note = parse_submission(vector("request.txt")).note
    assert verify_note(note, [parse_verifier_key(vector("log.vkey").decode())])
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == ("cas.example/log", 3, tree(3).root)
    assert checkpoint.text == note.text


def test_extension_lines_are_kept() -> None:
    text = f"log\n3\n{ROOT}\nmore\nand more\n"
    assert parse_checkpoint(text).extensions == ("more", "and more")
    assert parse_checkpoint(text).text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "without the three lines"),
        (f"log\n3\n{ROOT}", "without the three lines"),
        (f"log\n\n3\n{ROOT}\n", "without the three lines"),
        (f"\n3\n{ROOT}\n", "without the three lines"),
        (f"a b\n3\n{ROOT}\n", "white space"),
        (f"log\n03\n{ROOT}\n", "the size '03'"),
        (f"log\n-1\n{ROOT}\n", "the size '-1'"),
        (f"log\n٣\n{ROOT}\n", "the size '٣'"),
        (f"log\n{2**63}\n{ROOT}\n", "expected a decimal number from 0 to 9223372036854775807"),
        (f"log\n{'9' * 5000}\n{ROOT}\n", "the size '9{40}'"),
        ("log\n3\nAAAA\n", "has 3 bytes, expected 32"),
        (f"log\n3\n{ROOT[:-1]}\n", "not in standard base64"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_checkpoint(text)


def test_sizes_are_written_in_one_way() -> None:
    assert [parse_size(text) for text in ("0", "7", str(2**63 - 1))] == [0, 7, 2**63 - 1]
    for text in ("", "+1", "1_0", " 1", "00"):
        with pytest.raises(InputError, match="without leading zeros"):
            parse_size(text)


def test_a_cosignature_of_another_text_or_key_or_form_does_not_verify() -> None:
    key = witness_key("w", WITNESS)
    line = cosign("text\n", "w", WITNESS, time=TIME)
    assert verify_cosignature(cosigned("text\n", line), key) == TIME
    with pytest.raises(EvidenceRefusedError, match="a signature in the name of w does not verify"):
        verify_cosignature(cosigned("other\n", line), key)
    with pytest.raises(EvidenceRefusedError, match="there is no cosignature of w"):
        verify_cosignature(cosigned("text\n", line), witness_key("w", LOG))
    with pytest.raises(EvidenceRefusedError, match="there is no cosignature of v"):
        verify_cosignature(cosigned("text\n", line), witness_key("v", WITNESS))
    later = dataclasses.replace(line, data=(TIME + 1).to_bytes(8, "big") + line.data[8:])
    with pytest.raises(EvidenceRefusedError, match="does not verify"):
        verify_cosignature(cosigned("text\n", later), key)
    short = dataclasses.replace(line, data=line.data[:-1])
    with pytest.raises(EvidenceRefusedError, match="has 71 bytes and time 1760000000, expected 72 bytes"):
        verify_cosignature(cosigned("text\n", short), key)


def test_a_witness_never_signs_at_time_0() -> None:
    with pytest.raises(ValueError, match="after 1970"):
        cosign("text\n", "w", WITNESS, time=0)
    line = cosign("text\n", "w", WITNESS, time=TIME)
    timeless = dataclasses.replace(line, data=bytes(8) + line.data[8:])
    with pytest.raises(EvidenceRefusedError, match="time 0, expected"):
        verify_cosignature(cosigned("text\n", timeless), witness_key("w", WITNESS))


def test_the_key_of_a_log_cosigns_nothing() -> None:
    with pytest.raises(ValueError, match="log is the key of a log"):
        verify_cosignature(sign_checkpoint(Checkpoint(origin="log", size=0, root=Frontier().root), LOG),
                           log_key("log", LOG))  # fmt: skip


def test_a_submission_without_proof_is_read_as_written() -> None:
    note = parse_note(vector("note.txt"))
    made = Submission(old_size=0, proof=(), note=note)
    assert made.encode().startswith(b"old 0\n\nThis is")
    assert parse_submission(made.encode()) == made


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"old 1\n", b"", "without a line `old SIZE`"),
        (b"old 1\n", b"Old 1\n", "without a line `old SIZE`"),
        (b"old 1\n", b"old 01\n", "the size '01'"),
        (b"old 1\n", b"old 1 \n", "the size '1 '"),
        (b"old 1\n", b"old 1\nAAAA\n", "hash 1 of the proof has 3 bytes, expected 32"),
        (b"old 1\n", b"old 1\n%\n", "hash 1 of the proof is not in standard base64"),
        (b"old 1\n", b"old 1\n" + b"A" * 43 + b"=\n" + (b"A" * 43 + b"=\n") * 61, "a proof of 64 hashes, at most 63"),
        (b"old 1\n", "old 1\n—\n".encode(), "does not begin with ASCII"),
        (b"\n\ncas", b"\ncas", "without an empty line|not in standard base64"),
        (b"old 1\n", b"x" * MAX_SUBMISSION_BYTES, "bytes, at most 135168 are read"),
    ],
)
def test_what_is_no_submission_is_refused(old: bytes, new: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_submission(vector("request.txt").replace(old, new, 1))
