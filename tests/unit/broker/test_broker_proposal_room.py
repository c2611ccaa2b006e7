"""The room that proposals take: whoever may only read cannot take it from those who decide, nor fill the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, boarded, decision, member_hash
from tests.simulators.board import Board as PolicyBoard
from tests.simulators.signers import Person, ed25519_person
from tests.unit.broker.conftest import Desk
from tests.unit.broker.proposing import Board

from ostiary.board import Caller
from ostiary.board.proposal import State
from ostiary.broker import decide as decide_module
from ostiary.broker import proposal_records
from ostiary.broker.propose import propose
from ostiary.broker.sweep import sweep
from ostiary.errors import ConflictError, NotAuthorizedError, NotFoundError, TooLargeError

WEEK = timedelta(days=7)
READERS_ONLY = "the rest is for members, and for who made the current version"


@pytest.fixture
def board(desk: Desk, alice: Caller) -> Board:
    return Board(desk=desk, proposer=alice)


def stranger(number: int) -> Caller:
    """Somebody with a certificate that cost nothing."""
    return Caller(certificate="", key_hash=number.to_bytes(32), key_bits_hash=bytes(32))


def member(person: Person) -> Caller:
    return Caller(certificate="", key_hash=bytes.fromhex(member_hash(person)), key_bits_hash=bytes(32))


def namespace(more: str = "") -> PolicyBoard:
    """A board that decides creation, too, of ann, ben and cem."""
    return PolicyBoard(members={"ann": ANN, "ben": BEN, "cem": CEM}, more=f"on: [update, create_sessions]{more}")


def records(board: Board) -> int:
    return board.cas.store.records


# --- room ------------------------------------------------------------------------------------------------------------


def test_readers_of_a_namespace_leave_room_in_it_for_its_members(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_records, "MAX_PENDING_OF_NAMESPACE", 8)
    first = board.adopt(boarded("ns", namespace()), ANN, BEN)
    for number in range(6):
        board.propose(boarded(f"ns/s{number}", None), by=stranger(number))
    with pytest.raises(ConflictError, match=f"sessions in ns have 6 open proposals.*{READERS_ONLY}"):
        board.propose(boarded("ns/t", None), by=stranger(7))
    update = boarded("ns", namespace(), predecessor=first)
    for text, insider in ((update, member(CEM)), (boarded("ns/t", None), board.proposer)):
        assert board.propose(text, by=insider)["state"] == "open", "who made the namespace has a part in it"
    with pytest.raises(ConflictError, match="sessions in ns have 8 open proposals, as many as may wait: "):
        board.propose(boarded("ns/u", None), by=member(ANN))


def test_readers_of_the_root_leave_room_in_the_service_for_members(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal_records, "MAX_PENDING", 8)
    root = board.cas.sessions.require("/").parsed.hash.hex()
    first = board.adopt(boarded("/", namespace("\nbreak_glass: 3"), predecessor=root), ANN, BEN)
    for number in range(6):
        board.propose(boarded(f"s{number}", None), by=stranger(number))
    with pytest.raises(ConflictError, match=f"all sessions together have 6 open proposals.*{READERS_ONLY}"):
        board.propose(boarded("t", None), by=stranger(7))
    update = board.propose(
        boarded("/", namespace("\nbreak_glass: 3"), predecessor=first), by=member(CEM), break_glass=True
    )
    for person in (ANN, BEN, CEM):
        state = board.decide(person, update)
    assert state == "applied"


def test_a_member_has_room_of_its_own_however_many_others_wait(board: Board) -> None:
    """One who is compromised cannot keep the others from proposing by proposing himself."""
    text = boarded("s", predecessor=board.adopt(boarded("s"), ANN, BEN))
    for _ in range(proposal_records.MAX_PENDING_OF_SESSION):
        board.propose(text, by=member(CEM))
    for person in (CEM, None):
        with pytest.raises(ConflictError, match=r"session s has (16|12) open proposals"):
            board.propose(text, by=stranger(1) if person is None else member(person))
    for person in (ANN, BEN):
        for _ in range(proposal_records.OWN):
            shown = board.propose(text, by=member(person))
        with pytest.raises(ConflictError, match="session s has 16 open proposals"):
            board.propose(text, by=member(person))
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "applied"


def test_nobody_becomes_a_member_by_naming_himself(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board that only the proposed version names gives nobody a part in anything."""
    monkeypatch.setattr(proposal_records, "MAX_PENDING_OF_NAMESPACE", 4)
    first = board.adopt(boarded("ns", namespace()), ANN, BEN)
    closed = board.adopt(boarded("closed", namespace(), read="CREATOR"), ANN, BEN)
    for number in range(3):
        me = ed25519_person()
        own = PolicyBoard(members={"me": me}, faults=0)
        shown = board.propose(boarded(f"ns/s{number}", own), by=member(me))
        assert not board.cas.proposals.require(shown["proposal"]).insider
        with pytest.raises(NotAuthorizedError, match="propose a version in session closed"):
            board.propose(boarded(f"closed/s{number}", own), by=member(me))
    with pytest.raises(ConflictError, match=READERS_ONLY):
        board.propose(boarded("ns/t", own), by=member(me))
    assert board.propose(boarded("ns", namespace(), predecessor=first), by=member(CEM))
    assert board.propose(boarded("closed", namespace(), predecessor=closed), by=member(CEM))


