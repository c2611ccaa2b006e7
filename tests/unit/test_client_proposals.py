"""The REST client with proposals: what it asks, what it believes, and what it never signs."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.board import ANN, BEN, CEM, boarded
from tests.simulators.canned import SERVER, Server, answer, certificate, serving
from tests.simulators.proposals import Json, follows, member, showing, summary_of

from ostiary.board import Choice, verify_decision
from ostiary.board.proposal import State
from ostiary.cli.identity import make_identity
from ostiary.client import Client, Counted
from ostiary.errors import (
    ConfigurationError,
    ConflictError,
    InputError,
    NotAuthorizedError,
    OutsideError,
    SwappedError,
    TooLargeError,
)
from ostiary.member_key import KnownKey

ROOT = x509.load_pem_x509_certificate(certificate(SERVER).encode()).public_key()
CAS_ID = hashlib.sha256(ROOT.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
BEFORE = boarded("s", read="CREATOR")
MEMBERS = [member("ann", ANN), member("ben", BEN), member("cem", CEM)]
SHOWN = showing(follows(boarded("s"), BEFORE), BEFORE, members=MEMBERS, cas=CAS_ID)
KEY = KnownKey(name="ann", key=ANN.key)


def client(server: Server, *, anchors: str | None = certificate(SERVER), retries: int = 0) -> Client:
    return Client(server.address, anchors=anchors, identity=None, retries=retries, wait=lambda _: None)


def body(request: bytes) -> Json:
    members = json.loads(request.partition(b"\r\n\r\n")[2])
    assert isinstance(members, dict)
    return members


def test_a_proposal_is_sent_as_json_and_its_id_comes_back(tmp_path: Path) -> None:
    told = {
        "proposal": "ab" * 32, "state": "open", "hash": "cd" * 32, "expires": "2026-11-30T12:00:00Z",
        "warnings": [["outer", "cause"]],
    }  # fmt: skip
    with serving(tmp_path, [answer(201, told)]) as server:
        proposed = client(server).propose("name: ä", note="why", break_glass=True)
    assert (proposed.proposal, proposed.session_hash.hex(), proposed.state) == ("ab" * 32, "cd" * 32, State.OPEN)
    assert (proposed.expires, proposed.warnings) == (datetime(2026, 11, 30, 12, tzinfo=UTC), (("outer", "cause"),))
    assert server.requests[0].startswith(b"POST /v1/proposals HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in server.requests[0]
    assert body(server.requests[0]) == {"session": "name: ä", "note": "why", "break_glass": True}


@pytest.mark.parametrize(("note", "error"), [("caf\udce9", InputError), ("x" * 1001, TooLargeError)])
def test_a_note_that_no_proposal_can_have_is_not_sent(tmp_path: Path, note: str, error: type[Exception]) -> None:
    with serving(tmp_path, []) as server, pytest.raises(error, match="the note "):
        client(server).propose("name: s", note=note)
    assert server.requests == []


@pytest.mark.parametrize("changed", [
    {"proposal": None}, {"proposal": "x"}, {"state": "maybe"}, {"hash": ""}, {"expires": "soon"}, {"expires": 1},
    {"expires": "2026-11-30T12:00:00"},
])  # fmt: skip
def test_an_answer_without_what_a_proposal_has_is_none(tmp_path: Path, changed: Json) -> None:
    told = {"proposal": "ab" * 32, "state": "open", "hash": "cd" * 32, "expires": "2026-11-30T12:00:00Z", **changed}
    with serving(tmp_path, [answer(201, told)]) as server, pytest.raises(OutsideError, match="has no id, state, hash"):
        client(server).propose("name: s")


@pytest.mark.parametrize(("asked", "path"), [
    ({}, "state=open"),
    ({"session": "a/b", "every_state": True}, "session=a%2Fb&state=all"),
    ({"waiting_for": b"\x01" * 32}, f"waiting-for={'01' * 32}&state=open"),
    ({"after": "c1", "wait_seconds": 5}, "state=open&after=c1&wait=5"),
    ({"after": "c1", "wait_seconds": 500}, "state=open&after=c1&wait=60"),
])  # fmt: skip
def test_lists_are_asked_for_as_the_service_wants_it(tmp_path: Path, asked: dict[str, Any], path: str) -> None:
    told = {"proposals": [summary_of(SHOWN)], "cursor": "c2"}
    with serving(tmp_path, [answer(200, told)]) as server:
        listed = client(server).proposals(**asked)
    assert server.requests[0].startswith(f"GET /v1/proposals?{path} HTTP/1.1\r\n".encode())
    assert (listed.proposals[0].proposal, listed.cursor) == (SHOWN["proposal"], "c2")


@pytest.mark.parametrize("told", [{}, {"proposals": [], "cursor": 1}, {"proposals": {}, "cursor": ""},
                                  {"proposals": [1], "cursor": ""}])  # fmt: skip
def test_what_is_no_list_is_refused(tmp_path: Path, told: Json) -> None:
    with serving(tmp_path, [answer(200, told)]) as server, pytest.raises(OutsideError, match=r"has (no )?proposals"):
        client(server).proposals()


def test_a_proposal_is_believed_only_as_far_as_it_holds_together(tmp_path: Path) -> None:
    with serving(tmp_path, [answer(200, SHOWN), answer(200, {**SHOWN, "note": "harmless"})]) as server:
        assert client(server).proposal(SHOWN["proposal"]).facts.note == ""
        with pytest.raises(SwappedError, match="what is shown is not what its id says"):
            client(server).proposal(SHOWN["proposal"])


@pytest.mark.parametrize(("anchors", "known"), [
    (None, "none"),
    (certificate(SERVER) + certificate(make_identity()), "2"),
])  # fmt: skip
def test_without_one_certificate_of_the_cas_no_proposal_is_even_asked_for(
    tmp_path: Path, anchors: str | None, known: str
) -> None:
    with serving(tmp_path, []) as server, pytest.raises(ConfigurationError, match=f"this one is known by {known}"):
        client(server, anchors=anchors).proposal(SHOWN["proposal"])


def test_a_decision_is_signed_over_the_facts_and_carries_its_reason(tmp_path: Path) -> None:
    told = {"state": "open", "approvals": 1, "needed": 2, "apply_after": "2026-11-24T12:00:00Z"}
    with serving(tmp_path, [answer(200, SHOWN), answer(200, told)]) as server:
        proposal = client(server).proposal(SHOWN["proposal"])
        counted = client(server).decide(proposal, Choice.APPROVE, key=KEY, reason="fine, ä")
    ends = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert counted == Counted(state=State.OPEN, approvals=1, needed=2, apply_after=ends)
    assert server.requests[1].startswith(f"POST /v1/proposals/{SHOWN['proposal']}/decisions HTTP/1.1\r\n".encode())
    sent = body(server.requests[1])
    assert (sent["signer"], sent["decision"], sent["reason"]) == (ANN.pem, "approve", "fine, ä")
    signature = base64.b64decode(sent["signature"])
    verify_decision(proposal.facts, signer=ANN.spki, choice=Choice.APPROVE, reason="fine, ä", signature=signature)


@pytest.mark.parametrize(("status", "error"), [(403, NotAuthorizedError), (409, ConflictError)])
def test_what_the_service_refuses_is_told_in_its_words(tmp_path: Path, status: int, error: type[Exception]) -> None:
    with serving(tmp_path, [answer(200, SHOWN), answer(status, {"msg": ["no", "because"]})]) as server:
        proposal = client(server).proposal(SHOWN["proposal"])
        with pytest.raises(error, match="refused to reject the proposal: no: because"):
            client(server).decide(proposal, Choice.REJECT, key=KEY)


def test_an_answer_that_counts_nothing_is_none(tmp_path: Path) -> None:
    with serving(tmp_path, [answer(200, SHOWN), answer(200, {"approvals": 1})]) as server:
        proposal = client(server).proposal(SHOWN["proposal"])
        with pytest.raises(OutsideError, match="its answer to a decision has no state"):
            client(server).decide(proposal, Choice.APPROVE, key=KEY)


def test_a_decision_whose_answer_was_lost_is_not_sent_again_and_says_how_to_look(tmp_path: Path) -> None:
    with serving(tmp_path, [answer(200, SHOWN), b""]) as server:
        proposal = client(server).proposal(SHOWN["proposal"])
        with pytest.raises(OutsideError, match="it may have been counted all the same: `board list --closed`"):
            client(server, retries=3).decide(proposal, Choice.APPROVE, key=KEY)
    assert len(server.requests) == 2
