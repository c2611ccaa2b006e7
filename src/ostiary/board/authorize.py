"""May this caller do this to this session? One function, one table of rules.

Source: session language, "Access policy and governance": each operation has a list of subjects and any subject that
admits is enough; everything not permitted is denied; an update is judged by the version that is being replaced.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from ostiary.errors import IdentityRequiredError, NotAuthorizedError
from ostiary.session.base58 import encode_key_hash
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CertificateHashSubject,
    CreatorSubject,
    KeySubject,
    RuleSubject,
    Subject,
    Variable,
)


class Operation(Enum):
    """What access policies speak of."""

    READ = "read"
    UPDATE = "update"
    CREATE_SESSIONS = "create_sessions"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The one TLS identity of a request.

    certificate: PEM, LF line ends. key_hash, key_bits_hash: SHA-256, 32 bytes, of its SubjectPublicKeyInfo, and of the
    bits of the key alone.
    """

    certificate: str
    key_hash: bytes
    key_bits_hash: bytes

    @property
    def certificate_hash(self) -> bytes:
        """SHA-256 of the PEM text, 32 bytes: what language 0.2 compares."""
        return hashlib.sha256(self.certificate.encode()).digest()


def authorize(
    operation: Operation,
    access_policy: AccessPolicy | Variable,
    *,
    session: str,
    creator: bytes | None,
    caller: Caller | None,
) -> None:
    """Return if `caller` may do `operation` on the session whose current version has `access_policy`; else raise.

    session: its name, for the message. creator: key hash (32 bytes) of who uploaded the current version, None if it
    was not recorded. caller: None for a TLS peer without certificate.

    Guarantees on return: a subject of the operation's list admits the caller. An empty list admits nobody, and
    `CREATOR` admits nobody when no creator was recorded; a configuration variable that is not resolved, as entry or as
    the whole policy, admits nobody. A signer is never satisfied by a TLS identity, whatever its key. A rule
    `require-all` is satisfied if each of its entries is, so by one identity only if that is every entry's; a rule
    `require-at-least-N` asks for N parties, and a request with a TLS identity is one. Rules never admit to read.
    Does not guarantee: that the peer holds the key (TLS did), or that `access_policy` is of the newest version (the
    caller of this function must have loaded that).
    Raises IdentityRequiredError if a key might be admitted and the peer showed none, else NotAuthorizedError.
    """
    subjects = _subjects(operation, access_policy)
    if any(_admits(subject, operation, creator=creator, caller=caller) for subject in subjects):
        return
    refusal = f"You have insufficient rights to {_VERBS[operation]} {session}"
    if caller is None and any(isinstance(subject, _IDENTITIES) for subject in _with_parts(subjects)):
        raise IdentityRequiredError(
            refusal, "no client certificate was shown; connect with the one that the session's access policy admits"
        )
    raise NotAuthorizedError(
        refusal,
        f"its access policy admits no caller of this key for {operation.value!r}; ask its creator to add the key"
        f"{_shown(caller)}",
    )


_VERBS = {
    Operation.READ: "access session",
    Operation.UPDATE: "update session",
    Operation.CREATE_SESSIONS: "create sessions in namespace",
}
_IDENTITIES = (KeySubject, CreatorSubject, CertificateHashSubject)


def _shown(caller: Caller | None) -> str:
    """Key hashes that another CAS's tools made may be of other bytes than ours: this is the one to write."""
    return "" if caller is None else f", whose hash here is {encode_key_hash(caller.key_hash)}"


def _subjects(operation: Operation, policy: AccessPolicy | Variable) -> tuple[Subject, ...]:
    if isinstance(policy, Variable):
        return (policy,)
    match operation:
        case Operation.READ:
            return policy.read
        case Operation.UPDATE:
            return policy.update
        case Operation.CREATE_SESSIONS:
            return policy.effective_create_sessions


def _admits(subject: Subject, operation: Operation, *, creator: bytes | None, caller: Caller | None) -> bool:
    match subject:
        case AnySubject():
            return True
        case CreatorSubject():
            return creator is not None and caller is not None and hmac.compare_digest(creator, caller.key_hash)
        case KeySubject(key_hash=key_hash):
            # Which bytes existing texts cover is documented nowhere; both are of the very key that was shown.
            return caller is not None and any(
                hmac.compare_digest(key_hash, shown) for shown in (caller.key_hash, caller.key_bits_hash)
            )
        case CertificateHashSubject(pem_hash=pem_hash):
            return caller is not None and hmac.compare_digest(pem_hash, caller.certificate_hash)
        case RuleSubject(needed=needed, subjects=parts) if operation is not Operation.READ:
            satisfied = sum(_admits(part, operation, creator=creator, caller=caller) for part in parts)
            # All of them, or the one party that this request is.
            return satisfied >= max(needed, 1) and (satisfied == len(parts) or needed <= 1)
        case _:
            return False


def _with_parts(subjects: tuple[Subject, ...]) -> Iterator[Subject]:
    for subject in subjects:
        yield subject
        if isinstance(subject, RuleSubject):
            yield from _with_parts(subject.subjects)
