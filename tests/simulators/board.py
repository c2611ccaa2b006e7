"""Members of policy boards, sessions that name them, and their decisions: signed by code apart from that under test."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from tests.simulators.signers import Person, ed25519_person, p384_person

ANN, BEN, CEM, DAN = ed25519_person(), p384_person(), ed25519_person(), p384_person()


def p256_person() -> Person:
    return Person(key=ec.generate_private_key(ec.SECP256R1()))


@dataclass(frozen=True, kw_only=True)
class Board:
    """`policy_board` of a session. powers: by name. more: further keys, as YAML."""

    members: Mapping[str, Person]
    faults: int = 1
    powers: Mapping[str, str] | None = None
    more: str = ""

    @property
    def yaml(self) -> str:
        lines = ["policy_board:", f"  tolerated_faults: {self.faults}", "  members:"]
        for name, person in self.members.items():
            lines += [f"  - name: {name}", f"    signer: {person.quoted}"]
            if self.powers is not None and name in self.powers:
                lines.append(f"    power: {self.powers[name]}")
        lines += [f"  {line}" for line in self.more.splitlines()]
        return "\n".join(lines) + "\n"


THREE = Board(members={"ann": ANN, "ben": BEN, "cem": CEM})
"""Two of three decide."""


def boarded(name: str, board: Board | None = THREE, *, read: str = "ANY", **more: str) -> str:
    """A session with a board, or without one: then nobody may update it, unless `more` says who."""
    lines = ['version: "0.3.12"', f"name: {name}"]
    if "access_policy" not in more:
        lines.append(f"access_policy: {{read: {read}{', update: NONE' if board is None else ''}}}")
    lines += [f"{key}: {value}" for key, value in more.items()]
    return "\n".join(lines) + "\n" + (board.yaml if board is not None else "")


def message(proposal: Mapping[str, Any], choice: str, reason: str = "") -> bytes:
    """What a member signs, from what the service shows of a proposal; the proposal's hash is made anew."""
    lines = [
        "ostiary-board-decision-v1",
        f"cas {proposal['cas']}",
        f"session {proposal['session']}",
        f"proposal {proposal_hash(proposal)}",
        f"break-glass {'yes' if proposal['break_glass'] else 'no'}",
        f"decision {choice}",
        f"reason {json.dumps(reason)}",
    ]
    return ("\n".join(lines) + "\n").encode()


def proposal_hash(proposal: Mapping[str, Any]) -> str:
    lines = [
        "ostiary-proposal-v1",
        f"cas {proposal['cas']}",
        f"session {proposal['session']}",
        f"predecessor {proposal['predecessor'] or 'none'}",
        f"session-hash {proposal['hash']}",
        f"break-glass {'yes' if proposal['break_glass'] else 'no'}",
        f"created {proposal['created']}",
        f"nonce {proposal['nonce']}",
        f"note {json.dumps(proposal['note'])}",
    ]
    return hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest()


def sign(person: Person, data: bytes) -> bytes:
    key = person.key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(SHA256() if isinstance(key.curve, ec.SECP256R1) else SHA384()))


def decision(person: Person, proposal: Mapping[str, Any], choice: str = "approve", reason: str = "") -> dict[str, str]:
    """The body of a decision about the proposal as the service shows it."""
    signature = sign(person, message(proposal, choice, reason))
    return {
        "signer": person.pem,
        "decision": choice,
        "reason": reason,
        "signature": base64.b64encode(signature).decode(),
    }


def member_hash(person: Person) -> str:
    """SHA-256 of a member's SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(person.spki).hexdigest()
