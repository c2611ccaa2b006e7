"""The secrets of a session: nodes to the secret classes, and their normal form. Source: session language, section 7.

Each secret is read by itself first; what it says of other secrets is checked when all of them are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from ostiary.session import language
from ostiary.session.certificate import check_certificate, check_circles, read_ca, read_end_entity
from ostiary.session.declared import Declared, Parts, referred
from ostiary.session.facts import SecretFacts
from ostiary.session.findings import quote
from ostiary.session.fragment import has_placeholder, read_fragment
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    AsciiSecret,
    BinarySecret,
    ConfigFragmentSecret,
    ImportedSecret,
    JwtSecret,
    PgpKeySecret,
    PrivateKeySecret,
    PublicKeySecret,
    Secret,
    SessionCaSecret,
    X509CaSecret,
    X509Secret,
)
from ostiary.session.name import read_segment
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, present
from ostiary.session.pem import private_key, public_key
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.reference import read_reference
from ostiary.session.sharing import read_akv, read_exports, resolve_akv
from ostiary.session.token import check_jwt, read_aad_token, read_jwt

DEFAULT_SIZE = 20
MIN_SIZE, MAX_SIZE = 1, 65_536

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_PARAMETERS = frozenset(name for keys in language.KIND_KEYS.values() for name in keys) | {"value"}
_NESTED = "the fragment has a variable inside, which is not supported: whatever depends on it will be refused"


def read_secret(reading: Reading, node: Node) -> tuple[Secret | None, JsonObject]:
    """One secret; None if it cannot be read. References to other secrets are not followed here."""
    fields = _fields(reading, node)
    name_node = fields.require("name", "give the secret a name")
    name = "" if name_node is None else read_segment(reading, name_node)
    exports, export_form = read_exports(reading, fields.get("export"))
    public_node = fields.get("export_public")
    public = False if public_node is None else reading.boolean(public_node)
    imported = "import" in fields or "import_akv" in fields
    kind = _read_kind(reading, fields, imported=imported)
    if public_node is not None and public and kind in language.CONFIDENTIAL_KINDS:
        reading.findings.warning(public_node, f"everyone may read this {kind}; remove export_public")
    if imported:
        parts = _read_imported(reading, fields, name, kind or None)
    elif kind in _READERS:
        parts = _READERS[kind](reading, fields, name)
    else:
        parts = None
    if parts is None:
        return None, {}
    secret, parameters = parts
    source = {key: parameters.pop(key) for key in ("import", "import_akv") if key in parameters}
    head = present(name=name, export=export_form, **source, export_public=public or None, kind=kind or None)
    return replace(secret, export_public=public, exports=exports), {**head, **parameters}


def secret_name(node: Node) -> str | None:
    """The name that a node of `secrets` gives, right or wrong."""
    name = node.values.get("name") if isinstance(node, MappingNode) else None
    return name.text if isinstance(name, Scalar) and not name.is_null else None


def secret_facts(secret: Secret | None) -> SecretFacts:
    """What placeholders and references may know of a secret."""
    match secret:
        case None:
            return SecretFacts(mistaken=True)
        case ImportedSecret() | AkvSecret():
            return SecretFacts(kind=secret.kind, size=secret.size)
        case X509Secret() | X509CaSecret():
            # In 0.2 a generated certificate has a key of its own.
            return SecretFacts(
                kind=_KINDS[type(secret)], has_key=secret.private_key is not None or secret.value is None
            )
        case BinarySecret():
            return SecretFacts(kind="binary", size=secret.size)
        case AsciiSecret():
            return SecretFacts(kind="ascii", text=secret.value)
        case ConfigFragmentSecret():
            return SecretFacts(kind="config-fragment", nested=has_placeholder(secret.value))
    return SecretFacts(kind=_KINDS[type(secret)])


def check_references(reading: Reading, secrets: Declared) -> None:
    """Check what secrets say of others: keys, issuers and signers exist, have the right kind, and form no circle.

    `reading.secrets` must be complete.
    """
    for secret, node in secrets.values():
        if not isinstance(node, MappingNode):
            continue
        match secret:
            case X509Secret() | X509CaSecret():
                check_certificate(reading, node, secret, secrets)
            case PublicKeySecret():
                _check_public_key(reading, node, secret, secrets)
            case JwtSecret():
                check_jwt(reading, node, secret, secrets)
            case ConfigFragmentSecret() if secret.exports and has_placeholder(secret.value):
                reading.findings.warning(node.values["value"], f"{_NESTED}; write the value into the fragment")
    check_circles(reading, secrets)


def resolve_references(reading: Reading, secrets: Declared) -> tuple[Secret, ...]:
    """The secrets; those of key vaults with the names of the token and the key that they say or mean."""
    return tuple(
        resolve_akv(reading, node.values["import_akv"], secret)
        if isinstance(secret, AkvSecret) and isinstance(node, MappingNode)
        else secret
        for secret, node in secrets.values()
        if secret is not None
    )


def note_new_keys(reading: Reading, secrets: Declared) -> None:
    """Note, in an update, generated private keys that change their value although others rely on it."""
    relied = {
        secret.private_key
        for secret, _ in secrets.values()
        if isinstance(secret, X509Secret | X509CaSecret | PublicKeySecret) and secret.private_key is not None
    }
    for name, (secret, node) in secrets.items():
        new = isinstance(secret, PrivateKeySecret) and secret.value is None and not secret.migrate
        if new and secret is not None and (secret.exports or name in relied):
            reading.findings.note(
                node, "an update makes this key anew; write migrate: true, here and in the version before, to keep it"
            )


def _fields(reading: Reading, node: Node) -> Fields:
    if not isinstance(node, MappingNode):
        return reading.fields(node, "secret", {})
    if any(_is_given(node.values.get(source)) for source in ("import", "import_akv")):
        keys = {**language.SECRET_KEYS, "size": language.V0_1}
        del keys["value"]
        return reading.fields(_without_parameters(reading, node, keys), "secret", keys)
    kind_node = node.values.get("kind")
    kind = kind_node.text if isinstance(kind_node, Scalar) and not kind_node.is_null else ""
    if kind not in language.KINDS:
        # What belongs to a kind that cannot be read is not judged.
        return reading.fields(node, "secret", dict.fromkeys(node.values, language.V0_1))
    keys = {**language.SECRET_KEYS, **language.KIND_KEYS[kind]}
    if kind not in language.KINDS_WITH_VALUE:
        del keys["value"]
    return reading.fields(_without_foreign_keys(reading, node, kind, keys), "secret", keys)


def _is_given(node: Node | None) -> bool:
    return node is not None and not (isinstance(node, Scalar) and node.is_null)


def _without_foreign_keys(reading: Reading, node: MappingNode, kind: str, keys: Mapping[str, int]) -> MappingNode:
    """`node` without keys that only other kinds have; each is a mistake of its own."""
    foreign = _PARAMETERS - keys.keys()
    for name in foreign & node.keys.keys():
        reading.findings.error(node.keys[name], f"{name} is not for secrets of kind {kind}; remove it")
    return _without(node, foreign)


def _without_parameters(reading: Reading, node: MappingNode, keys: Mapping[str, int]) -> MappingNode:
    """`node`, an import, without what only secrets made here have; each is a mistake, unless it says nothing."""
    foreign = _PARAMETERS - keys.keys()
    for name in foreign & node.keys.keys():
        value = node.values[name]
        empty_key = name == "private_key" and isinstance(value, Scalar) and not value.text
        if _is_given(value) and not empty_key:
            reading.findings.error(
                node.keys[name], f"{name} is for secrets made here, and this one is imported; remove one of them"
            )
    return _without(node, foreign)


def _without(node: MappingNode, names: frozenset[str]) -> MappingNode:
    values = {name: value for name, value in node.values.items() if name not in names}
    return MappingNode(node.line, node.column, node.path, node.keys, values)


def _read_kind(reading: Reading, fields: Fields, *, imported: bool) -> str:
    node = fields.get("kind")
    if node is None:
        if not imported:
            fields.require("kind", f"expected one of {', '.join(language.KINDS)}")
        return ""
    kind = reading.choice(node, language.KINDS, "secret kind")
    if kind == "session-ca" and reading.level >= language.V0_3:
        reading.findings.error(
            node, "session-ca ended with 0.2; declare an x509-ca with a private_key, and name it as issuer"
        )
    return kind if kind in language.KINDS else ""


def _read_imported(reading: Reading, fields: Fields, name: str, kind: str | None) -> Parts | None:
    size = _read_size(reading, fields)
    imported, akv = fields.get("import"), fields.get("import_akv")
    if akv is not None:
        if imported is not None:
            reading.findings.error(fields.node, "import and import_akv exclude each other; keep one of them")
        vault, form = read_akv(reading, reading.fields(akv, "import_akv"), name)
        return replace(vault, kind=kind, size=size), {"import_akv": form, **present(size=size)}
    if imported is None:
        return None
    found = read_reference(reading, imported, "import", item="secret")
    if found is None:
        return None
    secret = ImportedSecret(
        name=name,
        kind=kind,
        size=size,
        session=found.session or "",
        secret=found.item or name,
        session_hash=found.session_hash,
        cas=found.cas,
    )
    return secret, {"import": found.form, **present(size=size)}


def _read_ascii(reading: Reading, fields: Fields, name: str) -> Parts:
    node = fields.get("value")
    size = _read_size(reading, fields)
    if node is None:
        generated = DEFAULT_SIZE if size is None else size
        return AsciiSecret(name=name, size=generated), present(size=generated)
    value = reading.text(node)
    if not value.isascii():
        reading.findings.warning(node, "the value has characters that are not ASCII, which some programs cannot read")
    _check_size(reading, fields, size, len(value), "characters")
    return AsciiSecret(name=name, value=value, size=len(value)), present(value=value)


def _read_binary(reading: Reading, fields: Fields, name: str) -> Parts:
    node = fields.get("value")
    size = _read_size(reading, fields)
    if node is None:
        generated = DEFAULT_SIZE if size is None else size
        return BinarySecret(name=name, size=generated), present(size=generated)
    text = reading.text(node)
    value = b""
    if _HEX.fullmatch(text):
        value = bytes.fromhex(text)
        _check_size(reading, fields, size, len(value), "bytes")
    else:
        reading.findings.error(node, "the value is not hex; write two hex digits for each byte")
    return BinarySecret(name=name, value=value, size=len(value)), present(value=value.hex())


def _read_size(reading: Reading, fields: Fields) -> int | None:
    node = fields.get("size")
    return None if node is None else reading.integer(node, least=MIN_SIZE, most=MAX_SIZE)


def _check_size(reading: Reading, fields: Fields, size: int | None, length: int, unit: str) -> None:
    node = fields.get("size")
    if node is not None and size is not None and size != length:
        reading.findings.error(node, f"size is {size} and value has {length} {unit}; correct it or leave it out")


def _read_private_key(reading: Reading, fields: Fields, name: str) -> Parts:
    type_node, migrate_node, value_node = (fields.get(key) for key in ("key_type", "migrate", "value"))
    migrate = False if migrate_node is None else reading.boolean(migrate_node)
    if value_node is None:
        key_type = "P-256" if type_node is None else reading.choice(type_node, language.KEY_TYPES, "key_type")
        secret = PrivateKeySecret(name=name, key_type=key_type, migrate=migrate)
        return secret, present(key_type=None if key_type == "P-256" else key_type, migrate=migrate)
    value = reading.text(value_node)
    key_type = _read_key_value(reading, value_node, value)
    if type_node is not None and key_type and reading.text(type_node) != key_type:
        reading.findings.error(
            type_node, f"found {describe(type_node)} and a value of type {key_type}; correct key_type or leave it out"
        )
    secret = PrivateKeySecret(name=name, key_type=key_type, value=value, migrate=migrate)
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


def _read_public_key(reading: Reading, fields: Fields, name: str) -> Parts:
    value_node = fields.get("value")
    value = None if value_node is None else reading.text(value_node)
    if value is not None and isinstance(value_node, Scalar):
        try:
            public_key(value)
        except ValueError as error:
            reading.findings.error(value_node, str(error))
    if value is None and not fields.near("private_key"):
        fields.require("private_key", "name a private-key secret of this session, or give the public key as value")
    key = fields.text("private_key")
    return PublicKeySecret(name=name, private_key=key, value=value), present(private_key=key, value=value)


def _check_public_key(reading: Reading, node: MappingNode, secret: PublicKeySecret, secrets: Declared) -> None:
    if secret.private_key is None:
        return
    key_node = node.values["private_key"]
    key = referred(reading, key_node, secrets, "private-key", (PrivateKeySecret,))
    if not isinstance(key, PrivateKeySecret) or secret.value is None:
        return
    try:
        match = key.value is not None and private_key(key.value)[1] == public_key(secret.value)[1]
    except ValueError:
        return  # a mistake of its own, already reported
    if not match:
        reading.findings.error(
            key_node, f"{quote(key.name)} is not the private key of value; remove private_key or value"
        )


def _read_session_ca(_: Reading, __: Fields, name: str) -> Parts:
    return SessionCaSecret(name=name), {}


def _read_pgp_key(_: Reading, __: Fields, name: str) -> Parts:
    return PgpKeySecret(name=name), {}


def _read_fragment(reading: Reading, fields: Fields, name: str) -> Parts:
    node = fields.get("value")
    if node is None:
        reading.findings.error(fields.node, "a config-fragment has a value or an import; write one of them")
    value: JsonValue = "" if node is None else read_fragment(node)
    # As it stands: an empty list is a value, and present() would drop it.
    return ConfigFragmentSecret(name=name, value=value), {"value": value}


_READERS: Mapping[str, Callable[[Reading, Fields, str], Parts]] = {
    "ascii": _read_ascii,
    "binary": _read_binary,
    "private-key": _read_private_key,
    "public-key": _read_public_key,
    "x509-ca": read_ca,
    "x509": read_end_entity,
    "session-ca": _read_session_ca,
    "aad-token": read_aad_token,
    "config-fragment": _read_fragment,
    "pgp-key": _read_pgp_key,
    "jwt": read_jwt,
}
_KINDS: Mapping[type[Secret], str] = {
    AsciiSecret: "ascii",
    BinarySecret: "binary",
    PrivateKeySecret: "private-key",
    PublicKeySecret: "public-key",
    X509CaSecret: "x509-ca",
    X509Secret: "x509",
    SessionCaSecret: "session-ca",
    AadTokenSecret: "aad-token",
    ConfigFragmentSecret: "config-fragment",
    PgpKeySecret: "pgp-key",
    JwtSecret: "jwt",
}
