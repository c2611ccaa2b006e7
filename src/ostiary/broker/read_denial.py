"""Denials for those who may read the session that denied: one, signed, or a list. To all others there are none."""

from __future__ import annotations

import re
from typing import Any

from ostiary.board import Caller, Operation, authorize
from ostiary.broker.admission import access_policy_of
from ostiary.broker.cas import Cas
from ostiary.broker.identity import open_denial_signer
from ostiary.broker.statement import StatementKey, sign_denial
from ostiary.errors import InputError, NotFoundError, RefusedError

DEFAULT_LISTED = 20
MAX_LISTED = 100

_ID = re.compile(r"[0-9a-f]{16}")
_SUMMARY = ("id", "time", "last_time", "times", "service", "stage")


class DenialDesk:
    """Reads denials of one service. The key that signs them is made when it is first needed."""

    def __init__(self, cas: Cas) -> None:
        self._cas = cas
        self._signer: StatementKey | None = None

    async def read(self, denial: str, *, caller: Caller | None) -> dict[str, Any]:
        """The denial with that id, signed, for `caller`, None without certificate.

        Guarantees on return: the access policy of the session's current version admits the caller to read. For anybody
        else the answer is that for an id that never was: NotFoundError, whatever the reason; how long it takes may
        tell them apart, which says nothing to who cannot guess 64 random bits.
        """
        found = self._cas.denials.find(denial) if _ID.fullmatch(denial) else None
        if found is None or not await self._may_read(str(found["session"]), caller):
            raise NotFoundError(
                "Denial not found", "no denial that you may read has this id; the oldest ones are dropped, in any case"
            )
        if self._signer is None:
            self._signer = open_denial_signer(self._cas)
        return sign_denial(found, self._signer)

    async def listed(
        self, session: str, *, before: str | None, limit: int, caller: Caller | None
    ) -> tuple[dict[str, Any], ...]:
        """Up to `limit` denials of a session in short, the newest first; with `before` those older than that one.

        Guarantees as `read`. Raises NotFoundError, also for a `before` that is none of them; InputError.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise InputError(f"limit is {limit}, expected 1 to {MAX_LISTED}")
        if not await self._may_read(session, caller):
            raise NotFoundError("Session not found", "no session of this name is there that you may read")
        found = self._cas.denials.of_session(session)
        if before is not None:
            ids = [document["id"] for document in found]
            if before not in ids:
                raise NotFoundError("Denial not found", "`before` is none of the session's denials, or none any more")
            found = found[ids.index(before) + 1 :]
        return tuple(
            {**{name: document[name] for name in _SUMMARY}, "reason": document["reasons"][0]}
            for document in found[:limit]
        )

    async def _may_read(self, session: str, caller: Caller | None) -> bool:
        """Whether the session is there and admits the caller; the answer to both is the same, so it is one."""
        cas = self._cas
        try:
            await cas.sessions.prepare(session)
            current = cas.sessions.require(session)
            policy = access_policy_of(cas, current).thing
            authorize(Operation.READ, policy, session=session, creator=current.creator, caller=caller)
        except (NotFoundError, RefusedError):
            return False
        return True
