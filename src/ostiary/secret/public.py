"""Values that a session makes public, in the form of `/v1/values`: members kind, value, expires, renew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from ostiary.errors import NotFoundError
from ostiary.secret.certificate import FOREVER, renewal_time
from ostiary.secret.format import public_text
from ostiary.secret.kind import kind_of
from ostiary.secret.value import CertificateValue, Value, format_instant
from ostiary.session.model import Secret, Session

PublicValue = dict[str, str | None]


def public_values(session: Session, values: Mapping[str, Value]) -> dict[str, PublicValue]:
    """All secrets with `export_public: true` that have a value, by name; of a certificate never the private key.

    Each: kind (`ascii` is shown as `string`), value (text, hex of binary, PEM of keys and certificates), expires and
    renew (RFC 3339, or null if there is no such instant).
    """
    return {secret.name: _public_form(secret, values[secret.name]) for secret in _public_secrets(session, values)}


def public_value(session: Session, values: Mapping[str, Value], name: str) -> PublicValue:
    """One of `public_values`. Raises NotFoundError, the same whether the secret is not public or does not exist."""
    for secret in _public_secrets(session, values):
        if secret.name == name:
            return _public_form(secret, values[name])
    raise no_public_value(session.name, name)


def no_public_value(session_name: str, secret_name: str) -> NotFoundError:
    """What a public client is told, of an unknown session as well; existing clients read this text."""
    return NotFoundError(
        f"Failed to read value '{secret_name}' of '/session={session_name}' requested by a public client",
        "Secret does not exist or is not visible for a public client",
    )


def _public_secrets(session: Session, values: Mapping[str, Value]) -> Iterator[Secret]:
    return (secret for secret in session.secrets if secret.export_public and secret.name in values)


def _public_form(secret: Secret, value: Value) -> PublicValue:
    expires = value.not_after if isinstance(value, CertificateValue) else None
    return {
        "kind": kind_of(secret).public_name,
        "value": public_text(value),
        "expires": _instant(expires),
        "renew": _instant(_renewal(secret, value)),
    }


def _renewal(secret: Secret, value: Value) -> datetime | None:
    """None for what is never made anew: no certificate, one given in the session text, one that never expires."""
    if not isinstance(value, CertificateValue) or secret.value is not None or value.not_after == FOREVER:
        return None
    return renewal_time(value)


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None or instant == FOREVER else format_instant(instant)
