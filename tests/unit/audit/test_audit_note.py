"""Signed notes: what is read, what is believed, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.audit.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    KeyKind,
    SignatureLine,
    UnverifiedNote,
    VerifierKey,
    log_key,
    parse_note,
    parse_signatures,
    parse_verifier_key,
    sign_note,
    verify_note,
)
from ostiary.errors import EvidenceRefusedError, InputError, TooLargeError

VECTORS = Path(__file__).parents[2] / "vectors" / "c2sp"
KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"log").digest())
OTHER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"other").digest())
LINE = "— a AAAAAAA=\n"


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def signed(text: str, *lines: SignatureLine) -> UnverifiedNote:
    return UnverifiedNote(text=text, signatures=lines)


def test_the_example_of_the_specification_verifies() -> None:
    key = parse_verifier_key(vector("note.vkey").decode())
    note = parse_note(vector("note.txt"))
    assert verify_note(note, [key]) == key
    assert note.text == "This is an example message.\n"
    assert str(note).encode() == vector("note.txt")


def test_a_signature_is_the_one_of_the_vector() -> None:
    note = parse_note(vector("request.txt").partition(b"\n\n")[2])
    assert sign_note(note.text, "cas.example/log", KEY) == note.signatures[0]
    assert str(log_key("cas.example/log", KEY)) == vector("log.vkey").decode().strip()


@pytest.mark.parametrize("name", ["note.vkey", "log.vkey", "witness.vkey"])
def test_a_verifier_key_is_written_as_it_was_read(name: str) -> None:
    text = vector(name).decode().strip()
    assert str(parse_verifier_key(text)) == text


def test_the_text_may_hold_empty_lines_and_ends_before_the_last_one() -> None:
    note = parse_note(("a\n\nb\n\n" + LINE).encode())
    assert note.text == "a\n\nb\n"


def test_16_signatures_are_read_and_unknown_keys_are_ignored() -> None:
    strangers = tuple(SignatureLine(name=f"k{number}", key_id=b"1234", data=b"x") for number in range(15))
    note = parse_note(str(signed("t\n", *strangers, sign_note("t\n", "log", KEY))).encode())
    assert verify_note(note, [log_key("log", KEY)]).name == "log"


def test_same_name_or_same_id_alone_is_another_key() -> None:
    line = sign_note("t\n", "log", KEY)
    renamed = SignatureLine(name="gol", key_id=line.key_id, data=bytes(64))
    other_id = SignatureLine(name="log", key_id=b"0000", data=bytes(64))
    assert verify_note(signed("t\n", renamed, other_id, line), [log_key("log", KEY)])
    with pytest.raises(EvidenceRefusedError, match="bears no signature of a key that is trusted"):
        verify_note(signed("t\n", renamed, other_id), [log_key("log", KEY)])


def test_a_failing_line_of_a_known_key_spoils_the_note() -> None:
    good, bad = sign_note("t\n", "log", KEY), sign_note("other\n", "log", KEY)
    with pytest.raises(EvidenceRefusedError, match="a signature in the name of log does not verify"):
        verify_note(signed("t\n", good, bad), [log_key("log", KEY)])


def test_no_keys_trust_nobody() -> None:
    with pytest.raises(EvidenceRefusedError, match="bears no signature"):
        verify_note(signed("t\n", sign_note("t\n", "log", KEY)), [])


def test_a_line_too_short_to_be_a_signature_does_not_verify() -> None:
    line = sign_note("t\n", "log", KEY)
    with pytest.raises(EvidenceRefusedError, match="does not verify"):
        verify_note(signed("t\n", SignatureLine(name="log", key_id=line.key_id, data=b"1")), [log_key("log", KEY)])


def test_the_key_of_a_witness_signs_no_log() -> None:
    key = VerifierKey(name="w", kind=KeyKind.WITNESS, public_key=KEY.public_key().public_bytes_raw())
    line = SignatureLine(name="w", key_id=key.key_id, data=bytes(72))
    with pytest.raises(ValueError, match="w is the key of a witness"):
        verify_note(signed("t\n", line), [key])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "without an empty line"),
        (b"text\n", "without an empty line"),
        (b"\xff\n\n" + LINE.encode(), "not UTF-8 at byte 0"),
        (b"a\tb\n\n" + LINE.encode(), "control characters"),
        (b"a\r\n\n" + LINE.encode(), "control characters"),
        (b"a\n\n" + LINE.encode()[:-1], "do not end in a newline"),
        (b"a\n\n- a AAAAAAA=\n", "signature line 1 does not begin with"),
        ("a\n\n— a+b AAAAAAA=\n".encode(), "the key name 'a\\+b'"),
        ("a\n\n— a\u00a0b AAAAAAA=\n".encode(), "white space"),
        ("a\n\n—  AAAAAAA=\n".encode(), "a key name of 0 characters"),
        ("a\n\n— a AAAAAA==\n".encode(), "signature line 1 has 4 bytes, expected a key id of 4 and more"),
        ("a\n\n— a AAAAAAB=\n".encode(), "signature line 1 is not in standard base64"),
        ("a\n\n— a AAAA-AA=\n".encode(), "signature line 1 is not in standard base64"),
        ("a\n\n— a AAAAAAA= b\n".encode(), "signature line 1 is not in standard base64"),
        (b"a\n\n" + LINE.encode() * (MAX_SIGNATURES + 1), "33 signatures, at most 32"),
        (b"a" * (MAX_NOTE_BYTES + 1), "a note of 131073 bytes, at most 131072"),
    ],
)
def test_what_is_no_note_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_note(data)


def test_no_signature_lines_are_refused() -> None:
    with pytest.raises(InputError, match="do not end in a newline"):
        parse_signatures("")
    with pytest.raises(InputError, match="does not begin with"):
        parse_signatures("\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a key name of 0 characters"),
        ("a b+00000000+AA==", "white space"),
        ("x" * 256 + "+00000000+AA==", "a key name of 256 characters"),
        ("a+00000000+!", "a verifier key is not in standard base64"),
        ("a+00000000+", "type none, expected 01"),
        ("a+00000000+BgAA", "type 06, expected 01 .* or 04"),
        ("a+00000000+AQAA", "has 2 bytes, expected 32"),
        (
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "expected 530d903a: it was not copied",
        ),
        ("example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "names the id '530d903a', expected"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_verifier_key(text)


def test_bounds_have_a_class_of_their_own() -> None:
    with pytest.raises(TooLargeError):
        parse_note(b"a" * (MAX_NOTE_BYTES + 1))
