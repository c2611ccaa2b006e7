"""Values that cross from one session to another: what the importer asks for, and what the exporter lets go."""

from __future__ import annotations

from dataclasses import replace

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.format import forms_of
from ostiary.secret.kind import kind_name
from ostiary.secret.value import AsciiValue, BinaryValue, CertificateValue, Released
from ostiary.session.model import AkvSecret, ImportedSecret, Secret


def import_value(secret: ImportedSecret, *, source: Secret, value: Released, with_key: bool) -> Released:
    """The value of an imported secret, made of the exporter's.

    source, value: the exporter's secret, and its value there. with_key: whether the exporter also exports the private
    key of a certificate to the same session; without it the key is left behind.
    Guarantees: kind and size are those that the importer wrote, if it did. Does not guarantee that the exporter exports
    the secret to this session.
    Raises ReleaseRefusedError: another kind or size.
    """
    try:
        require_kind(secret, kind_name(source), value)
        require_size(secret, value)
    except ReleaseRefusedError as error:
        raise ReleaseRefusedError(f"secret {secret.name!r}: {error.message}", *error.causes) from None
    return replace(value, private_key=None) if isinstance(value, CertificateValue) and not with_key else value


def require_kind(secret: ImportedSecret | AkvSecret, declared: str, value: Released) -> None:
    """declared: the kind at the source, "" if nothing there says it; then a certificate may be of either kind."""
    found = declared or forms_of(value).kind
    if not declared and isinstance(value, CertificateValue) and secret.kind == "x509-ca":
        found = "x509-ca"
    if secret.kind not in (None, found):
        raise ReleaseRefusedError(
            f"{describe_source(secret)} is of kind {found}, expected {secret.kind}; correct the kind, or leave it out"
        )


def require_size(secret: ImportedSecret | AkvSecret, value: Released) -> None:
    if secret.size is None:
        return
    if not isinstance(value, AsciiValue | BinaryValue):
        raise ReleaseRefusedError(f"{describe_source(secret)} is of a kind that has no size; leave size out")
    found = len(value.text) if isinstance(value, AsciiValue) else len(value.data)
    if found != secret.size:
        raise ReleaseRefusedError(
            f"{describe_source(secret)} has size {found}, expected {secret.size}; correct the size, or leave it out"
        )


def describe_source(secret: ImportedSecret | AkvSecret) -> str:
    """Where the secret comes from, for a message."""
    if isinstance(secret, AkvSecret):
        return f"secret {secret.secret_name!r} of key vault {secret.vault}"
    version = "" if secret.session_hash is None else f",session_hash={secret.session_hash.hex()}"
    cas = "" if secret.cas is None else secret.cas.url
    return f"'{cas}/session={secret.session}{version},secret={secret.secret}'"
