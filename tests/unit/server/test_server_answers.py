"""From error to status, and what an outsider is told."""

from __future__ import annotations

import json

import pytest

from ostiary import errors
from ostiary.server.answers import answer, error_answer, refusal

TABLE = {
    errors.TooLargeError: 413,
    errors.InputError: 400,
    errors.EvidenceFormatError: 400,
    errors.IdentityRequiredError: 401,
    errors.NotAuthorizedError: 403,
    errors.ReleaseRefusedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.StoreError: 503,
    errors.TamperedError: 503,
    errors.ConfigurationError: 500,
    errors.OutsideError: 500,
}


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_each_error_has_its_status(kind: type[errors.OstiaryError]) -> None:
    assert error_answer(kind("what", "why")).status == TABLE[kind]


def test_the_message_and_its_causes_are_told_from_the_outside_in() -> None:
    told = json.loads(error_answer(errors.InputError("what", "why", "do this")).body)
    assert told["msg"] == ["what", "why", "do this"]


def test_what_was_being_done_stands_first_with_the_cause_and_the_cause_again() -> None:
    told = json.loads(error_answer(errors.NotFoundError("Session not found"), doing="Failed to read 'x'").body)
    assert told["msg"] == ["Failed to read 'x': Session not found", "Session not found"]


@pytest.mark.parametrize("kind", [errors.StoreError, errors.OutsideError])
def test_trouble_of_ours_is_told_without_its_inside(kind: type[errors.OstiaryError]) -> None:
    told = error_answer(kind("/var/lib/secret-place is full", "errno 28"))
    assert b"secret-place" not in told.body
    assert b"errno" not in told.body


def test_that_nothing_was_changed_is_told_only_where_it_is_known() -> None:
    """A commit whose acknowledgement failed may stand."""
    trouble = errors.StoreError("the witness is down")
    assert b"and nothing was changed" in error_answer(trouble).body
    trouble.outcome_open = True
    told = error_answer(trouble).body
    assert b"nothing was changed" not in told
    assert b"cannot say now whether this was carried out; its log says why: read again before another try" in told


def test_a_body_is_in_no_repr() -> None:
    assert "hidden" not in repr(answer(200, {"value": "hidden"}))


def test_an_answer_is_compact_and_keeps_its_order_and_its_letters() -> None:
    assert answer(200, {"hash": "ä", "a": [None, True, 1]}).body == '{"hash":"ä","a":[null,true,1]}'.encode()
    assert list(json.loads(refusal(403, "no", denial="id").body)) == ["msg", "denial", "version"]
