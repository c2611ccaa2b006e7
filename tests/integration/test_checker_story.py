"""Three people and one checker, F = 1, with a real service and a real checker that got its key by being attested.

Everything goes the way it does for users: `ostiary platform serve`, a service that trusts that platform, `ostiary run`
of `ostiary checker`, and people who decide with `ostiary.client`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.processes import OSTIARY, ostiary, platform_process, stop
from tests.simulators.service import RunningService, running_service
from tests.simulators.signers import Person, ed25519_person, p384_person, signed

from ostiary.board import Choice
from ostiary.board.proposal import State
from ostiary.board.shown import key_hash
from ostiary.cli.identity import make_identity, self_signed
from ostiary.client import Address, Client
from ostiary.errors import ConflictError, RefusedError
from ostiary.evidence.roots import software_root
from ostiary.member_key import KnownKey

PROGRAM = str(Path(sys.executable).with_name("ostiary"))

CHECKER = """
name: checker
version: "0.3.12"
security: {attestation: {tolerate: [debug-mode]}}  # it runs on the software platform here
services:
- name: watch
  image_name: checker
  attestation: [{mrenclave: [MEASUREMENT]}]
  command: PROGRAM checker --json --rules /checker/rules.yaml --cas CAS --cas-ca /checker/ca.pem --key /checker/key.pem
  environment: {PATH: /usr/bin:/bin}
images:
- name: checker
  injection_files:
  - {path: /checker/key.pem, content: "$$SCONE::key:pkcs8-v1:pem$$", permission: 0o400}
  - path: /checker/ca.pem
    content: CA
  - path: /checker/rules.yaml
    content: |
      version: 1
      rules:
      - ready: no-debug-mode
      - ready: evidence-required
      - ready: no-public-private-keys
      - ready: no-wider-read
      - ready: tcb-not-weakened
      - ready: board-not-weakened
secrets:
- {name: key, kind: private-key, key_type: Ed25519, migrate: true}
- {name: member, kind: public-key, private_key: key, export: [{session: app}], export_public: true}
"""

APP = """
name: app
version: "0.3.12"
predecessor: PREDECESSOR
services:
- name: web
  attestation: [{mrenclave: [MEASUREMENT]}]
  command: COMMAND
security: {attestation: {tolerate: [TOLERATE]}}
access_policy: {read: [CREATOR]}
policy_board:
  tolerated_faults: 1
  members:
  - {name: alice, signer: ALICE}
  - {name: bob, signer: BOB}
  - {name: carol, signer: CAROL}
  - {name: checker, signer: $$SCONE::checker$$, power: reject}
secrets:
- {name: checker, kind: public-key, import: {session: checker, secret: member}}
"""

ALICE, BOB, CAROL = ed25519_person(), p384_person(), ed25519_person()
PEOPLE = {"alice": ALICE, "bob": BOB, "carol": CAROL}


@dataclass
class Story:
    """The service, the checker's session, and what is written into the audit log."""

    service: RunningService
    socket: str
    directory: Path
    leaves: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.service.client_port)

    def client(self, identity: str) -> Client:
        return Client(self.address, anchors=self.service.ca_file.read_text(), identity=identity)

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """What the entries of a kind say."""
        return [leaf["data"] for leaf in self.leaves if leaf["type"] == kind]

    @contextlib.contextmanager
    def checker(self) -> Iterator[Checker]:
        """The checker, started as its session says. It ends with the block."""
        command = [
            *(*OSTIARY, "run", "--cas", f"127.0.0.1:{self.service.enclave_port}", "--service", "checker/watch"),
            *("--platform-socket", self.socket, "--", PROGRAM, "checker"),
        ]
        log = self.directory / "checker.log"
        with log.open("ab") as stderr:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        try:
            yield Checker(process=process, log=log)
        finally:
            stop(process)


@dataclass
class Checker:
    process: subprocess.Popen[bytes]
    log: Path

    def next(self) -> dict[str, Any]:
        """The next line that it prints: a decision, or what kept it from one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        told: dict[str, Any] = json.loads(line)
        return told


def app(predecessor: bytes | None, *, command: str = "/app/web", tolerate: str = "") -> str:
    text = APP.replace("PREDECESSOR", "~" if predecessor is None else predecessor.hex())
    for name, person in (("ALICE", ALICE), ("BOB", BOB), ("CAROL", CAROL)):
        text = text.replace(name, person.quoted)
    return text.replace("MEASUREMENT", "ab" * 32).replace("COMMAND", command).replace("TOLERATE", tolerate)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("story")
    with platform_process(directory / "platform") as platform:
        root = software_root(Path(platform["root"]).read_bytes())
        with running_service(directory / "data", roots=(root,)) as service:
            story = Story(service=service, socket=platform["socket"], directory=directory)
            commit = service.cas.store.commit

            def watched(writes: Any, leaf: bytes, **named: Any) -> Any:
                story.leaves.append(json.loads(leaf))
                return commit(writes, leaf, **named)

            service.cas.store.commit = watched  # type: ignore[method-assign]
            text = CHECKER.replace("MEASUREMENT", ostiary("measure", "--", PROGRAM, "checker").strip())
            text = text.replace("PROGRAM", PROGRAM).replace("CAS --cas-ca", f"{story.address} --cas-ca")
            text = text.replace("content: CA", f"content: {json.dumps(service.ca_file.read_text())}")
            story.client(make_identity()).upload(text)
            yield story
        ostiary("store", "verify", "--data", str(directory / "data"))


def decide(story: Story, person: Person, proposal: str, choice: Choice = Choice.APPROVE) -> State:
    """What a person does: read, look, sign. Each shows the member's key in TLS."""
    client = story.client(self_signed(person.key))
    shown = client.proposal(proposal)
    return client.decide(shown, choice, key=KnownKey(name="a person's", key=person.key)).state


