"""One table from error to status, and the JSON form of every answer.

Errors are `{"msg": ["what failed", "cause", …], "version": "…"}`, from the outside in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ostiary import __version__
from ostiary.errors import (
    ConflictError,
    IdentityRequiredError,
    InputError,
    NotFoundError,
    OstiaryError,
    RefusedError,
    StoreError,
    TooLargeError,
)

JsonValue = str | int | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

_STATUS: tuple[tuple[type[OstiaryError], int], ...] = (
    (TooLargeError, 413),
    (InputError, 400),
    (IdentityRequiredError, 401),
    (RefusedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (StoreError, 503),
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status and JSON body of an HTTP answer."""

    status: int
    body: bytes = field(repr=False)


def answer(status: int, value: JsonValue) -> Answer:
    """`value` as compact JSON on one line; scripts look for `"hash":` with nothing between."""
    return Answer(status=status, body=json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def refusal(status: int, *chain: str, **members: str | None) -> Answer:
    """An error answer with the given sentences, outermost first."""
    return answer(status, {"msg": list(chain), **members, "version": __version__})


_UNCHANGED = "the service cannot do this now; its log says why, and nothing was changed"
_OPEN = "the service cannot say now whether this was carried out; its log says why: read again before another try"


def error_answer(error: OstiaryError, *, doing: str = "") -> Answer:
    """What the caller is told about `error`; `doing` says what failed, as "Failed to read session 'x'".

    Trouble with our own store or configuration is told without its causes: those are for the log.
    """
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    chain = error.chain
    if status >= 500:
        chain = (_OPEN if isinstance(error, StoreError) and error.outcome_open else _UNCHANGED,)
    if not doing:
        return refusal(status, *chain)
    # Some clients look for the cause in the first element only, others in the second: it stands in both.
    return refusal(status, f"{doing}: {chain[0]}", *chain)
