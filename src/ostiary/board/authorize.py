"""May this caller do this to this session? One function, one table of rules.

Source: session language, "Access policy": each operation has a list of subjects and any subject that admits is enough;
everything not permitted is denied; an update is judged by the version that is being replaced.
"""

from __future__ import annotations

import hmac
from enum import Enum

from ostiary.errors import IdentityRequiredError, NotAuthorizedError
from ostiary.session.model import AccessPolicy, AnySubject, CreatorSubject, KeySubject, Subject, Variable


class Operation(Enum):
    """What access policies speak of."""

    READ = "read"
    UPDATE = "update"


def authorize(
    operation: Operation,
    access_policy: AccessPolicy | Variable,
    *,
    session: str,
    creator: bytes | None,
    caller: bytes | None,
) -> None:
    """Return if `caller` may do `operation` on the session whose current version has `access_policy`; else raise.

    session: its name, for the message. creator: key hash (32 bytes) of who uploaded the current version, None if it
    was not recorded. caller: key hash of the TLS peer, None for one without certificate.

    Guarantees on return: a subject of the operation's list admits the caller. An empty list admits nobody, and
    `CREATOR` admits nobody when no creator was recorded; a configuration variable that is not resolved, as entry or as
    the whole policy, admits nobody. Does not guarantee: that the peer holds the key (TLS did), or that `access_policy`
    is of the newest version (the caller of this function must have loaded that).
    Raises IdentityRequiredError if a key might be admitted and the peer showed none, else NotAuthorizedError.
    """
    if isinstance(access_policy, Variable):
        subjects: tuple[Subject, ...] = (access_policy,)
    else:
        subjects = access_policy.read if operation is Operation.READ else access_policy.update
    if any(_admits(subject, creator=creator, caller=caller) for subject in subjects):
        return
    refusal = f"You have insufficient rights to {_VERBS[operation]} session {session}"
    if caller is None and any(isinstance(subject, KeySubject | CreatorSubject) for subject in subjects):
        raise IdentityRequiredError(
            refusal, "no client certificate was shown; connect with the one that the session's access policy admits"
        )
    raise NotAuthorizedError(
        refusal,
        f"its access policy admits no caller of this key for {operation.value!r}; ask its creator to add the key",
    )


_VERBS = {Operation.READ: "access", Operation.UPDATE: "update"}


def _admits(subject: Subject, *, creator: bytes | None, caller: bytes | None) -> bool:
    match subject:
        case AnySubject():
            return True
        case CreatorSubject():
            return creator is not None and caller is not None and hmac.compare_digest(creator, caller)
        case KeySubject(key_hash=key_hash):
            return caller is not None and hmac.compare_digest(key_hash, caller)
        case _:
            return False
