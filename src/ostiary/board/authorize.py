"""May this caller do this to this session? One function, one table of rules.

Source: session language, "Access policy and governance": each operation has a list of subjects and any subject that
admits is enough; everything not permitted is denied; an update is judged by the version that is being replaced; a
request carries one TLS identity, or signatures, or neither.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from ostiary.errors import IdentityRequiredError, NotAuthorizedError
from ostiary.session.base58 import encode_key_hash
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CertificateHashSubject,
    CreatorSubject,
    KeySubject,
    RuleSubject,
    SignerSubject,
    Subject,
    Variable,
)
from ostiary.session.signed import VerifiedSigners


class Operation(Enum):
    """What access policies speak of."""

    READ = "read"
    UPDATE = "update"
    CREATE_SESSIONS = "create_sessions"
    LIST_SESSIONS = "list_sessions"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The one TLS identity of a request.

    certificate: PEM, LF line ends. key_hash, key_bits_hash: SHA-256, 32 bytes, of its SubjectPublicKeyInfo, and of the
    bits of the key alone.
    """

    certificate: str
    key_hash: bytes
    key_bits_hash: bytes

    @cached_property
    def certificate_hash(self) -> bytes:
        """SHA-256 of the PEM text, 32 bytes: what language 0.2 compares."""
        return hashlib.sha256(self.certificate.encode()).digest()


Party = Caller | VerifiedSigners | None
"""Who asks: the TLS identity of a request, or whoever signed it, or, for a peer without certificate, nobody known."""

Creator = bytes | SignerSubject | None
"""Who uploaded a version: key hash (32 bytes) of a TLS client, or one of its signers; None: it was not recorded."""


def authorize(
    operation: Operation,
    access_policy: AccessPolicy | Variable,
    *,
    session: str,
    creator: Creator,
    caller: Party,
) -> None:
    """Return if `caller` may do `operation` on the session whose current version has `access_policy`; else raise.

    session: its name, for the message. creator: of the current version.

    Guarantees on return: a subject of the operation's list admits the caller. An empty list admits nobody, and
    `CREATOR` admits nobody when no creator was recorded; a configuration variable that is not resolved, as entry or as
    the whole policy, admits nobody. A signer is never satisfied by a TLS identity, whatever its key, nor a TLS
    identity by a signature, and neither is CREATOR. A rule is satisfied if each of its entries is, so by one party only
    if that is every entry's; a rule `require-at-least-N` also by N entries of N parties: a TLS identity is one, each
    verified signer is one, in however many entries it stands. Signatures and rules never admit to read or list.
    Does not guarantee: that the peer holds the key (TLS or `verify_signatures` did), that the signatures are of what is
    being uploaded, or that `access_policy` is of the newest version (whoever calls must have loaded that).
    Raises IdentityRequiredError if a key might be admitted and the peer showed none, else NotAuthorizedError.
    """
    if admits(operation, access_policy, creator=creator, caller=caller):
        return
    subjects = _subjects(operation, access_policy)
    refusal = f"You have insufficient rights to {_VERBS[operation]} {session}"
    if caller is None and any(_asks_for_a_key(subject, creator) for subject in _with_parts(subjects)):
        raise IdentityRequiredError(
            refusal, "no client certificate was shown; connect with the one that the session's access policy admits"
        )
    if isinstance(caller, VerifiedSigners):
        raise NotAuthorizedError(
            refusal,
            f"its access policy is not satisfied for {operation.value!r} by the signatures of {_shown_keys(caller)}; "
            "collect the signatures that are missing, or ask its creator to add the keys",
        )
    raise NotAuthorizedError(
        refusal,
        f"its access policy admits no caller of this key for {operation.value!r}; ask its creator to add the key"
        f"{_shown(caller)}",
    )


