"""The secrets of a session: nodes to the secret classes, and their normal form. Source: session language, section 7."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from ostiary.session import language
from ostiary.session.duration import format_duration, parse_duration
from ostiary.session.findings import did_you_mean, quote
from ostiary.session.model import AsciiSecret, BinarySecret, PrivateKeySecret, Secret, X509CaSecret, X509Secret
from ostiary.session.name import read_segment
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.pem import certificates_key, private_key
from ostiary.session.reading import Fields, Reading, describe

DEFAULT_SIZE = 20
MIN_SIZE, MAX_SIZE = 1, 65_536

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_BESIDE_VALUE = ("issuer", "common_name", "endpoint", "dns")

Parts = tuple[Secret, dict[str, JsonValue]]
"""A secret, and the members of its normal form that belong to its kind."""


def read_secret(reading: Reading, node: Node) -> tuple[Secret | None, JsonObject]:
    """One secret; None if its kind cannot be read. References to other secrets are not followed here."""
    fields = _fields(reading, node)
    name_node = fields.require("name", "give the secret a name")
    name = "" if name_node is None else read_segment(reading, name_node)
    kind = _read_kind(reading, fields)
    public_node = fields.get("export_public")
    public = False if public_node is None else reading.boolean(public_node)
    if kind not in _READERS:
        return None, {}
    if public_node is not None and public and kind == "private-key":
        reading.findings.warning(public_node, "everyone may read this private key; remove export_public")
    secret, parameters = _READERS[kind](reading, fields, name, public)
    return secret, present(name=name, export_public=public or None, kind=kind, **parameters)


def secret_name(node: Node) -> str | None:
    """The name that a node of `secrets` gives, right or wrong."""
    name = node.values.get("name") if isinstance(node, MappingNode) else None
    return name.text if isinstance(name, Scalar) and not name.is_null else None


def check_references(reading: Reading, secrets: dict[str, tuple[Secret | None, Node]]) -> None:
    """Check what certificates say of other secrets: keys and issuers exist, have the right kind, and form no circle."""
    for secret, node in secrets.values():
        if not isinstance(secret, X509Secret | X509CaSecret) or not isinstance(node, MappingNode):
            continue
        if secret.private_key is not None:
            _check_private_key(reading, node.values["private_key"], secret, secrets)
        if secret.issuer is not None:
            _check_issuer(reading, node.values["issuer"], secret, secrets)
    _check_circles(reading, secrets)


def _fields(reading: Reading, node: Node) -> Fields:
    kind_node = node.values.get("kind") if isinstance(node, MappingNode) else None
    kind = kind_node.text if isinstance(kind_node, Scalar) else ""
    if kind in language.KINDS:
        keys = {**language.SECRET_KEYS, **language.KIND_KEYS[kind]}
        if isinstance(node, MappingNode):
            node = _without_foreign_keys(reading, node, kind, keys)
    else:
        # What belongs to a kind that cannot be read is not judged.
        keys = dict.fromkeys(node.values, language.V0_1) if isinstance(node, MappingNode) else {}
        keys = {name: level for name, level in keys.items() if name not in language.NOT_YET["secret"]}
    return reading.fields(node, "secret", keys)


def _without_foreign_keys(reading: Reading, node: MappingNode, kind: str, keys: dict[str, int]) -> MappingNode:
    """`node` without keys that only other kinds have; each is a mistake of its own."""
    others = {name for kind_keys in language.KIND_KEYS.values() for name in kind_keys} - keys.keys()
    for name in others & node.keys.keys():
        reading.findings.error(node.keys[name], f"{name} is not for secrets of kind {kind}; remove it")
    values = {name: value for name, value in node.values.items() if name not in others}
    return MappingNode(node.line, node.column, node.path, node.keys, values)


def _read_kind(reading: Reading, fields: Fields) -> str:
    if "import" in fields or "import_akv" in fields:
        return ""
    node = fields.require("kind", f"expected one of {', '.join(language.KINDS)}")
    if node is None:
        return ""
    kind = reading.choice(node, language.KINDS, "secret kind")
    if not kind.startswith("x509") or reading.level >= language.V0_3:
        return kind
    if reading.versioned:
        reading.not_yet(node, f"{kind} of version 0.2 (signed by the session's own CA)")
    else:
        reading.require_level(node, f"kind {kind} with a private_key", language.V0_3)
    return ""


def _read_ascii(reading: Reading, fields: Fields, name: str, public: bool) -> Parts:
    node = fields.get("value")
    size = _read_size(reading, fields)
    if node is None:
        generated = DEFAULT_SIZE if size is None else size
        return AsciiSecret(name=name, size=generated, export_public=public), present(size=generated)
    value = reading.text(node)
    if not value.isascii():
        reading.findings.warning(node, "the value has characters that are not ASCII, which some programs cannot read")
    _check_size(reading, fields, size, len(value), "characters")
    return AsciiSecret(name=name, value=value, size=len(value), export_public=public), present(value=value)


def _read_binary(reading: Reading, fields: Fields, name: str, public: bool) -> Parts:
    node = fields.get("value")
    size = _read_size(reading, fields)
    if node is None:
        generated = DEFAULT_SIZE if size is None else size
        return BinarySecret(name=name, size=generated, export_public=public), present(size=generated)
    text = reading.text(node)
    value = b""
    if _HEX.fullmatch(text):
        value = bytes.fromhex(text)
        _check_size(reading, fields, size, len(value), "bytes")
    else:
        reading.findings.error(node, "the value is not hex; write two hex digits for each byte")
    return BinarySecret(name=name, value=value, size=len(value), export_public=public), present(value=value.hex())


def _read_size(reading: Reading, fields: Fields) -> int | None:
    node = fields.get("size")
    return None if node is None else reading.integer(node, least=MIN_SIZE, most=MAX_SIZE)


def _check_size(reading: Reading, fields: Fields, size: int | None, length: int, unit: str) -> None:
    node = fields.get("size")
    if node is not None and size is not None and size != length:
        reading.findings.error(node, f"size is {size} and value has {length} {unit}; correct it or leave it out")


def _read_private_key(reading: Reading, fields: Fields, name: str, public: bool) -> Parts:
    type_node, migrate_node, value_node = (fields.get(key) for key in ("key_type", "migrate", "value"))
    migrate = False if migrate_node is None else reading.boolean(migrate_node)
    if value_node is None:
        key_type = "P-256" if type_node is None else reading.choice(type_node, language.KEY_TYPES, "key_type")
        secret = PrivateKeySecret(name=name, key_type=key_type, migrate=migrate, export_public=public)
        return secret, present(key_type=None if key_type == "P-256" else key_type, migrate=migrate)
    value = reading.text(value_node)
    key_type = _read_key_value(reading, value_node, value)
    if type_node is not None and key_type and reading.text(type_node) != key_type:
        reading.findings.error(
            type_node, f"found {describe(type_node)} and a value of type {key_type}; correct key_type or leave it out"
        )
    secret = PrivateKeySecret(name=name, key_type=key_type, value=value, migrate=migrate, export_public=public)
    return secret, present(migrate=migrate, value=value)


def _read_key_value(reading: Reading, node: Node, value: str) -> str:
    """The key's type, "" if it cannot be read."""
    if not isinstance(node, Scalar):
        return ""
    try:
        return private_key(value)[0]
    except ValueError as error:
        reading.findings.error(node, str(error))
        return ""


