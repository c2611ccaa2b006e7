"""The life of a proposal: who may make one, how it ends, what is listed, told and logged of it."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.simulators.board import ANN, BEN, CEM, DAN, THREE, boarded, decision, member_hash, proposal_hash
from tests.simulators.board import Board as PolicyBoard
from tests.unit.broker.conftest import make_caller
from tests.unit.broker.proposing import Board

from ostiary.board import Caller
from ostiary.broker import decide as decide_module
from ostiary.broker import proposal_records
from ostiary.broker import read_proposal as read_proposal_module
from ostiary.broker import sweep as sweep_module
from ostiary.broker.admission import readers_of
from ostiary.broker.cas import Cas
from ostiary.broker.decide import settle
from ostiary.broker.proposal import Proposal
from ostiary.broker.propose import propose
from ostiary.broker.read_proposal import Query, list_proposals
from ostiary.broker.sweep import sweep_for_ever
from ostiary.broker.upload import store_version
from ostiary.client import MAX_ANSWER_BYTES
from ostiary.errors import (
    ConflictError,
    IdentityRequiredError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    RefusedError,
    StoreError,
    TooLargeError,
)
from ostiary.session.base58 import encode_key_hash
from ostiary.store import Head, Record, Write

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

KEY = "[{name: k, kind: private-key}]"
WITH_IMPORTED_KEY = (
    f'{{tolerated_faults: 1, members: [{{name: ann, signer: {ANN.quoted}}}, {{name: dan, signer: "$$SCONE::dan$$"}}]}}'
)


@pytest.fixture
def board(desk: Desk, alice: Caller) -> Board:
    return Board(desk=desk, proposer=alice)


@pytest.fixture(scope="module")
def mallory() -> Caller:
    return make_caller("mallory")


def with_board(more: str = "", **powers: str) -> PolicyBoard:
    return PolicyBoard(members=THREE.members, powers=powers, more=more)


# --- from proposal to version ----------------------------------------------------------------------------------------


def test_the_deciding_approval_applies_the_version_in_one_commit(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.spy(monkeypatch)
    first = board.propose(boarded("s"), note="hello")
    assert first["proposal"] == proposal_hash(first)
    assert board.decide(ANN, first) == "open"
    assert board.current("s") is None
    assert board.decide(BEN, first) == "applied"
    assert board.current("s") == first["hash"]
    of = {"session": "s", "proposal": first["proposal"]}
    created, decided, applied, closed = board.logged()
    assert created == ("proposal_created", {**of, "by": first["proposer"]})
    assert decided == ("proposal_decided", {**of, "state": "open", "member": member_hash(ANN), "choice": "approve"})
    kind, data = applied
    assert kind == "session_created"
    assert {**of, "by": first["proposer"]}.items() <= data.items()
    assert data["approvals"] == [{"member": member_hash(one), "choice": "approve"} for one in (ANN, BEN)]
    assert closed == ("proposal_closed", {**of, "state": "applied"})
    assert first["hash"] not in json.dumps(board.logged()), "without a salt a hash would tell what is in the text"


def test_an_update_is_decided_by_the_board_of_the_version_that_it_replaces(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    other = PolicyBoard(members={"dan": DAN}, faults=0)
    update = board.propose(boarded("s", other, predecessor=first))
    with pytest.raises(NotAuthorizedError, match="of no member who decides"):
        board.decide(DAN, update)
    assert board.decide(CEM, update) == "open"
    assert board.decide(ANN, update) == "applied"
    assert board.adopt(boarded("s", other, predecessor=update["hash"]), DAN)


def test_the_creator_of_an_applied_version_is_its_proposer(board: Board, eve: Caller) -> None:
    """Fixed when it is proposed, so that it is part of what members sign."""
    first = board.adopt(boarded("s", read="CREATOR"), ANN, BEN)
    stored = board.cas.sessions.require("s")
    assert stored.creator == board.proposer.key_hash
    assert board.proposer.certificate in json.dumps(stored.parsed.normal).encode().decode("unicode_escape")
    with pytest.raises(NotAuthorizedError, match="propose a version in session s"):
        board.propose(boarded("s", read="CREATOR", predecessor=first), by=eve)


def test_values_of_secrets_are_made_when_it_is_applied_and_kept_by_the_next_version(board: Board) -> None:
    secrets = "[{name: k, kind: private-key, migrate: true}]"
    first = board.adopt(boarded("s", secrets=secrets), ANN, BEN)
    value = board.cas.sessions.require("s").values["k"]
    board.adopt(boarded("s", secrets=secrets, predecessor=first), ANN, BEN)
    assert board.cas.sessions.require("s").values["k"] == value


def test_a_veto_closes_it_at_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.spy(monkeypatch)
    shown = board.propose(boarded("s", with_board(cem="reject")))
    board.decide(ANN, shown)
    assert board.decide(CEM, shown, "reject", "adds debug") == "rejected"
    kind, data = board.logged()[-1]
    assert (kind, data["state"], data["member"]) == ("proposal_closed", "rejected", member_hash(CEM))
    with pytest.raises(ConflictError, match="the proposal is rejected"):
        board.decide(BEN, shown)
    assert board.current("s") is None
    members = {member["name"]: member for member in board.read(shown["proposal"])["members"]}
    assert members["cem"]["decision"]["reason"] == "adds debug"
    assert members["cem"]["power"] == ["vote", "reject"]


def test_whoever_may_approve_alone_needs_nobody_else(board: Board) -> None:
    shown = board.propose(boarded("s", with_board(cem="approve")))
    assert board.decide(CEM, shown) == "applied"


def test_it_is_rejected_once_nobody_can_approve_it_any_more(board: Board) -> None:
    shown = board.propose(boarded("s"))
    assert board.decide(ANN, shown) == "open"
    assert board.decide(ANN, shown, "withdraw") == "open"
    assert board.decide(BEN, shown, "reject") == "rejected"


def test_a_first_version_below_a_board_needs_both_boards(board: Board) -> None:
    """The namespace's, which decides creation, and the one that it names itself."""
    board.adopt(boarded("ns"), ANN, BEN)
    own = PolicyBoard(members={"cem": CEM, "dan": DAN}, faults=1)
    shown = board.propose(boarded("ns/s", own))
    assert [(member["board"], member["name"]) for member in shown["members"]] == [
        ("own", "cem"),
        ("own", "dan"),
        *(("namespace", name) for name in ("ann", "ben", "cem")),
    ]
    assert board.decide(ANN, shown) == "open"
    assert board.decide(BEN, shown) == "open"
    assert board.decide(CEM, shown) == "open"
    assert board.decide(DAN, shown) == "applied"


