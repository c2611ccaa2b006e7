"""Members of policy boards, with keys of their own, and the proposals that they decide on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.board import ProposalFacts
from ostiary.session.model import BoardMember, PolicyBoard, SignerSubject

CREATED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FACTS = ProposalFacts(
    cas=b"c" * 32, session="shop/web", predecessor=b"p" * 32, session_hash=b"h" * 32, break_glass=False,
    created=CREATED, note="", nonce=b"n" * 16,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Decider:
    """Somebody with a key, Ed25519, P-384 or P-256, who signs what a member would sign."""

    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def decide(self, facts: ProposalFacts, choice: str, reason: str = "") -> bytes:
        """The signature of a decision, its message written out here once more, apart from the code under test."""
        note, predecessor = json.dumps(facts.note), facts.predecessor.hex() if facts.predecessor else "none"
        glass = {True: "yes", False: "no"}[facts.break_glass]
        text = (
            f"ostiary-proposal-v1\ncas {facts.cas.hex()}\nsession {facts.session}\npredecessor {predecessor}\n"
            f"session-hash {facts.session_hash.hex()}\nbreak-glass {glass}\n"
            f"created {facts.created.isoformat().removesuffix('+00:00')}Z\nnonce {facts.nonce.hex()}\nnote {note}\n"
        )
        proposal = hashlib.sha256(text.encode()).hexdigest()
        return self.sign(
            f"ostiary-board-decision-v1\ncas {facts.cas.hex()}\nsession {facts.session}\nproposal {proposal}\n"
            f"break-glass {glass}\ndecision {choice}\nreason {json.dumps(reason)}\n".encode()
        )

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ec.ECDSA(SHA384() if self.key.curve.key_size == 384 else SHA256()))


def ed25519_decider() -> Decider:
    return Decider(key=ed25519.Ed25519PrivateKey.generate())


def p384_decider() -> Decider:
    return Decider(key=ec.generate_private_key(ec.SECP384R1()))


def p256_decider() -> Decider:
    return Decider(key=ec.generate_private_key(ec.SECP256R1()))


def member(key: bytes, *, name: str = "", power: str = "vote") -> BoardMember:
    """power: of vote, approve and reject, any of them in one text."""
    return BoardMember(
        name=name or key.hex()[-8:],
        signer=SignerSubject(spki=key),
        may_approve="approve" in power,
        may_reject="reject" in power,
    )


def board(faults: int, *members: BoardMember, **others: object) -> PolicyBoard:
    return PolicyBoard(
        tolerated_faults=faults,
        members=members,
        decide_within=timedelta(days=7),
        **others,  # type: ignore[arg-type]
    )
