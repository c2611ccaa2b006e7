"""The access policy of a session: nodes to `AccessPolicy`, and its normal form.

Source: session language, section 11.
"""

from __future__ import annotations

import re

from ostiary.session import language
from ostiary.session.base58 import decode_key_hash
from ostiary.session.findings import nearest, quote, template_hint
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CreatorSubject,
    KeySubject,
    NoneSubject,
    RuleSubject,
    Subject,
    Variable,
)
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.pem import certificate_key_hash, labels
from ostiary.session.placeholder import MARK
from ostiary.session.reading import Fields, Reading, describe

_WORDS: dict[str, Subject] = {"CREATOR": CreatorSubject(), "ANY": AnySubject(), "NONE": NoneSubject()}
_ALONE = (AnySubject(), NoneSubject())
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_AT_LEAST = re.compile(r"require-at-least-[0-9]+")


def read_access_policy(reading: Reading, node: Node | None) -> tuple[AccessPolicy, JsonObject]:
    """The access policy. What the author does not give is CREATOR, operation by operation."""
    if node is None:
        return AccessPolicy(), present(read=["CREATOR"], update=["CREATOR"])
    fields = reading.fields(node, "access_policy")
    (read, read_form), (update, update_form) = (_read_operation(reading, fields, name) for name in ("read", "update"))
    _warn(reading, fields, read, update)
    return AccessPolicy(read=read, update=update), present(read=read_form, update=update_form)


def names_creator(policy: AccessPolicy | Variable) -> bool:
    """Whether any operation may admit the creator, so that the session must record who that is.

    A variable may turn out to say CREATOR.
    """
    if isinstance(policy, Variable):
        return True
    operations = (policy.read, policy.update, policy.effective_create_sessions, policy.effective_list_sessions)
    return any(_may_name_creator(subject) for subjects in operations for subject in subjects)


def _may_name_creator(subject: Subject) -> bool:
    if isinstance(subject, RuleSubject):
        return any(_may_name_creator(part) for part in subject.subjects)
    return isinstance(subject, CreatorSubject | Variable)


def _read_operation(reading: Reading, fields: Fields, name: str) -> tuple[tuple[Subject, ...], list[JsonValue]]:
    written = fields.node.values.get(name)
    if written is None:
        return (CreatorSubject(),), ["CREATOR"]
    if isinstance(written, Scalar) and written.is_null:
        reading.findings.error(written, f"no entry, which would mean CREATOR; write it, or NONE, or leave {name} out")
        return (), []
    entries = reading.elements(written)
    if not entries:
        reading.findings.error(written, "an empty list admits nobody; write NONE")
    subjects = [(entry, _read_subject(reading, entry)) for entry in entries]
    for entry, subject in subjects:
        if subject in _ALONE and len(subjects) > 1:
            reading.findings.error(entry, f"{describe(entry)} must be the only entry; remove it or the others")
    return (
        tuple(subject for _, subject in subjects if subject is not None),
        [entry.text if isinstance(entry, Scalar) else None for entry in entries],
    )


def _read_subject(reading: Reading, node: Node) -> Subject | None:
    if isinstance(node, MappingNode):
        _refuse_rule(reading, node)
        return None
    if not isinstance(node, Scalar):
        reading.findings.error(node, "found a list inside the list of entries, expected one entry")
        return None
    if node.is_null:
        reading.findings.error(node, "found an empty entry, expected CREATOR, ANY, NONE, a key hash or a certificate")
        return None
    if node.text in _WORDS:
        return _WORDS[node.text]
    if "-----BEGIN" in node.text:
        return _read_certificate(reading, node)
    if node.text.startswith(MARK):
        reading.not_yet(node, "a variable in this place")
        return None
    if _HEX_DIGEST.fullmatch(node.text):
        _refuse_certificate_hash(reading, node)
        return None
    return _read_key_hash(reading, node)


def _refuse_rule(reading: Reading, node: MappingNode) -> None:
    known = {name for name in node.keys if name in language.NOT_YET["access policy entry"] or _AT_LEAST.fullmatch(name)}
    for name in known:
        reading.not_yet(node.keys[name], name)
    for name in node.keys.keys() - known:
        near = nearest(name, [*sorted(language.NOT_YET["access policy entry"]), "require-at-least-1"])
        hint = f": did you mean {near}?" if near else "; expected CREATOR, ANY, NONE, a key hash or a certificate"
        reading.findings.error(node.keys[name], f"unknown entry {quote(name)}{hint}")
    if not node.keys:
        reading.findings.error(node, "found an empty entry, expected CREATOR, ANY, NONE, a key hash or a certificate")


def _read_certificate(reading: Reading, node: Scalar) -> Subject | None:
    try:
        return KeySubject(key_hash=certificate_key_hash(node.text))
    except ValueError as error:
        hint = ""
        if labels(node.text) == ("PUBLIC KEY",):
            hint = "; write a certificate of this key (signer: <key> is for signed sessions)"
        reading.findings.error(node, f"{error}{hint}")
        return None


def _refuse_certificate_hash(reading: Reading, node: Scalar) -> None:
    if reading.level < language.KEY_HASH_LEVEL:
        reading.not_yet(node, "the hash of a certificate as entry")
    else:
        reading.findings.error(
            node,
            "64 hex digits are the hash of a certificate, which ended with 0.2; write the base58check hash of the "
            "certificate's key, or the certificate itself",
        )


def _read_key_hash(reading: Reading, node: Scalar) -> Subject | None:
    try:
        key_hash = decode_key_hash(node.text)
    except ValueError as error:
        near = nearest(node.text.upper(), _WORDS)
        hint = f": did you mean {near}?" if near else f", but {error}{template_hint(node.text)}"
        expected = "CREATOR, ANY, NONE, a certificate or a key hash"
        reading.findings.error(node, f"found {describe(node)}, expected {expected}{hint}")
        return None
    reading.require_level(node, "a key hash as entry", language.KEY_HASH_LEVEL)
    return KeySubject(key_hash=key_hash)


def _warn(reading: Reading, fields: Fields, read: tuple[Subject, ...], update: tuple[Subject, ...]) -> None:
    node = fields.get("update") or fields.node
    if AnySubject() in update:
        reading.findings.warning(node, "everyone may replace this session and take over its secrets; write CREATOR")
    if update == (NoneSubject(),):
        reading.findings.note(node, "with NONE the session can never change")
    if reading.level < language.V0_3 and not set(update) <= {*read, NoneSubject()} and AnySubject() not in read:
        reading.findings.warning(node, "0.2 expects everyone who may update to be able to read; add them to read")
