"""Proposals whose time has come, looked after beside everything else: closed, or applied when their time lock ends.

Nothing depends on it: whoever reads a proposal, or decides about it, settles it first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from weakref import WeakValueDictionary

from ostiary.board.proposal import State
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import standing
from ostiary.broker.proposal_records import Entry
from ostiary.errors import OstiaryError

SWEEP_SECONDS = 5.0
"""Between two looks at all that is pending."""
SWEPT_AT_ONCE = 1024
"""Proposals that are looked at before others have their turn."""
SETTLED_AT_ONCE = 32
"""Sessions of which proposals are settled at a time: one that keeps its values in a slow key vault takes long."""
SETTLED_OF_NAMESPACE = 4
"""Of these, in a session of the root namespace and all below it."""

log = logging.getLogger("ostiary.broker")


async def sweep_for_ever(cas: Cas) -> None:
    """Until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        settling = _Settling(cas, tasks)
        while True:
            try:
                settling.begin(await _due(cas))
            except OstiaryError as error:
                log.warning("proposals could not be looked after: %s", error)
            # A mistake of ours, too, must not end what applies versions when their time locks end.
            except Exception:
                log.exception("proposals could not be looked after")
            await asyncio.sleep(SWEEP_SECONDS)


async def sweep(cas: Cas) -> None:
    """Settle each pending proposal for which something is due now; trouble with one does not keep back the others."""
    async with asyncio.TaskGroup() as tasks:
        _Settling(cas, tasks).begin(await _due(cas))


async def _due(cas: Cas) -> dict[str, list[str]]:
    """Proposals by session. Who may do what is not asked, and of sessions nothing is read but the hash."""
    due: dict[str, list[str]] = {}
    for number, entry in enumerate(cas.proposals.pending(), 1):
        if number % SWEPT_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            is_due = _is_due(entry, await cas.sessions.current_hash(entry.session), cas.now())
        except OstiaryError as error:
            log.warning("proposal %s: %s", entry.proposal, error)
        else:
            if is_due:
                due.setdefault(entry.session, []).append(entry.proposal)
    return due


class _Settling:
    """Settles proposals of several sessions side by side, of each one after the other."""

    def __init__(self, cas: Cas, tasks: asyncio.TaskGroup) -> None:
        self._cas = cas
        self._tasks = tasks
        self._busy: set[str] = set()
        self._turns = asyncio.Semaphore(SETTLED_AT_ONCE)
        self._of_namespaces: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def begin(self, due: Mapping[str, Sequence[str]]) -> None:
        """Have them settled, but for sessions of which some are being settled. Waits for nothing."""
        for session, proposals in due.items():
            if session not in self._busy:
                self._busy.add(session)
                self._tasks.create_task(self._settle(session, proposals))

    async def _settle(self, session: str, proposals: Sequence[str]) -> None:
        namespace = session.partition("/")[0]
        turn = self._of_namespaces.setdefault(namespace, asyncio.Semaphore(SETTLED_OF_NAMESPACE))
        try:
            async with turn, self._turns:
                for proposal in proposals:
                    await _settle(self._cas, proposal)
        finally:
            self._busy.discard(session)


async def _settle(cas: Cas, proposal: str) -> None:
    try:
        await settle(cas, proposal)
    except OstiaryError as error:
        log.warning("proposal %s: %s", proposal, error)
    # Or the others would end with it.
    except Exception:
        log.exception("proposal %s", proposal)


def _is_due(entry: Entry, current: bytes | None, now: datetime) -> bool:
    """current: the hash of the session's current version, None: there is none."""
    state = standing(entry.state, predecessor=entry.predecessor, expires=entry.expires, current=current, now=now)
    return not state.is_pending or (
        state is State.APPROVED and entry.apply_after is not None and now >= entry.apply_after
    )