def test_a_session_below_a_board_may_be_without_one(board: Board) -> None:
    board.adopt(boarded("ns"), ANN, BEN)
    shown = board.propose(boarded("ns/s", None))
    assert {member["board"] for member in shown["members"]} == {"namespace"}
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "applied"


def test_a_session_comes_under_a_board_by_its_owner_and_the_board_together(board: Board, eve: Caller) -> None:
    policy = "{read: ANY, update: [CREATOR]}"
    first = board.desk.upload(boarded("s", None, access_policy=policy), board.proposer)
    with pytest.raises(NotAuthorizedError, match="insufficient rights to update session s"):
        board.propose(boarded("s", predecessor=first), by=eve)
    board.adopt(boarded("s", predecessor=first), ANN, BEN)


def test_members_whose_keys_the_service_made_decide_with_them(board: Board) -> None:
    """A checker's key, imported: the board of a first version may name it already."""
    ns = board.desk.upload(
        'version: "0.3.12"\nname: keys\naccess_policy: {read: ANY}\nsecrets:\n'
        f"- {{name: dan, kind: public-key, value: {DAN.quoted}, export: {{session: s}}}}\n",
        board.proposer,
    )
    assert ns
    text = boarded(
        "s",
        None,
        access_policy="{read: ANY}",
        secrets="[{name: dan, import: {session: keys, secret: dan}}]",
        policy_board=WITH_IMPORTED_KEY,
    )
    shown = board.propose(text)
    board.decide(ANN, shown)
    assert board.decide(DAN, shown) == "applied"


def test_a_key_that_the_session_has_already_may_sit_on_its_first_board(board: Board) -> None:
    """So that the attested program that has the private half decides with the others from then on."""
    pem = CEM.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    secrets = f"[{{name: key, kind: private-key, value: {json.dumps(pem)}}}, "
    secrets += "{name: checker, kind: public-key, private_key: key}]"
    policy = "{read: ANY, update: [CREATOR]}"
    first = board.desk.upload(boarded("s", None, access_policy=policy, secrets=secrets), board.proposer)
    members = f'{{name: ann, signer: {ANN.quoted}}}, {{name: checker, signer: "$$SCONE::checker$$"}}'
    text = boarded(
        "s",
        None,
        access_policy="{read: ANY}",
        secrets=secrets,
        policy_board=f"{{tolerated_faults: 1, members: [{members}]}}",
    )
    shown = board.propose(f"{text}predecessor: {first}\n")
    assert board.decide(CEM, shown) == "open"
    assert board.decide(ANN, shown) == "applied"
    again = board.propose(f"{text}predecessor: {shown['hash']}\n")
    assert board.decide(ANN, again) == "open"
    assert board.decide(CEM, again) == "applied"


