"""Values that a release made anew, on their way into the store, or into the key vault and then the store."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.broker.cas import Cas
from ostiary.broker.resolution import Renewal
from ostiary.broker.session_records import all_values, values_write
from ostiary.store import Write


async def renewal_writes(cas: Cas, renewals: Iterable[Renewal]) -> tuple[Write, ...]:
    """The writes after which the renewals are the values of their sessions.

    Those whose place is a key vault are there on return, and count for nothing until the writes are committed.
    Raises SecretUnavailableError: such a vault did not take them.
    """
    return tuple([await _write(cas, renewal) for renewal in renewals])


async def _write(cas: Cas, renewal: Renewal) -> Write:
    stored = renewal.stored
    values = all_values(renewal.values, stored.volume_keys)
    if stored.in_vault is None:
        return values_write(stored, values)
    kept = await cas.vaults.keep(
        stored.parsed.session,
        stored.parsed.hash,
        values,
        before=stored.in_vault,
        unchanged=all_values(stored.values, stored.volume_keys),
    )
    return values_write(stored, kept)
