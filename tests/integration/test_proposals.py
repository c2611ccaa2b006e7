"""Proposals over real mTLS: what a board decides, and what nobody else does."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, boarded, decision, proposal_hash
from tests.simulators.service import Answer, Client, RunningService
from tests.simulators.signers import Person

_numbers = count()


@pytest.fixture
def name() -> str:
    """A session name that no other test uses."""
    return f"boarded-{next(_numbers)}"


def call(service: RunningService, client: Client, method: str, path: str, body: object = None) -> Answer:
    return client.request(service.client_port, method, path, None if body is None else json.dumps(body).encode())


def proposed(service: RunningService, client: Client, text: str, **more: object) -> dict[str, Any]:
    """What the service shows of a proposal that must be accepted."""
    answer = call(service, client, "POST", "/v1/proposals", {"session": text, **more})
    assert answer.status == 201, answer.body
    shown = call(service, client, "GET", f"/v1/proposals/{answer.body['proposal']}")
    assert shown.status == 200, shown.body
    body: dict[str, Any] = shown.body
    return body


def decided(service: RunningService, person: Person, proposal: dict[str, Any], choice: str = "approve") -> Answer:
    """A decision, sent by somebody without certificate."""
    path = f"/v1/proposals/{proposal['proposal']}/decisions"
    return call(service, Client(), "POST", path, decision(person, proposal, choice))


def test_a_version_is_proposed_decided_and_applied(service: RunningService, alice: Client, name: str) -> None:
    first = proposed(service, alice, boarded(name), note="the first")
    assert first["proposal"] == proposal_hash(first)
    assert (first["state"], first["approvals"], first["needed"]) == ("open", 0, 2)
    assert [member["name"] for member in first["members"]] == ["ann", "ben", "cem"]
    assert call(service, alice, "GET", f"/session/{name}").status == 404

    assert decided(service, ANN, first).body == {"state": "open", "approvals": 1, "needed": 2}
    assert decided(service, BEN, first).body == {"state": "applied", "approvals": 2, "needed": 2}
    assert call(service, alice, "GET", f"/session/{name}").body["hash"] == first["hash"]

    update = proposed(
        service, alice, boarded(name, predecessor=first["hash"], secrets="[{name: k, kind: private-key}]")
    )
    assert update["before_text"] == first["session_text"]
    assert update["differences"]
    assert decided(service, CEM, update, "reject").body["state"] == "open"
    assert decided(service, DAN, update).status == 403
    assert decided(service, ANN, update).body["approvals"] == 1
    assert decided(service, BEN, update).body["state"] == "applied"
    shown = call(service, alice, "GET", f"/session/{name}").body
    assert shown["hash"] == update["hash"]
    closed = decided(service, CEM, update)
    assert closed.status == 409
    assert "the proposal is applied" in closed.body["msg"][0]
