"""Does a session let another one have a secret? Pure; one function for the secret, one for a certificate's key.

Source: session language, "Secret sharing".
"""

from __future__ import annotations

import hmac

from ostiary.broker.namespace import ROOT, is_below
from ostiary.errors import ReleaseRefusedError
from ostiary.session import ParsedSession
from ostiary.session.model import ExportTarget, ImportedSecret, Secret, SessionTarget


def exported_secret(exporter: ParsedSession, wanted: ImportedSecret, importer: ParsedSession) -> Secret:
    """The secret of `exporter` that `wanted`, a secret of `importer`, names. Both are current versions.

    Guarantees: both sides agree. The importer names this session and, if it gives a hash, this very version of it; the
    exporter names the importer, by its name, its very version, or a namespace that it is or lies in.
    Does not guarantee anything about the value.
    Raises ReleaseRefusedError, for those who may read the sessions.
    """
    name = exporter.session.name
    if wanted.session_hash is not None and not hmac.compare_digest(wanted.session_hash, exporter.hash):
        raise ReleaseRefusedError(
            f"session {name} is no longer the version with session_hash {wanted.session_hash.hex()}",
            "read it, see whether you still trust it, and correct session_hash in the import",
        )
    secret = next((secret for secret in exporter.session.secrets if secret.name == wanted.secret), None)
    if secret is None:
        raise ReleaseRefusedError(f"session {name} has no secret {wanted.secret!r}; correct the name in the import")
    if not is_exported(secret, importer):
        raise ReleaseRefusedError(
            f"session {name} does not export secret {secret.name!r} to session {importer.session.name}{_why(secret)}",
            f"its owner can add {{session: {importer.session.name}}} to the secret's export",
        )
    return secret


def is_exported(secret: Secret, importer: ParsedSession) -> bool:
    """Whether the exporter names the importer; an export to another CAS names nobody here."""
    return any(_names(target, importer) for target in secret.exports)


def _names(target: ExportTarget, importer: ParsedSession) -> bool:
    name = importer.session.name
    if isinstance(target, SessionTarget):
        version = target.session_hash is None or hmac.compare_digest(target.session_hash, importer.hash)
        return target.cas is None and target.session == name and version
    return is_below(name, target.namespace or ROOT)


def _why(secret: Secret) -> str:
    return " in its current version" if any(getattr(target, "session_hash", None) for target in secret.exports) else ""
