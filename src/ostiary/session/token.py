"""Tokens among the secrets: of Azure's directory, and JSON web tokens. Source: session language, 7 and 7.4."""

from __future__ import annotations

import re
from datetime import timedelta

from ostiary.session import language
from ostiary.session.certificate import read_duration
from ostiary.session.declared import Declared, Parts, referred
from ostiary.session.duration import format_duration
from ostiary.session.findings import quote
from ostiary.session.model import AadTokenSecret, JwtSecret, PrivateKeySecret, SoftwareIdentity, Variable
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import present
from ostiary.session.pem import private_key
from ostiary.session.placeholder import MARK, SOFTWARE_IDENTITY, Placeholder, parse_template
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.variable import read_variable

_RESERVED_CLAIMS = frozenset({"iat", "nbf", "exp"})
_THUMBPRINT = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_TYPED = re.compile(
    r"true|True|TRUE|false|False|FALSE|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
)

Claims = tuple[tuple[str, str | Variable | SoftwareIdentity], ...]


def read_aad_token(reading: Reading, fields: Fields, name: str) -> Parts:
    """A token of Azure's directory, with one of two credentials."""
    for key in ("tenant_id", "client_id"):
        if not fields.near(key):
            fields.require(key, "copy it from the application's registration")
    texts = {
        key: _credential(reading, fields, key)
        for key in ("tenant_id", "client_id", "application_secret", "private_key", "certificate_thumbprint")
    }
    has_secret = "application_secret" in fields
    has_key, has_thumbprint = "private_key" in fields, "certificate_thumbprint" in fields
    if not fields.mistaken and (has_secret == (has_key or has_thumbprint) or has_key != has_thumbprint):
        reading.findings.error(
            fields.node,
            "expected exactly one credential: application_secret, or private_key together with certificate_thumbprint",
        )
    _check_rsa(reading, fields.get("private_key"), texts["private_key"])
    _check_thumbprint(reading, fields.get("certificate_thumbprint"), texts["certificate_thumbprint"])
    secret = AadTokenSecret(
        name=name,
        tenant_id=texts["tenant_id"] or "",
        client_id=texts["client_id"] or "",
        application_secret=texts["application_secret"],
        private_key=texts["private_key"],
        certificate_thumbprint=texts["certificate_thumbprint"],
    )
    return secret, present(**texts)


def _credential(reading: Reading, fields: Fields, key: str) -> str | None:
    text = fields.text(key)
    node = fields.get(key)
    if node is not None and text and MARK in text:
        reading.findings.error(node, f"{key} cannot be a variable; write its text")
    return text


def _check_rsa(reading: Reading, node: Node | None, text: str | None) -> None:
    if node is None or not text:
        return
    try:
        key_type, _ = private_key(text)
    except ValueError as error:
        reading.findings.error(node, str(error))
        return
    if not key_type.startswith("RSA"):
        reading.findings.error(node, f"expected an RSA key, found one of type {key_type}")


def _check_thumbprint(reading: Reading, node: Node | None, text: str | None) -> None:
    if node is not None and text and not _THUMBPRINT.fullmatch(text):
        reading.findings.error(
            node, f"found {describe(node)}, expected the 40 hex digits of a certificate's thumbprint"
        )


def read_jwt(reading: Reading, fields: Fields, name: str) -> Parts:
    """A JSON web token. Its variables and its signer are checked by `check_jwt`."""
    fields.require("signer", f"name a private-key secret of type {language.JWT_KEY_TYPE}")
    signer = fields.text("signer") or ""
    alg_node = fields.require("alg", "write ES384")
    alg = "" if alg_node is None else reading.choice(alg_node, language.JWT_ALGORITHMS, "alg")
    validity_node = fields.require("validity", "write {for: 24h}")
    validity = None if validity_node is None else _read_validity(reading, validity_node)
    payload_node = fields.get("payload")
    payload = () if payload_node is None else _read_payload(reading, payload_node)
    secret = JwtSecret(name=name, signer=signer, alg=alg, validity=validity or timedelta(), payload=payload)
    return secret, present(
        signer=signer,
        alg=alg,
        validity=None if validity is None else {"for": format_duration(validity)},
        payload={claim: _written(value) for claim, value in payload},
    )


def check_jwt(reading: Reading, node: MappingNode, secret: JwtSecret, secrets: Declared) -> None:
    """Check the signer and the variables of a token; `reading.secrets` must be complete."""
    signer_node = node.values.get("signer")
    if signer_node is not None and secret.signer:
        key = referred(reading, signer_node, secrets, "private-key", (PrivateKeySecret,))
        if isinstance(key, PrivateKeySecret) and key.key_type not in (language.JWT_KEY_TYPE, ""):
            reading.findings.error(
                signer_node,
                f"{quote(key.name)} is of type {key.key_type}, and ES384 needs {language.JWT_KEY_TYPE}; "
                f"set its key_type: {language.JWT_KEY_TYPE}",
            )
    payload = node.values.get("payload")
    for claim, value in secret.payload:
        if isinstance(value, Variable) and isinstance(payload, MappingNode):
            read_variable(reading, payload.values[claim], level=language.KINDS["jwt"])


def _read_validity(reading: Reading, node: Node) -> timedelta | None:
    fields = reading.fields(node, "validity")
    duration = fields.require("for", "write how long the token is valid, such as 24h")
    return None if duration is None else read_duration(reading, duration)


def _read_payload(reading: Reading, node: Node) -> Claims:
    """The claims, sorted by the bytes of their names, as the order means nothing."""
    if not isinstance(node, MappingNode):
        reading.findings.error(node, f"found {describe(node)}, expected a mapping of claims")
        return ()
    claims: list[tuple[str, str | Variable | SoftwareIdentity]] = []
    for claim in sorted(node.values, key=str.encode):
        value = node.values[claim]
        if claim in _RESERVED_CLAIMS:
            reading.findings.error(node.keys[claim], f"{claim} is set by the service; remove it")
        if isinstance(value, Scalar) and value.plain and _TYPED.fullmatch(value.text):
            reading.findings.error(
                value, f'found {describe(value)}, and claims are text; write "{value.text}" in quotes'
            )
        claims.append((claim, _read_claim(reading, value)))
    return tuple(claims)


def _read_claim(reading: Reading, node: Node) -> str | Variable | SoftwareIdentity:
    text = reading.text(node)
    if text == SOFTWARE_IDENTITY:
        return SoftwareIdentity()
    parts = parse_template(text).parts
    if len(parts) == 1 and isinstance(parts[0], Placeholder):
        return Variable(placeholder=parts[0])
    if MARK in text:
        reading.findings.note(node, "a placeholder that is not the whole claim stays as it is")
    return text


def _written(value: str | Variable | SoftwareIdentity) -> str:
    match value:
        case Variable(placeholder=placeholder):
            return str(placeholder)
        case SoftwareIdentity():
            return SOFTWARE_IDENTITY
    return value
