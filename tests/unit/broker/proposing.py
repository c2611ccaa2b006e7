"""People who propose and decide, on a service without listeners."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulators.board import decision

from ostiary.board import Caller
from ostiary.board.count import Choice
from ostiary.broker.cas import Cas
from ostiary.broker.decide import Cast, decide
from ostiary.broker.propose import propose
from ostiary.broker.read_proposal import Query, list_proposals, read_proposal
from ostiary.broker.sweep import sweep
from ostiary.session.policy_board import board_signer_key

if TYPE_CHECKING:
    from datetime import timedelta

    import pytest
    from tests.simulators.signers import Person
    from tests.unit.broker.conftest import Desk

Shown = dict[str, Any]


@dataclass
class Board:
    """The service as those who propose and decide see it. leaves: of the audit log, from `spy` on."""

    desk: Desk
    proposer: Caller
    leaves: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cas(self) -> Cas:
        return self.desk.cas

    def propose(self, text: str, *, by: Caller | None = None, note: str = "", break_glass: bool = False) -> Shown:
        """What the proposer sees of the proposal."""
        caller = by or self.proposer
        made = asyncio.run(propose(self.cas, text.encode(), note=note, break_glass=break_glass, caller=caller))
        return self.read(made.proposal.id, caller)

    def read(self, proposal: str, caller: Caller | None = None) -> Shown:
        return asyncio.run(read_proposal(self.cas, proposal, caller=caller or self.proposer))

    def decide(self, person: Person, shown: Shown, choice: str = "approve", reason: str = "") -> str:
        """The state afterwards."""
        return self.send(shown["proposal"], decision(person, shown, choice, reason))

    def send(self, proposal: str, body: dict[str, str], *, signer: bytes | None = None) -> str:
        """A decision as it was signed, for any proposal. The state afterwards."""
        return asyncio.run(self.cast(proposal, body, signer=signer))

    async def cast(self, proposal: str, body: dict[str, str], *, signer: bytes | None = None) -> str:
        cast = Cast(
            signer=signer or board_signer_key(body["signer"]),
            choice=Choice(body["decision"]),
            reason=body["reason"],
            signature=b64decode(body["signature"]),
        )
        return (await decide(self.cas, proposal, cast)).state.value

    def adopt(self, text: str, *people: Person) -> str:
        """Propose, and have people approve until it is applied; the hash."""
        shown = self.propose(text)
        for person in people:
            state = self.decide(person, shown)
        assert state == "applied"
        return str(shown["hash"])

    def current(self, session: str) -> str | None:
        """The hash of the current version."""
        found = self.cas.sessions.current(session)
        return None if found is None else found.parsed.hash.hex()

    def listed(self, caller: Caller | None, **query: Any) -> list[str]:
        """The ids of a list."""
        found = asyncio.run(list_proposals(self.cas, Query(**query), caller=caller, after=None, wait_seconds=0))
        return [json.loads(shown)["proposal"] for shown in found.shown]

    def sweep(self) -> None:
        asyncio.run(sweep(self.cas))

    def pass_time(self, time: timedelta) -> None:
        self.desk.pass_time(time)

    def spy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note every leaf that is committed from now on."""
        commit = self.cas.store.commit

        def noting(writes: Any, leaf: bytes, **options: Any) -> Any:
            future = commit(writes, leaf, **options)
            if future.exception() is None:
                self.leaves.append(json.loads(leaf))
            return future

        monkeypatch.setattr(self.cas.store, "commit", noting)

    def logged(self) -> list[tuple[str, dict[str, Any]]]:
        return [(leaf["type"], leaf["data"]) for leaf in self.leaves if leaf["type"] != "cas_started"]
