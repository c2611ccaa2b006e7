"""How values stand in a refusal: what was found, what a session expects, and variables that nothing is known of."""

from __future__ import annotations

from ostiary.errors import Mismatch
from ostiary.session.model import Variable


def shown(value: bytes | int | Variable) -> str:
    """A reference value of a session, or what evidence has in its place."""
    if isinstance(value, Variable):
        return f"the unresolved {value.placeholder}"
    return value.hex() if isinstance(value, bytes) else str(value)


def found(value: bytes | int | None) -> str:
    """What the evidence says of a factor; None: nothing."""
    return "none in evidence of this TEE" if value is None else shown(value)


def unresolved(factor: str, variable: Variable) -> Mismatch:
    """Nothing may be decided on a variable: it fulfils nothing."""
    return Mismatch(
        factor=factor,
        found="a variable that is not resolved",
        expected=f"the secret of {variable.placeholder} to be there and to fit",
        advice="look why the secret cannot be read; the session may have lost an import",
    )
