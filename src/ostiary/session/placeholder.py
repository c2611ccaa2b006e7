"""`$$SCONE::name[:format…][|encoding]$$`: where they stand in a text. What they become is decided in `secret`.

Syntax (Source: session language, "Placeholders")::

    placeholder = "$$SCONE::" name *( ":" format ) [ "|" encoding ] "$$"
    name        = 1*512( ALPHA / DIGIT / "_" / "-" / "." / "~" )
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """One placeholder: the secret's name, the format without its first colon ("" if none), the encoding ("" if none)."""

    name: str
    format: str = ""
    encoding: str = ""

    def __str__(self) -> str:
        form = f":{self.format}" if self.format else ""
        encoding = f"|{self.encoding}" if self.encoding else ""
        return f"$$SCONE::{self.name}{form}{encoding}$$"


@dataclass(frozen=True, kw_only=True)
class Template:
    """A text cut at its placeholders, in order; adjacent parts are kept as they stand, `str(template)` is the text."""

    parts: tuple[str | Placeholder, ...]

    def __str__(self) -> str:
        return "".join(str(part) for part in self.parts)

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return tuple(part for part in self.parts if isinstance(part, Placeholder))