def _read_ca(reading: Reading, fields: Fields, name: str, public: bool) -> Parts:
    key, common_name, issuer, valid_for, value = _read_certificate(reading, fields)
    secret = X509CaSecret(
        name=name,
        private_key=key,
        issuer=issuer,
        common_name=common_name,
        valid_for=valid_for,
        value=value,
        export_public=public,
    )
    return secret, present(
        private_key=key,
        common_name=common_name,
        issuer=issuer,
        valid_for=None if valid_for is None else format_duration(valid_for),
        value=value,
    )


def _read_end_entity(reading: Reading, fields: Fields, name: str, public: bool) -> Parts:
    key, common_name, issuer, valid_for, value = _read_certificate(reading, fields)
    endpoint_node, dns_node = fields.get("endpoint"), fields.get("dns")
    endpoint = None if endpoint_node is None else reading.choice(endpoint_node, {"server": 0, "client": 0}, "endpoint")
    dns = () if dns_node is None else _read_dns(reading, dns_node)
    if dns_node is not None and endpoint == "client":
        reading.findings.error(dns_node, "dns names a server, and endpoint is client; remove one of them")
    secret = X509Secret(
        name=name,
        private_key=key,
        issuer=issuer,
        common_name=common_name,
        endpoint=endpoint,
        dns=dns,
        valid_for=valid_for,
        value=value,
        export_public=public,
    )
    return secret, present(
        private_key=key,
        common_name=common_name,
        issuer=issuer,
        valid_for=None if valid_for is None else format_duration(valid_for),
        endpoint=endpoint,
        dns=list(dns),
        value=value,
    )