def test_a_veto_by_a_key_that_is_not_made_yet_is_not_waited_for(board: Board) -> None:
    """The version that names the member makes its key; from then on nothing passes it."""
    members = f"{{name: ann, signer: {ANN.quoted}}}, {{name: ben, signer: {BEN.quoted}}}, "
    members += '{name: checker, power: reject, signer: "$$SCONE::checker$$"}'
    text = boarded(
        "s",
        None,
        access_policy="{read: ANY}",
        secrets="[{name: key, kind: private-key, key_type: Ed25519, migrate: true}, "
        "{name: checker, kind: public-key, private_key: key}]",
        policy_board=f"{{tolerated_faults: 1, members: [{members}]}}",
    )
    first = board.adopt(text, ANN, BEN)
    shown = board.propose(f"{text}predecessor: {first}\n")
    assert shown["members"][2]["key"] is not None


def test_the_root_namespace_comes_under_a_board_by_that_board(board: Board) -> None:
    """Whoever claims the root for a board needs its approval; afterwards only the board creates sessions there."""
    root = board.current("/")
    board.adopt(boarded("/", predecessor=root or ""), ANN, BEN)
    with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
        board.desk.upload(boarded("s", None), board.proposer)
    board.adopt(boarded("s", None), ANN, BEN)


def test_a_sealed_root_takes_no_board(board: Board) -> None:
    root = board.current("/")
    board.desk.upload(boarded("s", None), board.proposer)
    with pytest.raises(NotAuthorizedError, match="the root namespace is sealed"):
        board.propose(boarded("/", predecessor=root or ""))


