"""CEL expressions: compiled with types checked, judged one by one. The only module that knows the CEL library. Pure.

Bounds of the library, whatever the data: 10,000 iterations of all comprehensions of one evaluation together, nesting
of 32, regular expressions without backtracking. Memory and time are bounded by `ostiary.checker.confined`.
Source: CEL language definition (cel-spec, doc/langdef.md); docs/adr/0034.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from ostiary.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from cel_expr_python import cel

MAX_EXPRESSION_CHARACTERS = 4000

Plain: TypeAlias = "bool | int | str | list[Plain] | dict[str, Plain] | None"
"""What JSON can say, without fractions."""

_WHERE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS = re.compile(r"[A-Z_]+")


@dataclass(frozen=True, kw_only=True)
class Expression:
    """One rule as its author wrote it. listed: what `listed` stands for; None: the expression has no such variable."""

    name: str
    must: str
    listed: tuple[str, ...] | None = None


class Result(Enum):
    """What came of one expression. Nothing but HOLDS lets a proposal pass."""

    HOLDS = "holds"
    FAILS = "fails"
    NO_RESULT = "no result"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """why: of NO_RESULT, in words that hold nothing of the session. detail: the same, perhaps with pieces of it; of
    FAILS with a list, what is admitted and not in it.
    """

    name: str
    result: Result
    why: str = ""
    detail: str = ""


def check_expression(must: str, *, listed: bool) -> None:
    """Whether it can be compiled and can give a boolean. listed: whether it may use `listed`.

    Raises InputError with one sentence that says where in the expression; ConfigurationError without the CEL library.
    """
    _compile(must, listed=listed)


def judge(expressions: Sequence[Expression], variables: Mapping[str, Plain]) -> Iterator[Judged]:
    """What comes of each expression over these variables, in their order, each as soon as it is known.

    Guarantees: HOLDS only if the expression gave the boolean true; an error, another type of value, an expression that
    does not compile and a fault of the library are NO_RESULT. One expression changes nothing for the next.
    """
    for expression in expressions:
        yield _judge(expression, variables)


def _judge(expression: Expression, variables: Mapping[str, Plain]) -> Judged:
    listed = expression.listed
    data = dict(variables) if listed is None else {**variables, "listed": list(listed)}
    try:
        value = _compile(expression.must, listed=listed is not None).eval(data=data)
        kind, found = value.type().name(), value.value()
    except InputError as error:
        return _no_result(expression, "the expression does not compile", error.message)
    except Exception as error:  # a foreign library: whatever it raises, the rule did not hold
        return _no_result(expression, _status(str(error)), str(error))
    if kind == "ERROR":
        return _no_result(expression, _status(str(found)), str(found))
    if found is True or found is False:
        if found is True:
            return Judged(name=expression.name, result=Result.HOLDS)
        detail = "" if listed is None else _unlisted(variables.get("admitted"), frozenset(listed))
        return Judged(name=expression.name, result=Result.FAILS, detail=detail)
    return _no_result(expression, f"it gave {kind}, expected a boolean")


def _unlisted(admitted: Plain, listed: frozenset[str]) -> str:
    """What is admitted, and not in the list of the rule that failed; perhaps that is why."""
    rows = [row for row in admitted if isinstance(row, dict)] if isinstance(admitted, list) else []
    told = [
        " ".join(str(row[part]) for part in ("service", "tee", "name", "value"))
        for row in rows
        if row.get("value") not in listed
    ]
    return f"admitted and not listed: {'; '.join(told)}" if told else ""


def _no_result(expression: Expression, why: str, detail: str = "") -> Judged:
    return Judged(name=expression.name, result=Result.NO_RESULT, why=why, detail=detail or why)


def _status(message: str) -> str:
    """The kind of an error alone: the rest may be a piece of the session."""
    found = _STATUS.match(message)
    return f"it could not be evaluated ({found[0] if found else 'UNKNOWN'})"


def _compile(must: str, *, listed: bool) -> cel.Expression:
    if len(must) > MAX_EXPRESSION_CHARACTERS:
        raise InputError(
            f"the expression has {len(must)} characters, at most {MAX_EXPRESSION_CHARACTERS} are allowed; "
            "make several rules of it"
        )
    if not must.strip():
        raise InputError("the expression is empty; write what must be true of a proposal")
    try:
        compiled = _environment(listed=listed).compile(must)
    except RuntimeError as error:
        raise InputError(_mistake(str(error))) from None
    given = compiled.return_type().name()
    if given not in ("BOOL", "DYN"):
        raise InputError(f"the expression gives {given}, expected a boolean")
    return compiled


def _mistake(message: str) -> str:
    found = _WHERE.search(message)
    if found is None:
        return f"no expression of CEL: {message.splitlines()[0]}"
    return f"line {found[1]} column {found[2]} of the expression: {found[3].removesuffix(' [INVALID_ARGUMENT]')}"


@cache
def _environment(*, listed: bool) -> cel.Env:
    """The variables that `material` makes, with their types."""
    try:
        from cel_expr_python import cel  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("the CEL library is not installed", "install ostiary[checker]") from None
    text, dyn = cel.Type.STRING, cel.Type.DYN
    rows = cel.Type.List(cel.Type.Map(text, text))
    types = {
        "old": dyn,
        "new": dyn,
        "diff": rows,
        "risks": rows,
        "proposal": cel.Type.Map(text, dyn),
        "admitted": rows,
        "variables": rows,
    }
    return cel.NewEnv(variables={**types, "listed": cel.Type.List(text)} if listed else types)
