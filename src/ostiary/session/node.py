"""The nodes of a parsed document: mappings, sequences and scalars that know where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

_MAX_STEP_CHARACTERS = 100
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Path:
    """Where a node stands: `services[0].attestation.signer`. Linked to the path above, and written out on demand."""

    parent: Path | None = None
    step: str | int = ""

    def child(self, step: str | int) -> Path:
        return Path(self, step)

    def __str__(self) -> str:
        steps = []
        path: Path | None = self
        while path is not None and path.parent is not None:
            steps.append(path.step)
            path = path.parent
        return "".join(_step(step) for step in reversed(steps)).removeprefix(".")


class Located(Protocol):
    """What a message can point at. line, column: from 1."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def path(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A place without a node; line 0 is the document as a whole."""

    line: int
    column: int
    path: Path = Path()


@dataclass(frozen=True, slots=True)
class Scalar:
    """text: source spelling. plain: not quoted and not a block, so that YAML may give it a type. tag: as in Mapping."""

    line: int
    column: int
    path: Path
    text: str = field(repr=False)
    plain: bool
    tag: str = ""

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS and not self.tag


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    column: int
    path: Path
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """keys: the node of each key, to point at. values: by the text of the key, in the order of the document.

    tag: one of the language's own, or "".
    """

    line: int
    column: int
    path: Path
    keys: dict[str, Scalar]
    values: dict[str, Node]
    tag: str = ""


Node = Scalar | Sequence | Mapping


def escape(text: str) -> str:
    """`text` with control and invisible characters written as escapes, for a message."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return "." + escape(step if len(step) <= _MAX_STEP_CHARACTERS else f"{step[:_MAX_STEP_CHARACTERS]}…")
