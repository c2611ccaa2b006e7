"""Direct uploads of sessions with a policy board: only the board's own signatures pass, and all else fails closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, THREE, Board, boarded, p256_person
from tests.simulators.signers import Person, signed

from ostiary.board import Caller
from ostiary.broker.signed_upload import upload_signed_session
from ostiary.errors import NotAuthorizedError, RefusedError

if TYPE_CHECKING:
    from tests.unit.broker.conftest import Desk

PROPOSE = "propose the version: `ostiary board propose`, or POST /v1/proposals"


def put(desk: Desk, text: str, *people: Person) -> str:
    return asyncio.run(upload_signed_session(desk.cas, signed(text, *people))).session_hash.hex()


def test_a_first_version_is_approved_by_the_board_that_it_names(desk: Desk, alice: Caller) -> None:
    with pytest.raises(NotAuthorizedError, match="must itself approve the first version") as refused:
        desk.upload(boarded("s"), alice)
    assert refused.value.causes[-1] == PROPOSE
    with pytest.raises(NotAuthorizedError, match="2 of 3 members together"):
        put(desk, boarded("s"), ANN)
    with pytest.raises(NotAuthorizedError, match="must itself approve"):
        put(desk, boarded("s"), ANN, DAN)
    put(desk, boarded("s"), ANN, BEN)


def test_no_creator_and_no_lone_member_updates_a_session_with_a_board(desk: Desk, alice: Caller) -> None:
    first = put(desk, boarded("s"), ANN, BEN)
    update = boarded("s", predecessor=first)
    for caller in (alice, None):
        with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
            desk.upload(update, caller)
    with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
        put(desk, update, CEM)
    with pytest.raises(NotAuthorizedError, match="insufficient rights to update session s"):
        put(desk, boarded("s", None, predecessor=first), CEM, DAN)
    put(desk, update, CEM, BEN)


@pytest.mark.parametrize(
    "board",
    [
        Board(members=THREE.members, powers={"cem": "reject"}),
        Board(members=THREE.members, more="time_lock: 1h"),
        Board(members={"ann": p256_person(), "ben": p256_person(), "cem": CEM}),
    ],
    ids=["veto", "time lock", "keys that sign no sessions"],
)
def test_a_board_that_signatures_cannot_speak_for_is_asked_by_proposals_only(desk: Desk, board: Board) -> None:
    with pytest.raises(NotAuthorizedError, match="an upload carries no decision of this board"):
        put(desk, boarded("s", board), ANN, BEN, CEM)


def test_a_session_comes_under_a_board_only_if_that_board_agrees(desk: Desk, alice: Caller) -> None:
    """Nor can whoever may update it put others in charge without their word."""
    first = desk.upload(boarded("s", None, access_policy="{read: ANY, update: [CREATOR]}"), alice)
    with pytest.raises(NotAuthorizedError, match="must itself approve"):
        desk.upload(boarded("s", predecessor=first), alice)
    with pytest.raises(RefusedError, match="insufficient rights to update session s"):
        put(desk, boarded("s", predecessor=first), ANN, BEN)


def test_a_namespace_whose_board_decides_creation_takes_no_session_without_it(desk: Desk, alice: Caller) -> None:
    put(desk, boarded("ns", Board(members=THREE.members, more="on: [update, create_sessions]")), ANN, BEN)
    with pytest.raises(NotAuthorizedError, match="create sessions in namespace ns"):
        desk.upload(boarded("ns/s", None), alice)
    with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
        put(desk, boarded("ns/s", None), ANN)
    put(desk, boarded("ns/s", None), ANN, CEM)


def test_creation_follows_update_where_nothing_is_said(desk: Desk, alice: Caller) -> None:
    put(desk, boarded("ns"), ANN, BEN)
    with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
        desk.upload(boarded("ns/s", None), alice)
    put(desk, boarded("ns/s", None), ANN, BEN)


def test_no_signatures_hand_over_to_a_board_that_nobody_could_ever_ask(desk: Desk) -> None:
    """As by a slip in an import: nothing could mend the session then."""
    first = put(desk, boarded("s"), ANN, BEN)
    lost = "[{name: dan, import: {session: nowhere, secret: dan}}]"
    alone = "{tolerated_faults: 0, members: [{name: dan, signer: $$SCONE::dan$$}]}"
    update = boarded("s", None, access_policy="{read: ANY}", secrets=lost, policy_board=alone, predecessor=first)
    with pytest.raises(RefusedError, match="of the proposed version could decide nothing"):
        put(desk, update, ANN, BEN)
    made = "[{name: k, kind: private-key, key_type: Ed25519}, {name: dan, kind: public-key, private_key: k}]"
    put(desk, update.replace(lost, made), ANN, BEN)


def test_the_board_removes_itself_by_its_own_word_only(desk: Desk, alice: Caller) -> None:
    first = put(desk, boarded("s"), ANN, BEN)
    free = boarded("s", None, predecessor=first, access_policy="{read: ANY, update: ANY}")
    with pytest.raises(NotAuthorizedError, match="its policy board decides that"):
        desk.upload(free, alice)
    second = put(desk, free, ANN, BEN)
    desk.upload(boarded("s", None, predecessor=second), alice)
