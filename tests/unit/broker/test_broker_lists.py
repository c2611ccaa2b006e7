"""Lists of proposals and the sweep beside others: what one tenant does takes neither from everybody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from itertools import pairwise
from os import urandom
from typing import Any

import pytest
from tests.simulators.board import ANN, BEN, CEM, THREE, boarded, decision, member_hash
from tests.simulators.board import Board as PolicyBoard
from tests.unit.broker.conftest import Desk, make_caller
from tests.unit.broker.proposing import Board, Shown
from tests.unit.broker.test_broker_values_in_vault import AAD, kept

from ostiary.audit import Kind, entry
from ostiary.board import Caller
from ostiary.broker import decide, proposal_lists, session_records
from ostiary.broker import read_proposal as read_proposal_module
from ostiary.broker import sweep as sweep_module
from ostiary.broker.admission import readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.proposal import Proposal
from ostiary.broker.propose import propose
from ostiary.broker.read_proposal import Query, list_proposals, read_proposal
from ostiary.broker.session_records import upload_writes
from ostiary.broker.sweep import sweep, sweep_for_ever
from ostiary.broker.variables import Variables
from ostiary.errors import NotFoundError, StoreError
from ostiary.secret import AsciiValue, Value
from ostiary.secret.kept_entry import KeptValues
from ostiary.session import parse_session
from ostiary.session.base58 import encode_key_hash
from ostiary.session.model import Session
from ostiary.store import Record

AT_ONCE = PolicyBoard(members=THREE.members, more="time_lock: 1h")


@pytest.fixture
def board(desk: Desk, alice: Caller) -> Board:
    return Board(desk=desk, proposer=alice)


def caller(key_hash: str) -> Caller:
    return Caller(certificate="", key_hash=bytes.fromhex(key_hash), key_bits_hash=bytes(32))


def shown_key(who: Caller) -> str:
    """As access policies name it."""
    return encode_key_hash(who.key_hash)


class Count:
    """How often something was called, and with what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        real = getattr(target, name)

        def noting(*arguments: Any, **named: Any) -> Any:
            self.calls.append(arguments)
            return real(*arguments, **named)

        monkeypatch.setattr(target, name, noting)

    @property
    def count(self) -> int:
        return len(self.calls)


# --- who may read ----------------------------------------------------------------------------------------------------


def with_variables(name: str, *values: str) -> str:
    """A session that whoever is in the values of its secrets may read, one secret each, without a board."""
    secrets = ", ".join(f"{{name: x{at}, kind: ascii, value: '{value}'}}" for at, value in enumerate(values))
    read = ", ".join(f"$$SCONE::x{at}$$" for at in range(len(values)))
    return boarded(name, None, access_policy=f"{{read: [{read}], update: [CREATOR]}}", secrets=f"[{secrets}]")