def admits(operation: Operation, access_policy: AccessPolicy | Variable, *, creator: Creator, caller: Party) -> bool:
    """Whether `authorize` returns. For lists, which leave out what it refuses; whoever does something calls that."""
    request = _Request(operation=operation, creator=creator, caller=caller)
    return any(request.satisfied_by(subject) is not None for subject in _subjects(operation, access_policy))


_SHOWN_ONLY = (Operation.READ, Operation.LIST_SESSIONS)
"""Nothing is signed to do these."""

_VERBS = {
    Operation.READ: "access session",
    Operation.UPDATE: "update session",
    Operation.CREATE_SESSIONS: "create sessions in namespace",
    Operation.LIST_SESSIONS: "list the sessions of namespace",
}


def _asks_for_a_key(subject: Subject, creator: Creator) -> bool:
    """Whether some TLS identity could satisfy it. CREATOR is none where the creator is a signer."""
    if isinstance(subject, CreatorSubject):
        return not isinstance(creator, SignerSubject)
    return isinstance(subject, KeySubject | CertificateHashSubject)


def _shown_keys(signers: VerifiedSigners) -> str:
    """Each key by the key hash of its SubjectPublicKeyInfo: its PEM would take five lines."""
    return " and ".join(sorted(encode_key_hash(hashlib.sha256(key).digest()) for key in signers.keys))


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
        case Operation.LIST_SESSIONS:
            return policy.effective_list_sessions


_Parties = frozenset[bytes]
"""Key hashes and signers' keys: whoever it takes to satisfy a subject."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One question: `caller` wants `operation`, of a session that `creator` uploaded."""

    operation: Operation
    creator: Creator
    caller: Party

    def satisfied_by(self, subject: Subject) -> _Parties | None:
        """The parties of this request that satisfy `subject`; None if it is not satisfied."""
        match subject:
            case AnySubject():
                return frozenset()
            case CreatorSubject():
                return self._creator()
            case KeySubject(key_hash=key_hash):
                # Which bytes existing texts cover is documented nowhere; both are of the very key that was shown.
                return self._tls_identity(
                    lambda caller: any(
                        hmac.compare_digest(key_hash, shown) for shown in (caller.key_hash, caller.key_bits_hash)
                    )
                )
            case CertificateHashSubject(pem_hash=pem_hash):
                return self._tls_identity(lambda caller: hmac.compare_digest(pem_hash, caller.certificate_hash))
            case SignerSubject():
                return self._signer(subject)
            case RuleSubject() if self.operation not in _SHOWN_ONLY:
                return self._rule(subject)
            case _:
                return None

    def _creator(self) -> _Parties | None:
        creator = self.creator
        if isinstance(creator, SignerSubject):
            return self._signer(creator)
        return self._tls_identity(lambda caller: creator is not None and hmac.compare_digest(creator, caller.key_hash))

    def _tls_identity(self, admits: Callable[[Caller], bool]) -> _Parties | None:
        if isinstance(self.caller, Caller) and admits(self.caller):
            return frozenset({self.caller.key_hash})
        return None

    def _signer(self, signer: SignerSubject) -> _Parties | None:
        """Reading is not signed: a signature admits to nothing that it was not made for."""
        signed = isinstance(self.caller, VerifiedSigners) and signer.spki in self.caller.keys
        return frozenset({signer.spki}) if signed and self.operation not in _SHOWN_ONLY else None

    def _rule(self, rule: RuleSubject) -> _Parties | None:
        answers = [self.satisfied_by(part) for part in rule.subjects]
        satisfied = [answer for answer in answers if answer is not None]
        parties = frozenset[bytes]().union(*satisfied)
        if len(satisfied) < max(rule.needed, 1):
            return None
        return parties if len(satisfied) == len(answers) or len(parties) >= rule.needed else None


def _with_parts(subjects: tuple[Subject, ...]) -> Iterator[Subject]:
    for subject in subjects:
        yield subject
        if isinstance(subject, RuleSubject):
            yield from _with_parts(subject.subjects)
