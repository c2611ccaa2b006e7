"""Attacks on proposals: whatever is sent, no version becomes current that its board did not approve."""

from __future__ import annotations

import asyncio
import itertools
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, THREE, boarded, decision, p256_person, proposal_hash
from tests.simulators.board import Board as PolicyBoard
from tests.simulators.signers import signed
from tests.unit.broker.conftest import NOW, Desk
from tests.unit.broker.proposing import Board, Shown

from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.broker.decide import settle
from ostiary.broker.open import make_cas
from ostiary.broker.read import read_session
from ostiary.broker.signed_upload import upload_signed_session
from ostiary.errors import (
    ConflictError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OstiaryError,
    SessionFormatError,
    StoreError,
)
from ostiary.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

KEY = "[{name: k, kind: private-key}]"


@pytest.fixture
def board(desk: Desk, alice: Caller) -> Board:
    return Board(desk=desk, proposer=alice)


@pytest.fixture
def other(tmp_path: Path, alice: Caller) -> Iterator[Board]:
    """Another CAS."""
    with open_store(tmp_path / "other", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        yield Board(desk=Desk(cas=make_cas(store, roots=(), now=lambda: NOW, random=os.urandom)), proposer=alice)


@pytest.fixture
def twin(desk: Desk, tmp_path: Path, alice: Caller) -> Iterator[Board]:
    """Another process over the same database, as far as the database can tell."""
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        cas = make_cas(store, roots=(), now=desk.cas.now, random=os.urandom)
        yield Board(desk=Desk(cas=cas, ahead=desk.ahead), proposer=alice)


# --- decisions of others, or for others ------------------------------------------------------------------------------


Forge = Callable[[Shown, Shown], tuple[dict[str, str], type[OstiaryError], str]]
"""From the attacked proposal and another one, both with approvals under way: what is sent, and how it is refused."""


def _of_the_other(_: Shown, other: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    return decision(BEN, other), InputError, "the signature does not hold"


def _with(**changed: Any) -> Forge:
    """Signed over facts that somebody was shown in place of the real ones."""
    return lambda shown, _: (decision(BEN, {**shown, **changed}), InputError, "the signature does not hold")


def _another_choice(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    body = decision(BEN, shown, "reject")
    return {**body, "decision": "approve"}, InputError, "the signature does not hold"


def _another_reason(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    return {**decision(BEN, shown, reason="no"), "reason": "yes"}, InputError, "the signature does not hold"


def _in_the_name_of_another(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    return {**decision(DAN, shown), "signer": BEN.pem}, InputError, "the signature does not hold"


def _of_a_stranger(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    return decision(DAN, shown), NotAuthorizedError, "of no member who decides"


def _of_a_strange_p256_key(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    return decision(p256_person(), shown), NotAuthorizedError, "of no member who decides"


def _signature_of_the_session(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    """Whoever signed the session once did not approve the proposal."""
    signature = BEN.sign(bytes.fromhex(shown["hash"]))
    body = {**decision(BEN, shown), "signature": b64encode(signature).decode()}
    return body, InputError, "the signature does not hold"


def _malleated(shown: Shown, _: Shown) -> tuple[dict[str, str], type[OstiaryError], str]:
    """The one of CEM again, a bit changed, must not be that of BEN."""
    signature = bytearray(b64decode(decision(BEN, shown)["signature"]))
    signature[-1] ^= 1
    return (
        {**decision(BEN, shown), "signature": b64encode(bytes(signature)).decode()},
        InputError,
        "the signature does not hold",
    )


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(_of_the_other, id="cross-session"),
        pytest.param(_with(cas="ab" * 32), id="cross-CAS"),
        pytest.param(_with(session="shop"), id="another session's name"),
        pytest.param(_with(hash="ab" * 32), id="swapped version"),
        pytest.param(_with(predecessor="ab" * 32), id="another predecessor"),
        pytest.param(_with(break_glass=True), id="break-glass for ordinary"),
        pytest.param(_with(nonce="ab" * 16), id="another proposal of the same version"),
        pytest.param(_with(note="harmless"), id="swapped note"),
        pytest.param(_with(created="2026-11-23T12:00:01Z"), id="another time"),
        pytest.param(_another_choice, id="rejection turned into approval"),
        pytest.param(_another_reason, id="swapped reason"),
        pytest.param(_in_the_name_of_another, id="in the name of a member"),
        pytest.param(_of_a_stranger, id="stranger"),
        pytest.param(_of_a_strange_p256_key, id="strange security key"),
        pytest.param(_signature_of_the_session, id="signature of the session"),
        pytest.param(_malleated, id="changed bit"),
    ],
)
def test_a_decision_that_was_not_made_about_this_very_proposal_does_not_count(board: Board, forge: Forge) -> None:
    shown = board.propose(boarded("s", secrets=KEY))
    other = board.propose(boarded("t", secrets=KEY))
    board.decide(ANN, shown)
    board.decide(ANN, other)
    body, error, message = forge(shown, other)
    with pytest.raises(error, match=message):
        board.send(shown["proposal"], body)
    assert board.current("s") is None
    assert board.read(shown["proposal"])["approvals"] == 1


def test_a_decision_made_for_another_cas_does_not_count(board: Board, other: Board) -> None:
    """Not even about the same text, proposed by the same person."""
    here, there = (one.propose(boarded("s")) for one in (board, other))
    assert here["hash"] == there["hash"]
    assert here["cas"] != there["cas"]
    board.decide(ANN, here)
    with pytest.raises(InputError, match="the signature does not hold"):
        board.send(here["proposal"], decision(BEN, there))
    with pytest.raises(NotFoundError, match="Proposal not found"):
        board.send(there["proposal"], decision(BEN, there))
    assert board.current("s") is None


def test_a_decision_for_an_earlier_version_does_not_count_for_the_next(board: Board) -> None:
    first = board.propose(boarded("s"))
    old = decision(BEN, first)
    board.decide(ANN, first)
    board.send(first["proposal"], old)
    back = board.propose(boarded("s", predecessor=first["hash"]))
    board.decide(ANN, back)
    with pytest.raises(InputError, match="the signature does not hold"):
        board.send(back["proposal"], old)
    assert board.current("s") == first["hash"]


def test_the_same_decision_again_counts_once(board: Board) -> None:
    shown = board.propose(boarded("s"))
    body = decision(ANN, shown)
    for _ in range(3):
        assert board.send(shown["proposal"], body) == "open"
    board.decide(ANN, shown, reason="again, in other words")
    assert board.read(shown["proposal"])["approvals"] == 1
    assert board.current("s") is None


@pytest.mark.parametrize("later", ["withdraw", "reject"])
def test_whoever_kept_an_approval_cannot_bring_it_back(board: Board, later: str) -> None:
    shown = board.propose(boarded("s"))
    kept = decision(ANN, shown)
    board.send(shown["proposal"], kept)
    board.decide(ANN, shown, later)
    with pytest.raises(ConflictError, match="cannot go back to 'approve'"):
        board.send(shown["proposal"], kept)
    assert board.decide(BEN, shown) == "open"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_in_whatever_order_decisions_come_a_rejection_holds(board: Board, order: tuple[int, ...]) -> None:
    """All that three members ever signed, reordered by the network: the veto's holder approved first, then rejected."""
    shown = board.propose(boarded("s", PolicyBoard(members=THREE.members, faults=2, powers={"cem": "reject"})))
    sent = [decision(ANN, shown), decision(BEN, shown), decision(CEM, shown), decision(CEM, shown, "reject")]
    states = []
    for at in order:
        try:
            states.append(board.send(shown["proposal"], sent[at]))
        except ConflictError:
            states.append("refused")
    approved_first = order[-1] == 3
    assert (board.current("s") is None) != approved_first, "only if the rejection came after the deciding approval"
    assert ("applied" in states) == approved_first


# --- what is swapped or moved meanwhile ------------------------------------------------------------------------------


def test_a_proposal_cannot_be_swapped_after_it_was_reviewed(board: Board) -> None:
    """What members sign is the hash of everything that they saw; another text is another proposal."""
    harmless = board.propose(boarded("s"))
    bad = board.propose(boarded("s", secrets="[{name: k, kind: ascii, value: x, export_public: true}]"))
    assert proposal_hash(bad) != proposal_hash(harmless)
    for person in (ANN, BEN):
        with pytest.raises(InputError, match="the signature does not hold"):
            board.send(bad["proposal"], decision(person, harmless))
    assert board.current("s") is None


def test_a_text_swapped_in_the_store_is_not_applied(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store authenticates its records; were it broken, the hash of the version would still be compared."""
    shown = board.propose(boarded("s"))
    get = board.cas.store.get

    def swapped(name: str) -> Any:
        record = get(name)
        if record is not None and name.startswith("proposed/"):
            return replace(record, value=boarded("s", None, access_policy="{read: ANY, update: ANY}").encode())
        return record

    board.cas.proposals._parsed.clear()
    monkeypatch.setattr(board.cas.store, "get", swapped)
    with pytest.raises(StoreError, match="not of the version that was recorded"):
        board.decide(ANN, shown)


def test_a_member_removed_while_the_board_votes_does_not_count(board: Board) -> None:
    first = board.adopt(boarded("ns", PolicyBoard(members=THREE.members)), ANN, BEN)
    shown = board.propose(boarded("ns/s", None))
    board.decide(ANN, shown)
    board.adopt(boarded("ns", PolicyBoard(members={"ben": BEN, "cem": CEM}), predecessor=first), BEN, CEM)
    assert board.decide(BEN, shown) == "open", "Ann's approval is not counted any more"
    with pytest.raises(NotAuthorizedError, match="of no member who decides"):
        board.decide(ANN, shown, "reject")
    seats = {member["name"]: member["decision"] for member in board.read(shown["proposal"])["members"]}
    assert seats.keys() == {"ben", "cem"}
    assert board.decide(CEM, shown) == "applied"


def test_whoever_lost_the_right_to_create_before_the_application_does_not_create(board: Board, eve: Caller) -> None:
    policy = "{read: ANY, update: [CREATOR], create_sessions: %s}"
    first = board.desk.upload(boarded("ns", None, access_policy=policy % "[ANY]"), board.proposer)
    shown = board.propose(boarded("ns/s"), by=eve)
    board.decide(ANN, shown)
    second = board.desk.upload(
        boarded("ns", None, access_policy=policy % "[CREATOR]", predecessor=first), board.proposer
    )
    with pytest.raises(OstiaryError, match="is approved and cannot be applied") as refused:
        board.decide(BEN, shown)
    assert "insufficient rights to create sessions in namespace ns" in str(refused.value)
    assert board.current("ns/s") is None
    assert board.read(shown["proposal"], eve)["approvals"] == 1, "what could not be applied was not counted"
    board.desk.upload(boarded("ns", None, access_policy=policy % "[ANY]", predecessor=second), board.proposer)
    assert board.decide(BEN, shown) == "applied"


def test_of_two_first_versions_one_is_applied_and_the_other_superseded(board: Board) -> None:
    mine, theirs = board.propose(boarded("s")), board.propose(boarded("s", PolicyBoard(members={"dan": DAN}, faults=0)))
    board.decide(ANN, mine)
    assert board.decide(DAN, theirs) == "applied"
    with pytest.raises(ConflictError, match="the proposal is superseded"):
        board.decide(BEN, mine)
    assert board.current("s") == theirs["hash"]


@pytest.mark.parametrize("name", ["sess\u0456on", "s\u200bs", "\uff53", "s/../t"])
def test_a_session_of_a_name_that_looks_like_another_is_no_session(board: Board, name: str) -> None:
    with pytest.raises(SessionFormatError, match="name"):
        board.propose(boarded(name))


@pytest.mark.parametrize("name", ["\u0430nn", "ANN", "a\u0301nn"])
def test_a_member_of_a_name_that_looks_like_another_is_none(board: Board, name: str) -> None:
    with pytest.raises(SessionFormatError):
        board.propose(boarded("s", PolicyBoard(members={"ann": ANN, name: BEN})))


def test_one_key_under_two_names_is_refused_and_behind_two_variables_counts_once(board: Board) -> None:
    with pytest.raises(SessionFormatError, match="a key counts once"):
        board.propose(boarded("s", PolicyBoard(members={"ann": ANN, "ben": ANN})))
    board.desk.upload(
        'version: "0.3.12"\nname: keys\naccess_policy: {read: ANY}\nsecrets:\n'
        + "".join(
            f"- {{name: {name}, kind: public-key, value: {ANN.quoted}, export: {{session: s}}}}\n"
            for name in ("x", "y")
        ),
        board.proposer,
    )
    members = ", ".join(f'{{name: m{name}, signer: "$$SCONE::{name}$$"}}' for name in ("x", "y"))
    text = boarded(
        "s",
        None,
        access_policy="{read: ANY}",
        secrets="[{name: x, import: {session: keys, secret: x}}, {name: y, import: {session: keys, secret: y}}]",
        policy_board=f"{{tolerated_faults: 1, members: [{members}, {{name: ben, signer: {BEN.quoted}}}]}}",
    )
    shown = board.propose(text)
    assert board.decide(ANN, shown) == "open"
    assert board.decide(BEN, shown) == "applied"


def test_whoever_makes_a_key_unknown_silences_no_veto(board: Board) -> None:
    """The session that exports the key takes the export back, as an outage of a key vault does: nothing is approved
    without the veto's word, but by breaking the glass; a veto that was cast holds; once it is heard, all goes on."""
    keys = 'version: "0.3.12"\nname: keys\naccess_policy: {{read: ANY, update: [CREATOR]}}\nsecrets:\n'
    keys += f"- {{{{name: dan, kind: public-key, value: {DAN.quoted}{{export}}}}}}\n{{more}}"
    before = board.desk.upload(keys.format(export=", export: {session: s}", more=""), board.proposer)
    people = ", ".join(
        f"{{name: {name}, signer: {who.quoted}}}" for name, who in (("ann", ANN), ("ben", BEN), ("cem", CEM))
    )
    policy = f'tolerated_faults: 1, members: [{people}, {{name: dan, power: reject, signer: "$$SCONE::dan$$"}}]'
    secrets = "[{name: dan, import: {session: keys, secret: dan}}]"
    text = boarded(
        "s", None, access_policy="{read: ANY}", secrets=secrets, policy_board=f"{{{policy}, break_glass: 3}}"
    )
    first = board.adopt(text, ANN, BEN)
    text += f"predecessor: {first}\n"
    vetoed, shown, broken = board.propose(text), board.propose(text), board.propose(text, break_glass=True)
    assert board.decide(DAN, vetoed, "reject") == "rejected"

    before = board.desk.upload(keys.format(export="", more=f"predecessor: {before}\n"), board.proposer)
    with pytest.raises(ConflictError, match="the proposal is rejected"):
        board.decide(ANN, vetoed)
    for person in (ANN, BEN, CEM):
        assert board.decide(person, shown) == "open"
    assert board.current("s") == first
    with pytest.raises(NotAuthorizedError, match="of no member"):
        board.decide(DAN, shown, "reject")

    board.desk.upload(keys.format(export=", export: {session: s}", more=f"predecessor: {before}\n"), board.proposer)
    assert board.decide(DAN, shown, "reject") == "rejected"
    for person in (ANN, BEN, CEM):
        state = board.decide(person, broken)
    assert state == "applied"


# --- a compromised member --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("break_glass", [False, True], ids=["ordinary", "break-glass"])
def test_a_compromised_member_alone_can_do_nothing(board: Board, break_glass: bool) -> None:
    """It proposes, approves everything, uploads, signs, proposes again, and rejects: no version changes."""
    policy = PolicyBoard(members=THREE.members, more="break_glass: 3")
    first = board.adopt(boarded("s", policy), ANN, BEN)
    takeovers = [
        boarded("s", None, access_policy="{read: ANY, update: ANY}", predecessor=first),
        boarded("s", PolicyBoard(members={"cem": CEM}, faults=0), predecessor=first),
        boarded("s", PolicyBoard(members=THREE.members, powers={"cem": "approve"}), predecessor=first),
    ]
    for text in takeovers:
        shown = board.propose(text, break_glass=break_glass)
        assert board.decide(CEM, shown) == "open"
        board.decide(CEM, shown)
        with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
            asyncio.run(upload_signed_session(board.cas, signed(text, CEM)))
        with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
            board.desk.upload(text, board.proposer)
    again = board.propose(boarded("s", policy, predecessor=first, secrets=KEY))
    assert board.decide(CEM, again, "reject") == "open", "nor can it stop the others"
    board.decide(ANN, again)
    assert board.decide(BEN, again) == "applied"
    assert board.current("s") == again["hash"]


def test_members_of_another_session_decide_nothing_here(board: Board) -> None:
    board.adopt(boarded("theirs", PolicyBoard(members={"dan": DAN}, faults=0)), DAN)
    first = board.adopt(boarded("s"), ANN, BEN)
    shown = board.propose(boarded("s", PolicyBoard(members={"dan": DAN}, faults=0), predecessor=first))
    with pytest.raises(NotAuthorizedError, match="of no member who decides"):
        board.decide(DAN, shown)


# --- at once ---------------------------------------------------------------------------------------------------------


def test_of_two_proposals_decided_at_once_one_is_applied(board: Board) -> None:
    first = board.adopt(boarded("s"), ANN, BEN)
    both = [board.propose(boarded("s", predecessor=first, secrets=secrets)) for secrets in (KEY, "[]")]
    for shown in both:
        board.decide(ANN, shown)

    async def at_once() -> list[str | BaseException]:
        votes = (board.cast(shown["proposal"], decision(BEN, shown)) for shown in both)
        return list(await asyncio.gather(*votes, return_exceptions=True))

    states = asyncio.run(at_once())
    assert states.count("applied") == 1
    (loser,) = (state for state in states if state != "applied")
    assert isinstance(loser, ConflictError)
    shown = both[states.index("applied")]
    assert board.current("s") == shown["hash"]
    assert sorted(board.read(one["proposal"])["state"] for one in both) == ["applied", "superseded"]


def test_decisions_of_all_members_at_once_are_all_counted(board: Board) -> None:
    people = {f"m{number}": p256_person() for number in range(12)}
    shown = board.propose(boarded("s", PolicyBoard(members=people, faults=11)))

    async def at_once() -> list[str]:
        return await asyncio.gather(*(board.cast(shown["proposal"], decision(one, shown)) for one in people.values()))

    states = asyncio.run(at_once())
    assert sorted(states) == ["applied"] + ["open"] * 11


def test_two_processes_over_one_database_count_one_way(board: Board, twin: Board) -> None:
    """Each sees what the other counted, and of two versions approved at once one is applied."""
    first = board.adopt(boarded("s"), ANN, BEN)
    here = board.propose(boarded("s", predecessor=first, secrets=KEY))
    there = twin.propose(boarded("s", predecessor=first, secrets="[]"))
    assert here["cas"] == there["cas"]
    assert twin.decide(ANN, here) == board.decide(ANN, there) == "open"

    async def at_once() -> list[str | BaseException]:
        votes = (
            board.cast(here["proposal"], decision(BEN, here)),
            twin.cast(there["proposal"], decision(BEN, there)),
        )
        return list(await asyncio.gather(*votes, return_exceptions=True))

    states = asyncio.run(at_once())
    assert states.count("applied") == 1, states
    winner = (here, there)[states.index("applied")]
    assert board.current("s") == twin.current("s") == winner["hash"]
    assert board.listed(board.proposer) == twin.listed(twin.proposer) == []


def test_a_member_is_not_counted_twice_by_two_processes(board: Board, twin: Board) -> None:
    shown = board.propose(boarded("s"))

    async def at_once() -> list[str]:
        body = decision(ANN, shown)
        return await asyncio.gather(*(one.cast(shown["proposal"], body) for one in (board, twin)))

    assert asyncio.run(at_once()) == ["open", "open"]
    assert twin.read(shown["proposal"])["approvals"] == 1


# --- a crash between -------------------------------------------------------------------------------------------------


def test_if_the_commit_fails_nothing_is_counted_and_nothing_applied(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one commit, so there is no between: what it does not write is not there."""
    shown = board.propose(boarded("s", secrets=KEY))
    board.decide(ANN, shown)
    size, calls = board.cas.store.head.log_size, []

    def failing(writes: Any, leaf: bytes, **_: Any) -> Future[Any]:
        calls.append([write.name for write in writes])
        future: Future[Any] = Future()
        future.set_exception(StoreError("the disk is gone"))
        return future

    with monkeypatch.context() as broken:
        broken.setattr(board.cas.store, "commit", failing)
        with pytest.raises(StoreError, match="the disk is gone"):
            board.decide(BEN, shown)
    (names,) = calls
    assert {f"proposal/{shown['proposal']}", "session/s", f"version/s/{shown['hash']}"} <= set(names)
    assert board.cas.store.head.log_size == size
    assert board.read(shown["proposal"])["approvals"] == 1
    assert board.current("s") is None
    assert board.decide(BEN, shown) == "applied"
    assert asyncio.run(read_session(board.cas, "s", session_hash=None, caller=None)).hash.hex() == shown["hash"]


def test_what_cannot_be_applied_after_its_time_lock_stays_as_it_is(board: Board, eve: Caller) -> None:
    policy = "{read: ANY, update: [CREATOR], create_sessions: %s}"
    first = board.desk.upload(boarded("ns", None, access_policy=policy % "[ANY]"), board.proposer)
    shown = board.propose(boarded("ns/s", PolicyBoard(members=THREE.members, more="time_lock: 1h")), by=eve)
    board.decide(ANN, shown)
    assert board.decide(BEN, shown) == "approved"
    board.desk.upload(boarded("ns", None, access_policy=policy % "[CREATOR]", predecessor=first), board.proposer)
    board.pass_time(timedelta(hours=1))
    board.sweep()
    assert asyncio.run(settle(board.cas, shown["proposal"])).state.value == "approved"
    assert board.current("ns/s") is None
    board.pass_time(timedelta(days=7))
    board.sweep()
    assert board.read(shown["proposal"], eve)["state"] == "expired"
