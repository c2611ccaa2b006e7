"""What deciding costs, in milliseconds of this machine: access policies, and the votes of a board.

    make bench        or        .venv/bin/python bench/governance.py [--rounds 200]

  wide      a rule over 999 signers, of whom the 64 that can sign at once did           at most 2 ms
  bushy     rules in rules, four entries each, 1,000 nodes; the same 64                 at most 2 ms
  deep      as many levels of rules as the language admits, 1,000 nodes; the same 64    at most 2 ms
  refused   as bushy, with the sentence that says so                                    at most 2 ms
  tls       as bushy, of key hashes, asked by a TLS client                              at most 2 ms
  count     the votes of a board of 64 members                                          at most 2 ms
  verify    a decision signed with P-384, the dearest kind of key                       beside the bare signature

Trees are read from session texts, so that they are such as can be. Each figure is the best of the rounds, and the
median beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.board import (
    Caller,
    Choice,
    Operation,
    Outcome,
    ProposalFacts,
    Quorum,
    Voter,
    authorize,
    count,
    decision_message,
    verify_decision,
)
from ostiary.errors import NotAuthorizedError
from ostiary.session import AccessPolicy, RuleSubject, Subject, parse_session
from ostiary.session.base58 import encode_key_hash
from ostiary.session.signed import MAX_SIGNATURES, Signature, VerifiedSigners, message_to_be_signed, verify_signatures

NODES = 1000
BUDGET_MS = 2.0
FAN_OUT = 4
LEVELS = 30
"""Rules within one rule: the document may have 64 levels of mappings and lists, two of which each of them takes."""
SESSION_HASH = b"h" * 32


def raw(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def pem(key: ed25519.Ed25519PrivateKey) -> str:
    """As one line of YAML."""
    return json.dumps(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def verified(keys: Sequence[ed25519.Ed25519PrivateKey]) -> VerifiedSigners:
    """The holders of these keys, who all signed."""
    message = message_to_be_signed(SESSION_HASH)
    spkis = [key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys]
    signatures = [
        Signature(signer="", spki=spki, signature=key.sign(message)) for key, spki in zip(keys, spkis, strict=True)
    ]
    return verify_signatures(SESSION_HASH, signatures)


def policy(rule: str) -> AccessPolicy:
    """The access policy with this rule for updates; checks that it has the nodes that are claimed."""
    text = f'name: s\nversion: "0.3.12"\naccess_policy: {{read: ANY, update: {rule}}}\n'
    read = parse_session(text).session.access_policy
    if not isinstance(read, AccessPolicy) or not NODES <= nodes(read.update[0]) <= NODES * 1.1:
        raise RuntimeError("the tree is not of the size that it should be")
    return read


def nodes(subject: Subject) -> int:
    return 1 + (sum(map(nodes, subject.subjects)) if isinstance(subject, RuleSubject) else 0)


def rule(needed: int, entries: Sequence[str]) -> str:
    return f"{{require-at-least-{needed}: [{', '.join(entries)}]}}"


def bushy(entries: Sequence[str]) -> str:
    """All of the rules above satisfied by one of their entries."""
    while len(entries) > 1:
        entries = [rule(1, entries[at : at + FAN_OUT]) for at in range(0, len(entries), FAN_OUT)]
    return entries[0]


def deep(entries: Sequence[str]) -> str:
    """A rule in a rule in a rule, and as many entries beside it on each level."""
    width = len(entries) // LEVELS + 1
    inner: list[str] = []
    for at in range(0, len(entries), width):
        inner = [rule(1, [*entries[at : at + width], *inner])]
    return inner[0]


def refuse(action: Callable[[], object]) -> None:
    try:
        action()
    except NotAuthorizedError:
        return
    raise RuntimeError("it was admitted")


def approved(quorum: Quorum, choices: dict[bytes, Choice]) -> None:
    if count(quorum, choices, break_glass=False) is not Outcome.APPROVED:
        raise RuntimeError("it was not approved")


def measure(name: str, action: Callable[[], object], rounds: int, note: str) -> float:
    """Print a line; milliseconds of the best round."""
    action()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
    print(f"{name:<10} {min(times):9.3f} ms   median {statistics.median(times):9.3f} ms   {note}")
    return min(times)


def decisions(rounds: int) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    facts = ProposalFacts(
        cas=b"c" * 32, session="s", predecessor=b"p" * 32, session_hash=b"h" * 32, break_glass=False,
        created=datetime.now(UTC).replace(microsecond=0), note="", nonce=b"n" * 16,
    )  # fmt: skip
    message = decision_message(facts, Choice.APPROVE, "")
    signature = key.sign(message, ec.ECDSA(SHA384()))
    bare = partial(key.public_key().verify, signature, message, ec.ECDSA(SHA384()))
    verify = partial(verify_decision, facts, signer=spki, choice=Choice.APPROVE, reason="", signature=signature)
    found = measure("verify", verify, rounds, "")
    print(f"{'':<10} {found / measure('bare', bare, rounds, ''):.2f} times the bare signature")


def main() -> int:
    parser = argparse.ArgumentParser(description="What deciding costs.")
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(NODES)]
    signers = [f"{{signer: {pem(key)}}}" for key in keys]
    leaves = NODES * (FAN_OUT - 1) // FAN_OUT
    crowd, strangers = verified(keys[:MAX_SIGNATURES]), verified(keys[-MAX_SIGNATURES:])
    ask = partial(authorize, Operation.UPDATE, session="s", creator=None)
    some = policy(bushy(signers[:leaves]))
    hashes = [encode_key_hash(raw(key)) for key in keys[:leaves]]
    client = Caller(certificate="", key_hash=raw(keys[0]), key_bits_hash=raw(keys[-1]))
    members = tuple(Voter(key=raw(key)) for key in keys[:64])
    quorum = Quorum(needed=33, voters=members)
    votes = dict.fromkeys((voter.key for voter in members), Choice.APPROVE)
    actions: dict[str, Callable[[], object]] = {
        "wide": partial(ask, policy(rule(MAX_SIGNATURES, signers)), caller=crowd),
        "bushy": partial(ask, some, caller=crowd),
        "deep": partial(ask, policy(deep(signers[: NODES - LEVELS])), caller=crowd),
        "refused": partial(refuse, partial(ask, some, caller=strangers)),
        "tls": partial(ask, policy(bushy(hashes)), caller=client),
        "count": partial(approved, quorum, votes),
    }
    found = [measure(name, action, rounds, f"budget {BUDGET_MS:.0f} ms") for name, action in actions.items()]
    decisions(rounds)
    return 0 if all(best <= BUDGET_MS for best in found) else 1


if __name__ == "__main__":
    sys.exit(main())
