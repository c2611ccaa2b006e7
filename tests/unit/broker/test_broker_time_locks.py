"""Time locks of proposals while boards change, and while keys of members cannot be had."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, boarded
from tests.simulators.board import Board as PolicyBoard
from tests.simulators.signers import Person
from tests.unit.broker.conftest import Desk
from tests.unit.broker.proposing import Board, Shown

from ostiary.board import Caller
from ostiary.errors import ConflictError, NotFoundError

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def board(desk: Desk, alice: Caller) -> Board:
    return Board(desk=desk, proposer=alice)


def locked(members: dict[str, Person], days: int) -> PolicyBoard:
    """A board of a namespace that decides what is created in it, too."""
    lock = f"\ntime_lock: {days}d" if days else ""
    return PolicyBoard(members=members, faults=1, more=f"on: [update, create_sessions]{lock}")


OLD = {"ann": ANN, "ben": BEN, "cem": CEM}
NEW = {"ann": ANN, "cem": CEM, "dan": DAN}


def approved_below(board: Board, after: PolicyBoard) -> Shown:
    """A first version in namespace `ns`, approved by ann and ben a day before `after` comes to be the board of `ns`.

    The lock of the old board was two days.
    """
    first = board.propose(boarded("ns", locked(OLD, 2)))
    board.decide(ANN, first)
    board.decide(BEN, first)
    board.pass_time(2 * DAY)
    board.sweep()
    update = board.propose(boarded("ns", after, predecessor=first["hash"]))
    board.decide(ANN, update)
    board.decide(CEM, update)
    board.pass_time(DAY)
    shown = board.propose(boarded("ns/s", None))
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "approved"
    board.pass_time(DAY)
    board.sweep()
    assert board.current("ns") == update["hash"]
    return shown


def is_applied(board: Board) -> bool:
    board.sweep()
    return board.current("ns/s") is not None


def test_the_lock_runs_anew_when_others_decide_now(board: Board) -> None:
    """What a removed member approved waited for nobody: the others' time to notice begins with their own approval."""
    shown = approved_below(board, locked(NEW, 2))
    board.pass_time(DAY - 2 * MINUTE)
    assert board.decide(DAN, shown) == "approved"
    board.pass_time(2 * DAY - MINUTE)
    assert not is_applied(board)
    board.pass_time(MINUTE)
    assert is_applied(board)


def test_a_longer_lock_counts_for_what_waits(board: Board) -> None:
    approved_below(board, locked(OLD, 30))
    for days in (DAY, 28 * DAY - MINUTE):
        board.pass_time(days)
        assert not is_applied(board)
    board.pass_time(MINUTE)
    assert is_applied(board)


def test_an_approval_from_before_its_board_came_to_be_in_charge_counts_from_then(board: Board) -> None:
    """Ben and cem are enough, and have been for two hours when the lock of ann's and ben's approvals would end."""
    first = board.propose(boarded("ns", locked(OLD, 2)))
    for person in (ANN, BEN):
        board.decide(person, first)
    board.pass_time(2 * DAY)
    board.sweep()
    update = board.propose(boarded("ns", locked({"ben": BEN, "cem": CEM, "dan": DAN}, 2), predecessor=first["hash"]))
    for person in (BEN, CEM):
        board.decide(person, update)
    board.pass_time(HOUR)
    shown = board.propose(boarded("ns/s", None))
    for person in (ANN, BEN):
        board.decide(person, shown)
    board.pass_time(46 * HOUR)
    assert board.decide(CEM, shown) == "approved"
    board.pass_time(HOUR)
    board.sweep()
    assert board.current("ns") == update["hash"]
    for hours, applied in ((1, False), (46 - 1, False), (1, True)):
        board.pass_time(hours * HOUR)
        assert is_applied(board) == applied, hours


def test_members_may_change_their_minds_while_something_is_in_the_way(board: Board) -> None:
    """After the lock, too: or the version is applied as soon as that is gone, whatever they say until then."""
    more = PolicyBoard(members=OLD, more="on: [update, create_sessions]\ntime_lock: 2d")
    first = board.adopt(boarded("ns", PolicyBoard(members=OLD, more="on: [update, create_sessions]")), ANN, BEN)
    second = board.adopt(boarded("ns", more, predecessor=first), ANN, BEN)
    shown = board.propose(boarded("ns/s", None, namespace_hash=second))
    for person in (ANN, BEN, CEM):
        assert board.decide(person, shown) in ("open", "approved")
    third = board.propose(boarded("ns", more, predecessor=second, secrets="[{name: k, kind: ascii, value: x}]"))
    for person in (ANN, BEN):
        board.decide(person, third)
    board.pass_time(2 * DAY)
    assert board.read(third["proposal"])["state"] == "applied"
    assert board.read(shown["proposal"])["state"] == "approved", "its namespace_hash is in the way"
    assert board.decide(CEM, shown, "withdraw") == "approved"
    assert board.read(shown["proposal"])["approvals"] == 2
    size = board.cas.store.head.log_size
    assert board.decide(CEM, shown, "withdraw") == "approved"
    assert board.cas.store.head.log_size == size, "the same decision again changes nothing"
    with pytest.raises(ConflictError, match="cannot go back to 'approve'"):
        board.decide(CEM, shown)
    assert board.decide(BEN, shown, "reject") == "rejected"