def test_three_people_and_a_checker(story: Story) -> None:
    proposer = story.client(make_identity())
    with story.checker() as checker:
        # The first version is approved by the board that it names: one person and the checker.
        first = proposer.propose(app(None), note="the first version")
        told = checker.next()
        assert (told["proposal"], told["decision"], told["rules"]) == (first.proposal, "approve", [])
        assert decide(story, ALICE, first.proposal) is State.APPLIED

        # A harmless update passes with one person and the checker.
        harmless = proposer.propose(app(first.session_hash, command="/app/web --verbose"), note="more words")
        assert checker.next()["decision"] == "approve"
        assert decide(story, BOB, harmless.proposal) is State.APPLIED
        assert proposer.read_hash("app") == harmless.session_hash

        # A bad one is rejected by the checker alone, and no person can change that any more.
        bad = proposer.propose(app(harmless.session_hash, tolerate="debug-mode"), note="just for a day")
        told = checker.next()
        assert (told["proposal"], told["decision"]) == (bad.proposal, "reject")
        assert told["rules"] == ["no-debug-mode", "tcb-not-weakened"]
        assert told["told"] == "it is rejected"
        for person in (ALICE, BOB, CAROL):
            with pytest.raises(ConflictError):
                decide(story, person, bad.proposal)
        assert proposer.read_hash("app") == harmless.session_hash

    # A compromised member alone can do nothing, even while the checker is away: not by deciding twice, nor uploading.
    evil = app(harmless.session_hash, command="/app/evil").replace("read: [CREATOR]", "read: [ANY]")
    tried = proposer.propose(evil)
    assert decide(story, CAROL, tried.proposal) is State.OPEN
    assert decide(story, CAROL, tried.proposal) is State.OPEN
    with pytest.raises(RefusedError):
        proposer.upload(evil)
    with pytest.raises(RefusedError):
        proposer.upload_signed(signed(evil, CAROL).decode())
    assert proposer.read_hash("app") == harmless.session_hash

    # The checker remembered nothing, and finds what waits for it.
    with story.checker() as checker:
        told = checker.next()
    assert (told["proposal"], told["decision"], told["rules"]) == (tried.proposal, "reject", ["no-wider-read"])
    assert proposer.read_hash("app") == harmless.session_hash

    # The log has it all: each step of each proposal, in order, and who took it.
    checker_hash = story.logged("proposal_decided")[0]["member"]
    members = {key_hash(person.spki).hex(): name for name, person in PEOPLE.items()} | {checker_hash: "checker"}
    assert [_step(leaf, members) for leaf in story.leaves if "proposal" in leaf["data"]] == [
        ("proposal_created", first.proposal, []),
        ("proposal_decided", first.proposal, [("checker", "approve")]),
        ("session_created", first.proposal, [("alice", "approve"), ("checker", "approve")]),
        ("proposal_closed", first.proposal, []),
        ("proposal_created", harmless.proposal, []),
        ("proposal_decided", harmless.proposal, [("checker", "approve")]),
        ("session_updated", harmless.proposal, [("bob", "approve"), ("checker", "approve")]),
        ("proposal_closed", harmless.proposal, []),
        ("proposal_created", bad.proposal, []),
        ("proposal_closed", bad.proposal, [("checker", "reject")]),
        ("proposal_created", tried.proposal, []),
        ("proposal_decided", tried.proposal, [("carol", "approve")]),
        ("proposal_closed", tried.proposal, [("checker", "reject")]),
    ]
    assert len(story.logged("service_attested")) == 2


def _step(leaf: dict[str, Any], members: dict[str, str]) -> tuple[str, str, list[tuple[str, str]]]:
    """One entry of the log: its kind, the proposal, and who decided what, by name."""
    data = leaf["data"]
    made = data.get("approvals", [data] if "member" in data else [])
    decisions = sorted((members[one["member"]], one["choice"]) for one in made)
    return leaf["type"], data["proposal"], decisions
