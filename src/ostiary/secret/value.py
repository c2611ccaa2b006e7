"""Values of secrets, and the bytes in which the sealed store keeps the values of one session version.

The sealed form is JSON in UTF-8, binary members in base64 (RFC 4648 section 4), instants in RFC 3339, UTC::

    {"version": 1, "values": {NAME: VALUE, ...}}

    VALUE = {"kind": "ascii", "text": TEXT}
          | {"kind": "binary", "data": BASE64}
          | {"kind": "private-key", "pkcs8_der": BASE64}
          | {"kind": "public-key", "spki_der": BASE64}
          | {"kind": "x509", "certificate_der": BASE64, "chain_der": [BASE64, ...], "private_key": BASE64 or null,
             "not_before": INSTANT, "not_after": INSTANT}
          | {"kind": "session-ca", "certificate_der": BASE64}
          | {"kind": "pgp-key", "secret_key": BASE64, "public_key": BASE64}
          | {"kind": "config-fragment", "value": JSON}

Names are those of secrets, and SESSION_CA, which is the name of none.

It is meant to be encrypted and authenticated by whoever stores it; nothing here protects it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from ostiary.errors import StoreError
from ostiary.session.normal import JsonValue

SEALED_VERSION = 1

SESSION_CA = "/session-ca"
"""Among the values of a session of language 0.2: the session's own CA, with its key. No placeholder can name it."""


@dataclass(frozen=True, kw_only=True)
class AsciiValue:
    """Text: what was generated is printable ASCII, what was given explicitly is any Unicode without NUL."""

    text: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class BinaryValue:
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PrivateKeyValue:
    """`pkcs8_der`: unencrypted PrivateKeyInfo (RFC 5208), of Ed25519 keys OneAsymmetricKey (RFC 5958) as well."""

    pkcs8_der: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class CertificateValue:
    """A certificate of either kind, end entity or CA.

    chain_der: first intermediate first, root last, without the certificate itself; empty if it is self-signed.
    private_key: PKCS#8 DER of the certified key, None where only the certificate is known.
    not_before, not_after: aware UTC, inclusive, as in the certificate.
    """

    certificate_der: bytes = field(repr=False)
    chain_der: tuple[bytes, ...] = field(default=(), repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, kw_only=True)
class PublicKeyValue:
    """`spki_der`: SubjectPublicKeyInfo (RFC 5280 section 4.1)."""

    spki_der: bytes


@dataclass(frozen=True, kw_only=True)
class SessionCaValue:
    """The certificate of the session's own CA, which is self-signed; its key is in the value SESSION_CA alone."""

    certificate_der: bytes


@dataclass(frozen=True, kw_only=True)
class PgpKeyValue:
    """An OpenPGP transferable secret key without passphrase, and its public part (RFC 4880 section 11.1), binary."""

    secret_key: bytes = field(repr=False)
    public_key: bytes


@dataclass(frozen=True, kw_only=True)
class FragmentValue:
    value: JsonValue = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class AadTokenValue:
    """Fetched at release, never stored."""

    text: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class JwtValue:
    """Made at release, never stored."""

    text: str = field(repr=False)


Value: TypeAlias = (
    AsciiValue
    | BinaryValue
    | PrivateKeyValue
    | PublicKeyValue
    | CertificateValue
    | SessionCaValue
    | PgpKeyValue
    | FragmentValue
)
"""What the store keeps for a secret."""

Released: TypeAlias = Value | AadTokenValue | JwtValue
"""What a placeholder can stand for at a release."""


def encode_values(values: Mapping[str, Value]) -> bytes:
    """The sealed form of the values of one session version, by secret name. See the module for its shape."""
    members = {name: _encode_value(value) for name, value in values.items()}
    return json.dumps({"version": SEALED_VERSION, "values": members}, separators=(",", ":")).encode()


def decode_values(data: bytes) -> dict[str, Value]:
    """The values that `encode_values` wrote, in the same order.

    Raises StoreError for anything else: no JSON, another version, an unknown, missing, repeated or ill-typed member,
    an unknown kind. The message names the secret and the member, never what the member holds.
    """
    document = _members(_parse_json(data), {"version", "values"}, "stored values")
    if type(document["version"]) is not int or document["version"] != SEALED_VERSION:
        raise StoreError(
            f"stored values: the version is not {SEALED_VERSION}; read them with the release that wrote them"
        )
    values = document["values"]
    if not isinstance(values, dict):
        raise StoreError(f"stored values: member 'values' is a {type(values).__name__}, expected an object")
    return {name: _decode_value(name, members) for name, members in values.items()}


