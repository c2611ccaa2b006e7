"""Signed notes: text with signatures of named keys, as logs and witnesses exchange it. Pure.

    text, which ends in a newline
    an empty line
    — KEY NAME base64(key id ‖ signature)          one line a signature

Source: C2SP signed-note.md. Of the signature types, Ed25519 (0x01) and the Ed25519 cosignature (0x04) are known here;
lines of others are kept as they are, and count for nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ostiary.errors import EvidenceRefusedError, InputError, TooLargeError

MAX_NOTE_BYTES = 128 * 1024
MAX_SIGNATURES = 32
"""Lines of one note; the standard asks for 16 at least."""
MAX_NAME_BYTES = 255
KEY_BYTES = 32
KEY_ID_BYTES = 4
SIGNATURE_BYTES = 64

_DASH = "—"


class KeyKind(Enum):
    """What a key signs; the value is its type byte. LOG: the text. WITNESS: the text and a time."""

    LOG = 0x01
    WITNESS = 0x04


@dataclass(frozen=True, kw_only=True)
class VerifierKey:
    """A public key with a name and a use. public_key: Ed25519, 32 bytes."""

    name: str
    kind: KeyKind
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """4 bytes that tell keys of one name apart; no identifier to trust."""
        return _key_id(self.name, self.kind, self.public_key)

    def __str__(self) -> str:
        """`NAME+HEX ID+base64(type ‖ public key)`, as people exchange it."""
        encoded = base64.b64encode(bytes([self.kind.value]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


@dataclass(frozen=True, kw_only=True)
class SignatureLine:
    """One line of a note. data: the signature without the key id."""

    name: str
    key_id: bytes
    data: bytes

    def __str__(self) -> str:
        return f"{_DASH} {self.name} {base64.b64encode(self.key_id + self.data).decode()}\n"


@dataclass(frozen=True, kw_only=True)
class UnverifiedNote:
    """A note as it came: nothing of it is authentic yet."""

    text: str
    signatures: tuple[SignatureLine, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(str(line) for line in self.signatures)


def parse_note(data: bytes) -> UnverifiedNote:
    """Split a note into text and signature lines. Authenticates nothing.

    Raises InputError, and nothing else for any input: over MAX_NOTE_BYTES or MAX_SIGNATURES, not UTF-8, control
    characters other than newline, no empty line before the signatures, none of them, or a line of another form.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise TooLargeError(f"a note of {len(data)} bytes, at most {MAX_NOTE_BYTES} are read")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"a note that is not UTF-8 at byte {error.start}") from None
    if any(character < " " and character != "\n" for character in whole):
        raise InputError("a note with control characters, expected text and newlines")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap:
        raise InputError("a note without an empty line, expected one between text and signatures")
    return UnverifiedNote(text=text + "\n", signatures=parse_signatures(lines))


def parse_signatures(lines: str) -> tuple[SignatureLine, ...]:
    """Signature lines, at least one. Authenticates nothing. Raises InputError as `parse_note`."""
    if not lines.endswith("\n"):
        raise InputError("signature lines that do not end in a newline")
    parts = lines[:-1].split("\n")
    if len(parts) > MAX_SIGNATURES:
        raise TooLargeError(f"a note with {len(parts)} signatures, at most {MAX_SIGNATURES} are read")
    return tuple(_parse_line(number, line) for number, line in enumerate(parts, 1))


def parse_verifier_key(text: str) -> VerifierKey:
    """A key from the form that `str` of it has.

    Raises InputError: another form or type, or an id that is not its own.
    """
    name, _, rest = text.strip().partition("+")
    id_text, _, encoded = rest.partition("+")
    check_name(name)
    key = decode_base64(encoded, "a verifier key")
    try:
        kind = KeyKind(key[0] if key else None)
    except ValueError:
        raise InputError(
            f"the verifier key of {name} has type {key[:1].hex() or 'none'}, expected 01 (Ed25519) or 04 (Ed25519 "
            "cosignature): the others are not verified by this program"
        ) from None
    if len(key) != 1 + KEY_BYTES:
        raise InputError(f"the verifier key of {name} has {len(key) - 1} bytes, expected {KEY_BYTES}")
    found = VerifierKey(name=name, kind=kind, public_key=key[1:])
    if id_text.lower() != found.key_id.hex():
        raise InputError(
            f"the verifier key of {name} names the id {id_text[:16]!r}, expected {found.key_id.hex()}: it was not "
            "copied whole"
        )
    return found


def check_name(name: str) -> None:
    """Raise InputError for what cannot be the name of a key: empty, too long, white space, `+`, control characters."""
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise InputError(f"a key name of {len(name)} characters, expected 1 to {MAX_NAME_BYTES} bytes")
    if "+" in name or not name.isprintable() or any(character.isspace() for character in name):
        raise InputError(f"the key name {name[:80]!r} has white space, + or control characters, expected none")


def log_key(name: str, key: Ed25519PrivateKey) -> VerifierKey:
    """The public side of a log's key."""
    return VerifierKey(name=name, kind=KeyKind.LOG, public_key=key.public_key().public_bytes_raw())


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> SignatureLine:
    """The line of a log's key (type 0x01) over `text`, which ends in a newline."""
    return SignatureLine(name=name, key_id=log_key(name, key).key_id, data=key.sign(text.encode()))


def lines_of(note: UnverifiedNote, key: VerifierKey) -> tuple[SignatureLine, ...]:
    """The lines that claim to be of `key`, by name and id; not verified."""
    return tuple(line for line in note.signatures if (line.name, line.key_id) == (key.name, key.key_id))


def verify_note(note: UnverifiedNote, keys: Sequence[VerifierKey]) -> VerifierKey:
    """The first of the log keys `keys` that signed the text.

    Guarantees that every line which claims to be of one of `keys` verifies, and that there is at least one.
    Raises EvidenceRefusedError otherwise; no keys means no.
    """
    signers = [key for key in keys for line in lines_of(note, key) if _verify_line(note.text, key, line)]
    if not signers:
        raise EvidenceRefusedError("the note bears no signature of a key that is trusted for it")
    return signers[0]


def verify_signature(message: bytes, key: VerifierKey, signature: bytes) -> None:
    """Raises EvidenceRefusedError unless `signature`, 64 bytes, is of `key` over `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise EvidenceRefusedError(f"a signature in the name of {key.name} does not verify") from error


def decode_base64(text: str, what: str) -> bytes:
    """Standard base64 with padding, in its one canonical form. Raises InputError."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.b64encode(data).decode() != text:
        raise InputError(f"{what} is not in standard base64")
    return data


def _verify_line(text: str, key: VerifierKey, line: SignatureLine) -> bool:
    """True, or an exception: a line of a known key must hold."""
    if key.kind is not KeyKind.LOG:
        raise ValueError(f"{key.name} is the key of a witness, expected one of a log")
    verify_signature(text.encode(), key, line.data)
    return True


def _parse_line(number: int, line: str) -> SignatureLine:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != _DASH:
        raise InputError(f"signature line {number} does not begin with {_DASH} and a space")
    check_name(name)
    data = decode_base64(encoded, f"signature line {number}")
    if len(data) <= KEY_ID_BYTES:
        raise InputError(f"signature line {number} has {len(data)} bytes, expected a key id of {KEY_ID_BYTES} and more")
    return SignatureLine(name=name, key_id=data[:KEY_ID_BYTES], data=data[KEY_ID_BYTES:])


def _key_id(name: str, kind: KeyKind, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind.value]) + public_key).digest()[:KEY_ID_BYTES]
