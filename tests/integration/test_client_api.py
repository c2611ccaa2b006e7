"""The REST API on real mTLS: what existing clients rely on, and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from ruamel.yaml import YAML
from tests.simulators.service import Answer, Client, RunningService

_numbers = count()

SESSION = """
name: NAME
version: "0.3.10"
secrets:
- name: api_ca_key
  kind: private-key
- name: api_ca_cert
  kind: x509-ca
  private_key: api_ca_key
  export_public: true
- name: hidden
  kind: ascii
- name: number
  kind: ascii
  value: "42"
  export_public: true
"""


@pytest.fixture
def name() -> str:
    """A session name that no other test uses."""
    return f"session-{next(_numbers)}"


def text(name: str, *, predecessor: str = "", more: str = "") -> bytes:
    succession = f"predecessor: {predecessor}\n" if predecessor else ""
    return (SESSION.replace("NAME", name) + succession + more).encode()


def upload(service: RunningService, client: Client, body: bytes, path: str = "/session") -> Answer:
    return client.request(service.client_port, "POST", path, body)


def read(service: RunningService, client: Client, path: str) -> Answer:
    return client.request(service.client_port, "GET", path)


def created(service: RunningService, client: Client, body: bytes) -> str:
    """The hash of a session that must be accepted."""
    answer = upload(service, client, body)
    assert answer.status == 201, answer.body
    return str(answer.body["hash"])


@pytest.mark.parametrize("path", ["/session", "/v1/sessions"])
def test_a_new_session_is_created_and_its_hash_answered(
    service: RunningService, alice: Client, name: str, path: str
) -> None:
    answer = upload(service, alice, text(name), path)
    assert answer.status == 201
    assert set(answer.body) == {"hash", "warnings"}
    assert len(answer.body["hash"]) == 64
    assert answer.headers["content-type"] == "application/json"


def test_the_hash_is_the_first_member_with_nothing_between(service: RunningService, alice: Client, name: str) -> None:
    """Scripts cut it out of the text with grep and awk."""
    connection = alice.connect(service.client_port)
    connection.request("POST", "/session", text(name))
    raw = connection.getresponse().read().decode()
    connection.close()
    assert raw.startswith('{"hash":"')
    assert raw.split('"')[3] == json.loads(raw)["hash"]


@pytest.mark.parametrize("path", ["/session/{}", "/v1/sessions/{}", "/v1/sessions//{}", "/session/%2F{}"])
def test_the_creator_reads_the_session_back(service: RunningService, alice: Client, name: str, path: str) -> None:
    session_hash = created(service, alice, text(name))
    answer = read(service, alice, path.format(name))
    assert answer.status == 200
    assert set(answer.body) == {"hash", "session"}
    assert answer.body["hash"] == session_hash
    assert f"name: {name}" in answer.body["session"]
    assert "predecessor: null" in answer.body["session"]
    assert "BEGIN CERTIFICATE" in answer.body["session"]


def test_generated_values_are_not_in_what_the_creator_reads(service: RunningService, alice: Client, name: str) -> None:
    created(service, alice, text(name))
    session = read(service, alice, f"/session/{name}").body["session"]
    assert "42" in session
    assert "PRIVATE KEY" not in session


def test_a_stranger_may_not_read(service: RunningService, alice: Client, eve: Client, name: str) -> None:
    created(service, alice, text(name))
    answer = read(service, eve, f"/session/{name}")
    assert answer.status == 403
    assert answer.body["msg"][0].startswith(f"Failed to read session '{name}'")
    assert answer.body["msg"][1] == f"You have insufficient rights to access session {name}"


def test_without_certificate_the_creator_is_nobody(service: RunningService, alice: Client, name: str) -> None:
    created(service, alice, text(name))
    answer = read(service, Client(), f"/session/{name}")
    assert answer.status == 401
    assert "no client certificate was shown" in answer.body["msg"][2]


def test_an_unknown_session_is_not_found(service: RunningService, alice: Client) -> None:
    answer = read(service, alice, "/session/there-is-none")
    assert answer.status == 404
    assert answer.body["msg"][:2] == [
        "Failed to read session 'there-is-none': Session not found",
        "Session not found",
    ]
    assert answer.body["version"]


def test_read_any_admits_a_client_without_certificate(service: RunningService, alice: Client, name: str) -> None:
    created(service, alice, text(name, more="access_policy:\n  read: [ANY]\n"))
    assert read(service, Client(), f"/session/{name}").status == 200


def test_creating_without_certificate_is_refused_where_the_creator_matters(service: RunningService, name: str) -> None:
    answer = upload(service, Client(), text(name))
    assert answer.status == 401
    assert "names CREATOR" in answer.body["msg"][1]
    assert read(service, Client(), f"/session/{name}").status == 404


def test_creating_without_certificate_works_where_no_creator_is_named(service: RunningService, name: str) -> None:
    body = text(name, more="access_policy:\n  read: [ANY]\n  update: [NONE]\n")
    assert upload(service, Client(), body).status == 201
    assert "creator" not in read(service, Client(), f"/session/{name}").body["session"]


def test_an_update_names_its_predecessor_and_history_can_be_walked(
    service: RunningService, alice: Client, name: str
) -> None:
    """F032: every version of the past is readable by its hash."""
    first = created(service, alice, text(name))
    second = created(service, alice, text(name, predecessor=first))
    assert first != second
    now = read(service, alice, f"/v1/sessions/{name}").body
    assert now["hash"] == second
    assert YAML(typ="safe").load(now["session"])["predecessor"] == first
    before = read(service, alice, f"/v1/sessions/{name}?hash={first}").body
    assert before["hash"] == first
    assert "predecessor: null" in before["session"]


def test_an_existing_name_without_predecessor_is_a_conflict(service: RunningService, alice: Client, name: str) -> None:
    """F030: an existing name without predecessor is refused."""
    created(service, alice, text(name))
    answer = upload(service, alice, text(name))
    assert answer.status == 409
    assert "Session already exists, please specify predecessor hash" in answer.body["msg"][1]


def test_a_predecessor_that_is_not_the_current_version_is_a_conflict(
    service: RunningService, alice: Client, name: str
) -> None:
    """F029: an update needs the current hash."""
    first = created(service, alice, text(name))
    created(service, alice, text(name, predecessor=first))
    answer = upload(service, alice, text(name, predecessor=first))
    assert answer.status == 409
    assert f"predecessor {first} is not the hash of the current version" in answer.body["msg"][1]


def test_a_predecessor_of_nothing_is_not_found(service: RunningService, alice: Client, name: str) -> None:
    """F028: a new name with a predecessor is refused."""
    answer = upload(service, alice, text(name, predecessor="ab" * 32))
    assert answer.status == 404
    assert "there is no session of this name to succeed" in answer.body["msg"][1]


def test_a_stranger_may_not_update_and_nothing_changes(
    service: RunningService, alice: Client, eve: Client, name: str
) -> None:
    first = created(service, alice, text(name))
    answer = upload(service, eve, text(name, predecessor=first))
    assert answer.status == 403
    assert answer.body["msg"][0] == f"You have insufficient rights to update session {name}"
    assert read(service, alice, f"/session/{name}").body["hash"] == first


def test_an_update_is_judged_by_the_version_it_replaces(
    service: RunningService, alice: Client, eve: Client, name: str
) -> None:
    """F186: an update is judged by the version it replaces. A new text cannot admit its own author."""
    first = created(service, alice, text(name))
    body = text(name, predecessor=first, more="access_policy:\n  update: [ANY]\n  read: [ANY]\n")
    assert upload(service, eve, body).status == 403


def test_f037_whoever_uploads_a_version_is_its_creator(
    service: RunningService, alice: Client, eve: Client, name: str
) -> None:
    """F037: an update by another authorised key moves CREATOR, and with it what CREATOR may."""
    policy = "access_policy:\n  update: [ANY]\n"
    first = created(service, alice, text(name, more=policy))
    assert read(service, eve, f"/session/{name}").status == 403
    second = upload(service, eve, text(name, predecessor=first, more=policy))
    assert second.status == 201
    assert read(service, alice, f"/session/{name}").status == 403
    assert eve.certificate is not None
    shown = read(service, eve, f"/session/{name}").body
    assert shown["hash"] == second.body["hash"]
    assert eve.certificate.read_text().splitlines()[1] in shown["session"]


def test_a_session_that_admits_no_update_stays_as_it_is(service: RunningService, alice: Client, name: str) -> None:
    first = created(service, alice, text(name, more="access_policy:\n  update: [NONE]\n"))
    assert upload(service, alice, text(name, predecessor=first)).status == 403


def test_of_many_updates_at_once_exactly_one_wins(service: RunningService, alice: Client, name: str) -> None:
    first = created(service, alice, text(name))
    bodies = [text(name, predecessor=first)] * 8
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(answer.status for answer in pool.map(lambda body: upload(service, alice, body), bodies))
    assert statuses == [201] + [409] * 7


def test_a_creator_in_the_text_must_be_the_uploader(
    service: RunningService, alice: Client, eve: Client, name: str
) -> None:
    """F039: a foreign creator is refused.

    Nobody can put somebody else's name under a session; one's own may stand there."""
    assert alice.certificate is not None
    pem = alice.certificate.read_text().replace("\n", "\n  ")
    body = text(name, more=f"creator: |\n  {pem}")
    refused = upload(service, eve, body)
    assert refused.status == 400
    assert "creator is another key than yours" in refused.body["msg"][0]
    assert upload(service, alice, body.rstrip()).status == 201


def test_a_session_is_refused_with_line_and_place(service: RunningService, alice: Client, name: str) -> None:
    answer = upload(service, alice, text(name, more="servces: []\n"))
    assert answer.status == 400
    message = " ".join(answer.body["msg"])
    assert "line 17 column 1" in message
    assert "services" in message
    assert "hash" not in answer.body


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[1, 2]", b"name: [", b"a: &a [*a]", b"\x00", b'{"a":'])
def test_what_is_no_session_is_refused(service: RunningService, alice: Client, body: bytes) -> None:
    answer = upload(service, alice, body)
    assert answer.status == 400
    assert answer.body["msg"]


def test_a_body_over_the_bound_is_refused_and_the_service_goes_on(service: RunningService, alice: Client) -> None:
    answer = upload(service, alice, b"#" * (1024 * 1024 + 1))
    assert answer.status == 413
    assert "1048576 bytes" in answer.body["msg"][0]
    assert read(service, alice, "/v1/version").status == 200


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_the_content_type_is_not_looked_at(
    service: RunningService, alice: Client, name: str, content_type: str
) -> None:
    connection = alice.connect(service.client_port)
    connection.request("POST", "/session", text(name), {"Content-Type": content_type})
    assert connection.getresponse().status == 201
    connection.close()


def test_a_public_value_is_read_by_anybody(service: RunningService, alice: Client, name: str) -> None:
    created(service, alice, text(name))
    answer = read(service, Client(), f"/v1/values/session={name},secret=number")
    assert answer.status == 200
    assert answer.body == {"kind": "string", "value": "42", "expires": None, "renew": None}


def test_all_public_values_are_read_at_once_and_no_others(service: RunningService, alice: Client, name: str) -> None:
    session_hash = created(service, alice, text(name))
    for selector in (f"session={name}", f"session=/{name}", f"session={name},session_hash={session_hash}"):
        answer = read(service, Client(), f"/v1/values/{selector}")
        assert answer.status == 200
        assert set(answer.body) == {"values"}
        assert set(answer.body["values"]) == {"api_ca_cert", "number"}
    assert answer.body["values"]["api_ca_cert"]["value"].startswith("-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize("secret", ["hidden", "api_ca_key", "nonesuch"])
def test_a_value_that_is_not_public_looks_like_one_that_does_not_exist(
    service: RunningService, alice: Client, name: str, secret: str
) -> None:
    created(service, alice, text(name))
    answer = read(service, alice, f"/v1/values/session={name},secret={secret}")
    assert answer.status == 404
    assert answer.body["msg"] == [
        f"Failed to read value '{secret}' of '/session={name}' requested by a public client",
        "Secret does not exist or is not visible for a public client",
    ]


def test_public_values_of_an_older_hash_are_not_given(service: RunningService, alice: Client, name: str) -> None:
    first = created(service, alice, text(name))
    created(service, alice, text(name, predecessor=first))
    assert read(service, alice, f"/v1/values/session={name},session_hash={first}").status == 404


@pytest.mark.parametrize("selector", ["", "x", "secret=a", "session=a,session=b", "session=a,b=c", "session="])
def test_a_malformed_selector_is_refused(service: RunningService, alice: Client, selector: str) -> None:
    answer = read(service, alice, f"/v1/values/{selector}")
    assert answer.status == 400
    assert "session=NAME" in answer.body["msg"][0]


def test_a_malformed_hash_is_refused(service: RunningService, alice: Client, name: str) -> None:
    created(service, alice, text(name))
    answer = read(service, alice, f"/session/{name}?hash=xyz")
    assert answer.status == 400
    assert "64 hex digits" in answer.body["msg"][1]


def test_a_version_that_never_was_is_not_found(service: RunningService, alice: Client, name: str) -> None:
    created(service, alice, text(name))
    assert read(service, alice, f"/session/{name}?hash={'0' * 64}").status == 404


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/session", 404),
    ("GET", "/session/", 404),
    ("HEAD", "/v1/values/session=x", 405),
    ("DELETE", "/session/x", 405),
    ("PUT", "/v1/sessions", 405),
    ("GET", "/nothing/here", 404),
    ("GET", "/v1/version/", 404),
])  # fmt: skip
def test_what_is_not_offered_is_answered_with_a_sentence(
    service: RunningService, alice: Client, method: str, path: str, status: int
) -> None:
    answer = alice.request(service.client_port, method, path)
    assert answer.status == status
    assert method == "HEAD" or answer.body["msg"][0]


def test_a_program_that_takes_the_wrong_port_is_told_the_right_one(service: RunningService, alice: Client) -> None:
    answer = alice.request(service.client_port, "POST", "/v1/challenge")
    assert answer.status == 404
    assert "the enclave API, by default on port 18765" in answer.body["msg"][0]


def test_version_and_openapi_are_there(service: RunningService) -> None:
    assert read(service, Client(), "/v1/version").body == {"version": "0.1.0"}
    assert read(service, Client(), "/v1/openapi.json").body["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/session//", "/v1/sessions//", "/session/%2F"])
def test_the_root_namespace_is_read_by_its_name(service: RunningService, path: str) -> None:
    answer = read(service, Client(), path)
    assert answer.status == 200, answer.body
    assert YAML(typ="safe").load(answer.body["session"])["name"] == "/"


def test_a_session_in_a_namespace_is_created_and_read(service: RunningService, alice: Client, name: str) -> None:
    answer = upload(service, alice, text(f"{name}/sub"))
    assert answer.status == 404
    assert "Namespace not found" in answer.body["msg"][0]
    created(service, alice, text(name))
    session_hash = created(service, alice, text(f"{name}/sub"))
    assert read(service, alice, f"/session//{name}/sub").body["hash"] == session_hash


def test_a_session_in_a_namespace_of_somebody_else_is_refused(
    service: RunningService, alice: Client, eve: Client, name: str
) -> None:
    created(service, alice, text(name))
    answer = upload(service, eve, text(f"{name}/sub"))
    assert answer.status == 403
    assert "create sessions in namespace" in answer.body["msg"][0]


def test_sessions_of_a_namespace_are_listed(service: RunningService, alice: Client, eve: Client, name: str) -> None:
    created(service, alice, text(name))
    created(service, alice, text(f"{name}/a"))
    answer = read(service, alice, f"/v1/sessions?namespace={name}")
    assert (answer.status, answer.body) == (200, {"sessions": [f"{name}/a"], "next": None})
    assert name in read(service, eve, "/v1/sessions").body["sessions"]
    refused = read(service, eve, f"/v1/sessions?namespace={name}")
    assert refused.status == 403
    assert refused.body["msg"][0].startswith(
        f"Failed to list the sessions of namespace '{name}': You have insufficient"
    )
    for start in ("x", "-1", "99999"):
        assert read(service, alice, f"/v1/sessions?from={start}").status == 400
