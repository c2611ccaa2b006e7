"""From a denied start to an admitted one: the program is told an id, a reader of the session why and what to change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.commands import Scone
from tests.simulators.program import AttestingProgram, attesting
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.sgx_platform import MR_ENCLAVE, SgxPlatform, make_platform

from ostiary.appraisal.form import read_advice
from ostiary.appraisal.patch import apply_operations
from ostiary.platform.pki import Lifetime
from ostiary.session import parse_session
from ostiary.session.yaml_text import write_yaml

_numbers = count()
OTHER = "ab" * 32

SESSION = f"""\
# Our shop. Ask the platform team before you change it.
version: "0.3.12"
name: NAME
services:
  - name: web
    command: server
    attestation:
      # what we built on Friday
      - mrenclave: "{OTHER}"
      - signer: {{mrsigner: "{"cd" * 32}", isvprodid: 9}}
    MORE
secrets:
  - {{name: word, kind: ascii, value: do-not-tell}}
"""


TODAY = Lifetime(start=datetime.now(UTC) - timedelta(days=1), end=datetime.now(UTC) + timedelta(days=1))
"""People verify the certificate of the CAS by the clock of their machine."""


@pytest.fixture(scope="module")
def platform() -> SgxPlatform:
    return make_platform(TODAY)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, platform: SgxPlatform) -> Iterator[RunningService]:
    directory = tmp_path_factory.mktemp("denials") / "data"
    with running_service(directory, roots=(platform.software_root,)) as running:
        yield running


@pytest.fixture
def program(service: RunningService, eve: Client) -> Iterator[AttestingProgram]:
    with attesting(service, eve) as attesting_program:
        yield attesting_program


@pytest.fixture
def name(scone: Scone) -> str:
    """A session of our person, in session.yml."""
    found = f"shop-{next(_numbers)}"
    scone.write("session.yml", SESSION.replace("NAME", found).replace("    MORE\n", ""))
    scone.good("session", "create", "session.yml")
    return found


def denied(answer: Answer) -> str:
    assert answer.status == 403, answer.body
    return str(answer.body["denial"])


def read(service: RunningService, client: Client, denial: str) -> Answer:
    return client.request(service.client_port, "GET", f"/v1/denials/{denial}")


def explained(scone: Scone, denial: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(scone.good("explain", denial, "--json"))["denial"]
    return document


def test_a_denied_program_starts_once_the_advised_change_was_made(
    scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform
) -> None:
    denial = denied(program.start(platform, f"{name}/web"))
    page = scone("explain", denial, program="ostiary").out
    for words in (
        f"Denial {denial}: service web of session {name} was not started",
        f"found    {MR_ENCLAVE.hex()}",
        f"expected {OTHER}",
        "Nearest variant, attestation[0]:",
        "Variant attestation[1] fails in: signer.mrsigner, signer.isvprodid",
        "2 operations, all needed",
        "add to security.attestation.tolerate: software-platform",
        "Never wise: a software platform protects nothing",
        "add to services[0].attestation[0].mrenclave:",
        "Wise after a review only: a measurement is only as good as its origin",
        "As a patch",
    ):
        assert words in page
    assert "\x1b" not in page, "colours are for terminals"
    assert "do-not-tell" not in page

    patched = scone.good("explain", denial, "--patched", "session.yml")
    assert "      # what we built on Friday\n" in patched, "the author's comments stay"
    assert "  - name: web\n" in patched, "and so does the way that lists are written"
    scone.write("new.yml", patched)
    assert scone("session", "update", "new.yml").code == 0
    assert program.start(platform, f"{name}/web").status == 200


def test_no_part_of_the_advised_change_can_be_left_out(
    scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform
) -> None:
    advice = read_advice(explained(scone, denied(program.start(platform, f"{name}/web")))["advice"])
    normal = parse_session((scone.directory / "session.yml").read_text()).normal
    for left_out in advice.operations:
        rest = [operation for operation in advice.operations if operation is not left_out]
        scone.write("less.yml", write_yaml(apply_operations(normal, rest)))
        updated = scone("session", "update", "less.yml")
        assert updated.code == 0, updated.err
        denied(program.start(platform, f"{name}/web"))


def test_the_program_learns_no_more_than_it_did(
    scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform
) -> None:
    """What would have been admitted is for readers of the session."""
    answer = program.start(platform, f"{name}/web")
    assert set(answer.body) == {"msg", "denial", "version"}
    told = json.dumps(answer.body)
    assert OTHER not in told
    assert "cd" * 32 not in told
    assert "attestation[" not in told
    assert OTHER in json.dumps(explained(scone, denied(answer)))


def test_to_strangers_there_is_no_denial(
    service: RunningService,
    scone: Scone,
    name: str,
    program: AttestingProgram,
    platform: SgxPlatform,
    alice: Client,
    eve: Client,
) -> None:
    """Not for other people, not without certificate, and not for the program itself: the answer is that for no id."""
    denial = denied(program.start(platform, f"{name}/web"))
    unknown = read(service, alice, "0123456789abcdef")
    assert unknown.status == 404
    for client in (alice, eve, Client()):
        answer = read(service, client, denial)
        assert (answer.status, answer.body) == (unknown.status, unknown.body)
        listing = client.request(service.client_port, "GET", f"/v1/denials?session={name}")
        none = client.request(service.client_port, "GET", "/v1/denials?session=no-such-session")
        assert (listing.status, listing.body) == (none.status, none.body)
        assert listing.status == 404
    assert explained(scone, denial)["id"] == denial
    shown = scone("explain", "0123456789abcdef")
    assert (shown.code, shown.out) == (2, "")
    assert "Denial not found" in shown.err


@pytest.mark.parametrize("denial", ["", "x", "../version", "0123456789ABCDEF", "0" * 17, "%00"])
def test_an_id_of_another_form_is_not_found(service: RunningService, alice: Client, denial: str) -> None:
    assert read(service, alice, denial).status == 404


def test_a_denial_can_be_shown_elsewhere(
    service: RunningService, scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform
) -> None:
    """It is signed below the certificate of the CAS, and one changed byte shows."""
    denial = denied(program.start(platform, f"{name}/web"))
    scone.write("denial.json", scone.good("explain", denial, "--json"))
    ca = str(service.ca_file)
    assert denial in scone.good("explain", "--verify", "denial.json", "--cas-ca", ca)
    changed = scone.good("explain", denial, "--json").replace(MR_ENCLAVE.hex(), OTHER)
    scone.write("changed.json", changed)
    shown = scone("explain", "--verify", "changed.json", "--cas-ca", ca)
    assert shown.code == 1
    assert "changed after it was signed" in shown.err


def test_the_denials_of_a_session_are_listed_the_newest_first(
    service: RunningService, scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform
) -> None:
    ids = [
        denied(program.configure(b"n" * 32, b"", b"", f"{name}/web")),
        denied(program.start(platform, f"{name}/web")),
        denied(program.start(make_platform(TODAY), f"{name}/web")),
    ]
    listed = json.loads(scone.good("explain", "--list", name, "--json"))
    assert [one["id"] for one in listed] == ids[::-1]
    assert [one["stage"] for one in listed] == ["evidence", "appraisal", "challenge"]
    older = scone.good("explain", "--list", name, "--before", ids[1])
    assert older.split()[0] == ids[0]
    assert len(older.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "stage", "words"),
    [
        (
            "one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            "password",
            "asks for a one-time password",
        ),
        ("", "token", "the program has none"),
        ("", "evidence", "a root that this service does not trust"),
        ("", "challenge", "the nonce is unknown"),
        ("", "configuration", "cannot be imported"),
    ],
)
def test_readers_learn_what_failed_beside_the_appraisal(
    scone: Scone, program: AttestingProgram, platform: SgxPlatform, more: str, stage: str, words: str
) -> None:
    name = f"beside-{next(_numbers)}"
    text = SESSION.replace("NAME", name).replace("MORE", more).replace(OTHER, MR_ENCLAVE.hex())
    text += "security:\n  attestation: {tolerate: [software-platform]}\n"
    if stage == "token":
        text += "  service_access_token: a-token-of-many-characters\n"
    if stage == "configuration":
        text = text.replace("kind: ascii, value: do-not-tell", "kind: ascii, import: {session: nowhere, secret: word}")
        text = text.replace("command: server", "command: server $$SCONE::word$$")
    scone.write("session.yml", text)
    created = scone("session", "create", "session.yml")
    assert created.code == 0, created.err
    if stage == "challenge":
        answer = program.configure(b"n" * 32, b"", b"", f"{name}/web")
    else:
        answer = program.start(make_platform(TODAY) if stage == "evidence" else platform, f"{name}/web")
    document = explained(scone, denied(answer))
    assert document["stage"] == stage
    assert words in " ".join(document["reasons"])
    assert (document["evidence"] is not None) == (stage == "configuration")
    assert document["report"] is None
    assert "a-token-of" not in json.dumps(document)


def test_nothing_is_kept_for_what_does_not_exist(service: RunningService, program: AttestingProgram, name: str) -> None:
    before = service.cas.store.head
    for service_id in ("no-such-session/web", f"{name}/no-such-service"):
        answer = program.configure(b"n" * 32, b"", b"", service_id)
        assert service.cas.denials.find(denied(answer)) is None
    assert service.cas.store.head == before


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?session=NAME&limit=0", 400),
        ("?session=NAME&limit=101", 400),
        ("?session=NAME&limit=x", 400),
        ("?session=NAME&limit=9999999999", 400),
        ("?session=NAME&before=0123456789abcdef", 404),
        ("?session=/NAME&limit=1", 200),
    ],
)
def test_the_list_asks_for_a_session_and_a_few(service: RunningService, alice: Client, query: str, status: int) -> None:
    name = f"listed-{next(_numbers)}"
    text = SESSION.replace("NAME", name).replace("    MORE\n", "")
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    answer = alice.request(service.client_port, "GET", f"/v1/denials{query.replace('NAME', name)}")
    assert answer.status == status, answer.body


def test_what_a_cas_says_is_not_believed_if_it_is_of_another_denial(
    scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    denial = denied(program.start(platform, f"{name}/web"))
    monkeypatch.setattr("ostiary.client.Client.denial", lambda *_: {"denial": {"id": denial}})
    assert "did not answer with the denial" in scone("explain", "0123456789abcdef").err
    assert scone("explain", "--verify", "no-such-file", "--cas-ca", "x").code == 1


def test_a_session_with_more_variants_than_fit_keeps_the_nearest(
    service: RunningService, alice: Client, program: AttestingProgram, platform: SgxPlatform
) -> None:
    name = f"many-{next(_numbers)}"
    lists = ", ".join(f"[{', '.join(f'{one:032x}{two:032x}' for one in range(20))}]" for two in range(30))
    variants = "".join(f"      - mrenclave: {one}\n" for one in lists.split(", [") for one in [f"[{one.strip('[')}"])
    text = f'version: "0.3.12"\nname: {name}\nservices:\n  - name: web\n    attestation:\n{variants}'
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    report = read(service, alice, denied(program.start(platform, f"{name}/web"))).body["denial"]["report"]
    assert len(report["variants"]) == 8
    assert report["variants_left_out"] == 22


def test_a_restart_keeps_denials(tmp_path: Path, platform: SgxPlatform, alice: Client, eve: Client) -> None:
    directory = tmp_path / "data"
    roots = (platform.software_root,)
    text = SESSION.replace("NAME", "kept").replace("    MORE\n", "").encode()
    with running_service(directory, roots=roots) as service:
        assert alice.request(service.client_port, "POST", "/session", text).status == 201
        with attesting(service, eve) as program:
            denial = denied(program.start(platform, "kept/web"))
        before = read(service, alice, denial).body["denial"]
    with running_service(directory, roots=roots) as service:
        assert read(service, alice, denial).body["denial"] == before
        assert read(service, eve, denial).status == 404


def test_whoever_loses_the_right_to_read_loses_the_denials(
    service: RunningService, alice: Client, program: AttestingProgram, platform: SgxPlatform
) -> None:
    """The current version of the session decides, not the one that denied."""
    name = f"shut-{next(_numbers)}"
    text = (
        SESSION.replace("NAME", name).replace("    MORE\n", "") + "access_policy: {read: [POLICY], update: [CREATOR]}\n"
    )
    first = alice.request(service.client_port, "POST", "/session", text.replace("POLICY", "CREATOR").encode())
    denial = denied(program.start(platform, f"{name}/web"))
    assert read(service, alice, denial).status == 200
    text = text.replace("POLICY", "NONE") + f"predecessor: '{first.body['hash']}'\n"
    assert alice.request(service.client_port, "POST", "/session", text.encode()).status == 201
    assert read(service, alice, denial).status == 404


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("explain",), "give the id of one denial"),
        (("explain", "0123456789abcdef", "--list", "x"), "give the id of one denial"),
        (("explain", "--verify", "x"), "--verify needs --cas-ca"),
        (("explain", "--list", "x", "--patched", "y"), "--patched goes with one denial"),
    ],
)
def test_wrong_usage_is_told(scone: Scone, words: tuple[str, ...], says: str) -> None:
    shown = scone(*words)
    assert shown.code in (1, 64)
    assert says in shown.err


def test_a_change_goes_into_the_session_that_denied_only(
    scone: Scone, name: str, program: AttestingProgram, platform: SgxPlatform
) -> None:
    denial = denied(program.start(platform, f"{name}/web"))
    scone.write("other.yml", "name: other\n")
    shown = scone("explain", denial, "--patched", "other.yml")
    assert shown.code == 1
    assert "is not session" in shown.err