def _read_certificate(
    reading: Reading, fields: Fields
) -> tuple[str | None, str | None, str | None, timedelta | None, str | None]:
    """What CA and other certificates have in common: key, common name, issuer, duration, value."""
    value_node = fields.get("value")
    value = None if value_node is None else reading.text(value_node)
    if value is not None and isinstance(value_node, Scalar):
        try:
            certificates_key(value)
        except ValueError as error:
            reading.findings.error(value_node, str(error))
    if value is None and not fields.near("private_key"):
        fields.require("private_key", "name a private-key secret of this session, or give the certificate as value")
    valid_node = fields.get("valid_for")
    valid_for = None if valid_node is None else _read_duration(reading, valid_node)
    if value is not None:
        _check_beside_value(reading, fields)
    return fields.text("private_key"), fields.text("common_name"), fields.text("issuer"), valid_for, value


def _check_beside_value(reading: Reading, fields: Fields) -> None:
    valid_for = fields.get("valid_for")
    if valid_for is not None:
        reading.findings.error(valid_for, "a certificate given as value has its own dates; remove valid_for")
    for name in _BESIDE_VALUE:
        node = fields.get(name)
        if node is not None:
            reading.findings.warning(node, f"{name} has no effect on a certificate given as value; remove it")


def _read_duration(reading: Reading, node: Node) -> timedelta | None:
    text = reading.text(node)
    if not isinstance(node, Scalar):
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        reading.findings.error(node, f"found {describe(node)}, {error}")
        return None


def _read_dns(reading: Reading, node: Node) -> tuple[str, ...]:
    names = []
    for element in reading.elements(node):
        name = reading.text(element)
        if isinstance(element, Scalar) and not element.is_null and (not name or not name.isprintable() or " " in name):
            reading.findings.error(element, f"found {describe(element)}, expected a DNS name")
        names.append(name)
    return tuple(names)


def _check_private_key(
    reading: Reading, node: Node, certificate: Secret, secrets: dict[str, tuple[Secret | None, Node]]
) -> None:
    name = node.text if isinstance(node, Scalar) else ""
    if not _exists(reading, node, name, secrets, PrivateKeySecret):
        return
    key = secrets[name][0]
    if not isinstance(key, PrivateKeySecret):
        if key is not None:
            reading.findings.error(node, f"{quote(name)} is no private key; name a secret of kind private-key")
    elif key.value is not None and certificate.value is not None and not _match(key.value, str(certificate.value)):
        reading.findings.error(node, f"{quote(name)} is not the key of the certificate in value; name the right one")


def _check_issuer(
    reading: Reading, node: Node, certificate: Secret, secrets: dict[str, tuple[Secret | None, Node]]
) -> None:
    name = node.text if isinstance(node, Scalar) else ""
    if not _exists(reading, node, name, secrets, X509CaSecret):
        return
    issuer = secrets[name][0]
    if not isinstance(issuer, X509CaSecret):
        if issuer is not None:
            reading.findings.error(node, f"{quote(name)} is no CA; name a secret of kind x509-ca")
    elif issuer.value is not None and issuer.private_key is None and certificate.value is None:
        reading.findings.error(node, f"{quote(name)} has no private_key here, so it cannot sign; give it one")


def _exists(
    reading: Reading, node: Node, name: str, secrets: dict[str, tuple[Secret | None, Node]], kind: type[Secret]
) -> bool:
    if name and name not in secrets:
        fitting = [other for other, (secret, _) in secrets.items() if isinstance(secret, kind)]
        reading.findings.error(node, f"there is no secret {quote(name)}{did_you_mean(name, fitting)}")
    return name in secrets


def _match(key: str, certificate: str) -> bool:
    try:
        return private_key(key)[1] == certificates_key(certificate)
    except ValueError:
        return True  # a mistake of its own, already reported


def _check_circles(reading: Reading, secrets: dict[str, tuple[Secret | None, Node]]) -> None:
    issuers = {
        name: secret.issuer
        for name, (secret, _) in secrets.items()
        if isinstance(secret, X509CaSecret) and secret.issuer is not None
    }
    done: set[str] = set()
    for start in issuers:
        path: list[str] = []
        name: str | None = start
        while name is not None and name not in done:
            done.add(name)
            path.append(name)
            name = issuers.get(name)
        if name in path:
            node = secrets[path[path.index(name)]][1]
            if isinstance(node, MappingNode):
                circle = " → ".join([*path[path.index(name) :][:5], name])
                reading.findings.error(
                    node.values["issuer"], f"issuers in a circle, {circle}; make one of them self-signed"
                )


_READERS: dict[str, Callable[[Reading, Fields, str, bool], Parts]] = {
    "ascii": _read_ascii,
    "binary": _read_binary,
    "private-key": _read_private_key,
    "x509-ca": _read_ca,
    "x509": _read_end_entity,
}
