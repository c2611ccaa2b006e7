"""Configuration variables: what a placeholder that is a whole value of the session's configuration stands for.

Source: session language, "Where they work", "Variables in variables".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.render import text_of
from ostiary.secret.value import FragmentValue, Released
from ostiary.session.normal import JsonValue, count_nodes
from ostiary.session.placeholder import MARK, Placeholder, parse_template

MAX_FRAGMENT_NODES = 10_000
MAX_FRAGMENT_DEPTH = 64


def fragment(values: Mapping[str, Released], placeholder: Placeholder) -> JsonValue:
    """What `placeholder` stands for in configuration: the value of a config-fragment, or the text of another secret.

    Guarantees: at most MAX_FRAGMENT_NODES nodes and MAX_FRAGMENT_DEPTH levels; no text in it begins a placeholder, so
    that nothing is left to replace. Does not guarantee that it fits its place: whoever reads it there must check it as
    if it stood in the session text, and must refuse rather than widen a right.
    Raises ReleaseRefusedError, which never quotes a value: no such secret or format, raw bytes, a variable in a
    variable, over a bound, a format or encoding on a config-fragment.
    """
    value = values.get(placeholder.name)
    if not isinstance(value, FragmentValue):
        found: JsonValue = text_of(placeholder, values)
    elif placeholder.format or placeholder.encoding:
        raise _refuse(placeholder, f"a config-fragment has no formats; write $$SCONE::{placeholder.name}$$")
    else:
        found = value.value
    _check(placeholder, found)
    return found


def expand(configuration: JsonValue, values: Mapping[str, Released]) -> JsonValue:
    """`configuration` with every text that is exactly one placeholder replaced by its `fragment`.

    In a list, a fragment that is a list is spliced in; keys are not replaced. One pass: what was put in is never looked
    at again. Raises ReleaseRefusedError, as `fragment`, and for text that is a placeholder in part.
    """
    if isinstance(configuration, str):
        return _expand_text(configuration, values)
    if isinstance(configuration, Mapping):
        return {key: expand(member, values) for key, member in configuration.items()}
    if isinstance(configuration, Sequence):
        return [part for element in configuration for part in _expand_element(element, values)]
    return configuration


def _expand_element(element: JsonValue, values: Mapping[str, Released]) -> Sequence[JsonValue]:
    expanded = expand(element, values)
    spliced = isinstance(element, str) and isinstance(expanded, Sequence) and not isinstance(expanded, str)
    return expanded if spliced else [expanded]  # type: ignore[return-value]


def _expand_text(text: str, values: Mapping[str, Released]) -> JsonValue:
    if MARK not in text:
        return text
    parts = parse_template(text).parts
    if len(parts) != 1 or not isinstance(parts[0], Placeholder):
        raise ReleaseRefusedError(
            "a variable is only a part of a value in the configuration; let it be the whole value, $$SCONE::name$$"
        )
    return fragment(values, parts[0])


def _check(placeholder: Placeholder, found: JsonValue) -> None:
    pending: list[tuple[JsonValue, int]] = [(found, 1)]
    while pending:
        value, depth = pending.pop()
        if depth > MAX_FRAGMENT_DEPTH:
            raise _refuse(placeholder, f"its value is nested over {MAX_FRAGMENT_DEPTH} levels; make it flatter")
        if isinstance(value, str):
            if MARK in value:
                raise _refuse(placeholder, "its value holds a variable, and variables in variables do not work")
        elif isinstance(value, Mapping):
            pending += ((part, depth + 1) for member in value.items() for part in member)
        elif isinstance(value, Sequence):
            pending += ((element, depth + 1) for element in value)
    if count_nodes(found) > MAX_FRAGMENT_NODES:
        raise _refuse(placeholder, f"its value has over {MAX_FRAGMENT_NODES} nodes; make it smaller")


def _refuse(placeholder: Placeholder, why: str) -> ReleaseRefusedError:
    return ReleaseRefusedError(f"placeholder {placeholder}: {why}")
