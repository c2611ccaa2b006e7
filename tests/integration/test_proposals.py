"""Proposals over real mTLS: what a board decides, and what nobody else does."""

from __future__ import annotations

import json
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, THREE, Board, boarded, decision, member_hash, proposal_hash
from tests.simulators.outside import Outside
from tests.simulators.processes import TIMEOUT_SECONDS, serve_process, start_service
from tests.simulators.service import Answer, Client, RunningService
from tests.simulators.signers import Person

_numbers = count()


class Service(Protocol):
    """Something that listens on loopback."""

    @property
    def client_port(self) -> int: ...


@pytest.fixture
def name() -> str:
    """A session name that no other test uses."""
    return f"boarded-{next(_numbers)}"


def call(service: Service, client: Client, method: str, path: str, body: object = None) -> Answer:
    return client.request(service.client_port, method, path, None if body is None else json.dumps(body).encode())


def proposed(service: Service, client: Client, text: str, **more: object) -> dict[str, Any]:
    """What the service shows of a proposal that must be accepted."""
    answer = call(service, client, "POST", "/v1/proposals", {"session": text, **more})
    assert answer.status == 201, answer.body
    shown = call(service, client, "GET", f"/v1/proposals/{answer.body['proposal']}")
    assert shown.status == 200, shown.body
    body: dict[str, Any] = shown.body
    return body


def decided(service: Service, person: Person, proposal: dict[str, Any], choice: str = "approve") -> Answer:
    """A decision, sent by somebody without certificate."""
    path = f"/v1/proposals/{proposal['proposal']}/decisions"
    return call(service, Client(), "POST", path, decision(person, proposal, choice))


def test_a_version_is_proposed_decided_and_applied(service: RunningService, alice: Client, name: str) -> None:
    first = proposed(service, alice, boarded(name), note="the first")
    assert first["proposal"] == proposal_hash(first)
    assert (first["state"], first["approvals"], first["needed"]) == ("open", 0, 2)
    assert [member["name"] for member in first["members"]] == ["ann", "ben", "cem"]
    assert call(service, alice, "GET", f"/session/{name}").status == 404

    assert decided(service, ANN, first).body == {"state": "open", "approvals": 1, "needed": 2, "apply_after": None}
    assert decided(service, BEN, first).body == {"state": "applied", "approvals": 2, "needed": 2, "apply_after": None}
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


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"[]", "the body is not a JSON object with session"),
        (b"{}", "the body is not a JSON object with session"),
        (b'{"session": 1}', "session must be text"),
        (b'{"session": "name: x", "break_glass": 1}', "break_glass must be true or false"),
        (b'{"session": "name: x", "force": true}', "the body is not a JSON object with session"),
        (b'{"session": "\\ud800"}', "half a surrogate pair"),
        (b'{"session": "servces: []"}', "the session has"),
    ],
)
def test_what_is_no_proposal_is_refused(service: RunningService, alice: Client, body: bytes, message: str) -> None:
    answer = alice.request(service.client_port, "POST", "/v1/proposals", body)
    assert answer.status == 400
    assert message in answer.body["msg"][0]


def test_what_is_no_decision_is_refused(service: RunningService, alice: Client, name: str) -> None:
    shown = proposed(service, alice, boarded(name))
    good = decision(ANN, shown)
    path = f"/v1/proposals/{shown['proposal']}/decisions"
    for changed, message in (
        ({"decision": "maybe"}, "expected approve, withdraw, reject"),
        ({"signer": "ssh-ed25519 AAAA"}, "no public key of a member"),
        ({"signature": "!"}, "signature is not base64"),
        ({"signature": ""}, "the signature does not hold"),
        ({"reason": 1}, "reason must be text"),
        ({"force": True}, "the body is not a JSON object with signer, decision, signature"),
    ):
        answer = call(service, alice, "POST", path, {**good, **changed})
        assert answer.status == 400, answer.body
        assert message in " ".join(answer.body["msg"])
    for other in ("ab" * 32, "x", f"{shown['proposal']}0"):
        assert call(service, alice, "POST", f"/v1/proposals/{other}/decisions", good).status == 404


