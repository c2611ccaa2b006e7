"""May this version of a session be stored now? One walk for every way to bring one.

What a version must follow is the same however it comes: the predecessor that it names, the namespace that it is created
in, a root namespace that is not sealed. Whose word it needs depends on the way: of an upload the party that uploads, of
a proposal a policy board. That is what a `Judge` says.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Protocol

from ostiary.board import Operation
from ostiary.broker.admission import policy_board_of, unmade
from ostiary.broker.cas import Cas
from ostiary.broker.namespace import ROOT, parent_of
from ostiary.broker.session_records import StoredSession
from ostiary.errors import ConflictError, NotAuthorizedError, NotFoundError, RefusedError
from ostiary.session import ParsedSession, SignerSubject
from ostiary.store import Expect, Write


@dataclass(frozen=True, kw_only=True)
class Permit:
    """The version may be stored if all of `expect` holds, together with `writes`. current: what it replaces."""

    current: StoredSession | None
    expect: tuple[Expect, ...] = ()
    writes: tuple[Write, ...] = ()


class Judge(Protocol):
    """Whose word counts. Each method returns the records that say that it may be done; else it raises RefusedError."""

    def admit(self, operation: Operation, judged: StoredSession) -> tuple[Expect, ...]:
        """To do `operation` on a session by its current version: update it, or create sessions in it."""

    def found(self, founded: StoredSession) -> tuple[Expect, ...]:
        """To put a session under the policy board that `founded`, its next version, names; nobody decided so far."""


def permit(cas: Cas, parsed: ParsedSession, judge: Judge) -> Permit:
    """Walk through all that must hold for `parsed` to become the current version of its session.

    Guarantees on return: while `expect` holds, `parsed` follows exactly the version that its `predecessor` names, which
    is the current one, or it is the first; and `judge` was asked for everything that needs somebody's word: the update
    or the creation, and that a board takes over a session that none decided about. A board that decides about the next
    version can do so, as keys are now.
    Raises what `judge` raises, NotFoundError (predecessor of nothing, no such namespace), ConflictError (not the
    current version), NotAuthorizedError (a sealed root), RefusedError.
    """
    name = parsed.session.name
    current = cas.sessions.current(name)
    _check_succession(parsed, current)
    founding = judge.found(as_stored(parsed, current)) if founds_board(parsed, current) else ()
    if current is None:
        return _permit_creation(cas, parsed, judge, founding)
    expect = (*judge.admit(Operation.UPDATE, current), *founding)
    # After the rights: whoever has none must not find out by trying whether a hash is the right one.
    _check_predecessor(parsed, current)
    expect = (*expect, *_check_next_can_decide(cas, parsed, current))
    if name != ROOT or current.record:
        return Permit(current=current, expect=expect)
    if cas.sessions.root_is_sealed:
        raise NotAuthorizedError(
            f"You have insufficient rights to update session {ROOT}",
            "the root namespace is sealed: other sessions were created before anybody updated it",
        )
    return Permit(current=current, expect=(*expect, cas.sessions.root_is_not_sealed))


def founds_board(parsed: ParsedSession, current: StoredSession | None) -> bool:
    """Whether `parsed` names a policy board that no other board has decided about."""
    board = parsed.session.policy_board
    if board is None or current is None:
        return board is not None
    before = current.parsed.session
    return not before.board_decides(Operation.UPDATE.value) and before.policy_board != board


def as_stored(parsed: ParsedSession, current: StoredSession | None) -> StoredSession:
    """`parsed` as it would be in the place of `current`, to resolve its variables before it is stored.

    It has the values, as they are now, of secrets that are declared as they were.
    """
    if current is None:
        return StoredSession(parsed=parsed, creator=None, values={}, record=0)
    after = StoredSession(parsed=parsed, creator=None, values={}, record=current.record)
    kept = {name for name, secret in after.secrets.items() if current.secrets.get(name) == secret}
    if not kept or not current.has_values:
        return after
    return after.with_values({name: value for name, value in current.values.items() if name in kept})


def _check_next_can_decide(cas: Cas, parsed: ParsedSession, current: StoredSession) -> tuple[Expect, ...]:
    """Nobody could mend a session once it is under a board whose members have no keys.

    A board that takes over where none decided is not asked here: it approves this version itself, so that it can.
    """
    board = parsed.session.policy_board
    if board is None or founds_board(parsed, current) or not parsed.session.board_decides(Operation.UPDATE.value):
        return ()
    founded = as_stored(parsed, current)
    resolved = policy_board_of(cas, founded)
    made = unmade(resolved.thing, founded)
    heard = [one for one in resolved.thing.members if one.name in made or isinstance(one.signer, SignerSubject)]
    if len(heard) <= board.tolerated_faults and not any(one.may_approve for one in heard):
        raise RefusedError(
            "the policy board of the proposed version could decide nothing: the keys of too many members are not known",
            "see that the secrets exist, and are exported, that its members' signers name",
        )
    unheard = [one.name for one in resolved.thing.members if one.may_reject and one not in heard]
    if unheard and (board.break_glass is None or len(heard) < board.break_glass):
        raise RefusedError(
            "the policy board of the proposed version could decide nothing: nothing is approved while the key of a "
            f"member with the power to reject is not known: {', '.join(unheard)}",
            "see that the secret exists, and is exported, that its signer names; or give the board a break_glass",
        )
    return resolved.rests_on


def _permit_creation(cas: Cas, parsed: ParsedSession, judge: Judge, founding: tuple[Expect, ...]) -> Permit:
    name = parsed.session.name
    namespace_name = parent_of(name) or ROOT
    namespace = cas.sessions.current(namespace_name)
    if namespace is None:
        raise NotFoundError(
            f"Failed to create session '{name}': Namespace not found",
            f"there is no session {namespace_name}, which is its namespace; create that first",
        )
    expect = (*judge.admit(Operation.CREATE_SESSIONS, namespace), *founding)
    _check_namespace_hash(parsed, namespace)
    if not namespace.has_values:
        raise RefusedError(
            f"Failed to create session '{name}'",
            f"the values of its namespace {namespace_name} cannot be had from their key vault",
            "ask those who may read it",
        )
    unclaimed = namespace_name == ROOT and not namespace.record
    if unclaimed and cas.sessions.root_is_sealed:
        # The default root admits everybody for ever, so that nothing rests on it.
        return Permit(current=None, expect=founding)
    writes = (cas.sessions.seal_root(),) if unclaimed else ()
    return Permit(current=None, expect=expect, writes=writes)


def _check_namespace_hash(parsed: ParsedSession, namespace: StoredSession) -> None:
    wanted = parsed.session.namespace_hash
    if wanted is not None and not hmac.compare_digest(wanted, namespace.parsed.hash):
        raise ConflictError(
            f"Failed to create session '{parsed.session.name}'",
            f"namespace_hash {wanted.hex()} is not the hash of the current version of its namespace "
            f"{namespace.parsed.session.name}",
            "read the namespace again, see whether you still trust it, and retry with its hash",
        )


def _check_succession(parsed: ParsedSession, current: StoredSession | None) -> None:
    """A predecessor is named if there is one, and only then."""
    name, predecessor = parsed.session.name, parsed.session.predecessor
    if current is None:
        if predecessor is not None:
            raise NotFoundError(
                f"Failed to update session '{name}': Session not found",
                f"predecessor {predecessor.hex()} is given, but there is no session of this name to succeed",
                "remove `predecessor` to create the session",
            )
        return
    if predecessor is None:
        raise ConflictError(
            f"Failed to create session '{name}'",
            "Session already exists, please specify predecessor hash",
            "read the session, merge, and set `predecessor` to its hash",
        )


def _check_predecessor(parsed: ParsedSession, current: StoredSession) -> None:
    # It is there, as `_check_succession` has seen; what is not there equals nothing.
    name, predecessor = parsed.session.name, parsed.session.predecessor or b""
    if not hmac.compare_digest(predecessor, current.parsed.hash):
        raise ConflictError(
            f"Failed to update session '{name}'",
            f"predecessor {predecessor.hex()} is not the hash of the current version",
            "read the session again, merge, and retry with the new hash",
        )
