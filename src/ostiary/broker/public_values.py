"""Values that a session exports to everybody."""

from __future__ import annotations

import hmac

from ostiary.broker.cas import Cas, log
from ostiary.broker.resolution import Resolution
from ostiary.broker.session_records import StoredSession
from ostiary.errors import NotFoundError, ReleaseRefusedError
from ostiary.secret import PublicValue, Released, no_public_value, public_values
from ostiary.session.model import ImportedSecret


async def read_public_value(cas: Cas, name: str, secret: str, *, session_hash: bytes | None) -> PublicValue:
    """The value of `secret` of session `name`, if the session exports it publicly, whoever asks.

    session_hash: if given, only while the current version has that hash.
    Raises NotFoundError with one and the same text whether the session does not exist, the secret does not, or it is
    not public, so that nobody can find out which it is.
    """
    exported = await _exported(cas, name, session_hash)
    if secret not in exported:
        raise no_public_value(name, secret)
    return exported[secret]


async def read_public_values(cas: Cas, name: str, *, session_hash: bytes | None) -> dict[str, PublicValue]:
    """All values that session `name` exports publicly, by name. Raises NotFoundError if there is none to be seen."""
    exported = await _exported(cas, name, session_hash)
    if not exported:
        raise NotFoundError(
            f"Failed to read values of '/session={name}' requested by a public client",
            "Secret does not exist or is not visible for a public client",
        )
    return exported


async def _exported(cas: Cas, name: str, session_hash: bytes | None) -> dict[str, PublicValue]:
    await cas.sessions.prepare(name)
    current = cas.sessions.current(name)
    if current is None or (session_hash is not None and not hmac.compare_digest(session_hash, current.parsed.hash)):
        return {}
    if not current.has_values:
        # They lie in a key vault that does not give them, which the asker must not learn.
        return {}
    values: dict[str, Released] = dict(current.values)
    for secret in current.parsed.session.secrets:
        if secret.export_public and isinstance(secret, ImportedSecret):
            values |= _imported(cas, current, secret)
    return public_values(current.parsed.session, values)


def _imported(cas: Cas, stored: StoredSession, secret: ImportedSecret) -> dict[str, Released]:
    """The value of an imported secret by its name; nothing if it cannot be had, which the asker must not learn."""
    resolution = Resolution(cas.sessions, random=cas.random, now=cas.now(), renewing=False)
    try:
        return resolution.released(stored, (secret.name,))
    except ReleaseRefusedError as refusal:
        log.info("public value %s of session %s: %s", secret.name, stored.parsed.session.name, refusal)
        return {}
