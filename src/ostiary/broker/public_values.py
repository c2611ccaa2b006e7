"""Values that a session exports to everybody."""

from __future__ import annotations

import hmac

from ostiary.broker.cas import Cas
from ostiary.errors import NotFoundError
from ostiary.secret import PublicValue, no_public_value, public_values


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
    current = await cas.sessions.current(name)
    if current is None or (session_hash is not None and not hmac.compare_digest(session_hash, current.parsed.hash)):
        return {}
    return public_values(current.parsed.session, current.values)
