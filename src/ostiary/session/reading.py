"""Typed access to the nodes of one session text. Every mistake becomes a finding, and reading goes on.

What a function returns after a mistake only stands in for a value, so that the rest can be read. It is never used:
the parser raises before a session is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ostiary.session import language
from ostiary.session.facts import SecretFacts
from ostiary.session.findings import Findings, nearest, quote, template_hint
from ostiary.session.node import Located, Node, Path, Scalar, Sequence
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.placeholder import MARK

_DECIMAL = re.compile(r"[0-9]{1,10}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_NO_VARIABLE = "; a variable cannot stand here"


class Reading:
    """One session text being read: its findings, and which version of the language it may use.

    level: of `language`. declared: the text of `version`, None if there is none. name: of the session, which relative
    references start from. secrets: of the session by name; empty until they are read.
    """

    def __init__(self, findings: Findings, *, level: int, declared: str | None) -> None:
        self.findings = findings
        self.level = level
        self.name = ""
        self.secrets: Mapping[str, SecretFacts] = {}
        self._declared = declared
        self._needed: list[tuple[int, Located, str]] = []
        self._gated: dict[Path, int] = {}

    def require_level(self, node: Located, what: str, level: int) -> None:
        """A mistake if the declared version does not have `what` yet."""
        if level <= self.level or self._is_gated(node.path, level):
            return
        self._gated[node.path] = level
        if self._declared is not None:
            spelt = language.spell(level)
            self.findings.error(node, f'{what} needs version {spelt}, found {self._declared}; write version: "{spelt}"')
        else:
            self._needed.append((level, node, what))

    def _is_gated(self, path: Path, level: int) -> bool:
        """Whether a mistake at `path` or around it already asks for this level."""
        above: Path | None = path
        while above is not None:
            if self._gated.get(above, language.V0_1) >= level:
                return True
            above = above.parent
        return False

    def report_missing_version(self, root: MappingNode) -> None:
        """One mistake for everything that only a missing version makes wrong."""
        if not self._needed:
            return
        _, first, what = min(self._needed, key=lambda needed: (needed[1].line, needed[1].column))
        spelt = language.spell(max(level for level, _, _ in self._needed))
        self.findings.error(
            root,
            f"version is missing, so 0.1 is assumed, which has no {what} (line {first.line}); "
            f'add the line version: "{spelt}"',
            path=root.path.child("version"),
        )

    def text(self, node: Node) -> str:
        """The text of a scalar, in its source spelling."""
        if isinstance(node, Scalar) and not node.is_null:
            return node.text
        self.findings.error(node, f"found {describe(node)}, expected text")
        return ""

    def integer(self, node: Node, *, least: int, most: int) -> int:
        if isinstance(node, Scalar) and node.plain and _DECIMAL.fullmatch(node.text):
            number = int(node.text)
            if least <= number <= most:
                return number
        self.findings.error(node, f"found {describe(node)}, expected a decimal number from {least} to {most}")
        return least

    def boolean(self, node: Node) -> bool:
        if isinstance(node, Scalar) and node.plain and node.text in ("true", "false"):
            return node.text == "true"
        hint = "false" if isinstance(node, Scalar) and node.text.lower() in ("false", "no", "off", "n", "0") else "true"
        self.findings.error(node, f"found {describe(node)}, expected true or false without quotes; write {hint}")
        return False

    def digest(self, node: Node, *, size: int, secret: bool = False) -> bytes:
        """`size` bytes written as hex digits, in either case. secret: what is found is never part of a message."""
        text = self.text(node) if isinstance(node, Scalar) else ""
        if len(text) == 2 * size and _HEX.fullmatch(text):
            return bytes.fromhex(text)
        if not isinstance(node, Scalar) or not node.is_null:
            count = f" ({len(text)} characters)" if text else ""
            hint = _NO_VARIABLE if MARK in text else template_hint(text)
            found = "something else" if secret and isinstance(node, Scalar) and not hint else describe(node)
            self.findings.error(node, f"found {found}{count}, expected {2 * size} hex digits{hint}")
        return bytes(size)

    def choice(self, node: Node, known: Mapping[str, int], what: str) -> str:
        """One of `known`, each with the level that it needs. what: for messages."""
        text = self.text(node)
        if text in known:
            self.require_level(node, f"{what} {text}", known[text])
        elif text:
            hint = _NO_VARIABLE if MARK in text else self.findings.did_you_mean(text, known)
            self.findings.error(node, f"unknown {what} {quote(text)}{hint}")
        elif isinstance(node, Scalar) and not node.is_null:
            self.findings.error(node, f"empty {what}{self.findings.did_you_mean('', known)}")
        return text

    def elements(self, node: Node) -> tuple[Node, ...]:
        """The elements of a list, or the one element that is written without a list."""
        return node.items if isinstance(node, Sequence) else (node,)

    def sequence(self, node: Node, what: str) -> tuple[Node, ...]:
        if isinstance(node, Sequence):
            return node.items
        self.findings.error(node, f"found {describe(node)}, expected a list of {what}")
        return ()

    def fields(self, node: Node, place: str, keys: Mapping[str, int] | None = None) -> Fields:
        """A mapping of the language. place: in `language.KEYS`, unless `keys` is given."""
        if isinstance(node, MappingNode):
            return Fields(self, node, place, language.KEYS[place] if keys is None else keys)
        hint = _NO_VARIABLE if isinstance(node, Scalar) and MARK in node.text else ""
        self.findings.error(node, f"found {describe(node)}, expected a mapping with the keys of {place}{hint}")
        return Fields(self, MappingNode(node.line, node.column, node.path, {}, {}), place, {}, mistaken=True)


class Fields:
    """The keys of one mapping. Keys that it may not have are reported at once; a null is a key left out.

    mistaken: stands in for something that is no mapping, so that nothing is missing in it.
    """

    def __init__(
        self, reading: Reading, node: MappingNode, place: str, keys: Mapping[str, int], *, mistaken: bool = False
    ) -> None:
        self.node = node
        self.mistaken = mistaken
        self._reading = reading
        oldest = reading.level == language.V0_1
        old = language.OLD_KEYS.get(place, {}) if oldest else {}
        ended = language.ENDED_KEYS.get(place, frozenset()) if oldest else frozenset()
        self._values: dict[str, Node] = {}
        self._unknown: list[str] = []
        for name, value in node.values.items():
            key = node.keys[name]
            if name in keys:
                if isinstance(value, Scalar) and value.is_null and name not in language.NULL_IS_A_MISTAKE:
                    continue
                self._values[name] = value
                reading.require_level(key, name, keys[name])
            elif name in old:
                self._values[name] = value
                reading.findings.warning(key, f"{name} ended with 0.1; {old[name]}")
            elif name in ended:
                reading.findings.error(
                    key, f"{name} ended with 0.1; write export, import and access_policy of version 0.3 in its place"
                )
            else:
                self._unknown.append(name)
                reading.findings.error(
                    key, f"unknown key {quote(name)} in {place}{reading.findings.did_you_mean(name, keys)}"
                )

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> Node | None:
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """The text of an optional key, not empty."""
        node = self.get(name)
        if node is None:
            return None
        text = self._reading.text(node)
        if not text and isinstance(node, Scalar) and not node.is_null:
            self._reading.findings.error(node, f"{name} is empty; write a text or leave the key out")
        return text

    def require(self, name: str, why: str) -> Node | None:
        """The value of a mandatory key. why: what to write, or why it is needed."""
        node = self.get(name)
        if node is None and not self.mistaken:
            self._reading.findings.error(self.node, f"{name} is missing; {why}", path=self.node.path.child(name))
        return node

    def near(self, name: str) -> bool:
        """Whether an unknown key was probably meant to be `name`."""
        return any(nearest(other, [name]) is not None for other in self._unknown)


def describe(node: Node) -> str:
    """What stands in the text, for a message; never used on what may be a secret."""
    if not isinstance(node, Scalar):
        return "a list" if isinstance(node, Sequence) else "a mapping"
    if node.is_null:
        return "nothing"
    return quote(node.text)


def first_repeated(values: Iterable[tuple[str, Node]]) -> list[tuple[str, Node, Node]]:
    """Each value that was there before, with its node and the node of its first appearance."""
    seen: dict[str, Node] = {}
    repeated = []
    for value, node in values:
        if value in seen:
            repeated.append((value, node, seen[value]))
        else:
            seen[value] = node
    return repeated
