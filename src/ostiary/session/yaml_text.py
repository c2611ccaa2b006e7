"""A normal form as YAML text that every YAML 1.1 and 1.2 parser reads back to the same value.

Block style, lists not indented, texts of several lines as `|`, as clients know it from other implementations. Texts
that some parser would take for a number, a date, a boolean or null are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ostiary.session.normal import JsonObject, JsonValue, Octal

_MAX_SIMPLE_KEY_CHARACTERS = 1000  # YAML allows 1024

_PLAIN = re.compile(r"(?:[A-Za-z_/$\\]|\.[/A-Za-z])(?:[A-Za-z0-9_./$\\+=~@,()|*&!?<>%{}\[\]\"' -]|:(?! |\Z))*(?<! )")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_TYPED = re.compile(r"null|true|false|yes|no|on|off|y|n|\.inf|\.nan", re.IGNORECASE)
_BLANK_LINE = re.compile(r"^[ \t]+$", re.MULTILINE)
_SHORT_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def write_yaml(normal: JsonObject) -> str:
    """The text, ending in a line feed."""
    return "\n".join(_block(normal)) + "\n"


def _block(value: JsonValue) -> list[str]:
    """The lines of a value that begins a line of its own."""
    lines: list[str] = []
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            lines += _member(key, member)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for element in value:
            first, *rest = _block(element)
            lines += [f"- {first}", *(f"  {line}" if line else "" for line in rest)]
    else:
        return _scalar(value)
    return lines


def _member(key: str, value: JsonValue) -> list[str]:
    label = _quoted(key)
    head = [f"{label}:"] if len(label) <= _MAX_SIMPLE_KEY_CHARACTERS else [f"? {label}", ":"]
    if isinstance(value, Mapping) and value:
        return [*head, *(f"  {line}" if line else "" for line in _block(value))]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [*head, *_block(value)]
    first, *rest = _scalar(value)
    return [*head[:-1], f"{head[-1]} {first}", *rest]


def _scalar(value: JsonValue) -> list[str]:
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, Octal):
        return [f"0o{value:o}"]
    if isinstance(value, int):
        return [str(value)]
    if isinstance(value, str):
        return _literal(value) if _fits_literal(value) else [_quoted(value)]
    return ["{}" if isinstance(value, Mapping) else "[]"]


def _fits_literal(text: str) -> bool:
    body = text.removesuffix("\n")
    return (
        "\n" in text
        and text[0] not in " \t\n"
        and not body.endswith("\n")
        and body.replace("\n", "").replace("\t", "").isprintable()
        and not _BLANK_LINE.search(body)
    )


def _literal(text: str) -> list[str]:
    head = "|" if text.endswith("\n") else "|-"
    return [head, *(f"  {line}" if line else "" for line in text.removesuffix("\n").split("\n"))]


def _quoted(text: str) -> str:
    if (_PLAIN.fullmatch(text) and not _TYPED.fullmatch(text)) or _VERSION.fullmatch(text):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