def test_what_the_version_demands_of_its_namespace_holds_for_proposals_too(board: Board) -> None:
    with pytest.raises(NotFoundError, match="Namespace not found"):
        board.propose(boarded("nowhere/s"))
    with pytest.raises(ConflictError, match="is not the hash of the current version of its namespace"):
        board.propose(boarded("s", namespace_hash="ab" * 32))


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_time_lock_runs_from_the_deciding_approval(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = board.propose(boarded("s", with_board("time_lock: 1d")))
    board.decide(ANN, shown)
    board.pass_time(timedelta(hours=2))
    assert board.decide(BEN, shown) == "approved"
    assert board.read(shown["proposal"])["apply_after"] == "2026-11-24T14:00:00Z"
    board.pass_time(timedelta(hours=23))
    assert board.decide(CEM, shown) == "approved", "a later approval does not prolong it"
    board.pass_time(timedelta(minutes=59))
    board.sweep()
    assert board.current("s") is None
    board.spy(monkeypatch)
    board.pass_time(timedelta(minutes=1))
    board.sweep()
    assert board.current("s") == shown["hash"]
    assert [kind for kind, _ in board.logged()] == ["session_created", "proposal_closed"]
    assert len(board.logged()[0][1]["approvals"]) == 3


def test_while_the_time_lock_runs_approvals_may_be_withdrawn(board: Board) -> None:
    shown = board.propose(boarded("s", with_board("time_lock: 1d", cem="reject")))
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "approved"
    assert board.decide(BEN, shown, "withdraw") == "open"
    assert board.read(shown["proposal"])["apply_after"] is None
    assert board.decide(CEM, shown) == "approved"
    assert board.decide(CEM, shown, "reject") == "rejected"
    board.pass_time(timedelta(days=2))
    board.sweep()
    assert board.current("s") is None


def test_a_look_applies_what_is_due(board: Board) -> None:
    shown = board.propose(boarded("s", with_board("time_lock: 1h")))
    board.decide(ANN, shown)
    board.decide(BEN, shown)
    board.pass_time(timedelta(hours=1))
    assert board.read(shown["proposal"])["state"] == "applied"


def test_undecided_it_expires(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = board.propose(boarded("s", with_board("decide_within: 1h")))
    assert shown["expires"] == "2026-11-23T13:00:00Z"
    board.decide(ANN, shown)
    board.pass_time(timedelta(minutes=59))
    board.sweep()
    assert board.read(shown["proposal"])["state"] == "open"
    board.spy(monkeypatch)
    board.pass_time(timedelta(minutes=1))
    with pytest.raises(ConflictError, match="the proposal is expired"):
        board.decide(BEN, shown)
    assert board.logged() == [("proposal_closed", {"session": "s", "proposal": shown["proposal"], "state": "expired"})]
    assert board.current("s") is None


def test_another_version_supersedes_it(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    one, two = (
        board.propose(boarded("s", predecessor=first, secrets=f"[{{name: {key}, kind: private-key}}]")) for key in "ab"
    )
    for shown in (one, two):
        board.decide(ANN, shown)
    assert board.decide(BEN, one) == "applied"
    assert board.listed(board.proposer) == [], "it is not listed as open although nobody has closed it yet"
    with pytest.raises(ConflictError, match="the proposal is superseded"):
        board.decide(BEN, two)
    assert board.current("s") == one["hash"]
    assert board.read(two["proposal"])["state"] == "superseded"


# --- who may ---------------------------------------------------------------------------------------------------------


def test_without_a_board_nothing_is_proposed(board: Board) -> None:
    with pytest.raises(InputError, match="no policy board decides"):
        board.propose(boarded("s", None))


def test_the_predecessor_must_be_the_current_version(board: Board) -> None:
    board.adopt(boarded("s"), ANN, BEN)
    with pytest.raises(ConflictError, match="is not the hash of the current version"):
        board.propose(boarded("s", predecessor="ab" * 32))
    with pytest.raises(ConflictError, match="Session already exists"):
        board.propose(boarded("s"))
    with pytest.raises(NotFoundError, match="Session not found"):
        board.propose(boarded("t", predecessor="ab" * 32))


def test_whoever_may_not_read_neither_proposes_nor_learns_the_current_hash(board: Board, mallory: Caller) -> None:
    first = board.adopt(boarded("s", read="CREATOR"), ANN, BEN)
    for predecessor in (first, "ab" * 32):
        with pytest.raises(NotAuthorizedError, match="propose a version in session s"):
            board.propose(boarded("s", read="CREATOR", predecessor=predecessor), by=mallory)


def test_a_first_version_has_no_readers_yet_not_even_those_of_its_namespace(board: Board, eve: Caller) -> None:
    """Whoever holds a member's key in an agent, and so shows another in TLS, sees it as an update (docs/board.md)."""
    board.adopt(boarded("ns", read="ANY"), ANN, BEN)
    first = board.propose(boarded("ns/s", read="ANY"))
    with pytest.raises(NotFoundError, match="a first version is shown to its proposer and to members by TLS"):
        board.read(first["proposal"], eve)
    bare = board.desk.upload(boarded("later", None, access_policy="{read: ANY, update: CREATOR}"), board.proposer)
    put = board.propose(boarded("later", predecessor=bare, read="ANY"))
    assert board.read(put["proposal"], eve)["state"] == "open"
    assert board.decide(ANN, put) == "open"
    assert board.decide(BEN, put) == "applied"


def test_a_proposal_is_seen_by_readers_members_and_its_proposer(board: Board, eve: Caller, mallory: Caller) -> None:
    shown = board.propose(boarded("s", read="CREATOR"))
    for stranger in (eve, mallory):
        with pytest.raises(NotFoundError, match="Proposal not found"):
            board.read(shown["proposal"], stranger)
        assert board.listed(stranger) == []
    assert board.listed(None) == []
    ann = make_caller("ann")
    member = Caller(certificate=ann.certificate, key_hash=bytes.fromhex(member_hash(ANN)), key_bits_hash=bytes(32))
    assert board.read(shown["proposal"], member)["session"] == "s"
    assert board.listed(member) == board.listed(board.proposer) == [shown["proposal"]]
    assert board.listed(member, waiting_for="me") == [shown["proposal"]]
    with pytest.raises(NotFoundError, match="Proposal not found"):
        board.read("ab" * 32)
    with pytest.raises(NotFoundError, match="Proposal not found"):
        board.read("../" + shown["proposal"])


def test_a_board_whose_keys_are_not_known_is_not_asked(board: Board) -> None:
    text = boarded(
        "s",
        None,
        access_policy="{read: ANY}",
        secrets="[{name: dan, import: {session: nowhere, secret: dan}}]",
        policy_board=WITH_IMPORTED_KEY,
    )
    with pytest.raises(RefusedError, match="the keys of too many of its members are not known"):
        board.propose(text)


def test_no_version_hands_over_to_a_board_that_nobody_could_ever_ask(board: Board) -> None:
    """As by a slip in an import: once it is current, no proposal could mend it."""
    first = board.adopt(boarded("s"), ANN, BEN)
    lost = "[{name: dan, import: {session: nowhere, secret: dan}}]"
    text = boarded(
        "s", None, access_policy="{read: ANY}", secrets=lost, policy_board=WITH_IMPORTED_KEY, predecessor=first
    )
    with pytest.raises(RefusedError, match="of the proposed version could decide nothing"):
        board.propose(text)
    board.propose(text.replace("tolerated_faults: 1", "tolerated_faults: 0"))
    made = "[{name: k, kind: private-key, key_type: Ed25519}, {name: dan, kind: public-key, private_key: k}]"
    board.propose(text.replace(lost, made))


def test_notes_and_reasons_are_bounded(board: Board) -> None:
    with pytest.raises(TooLargeError, match="1001 characters"):
        board.propose(boarded("s"), note="n" * 1001)
    shown = board.propose(boarded("s"), note="n" * 1000)
    with pytest.raises(TooLargeError, match="1001 characters"):
        board.decide(ANN, shown, reason="r" * 1001)


# --- breaking the glass ----------------------------------------------------------------------------------------------


def test_breaking_the_glass_takes_the_larger_quorum_and_is_loud_for_ever(
    board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = board.adopt(boarded("s", PolicyBoard(members=THREE.members, more="break_glass: 3")), ANN, BEN)
    board.spy(monkeypatch)
    assert not [told for told in caplog.records if told.levelno >= logging.WARNING]
    shown = board.propose(boarded("s", predecessor=first), break_glass=True)
    assert shown["needed"] == 3
    assert board.decide(ANN, shown) == "open"
    assert board.decide(BEN, shown) == "open"
    assert board.decide(CEM, shown) == "applied"
    assert [(kind, data["break_glass"]) for kind, data in board.logged()] == [
        ("proposal_created", True),
        ("proposal_decided", True),
        ("proposal_decided", True),
        ("session_updated", True),
        ("proposal_closed", True),
    ]
    warned = [told.getMessage() for told in caplog.records if told.levelno == logging.WARNING]
    assert warned[0] == f"proposal_created {shown['proposal']} of session s, to break the glass"
    told = f"break-glass proposal {shown['proposal']} of session s"
    assert warned[1:] == [f"{told}: open", f"{told}: open", f"{told}: applied"]


def test_a_veto_does_not_stop_the_larger_quorum(board: Board) -> None:
    """For this the glass is there: a checker that rejects everything."""
    members = {**THREE.members, "dan": DAN}
    policy = PolicyBoard(members=members, powers={"dan": "reject"}, more="break_glass: 3")
    first = board.adopt(boarded("s", policy), ANN, BEN)
    stuck = board.propose(boarded("s", policy, predecessor=first, secrets=KEY))
    assert board.decide(DAN, stuck, "reject") == "rejected"
    shown = board.propose(boarded("s", policy, predecessor=first, secrets=KEY), break_glass=True)
    assert board.decide(DAN, shown, "reject") == "open"
    for person in (ANN, BEN):
        assert board.decide(person, shown) == "open"
    assert board.decide(CEM, shown) == "applied"


def test_without_such_a_quorum_nothing_breaks_the_glass(board: Board) -> None:
    with pytest.raises(RefusedError, match="has no break_glass quorum"):
        board.propose(boarded("s"), break_glass=True)


# --- lists -----------------------------------------------------------------------------------------------------------


def test_lists_say_who_still_has_to_decide(board: Board) -> None:
    one, two = board.propose(boarded("s")), board.propose(boarded("t"))
    ann, dan = member_hash(ANN), member_hash(DAN)
    assert set(board.listed(board.proposer, waiting_for=ann)) == {one["proposal"], two["proposal"]}
    board.decide(ANN, one)
    assert board.listed(board.proposer, waiting_for=ann) == [two["proposal"]]
    assert board.listed(board.proposer, waiting_for=dan) == []
    assert board.listed(board.proposer, session="s") == [one["proposal"]]
    with pytest.raises(InputError, match="waiting-for is neither"):
        board.listed(board.proposer, waiting_for="ann")
    with pytest.raises(IdentityRequiredError, match="needs a client certificate"):
        board.listed(None, waiting_for="me")


def test_a_list_of_all_that_may_wait_is_one_that_members_can_read(board: Board) -> None:
    """Or a stranger who may create sessions would blind every checker with long notes."""
    made = asyncio.run(
        propose(board.cas, boarded("s" * 512).encode(), note="\x01" * 1000, break_glass=False, caller=board.proposer)
    )
    assert board.read(made.proposal.id)["note"] == "\x01" * 1000
    listed = asyncio.run(list_proposals(board.cas, Query(), caller=board.proposer, after=None, wait_seconds=0))
    [shown] = listed.shown
    assert json.loads(shown)["note"] == "\x01" * 99 + "…"
    assert len(shown) * proposal_records.MAX_PENDING < MAX_ANSWER_BYTES


def test_a_long_list_lets_others_have_their_turn(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many may ask for lists at a time, and wait for them to change."""
    for name in ("r", "s", "t", "u"):
        board.propose(boarded(name))

    async def turns() -> int:
        listing = asyncio.create_task(
            list_proposals(board.cas, Query(), caller=board.proposer, after=None, wait_seconds=0)
        )
        count = 0
        while not listing.done():
            count += 1
            await asyncio.sleep(0)
        assert len(listing.result().shown) == 4
        return count

    asyncio.run(turns())
    at_once = asyncio.run(turns())
    monkeypatch.setattr(read_proposal_module, "LISTED_AT_ONCE", 2)
    assert asyncio.run(turns()) == at_once + 2


def test_closed_proposals_of_a_session_are_listed_on_demand(board: Board) -> None:
    shown = board.propose(boarded("s"))
    board.decide(ANN, shown)
    board.decide(BEN, shown)
    again = board.propose(boarded("s", predecessor=shown["hash"]))
    assert board.listed(board.proposer, session="s") == [again["proposal"]]
    assert board.listed(board.proposer, session="s", closed=True) == [shown["proposal"], again["proposal"]]
    with pytest.raises(InputError, match="add session=NAME"):
        board.listed(board.proposer, closed=True)


def test_of_a_session_only_so_many_wait_and_the_last_hundred_are_kept(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal_records, "MAX_PENDING_OF_SESSION", 3)
    monkeypatch.setattr(proposal_records, "MAX_OF_SESSION", 5)
    waiting = board.propose(boarded("s"))
    closed = []
    for _ in range(6):
        closed.append(board.propose(boarded("s"))["proposal"])
        shown = board.read(closed[-1])
        board.decide(ANN, shown, "withdraw")
        board.decide(BEN, shown, "withdraw")
    kept = board.listed(board.proposer, session="s", closed=True)
    assert sorted(kept) == sorted([waiting["proposal"], *closed[-4:]])
    with pytest.raises(NotFoundError, match="old ones are dropped"):
        board.read(closed[0])
    for _ in range(2):
        board.propose(boarded("s"))
    with pytest.raises(ConflictError, match="3 open proposals"):
        board.propose(boarded("s"))
    board.pass_time(timedelta(days=7))
    assert board.propose(boarded("s")), "those that are over make room"


def test_proposals_made_at_once_all_find_their_place(board: Board) -> None:
    async def at_once() -> list[str]:
        made = await asyncio.gather(
            *(
                propose(board.cas, boarded(f"s{at % 3}").encode(), note="", break_glass=False, caller=board.proposer)
                for at in range(20)
            )
        )
        return [one.proposal.id for one in made]

    made = asyncio.run(at_once())
    assert len(made) == 20
    assert set(board.listed(board.proposer)) == set(made)


@pytest.mark.parametrize(("record", "what"), [("proposal/ID", "a proposal"), ("proposals/0", "the index of proposals")])
def test_records_of_a_newer_form_are_not_read(board: Board, record: str, what: str) -> None:
    shown = board.propose(boarded("s"))
    store, name = board.cas.store, record.replace("ID", shown["proposal"])
    before = store.get(name)
    assert before is not None
    value = b'{"form":3}' if record == "proposal/ID" else b"3"
    store.commit([Write(name=name, value=value, expected_version=before.version)], b"x").result()
    with pytest.raises(StoreError, match=f"{what} has form 3, expected 2"):
        board.decide(ANN, shown)


def test_the_sweep_goes_on_after_trouble(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a mistake of ours: or no time lock would ever end again."""
    shown = board.propose(boarded("s", with_board("decide_within: 1h")))
    board.pass_time(timedelta(hours=1))
    monkeypatch.setattr("ostiary.broker.sweep.SWEEP_SECONDS", 0.01)
    pending = board.cas.proposals.pending
    failures: list[Exception] = [IndexError("a mistake"), StoreError("the disk is busy")]

    def failing_once() -> object:
        if failures:
            raise failures.pop()
        return pending()

    monkeypatch.setattr(board.cas.proposals, "pending", failing_once)

    async def story() -> None:
        sweeping = asyncio.create_task(sweep_for_ever(board.cas))
        while pending():
            await asyncio.sleep(0.01)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))
    assert board.read(shown["proposal"])["state"] == "expired"


def test_a_sweep_reads_no_session_that_nobody_changed(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would read all of those that have proposals, every few seconds."""
    read: list[str] = []
    get = board.cas.store.get

    def reading(name: str) -> Record | None:
        read.append(name)
        return get(name)

    monkeypatch.setattr(board.cas.store, "get", reading)
    first = {name: board.adopt(boarded(name), ANN, BEN) for name in ("s", "t")}
    shown = [board.propose(boarded(name, predecessor=first[name])) for name in ("s", "t")]
    board.sweep()
    read.clear()
    board.propose(boarded("s", predecessor=first["s"]))
    board.sweep()
    assert "session/s" not in read
    board.adopt(boarded("s", read="CREATOR", predecessor=first["s"]), ANN, BEN)
    board.sweep()
    assert read.count("session/s") <= 2
    assert [entry.proposal for entry in board.cas.proposals.pending()] == [shown[1]["proposal"]]
    read.clear()
    board.sweep()
    assert read == []


def test_a_mistake_with_one_proposal_keeps_no_other_from_its_end(
    board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = (board.propose(boarded(name, with_board("decide_within: 1h"))) for name in ("s", "t"))

    async def settling(cas: Cas, proposal: str) -> Proposal:
        if proposal == broken["proposal"]:
            raise IndexError("a mistake")
        return await settle(cas, proposal)

    monkeypatch.setattr(sweep_module, "settle", settling)
    board.pass_time(timedelta(hours=1))
    board.sweep()
    assert [entry.proposal for entry in board.cas.proposals.pending()] == [broken["proposal"]]
    assert f"proposal {broken['proposal']}" in caplog.text
    assert board.read(whole["proposal"])["state"] == "expired"


def test_a_proposal_that_cannot_be_read_keeps_no_other_from_its_end(board: Board) -> None:
    broken, whole = (board.propose(boarded(name, with_board("decide_within: 1h"))) for name in ("s", "t"))
    name = f"proposed/{broken['proposal']}"
    version = board.cas.store.version(name) or 0
    board.cas.store.commit([Write(name=name, value=None, expected_version=version)], b"x").result()
    board.cas.proposals._parsed.clear()
    board.pass_time(timedelta(hours=1))
    board.sweep()
    assert [entry.proposal for entry in board.cas.proposals.pending()] == [broken["proposal"]]
    assert board.read(whole["proposal"])["state"] == "expired"


def test_whoever_may_read_without_a_certificate_may_propose_without(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    board.spy(monkeypatch)
    text = boarded("s", predecessor=first).encode()
    made = asyncio.run(propose(board.cas, text, note="", break_glass=False, caller=None))
    shown = board.read(made.proposal.id)
    assert shown["proposer"] is None
    assert "by" not in board.logged()[0][1]
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "applied"
    assert board.cas.sessions.require("s").creator is None


def test_beyond_the_bound_of_watchers_nobody_waits_for_long(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_records, "MAX_WATCHERS", 0)
    monkeypatch.setattr(proposal_records, "LOOK_SECONDS", 0.01)

    async def story() -> None:
        first = await list_proposals(board.cas, Query(), caller=None, after=None, wait_seconds=0)
        again = list_proposals(board.cas, Query(), caller=None, after=first.cursor, wait_seconds=50)
        assert await asyncio.wait_for(again, 30) == first

    asyncio.run(story())


def test_sessions_with_many_readers_take_their_share_of_what_is_kept(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ", ".join(encode_key_hash(bytes([number]) * 32) for number in range(30))
    for name, read in (("few", "ANY"), ("many", f"[{keys}]")):
        board.desk.upload(boarded(name, None, access_policy=f"{{read: {read}, update: NONE}}"), board.proposer)
    monkeypatch.setattr(board.cas.readers, "_capacity", 30)
    for name, is_kept in (("few", True), ("many", False)):
        readers = asyncio.run(readers_of(board.cas, name))
        assert (board.cas.readers.recall(name, board.cas.now()) is not None) == is_kept
        assert readers.admit(None) == (name == "few")


def test_readers_leave_room_for_members_and_for_who_made_the_version(board: Board, mallory: Caller) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    text = boarded("s", predecessor=first)
    for _ in range(proposal_records.MAX_PENDING_OF_SESSION - proposal_records.RESERVED):
        board.propose(text, by=mallory)
    with pytest.raises(ConflictError, match="12 open proposals"):
        board.propose(text, by=mallory)
    member = Caller(certificate="", key_hash=bytes.fromhex(member_hash(CEM)), key_bits_hash=bytes(32))
    assert board.decide(CEM, board.propose(text, by=member)) == "open"
    shown = board.propose(text)
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "applied"


def test_a_tenant_cannot_take_the_room_of_the_others(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_records, "MAX_PENDING_OF_NAMESPACE", 2)
    for tenant in ("acme", "acme2"):
        board.desk.upload(boarded(tenant, None, access_policy="{read: ANY, update: NONE, create_sessions: ANY}"), None)
    first = board.propose(boarded("acme/a"))
    board.propose(boarded("acme/b"))
    with pytest.raises(ConflictError, match="sessions in acme have 2 open proposals, as many as may wait"):
        board.propose(boarded("acme/c"))
    assert board.propose(boarded("acme2/c"))["state"] == "open"
    assert board.propose(boarded("c"))["state"] == "open"
    board.decide(ANN, first)
    board.decide(BEN, first)
    assert board.propose(boarded("acme/c"))["state"] == "open"


def test_a_board_that_waits_for_a_veto_of_nobody_is_handed_over_to_only_with_a_way_out(board: Board) -> None:
    """Nothing is approved while such a key is unknown: the session could never be mended."""
    first = board.adopt(boarded("s"), ANN, BEN)
    lost = "[{name: dan, import: {session: nowhere, secret: dan}}]"
    members = f"{{name: ann, signer: {ANN.quoted}}}, {{name: ben, signer: {BEN.quoted}}}, "
    members += '{name: dan, power: reject, signer: "$$SCONE::dan$$"}'

    def text(more: str, secrets: str = lost) -> str:
        named = f"{{tolerated_faults: 0{more}, members: [{members}]}}"
        return boarded("s", None, access_policy="{read: ANY}", secrets=secrets, policy_board=named, predecessor=first)

    for more in ("", ", break_glass: 3"):
        with pytest.raises(RefusedError, match="a member with the power to reject is not known: dan"):
            board.propose(text(more))
    made = "[{name: k, kind: private-key, key_type: Ed25519, migrate: true}, "
    made += "{name: dan, kind: public-key, private_key: k}]"
    assert board.propose(text("", made))["state"] == "open"
    assert board.propose(text(", break_glass: 2"))["state"] == "open"


def test_an_application_does_not_wait_for_what_others_do_on_its_page(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values may take long to be made; whoever has a proposal on the same page could delay it for ever."""
    shown, other = board.propose(boarded("s")), board.propose(boarded("t"))
    board.decide(ANN, shown)
    stored: list[str] = []

    async def slowly(*arguments: Any, **options: Any) -> Head:
        assert await board.cast(other["proposal"], decision(ANN, other)) == "open"
        stored.append("s")
        return await store_version(*arguments, **options)

    monkeypatch.setattr(decide_module, "store_version", slowly)
    assert board.decide(BEN, shown) == "applied"
    assert stored == ["s"], "it did not begin anew"
    assert [entry.proposal for entry in board.cas.proposals.pending()] == [other["proposal"]]


def test_what_was_applied_leaves_the_index_though_its_service_ended_before(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = board.propose(boarded("s"))
    board.decide(ANN, shown)

    async def never(*_: object) -> None:
        """The service was killed here."""

    with monkeypatch.context() as killed:
        killed.setattr(decide_module, "_leave_index", never)
        assert board.decide(BEN, shown) == "applied"
    assert board.listed(board.proposer) == []
    assert [entry.proposal for entry in board.cas.proposals.pending()] == [shown["proposal"]]
    assert board.propose(boarded("s", predecessor=shown["hash"]))["state"] == "open"
    board.sweep()
    assert shown["proposal"] not in [entry.proposal for entry in board.cas.proposals.pending()]
    assert board.read(shown["proposal"])["state"] == "applied"


def test_trouble_with_the_index_does_not_undo_what_was_applied(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = board.propose(boarded("s"))
    board.decide(ANN, shown)

    def failing(_: object) -> object:
        raise StoreError("the disk is busy")

    with monkeypatch.context() as broken:
        broken.setattr(board.cas.proposals, "departure", failing)
        assert board.decide(BEN, shown) == "applied"
    board.sweep()
    assert board.cas.proposals.pending() == ()


def test_the_index_grows_by_pages_and_its_room_is_used_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_records, "PAGE", 2)
    monkeypatch.setattr(proposal_records, "MAX_PENDING", 4)
    shown = [board.propose(boarded(f"s{number}")) for number in range(4)]
    assert sorted(board.listed(board.proposer)) == sorted(one["proposal"] for one in shown)
    with pytest.raises(ConflictError, match="all sessions together have 4 open proposals"):
        board.propose(boarded("t"))
    board.decide(ANN, shown[1])
    board.decide(BEN, shown[1])
    again = board.propose(boarded("t"))
    assert set(board.listed(board.proposer)) == {
        shown[0]["proposal"],
        *(one["proposal"] for one in shown[2:]),
        again["proposal"],
    }


def test_whoever_waits_with_a_cursor_is_answered_when_the_list_changes(board: Board) -> None:
    shown = board.propose(boarded("s"))

    async def watch(after: str | None, seconds: float) -> tuple[int, str]:
        found = await list_proposals(board.cas, Query(), caller=board.proposer, after=after, wait_seconds=seconds)
        return len(found.shown), found.cursor

    async def story() -> None:
        number, cursor = await watch(None, 30)
        assert number == 1, "without a cursor nobody waits"
        assert await watch(cursor, 0.05) == (1, cursor), "nothing happened"
        waiting = asyncio.create_task(watch(cursor, 30))
        await asyncio.sleep(0)
        await board.cast(shown["proposal"], decision(ANN, shown))
        number, newer = await waiting
        assert number == 1
        assert newer != cursor
        assert await watch(cursor, 30) == (1, newer), "what happened in between is not missed"

    asyncio.run(asyncio.wait_for(story(), 60))
