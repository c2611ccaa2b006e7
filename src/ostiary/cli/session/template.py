"""Variables of session templates: `$NAME` and `${NAME}` in values become text. Pure: no file, no environment.

Syntax, one scan from the left over the text of a YAML scalar that is a value (never over keys or raw text)::

    "\\$"                   a dollar sign
    "$$"                   stays as it is, as a pair: `$$SCONE::…$$` is never a variable
    "$NAME" / "${NAME}"    the variable; NAME = [A-Za-z_][A-Za-z0-9_]*, the longest match
    "$" before any other   stays as it is

Source: command line interface of SCONE, "Session templates"; session language, "Document and YAML", 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ostiary.errors import Finding, SessionFormatError
from ostiary.session.document import parse_document
from ostiary.session.findings import Findings
from ostiary.session.node import Path

_TOKEN = re.compile(r"\\\$|\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SAFE_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+=@%~-]*")
_NOT_PLAIN = re.compile(r"~|null|\.+", re.IGNORECASE)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_NULL = "~"


def is_variable_name(text: str) -> bool:
    """Whether `text` can follow `$`."""
    return _VARIABLE_NAME.fullmatch(text) is not None


def substitute(text: str, lookup: Callable[[str], str | None]) -> str:
    """The session text with its variables replaced; everything else, comments and lines included, stays as it is.

    lookup: the value of a variable, None if it has none.

    Guarantees on return: the document has the structure and keys that it had, whatever the values hold; a replaced
    value is not scanned again; a value that is one variable whose text is `~` is null; each line of the text that
    follows stands on the line that it stood on.
    Does not guarantee: that it is a session (`ostiary.session.parse_session` decides that).

    Raises SessionFormatError: no YAML document, or variables without a value, all of them in one error, in the words
    `PATH: Value for variable $NAME is missing at line L column C`. Raises TooLargeError.
    """
    if "$" not in text:
        return text
    missing: list[str] = []
    edits: list[_Edit] = []
    for scalar in _values(text):
        replaced, unknown = _expand(scalar.text, lookup)
        missing += [_missing(text, scalar, number, name) for number, name in unknown]
        if replaced != scalar.text:
            whole = _TOKEN.fullmatch(scalar.text)
            is_null = replaced == _NULL and whole is not None and whole[0] != "\\$"
            edits.append(_Edit(scalar=scalar, written=_NULL if is_null else _spell(replaced)))
    if missing:
        findings = tuple(Finding(line=0, column=0, path="", message=message) for message in missing)
        raise SessionFormatError("variables have no value; give them with -e NAME=VALUE or --use-env", findings)
    return _edited(text, edits)


def rename(text: str, name: str) -> str:
    """The session text with `name` as its name. Raises SessionFormatError if it has no `name`, TooLargeError."""
    for scalar in _values(text):
        if str(scalar.path) == "name" and scalar.start < scalar.end:
            return _edited(text, [_Edit(scalar=scalar, written=_spell(name))])
    message = "--name replaces the name of the session, and there is none; add the line name: NAME"
    raise SessionFormatError("the session has no name", (Finding(line=0, column=0, path="name", message=message),))


@dataclass(frozen=True, kw_only=True)
class _Value:
    """A scalar that is a value. start, end: characters of the source, properties (anchor, tag) included.

    line, column: from 1, of its start. block: `|` or `>`.
    """

    path: Path
    text: str = field(repr=False)
    start: int
    end: int
    line: int
    column: int
    block: bool
    properties: str


@dataclass(frozen=True, kw_only=True)
class _Edit:
    scalar: _Value
    written: str = field(repr=False)


@dataclass(slots=True)
class _Open:
    """A mapping or list being read. key: of the value that comes next, None if a key comes next."""

    path: Path
    mapping: bool
    key: str | None = None
    count: int = 0

    def next_path(self) -> Path:
        return self.path.child((self.key or "") if self.mapping else self.count)

    def took(self) -> None:
        self.key = None
        self.count += 1


def _values(text: str) -> Iterator[_Value]:
    """Every scalar that is a value. The document is checked first: bounded, one mapping, keys that are text."""
    parse_document(text, Findings())
    yaml = YAML(typ="safe", pure=True)
    stack: list[_Open] = []
    for event in yaml.parse(text):
        yield from _take(event, stack)


def _take(event: Event, stack: list[_Open]) -> Iterator[_Value]:
    if isinstance(event, MappingEndEvent | SequenceEndEvent):
        stack.pop()
        if stack:
            stack[-1].took()
    elif isinstance(event, MappingStartEvent | SequenceStartEvent):
        path = stack[-1].next_path() if stack else Path()
        stack.append(_Open(path=path, mapping=isinstance(event, MappingStartEvent)))
    elif isinstance(event, ScalarEvent | AliasEvent) and stack:
        parent = stack[-1]
        if parent.mapping and parent.key is None:
            parent.key = event.value if isinstance(event, ScalarEvent) else ""
            return
        if isinstance(event, ScalarEvent):
            yield _value(event, parent.next_path())
        parent.took()


def _value(event: ScalarEvent, path: Path) -> _Value:
    start = event.start_mark
    anchor = f"&{event.anchor} " if event.anchor else ""
    return _Value(
        path=path,
        text=event.value,
        start=start.index,
        end=event.end_mark.index,
        line=start.line + 1,
        column=start.column + 1,
        block=event.style in ("|", ">"),
        properties=anchor + _tag(event.tag),
    )


def _tag(tag: str | None) -> str:
    if not tag:
        return ""
    return f"{tag} " if tag.startswith("!") else f"!<{tag}> "


def _expand(text: str, lookup: Callable[[str], str | None]) -> tuple[str, list[tuple[int, str]]]:
    """The text with its variables replaced; and number (from 0) and name of those without a value."""
    unknown: list[tuple[int, str]] = []
    number = -1

    def replace(found: re.Match[str]) -> str:
        nonlocal number
        if found[0] == "\\$":
            return "$"
        name = found[1] or found[2]
        if name is None:
            return found[0]
        number += 1
        value = lookup(name)
        if value is None:
            unknown.append((number, name))
            return found[0]
        return value

    return _TOKEN.sub(replace, text), unknown


def _variables(text: str) -> list[re.Match[str]]:
    return [found for found in _TOKEN.finditer(text) if found[1] or found[2]]


def _missing(source: str, scalar: _Value, number: int, name: str) -> str:
    line, column = _position(source, scalar, number)
    return f"{scalar.path}: Value for variable ${name} is missing at line {line} column {column}"


def _position(source: str, scalar: _Value, number: int) -> tuple[int, int]:
    """Line and column of a variable; of its scalar if the source spells the variables with escapes."""
    written = _variables(source[scalar.start : scalar.end])
    meant = _variables(scalar.text)
    if [found[0] for found in written] != [found[0] for found in meant]:
        return scalar.line, scalar.column
    at = scalar.start + written[number].start()
    line_start = source.rfind("\n", 0, at) + 1
    return scalar.line + source.count("\n", scalar.start, at), at - line_start + 1


def _spell(text: str) -> str:
    """A YAML scalar of one line: plain if it can be, so that numbers and booleans are such, else in quotes."""
    if _SAFE_PLAIN.fullmatch(text) and not _NOT_PLAIN.fullmatch(text):
        return text
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _edited(text: str, edits: list[_Edit]) -> str:
    parts: list[str] = []
    end = 0
    for edit in edits:
        scalar = edit.scalar
        parts += [text[end : scalar.start], _fitted(text, edit)]
        end = scalar.end
    return "".join([*parts, text[end:]])


def _fitted(text: str, edit: _Edit) -> str:
    """What takes the place of a scalar, in as many lines as it had."""
    scalar = edit.scalar
    old = text[scalar.start : scalar.end]
    # The end of a block belongs to it, up to the next line's indentation.
    body = old.rstrip(" \n") if scalar.block else old
    return scalar.properties + edit.written + "\n" * body.count("\n") + old[len(body) :]
