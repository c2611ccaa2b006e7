"""Names of sessions, services, secrets and images. Source: session language, "Names, namespaces, paths"."""

from __future__ import annotations

import re

from ostiary.session import language
from ostiary.session.findings import quote, template_hint
from ostiary.session.node import Node, Scalar
from ostiary.session.reading import Reading, describe

MAX_NAME_CHARACTERS = 512

_SEGMENT = re.compile(r"[A-Za-z0-9_.~-]+")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.~-]")
_DOTS = frozenset({".", ".."})
_ALPHABET = "A-Z a-z 0-9 _ - . ~"


def read_session_name(reading: Reading, node: Node) -> str:
    """The name of a session. Namespaces (`/`) are known and not supported yet."""
    text = reading.text(node)
    segments = text.split("/")
    if text == "/" or (len(segments) > 1 and all(_SEGMENT.fullmatch(part) and part not in _DOTS for part in segments)):
        reading.require_level(node, "a namespace in a name", language.NAMESPACE_LEVEL)
        reading.not_yet(node, "a name with / (a namespace)")
        return text
    if len(segments) > 1:
        reading.findings.error(
            node, f"found {describe(node)}, expected segments joined by single slashes, none of them empty, . or .."
        )
        return text
    _check_segment(reading, node, text)
    if text in _DOTS:
        reading.findings.error(node, f"found {describe(node)}, which is no name; write a name of letters and digits")
    return text


def read_segment(reading: Reading, node: Node) -> str:
    """A name of letters, digits and `_ - . ~`, 1 to MAX_NAME_CHARACTERS long."""
    text = reading.text(node)
    _check_segment(reading, node, text)
    return text


def _check_segment(reading: Reading, node: Node, text: str) -> None:
    wrong = _FORBIDDEN.search(text)
    if wrong is not None:
        reading.findings.error(
            node,
            f"found {describe(node)} with the character {quote(wrong[0])}, expected a name out of {_ALPHABET}"
            f"{template_hint(text)}",
        )
    elif not text and isinstance(node, Scalar) and not node.is_null:
        reading.findings.error(node, f"found an empty name, expected 1 to {MAX_NAME_CHARACTERS} out of {_ALPHABET}")
    elif len(text) > MAX_NAME_CHARACTERS:
        reading.findings.error(
            node, f"found a name of {len(text)} characters, at most {MAX_NAME_CHARACTERS} are allowed"
        )


def read_image_name(reading: Reading, node: Node) -> str:
    """An image's name: any visible text, such as `registry.example/img:1.0`."""
    text = reading.text(node)
    if isinstance(node, Scalar) and not node.is_null and (not text or not text.isprintable()):
        reading.findings.error(node, f"found {describe(node)}, expected a text without control or invisible characters")
    elif len(text) > MAX_NAME_CHARACTERS:
        reading.findings.error(
            node, f"found a name of {len(text)} characters, at most {MAX_NAME_CHARACTERS} are allowed"
        )
    return text