def test_others_get_no_more_than_that_there_is_nothing(
    service: RunningService, alice: Client, eve: Client, name: str
) -> None:
    shown = proposed(service, alice, boarded(name, read="CREATOR"))
    unknown = call(service, eve, "GET", f"/v1/proposals/{'ab' * 32}")
    hidden = call(service, eve, "GET", f"/v1/proposals/{shown['proposal']}")
    assert (hidden.status, hidden.body) == (unknown.status, unknown.body) == (404, unknown.body)
    assert call(service, eve, "GET", f"/v1/proposals?session={name}").body["proposals"] == []
    (listed,) = call(service, alice, "GET", f"/v1/proposals?session={name}").body["proposals"]
    assert listed == {key: shown[key] for key in listed}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("state=closed", 400),
        ("state=all", 400),
        ("wait=61", 400),
        ("wait=nan", 400),
        ("wait=x", 400),
        ("waiting-for=ann", 400),
        ("waiting-for=me", 401),
        ("waiting_for=me", 400),
    ],
)
def test_a_list_of_another_form_is_refused(service: RunningService, query: str, status: int) -> None:
    """A misspelt parameter, too: the list would be of more than was asked for."""
    assert call(service, Client(), "GET", f"/v1/proposals?{query}").status == status


def test_a_member_watches_what_waits_for_its_key(service: RunningService, alice: Client, name: str) -> None:
    """Whoever asks with the cursor of the last answer hears of a new proposal, and of the decision that was its own."""
    path = f"/v1/proposals?session={name}&waiting-for={member_hash(ANN)}"
    empty = call(service, alice, "GET", path).body
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(call, service, alice, "GET", f"{path}&wait=30&after={empty['cursor']}")
        shown = proposed(service, alice, boarded(name))
        heard = watching.result(60).body
        assert [one["proposal"] for one in heard["proposals"]] == [shown["proposal"]]
        watching = pool.submit(call, service, alice, "GET", f"{path}&wait=30&after={heard['cursor']}")
        decided(service, ANN, shown)
        assert watching.result(60).body == empty
    assert call(service, alice, "GET", f"{path}&wait=0.1&after={empty['cursor']}").body == empty


def test_a_direct_upload_of_a_session_with_a_board_names_the_way(
    service: RunningService, alice: Client, name: str
) -> None:
    answer = alice.request(service.client_port, "POST", "/v1/sessions", boarded(name).encode())
    assert answer.status == 403
    assert "`ostiary board propose`" in answer.body["msg"][-1]


# --- processes -------------------------------------------------------------------------------------------------------


def _port(served: dict[str, str]) -> int:
    return int(served["client"].rpartition(":")[2])


@dataclass(frozen=True, kw_only=True)
class _Process:
    """A service in a process of its own."""

    client_port: int


def test_two_processes_over_one_database_apply_one_of_two_versions(tmp_path: Path, alice: Client) -> None:
    data = tmp_path / "data"
    with serve_process(data) as one, serve_process(data) as two:
        services = [_Process(client_port=_port(served)) for served in (one, two)]
        first = proposed(services[0], alice, boarded("s"))
        assert decided(services[1], ANN, first).body["state"] == "open"
        assert decided(services[0], BEN, first).body["state"] == "applied"
        update = boarded("s", predecessor=first["hash"])
        both = [
            proposed(services[at], alice, update + f"secrets: [{{name: k{at}, kind: private-key}}]\n") for at in (0, 1)
        ]
        for shown in both:
            assert decided(services[0], ANN, shown).status == 200
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda at: decided(services[at], BEN, both[at]), (0, 1)))
        assert sorted(answer.status for answer in answers) == [200, 409], [answer.body for answer in answers]
        winner = both[[answer.status for answer in answers].index(200)]
        for service in services:
            assert call(service, alice, "GET", "/session/s").body["hash"] == winner["hash"]
            states = [call(service, alice, "GET", f"/v1/proposals/{shown['proposal']}").body["state"] for shown in both]
            assert sorted(states) == ["applied", "superseded"]


