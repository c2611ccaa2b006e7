"""YAML 1.2 text to a tree of nodes that know where they stand. Knows YAML, not the session language.

Scalars keep their source spelling: `007`, `12e45678` and `3306` stay text, and whoever reads a field decides what it
must be. Aliases are expanded here, so that every check sees the whole document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner, ScannerError
from ruamel.yaml.tokens import TagToken

from ostiary.errors import TooLargeError
from ostiary.session.findings import Findings
from ostiary.session.node import Located, Mapping, Node, Path, Place, Scalar, Sequence, escape

MAX_DOCUMENT_BYTES = 1024 * 1024
"""UTF-8 bytes of a session text, and of all its scalars together after alias expansion."""
MAX_DEPTH = 64
"""Levels of mappings and sequences; the root is the first."""
MAX_NODES = 10_000
"""Nodes (mappings, sequences, scalars, keys included) after alias expansion."""

_MAX_TAG_CHARACTERS = 64
_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"!", f"{_CORE}str"})
_PLAIN_TAGS = {
    f"{_CORE}null": re.compile(r"~|null|Null|NULL|"),
    f"{_CORE}bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    f"{_CORE}int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    f"{_CORE}float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_KEY_IS_NO_TEXT = "a key is a mapping or list, expected text; text that begins with { or [ needs quotes"
_OWN_TAGS = frozenset({"!akv", "!cas"})
_LANGUAGE_TAGS = {"secret_config.store_in": _OWN_TAGS}
# What the parser of a foreign library may raise for a hostile text beside its own errors.
_PARSER_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def parse_document(text: bytes | str, findings: Findings, *, needed: tuple[str, ...] = ("name",)) -> Mapping:
    """Read one YAML 1.2 document whose root is a mapping. Judges nothing of what it says.

    needed: keys that every such document has, for the message to who wrote none.

    Guarantees on return: at most MAX_DOCUMENT_BYTES, MAX_DEPTH and MAX_NODES; keys are text and stand once in their
    mapping; no merge keys; no tags but YAML's core ones and those of the session language in their places; no text
    holds NUL or half a surrogate pair. Work is bounded by these, whatever the aliases.

    Raises TooLargeError (over MAX_DOCUMENT_BYTES) and SessionFormatError (all else), and nothing else for any input.
    Source: YAML 1.2.2; session language, "Document and YAML".
    """
    builder = _Builder(findings, needed)
    for event in _events(_decode(text, findings), findings):
        builder.take(event)
    return builder.finish()


class _BoundedScanner(Scanner):
    """ruamel's scanner; but its time grows with the square of a tag's length, so long tags are refused first."""

    def scan_tag(self) -> TagToken:
        ahead = self.reader.prefix(_MAX_TAG_CHARACTERS)
        if not any(character in ahead for character in "\0 \t\r\n"):
            raise ScannerError(None, None, "found a tag longer than any known one", self.reader.get_mark())
        return super().scan_tag()  # type: ignore[no-any-return]


def _events(source: str, findings: Findings) -> Iterator[Event]:
    """The one place that calls the foreign parser, and where its errors become ours."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _BoundedScanner
    line = 0
    try:
        for event in yaml.parse(source):
            line = event.end_mark.line + 1
            yield event
    except ReaderError as error:
        place = _place(source, error.position)
        findings.refuse(
            place, f"character U+{error.character:04X} is not allowed; write it as an escape in double quotes"
        )
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(line, 1)
        findings.refuse(place, f"not YAML: {_problem(error)}")
    except (YAMLError, *_PARSER_FAULTS) as error:
        findings.refuse(Place(line, 1), f"not YAML ({type(error).__name__}), on this line or below it")


def _decode(text: bytes | str, findings: Findings) -> str:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        findings.refuse(Place(0, 0), "the text holds half a surrogate pair, which has no UTF-8 form")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise TooLargeError(
            f"the session text has {len(data)} bytes, at most {MAX_DOCUMENT_BYTES} are allowed; "
            "move large files out of the session"
        )
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = _place(data[: error.start].decode(), error.start)
        findings.refuse(place, f"byte 0x{data[error.start]:02x} is not UTF-8; save the text as UTF-8")