def test_variables_of_an_access_policy_are_read_once_and_not_for_every_list(
    board: Board, eve: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if some cannot be had: a tenant with many of those stopped the service for seconds."""
    first = board.desk.upload(with_variables("s", shown_key(eve), "no key at all"), board.proposer)
    shown = board.propose(boarded("s", predecessor=first))
    resolved = Count(monkeypatch, Variables, "access_policy")
    for _ in range(3):
        assert board.listed(eve) == [shown["proposal"]]
        assert board.listed(None) == []
    assert resolved.count == 1


def test_a_sweep_resolves_no_access_policy_and_parses_no_session(
    board: Board, eve: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = board.desk.upload(with_variables("s", shown_key(eve)), board.proposer)
    board.propose(boarded("s", predecessor=first))
    board.cas.sessions._sessions.clear()
    resolved = Count(monkeypatch, Variables, "access_policy")
    parsed = Count(monkeypatch, session_records, "parse_session")
    board.sweep()
    assert (resolved.count, parsed.count) == (0, 0)


def test_who_may_read_by_an_imported_value_changes_with_it(board: Board, eve: Caller) -> None:
    def exporter(who: Caller, **more: str) -> str:
        secrets = f"[{{name: key, kind: ascii, value: '{shown_key(who)}', export: [{{session: s}}]}}]"
        return boarded("keys", None, access_policy="{read: CREATOR, update: CREATOR}", secrets=secrets, **more)

    before = board.desk.upload(exporter(eve), board.proposer)
    imported = "[{name: x, import: {session: keys, secret: key}}]"
    first = board.desk.upload(
        boarded("s", None, access_policy="{read: [$$SCONE::x$$], update: [CREATOR]}", secrets=imported), board.proposer
    )
    shown = board.propose(boarded("s", predecessor=first))
    assert board.listed(eve) == [shown["proposal"]]
    other = make_caller("other")
    board.desk.upload(exporter(other, predecessor=before), board.proposer)
    assert board.listed(eve) == []
    assert board.listed(other) == [shown["proposal"]]


def test_a_whole_access_policy_that_is_a_variable_admits_whom_it_names(board: Board, eve: Caller) -> None:
    policy = f"{{read: ['{shown_key(eve)}'], update: [CREATOR]}}"
    secrets = f"[{{name: x, kind: config-fragment, value: {policy}}}, {{name: y, kind: ascii, value: z}}]"
    for name, variable in (("s", "x"), ("t", "y")):
        text = boarded(name, None, access_policy=f"$$SCONE::{variable}$$", secrets=secrets)
        board.desk.upload(text, board.proposer)
    assert asyncio.run(readers_of(board.cas, "s")).admit(eve)
    for who in (eve, None, board.proposer):
        assert not asyncio.run(readers_of(board.cas, "t")).admit(who)


def test_readers_of_no_session_are_nobody(board: Board, eve: Caller) -> None:
    assert not asyncio.run(readers_of(board.cas, "nowhere")).admit(eve)
    assert not asyncio.run(readers_of(board.cas, "nowhere")).admit(None)


def test_for_members_and_proposers_nobody_asks_who_may_read(
    board: Board, eve: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = board.desk.upload(with_variables("s", shown_key(eve)), board.proposer)
    shown = board.propose(boarded("s", predecessor=first))
    asked = Count(monkeypatch, read_proposal_module, "readers_of")
    member = caller(member_hash(ANN))
    assert board.listed(board.proposer) == board.listed(member, waiting_for="me") == [shown["proposal"]]
    assert asked.count == 0


# --- key vaults ------------------------------------------------------------------------------------------------------


class Vault:
    """What plays the way to key vaults. asked: sessions whose values were looked for."""

    def __init__(self, cas: Cas, values: Mapping[str, Value]) -> None:
        self.asked: list[str] = []
        self._values = values
        cas.sessions._fetch = self._fetch

    async def _fetch(self, session: Session, _hash: bytes, _kept: KeptValues) -> Mapping[str, Value]:
        self.asked.append(session.name)
        return self._values


def store_vaulted(board: Board, name: str, more: str = "", access_policy: str = "") -> str:
    """A version whose values lie in a vault, as an upload stores it; its hash."""
    policy = access_policy or "{read: ['$$SCONE::token$$'], update: [ANY]}"
    session = parse_session(
        f"name: {name}\nversion: '0.3.12'\naccess_policy: {policy}\n"
        "secret_config: {store_in: !akv {vault: v.vault.azure.net}}\n"
        f"secrets: [{AAD}, {{name: token, kind: ascii, export: [{{session: t}}]}}]\n{more}"
    )
    writes = upload_writes(session, creator=None, values=kept(), replaced=None, salted=False)
    board.cas.store.commit(writes, entry(Kind.SESSION_CREATED, {}, board.cas.now(), urandom)).result()
    return session.hash.hex()


def test_lists_and_the_sweep_ask_no_key_vault(board: Board, eve: Caller) -> None:
    """It may take its time, and is the tenant's: nobody else waits for it. Who reads one proposal may wait."""
    vault = Vault(board.cas, {"token": AsciiValue(text=shown_key(eve))})
    first = store_vaulted(board, "s")
    imports = "[{name: x, import: {session: s, secret: token}}]"
    second = board.desk.upload(
        boarded("t", None, access_policy="{read: [$$SCONE::x$$], update: [CREATOR]}", secrets=imports), board.proposer
    )
    shown = [board.propose(boarded(name, predecessor=was)) for name, was in (("s", first), ("t", second))]
    ids = sorted(one["proposal"] for one in shown)
    vault.asked.clear()
    member = caller(member_hash(ANN))
    assert sorted(board.listed(board.proposer)) == sorted(board.listed(member, waiting_for="me")) == ids
    assert board.listed(eve) == board.listed(None) == []
    board.sweep()
    assert vault.asked == []
    for one in ids:
        assert board.read(one, eve)["proposal"] == one
    assert sorted(set(vault.asked)) == ["s"]
    assert board.listed(eve) == [], "whatever was looked at lately: every process lists the same"
    with pytest.raises(NotFoundError):
        board.read(ids[0], make_caller("mallory"))


def test_who_may_read_without_a_value_from_a_vault_is_shown_its_proposals(board: Board) -> None:
    vault = Vault(board.cas, {"token": AsciiValue(text="x")})
    first = store_vaulted(board, "s", access_policy="{read: [ANY], update: [ANY]}")
    shown = board.propose(boarded("s", predecessor=first))
    vault.asked.clear()
    assert board.listed(None) == [shown["proposal"]]
    assert vault.asked == []


# --- the sweep -------------------------------------------------------------------------------------------------------


class Slow:
    """Settling the proposals of one session takes until `go` is set. going: how many are being settled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sessions: str) -> None:
        self.go = asyncio.Event()
        self.going: list[str] = []
        self.most = 0
        real = decide.settle

        async def settle(cas: Cas, proposal: str) -> Proposal:
            session = cas.proposals.require(proposal).facts.session
            self.going.append(session)
            self.most = max(self.most, len(self.going))
            if session in sessions:
                await self.go.wait()
            self.going.remove(session)
            return await real(cas, proposal)

        monkeypatch.setattr(sweep_module, "settle", settle)


def locked(board: Board, name: str) -> Shown:
    """A proposal that is approved, with a time lock of an hour."""
    shown = board.propose(boarded(name, AT_ONCE))
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "approved"
    return shown


def test_a_session_that_is_slow_to_settle_holds_up_no_other_time_lock(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the next sweeps."""
    monkeypatch.setattr(sweep_module, "SWEEP_SECONDS", 0.01)
    slow = Slow(monkeypatch, "a")
    for name in ("a", "b", "c"):
        locked(board, name)

    async def story() -> None:
        sweeping = asyncio.create_task(sweep_for_ever(board.cas))
        board.pass_time(timedelta(hours=1))
        while not (board.current("b") and board.current("c")):
            await asyncio.sleep(0.01)
        later = await propose(board.cas, boarded("d").encode(), note="", break_glass=False, caller=board.proposer)
        board.pass_time(timedelta(days=30))
        while later.proposal.id in {one.proposal for one in board.cas.proposals.pending()}:
            await asyncio.sleep(0.01)
        assert slow.going == ["a"], "it is not begun again meanwhile"
        slow.go.set()
        while board.cas.proposals.pending():
            await asyncio.sleep(0.01)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize(
    ("at_once", "of_namespace", "most"), [(2, 8, 2), (8, 1, 2), (8, 8, 4)], ids=["all", "namespace", "enough"]
)
def test_so_many_sessions_are_settled_at_a_time(
    board: Board, monkeypatch: pytest.MonkeyPatch, at_once: int, of_namespace: int, most: int
) -> None:
    monkeypatch.setattr(sweep_module, "SETTLED_AT_ONCE", at_once)
    monkeypatch.setattr(sweep_module, "SETTLED_OF_NAMESPACE", of_namespace)
    for name in ("x", "y"):
        board.desk.upload(boarded(name, None, access_policy="{read: ANY, update: NONE, create_sessions: ANY}"), None)
    names = ("x/a", "x/b", "y/a", "y/b")
    for name in names:
        locked(board, name)
    slow = Slow(monkeypatch, *names)
    board.pass_time(timedelta(hours=1))

    async def story() -> None:
        sweeping = asyncio.create_task(sweep(board.cas))
        while len(slow.going) < most:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        slow.go.set()
        await sweeping

    asyncio.run(asyncio.wait_for(story(), 60))
    assert slow.most == most
    assert all(board.current(name) for name in names)


def test_a_sweep_lets_others_have_their_turn(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s", "t", "u", "v"):
        board.propose(boarded(name))

    async def turns() -> int:
        sweeping = asyncio.create_task(sweep(board.cas))
        count = 0
        while not sweeping.done():
            count += 1
            await asyncio.sleep(0)
        return count

    at_once = asyncio.run(turns())
    monkeypatch.setattr(sweep_module, "SWEPT_AT_ONCE", 2)
    assert asyncio.run(turns()) == at_once + 2


def test_the_sweep_goes_on_beside_a_session_whose_record_cannot_be_read(
    board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    board.propose(boarded("s", predecessor=first))
    other = board.propose(boarded("t", PolicyBoard(members=THREE.members, more="decide_within: 1h")))
    members_of = session_records._members_of

    def failing(record: Record) -> dict[str, Any]:
        if members_of(record)["hash"] == first:
            raise StoreError("it cannot be read")
        return members_of(record)

    monkeypatch.setattr(session_records, "_members_of", failing)
    board.pass_time(timedelta(hours=1))
    board.sweep()
    assert "it cannot be read" in caplog.text
    assert board.read(other["proposal"])["state"] == "expired"


# --- who waits -------------------------------------------------------------------------------------------------------


async def listed(board: Board, who: Caller | None, after: str | None = None, **query: Any) -> tuple[list[str], str]:
    found = await list_proposals(board.cas, Query(**query), caller=who, after=after, wait_seconds=50)
    return [json.loads(shown)["proposal"] for shown in found.shown], found.cursor


async def waiting(board: Board, count: int) -> None:
    """Until so many wait for a change."""
    while len(board.cas.proposals._watchers) < count:
        await asyncio.sleep(0)


def test_one_list_is_made_for_all_who_ask_for_the_same_at_a_time(
    board: Board, eve: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.adopt(boarded("s"), ANN, BEN)
    made = Count(monkeypatch, read_proposal_module, "_list")

    async def story() -> None:
        await asyncio.gather(*(listed(board, who) for who in (None, eve) for _ in range(20)))

    asyncio.run(story())
    assert made.count == 2


def test_a_list_is_never_older_than_the_request(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks while a list is made gets one that was begun afterwards."""
    begun, go = asyncio.Event(), asyncio.Event()
    real = read_proposal_module._shown

    async def slowly(*arguments: Any) -> Any:
        found = await real(*arguments)
        begun.set()
        await go.wait()
        return found

    monkeypatch.setattr(read_proposal_module, "_shown", slowly)

    async def story() -> None:
        early = asyncio.create_task(listed(board, board.proposer))
        await begun.wait()
        made = await propose(board.cas, boarded("s").encode(), note="", break_glass=False, caller=board.proposer)
        late = asyncio.create_task(listed(board, board.proposer))
        await asyncio.sleep(0)
        go.set()
        assert (await early)[0] == []
        assert (await late)[0] == [made.proposal.id]

    asyncio.run(asyncio.wait_for(story(), 60))


def test_lists_are_made_one_at_a_time(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those who waited, however many, nobody waits who did not."""
    board.propose(boarded("s"))
    running = most = 0
    real = read_proposal_module._shown

    async def slowly(*arguments: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        try:
            return await real(*arguments)
        finally:
            running -= 1

    monkeypatch.setattr(read_proposal_module, "_shown", slowly)

    async def story() -> None:
        await asyncio.gather(*(listed(board, make_caller(f"c{number}")) for number in range(5)))

    asyncio.run(story())
    assert most == 1


def test_who_sees_nothing_of_a_change_is_not_woken_by_it(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of all proposals for each of those who wait, at each decision, stopped the service for seconds."""
    shown = board.propose(boarded("s"))
    strangers = [make_caller(f"c{number}") for number in range(8)]

    async def story() -> None:
        _, cursor = await listed(board, strangers[0])
        _, known = await listed(board, board.proposer)
        tasks = [asyncio.create_task(listed(board, who, cursor)) for who in strangers]
        member = asyncio.create_task(listed(board, board.proposer, known))
        await waiting(board, 9)
        made = Count(monkeypatch, read_proposal_module, "_list")
        await board.cast(shown["proposal"], decision(ANN, shown))
        assert (await member)[1] != known
        await waiting(board, 8)
        assert made.count == 1
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_who_waits_is_woken_by_all_that_changes_its_list(board: Board, eve: Caller) -> None:
    """What comes, what changes and what goes; of a member, of a reader, and of who asks for a session's closed ones."""
    ann = caller(member_hash(ANN))
    first = board.adopt(boarded("s"), ANN, BEN)
    other = board.propose(boarded("t", read="CREATOR"))

    shown_at: list[Shown] = []

    async def proposing() -> None:
        text = boarded("s", predecessor=first).encode()
        made = await propose(board.cas, text, note="", break_glass=False, caller=board.proposer)
        shown_at.append(await read_proposal(board.cas, made.proposal.id, caller=None))

    async def story() -> None:
        queries: list[tuple[Caller | None, dict[str, Any]]] = [
            (None, {}),
            (eve, {"session": "s"}),
            (ann, {}),
            (None, {"session": "s", "closed": True}),
            (eve, {"waiting_for": member_hash(CEM)}),
        ]
        states = [[await listed(board, who, **query)] for who, query in queries]

        async def step(change: Awaitable[object]) -> None:
            tasks = [
                asyncio.create_task(listed(board, who, state[-1][1], **query))
                for (who, query), state in zip(queries, states, strict=True)
            ]
            await waiting(board, len(tasks))
            await change
            for task, state in zip(tasks, states, strict=True):
                state.append(await task)

        await step(proposing())
        [shown] = shown_at
        await step(board.cast(shown["proposal"], decision(ANN, shown)))
        await step(board.cast(shown["proposal"], decision(BEN, shown)))
        for state, (who, _) in zip(states, queries, strict=True):
            assert all(one[1] != another[1] for one, another in pairwise(state)), who
        assert [ids for ids, _ in states[0]] == [[], [shown["proposal"]], [shown["proposal"]], []]
        assert [ids for ids, _ in states[2]][-1] == [other["proposal"]]
        assert shown["proposal"] in states[3][-1][0]

    asyncio.run(asyncio.wait_for(story(), 60))


def test_after_many_changes_at_once_the_list_is_made_anew(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_proposal_module, "MAX_CHANGED", 0)
    shown = board.propose(boarded("s"))

    async def story() -> None:
        _, cursor = await listed(board, None)
        task = asyncio.create_task(listed(board, None, cursor))
        await waiting(board, 1)
        made = Count(monkeypatch, read_proposal_module, "_list")
        await board.cast(shown["proposal"], decision(ANN, shown))
        while not made.count:
            await asyncio.sleep(0)
        await waiting(board, 1)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_who_came_to_be_seen_by_a_session_that_was_not_looked_at_before_is_shown(
    board: Board, eve: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = board.desk.upload(with_variables("s", shown_key(eve)), board.proposer)

    async def story() -> None:
        _, cursor = await listed(board, eve)
        task = asyncio.create_task(listed(board, eve, cursor))
        await waiting(board, 1)
        text = boarded("s", predecessor=first).encode()
        made = await propose(board.cas, text, note="", break_glass=False, caller=board.proposer)
        assert (await task)[0] == [made.proposal.id]

    asyncio.run(asyncio.wait_for(story(), 60))


def test_one_caller_cannot_take_the_places_of_all_who_wait(
    board: Board, eve: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that show no certificate are one. Whoever comes on top must not come again at once."""
    monkeypatch.setattr(proposal_lists, "MAX_WATCHERS_OF_CALLER", 2)
    monkeypatch.setattr(proposal_lists, "LOOK_SECONDS", 0.01)

    async def story() -> None:
        _, cursor = await listed(board, None)
        tasks = [asyncio.create_task(listed(board, None, cursor)) for _ in range(5)]
        done, left = await asyncio.wait(tasks, timeout=0.5)
        assert len(done) == 3
        assert len(left) == 2
        other = asyncio.create_task(listed(board, eve, cursor))
        await waiting(board, 3)
        for task in (*left, other):
            task.cancel()
        await asyncio.gather(*left, other, return_exceptions=True)
        assert not board.cas.lists._watchers

    asyncio.run(asyncio.wait_for(story(), 60))
