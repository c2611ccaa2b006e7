"""How values stand in a refusal: what was found, what a session expects, and variables that nothing is known of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ostiary.errors import Factor, Held, Mismatch
from ostiary.session.model import Variable

_Value = TypeVar("_Value")

AND = " and "
"""Between digests that were found together."""
MAX_TOLD_VALUES = 16
"""Reference values of one factor that a report names."""


def shown(value: bytes | int | Variable) -> str:
    """A reference value of a session, or what evidence has in its place."""
    if isinstance(value, Variable):
        return f"the unresolved {value.placeholder}"
    return value.hex() if isinstance(value, bytes) else str(value)


def found(value: bytes | int | None) -> str:
    """What the evidence says of a factor; None: nothing."""
    return "none in evidence of this TEE" if value is None else shown(value)


def any_of(values: Sequence[_Value], write: Callable[[_Value], str]) -> str:
    """Values of which one suffices; nobody reads more than MAX_TOLD_VALUES, so the rest is counted."""
    left = len(values) - MAX_TOLD_VALUES
    told = " or ".join(write(value) for value in values[:MAX_TOLD_VALUES])
    return told if left <= 0 else f"{told} or {left} more"


def judged(holds: bool, *, factor: str, found: str, expected: str, advice: str) -> Factor:
    """One factor, as it turned out. advice: for whoever has to mend it, if it does not hold."""
    if holds:
        return Held(factor=factor, found=found, expected=expected)
    return Mismatch(factor=factor, found=found, expected=expected, advice=advice)


def unresolved(factor: str, variable: Variable) -> Mismatch:
    """Nothing may be decided on a variable: it fulfils nothing."""
    return Mismatch(
        factor=factor,
        found="a variable that is not resolved",
        expected=f"the secret of {variable.placeholder} to be there and to fit",
        advice="look why the secret cannot be read; the session may have lost an import",
    )
