"""Configuration fragments: any YAML, kept as a JSON value. Source: session language, "Secrets", 8.2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonValue
from ostiary.session.placeholder import MARK

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def read_fragment(node: Node) -> JsonValue:
    """The value of a fragment. Decimal numbers up to 18 digits, true, false and null are such.

    Every other scalar is text in its source spelling, so that `007` and long hashes keep their digits.
    """
    if isinstance(node, SequenceNode):
        return [read_fragment(item) for item in node.items]
    if isinstance(node, MappingNode):
        names = sorted(node.values, key=str.encode)
        return {name: read_fragment(node.values[name]) for name in names}
    return _scalar(node)


def _scalar(node: Scalar) -> JsonValue:
    if not node.plain:
        return node.text
    if node.is_null:
        return None
    if node.text in ("true", "false"):
        return node.text == "true"
    return int(node.text) if _INTEGER.fullmatch(node.text) else node.text


def has_placeholder(value: JsonValue) -> bool:
    """Whether some text of a fragment has a placeholder, or what begins like one."""
    if isinstance(value, str):
        return MARK in value
    if isinstance(value, Mapping):
        return any(has_placeholder(member) for member in value.values())
    return isinstance(value, Sequence) and any(has_placeholder(element) for element in value)
