"""Values that a session makes public, in the form of `/v1/values`: members kind, value, expires, renew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from ostiary.errors import NotFoundError
from ostiary.secret.certificate import FOREVER, renewal_time
from ostiary.secret.format import forms_of, public_text
from ostiary.secret.kind import kind_name
from ostiary.secret.value import CertificateValue, Released, format_instant
from ostiary.session.model import Secret, Session, X509CaSecret, X509Secret

PublicValue = dict[str, str | None]

_PUBLIC_NAMES = {"ascii": "string"}  # where `/v1/values` spells a kind otherwise than the language


def public_values(session: Session, values: Mapping[str, Released]) -> dict[str, PublicValue]:
    """All secrets with `export_public: true` that have a value, by name.

    Each: kind (`ascii` is shown as `string`), value (text, hex of binary, PEM of keys and certificates, armor of the
    public part of an OpenPGP key, JSON of a fragment), expires and renew (RFC 3339, or null if there is no such
    instant). Never the private key of a certificate or of an OpenPGP key. values: by name, imported ones included.
    """
    return {secret.name: _public_form(secret, values[secret.name]) for secret in _public_secrets(session, values)}


def public_value(session: Session, values: Mapping[str, Released], name: str) -> PublicValue:
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


def _public_secrets(session: Session, values: Mapping[str, Released]) -> Iterator[Secret]:
    return (secret for secret in session.secrets if secret.export_public and secret.name in values)


def _public_form(secret: Secret, value: Released) -> PublicValue:
    kind = kind_name(secret) or forms_of(value).kind
    expires = value.not_after if isinstance(value, CertificateValue) else None
    return {
        "kind": _PUBLIC_NAMES.get(kind, kind),
        "value": public_text(value),
        "expires": _instant(expires),
        "renew": _instant(_renewal(secret, value)),
    }


def _renewal(secret: Secret, value: Released) -> datetime | None:
    """None for what is never made anew here: explicit or imported, without end, no certificate at all."""
    generated = isinstance(secret, X509Secret | X509CaSecret) and secret.value is None
    if not generated or not isinstance(value, CertificateValue) or value.not_after == FOREVER:
        return None
    return renewal_time(value)


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None or instant == FOREVER else format_instant(instant)
