"""The access policy of a session: nodes to `AccessPolicy`, and its normal form.

Source: session language, section 11.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ostiary.session import language
from ostiary.session.base58 import decode_ed25519_key, decode_key_hash
from ostiary.session.findings import nearest, quote, template_hint
from ostiary.session.model import (
    AccessPolicy,
    AnySubject,
    CertificateHashSubject,
    CreatorSubject,
    KeySubject,
    NoneSubject,
    RuleSubject,
    SignerSubject,
    Subject,
    Variable,
)
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Path, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonValue, present
from ostiary.session.pem import certificate_key_hash, ed25519_spki, labels, public_key
from ostiary.session.placeholder import MARK
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.variable import read_variable

_WORDS: dict[str, Subject] = {"CREATOR": CreatorSubject(), "ANY": AnySubject(), "NONE": NoneSubject()}
_ALONE = (AnySubject(), NoneSubject())
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_AT_LEAST = re.compile(r"require-at-least-([0-9]+)")
_RULES = ("signer", "require-all", "require-at-least-1")
_SIGNER_TYPES = ("Ed25519", "P-384")
_OPENSSH_LINE = re.compile(r"\s*(ssh-|sk-ssh-|ecdsa-sha2-|sk-ecdsa-sha2-)[a-z0-9@.-]+\s")
_FILE_NAME = re.compile(r"[\w@+~-]*[./][\w@+~./-]*")
"""No text in base58check has a dot or a slash."""
_WRITE_PEM = "write the PEM that `ostiary board key --key …` prints"
_FOR_SIGNERS = ("update", "create_sessions")
"""Operations that an upload can ask for, so that signers and rules have a meaning."""
_EXPECTED = "expected CREATOR, ANY, NONE, a key hash or a certificate"

Entry = tuple[Subject | None, JsonValue]
"""A subject, None after a mistake, and its normal form."""


def read_access_policy(
    reading: Reading, node: Node | None, boarded: Collection[str] = ()
) -> tuple[AccessPolicy | Variable, JsonValue]:
    """The access policy. What the author does not give is CREATOR for read and update, and follows them otherwise.

    boarded: operations that a policy board decides. They must not stand here, and admit nobody.
    """
    if node is None:
        return _read_policy(reading, MappingNode(0, 0, Path(), {}, {}), boarded)
    variable = read_variable(reading, node)
    if variable is None:
        return _read_policy(reading, node, boarded)
    if boarded:
        reading.findings.error(
            node,
            f"the policy board decides {' and '.join(boarded)}, and a variable might let others do that; "
            "write the policy out, with variables as entries",
        )
    return variable, str(variable.placeholder)


def _read_policy(reading: Reading, node: Node, boarded: Collection[str]) -> tuple[AccessPolicy, JsonValue]:
    fields = reading.fields(node, "access_policy")
    operations = {
        name: _read_boarded(reading, fields, name) if name in boarded else _read_operation(reading, fields, name)
        for name in language.KEYS["access_policy"]
    }
    creator: tuple[Subject, ...] = (CreatorSubject(),)
    (read, read_form), (update, update_form) = (
        operations[name] or (creator, ["CREATOR"]) for name in ("read", "update")
    )
    create, listed = operations["create_sessions"], operations["list_sessions"]
    policy = AccessPolicy(
        read=read,
        update=update,
        create_sessions=None if create is None else create[0],
        list_sessions=None if listed is None else listed[0],
    )
    _warn(reading, fields, policy, boarded)
    return policy, present(
        read=read_form,
        update=update_form,
        create_sessions=None if create is None else create[1],
        list_sessions=None if listed is None else listed[1],
    )


def names_creator(policy: AccessPolicy | Variable) -> bool:
    """Whether any operation may admit the creator, so that the session must record who that is.

    A variable may turn out to say CREATOR.
    """
    if isinstance(policy, Variable):
        return True
    operations = (policy.read, policy.update, policy.effective_create_sessions, policy.effective_list_sessions)
    return any(_may_name_creator(subject) for subjects in operations for subject in subjects)


def check_signed(reading: Reading, node: Node | None, at: Node, policy: AccessPolicy | Variable) -> None:
    """A session whose creator is a signer must say who may read: nobody reads with a signature.

    node: the access policy, None if there is none. at: where to point then.
    """
    if isinstance(policy, Variable):
        return
    written = node.values if isinstance(node, MappingNode) else {}
    for name, subjects in (("read", policy.read), ("list_sessions", policy.effective_list_sessions)):
        if CreatorSubject() in subjects and (name == "read" or name in written):
            place = written.get(name) or node or at
            path = at.path.parent.child("access_policy").child(name) if at.path.parent else None
            reading.findings.error(
                place,
                f"the creator is a signer, who cannot {'read' if name == 'read' else 'list'} as CREATOR; "
                f"set access_policy.{name} to somebody else, or NONE",
                path=path,
            )


def read_signer(reading: Reading, node: Node) -> SignerSubject | None:
    """A key that signs sessions: SubjectPublicKeyInfo in PEM, Ed25519 or P-384, or an Ed25519 key in base58check."""
    text = reading.text(node)
    if not isinstance(node, Scalar) or node.is_null:
        return None
    try:
        return SignerSubject(spki=signer_key(text))
    except ValueError as error:
        found = "" if "-----BEGIN" in text else f"found {describe(node)}: "
        reading.findings.error(node, f"{found}no public key of a signer: {error}{template_hint(text)}")
        return None


def signer_key(text: str, types: Sequence[str] = _SIGNER_TYPES) -> bytes:
    """DER SubjectPublicKeyInfo of a key that signs sessions, from its PEM or its base58check text.

    Raises ValueError with one sentence: not a key, or of none of `types`, by default neither Ed25519 nor P-384.
    """
    if not labels(text):
        if text.lstrip().startswith("--"):
            raise ValueError("it does not begin with the line -----BEGIN PUBLIC KEY-----")
        if _OPENSSH_LINE.match(text):
            raise ValueError(f"it is in OpenSSH's form; {_WRITE_PEM}")
        if _FILE_NAME.fullmatch(text):
            raise ValueError(f"it looks like the name of a file, and no file is read; {_WRITE_PEM}")
        return ed25519_spki(decode_ed25519_key(text))
    key_type, spki = public_key(text)
    check_key_type(key_type, types)
    return spki


def check_key_type(key_type: str, types: Sequence[str]) -> None:
    """Raises ValueError with one sentence."""
    if key_type not in types:
        raise ValueError(f"expected a key of type {', '.join(types[:-1])} or {types[-1]}, found {key_type}")


def _may_name_creator(subject: Subject) -> bool:
    if isinstance(subject, RuleSubject):
        return any(_may_name_creator(part) for part in subject.subjects)
    return isinstance(subject, CreatorSubject | Variable)


def _read_boarded(reading: Reading, fields: Fields, name: str) -> tuple[tuple[Subject, ...], list[JsonValue]]:
    """An operation that the policy board decides: nobody does it in another way."""
    if name in fields.node.values:
        reading.findings.error(
            fields.node.keys[name],
            f"the policy board decides {name}, and this would be a way around it; remove it, or take {name} out of "
            "policy_board.on",
        )
    return (NoneSubject(),), []


def _read_operation(reading: Reading, fields: Fields, name: str) -> tuple[tuple[Subject, ...], list[JsonValue]] | None:
    """The entries of an operation and their normal form; None if it is not there."""
    written = fields.node.values.get(name)
    if written is None:
        return None
    if name not in fields:
        reading.findings.error(written, f"no entry, which would be the default; write it, or NONE, or leave {name} out")
        return (), []
    nodes = reading.elements(written)
    if not nodes:
        reading.findings.error(written, "an empty list admits nobody; write NONE")
    entries = [_read_entry(reading, node, for_signers=name in _FOR_SIGNERS) for node in nodes]
    for node, (subject, _) in zip(nodes, entries, strict=True):
        if subject in _ALONE and len(nodes) > 1:
            reading.findings.error(node, f"{describe(node)} must be the only entry; remove it or the others")
    return tuple(subject for subject, _ in entries if subject is not None), [form for _, form in entries]


def _read_entry(reading: Reading, node: Node, *, for_signers: bool) -> Entry:
    if isinstance(node, MappingNode):
        return _read_rule(reading, node, for_signers=for_signers)
    if isinstance(node, SequenceNode):
        reading.findings.error(node, "found a list inside the list of entries, expected one entry")
        return None, None
    return _read_subject(reading, node), node.text


def _read_subject(reading: Reading, node: Scalar) -> Subject | None:
    if node.is_null:
        reading.findings.error(node, f"found an empty entry, {_EXPECTED}")
        return None
    if node.text in _WORDS:
        return _WORDS[node.text]
    if "-----BEGIN" in node.text:
        return _read_certificate(reading, node)
    if node.text.startswith(MARK):
        return read_variable(reading, node, level=language.SUBJECT_VARIABLE_LEVEL)
    if _HEX_DIGEST.fullmatch(node.text):
        return _read_certificate_hash(reading, node)
    return _read_key_hash(reading, node)


def _read_rule(reading: Reading, node: MappingNode, *, for_signers: bool) -> Entry:
    if len(node.keys) != 1:
        found = "an empty entry" if not node.keys else f"an entry with {len(node.keys)} keys"
        reading.findings.error(node, f"found {found}, expected one of signer, require-all, require-at-least-N")
        return None, None
    ((name, key),) = node.keys.items()
    value = node.values[name]
    at_least = _AT_LEAST.fullmatch(name)
    if name not in _RULES and at_least is None:
        near = nearest(name, _RULES)
        hint = f": did you mean {near.replace('-1', '-N')}?" if near else f"; {_EXPECTED}"
        reading.findings.error(key, f"unknown entry {quote(name)}{hint}")
        return None, None
    if not for_signers:
        reading.findings.error(
            node, f"{name} has no meaning here: who reads or lists shows a key and signs nothing; name a key hash"
        )
        return None, None
    reading.require_level(key, name, language.GOVERNANCE_LEVEL)
    if name == "signer":
        return read_signer(reading, value), {"signer": value.text if isinstance(value, Scalar) else None}
    entries = _read_rule_entries(reading, value, name)
    needed = len(entries) if at_least is None else _read_needed(reading, key, at_least[1], len(entries))
    subjects = tuple(subject for subject, _ in entries if subject is not None)
    return RuleSubject(needed=needed, subjects=subjects), {name: [form for _, form in entries]}


def _read_needed(reading: Reading, key: Node, digits: str, entries: int) -> int:
    wrong = digits.startswith("0") or len(digits) > len(str(entries))
    if entries and (wrong or int(digits) > entries):
        reading.findings.error(
            key, f"at least {digits[:10]} of {entries} entries cannot be; write a number from 1 to {entries}"
        )
        return entries
    return int(digits[:10])


def _read_rule_entries(reading: Reading, node: Node, name: str) -> list[Entry]:
    nodes = reading.sequence(node, "entries")
    if isinstance(node, SequenceNode) and not nodes:
        reading.findings.error(node, f"{name} has no entries, which anybody would satisfy; add some, or write NONE")
    entries = [_read_entry(reading, element, for_signers=True) for element in nodes]
    signers: set[Subject] = set()
    for element, (subject, _) in zip(nodes, entries, strict=True):
        if subject in _ALONE:
            reading.findings.error(element, f"{describe(element)} has no meaning inside {name}; remove it")
        if isinstance(subject, SignerSubject):
            if subject in signers:
                reading.findings.error(element, f"the same signer stands twice in {name} and counts once; remove one")
            signers.add(subject)
    return entries


def _read_certificate(reading: Reading, node: Scalar) -> Subject | None:
    try:
        return KeySubject(key_hash=certificate_key_hash(node.text))
    except ValueError as error:
        hint = ""
        if labels(node.text) == ("PUBLIC KEY",):
            hint = "; write a certificate of this key, or, for signed sessions, signer: <key>"
        reading.findings.error(node, f"{error}{hint}")
        return None


def _read_certificate_hash(reading: Reading, node: Scalar) -> Subject | None:
    if reading.level < language.KEY_HASH_LEVEL:
        return CertificateHashSubject(pem_hash=bytes.fromhex(node.text))
    reading.findings.error(
        node,
        "64 hex digits are the hash of a certificate, which ended with 0.2; write the base58check hash of the "
        "certificate's key, or the certificate itself",
    )
    return None


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


def _warn(reading: Reading, fields: Fields, policy: AccessPolicy, boarded: Collection[str]) -> None:
    node = fields.get("update") or fields.node
    if AnySubject() in policy.update:
        reading.findings.warning(node, "everyone may replace this session and take over its secrets; write CREATOR")
    if policy.create_sessions is not None and AnySubject() in policy.create_sessions:
        reading.findings.warning(
            fields.node.values["create_sessions"], "everyone may create sessions in this namespace; write CREATOR"
        )
    if policy.update == (NoneSubject(),) and "update" not in boarded:
        reading.findings.note(node, "with NONE the session can never change")
    readers = {*policy.read, NoneSubject()}
    if reading.level < language.V0_3 and AnySubject() not in readers and not set(policy.update) <= readers:
        reading.findings.warning(node, "0.2 expects everyone who may update to be able to read; add them to read")