def format_instant(instant: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, with `Z`."""
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


@dataclass(frozen=True, kw_only=True)
class _Member:
    """How one member is written, and read again; `read` raises TypeError or ValueError for what `write` never makes."""

    write: Callable[[Any], object]
    read: Callable[[object], object]


@dataclass(frozen=True, kw_only=True)
class _SealedKind:
    value_type: type[Value]
    members: Mapping[str, _Member]


def _text(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError
    return found


def _write_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(found: object) -> bytes:
    return base64.b64decode(_text(found), validate=True)


def _bytes_tuple(found: object) -> tuple[bytes, ...]:
    if not isinstance(found, list):
        raise TypeError
    return tuple(_bytes(item) for item in found)


def _instant(found: object) -> datetime:
    return datetime.strptime(_text(found), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


_TEXT = _Member(write=_text, read=_text)
_BYTES = _Member(write=_write_bytes, read=_bytes)
_OPTIONAL_BYTES = _Member(
    write=lambda data: None if data is None else _write_bytes(data),
    read=lambda found: None if found is None else _bytes(found),
)
_BYTES_TUPLE = _Member(write=lambda items: [_write_bytes(item) for item in items], read=_bytes_tuple)
_INSTANT = _Member(write=format_instant, read=_instant)
_JSON = _Member(write=lambda value: value, read=lambda found: found)

_SEALED_KINDS: Mapping[str, _SealedKind] = {
    "ascii": _SealedKind(value_type=AsciiValue, members={"text": _TEXT}),
    "binary": _SealedKind(value_type=BinaryValue, members={"data": _BYTES}),
    "private-key": _SealedKind(value_type=PrivateKeyValue, members={"pkcs8_der": _BYTES}),
    "x509": _SealedKind(
        value_type=CertificateValue,
        members={
            "certificate_der": _BYTES,
            "chain_der": _BYTES_TUPLE,
            "private_key": _OPTIONAL_BYTES,
            "not_before": _INSTANT,
            "not_after": _INSTANT,
        },
    ),
    "public-key": _SealedKind(value_type=PublicKeyValue, members={"spki_der": _BYTES}),
    "session-ca": _SealedKind(value_type=SessionCaValue, members={"certificate_der": _BYTES}),
    "pgp-key": _SealedKind(value_type=PgpKeyValue, members={"secret_key": _BYTES, "public_key": _BYTES}),
    "config-fragment": _SealedKind(value_type=FragmentValue, members={"value": _JSON}),
}
_KIND_OF: Mapping[type[Value], str] = {sealed.value_type: kind for kind, sealed in _SEALED_KINDS.items()}


def _encode_value(value: Value) -> dict[str, object]:
    kind = _KIND_OF[type(value)]
    members = _SEALED_KINDS[kind].members
    return {"kind": kind} | {name: member.write(getattr(value, name)) for name, member in members.items()}


def _decode_value(name: str, found: object) -> Value:
    where = f"stored values: secret {name!r}"
    kind = found.get("kind") if isinstance(found, dict) else None
    sealed = _SEALED_KINDS.get(kind) if isinstance(kind, str) else None
    if sealed is None:
        raise StoreError(f"{where}: no known kind; read it with the release that wrote it")
    members = _members(found, {"kind", *sealed.members}, where)
    read = {
        key: _read_member(members[key], member, f"{where}: member {key!r}") for key, member in sealed.members.items()
    }
    return sealed.value_type(**read)


def _read_member(found: object, member: _Member, where: str) -> Any:
    try:
        return member.read(found)
    except (TypeError, ValueError):
        raise StoreError(f"{where} is not of the form in which it is written; restore the record") from None


def _members(found: object, expected: set[str], where: str) -> dict[str, object]:
    if not isinstance(found, dict):
        raise StoreError(f"{where}: a {type(found).__name__}, expected an object with {', '.join(sorted(expected))}")
    if found.keys() != expected:
        unlike = ", ".join(sorted(found.keys() ^ expected))
        raise StoreError(f"{where}: unknown or missing members: {unlike}; read them with the release that wrote them")
    return found


def _parse_json(data: bytes) -> object:
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique_members)
    except (ValueError, RecursionError):
        raise StoreError("stored values: not the JSON text that was written; restore the record") from None


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StoreError("stored values: a member is repeated; restore the record")
    return members