def test_a_service_that_is_killed_has_counted_and_applied_or_neither(tmp_path: Path, alice: Client) -> None:
    """Killed at some moment around the commit of the deciding approval, several times."""
    data, applied = tmp_path / "data", 0
    for number, milliseconds in enumerate((0, 3, 6, 9, 12, 30)):
        process, served = start_service(data)
        service, name = _Process(client_port=_port(served)), f"s{number}"
        shown = proposed(service, alice, boarded(name))
        assert decided(service, ANN, shown).status == 200
        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(decided, service, BEN, shown)
            time.sleep(milliseconds / 1000)
            process.kill()
            process.wait(TIMEOUT_SECONDS)
            answered = answering.exception(TIMEOUT_SECONDS) is None
        assert process.stdout is not None
        process.stdout.close()
        with serve_process(data) as again:
            service = _Process(client_port=_port(again))
            after = call(service, alice, "GET", f"/v1/proposals/{shown['proposal']}").body
            session = call(service, alice, "GET", f"/session/{name}")
            assert (after["state"], after["approvals"], session.status) in (("applied", 2, 200), ("open", 1, 404))
            assert not answered or after["state"] == "applied", "what was answered stands"
            applied += after["state"] == "applied"
            assert decided(service, BEN, shown).body["state"] == "applied", "the same decision again ends it"
    assert applied < 6, "no kill came before the commit"


def test_a_webhook_is_told_by_the_hosts_that_the_owner_lists_only(tmp_path: Path, alice: Client) -> None:
    told = threading.Semaphore(0)

    def answering(_: bytes, stream: ssl.SSLSocket) -> None:
        stream.sendall(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        told.release()

    listed, unlisted = (tmp_path / name for name in ("listed", "unlisted"))
    for directory in (listed, unlisted):
        directory.mkdir()
    hooks, strangers = Outside(listed, answering), Outside(unlisted, answering)
    (tmp_path / "ca.pem").write_text(hooks.certificate + strangers.certificate)
    board = Board(
        members=THREE.members, more=f"notify: ['{hooks.url}/hook?x=1', '{strangers.url}/hook']\ntime_lock: 1h"
    )
    host = hooks.url.removeprefix("https://")
    try:
        with serve_process(
            tmp_path / "data", "--webhook-host", host, "--webhook-ca", str(tmp_path / "ca.pem")
        ) as served:
            service = _Process(client_port=_port(served))
            shown = proposed(service, alice, boarded("s", board))
            for person in (ANN, BEN):
                assert decided(service, person, shown).status == 200
            for _ in range(3):
                assert told.acquire(timeout=TIMEOUT_SECONDS)
    finally:
        hooks.close()
        strangers.close()
    assert strangers.requests == []
    requests = [request.partition(b"\r\n\r\n") for request in hooks.requests]
    assert all(head.startswith(b"POST /hook?x=1 HTTP/1.1\r\n") for head, _, _ in requests)
    messages = sorted((json.loads(body) for _, _, body in requests), key=lambda message: message["event"])
    of = {"proposal": shown["proposal"], "session": "s"}
    assert messages == [
        {**of, "state": "approved", "event": "approved"},
        {**of, "state": "open", "event": "decided"},
        {**of, "state": "open", "event": "proposed"},
    ]


def test_a_service_that_ends_does_not_wait_for_those_who_watch(tmp_path: Path, alice: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        with serve_process(tmp_path / "data") as served:
            service = _Process(client_port=_port(served))
            cursor = call(service, alice, "GET", "/v1/proposals").body["cursor"]
            watching = pool.submit(call, service, alice, "GET", f"/v1/proposals?wait=50&after={cursor}")
            assert call(service, alice, "GET", "/v1/proposals?wait=1&after=" + cursor).status == 200
            assert not watching.done()
        assert watching.result(TIMEOUT_SECONDS).status == 503
