"""Certificates among the secrets of a session. Source: session language, "Certificates"."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from ostiary.session import language
from ostiary.session.declared import Declared, Parts, referred
from ostiary.session.duration import format_duration, parse_duration
from ostiary.session.findings import quote
from ostiary.session.model import PrivateKeySecret, X509CaSecret, X509Secret
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import present
from ostiary.session.pem import certificates_key, private_key
from ostiary.session.reading import Fields, Reading, describe

_BESIDE_VALUE = ("issuer", "common_name", "endpoint", "dns", "san")


def read_ca(reading: Reading, fields: Fields, name: str) -> Parts:
    key, common_name, issuer, valid_for, value = _read_common(reading, fields)
    secret = X509CaSecret(
        name=name, private_key=key, issuer=issuer, common_name=common_name, valid_for=valid_for, value=value
    )
    return secret, present(
        private_key=key,
        common_name=common_name,
        issuer=issuer,
        valid_for=None if valid_for is None else format_duration(valid_for),
        value=value,
    )


def read_end_entity(reading: Reading, fields: Fields, name: str) -> Parts:
    key, common_name, issuer, valid_for, value = _read_common(reading, fields)
    endpoint_node, dns_node, san_node = (fields.get(key) for key in ("endpoint", "dns", "san"))
    endpoint = None if endpoint_node is None else reading.choice(endpoint_node, language.ENDPOINTS, "endpoint")
    dns = () if dns_node is None else _read_dns(reading, dns_node)
    if dns_node is not None and endpoint == "client":
        reading.findings.error(dns_node, "dns names a server, and endpoint is client; remove one of them")
    if dns_node is not None and san_node is not None:
        reading.findings.error(san_node, 'dns and san exclude each other; write the names as "dns:…" into san')
    san_texts, san = ((), ()) if san_node is None else _read_san(reading, san_node)
    secret = X509Secret(
        name=name,
        private_key=key,
        issuer=issuer,
        common_name=common_name,
        endpoint=endpoint,
        dns=dns,
        san=san,
        valid_for=valid_for,
        value=value,
    )
    return secret, present(
        private_key=key,
        common_name=common_name,
        issuer=issuer,
        valid_for=None if valid_for is None else format_duration(valid_for),
        endpoint=endpoint,
        dns=list(dns),
        san=list(san_texts),
        value=value,
    )


def check_certificate(
    reading: Reading, node: MappingNode, secret: X509Secret | X509CaSecret, secrets: Declared
) -> None:
    """Check the key and the issuer that a certificate names."""
    if secret.private_key is not None:
        key = referred(reading, node.values["private_key"], secrets, "private-key", (PrivateKeySecret,))
        if key is not None and key.value is not None and secret.value is not None:
            _check_match(reading, node.values["private_key"], str(key.value), secret.value)
    if secret.issuer is not None:
        issuer = referred(reading, node.values["issuer"], secrets, "x509-ca", (X509CaSecret,))
        cannot_sign = isinstance(issuer, X509CaSecret) and issuer.value is not None and issuer.private_key is None
        if cannot_sign and secret.value is None:
            reading.findings.error(
                node.values["issuer"], f"{quote(secret.issuer)} has no private_key here, so it cannot sign; give it one"
            )


def check_circles(reading: Reading, secrets: Declared) -> None:
    """Issuers must end at a self-signed certificate."""
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


def read_duration(reading: Reading, node: Node) -> timedelta | None:
    """A duration; None after a mistake."""
    text = reading.text(node)
    if not isinstance(node, Scalar):
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        reading.findings.error(node, f"found {describe(node)}, {error}")
        return None


def _read_common(
    reading: Reading, fields: Fields
) -> tuple[str | None, str | None, str | None, timedelta | None, str | None]:
    """What CA and other certificates have in common: key, common name, issuer, duration, value."""
    value_node = fields.get("value")
    if value_node is not None:
        reading.require_level(value_node, "a certificate as value", language.CERTIFICATE_LEVEL)
    value = None if value_node is None else reading.text(value_node)
    if value is not None and isinstance(value_node, Scalar):
        try:
            certificates_key(value)
        except ValueError as error:
            reading.findings.error(value_node, str(error))
    if value is None and reading.level >= language.CERTIFICATE_LEVEL and not fields.near("private_key"):
        fields.require("private_key", "name a private-key secret of this session, or give the certificate as value")
    valid_node = fields.get("valid_for")
    valid_for = None if valid_node is None else read_duration(reading, valid_node)
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


def _read_dns(reading: Reading, node: Node) -> tuple[str, ...]:
    names = []
    for element in reading.elements(node):
        name = reading.text(element)
        if isinstance(element, Scalar) and not element.is_null:
            _check_dns_name(reading, element, name)
        names.append(name)
    return tuple(names)


def _check_dns_name(reading: Reading, node: Node, name: str) -> None:
    if not name or not name.isprintable() or " " in name:
        reading.findings.error(node, f"found {describe(node)}, expected a DNS name")


def _read_san(reading: Reading, node: Node) -> tuple[tuple[str, ...], tuple[str | IPv4Address | IPv6Address, ...]]:
    """The entries as they are written, and what they mean."""
    texts: list[str] = []
    names: list[str | IPv4Address | IPv6Address] = []
    for element in reading.elements(node):
        text = reading.text(element)
        texts.append(text)
        kind, colon, name = text.partition(":")
        if kind == "dns" and colon:
            _check_dns_name(reading, element, name)
            names.append(name)
        elif kind == "ip" and colon:
            names += _read_address(reading, element, name)
        elif isinstance(element, Scalar) and not element.is_null:
            reading.findings.error(
                element, f'found {describe(element)}, expected "dns:<name>" or "ip:<address>"{_san_hint(text)}'
            )
    return tuple(texts), tuple(names)


def _read_address(reading: Reading, node: Node, text: str) -> list[IPv4Address | IPv6Address]:
    try:
        address = ip_address(text)
    except ValueError:
        reading.findings.error(node, f"found {describe(node)}, expected ip: and an IPv4 or IPv6 address")
        return []
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        reading.findings.error(node, f"found {describe(node)}, and a zone has no place in a certificate; remove it")
        return []
    return [address]


def _san_hint(text: str) -> str:
    try:
        return f'; write "ip:{ip_address(text)}"'
    except ValueError:
        return f'; write "dns:{text}"' if text.isprintable() and len(text) < 254 and " " not in text else ""


def _check_match(reading: Reading, node: Node, key: str, certificate: str) -> None:
    try:
        match = private_key(key)[1] == certificates_key(certificate)
    except ValueError:
        return  # a mistake of its own, already reported
    if not match:
        name = node.text if isinstance(node, Scalar) else ""
        reading.findings.error(node, f"{quote(name)} is not the key of the certificate in value; name the right one")
