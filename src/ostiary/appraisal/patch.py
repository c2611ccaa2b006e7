"""A change of a session as a list of operations on places in it, and as YAML text to merge by hand. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ostiary.errors import InputError
from ostiary.session.normal import JsonObject, JsonValue, count_nodes
from ostiary.session.yaml_text import write_yaml

MAX_PATCH_NODES = 400
"""Nodes of a patch as text: some eight screens."""

_STEP = re.compile(r"\.?(?P<key>[A-Za-z0-9_-]+)|\[(?P<index>[0-9]{1,6})\]")


class Wisdom(Enum):
    """Whether a change should be made, in the words of the page that shows it."""

    NEVER = "never"
    FOR_A_TIME = "for a time"
    AFTER_REVIEW = "after review"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One change. action: "add" `value` to the list at `path` that has it not, "set" what stands there, or "remove" it.

    path: as in `services[0].attestation[1].mrenclave`, in the session's text. why: what speaks for or against it.
    """

    action: str
    path: str
    value: JsonValue = None
    wisdom: Wisdom
    why: str


def apply_operations(document: JsonObject, operations: Sequence[Operation]) -> dict[str, JsonValue]:
    """A copy of a session's document with the operations carried out, in their order.

    A mapping on the way that is not there is made; a list that is written as its one element becomes a list.
    Raises InputError for a path that does not lead anywhere: the document is of another session.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(document))
    change_in_place(changed, operations)
    return changed


def change_in_place(document: MutableMapping[str, Any], operations: Sequence[Operation]) -> None:
    """As `apply_operations`, on mappings and lists of any kind, such as those that know their comments."""
    for operation in operations:
        *way, last = _steps(operation.path)
        _change(_follow(document, way, operation.path), last, operation)


def patch_text(document: JsonObject, operations: Sequence[Operation]) -> str:
    """YAML of every part of the session that the operations change, as it is to be, and of nothing else.

    Lists stand there whole, with what they had; a service by its name and what changes in it. Empty without operations,
    and where it would have over MAX_PATCH_NODES, which nobody merges by hand.
    """
    changed = apply_operations(_touched(document, operations), operations)
    excerpt: dict[str, Any] = {}
    for operation in operations:
        steps = _steps(operation.path)
        if steps[0] == "services":
            _excerpt_service(excerpt, changed, steps)
        else:
            _excerpt_mapping(excerpt, changed, steps)
    return write_yaml(excerpt) if excerpt and count_nodes(excerpt) <= MAX_PATCH_NODES else ""


def _touched(document: JsonObject, operations: Sequence[Operation]) -> dict[str, JsonValue]:
    """The sections that the operations name; of services that they do not, the name only. Sessions may be large."""
    paths = [_steps(operation.path) for operation in operations]
    touched = {name: value for name, value in document.items() if any(path[0] == name for path in paths)}
    services: Any = touched.get("services")
    if services is not None:
        indices = {path[1] for path in paths if path[0] == "services" and len(path) > 1}
        touched["services"] = [
            service if index in indices else {"name": service["name"]} for index, service in enumerate(services)
        ]
    return touched


def _excerpt_mapping(excerpt: dict[str, Any], changed: Any, steps: list[str | int]) -> None:
    *way, last = steps
    for step in way:
        excerpt, changed = excerpt.setdefault(str(step), {}), changed[step]
    if last in changed:
        excerpt[str(last)] = changed[last]


def _excerpt_service(excerpt: dict[str, Any], changed: Any, steps: list[str | int]) -> None:
    service = changed["services"][steps[1]]
    listed = excerpt.setdefault("services", [])
    mine = next((entry for entry in listed if entry["name"] == service["name"]), None)
    if mine is None:
        mine = {"name": service["name"]}
        listed.append(mine)
    mine[str(steps[2])] = service[steps[2]]


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise InputError(f"{path[:200]!r} is no path in a session")
        steps.append(step["key"] if step["index"] is None else int(step["index"]))
        position = step.end()
    if not steps:
        raise InputError("an operation without a path")
    return steps


def _follow(node: Any, way: list[str | int], path: str) -> Any:
    for step in way:
        if isinstance(step, int):
            if isinstance(node, MutableMapping) and step == 0:
                continue  # a list that is written as its one element
            if not isinstance(node, MutableSequence) or step >= len(node):
                raise _nowhere(path)
            node = node[step]
        elif isinstance(node, MutableMapping):
            key = _key(node, step)
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            raise _nowhere(path)
    return node


def _key(node: MutableMapping[Any, Any], step: str) -> Any:
    """The key as the mapping has it: a YAML library may have read the number of a PCR as one."""
    return int(step) if step not in node and step.isdecimal() and int(step) in node else step


def _change(parent: Any, last: str | int, operation: Operation) -> None:
    if not isinstance(parent, MutableMapping) or isinstance(last, int):
        raise _nowhere(operation.path)
    last = _key(parent, last)
    if operation.action == "set":
        parent[last] = operation.value
    elif operation.action == "remove":
        parent.pop(last, None)
    elif operation.action == "add":
        there = parent.get(last)
        if isinstance(there, MutableSequence):
            if operation.value not in there:
                there.append(operation.value)
        elif there != operation.value:
            parent[last] = [operation.value] if there is None else [there, operation.value]
    else:
        raise InputError(f"{operation.path}: no operation {operation.action[:20]!r}")


def _nowhere(path: str) -> InputError:
    return InputError(f"{path} leads nowhere in this session", "look whether it is the session that denied the start")
