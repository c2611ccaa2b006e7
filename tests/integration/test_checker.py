"""Checkers against a real service: the command, the client's part, the example."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.simulators.board import ANN, BEN, Board, boarded, p256_person
from tests.simulators.keys import running_agent
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, stop
from tests.simulators.service import RunningService
from tests.simulators.signers import Person, ed25519_person, p384_person

from ostiary.board import Choice, shown
from ostiary.board.proposal import State
from ostiary.board.shown import key_hash
from ostiary.checker.rules import parse_rules
from ostiary.checker.watch import Checker, Event, Place
from ostiary.cli.identity import make_identity, self_signed
from ostiary.client import Address, Client
from ostiary.errors import SessionFormatError, SwappedError, UnreadableError
from ostiary.member_key import KnownKey
from ostiary.session import ParsedSession, parse_session

REPOSITORY = Path(__file__).parents[2]
RULES = "version: 1\nrules:\n- ready: no-debug-mode\n- {name: says-why, must: proposal.note != '', says: give a note}\n"
BAD = "{attestation: {tolerate: [debug-mode]}}"

_numbers = count()


@pytest.fixture
def name() -> str:
    """A session name that no other test uses."""
    return f"checked-{next(_numbers)}"


def client(service: RunningService, identity: str) -> Client:
    address = Address(host="127.0.0.1", port=service.client_port)
    return Client(address, anchors=service.ca_file.read_text(), identity=identity)


def board_with(checker: Person) -> Board:
    return Board(members={"ann": ANN, "ben": BEN, "checker": checker}, powers={"checker": "reject"})


def pem(person: Person) -> str:
    return person.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@contextlib.contextmanager
def process(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=environment
        )
    try:
        yield started
    finally:
        status = stop(started)
    assert status in (0, -signal.SIGTERM)


def line_of(started: subprocess.Popen[bytes], log: Path) -> str:
    assert started.stdout is not None
    line = started.stdout.readline().decode()
    assert line, log.read_text()
    return line


@pytest.mark.parametrize("checker", [ed25519_person(), p384_person(), p256_person()])
def test_the_command_decides_with_the_key_that_it_shows_in_tls(
    service: RunningService, tmp_path: Path, name: str, checker: Person
) -> None:
    """Nobody but its board may read the session, so that the member's key is what lets it read."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "key.pem").write_text(pem(checker))
    proposer = client(service, make_identity())
    good = proposer.propose(boarded(name, board_with(checker), read="CREATOR"), note="the first")
    other = f"{name}-bad"
    bad = proposer.propose(boarded(other, board_with(checker), read="CREATOR", security=BAD))
    command = [
        *(*OSTIARY, "checker", "--rules", str(tmp_path / "rules.yaml"), "--key", str(tmp_path / "key.pem")),
        *("--cas", f"127.0.0.1:{service.client_port}", "--cas-ca", str(service.ca_file)),
    ]
    log = tmp_path / "log"
    with process(command, log) as started:
        lines = {line.split()[1]: line for line in (line_of(started, log), line_of(started, log))}
    assert started.returncode == 0
    assert lines[good.proposal] == (
        f"approve {good.proposal} of session {name}: all rules hold: no-debug-mode, says-why (it is open)\n"
    )
    assert lines[bad.proposal].startswith(f"reject {bad.proposal} of session {other}: rejected by no-debug-mode: ")
    assert lines[bad.proposal].endswith("; says-why: give a note (it is rejected)\n")
    assert f"deciding by 2 rules at CAS {proposer.cas.hex()}" in log.read_text()


def test_the_example_decides_by_risk(service: RunningService, tmp_path: Path, name: str) -> None:
    checker = ed25519_person()
    (tmp_path / "identity.pem").write_text(self_signed(checker.key))
    proposer = client(service, make_identity())
    first = proposer.propose(boarded(name, board_with(checker)))
    command = [
        *(sys.executable, str(REPOSITORY / "examples" / "checker.py"), f"127.0.0.1:{service.client_port}"),
        *(str(service.ca_file), str(tmp_path / "identity.pem")),
    ]
    log = tmp_path / "log"
    with process(command, log) as started:
        choice, proposal, *_ = line_of(started, log).split()
        assert (choice, proposal) == ("reject", first.proposal)
        harmless = proposer.propose(boarded(f"{name}-too", board_with(checker), read="CREATOR"))
        assert line_of(started, log) == f"approve {harmless.proposal} no risk was found open\n"