def test_a_reader_proposes_no_text_of_a_size_that_only_fills_the_database(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal_records, "MAX_READERS_TEXT_BYTES", 1000)
    first = board.adopt(boarded("s"), ANN, BEN)
    large = boarded("s", predecessor=first, secrets=f"[{{name: k, kind: ascii, value: {'x' * 1000}}}]")
    with pytest.raises(TooLargeError, match=r"the version has 1\d\d\d bytes; of whoever may only read, 1000 are taken"):
        board.propose(large, by=stranger(1))
    assert board.propose(boarded("s", predecessor=first), by=stranger(1))
    assert board.propose(large, by=member(ANN))


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_nothing_is_kept_of_what_a_reader_proposed_and_no_member_cared_for(board: Board) -> None:
    """Or readers fill the database, version by version, and drive out of a session's last hundred what was decided."""
    first = board.adopt(boarded("s"), ANN, BEN)
    before = records(board)
    update = boarded("s", predecessor=first)
    made = [board.propose(update, by=stranger(number))["proposal"] for number in range(12)]
    new = board.propose(boarded("t"), by=stranger(1))
    board.decide(ANN, new)
    board.pass_time(WEEK)
    board.sweep()
    for one in made:
        with pytest.raises(NotFoundError):
            board.read(one)
    assert len(board.listed(board.proposer, session="s", closed=True)) == 1
    kept = {f"proposal/{new['proposal']}", f"proposed/{new['proposal']}", "proposals-of/t"}
    assert all(board.cas.store.version(name) for name in kept), "a member had decided"
    assert records(board) <= before + len(kept) + len({"proposals", "proposals/0", "proposals/1"})


def test_what_a_member_rejected_is_kept_though_it_left(board: Board) -> None:
    first = board.adopt(boarded("ns", namespace()), ANN, BEN)
    shown = board.propose(boarded("ns/s", None), by=stranger(3))
    board.decide(CEM, shown, "reject", "malware")
    replaced(board, first, dan=DAN)
    assert board.read(shown["proposal"], stranger(3))["state"] == "open"
    board.pass_time(WEEK)
    board.sweep()
    assert board.read(shown["proposal"], stranger(3))["state"] == "expired"


