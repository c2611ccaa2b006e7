"""The normal form of a session: one ordered JSON value, its hash, and the two texts of it.

Two session texts that say the same have the same normal form. The section readers make its parts, members in the
order of the session language ("The session hash"); this module only knows JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
JsonObject: TypeAlias = Mapping[str, JsonValue]


class Octal(int):
    """A number that the YAML text spells in octal, `0o400`; in JSON a number like any other."""


class Tagged(dict[str, JsonValue]):
    """A value that the YAML text gives a tag, `!akv {…}`; in JSON an object whose one member has the tag's name."""

    def __init__(self, tag: str, value: JsonValue) -> None:
        super().__init__({tag: value})
        self.tag = tag
        self.value = value


def present(**members: JsonValue) -> dict[str, JsonValue]:
    """An object without the members that are None, or an empty list or object."""
    return {name: value for name, value in members.items() if value is not None and value not in ([], {})}


def canonical_json(normal: JsonObject) -> bytes:
    """UTF-8 of the JSON text without spaces, members in their order, nothing escaped that JSON does not require."""
    return json.dumps(normal, ensure_ascii=False, separators=(",", ":")).encode()


def session_hash(normal: JsonObject) -> bytes:
    """32 bytes: SHA-256 of `canonical_json`. Source: session language, "The session hash"; vectors: session-hash/."""
    return hashlib.sha256(canonical_json(normal)).digest()


def count_nodes(value: JsonValue) -> int:
    """Nodes of the YAML text: mappings, lists, scalars, keys included."""
    if isinstance(value, Mapping):
        return 1 + sum(1 + count_nodes(member) for member in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return 1 + sum(count_nodes(element) for element in value)
    return 1