def checking(service: RunningService, checker: Person, events: list[Event]) -> Checker:
    return Checker(
        service=client(service, self_signed(checker.key)),
        key=KnownKey(name="the checker's", key=checker.key),
        rules=parse_rules(RULES),
        lists=dict,
        say=events.append,
    )


def test_a_session_of_a_newer_language_is_rejected_unread(
    service: RunningService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the client's language is made older, in place of the service's newer."""
    checker = ed25519_person()
    proposer = client(service, make_identity())
    proposal = proposer.propose(boarded(name, board_with(checker)), note="new words").proposal

    def older(text: str) -> ParsedSession:
        if name in text:
            raise SessionFormatError("the session has 1 mistake", ())
        return parse_session(text)

    monkeypatch.setattr(shown, "parse_session", older)
    events: list[Event] = []
    mine = client(service, self_signed(checker.key))
    with pytest.raises(UnreadableError, match="is not a session that this version knows"):
        mine.proposal(proposal)
    checking(service, checker, events).turn(Place())
    assert [(event.proposal, event.told) for event in events if event.proposal == proposal] == [
        (proposal, "it is rejected")
    ]
    monkeypatch.undo()
    [member] = [one for one in mine.proposal(proposal).members if one.name == "checker"]
    assert member.decided is not None
    assert member.decided.choice is Choice.REJECT
    assert member.decided.reason.startswith("rejected unread: the proposal's session_text is not a session")


def test_a_cas_that_is_another_than_it_says_gets_no_signature_not_even_unread(
    service: RunningService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = ed25519_person()
    proposal = client(service, make_identity()).propose(boarded(name, board_with(checker))).proposal
    mine = client(service, self_signed(checker.key))
    monkeypatch.setattr(type(mine), "cas", bytes(32))
    with pytest.raises(SwappedError, match="of another CAS"):
        mine.reject_unread(proposal, key=KnownKey(name="mine", key=checker.key), reason="")
    monkeypatch.undo()
    assert [one.proposal for one in mine.proposals(waiting_for=key_hash(checker.spki)).proposals] == [proposal]


def test_a_checker_that_is_started_again_goes_on_with_what_is_left(service: RunningService, name: str) -> None:
    checker = ed25519_person()
    proposer = client(service, make_identity())
    first = proposer.propose(boarded(name, board_with(checker)), note="why").proposal
    before: list[Event] = []
    checking(service, checker, before).turn(Place())
    second = proposer.propose(boarded(f"{name}-too", board_with(checker)), note="why").proposal
    after: list[Event] = []
    checking(service, checker, after).turn(Place())
    assert [event.proposal for event in before] == [first]
    assert [event.proposal for event in after] == [second]


def test_a_proposal_that_is_closed_while_the_checker_looks_at_it_is_told_and_left(
    service: RunningService, name: str
) -> None:
    checker = ed25519_person()
    proposer = client(service, make_identity())
    proposal = proposer.propose(boarded(name, board_with(checker)), note="why").proposal
    events: list[Event] = []
    slow = checking(service, checker, events)
    real = slow.service.proposal

    def meanwhile(proposal: str) -> shown.Proposal:
        """The others decide between the checker's reading and its signing."""
        found = real(proposal)
        for person in (ANN, BEN):
            mine = client(service, self_signed(person.key))
            counted = mine.decide(found, Choice.APPROVE, key=KnownKey(name="a person's", key=person.key))
        assert counted.state is State.APPLIED
        return found

    slow.service.proposal = meanwhile  # type: ignore[method-assign]
    slow.turn(Place())
    [event] = events
    assert (event.proposal, event.verdict) == (proposal, None)
    assert event.told.startswith("closed in the meantime: ")


def test_the_command_waits_for_a_service_that_is_not_there_and_says_so(tmp_path: Path, service: RunningService) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "key.pem").write_text(pem(ed25519_person()))
    command = [
        *(*OSTIARY, "checker", "--json", "--rules", str(tmp_path / "rules.yaml"), "--retries", "0"),
        *("--key", str(tmp_path / "key.pem"), "--cas", "127.0.0.1:1", "--cas-ca", str(service.ca_file)),
    ]
    with process(command, tmp_path / "log") as started:
        told = json.loads(line_of(started, tmp_path / "log"))
    assert (told["proposal"], told["decision"]) == (None, None)
    assert "cannot connect to CAS 127.0.0.1:1" in told["told"]
    assert "trying again in 1 s" in told["told"]


