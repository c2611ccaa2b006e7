"""The rules file of a checker: YAML to `Rules`, and the ready rules that it may name. Pure.

Read as session texts are: positions, every mistake at once, unknown keys refused with the nearest known one. See
docs/checker.md for the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ostiary.checker.expression import check_expression
from ostiary.errors import Finding, InputError, SessionFormatError
from ostiary.session import language
from ostiary.session.access import signer_key
from ostiary.session.document import parse_document
from ostiary.session.findings import Findings, quote
from ostiary.session.name import read_segment
from ostiary.session.node import Node
from ostiary.session.reading import Fields, Reading, describe, first_repeated

FORMAT = 1
MAX_RULES = 100
MAX_LISTS = 16
MAX_SAYS_CHARACTERS = 200

_LEVEL = max(language.LEVELS.values())


def _keys(*names: str) -> Mapping[str, int]:
    return dict.fromkeys(names, language.V0_1)


_FILE = _keys("version", "approve", "lists", "rules")
_LIST = _keys("name", "file", "signer")
_RULE = _keys("name", "must", "says", "ready", "list")
_READY_FILE = _keys("rules")
_READY = _keys("name", "must", "says", "takes_list")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What must be true of a proposal. must: in CEL. says: one sentence for people, "" if none.

    list_name: the list that `listed` stands for; None: the expression has no such variable.
    """

    name: str
    must: str
    says: str = ""
    list_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ListSource:
    """A signed list. file: as written, beside the rules file if it is relative. signer: DER SubjectPublicKeyInfo."""

    name: str
    file: str
    signer: bytes


@dataclass(frozen=True, kw_only=True)
class Rules:
    """A rules file. rules: at least one. approves: whether a proposal that keeps them all is approved, or passed over.

    warnings: for the author.
    """

    rules: tuple[Rule, ...]
    lists: tuple[ListSource, ...] = ()
    approves: bool = True
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReadyRule:
    """A rule of the library. takes_list: it judges by a signed list that whoever uses it names."""

    name: str
    must: str
    says: str
    takes_list: bool


def parse_rules(text: bytes | str) -> Rules:
    """Read a rules file. Judges no proposal, and opens no list.

    Guarantees on return: there is a rule; names are unique; every expression compiles with its types checked, and may
    give a boolean; every list that a rule names is there. Raises InputError with all mistakes as causes, TooLargeError,
    ConfigurationError without the CEL library.
    """
    findings = Findings()
    try:
        reading = _reading(findings)
        document = parse_document(text, findings, needed=("version", "rules"))
        rules = _read_file(reading, reading.fields(document, "the rules file", _FILE))
        findings.raise_if_any()
    except SessionFormatError as error:
        count = len(error.findings)
        raise InputError(f"the rules have {count} mistake{'s' if count > 1 else ''}", *error.causes) from None
    return rules


@cache
def ready_rules() -> Mapping[str, ReadyRule]:
    """The library by name, in its order."""
    findings = Findings()
    reading = _reading(findings)
    fields = reading.fields(parse_document(ready_text(), findings), "the ready rules", _READY_FILE)
    node = fields.require("rules", "it is the library")
    found = [] if node is None else [_read_ready(reading, element) for element in reading.sequence(node, "rules")]
    findings.raise_if_any()
    return {rule.name: rule for rule in found}


def ready_text() -> str:
    """The file of the library, for whoever wants to read or copy a rule."""
    return files("ostiary.checker").joinpath("ready.yaml").read_text(encoding="utf-8")


def _reading(findings: Findings) -> Reading:
    return Reading(findings, level=_LEVEL, declared=None)


def _read_ready(reading: Reading, node: Node) -> ReadyRule:
    fields = reading.fields(node, "a ready rule", _READY)
    takes_list = fields.get("takes_list")
    return ReadyRule(
        name=fields.text("name") or "",
        must=fields.text("must") or "",
        says=fields.text("says") or "",
        takes_list=takes_list is not None and reading.boolean(takes_list),
    )


def _read_file(reading: Reading, fields: Fields) -> Rules:
    version = fields.require("version", f"write version: {FORMAT}")
    if version is not None:
        reading.integer(version, least=FORMAT, most=FORMAT)
    approve = fields.get("approve")
    lists = _read_lists(reading, fields.get("lists"))
    node = fields.require("rules", "a checker without rules would approve anything")
    nodes = () if node is None else reading.sequence(node, "rules")
    if node is not None and not nodes:
        reading.findings.error(node, "there is no rule, and a checker without rules would approve anything; add one")
    _bound(reading, nodes, MAX_RULES, "rules")
    rules = [_read_rule(reading, one, lists) for one in nodes[:MAX_RULES]]
    named = [(rule.name.lower(), one) for rule, one in zip(rules, nodes, strict=False) if rule.name]
    for _, again, first in first_repeated(named):
        reading.findings.error(again, f"the rule on line {first.line} has the same name; give this one another name")
    used = {rule.list_name for rule in rules}
    for name, (_, one) in lists.items():
        if name not in used:
            reading.findings.warning(one, f"no rule uses the list {name}; remove it, or name it in a rule")
    return Rules(
        rules=tuple(rules),
        lists=tuple(source for source, _ in lists.values()),
        approves=approve is None or reading.boolean(approve),
        warnings=reading.findings.warnings,
    )


