"""Proposals whose time has come, looked after beside everything else: closed, or applied when their time lock ends.

Nothing depends on it: whoever reads a proposal, or decides about it, settles it first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime

from ostiary.board.proposal import State
from ostiary.broker.admission import readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import standing
from ostiary.broker.proposal_records import Entry
from ostiary.errors import OstiaryError
from ostiary.store import Expect

SWEEP_SECONDS = 5.0
"""Between two looks at all that is pending."""
SWEPT_AT_ONCE = 1024
"""Proposals that are looked at before others have their turn."""

log = logging.getLogger("ostiary.broker")


async def sweep_for_ever(cas: Cas) -> None:
    """Until cancelled."""
    found: Mapping[str, Expect] = {}
    while True:
        try:
            found = await sweep(cas, found)
        except OstiaryError as error:
            log.warning("proposals could not be looked after: %s", error)
        await asyncio.sleep(SWEEP_SECONDS)


async def sweep(cas: Cas, before: Mapping[str, Expect]) -> dict[str, Expect]:
    """Settle each pending proposal for which something is due now; trouble with one does not keep back the others.

    Returns the sessions with which all is settled, as their records were then. before: what the last sweep returned:
    while its record stays, no other version has become a session's current one, and none of them is read.
    """
    found: dict[str, Expect] = {}
    troubled: set[str] = set()
    for number, entry in enumerate(cas.proposals.pending(), 1):
        if number % SWEPT_AT_ONCE == 0:
            await asyncio.sleep(0)
        name = entry.session
        as_known = found.setdefault(name, cas.sessions.as_known(name))
        try:
            current = entry.predecessor if before.get(name) == as_known else (await readers_of(cas, name)).session_hash
            if _is_due(entry, current, cas.now()) and (await settle(cas, entry.proposal)).state.is_pending:
                troubled.add(name)
        except OstiaryError as error:
            log.warning("proposal %s: %s", entry.proposal, error)
            troubled.add(name)
    return {name: as_known for name, as_known in found.items() if name not in troubled}


def _is_due(entry: Entry, current: bytes | None, now: datetime) -> bool:
    """current: the hash of the session's current version, None: there is none."""
    state = standing(entry.state, predecessor=entry.predecessor, expires=entry.expires, current=current, now=now)
    return not state.is_pending or (
        state is State.APPROVED and entry.apply_after is not None and now >= entry.apply_after
    )