def test_a_key_in_an_agent_signs_and_another_identity_reads(service: RunningService, tmp_path: Path, name: str) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    checker, identity = ed25519_person(), make_identity()
    (tmp_path / "identity.pem").write_text(identity)
    proposal = client(service, identity).propose(boarded(name, board_with(checker), read="CREATOR"), note="why")
    command = [
        *(*OSTIARY, "checker", "--rules", str(tmp_path / "rules.yaml"), "--key", "ssh:checker"),
        *("--cas", f"127.0.0.1:{service.client_port}", "--cas-ca", str(service.ca_file)),
    ]
    with running_agent() as agent:
        agent.add(tmp_path, checker.key, "checker")
        environment = {**os.environ, "SSH_AUTH_SOCK": agent.path}
        refused = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=TIMEOUT_SECONDS)
        assert refused.returncode == 1
        assert b"the key cannot be shown in TLS, as it stays where it is" in refused.stderr
        command += ["--identity", str(tmp_path / "identity.pem")]
        with process(command, tmp_path / "log", environment) as started:
            assert line_of(started, tmp_path / "log").startswith(f"approve {proposal.proposal} ")


def test_what_was_not_decided_is_told_on_stderr(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "key.pem").write_text(pem(ed25519_person()))
    command = [
        *(*OSTIARY, "checker", "--rules", str(tmp_path / "rules.yaml"), "--retries", "0"),
        *("--key", str(tmp_path / "key.pem"), "--cas", "127.0.0.1:1", "--cas-ca", str(service.ca_file)),
    ]
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert started.stderr is not None
    lines = [started.stderr.readline().decode() for _ in range(3)]
    stop(started)
    started.stderr.close()
    assert lines[0].startswith("ostiary: deciding by 2 rules at CAS ")
    assert lines[1].startswith("ostiary: cannot connect to CAS 127.0.0.1:1: ")
    assert lines[1].endswith("; trying again in 1 s\n")
    assert lines[2].endswith("; trying again in 2 s\n")


@pytest.mark.parametrize("stdout", ["/dev/full", "a pipe without a reader"])
def test_a_checker_whose_decisions_nobody_can_read_ends(
    service: RunningService, tmp_path: Path, name: str, stdout: str
) -> None:
    checker = ed25519_person()
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "key.pem").write_text(pem(checker))
    client(service, make_identity()).propose(boarded(name, board_with(checker)), note="why")
    command = [
        *(*OSTIARY, "checker", "--rules", str(tmp_path / "rules.yaml"), "--key", str(tmp_path / "key.pem")),
        *("--cas", f"127.0.0.1:{service.client_port}", "--cas-ca", str(service.ca_file)),
    ]
    if stdout == "/dev/full":
        end = os.open(stdout, os.O_WRONLY)
    else:
        read, end = os.pipe()
        os.close(read)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=end, stderr=subprocess.PIPE, timeout=TIMEOUT_SECONDS, check=False
        )
    finally:
        os.close(end)
    told = [line for line in done.stderr.decode().splitlines() if "deciding by" not in line]
    full = ["Error: The checker failed", "Caused by: stdout cannot be written: No space left on device"]
    assert (done.returncode, told) == (1, full if stdout == "/dev/full" else [])


def test_nothing_of_the_key_or_the_session_is_told(service: RunningService, tmp_path: Path, name: str) -> None:
    checker = ed25519_person()
    (tmp_path / "rules.yaml").write_text(RULES + "- {name: stumbles, must: 'int(new.secrets[0].value) == 1'}\n")
    (tmp_path / "key.pem").write_text(pem(checker))
    secrets = "[{name: word, kind: ascii, value: hunter2hunter2}]"
    client(service, make_identity()).propose(boarded(name, board_with(checker), secrets=secrets))
    command = [
        *(*OSTIARY, "checker", "--rules", str(tmp_path / "rules.yaml"), "--key", str(tmp_path / "key.pem")),
        *("--cas", f"127.0.0.1:{service.client_port}", "--cas-ca", str(service.ca_file)),
    ]
    with process(command, tmp_path / "log") as started:
        line = line_of(started, tmp_path / "log")
    assert "stumbles: it could not be evaluated (INVALID_ARGUMENT)" in line
    body = "".join(pem(checker).splitlines()[1:-1])
    for told in (line, (tmp_path / "log").read_text()):
        assert "hunter2" not in told
        assert body not in told