def _bound(reading: Reading, nodes: tuple[Node, ...], most: int, what: str) -> None:
    if len(nodes) > most:
        reading.findings.error(nodes[most], f"there are {len(nodes)} {what}, at most {most} are allowed")


def _read_lists(reading: Reading, node: Node | None) -> dict[str, tuple[ListSource, Node]]:
    lists: dict[str, tuple[ListSource, Node]] = {}
    nodes = () if node is None else reading.sequence(node, "lists")
    _bound(reading, nodes, MAX_LISTS, "lists")
    for element in nodes[:MAX_LISTS]:
        fields = reading.fields(element, "list", _LIST)
        name_node = fields.require("name", "give the list the name that is written in it")
        fields.require("file", "say where the list is")
        signer = fields.require("signer", "write the public key that signs the list")
        name = "" if name_node is None else read_segment(reading, name_node)
        source = ListSource(
            name=name, file=fields.text("file") or "", signer=b"" if signer is None else _read_signer(reading, signer)
        )
        if name in lists:
            reading.findings.error(element, f"another list is named {quote(name)}; rename one of them")
        elif name:
            lists[name] = source, element
    return lists


def _read_signer(reading: Reading, node: Node) -> bytes:
    try:
        return signer_key(reading.text(node).strip())
    except ValueError as error:
        reading.findings.error(node, f"no public key that can sign lists: {error}")
        return b""


def _read_rule(reading: Reading, node: Node, lists: Mapping[str, tuple[ListSource, Node]]) -> Rule:
    fields = reading.fields(node, "rule", _RULE)
    ready = fields.get("ready")
    rule = _read_own(reading, fields) if ready is None else _read_named(reading, fields, ready)
    list_node = fields.get("list")
    if rule.list_name is not None and list_node is not None and rule.list_name not in lists:
        known = reading.findings.did_you_mean(rule.list_name, lists)
        reading.findings.error(list_node, f"there is no list {quote(rule.list_name)}{known}")
    return rule


def _read_own(reading: Reading, fields: Fields) -> Rule:
    """A rule with an expression of its own."""
    name_node = fields.require("name", "give the rule a name; it is told when the rule fires")
    must_node = fields.require("must", "write in CEL what must be true, or name a ready rule: ready: NAME")
    says_node = fields.get("says")
    must = "" if must_node is None else reading.text(must_node)
    list_name = fields.text("list")
    if must_node is not None and must:
        try:
            check_expression(must, listed=list_name is not None)
        except InputError as error:
            hint = "; `listed` needs list: NAME" if list_name is None and "'listed'" in error.message else ""
            reading.findings.error(must_node, f"{error.message}{hint}")
    elif must_node is not None and describe(must_node) == '""':
        reading.findings.error(must_node, "the expression is empty; write what must be true of a proposal")
    says = fields.text("says") or ""
    if says_node is not None and len(says) > MAX_SAYS_CHARACTERS:
        most = MAX_SAYS_CHARACTERS
        reading.findings.error(says_node, f"the sentence has {len(says)} characters, at most {most} are allowed")
    return Rule(
        name="" if name_node is None else read_segment(reading, name_node), must=must, says=says, list_name=list_name
    )


def _read_named(reading: Reading, fields: Fields, ready: Node) -> Rule:
    """A rule of the library, under its own name or another."""
    wanted = reading.text(ready)
    found = ready_rules().get(wanted)
    if found is None:
        hint = reading.findings.did_you_mean(wanted, ready_rules())
        reading.findings.error(ready, f"unknown ready rule {quote(wanted)}{hint}")
    for key in ("must", "says"):
        node = fields.get(key)
        if node is not None:
            reading.findings.error(node, f"a ready rule brings its own {key}; remove it, or write a rule without ready")
    name_node, list_name = fields.get("name"), fields.text("list")
    if found is not None and found.takes_list and list_name is None:
        reading.findings.error(ready, f"{wanted} needs the list to judge by; add list: NAME", path=ready.path)
    elif found is not None and not found.takes_list and list_name is not None:
        list_node = fields.get("list")
        reading.findings.error(list_node or ready, f"{wanted} judges by no list; remove list")
    return Rule(
        name=wanted if name_node is None else read_segment(reading, name_node),
        must="" if found is None else found.must,
        says="" if found is None else found.says,
        list_name=list_name,
    )