def test_a_decision_that_was_stored_meanwhile_is_not_dropped_with_its_proposal(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    shown = board.propose(boarded("s", predecessor=first), by=stranger(1))
    read = board.cas.proposals.require(shown["proposal"])
    board.decide(ANN, shown)
    change = board.cas.proposals.replacement(replace(read, state=State.EXPIRED))
    with pytest.raises(ConflictError):
        board.cas.store.commit(change.writes, b"leaf").result()
    assert ANN.spki in board.cas.proposals.require(shown["proposal"]).decisions


def test_whoever_proposes_is_not_told_that_what_was_over_is_gone(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    text = boarded("s", predecessor=first)
    for number in range(12):
        board.propose(text, by=stranger(number))
    board.pass_time(WEEK)

    async def at_once() -> list[str]:
        proposed = asyncio.gather(
            *(
                propose(board.cas, text.encode(), note="", break_glass=False, caller=member(person))
                for person in (ANN, BEN)
            )
        )
        await sweep(board.cas)
        return [one.proposal.id for one in await proposed]

    made = asyncio.run(at_once())
    assert sorted(board.listed(board.proposer)) == sorted(made)


def test_what_an_insider_proposed_is_kept_when_it_is_over(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    shown = board.propose(boarded("s", predecessor=first))
    board.pass_time(WEEK)
    assert board.read(shown["proposal"])["state"] == "expired"
    assert shown["proposal"] in board.listed(board.proposer, session="s", closed=True)


def test_whoever_reads_what_is_dropped_at_that_moment_still_sees_how_it_ended(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    shown = board.propose(boarded("s", predecessor=first), by=stranger(1))
    board.pass_time(WEEK)
    assert board.read(shown["proposal"])["state"] == "expired"
    with pytest.raises(NotFoundError):
        board.read(shown["proposal"])
    with pytest.raises(NotFoundError):
        board.decide(ANN, shown)


def test_a_proposal_that_was_applied_is_never_dropped(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the signatures of those who approved the version."""
    monkeypatch.setattr(proposal_records, "MAX_OF_SESSION", 3)
    applied = board.propose(boarded("s"))
    board.decide(ANN, applied)
    board.decide(BEN, applied)
    closed = []
    for _ in range(5):
        shown = board.propose(boarded("s", predecessor=applied["hash"]))
        for person in (ANN, BEN):
            board.decide(person, shown, "withdraw")
        closed.append(shown["proposal"])
    assert board.listed(board.proposer, session="s", closed=True) == closed[-3:]
    found = board.read(applied["proposal"])
    assert found["state"] == "applied"
    assert {one["name"] for one in found["members"] if one["decision"]} == {"ann", "ben"}
    with pytest.raises(NotFoundError):
        board.read(closed[0])


# --- members who leave -----------------------------------------------------------------------------------------------


def replaced(board: Board, predecessor: str, **members: Person) -> str:
    """The namespace `ns` with other members, by its own board, of which ann and ben are always part."""
    return board.adopt(
        boarded(
            "ns",
            PolicyBoard(members={"ann": ANN, "ben": BEN, **members}, more="on: [update, create_sessions]"),
            predecessor=predecessor,
        ),
        ANN,
        BEN,
    )


def test_of_a_member_who_left_only_its_caution_is_kept(board: Board) -> None:
    """A proposal does not grow with each board that it outlives; and nobody who said no comes back to say yes."""
    first = board.adopt(boarded("ns", namespace()), ANN, BEN)
    shown = board.propose(boarded("ns/s", None))
    approval = decision(CEM, shown)
    board.send(shown["proposal"], approval)
    board.decide(CEM, shown, "withdraw", "x" * 1000)
    second = replaced(board, first, dan=DAN)
    assert board.decide(DAN, shown) == "open"
    stored = board.cas.proposals.require(shown["proposal"])
    assert set(stored.decisions) == {DAN.spki}
    assert set(stored.left) == {CEM.spki}
    replaced(board, second, cem=CEM)
    with pytest.raises(ConflictError, match="decided 'withdraw' and cannot go back to 'approve'"):
        board.send(shown["proposal"], approval)
    members = {one["name"]: one for one in board.read(shown["proposal"])["members"]}
    assert members["cem"]["decision"] is None
    assert board.decide(CEM, shown, "reject") == "open"
    assert not board.cas.proposals.require(shown["proposal"]).left.keys() - {DAN.spki}


def test_an_approval_of_a_member_who_left_is_made_anew_by_one_who_comes_back(board: Board) -> None:
    first = board.adopt(boarded("ns", namespace()), ANN, BEN)
    shown = board.propose(boarded("ns/s", None))
    board.decide(CEM, shown)
    second = replaced(board, first, dan=DAN)
    assert board.decide(DAN, shown) == "open"
    replaced(board, second, cem=CEM)
    assert board.read(shown["proposal"])["approvals"] == 0
    assert board.decide(CEM, shown) == "open"
    assert board.decide(ANN, shown) == "applied"


def test_too_many_who_came_and_left_end_in_a_refusal(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "MAX_LEFT", 0)
    first = board.adopt(boarded("ns", namespace()), ANN, BEN)
    shown = board.propose(boarded("ns/s", None))
    board.decide(CEM, shown, "withdraw")
    replaced(board, first, dan=DAN)
    with pytest.raises(ConflictError, match="more than 0 members have rejected or withdrawn and left the board"):
        board.decide(DAN, shown)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_decisions_at_once_do_not_exclude_each_other(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proposals of one page, of different tenants: each decision is one commit, and none begins anew."""
    three = PolicyBoard(members={"ann": ANN, "ben": BEN, "cem": CEM}, faults=2)
    shown = [board.propose(boarded(f"s{number}", three)) for number in range(proposal_records.PAGE)]
    commits = 0
    commit = board.cas.store.commit

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal commits
        commits += 1
        return commit(*arguments, **options)

    monkeypatch.setattr(board.cas.store, "commit", counting)

    async def all_at_once(*people: Person) -> list[str]:
        return await asyncio.gather(
            *(board.cast(one["proposal"], decision(person, one)) for one in shown for person in people)
        )

    assert asyncio.run(all_at_once(ANN, BEN)) == ["open"] * 2 * len(shown)
    assert commits == 2 * len(shown)
    assert asyncio.run(all_at_once(CEM)) == ["applied"] * len(shown)


def test_only_so_much_is_kept_decoded(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    first = board.propose(boarded("s"))
    record = board.cas.store.get(f"proposal/{first['proposal']}")
    assert record is not None
    monkeypatch.setattr(proposal_records, "MAX_KNOWN_BYTES", 2 * len(record.value) + 500)
    shown = [first, *(board.propose(boarded(f"s{number}")) for number in range(2))]
    for each in shown * 2:
        assert board.read(each["proposal"])["state"] == "open"
        assert len(board.cas.proposals._known) == 2