def _place(source: str, index: int) -> Place:
    before = source[:index]
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end has not come yet. key: of a mapping, read and still without its value."""

    line: int
    column: int
    path: Path
    anchor: str | None
    mapping: bool
    tag: str
    items: list[Node] = field(default_factory=list)
    keys: dict[str, Scalar] = field(default_factory=dict)
    values: dict[str, Node] = field(default_factory=dict)
    key: Scalar | None = None


class _Builder:
    """Events in, tree out. Mistakes that leave the structure readable are gathered; the others raise at once."""

    def __init__(self, findings: Findings, needed: tuple[str, ...]) -> None:
        self._findings = findings
        self._needed = needed
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._bytes = 0
        self._documents = 0
        self._root: Node | None = None

    def take(self, event: Event) -> None:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if isinstance(event, ScalarEvent):
            self._scalar(event, line, column)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._open(event, line, column)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._close()
        elif isinstance(event, AliasEvent):
            self._alias(event, line, column)
        elif isinstance(event, DocumentStartEvent):
            self._document(event, line, column)

    def finish(self) -> Mapping:
        root = self._root
        if root is None or (isinstance(root, Scalar) and root.is_null):
            keys = " and ".join(f"`{key}`" for key in self._needed)
            self._findings.refuse(Place(1, 1), f"the document is empty, expected a mapping with at least {keys}")
        if not isinstance(root, Mapping):
            first = self._needed[0]
            self._findings.refuse(root, f"the document is not a mapping, expected `{first}: …` and further keys")
        return root

    def _document(self, event: DocumentStartEvent, line: int, column: int) -> None:
        self._documents += 1
        if self._documents > 1:
            self._findings.refuse(Place(line, column), "a second document begins here, expected one session in a text")
        if event.version not in (None, (1, 2)):
            self._findings.refuse(
                Place(line, column), "the text declares another YAML version, expected 1.2; remove %YAML"
            )
        if event.tags:
            self._findings.refuse(
                Place(line, column), "the text declares tags, and sessions have none of their own; remove %TAG"
            )

    def _scalar(self, event: ScalarEvent, line: int, column: int) -> None:
        path, text = self._path(), event.value
        self._count(line, column, path, text)
        node = Scalar(line, column, path, _without_surrogates(text), self._is_plain(event), _language_tag(event.tag))
        self._check_scalar_tag(event, node)
        if "\0" in text:
            self._findings.error(node, "the text holds NUL, which no program can receive; remove it")
        if node.text is not text:
            self._findings.error(node, "the text holds half a surrogate pair; write the character itself")
        self._add(node, event.anchor)

    def _open(self, event: MappingStartEvent | SequenceStartEvent, line: int, column: int) -> None:
        mapping = isinstance(event, MappingStartEvent)
        opened = _Open(line, column, self._path(), event.anchor, mapping, _language_tag(event.tag))
        if event.tag not in (None, "!", f"{_CORE}map" if mapping else f"{_CORE}seq"):
            self._check_language_tag(event.tag, opened)
        self._count(line, column, opened.path, "")
        self._check_depth(len(self._stack) + 1, line, column, opened.path)
        if self._stack and self._stack[-1].mapping and self._stack[-1].key is None:
            self._findings.refuse(opened, _KEY_IS_NO_TEXT)
        self._stack.append(opened)

    def _close(self) -> None:
        done = self._stack.pop()
        node: Node
        if done.mapping:
            node = Mapping(done.line, done.column, done.path, done.keys, done.values, done.tag)
        else:
            node = Sequence(done.line, done.column, done.path, tuple(done.items))
        self._add(node, done.anchor)

    def _alias(self, event: AliasEvent, line: int, column: int) -> None:
        path = self._path()
        target = self._anchors.get(event.anchor)
        if target is None:
            name = escape(event.anchor[:_MAX_TAG_CHARACTERS])
            self._findings.refuse(Place(line, column, path), f"alias *{name} has no anchor that ends before it")
        self._add(self._copy(target, path, len(self._stack) + 1, line, column), None)

    def _copy(self, node: Node, path: Path, depth: int, line: int, column: int) -> Node:
        """`node` once more, at `path`, without tags. Line and column stay the anchor's, where it can be mended."""
        self._count(line, column, path, node.text if isinstance(node, Scalar) else "")
        if isinstance(node, Scalar):
            return Scalar(node.line, node.column, path, node.text, node.plain)
        self._check_depth(depth, line, column, path)
        if isinstance(node, Sequence):
            items = tuple(
                self._copy(item, path.child(index), depth + 1, line, column) for index, item in enumerate(node.items)
            )
            return Sequence(node.line, node.column, path, items)
        keys, values = {}, {}
        for name, key in node.keys.items():
            self._count(line, column, path, name)
            below = path.child(name)
            keys[name] = Scalar(key.line, key.column, below, name, key.plain)
            values[name] = self._copy(node.values[name], below, depth + 1, line, column)
        return Mapping(node.line, node.column, path, keys, values)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        if not parent.mapping:
            parent.items.append(node)
        elif parent.key is None:
            parent.key = self._key(node, parent)
        else:
            parent.values.setdefault(parent.key.text, node)
            parent.keys.setdefault(parent.key.text, parent.key)
            parent.key = None

    def _key(self, node: Node, parent: _Open) -> Scalar:
        if not isinstance(node, Scalar):
            self._findings.refuse(node, _KEY_IS_NO_TEXT)
        path = parent.path.child(node.text)
        key = Scalar(node.line, node.column, path, node.text, node.plain)
        if key.text in parent.keys:
            first = parent.keys[key.text].line
            self._findings.error(key, f"the same key stands on line {first} already; remove one of them")
        elif key.plain and key.text == "<<":
            self._findings.error(key, "merge keys are not part of the language; write the keys out")
        return key

    def _path(self) -> Path:
        """The path of the node that comes next."""
        if not self._stack:
            return Path()
        parent = self._stack[-1]
        if not parent.mapping:
            return parent.path.child(len(parent.items))
        return parent.path if parent.key is None else parent.key.path

    def _count(self, line: int, column: int, path: Path, text: str) -> None:
        self._nodes += 1
        self._bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self._nodes > MAX_NODES:
            self._findings.refuse(
                Place(line, column, path), f"over {MAX_NODES} nodes after alias expansion; split the session"
            )
        if self._bytes > MAX_DOCUMENT_BYTES:
            self._findings.refuse(
                Place(line, column, path), f"over {MAX_DOCUMENT_BYTES} bytes after alias expansion; split the session"
            )

    def _check_depth(self, depth: int, line: int, column: int, path: Path) -> None:
        if depth > MAX_DEPTH:
            self._findings.refuse(
                Place(line, column, path), f"nested over {MAX_DEPTH} levels; no key of the language needs that"
            )

    def _check_scalar_tag(self, event: ScalarEvent, node: Scalar) -> None:
        tag = event.tag
        if tag is None or tag in _TEXT_TAGS:
            return
        spelling = _PLAIN_TAGS.get(tag)
        if spelling is None:
            self._check_language_tag(tag, node)
        elif not spelling.fullmatch(node.text):
            self._findings.error(node, f"not what its tag !!{tag.removeprefix(_CORE)} says; remove the tag")

    def _check_language_tag(self, tag: str, node: Located) -> None:
        if tag not in _LANGUAGE_TAGS.get(str(node.path), ()):
            shown = escape(tag.replace(_CORE, "!!")[:_MAX_TAG_CHARACTERS])
            self._findings.error(node, f"tag {shown} has no meaning here; remove it, or put the text into quotes")

    def _is_plain(self, event: ScalarEvent) -> bool:
        return event.style is None if event.tag is None else event.tag not in _TEXT_TAGS


def _language_tag(tag: str | None) -> str:
    return tag if tag in _OWN_TAGS else ""


def _without_surrogates(text: str) -> str:
    """`text` itself, unless it has no UTF-8 form."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-8", "replace").decode()


def _problem(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "the structure cannot be read")
    return "".join(character if character.isprintable() else "?" for character in problem)[:200]
