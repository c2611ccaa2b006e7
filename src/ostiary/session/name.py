"""Names of sessions, services, secrets, volumes and images, and references from one session to another.

Source: session language, "Names, namespaces, paths".
"""

from __future__ import annotations

import re

from ostiary.session import language
from ostiary.session.findings import quote, template_hint
from ostiary.session.node import Node, Scalar
from ostiary.session.reading import Reading, describe

MAX_NAME_CHARACTERS = 512
ROOT = "/"
"""The name of the root namespace."""

_SEGMENT = re.compile(r"[A-Za-z0-9_.~-]+")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.~-]")
_DOTS = frozenset({".", ".."})
_ALPHABET = "A-Z a-z 0-9 _ - . ~"


def read_session_name(reading: Reading, node: Node) -> str:
    """The name of a session: one segment, several joined by `/`, or `/` alone for the root namespace."""
    text = reading.text(node)
    if text == ROOT:
        reading.require_level(node, "the root namespace", language.ROOT_LEVEL)
        return text
    segments = text.split("/")
    if len(segments) == 1:
        _check_segment(reading, node, text)
        if text in _DOTS:
            reading.findings.error(
                node, f"found {describe(node)}, which is no name; write a name of letters and digits"
            )
    elif _check_segments(reading, node, segments):
        reading.require_level(node, "a namespace in a name", language.NAMESPACE_LEVEL)
        _check_length(reading, node, text)
    return text


def resolve_reference(reading: Reading, node: Node, text: str, *, relative: bool = True) -> str:
    """The absolute name that `text`, which stands at `node`, means: without a leading slash, or ROOT.

    The own session counts as a directory: in `ns/me`, `./x` is `ns/me/x`, `..` is `ns`, `../../x` is `x`.
    relative: whether relative references are possible here at all. After a mistake the result only stands in.
    """
    segments = text.removeprefix("/").split("/")
    dots = next((index for index, segment in enumerate(segments) if segment not in _DOTS), len(segments))
    if dots and not text.startswith("/"):
        return _resolve_relative(reading, node, segments, dots, relative=relative)
    if text == ROOT:
        reading.require_level(node, "the root namespace", language.ROOT_LEVEL)
        return ROOT
    if _check_segments(reading, node, segments):
        _check_length(reading, node, text)
        if len(segments) > 1:
            reading.require_level(node, "a namespace in a reference", language.NAMESPACE_LEVEL)
    return "/".join(segments)


def _resolve_relative(reading: Reading, node: Node, segments: list[str], dots: int, *, relative: bool) -> str:
    if not relative:
        reading.findings.error(
            node, f"found {describe(node)}, and the short form takes no relative names; write the whole name"
        )
        return ""
    reading.require_level(node, "a relative reference", language.RELATIVE_LEVEL)
    base = [] if reading.name == ROOT else reading.name.split("/")
    up = segments[:dots].count("..")
    if up > len(base):
        reading.findings.error(
            node, f"found {describe(node)}, which climbs above the root from session {quote(reading.name)}; remove a .."
        )
        return ""
    below = segments[dots:]
    if below and not _check_segments(reading, node, below):
        return ""
    name = "/".join([*base[: len(base) - up], *below]) or ROOT
    _check_length(reading, node, name)
    return name


def read_segment(reading: Reading, node: Node) -> str:
    """A name of letters, digits and `_ - . ~`, 1 to MAX_NAME_CHARACTERS long."""
    text = reading.text(node)
    _check_segment(reading, node, text)
    return text


def read_image_name(reading: Reading, node: Node) -> str:
    """An image's name: any visible text, such as `registry.example/img:1.0`."""
    text = reading.text(node)
    if isinstance(node, Scalar) and not node.is_null and (not text or not text.isprintable()):
        reading.findings.error(node, f"found {describe(node)}, expected a text without control or invisible characters")
    else:
        _check_length(reading, node, text)
    return text


def _check_segments(reading: Reading, node: Node, segments: list[str]) -> bool:
    """Whether all of them are segments. A wrong one is a mistake."""
    if any(segment in _DOTS or not segment for segment in segments):
        reading.findings.error(
            node, f"found {describe(node)}, expected segments joined by single slashes, none of them empty, . or .."
        )
        return False
    wrong = next((segment for segment in segments if not _SEGMENT.fullmatch(segment)), None)
    if wrong is not None:
        _check_segment(reading, node, wrong)
    return wrong is None


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
    else:
        _check_length(reading, node, text)


def _check_length(reading: Reading, node: Node, text: str) -> None:
    if len(text) > MAX_NAME_CHARACTERS:
        reading.findings.error(
            node, f"found a name of {len(text)} characters, at most {MAX_NAME_CHARACTERS} are allowed"
        )
