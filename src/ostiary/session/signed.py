"""Signed sessions: their JSON form, the message that is signed, and whose signatures hold. Pure.

The form, as SCONE's CLI prints it and `PUT /v1/signed_sessions` takes it::

    {"session": "<YAML text>", "signatures": [{"signer": "<key>", "signature": "<base64>"}, …]}

session    any text of a session; what is signed is its normal form, `creator` included
signer     SubjectPublicKeyInfo in PEM, Ed25519 or P-384; or the older form, an Ed25519 key in base58check, version 10
signature  base64, or the older form, 128 hex digits. Over the 34 bytes `00 01` ‖ session hash: Ed25519 (RFC 8032) signs
           them directly, 64 bytes; P-384 signs their SHA-384 with ECDSA (FIPS 186-5), DER

Source: session language, section 15; the message was found by verifying published signatures
(`tests/vectors/session-hash/`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ostiary.errors import InputError, TooLargeError
from ostiary.session.access import signer_key
from ostiary.session.document import MAX_DOCUMENT_BYTES

MAX_SIGNATURES = 64
MAX_SIGNATURE_BYTES = 128
"""The longest, of P-384 in DER, has 104."""
MAX_SIGNED_BYTES = 3 * MAX_DOCUMENT_BYTES
"""The JSON form. Text grows in JSON, at most threefold unless it is full of control characters."""

_PREFIX = b"\x00\x01"
_MEMBERS = ("session", "signatures")
_SIGNATURE_MEMBERS = ("signer", "signature")
_OLD_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One signature that nobody has verified yet. signer: the key as it was written. spki: DER of that key."""

    signer: str
    spki: bytes
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class SignedSession:
    """A session text and its signatures, not verified. signatures: from 1 to MAX_SIGNATURES."""

    text: str = field(repr=False)
    signatures: tuple[Signature, ...]

    def to_json(self) -> str:
        """The JSON form, on lines of its own, ending in a line feed."""
        signatures = [
            {"signer": one.signer, "signature": base64.b64encode(one.signature).decode("ascii")}
            for one in self.signatures
        ]
        return json.dumps({"session": self.text, "signatures": signatures}, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class VerifiedSigners:
    """Keys whose holders signed the session with `session_hash`. Only `verify_signatures` makes one.

    session_hash: 32 bytes. keys: DER SubjectPublicKeyInfo, at least one, each once however often it signed.
    Raises TypeError when made anywhere else.
    """

    session_hash: bytes
    keys: frozenset[bytes]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_HERE:
            raise TypeError("VerifiedSigners are made by verify_signatures(), nowhere else")


_MADE_HERE = object()


def message_to_be_signed(session_hash: bytes) -> bytes:
    """The 34 bytes that signatures of the session with this hash (32 bytes) cover."""
    return _PREFIX + session_hash


def signer_pem(spki: bytes) -> str:
    """The PEM of a signer's key, as OpenSSL writes it."""
    key = load_der_public_key(spki)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def parse_signed_session(text: bytes | str) -> SignedSession:
    """Read the JSON form. Trusts nothing; the session in it stays a text.

    Guarantees on return: there is a signature, each of a key of a known type. Not that any of them holds.
    Raises InputError (not of this form; says which signature), TooLargeError over MAX_SIGNED_BYTES.
    """
    if len(text) > MAX_SIGNED_BYTES:
        raise TooLargeError(f"the signed session has more than {MAX_SIGNED_BYTES} bytes")
    members = json_members(text, _MEMBERS, "a signed session")
    session, signatures = members["session"], members["signatures"]
    if not isinstance(session, str):
        raise InputError("session must be the YAML text of the session, as one JSON string")
    if not isinstance(signatures, list) or not signatures:
        raise InputError(
            "signatures must be a list with at least one signature; sign the session, or upload it as it is"
        )
    if len(signatures) > MAX_SIGNATURES:
        raise TooLargeError(f"there are {len(signatures)} signatures, at most {MAX_SIGNATURES} are allowed")
    return SignedSession(
        text=session,
        signatures=tuple(_read_signature(element, f"signatures[{at}]") for at, element in enumerate(signatures)),
    )


def json_members(text: bytes | str, names: Sequence[str], what: str) -> dict[str, object]:
    """The members of a JSON object that must have exactly these. Raises InputError, which says what it should be."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{what} must be JSON, and this is not") from None
    if not isinstance(members, dict) or set(members) != set(names):
        raise InputError(f"{what} must be a JSON object with exactly the members {' and '.join(names)}")
    return members


def read_signature(text: str) -> bytes:
    """The bytes of a signature in base64 or the older hex. Raises ValueError with one sentence."""
    try:
        signature = bytes.fromhex(text) if _OLD_SIGNATURE.fullmatch(text) else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is neither base64 nor 128 hex digits") from None
    if not 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        raise ValueError(f"it has {len(signature)} bytes, expected 1 to {MAX_SIGNATURE_BYTES}")
    return signature


def verify_signatures(session_hash: bytes, signatures: Iterable[Signature]) -> VerifiedSigners:
    """Whose signatures of the session with this hash these are.

    Guarantees on return: every signature given holds over `message_to_be_signed(session_hash)` under its own key,
    Ed25519 or P-384, and there is at least one. One that does not hold refuses all: whoever signed nothing must not
    be able to ride along, and a damaged upload must not pass with fewer signers than it was sent with.
    Does not guarantee that any signer may do anything: `board.authorize` decides that.
    Raises InputError, which says which signature.
    """
    message = message_to_be_signed(session_hash)
    keys: set[bytes] = set()
    for at, signature in enumerate(signatures):
        try:
            verify_signature(signature, message)
        except InvalidSignature:
            raise InputError(
                f"signatures[{at}] does not hold: it is not the signature of its signer over the session "
                f"with hash {session_hash.hex()}",
                "the session was changed after it was signed, or the signature is of another session; sign it again",
            ) from None
        keys.add(signature.spki)
    if not keys:
        raise InputError("there is no signature")
    return VerifiedSigners(session_hash=session_hash, keys=frozenset(keys), made_by=_MADE_HERE)


def verify_signature(signature: Signature, message: bytes) -> None:
    """Whether the signature is of its signer over `message`, whatever that is. Raises InvalidSignature if not."""
    key = load_der_public_key(signature.spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature.signature, message)
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        key.verify(signature.signature, message, ec.ECDSA(SHA384()))
    else:
        raise InvalidSignature


def _read_signature(element: object, where: str) -> Signature:
    if not isinstance(element, dict) or set(element) != set(_SIGNATURE_MEMBERS):
        raise InputError(f"{where} must be an object with exactly the members {' and '.join(_SIGNATURE_MEMBERS)}")
    signer, signature = element["signer"], element["signature"]
    if not isinstance(signer, str) or not isinstance(signature, str):
        raise InputError(f"{where}: signer and signature must both be text")
    try:
        spki = signer_key(signer)
    except ValueError as error:
        raise InputError(f"{where}.signer: no public key of a signer: {error}") from None
    try:
        return Signature(signer=signer, spki=spki, signature=read_signature(signature))
    except ValueError as error:
        raise InputError(f"{where}.signature: {error}") from None
