"""Who may read and update: a table of rules, most of them refusals."""

from __future__ import annotations

import pytest

from ostiary.board import Operation, authorize
from ostiary.errors import IdentityRequiredError, NotAuthorizedError
from ostiary.session.model import AccessPolicy, AnySubject, CreatorSubject, KeySubject, NoneSubject, Subject, Variable
from ostiary.session.placeholder import Placeholder

ALICE, BOB, EVE = b"A" * 32, b"B" * 32, b"E" * 32


def decide(
    *subjects: Subject,
    operation: Operation = Operation.UPDATE,
    creator: bytes | None = ALICE,
    caller: bytes | None = ALICE,
) -> None:
    """Ask with `subjects` for `operation`, and nobody for the other one."""
    nobody = (NoneSubject(),)
    policy = (
        AccessPolicy(read=subjects, update=nobody)
        if operation is Operation.READ
        else AccessPolicy(read=nobody, update=subjects)
    )
    authorize(operation, policy, session="s", creator=creator, caller=caller)


ADMITTED: dict[str, tuple[tuple[Subject, ...], bytes | None, bytes | None]] = {
    "ANY admits everyone": ((AnySubject(),), ALICE, EVE),
    "ANY admits a caller without certificate": ((AnySubject(),), ALICE, None),
    "CREATOR admits the creator's key": ((CreatorSubject(),), ALICE, ALICE),
    "a key admits its holder": ((KeySubject(key_hash=BOB),), ALICE, BOB),
    "one admitting subject of several is enough": ((CreatorSubject(), KeySubject(key_hash=BOB)), ALICE, BOB),
}

REFUSED: dict[str, tuple[tuple[Subject, ...], bytes | None, bytes | None]] = {
    "NONE admits nobody, the creator included": ((NoneSubject(),), ALICE, ALICE),
    "an empty list admits nobody": ((), ALICE, ALICE),
    "CREATOR does not admit another key": ((CreatorSubject(),), ALICE, EVE),
    "CREATOR admits nobody if no creator was recorded": ((CreatorSubject(),), None, ALICE),
    "a key does not admit another": ((KeySubject(key_hash=BOB),), ALICE, ALICE),
}


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("case", ADMITTED)
def test_admits(case: str, operation: Operation) -> None:
    subjects, creator, caller = ADMITTED[case]
    decide(*subjects, operation=operation, creator=creator, caller=caller)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, operation: Operation) -> None:
    subjects, creator, caller = REFUSED[case]
    with pytest.raises(NotAuthorizedError, match=f"no caller of this key for '{operation.value}'"):
        decide(*subjects, operation=operation, creator=creator, caller=caller)


@pytest.mark.parametrize("subject", [CreatorSubject(), KeySubject(key_hash=BOB)])
def test_a_caller_without_certificate_is_told_to_show_one_where_a_key_could_be_admitted(subject: Subject) -> None:
    with pytest.raises(IdentityRequiredError, match="no client certificate was shown"):
        decide(subject, caller=None)


def test_a_caller_without_certificate_is_not_told_to_show_one_where_none_would_help() -> None:
    with pytest.raises(NotAuthorizedError):
        decide(NoneSubject(), caller=None)


def test_a_missing_creator_and_a_missing_caller_are_not_equal() -> None:
    with pytest.raises(IdentityRequiredError):
        decide(CreatorSubject(), creator=None, caller=None)


def test_operations_are_judged_apart() -> None:
    """Who may read may not therefore update."""
    policy = AccessPolicy(read=(AnySubject(),), update=(CreatorSubject(),))
    authorize(Operation.READ, policy, session="s", creator=ALICE, caller=EVE)
    with pytest.raises(NotAuthorizedError, match="insufficient rights to update session s"):
        authorize(Operation.UPDATE, policy, session="s", creator=ALICE, caller=EVE)


@pytest.mark.parametrize("operation", Operation)
def test_a_policy_or_an_entry_that_is_an_unresolved_variable_admits_nobody(operation: Operation) -> None:
    """F180, F181."""
    variable = Variable(placeholder=Placeholder(name="x"))
    with pytest.raises(NotAuthorizedError):
        authorize(operation, variable, session="s", creator=ALICE, caller=ALICE)
    with pytest.raises(NotAuthorizedError):
        decide(variable, operation=operation)
