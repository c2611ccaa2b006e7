"""References to other sessions: targets of exports, and where imports come from. Source: session language, 9, 10, 13.

Three spellings: a mapping; in one line, `[<cas address>]/key=value{,key=value}`; and up to 0.2 `name[:hash]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.session import language
from ostiary.session.base58 import decode_key_hash
from ostiary.session.findings import quote, template_hint
from ostiary.session.model import RemoteCas
from ostiary.session.name import read_segment, resolve_reference
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonValue, present
from ostiary.session.reading import Reading, describe

DEFAULT_PORT = 8081

_HASH_BYTES = 32
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::([0-9]{1,5}))?")
_SHORT_FORM = re.compile(r"[^=]*/[a-z_]+=")
_ORDER = ("session", "namespace", "secret", "volume", "session_hash", "cas_url", "cas_key", "cas_software_key")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a reference says, whatever its spelling; which of it must be there is for its place to say.

    session, namespace: absolute names. item: name of a secret or volume there. form: for the normal form.
    """

    session: str | None = None
    namespace: str | None = None
    item: str | None = None
    session_hash: bytes | None = None
    cas: RemoteCas | None = None
    form: JsonValue = None


def read_reference(reading: Reading, node: Node, place: str, *, item: str | None = None) -> Reference | None:
    """The reference at `node`; None after a mistake that leaves nothing of it.

    place: in `language.KEYS`, whose keys it may have. item: the key that names a thing in the session, `secret` or
    `volume`, mandatory from 0.3 on.
    """
    if isinstance(node, MappingNode):
        reading.require_level(node, "the mapping form of a reference", language.REFERENCE_LEVEL)
        fields = reading.fields(node, place)
        named = {key: value for key in _ORDER if (value := fields.get(key)) is not None}
        if item is not None and not fields.near(item):
            fields.require(item, f"name the {item} of that session")
        near = fields.near("session") or fields.near("namespace")
        return _read_named(reading, node, named, item, near=near)
    text = reading.text(node)
    if not isinstance(node, Scalar) or not text:
        return None
    if _SHORT_FORM.match(text):
        reading.require_level(node, "the short form of a reference", language.REFERENCE_LEVEL)
        return _read_short_form(reading, node, text, place, item)
    if reading.level >= language.REFERENCE_LEVEL:
        _refuse_old_form(reading, node, text, place, item)
        return None
    return _read_old_form(reading, node, text)


def _read_named(
    reading: Reading,
    node: Node,
    named: Mapping[str, Node],
    item: str | None,
    *,
    near: bool = False,
    relative: bool = True,
) -> Reference:
    session, namespace = named.get("session"), named.get("namespace")
    if session is not None and namespace is not None:
        reading.findings.error(namespace, "session and namespace exclude each other; keep one of them")
    elif session is None and namespace is None and not near:
        reading.findings.error(node, "session is missing; name the other session")
    for key, value in (("session", session), ("namespace", namespace)):
        if isinstance(value, Scalar) and not value.is_null and not value.text:
            reading.findings.error(value, f"{key} is empty; name one")
    hash_node = named.get("session_hash")
    if hash_node is not None and namespace is not None and session is None:
        reading.findings.error(hash_node, "a namespace has no hash; remove session_hash, or name a session")
    absolute = {
        key: resolve_reference(reading, value, reading.text(value), relative=relative)
        for key, value in (("session", session), ("namespace", namespace))
        if value is not None and reading.text(value)
    }
    session_hash = None if hash_node is None else reading.digest(hash_node, size=_HASH_BYTES)
    item_node = None if item is None else named.get(item)
    item_name = None if item_node is None else read_segment(reading, item_node)
    form = present(
        session=absolute.get("session"),
        namespace=absolute.get("namespace"),
        **({} if item is None else {item: item_name}),
        session_hash=None if session_hash is None else session_hash.hex(),
    )
    cas = _read_cas(reading, node, named, form)
    return Reference(
        session=absolute.get("session"),
        namespace=absolute.get("namespace"),
        item=item_name,
        session_hash=session_hash,
        cas=cas,
        form=form,
    )