@pytest.mark.parametrize("days", [1, 0])
def test_a_shorter_lock_does_not_bring_forward_what_was_announced(board: Board, days: int) -> None:
    shown = approved_below(board, locked(OLD, days))
    announced = board.read(shown["proposal"])["apply_after"]
    board.pass_time(DAY - MINUTE)
    assert not is_applied(board)
    assert board.read(shown["proposal"])["apply_after"] == announced
    board.pass_time(MINUTE)
    assert is_applied(board)


# --- keys that cannot be had -----------------------------------------------------------------------------------------


def keys(*, exported: bool, predecessor: str = "") -> str:
    """The session that dan's key is imported from; not exported it cannot be had, as while its vault is away."""
    export = ", export: {session: s}" if exported else ""
    follows = f"predecessor: {predecessor}\n" if predecessor else ""
    return (
        f'version: "0.3.12"\nname: keys\naccess_policy: {{read: ANY, update: [CREATOR]}}\n{follows}secrets:\n'
        f"- {{name: dan, kind: public-key, value: {DAN.quoted}{export}}}\n"
    )


class Outage:
    """Dan's key, which can be taken away and given back."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._hash = board.desk.upload(keys(exported=True), board.proposer)

    def begin(self) -> None:
        self._set(exported=False)

    def end(self) -> None:
        self._set(exported=True)

    def _set(self, *, exported: bool) -> None:
        self._hash = self._board.desk.upload(keys(exported=exported, predecessor=self._hash), self._board.proposer)


def with_dan(power: str = "", read: str = "ANY") -> str:
    members = f"{{name: ann, signer: {ANN.quoted}}}, {{name: ben, signer: {BEN.quoted}}}, "
    members += f'{{name: dan, {power}signer: "$$SCONE::dan$$"}}'
    return boarded(
        "s",
        None,
        access_policy=f"{{read: {read}}}",
        secrets="[{name: dan, import: {session: keys, secret: dan}}]",
        policy_board=f"{{tolerated_faults: 1, decide_within: 7d, time_lock: 3d, members: [{members}]}}",
    )


@pytest.fixture
def outage(board: Board) -> Outage:
    return Outage(board)


@pytest.mark.parametrize(("power", "other"), [("", DAN), ("power: reject, ", BEN)], ids=["vote", "veto"])
def test_a_key_that_is_away_for_a_while_neither_closes_what_was_approved_nor_prolongs_it(
    board: Board, outage: Outage, power: str, other: Person
) -> None:
    shown = board.propose(with_dan(power))
    board.pass_time(6 * DAY)
    board.decide(ANN, shown)
    assert board.decide(other, shown) == "approved"
    announced = board.read(shown["proposal"])["apply_after"]
    board.pass_time(2 * DAY)
    outage.begin()
    during = board.read(shown["proposal"])
    assert (during["state"], during["apply_after"]) == ("approved", announced)
    outage.end()
    board.pass_time(DAY - MINUTE)
    assert board.read(shown["proposal"])["state"] == "approved"
    board.pass_time(MINUTE)
    assert board.read(shown["proposal"])["state"] == "applied"


@pytest.mark.parametrize(("power", "other"), [("", DAN), ("power: reject, ", BEN)], ids=["vote", "veto"])
def test_while_a_key_is_away_that_is_needed_nothing_is_applied(
    board: Board, outage: Outage, power: str, other: Person
) -> None:
    shown = board.propose(with_dan(power))
    board.decide(ANN, shown)
    board.decide(other, shown)
    outage.begin()
    board.pass_time(4 * DAY)
    assert board.read(shown["proposal"])["state"] == "approved"
    assert board.current("s") is None
    outage.end()
    assert board.read(shown["proposal"])["state"] == "applied"


def test_an_approval_that_is_withdrawn_while_a_key_is_away_counts_for_nothing(board: Board, outage: Outage) -> None:
    shown = board.propose(with_dan())
    board.decide(ANN, shown)
    assert board.decide(DAN, shown) == "approved"
    outage.begin()
    assert board.decide(ANN, shown, "withdraw") == "open"
    outage.end()
    board.pass_time(4 * DAY)
    assert board.read(shown["proposal"])["state"] == "open"


def test_what_waits_for_a_key_too_long_expires(board: Board, outage: Outage) -> None:
    shown = board.propose(with_dan())
    board.decide(ANN, shown)
    board.decide(DAN, shown)
    outage.begin()
    board.pass_time(10 * DAY)
    assert board.read(shown["proposal"])["state"] == "expired"


def test_whoever_may_not_see_a_proposal_changes_nothing_by_asking_for_it(board: Board, eve: Caller) -> None:
    shown = board.propose(with_dan(read="CREATOR"))
    board.pass_time(8 * DAY)
    before = board.cas.store.head.seq
    with pytest.raises(NotFoundError):
        board.read(shown["proposal"], eve)
    assert board.cas.store.head.seq == before
    assert board.read(shown["proposal"])["state"] == "expired"
    assert board.cas.store.head.seq > before
