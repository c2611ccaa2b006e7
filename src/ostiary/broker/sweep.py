"""Proposals whose time has come, looked after beside everything else: closed, or applied when their time lock ends.

Nothing depends on it: whoever reads a proposal, or decides about it, settles it first.
"""

from __future__ import annotations

import asyncio
import logging

from ostiary.board.proposal import State
from ostiary.broker.admission import readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import standing
from ostiary.broker.proposal_records import Entry
from ostiary.errors import OstiaryError

SWEEP_SECONDS = 5.0
"""Between two looks at all that is pending."""

log = logging.getLogger("ostiary.broker")


async def sweep_for_ever(cas: Cas) -> None:
    """Until cancelled."""
    while True:
        try:
            await sweep(cas)
        except OstiaryError as error:
            log.warning("proposals could not be looked after: %s", error)
        await asyncio.sleep(SWEEP_SECONDS)


async def sweep(cas: Cas) -> None:
    """Settle each pending proposal for which something is due now; trouble with one does not keep back the others."""
    for entry in cas.proposals.pending():
        try:
            if await _is_due(cas, entry):
                await settle(cas, entry.proposal)
        except OstiaryError as error:
            log.warning("proposal %s: %s", entry.proposal, error)


async def _is_due(cas: Cas, entry: Entry) -> bool:
    readers, now = await readers_of(cas, entry.session), cas.now()
    state = standing(
        entry.state,
        predecessor=entry.predecessor,
        expires=entry.expires,
        current=readers.session_hash,
        now=now,
    )
    return not state.is_pending or (
        state is State.APPROVED and entry.apply_after is not None and now >= entry.apply_after
    )
