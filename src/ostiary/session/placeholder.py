"""`$$SCONE::name[:format…][|encoding]$$`: where they stand in a text. What they become is decided in `secret`.

Syntax (Source: session language, "Placeholders")::

    placeholder = "$$SCONE::" name *( ":" format ) [ "|" encoding ] "$$"
    name        = 1*512( ALPHA / DIGIT / "_" / "-" / "." / "~" )
    format      = 1*64( ALPHA / DIGIT / "_" / "-" )
    encoding    = 1*64( any but white space, "$" and "|" )
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "$$SCONE:"
"""What begins like a placeholder; text with it that is none is malformed."""

SOFTWARE_IDENTITY = "$$SCONE::self::software_identity$$"
"""The one name that is no secret's: the measurement of the program that receives a token."""

# Each class ends before the character that follows it, so nothing is tried twice. Possessive quantifiers would say so,
# but Python 3.11.2, which Debian 12 has, matches them wrongly.
_PLACEHOLDER = re.compile(r"\$\$SCONE::([A-Za-z0-9_.~-]{1,512})((?::[A-Za-z0-9_-]{1,64})*)(?:\|([^\s$|]{1,64}))?\$\$")
_SHELL_ESCAPE = re.compile(r"\\\$\\?\$SCONE::?")


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """One placeholder.

    name: of the secret, with a deprecated dot form still in it. format: without its first colon, "" if none.
    encoding: "" if none.
    """

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

    @property
    def has_malformed(self) -> bool:
        """Whether some text begins like a placeholder and is none; it stays as it is written."""
        return any(isinstance(part, str) and MARK in part for part in self.parts)

    @property
    def has_shell_escape(self) -> bool:
        """Whether some text is a placeholder with a shell's backslashes left in it; it stays as it is written."""
        return any(isinstance(part, str) and _SHELL_ESCAPE.search(part) is not None for part in self.parts)


def parse_template(text: str) -> Template:
    """Cut a text at its placeholders: one scan from the left, no overlap. Any text is a template.

    Guarantees: `str(parse_template(text)) == text`; no part is empty. Says nothing about whether the secrets exist.
    """
    if MARK not in text:
        return Template(parts=(text,) if text else ())
    parts: list[str | Placeholder] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            parts.append(text[end : found.start()])
        parts.append(Placeholder(name=found[1], format=found[2].removeprefix(":"), encoding=found[3] or ""))
        end = found.end()
    if end < len(text):
        parts.append(text[end:])
    return Template(parts=tuple(parts))