def _read_cas(reading: Reading, node: Node, named: Mapping[str, Node], form: dict[str, JsonValue]) -> RemoteCas | None:
    url, key, software_key = (named.get(name) for name in ("cas_url", "cas_key", "cas_software_key"))
    if url is None:
        for other in (key, software_key):
            if other is not None:
                reading.findings.error(other, "the key of another CAS, and no cas_url; add it, or remove the key")
        return None
    if (key is None) == (software_key is None):
        reading.findings.error(
            node,
            "another CAS is known by exactly one key; give cas_key (its owner's) or cas_software_key beside cas_url",
        )
    if "namespace" in named:
        reading.findings.error(url, "a namespace of another CAS cannot be named; name a session there")
    address = _read_address(reading, url)
    form["cas_url"] = address
    hashes: dict[str, bytes] = {}
    for name, value in (("cas_key", key), ("cas_software_key", software_key)):
        if value is not None:
            hashes[name] = _read_key_hash(reading, value)
            form[name] = reading.text(value)
    return RemoteCas(url=address, cas_key=hashes.get("cas_key"), cas_software_key=hashes.get("cas_software_key"))


def _read_address(reading: Reading, node: Node) -> str:
    """`host:port` of `host`, `host:port`, either with `https://` before it."""
    text = reading.text(node)
    found = _ADDRESS.fullmatch(text.removeprefix("https://").removesuffix("/"))
    port = DEFAULT_PORT if found is None or found[2] is None else int(found[2])
    if found is None or not 1 <= port <= 65535:
        if isinstance(node, Scalar) and not node.is_null:
            reading.findings.error(node, f"found {describe(node)}, expected host or host:port{template_hint(text)}")
        return ""
    return f"{found[1].lower()}:{port}"


def _read_key_hash(reading: Reading, node: Node) -> bytes:
    text = reading.text(node)
    try:
        return decode_key_hash(text)
    except ValueError as error:
        if isinstance(node, Scalar) and not node.is_null:
            reading.findings.error(
                node, f"found {describe(node)}, expected a key hash in base58check, but {error}{template_hint(text)}"
            )
        return bytes(_HASH_BYTES)


def _read_short_form(reading: Reading, node: Scalar, text: str, place: str, item: str | None) -> Reference | None:
    address, _, rest = text.partition("/") if "://" not in text else _split_url(text)
    keys = language.KEYS[place]
    named: dict[str, Node] = {}
    if address:
        named["cas_url"] = _part(node, address)
    for piece in rest.split(","):
        key, equals, value = piece.partition("=")
        if not equals or not value or any(blank in piece for blank in " \t"):
            reading.findings.error(node, f"found {quote(piece)} in the short form, expected key=value without blanks")
            return None
        if key not in keys or key == "cas_url":
            known = [name for name in keys if name != "cas_url"]
            reading.findings.error(
                node, f"unknown key {quote(key)} in the short form{reading.findings.did_you_mean(key, known)}"
            )
            return None
        if key in named:
            reading.findings.error(node, f"{key} stands twice in the short form; keep one of them")
            return None
        reading.require_level(node, key, keys[key])
        named[key] = _part(node, value)
    if item is not None and item not in named:
        reading.findings.error(node, f"{item} is missing; add ,{item}=<its name in that session>")
    return _read_named(reading, node, named, item, relative=False)


def _split_url(text: str) -> tuple[str, str, str]:
    scheme, _, rest = text.partition("://")
    address, slash, fields = rest.partition("/")
    return f"{scheme}://{address}", slash, fields


def _part(node: Scalar, text: str) -> Scalar:
    """A piece of the text at `node`, as a node of its own in the same place."""
    return Scalar(node.line, node.column, node.path, text, plain=False)


def _refuse_old_form(reading: Reading, node: Scalar, text: str, place: str, item: str | None) -> None:
    name, _, session_hash = text.partition(":")
    members = [f"session: {name}"]
    if item is not None:
        members.append(f"{item}: <its name there>")
    if session_hash:
        members.append("session_hash: …")
    reading.findings.error(
        node, f"found {describe(node)}, the form of 0.2; write {place.rsplit(maxsplit=1)[-1]}: {{{', '.join(members)}}}"
    )


def _read_old_form(reading: Reading, node: Scalar, text: str) -> Reference:
    name, colon, hash_text = text.partition(":")
    session = resolve_reference(reading, node, name)
    if colon and not _HASH.fullmatch(hash_text):
        reading.findings.error(
            node, f"found {describe(node)}, expected name or name:hash with {2 * _HASH_BYTES} digits"
        )
        return Reference(session=session)
    form = f"{session}:{hash_text.lower()}" if colon else session
    return Reference(session=session, session_hash=bytes.fromhex(hash_text) if colon else None, form=form)
