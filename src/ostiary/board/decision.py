"""Decisions of board members: the message that is signed, and whose signatures hold. Pure.

The message, ASCII, every line ended by one LF, values as in `ostiary.board.proposal`::

    ostiary-board-decision-v1
    cas <64 hex digits>
    session <name>
    proposal <64 hex digits: the hash of the proposal>
    break-glass <yes or no>
    decision <approve, withdraw or reject>
    reason <JSON string>

The hash says it all; CAS, session and break-glass stand there for whoever reads what a token is asked to sign. Ed25519
(RFC 8032) signs the message itself; ECDSA (FIPS 186-5) its SHA-384 with P-384 and its SHA-256 with P-256, DER.
The first line keeps it apart from whatever else the key signs: a signed session (`ostiary.session.signed`) begins with
the bytes 00 01.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ostiary.board.count import Choice
from ostiary.board.proposal import ProposalFacts, json_text, yes_or_no
from ostiary.errors import InputError
from ostiary.session.policy_board import KEY_TYPES

MAX_REASON_CHARS = 1000


@dataclass(frozen=True, kw_only=True)
class VerifiedDecision:
    """What the holder of a key decided about one proposal. Only `verify_decision` makes one.

    proposal: its hash, 32 bytes. key: DER SubjectPublicKeyInfo, in the one form that members have.
    Raises TypeError when made anywhere else.
    """

    proposal: bytes
    key: bytes
    choice: Choice
    reason: str
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_HERE:
            raise TypeError("a VerifiedDecision is made by verify_decision(), nowhere else")


_MADE_HERE = object()


def decision_message(facts: ProposalFacts, choice: Choice, reason: str) -> bytes:
    """What a member signs to decide so. Raises InputError (TooLargeError) for a reason that cannot be signed."""
    return (
        "ostiary-board-decision-v1\n"
        f"cas {facts.cas.hex()}\n"
        f"session {facts.session}\n"
        f"proposal {facts.proposal_hash().hex()}\n"
        f"break-glass {yes_or_no(facts.break_glass)}\n"
        f"decision {choice.value}\n"
        f"reason {json_text('reason', reason, max_chars=MAX_REASON_CHARS)}\n"
    ).encode("ascii")


def verify_decision(
    facts: ProposalFacts, *, signer: bytes, choice: Choice, reason: str, signature: bytes
) -> VerifiedDecision:
    """The decision that this signature is of. signer: DER SubjectPublicKeyInfo, Ed25519, P-384 or P-256.

    Guarantees on return: the holder of the key signed this choice with this reason about exactly this proposal: of
    this CAS, session, predecessor, session hash, note, and kind (break-glass or not).
    Does not guarantee that the key is any member's, or that it has not decided more cautiously since: `count` and
    `check_caution` are for that. So the same decision may be sent again and again.
    Raises InputError: no key that decides, a reason that cannot be signed, a signature that does not hold.
    """
    message = decision_message(facts, choice, reason)
    try:
        key = load_der_public_key(signer)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"the signer is no public key that can be read, {_EXPECTED}") from None
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
            key.verify(signature, message, ec.ECDSA(SHA384()))
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            key.verify(signature, message, ec.ECDSA(SHA256()))
        else:
            raise InputError(f"the signer's key is of a type that does not decide, {_EXPECTED}")
    except InvalidSignature:
        raise InputError(
            f"the signature does not hold: the signer's key did not sign to {choice.value} proposal "
            f"{facts.proposal_hash().hex()} with this reason",
            "the decision is of another proposal or service, or was changed after it was signed; review the proposal "
            "and sign again",
        ) from None
    # The same key can be written in several ways in DER, compressed for one; members are compared by one of them.
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerifiedDecision(proposal=facts.proposal_hash(), key=spki, choice=choice, reason=reason, made_by=_MADE_HERE)


_EXPECTED = f"expected {' or '.join(KEY_TYPES)}"
