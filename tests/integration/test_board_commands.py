"""`ostiary board …` against a running service, as transcripts, with keys where people keep them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.simulators.board import Board
from tests.simulators.commands import Scone, Shown
from tests.simulators.keys import PIN, SshAgent, ed25519_key, p384_key, pem, public_pem, running_agent, spki, tokens
from tests.simulators.service import Answer, Client, RunningService, running_service
from tests.simulators.signers import Person
from tests.simulators.swapping_cas import swapping_cas
from tests.simulators.terminals import END, talk

from ostiary.board import Choice
from ostiary.cli import main as ostiary_program
from ostiary.cli.terminal import Terminal
from ostiary.client import Client as RestClient
from ostiary.client import parse_address
from ostiary.errors import OutsideError, SwappedError
from ostiary.member_key import KnownKey
from ostiary.session import AccessPolicy, AnySubject, NoneSubject, parse_session

ID = re.compile(r"[0-9a-f]{64}\n")
PASSPHRASE = "open sesame"


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A session and its board: alice in an SSH agent, bob in a file with a passphrase, carol on a card; two decide."""

    scone: Scone
    name: str
    board: Board

    def file(self, *, read: str = "CREATOR", board: Board | None = None, more: str = "") -> str:
        text = f'version: "0.3.12"\nname: {self.name}\naccess_policy: {{read: {read}}}\n{more}'
        return self.scone.write("s.yml", text + (board or self.board).yaml)

    def propose(self, *words: str, **changed: Any) -> str:
        """The id of a new proposal."""
        shown = self.scone("board", "propose", self.file(**changed), *words)
        assert (shown.code, [line for line in shown.err.splitlines() if not line.startswith("Note: ")]) == (0, [])
        assert ID.fullmatch(shown.out)
        return shown.out.strip()

    def decide(self, choice: str, proposal: str, who: str, *words: str) -> Shown:
        return self.scone("board", choice, proposal, "--yes", *key_of(who), *words)

    def create(self) -> None:
        """The first version, approved by the board that it names."""
        first = self.propose()
        assert self.decide("approve", first, "alice").out == "open: 1 of 2 approvals\n"
        assert self.decide("approve", first, "bob").out == "applied\n"

    def current(self) -> str:
        return self.scone.good("session", "read", self.name)


ALICE = ("--key", "ssh:alice@laptop")
BOB = ("--key", "bob.pem", "--pin-file", "bob-pin")


def key_of(who: str) -> tuple[str, ...]:
    """The options that name a member's key, and where its PIN is."""
    if who == "carol":
        return ("--key", tokens().uri("carol"), "--pin-file", "card-pin")
    return {"alice": ALICE, "bob": BOB, "mallory": ("--key", "mallory.pem")}[who]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SshAgent]:
    with running_agent() as running:
        monkeypatch.setenv("SSH_AUTH_SOCK", running.path)
        yield running


@pytest.fixture
def shop(scone: Scone, agent: SshAgent, request: pytest.FixtureRequest) -> Shop:
    alice, bob, carol = ed25519_key(), p384_key(), tokens().keys["carol"]
    agent.add(scone.directory, alice, "alice@laptop")
    scone.write("bob.pem", pem(bob, PASSPHRASE))
    scone.write("bob-public.pem", public_pem(bob))
    scone.write("bob-pin", f"{PASSPHRASE}\n")
    scone.write("card-pin", f"{PIN}\n")
    scone.write("mallory.pem", pem(ed25519_key()))
    assert isinstance(carol, ec.EllipticCurvePrivateKey)
    board = Board(members={"alice": Person(key=alice), "bob": Person(key=bob), "carol": Person(key=carol)})
    return Shop(scone=scone, name=re.sub(r"[^a-z0-9]", "-", request.node.name), board=board)


def test_a_change_passes_with_a_key_of_an_agent_and_one_of_a_card(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose("--note", "let everybody read", read="ANY")
    page = shop.scone.good("board", "review", shop.name, *ALICE)
    assert page.splitlines()[0] == f"Update of session {shop.name}: open"
    assert f"  proposal {proposal}\n" in page
    assert "RISKS: 1\n  ! widens-read: widens read from CREATOR to ANY\nMembers: 0 of 2 approvals needed\n" in page
    assert "\n  alice (you)      vote                   -\n" in page
    assert shop.decide("approve", proposal, "alice", "--reason", "read it").out == "open: 1 of 2 approvals\n"
    assert '"read it"' in shop.scone.good("board", "review", proposal)
    assert shop.scone.good("board", "status", shop.name) == "open\n"
    assert shop.decide("approve", proposal, "carol").out == "applied\n"
    assert shop.scone.good("board", "status", proposal) == "applied\n"
    assert parse_session(shop.current()).session.access_policy == AccessPolicy(
        read=(AnySubject(),), update=(NoneSubject(),)
    )
    nothing = Shown(out="", err=f"No open proposal of session {shop.name} that we may see.\n", code=0)
    assert shop.scone("board", "list", "--session", shop.name) == nothing
    assert len(shop.scone.good("board", "list", "--session", shop.name, "--closed").splitlines()) == 2


def test_our_session_signing_key_decides_where_no_other_is_named(scone: Scone, shop: Shop) -> None:
    ours = scone.good("self", "show-session-signing-key")
    quoted = json.dumps(ours)
    text = f'version: "0.3.12"\nname: {shop.name}\naccess_policy: {{read: CREATOR}}\npolicy_board:\n'
    scone.write("own.yml", f"{text}  tolerated_faults: 0\n  members: [{{name: me, signer: {quoted}}}]\n")
    proposal = scone("board", "propose", "own.yml").out.strip()
    assert "me (you)" in scone.good("board", "review", proposal)
    assert scone.good("board", "approve", proposal, "--yes") == "applied\n"


def test_a_rejection_needs_a_reason_and_two_of_three_end_it(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    shown = shop.decide("reject", proposal, "alice")
    assert (shown.code, "say why: --reason TEXT" in shown.err) == (64, True)
    assert shop.decide("reject", proposal, "alice", "-r", "too wide").out == "open: 0 of 2 approvals\n"
    shown = shop.decide("approve", proposal, "alice")
    assert (shown.code, "cannot go back to" in shown.err) == (1, True)
    assert shop.decide("reject", proposal, "bob", "-r", "indeed").out == "rejected\n"
    shown = shop.scone("board", "status", proposal)
    assert (shown.out, shown.code) == ("rejected\n", 1)
    shown = shop.decide("approve", proposal, "carol")
    assert (shown.code, "the proposal is rejected; nothing is to be decided any more" in shown.err) == (1, True)


def test_an_approval_can_be_withdrawn(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    assert shop.decide("approve", proposal, "bob").out == "open: 1 of 2 approvals\n"
    assert shop.decide("withdraw", proposal, "bob").out == "open: 0 of 2 approvals\n"
    form = json.loads(shop.scone.good("board", "review", proposal, "--json"))
    assert [(one["name"], (one["decision"] or {}).get("choice")) for one in form["members"]] == [
        ("alice", None), ("bob", "withdraw"), ("carol", None),
    ]  # fmt: skip


def test_json_is_for_programs_everywhere(shop: Shop) -> None:
    shop.create()
    proposed = json.loads(shop.scone.good("board", "propose", shop.file(read="ANY"), "--json"))
    assert (proposed["state"], sorted(proposed)) == ("open", ["expires", "hash", "proposal", "state"])
    listed = json.loads(shop.scone.good("board", "list", "--session", shop.name, "--json"))
    assert [one["proposal"] for one in listed["proposals"]] == [proposed["proposal"]]
    counted = json.loads(shop.decide("approve", proposed["proposal"], "alice", "--json").out)
    assert counted == {
        "proposal": proposed["proposal"], "state": "open", "approvals": 1, "needed": 2, "apply_after": None,
    }  # fmt: skip
    status = json.loads(shop.scone.good("board", "status", proposed["proposal"], "--json"))
    assert (status["state"], status["approvals"]) == ("open", 1)
    board = json.loads(shop.scone.good("board", "show", shop.name, "--json"))
    assert (board["needed"], [one["name"] for one in board["members"]]) == (2, ["alice", "bob", "carol"])
    assert board["members"][1]["key"] == hashlib.sha256(shop.board.members["bob"].spki).hexdigest()
    review = json.loads(shop.scone.good("board", "review", shop.name, "--json"))
    key = json.loads(shop.scone.good("board", "key", *ALICE, "--json"))
    assert list(listed) == documented("board list")
    assert list(listed["proposals"][0]) == list(status) == documented("board status")
    assert list(review) == [*status, *documented("board review")]
    assert list(proposed) == documented("board propose")
    assert list(counted) == documented("board approve")
    assert list(board) == documented("board show")
    assert list(key) == documented("board key")


def documented(command: str) -> list[str]:
    """The members that the row of `command` in docs/cli.md names, in order: those of the outermost object."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    found = re.search(rf"^\| `{command}`[^|]*\| (.*) \|$", page, re.MULTILINE)
    assert found, f"docs/cli.md has no JSON of {command}"
    row = found[1].split(";")[0].removeprefix("the same, and ")
    return re.findall(r"\w+", re.sub(r"\[.*?\]", "", row.split(", each ")[0]))


def test_the_public_key_is_printed_from_wherever_the_key_lies(shop: Shop) -> None:
    for who, member in shop.board.members.items():
        assert shop.scone.good("board", "key", *key_of(who)) == member.pem
    form = json.loads(shop.scone.good("board", "key", "--key", "bob-public.pem", "--json"))
    assert form == {
        "key": hashlib.sha256(shop.board.members["bob"].spki).hexdigest(),
        "pem": shop.board.members["bob"].pem,
    }


def test_show_reads_a_session_or_a_file(shop: Shop) -> None:
    shop.create()
    shown = shop.scone.good("board", "show", shop.name)
    assert shown == shop.scone.good("board", "show", shop.file())
    assert shown.startswith("2 of 3 members decide together: one may be dishonest; one may be away\n  alice ")
    two = Board(members={name: shop.board.members[name] for name in ("alice", "bob")})
    tight = shop.scone("board", "show", shop.file(board=two))
    assert tight.out.startswith("2 of 2 members decide together: one may be dishonest; none may be away\n")
    note = "every member must approve, so that one lost key stops all changes for good"
    assert re.search(f"^Note: s.yml: line .*{note}$", tight.err, re.MULTILINE)
    proposed = shop.scone("board", "propose", shop.file(board=two))
    assert (proposed.code, note in proposed.err) == (0, True)
    plain = shop.scone.write("plain.yml", 'version: "0.3.12"\nname: x\n')
    assert "'plain.yml' names no policy board" in shop.scone("board", "show", plain).err
    assert shop.scone("board", "show", "not-there").code == 2


def test_what_waits_for_a_member_is_listed_by_its_key(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose("--note", "see below", read="ANY")
    listed = shop.scone.good("board", "list", "--waiting", *ALICE)
    assert re.fullmatch(rf"{proposal}  open  0/2  \S+Z  {shop.name}  see below\n", listed)
    for key in (BOB, ("--key", "bob-public.pem")):
        assert shop.scone.good("board", "list", "--waiting", *key) == listed
    nothing = shop.scone("board", "list", "--waiting", "--key", "mallory.pem")
    assert (nothing.code, nothing.out) == (0, "")
    assert re.fullmatch("No open proposal that we may see waits for the key [0-9a-f]{64}.\n", nothing.err)
    assert re.fullmatch(
        "No open proposal that we may see waits for the key [0-9a-f]{64}, our session signing key; name yours with "
        "--key.\n",
        shop.scone("board", "list", "--waiting").err,
    )
    shop.decide("approve", proposal, "alice")
    assert shop.scone("board", "list", "--waiting", *ALICE).out == ""


@contextlib.contextmanager
def waiting(shop: Shop, service: RunningService, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command in another process, once it waits for an answer of the service."""

    def hand_on(_path: str, answer: Answer) -> Answer:
        return answer

    with swapping_cas(shop.scone.directory, service, own_client(shop, shop.scone.directory), hand_on) as front:
        where = ("--cas", f"127.0.0.1:{front.port}", "--cas-ca", str(service.ca_file))
        command = [sys.executable, "-m", "ostiary", "board", *words, *where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while not any("wait=" in request for request in front.seen):
                assert process.poll() is None
                front.changed.wait(1)
                front.changed.clear()
            yield process


def test_a_list_can_be_waited_for(shop: Shop, service: RunningService) -> None:
    shop.create()
    with waiting(shop, service, "list", "--session", shop.name, "--wait", "300") as process:
        proposal = shop.propose(read="ANY")
        out, _ = process.communicate(timeout=120)
    assert (out.split("  ")[0], process.returncode) == (proposal, 0)
    assert shop.scone.good("board", "list", "--session", shop.name, "--wait", "300").startswith(proposal)
    listed = json.loads(shop.scone.good("board", "list", "--session", shop.name, "--json"))
    again = ("board", "list", "--session", shop.name, "--json", "--after", listed["cursor"], "--wait", "1")
    shown = shop.scone(*again)
    assert (json.loads(shown.out), shown.code) == (listed, 1), "nothing came"


def test_nothing_to_decide_is_failure_only_to_those_who_wait_for_it(shop: Shop) -> None:
    """So that `board list --waiting --wait 3600 && notify-send` tells nobody of nothing."""
    words = ("board", "list", "--waiting", "--key", "mallory.pem")
    shown = shop.scone(*words)
    assert (shown.out, shown.code) == ("", 0)
    shown = shop.scone(*words, "--wait", "1")
    assert (shown.out, shown.code) == ("", 1)


def test_the_end_of_a_proposal_can_be_waited_for(shop: Shop, service: RunningService) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    assert shop.scone.good("board", "status", proposal) == "open\n"
    shown = shop.scone("board", "status", proposal, "--wait", "1")
    assert (shown.out, shown.code) == ("open\n", 1), "`board status ID --wait 1 && deploy` deploys what was applied"
    with waiting(shop, service, "status", proposal, "--wait", "300") as process:
        shop.decide("approve", proposal, "alice")
        shop.decide("approve", proposal, "bob")
        out, _ = process.communicate(timeout=120)
    assert (out, process.returncode) == ("applied\n", 0)


@pytest.mark.parametrize("command", ["status", "list"])
def test_a_wait_outlasts_a_service_that_is_started_anew(shop: Shop, service: RunningService, command: str) -> None:
    """First it says that it is ending, then nobody answers, then it is there again: that is told once."""
    shop.create()
    proposal = shop.propose(read="ANY")
    listed = json.loads(shop.scone.good("board", "list", "--session", shop.name, "--json"))
    words = {
        "status": ("status", proposal, "--wait", "300"),
        "list": ("list", "--session", shop.name, "--after", listed["cursor"], "--wait", "300"),
    }[command]
    ending = threading.Event()

    def hand_on(_path: str, told: Answer) -> Answer:
        return Answer(status=503, body={"msg": ["the service is ending"]}) if ending.is_set() else told

    directory, own = shop.scone.directory, own_client(shop, shop.scone.directory)
    log = directory / "log"
    with log.open("w") as stderr, contextlib.ExitStack() as stack:
        with swapping_cas(directory, service, own, hand_on) as front:
            where = ("--cas", f"127.0.0.1:{front.port}", "--cas-ca", str(service.ca_file))
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "ostiary", "board", *words, *where],
                    stdout=subprocess.PIPE, stderr=stderr, text=True,
                )
            )  # fmt: skip
            while not any("wait=" in request for request in front.seen):
                assert process.poll() is None
                front.changed.wait(1)
                front.changed.clear()
            ending.set()
            shop.decide("approve", proposal, "alice")
            while "the service is ending" not in log.read_text():
                assert process.poll() is None
                time.sleep(0.05)
        shop.decide("approve", proposal, "bob")
        time.sleep(1.5)  # at least one try meets nobody; more or fewer change nothing of what must come out
        ending.clear()
        with swapping_cas(directory, service, own, hand_on, front.port):
            out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out == ("applied\n" if command == "status" else "")
    assert log.read_text().count("Warning: ") == 1
    assert f"CAS 127.0.0.1:{front.port} is away; asking again until the wait is over" in log.read_text()


NOBODY = ("--cas", "127.0.0.1:1", "--retries", "0")


@pytest.mark.parametrize("words", [("status", "ab" * 32), ("list",)])
def test_to_have_failed_is_another_code_than_an_answer_of_no(
    shop: Shop, service: RunningService, words: tuple[str, ...]
) -> None:
    """Or `board status ID --wait 60 || roll-back` would roll back for a broken network."""
    shown = shop.scone("board", *words, *NOBODY, "--cas-ca", str(service.ca_file))
    assert (shown.code, shown.out, "is away" in shown.err) == (69, "", False)
    shown = shop.scone("board", *words, *NOBODY, "--cas-ca", str(service.ca_file), "--wait", "3")
    assert (shown.code, shown.out, shown.err.count("is away; asking again")) == (69, "", 1)
    assert shop.scone("board", *words, "--cas", "127.0.0.1:1").code == 69, "nothing says how to know that CAS"


@pytest.mark.parametrize("words", [("show", "some-session"), ("review", "ab" * 32), ("status", "ab" * 32)])
def test_the_enclave_api_says_nothing_of_what_is_there(
    shop: Shop, service: RunningService, words: tuple[str, ...]
) -> None:
    wrong = ("--cas", f"127.0.0.1:{service.enclave_port}", "--cas-ca", str(service.ca_file))
    shown = shop.scone("board", *words, *wrong)
    assert (shown.code, shown.out) == (69 if words[0] == "status" else 1, "")
    assert "did not answer as a CAS does\nCaused by: no such path; this listener has" in shown.err
    assert "Caused by: a CAS has its client API on port 8081, unless it was told another" in shown.err


def test_a_decision_whose_outcome_cannot_be_printed_is_no_fault_of_the_program(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    command = [sys.executable, "-m", "ostiary", "board", "approve", proposal, "--yes", "--key"]
    for end, key, says in (
        (">/dev/full", ["ssh:alice@laptop"], "stdout cannot be written: No space left on device"),
        (">&-", ["bob.pem", "--pin-file", "bob-pin"], "stdout is closed, so that nothing can be written there"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {end}', "sh", *command, *key], cwd=shop.scone.directory,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == f"Error: {says}\nCaused by: the command itself was carried out\n"
    assert shop.scone.good("board", "status", proposal) == "applied\n"


def test_a_proposal_may_name_its_predecessor_itself(shop: Shop) -> None:
    """And is refused if that is not the current version any more, rather than put on top of it."""
    shop.create()
    current = parse_session(shop.current()).hash.hex()
    assert shop.propose(more=f"predecessor: {current}\n", read="ANY")
    shown = shop.scone("board", "propose", shop.file(more=f"predecessor: {'00' * 32}\n"))
    assert (shown.code, "is not the hash of the current version" in shown.err) == (1, True)


def test_a_key_of_no_member_is_refused_before_anything_is_signed(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    shown = shop.decide("approve", proposal, "mallory")
    assert (shown.code, shown.out) == (1, "")
    assert "key file mallory.pem is of no member who decides about this proposal" in shown.err
    assert "members: alice, bob, carol; name another key with --key" in shown.err


@pytest.mark.parametrize(("words", "says", "code"), [
    (("review", "ab" * 32), "Proposal not found", 2),
    (("approve", "ab" * 32, "--yes", "--key", "mallory.pem"), "Proposal not found", 2),
    (("review", "no-such-session"), "session 'no-such-session' has no open proposal, or not for us", 2),
    (("review", "no-such-session"), "`ostiary board list --session NAME --closed` has those that are closed", 2),
    (("status", "no-such-session"), "members with their own key in --identity", 2),
    (("approve", "no-such-session", "--yes"), "with --yes the proposal is named by its id", 64),
    (("approve", "x", "--reason", "x" * 1001), "--reason has 1001 characters", 64),
    (("propose", "s.yml", "--note", "x" * 1001), "--note has 1001 characters", 64),
    (("reject", "x", "--reason", " \t"), "say why: --reason TEXT", 64),
    (("reject", "x", "--reason", "caf\udce9"), "--reason is not UTF-8, at character 4", 64),
    (("propose", "s.yml", "--note", "caf\udce9"), "--note is not UTF-8, at character 4", 64),
    (("propose", "signed.json"), "is signed, and a policy board decides about the session", 1),
    (("list", "--closed"), "--closed goes with --session NAME", 64),
    (("list", "--wait", "soon"), "--wait soon: expected a number of seconds", 64),
    (("status", "x", "--wait", "99999999999"), "expected a number of seconds from 0 to 31622400", 64),
    (("review", "x", "--key", "pkcs11:object=a?pin-value=1"), "where everyone on this machine can read it", 1),
])  # fmt: skip
def test_what_cannot_be_done_is_said_with_its_exit_code(
    shop: Shop, words: tuple[str, ...], says: str, code: int
) -> None:
    plain = shop.scone.write("plain.yml", 'version: "0.3.12"\nname: p\naccess_policy: {read: ANY}\n')
    shop.scone.write("signed.json", shop.scone.good("session", "sign", plain))
    shop.file()
    shown = shop.scone("board", *words)
    assert (shown.code, shown.out) == (code, "")
    assert says in shown.err


def test_a_session_with_several_open_proposals_is_not_a_name_for_one(shop: Shop) -> None:
    shop.create()
    ids = {shop.propose("--note", note, read="ANY") for note in ("one", "two")}
    shown = shop.scone("board", "review", shop.name)
    assert (shown.code, "has 2 open proposals; give the id of one" in shown.err) == (1, True)
    assert all(one in shown.err for one in ids)
    assert re.search(r"\d\d:\d\d  one\n", shown.err), "their notes tell them apart"


def test_an_unauthenticated_cas_is_not_signed_for(shop: Shop, service: RunningService) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    unverified = (
        "--cas",
        f"localhost:{service.client_port}",
        "--only_for_testing-disable-attestation-verification",
    )
    shown = shop.decide("approve", proposal, "alice", *unverified)
    assert (shown.code, "this one is known by none" in shown.err) == (1, True)


def test_a_time_lock_is_shown_and_waited_for(shop: Shop, service: RunningService) -> None:
    board = Board(members=shop.board.members, more="time_lock: 2d")
    first = shop.propose(board=board)
    assert shop.decide("approve", first, "alice").out == "open: 1 of 2 approvals\n"
    approved = shop.decide("approve", first, "bob").out
    when = re.fullmatch(r"approved: takes effect (\d{4}-\d\d-\d\d) (\d\d:\d\d) UTC\n", approved)
    assert when, approved
    assert shop.scone.good("board", "status", first) == approved
    again = json.loads(shop.decide("approve", first, "bob", "--json").out)
    assert (again["state"], again["apply_after"][:16]) == ("approved", f"{when[1]}T{when[2]}")
    last = shop.scone.good("board", "review", first).splitlines()[-1]
    assert re.fullmatch(r"Takes effect at .* UTC \((1 d 23 h|2 d 0 h) left\) unless members change their minds", last)
    assert shop.decide("withdraw", first, "bob").out == "open: 1 of 2 approvals\n"
    assert shop.decide("approve", first, "carol").out.startswith("approved: takes effect ")
    service.clock.ahead = timedelta(days=2, minutes=1)
    try:
        assert shop.scone.good("board", "status", first) == "applied\n"
    finally:
        service.clock.ahead = timedelta(0)


def test_a_namespace_whose_board_decides_creation_is_asked_beside_the_new_board(shop: Shop) -> None:
    more = "on: [update, create_sessions]"
    first = shop.propose(board=Board(members=shop.board.members, more=more))
    for who in ("alice", "bob"):
        shop.decide("approve", first, who)
    dan = ed25519_key()
    shop.scone.write("dan.pem", pem(dan))
    below = replace(shop, name=f"{shop.name}/below")
    own = Board(members={"dan": Person(key=dan), "alice": shop.board.members["alice"]})
    proposal = below.propose(board=own)
    page = shop.scone.good("board", "review", proposal, "--key", "dan.pem")
    assert page.startswith(f"First version of session {below.name}: open\n")
    assert [line.split()[0] for line in page.splitlines() if line.endswith("[namespace] -")] == [
        "alice",
        "bob",
        "carol",
    ]
    assert "\n  dan (you)        vote                   -\n" in page
    for who in ("alice", "bob"):
        assert shop.decide("approve", proposal, who).out.startswith("open: ")
    done = shop.scone("board", "approve", proposal, "--yes", "--key", "dan.pem")
    assert (done.out, done.code) == ("applied\n", 0)


def test_a_member_whose_key_is_a_secret_of_another_session_decides(shop: Shop) -> None:
    """As of a checker, whose key nobody has but its program: it is shown with the key that the service found."""
    key = ed25519_key()
    shop.scone.write("checker.pem", pem(key))
    value = json.dumps(pem(key))
    keys = f"""\
version: "0.3.12"
name: {shop.name}-keys
access_policy: {{read: CREATOR, update: CREATOR}}
secrets:
- {{name: seed, kind: private-key, key_type: Ed25519, value: {value}}}
- {{name: checker, kind: public-key, private_key: seed, export: [{{session: {shop.name}}}]}}
"""
    shop.scone.good("session", "create", shop.scone.write("keys.yml", keys))
    imports = f"secrets: [{{name: k, kind: public-key, import: {{session: {shop.name}-keys, secret: checker}}}}]\n"
    board = VariableBoard(members=shop.board.members)
    first = shop.propose(board=board, more=imports)
    assert "  checker          alone: reject          -\n" in shop.scone.good("board", "review", first)
    shown = shop.scone("board", "reject", first, "--yes", "--key", "checker.pem", "--reason", "no")
    assert (shown.out, shown.code) == ("rejected\n", 0)


@dataclass(frozen=True, kw_only=True)
class VariableBoard(Board):
    """A board with one more member, whose key is secret `k` of the session."""

    @property
    def yaml(self) -> str:
        return f"{super().yaml}  - name: checker\n    signer: $$SCONE::k$$\n    power: reject\n  time_lock: 1 day\n"


# --- the attack ------------------------------------------------------------------------------------------------------


def test_a_proposal_swapped_after_review_is_refused_before_the_key_is_asked_for(
    shop: Shop, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front of the CAS was taken over; it shows another text, and another hash, under the id that was reviewed."""
    shop.create()
    reviewed = shop.propose(read="NONE")
    evil = parse_session(
        shop.scone.directory.joinpath("s.yml").read_text().replace("{read: NONE}", "{read: ANY}")
        + f"predecessor: {json.loads(shop.scone.good('board', 'review', reviewed, '--json'))['predecessor']}\n"
    )

    def swap(path: str, answer: Answer) -> Answer:
        if path != f"/v1/proposals/{reviewed}":
            return answer
        return replace(answer, body={**answer.body, "session_text": evil.text, "hash": evil.hash.hex()})

    asked: list[str] = []
    monkeypatch.setattr(Terminal, "secret", lambda _, what: asked.append(what))
    monkeypatch.setattr(Terminal, "confirm", lambda _, question, word="yes": asked.append(question))
    ours = own_client(shop, tmp_path)
    with swapping_cas(tmp_path, service, ours, swap) as front:
        where = ("--cas", f"127.0.0.1:{front.port}", "--cas-ca", str(service.ca_file))
        for words in (("--key", "bob.pem"), (*BOB, "--yes"), ALICE):
            shown = shop.scone("board", "approve", reviewed, *words, *where)
            assert (shown.code, shown.out) == (65, "")
            assert "the proposal was swapped: what is shown is not what its id says" in shown.err
        assert shop.scone("board", "review", reviewed, *where).code == 65
        assert not [one for one in front.seen if one.startswith("POST")]
    assert asked == []
    assert shop.scone.good("board", "status", reviewed) == "open\n"


def test_another_proposal_in_place_of_the_reviewed_one_is_refused(
    shop: Shop, service: RunningService, tmp_path: Path
) -> None:
    shop.create()
    reviewed, other = shop.propose(read="NONE"), shop.propose(read="ANY")
    ours = own_client(shop, tmp_path)
    answers: dict[str, Answer] = {}

    def swap(path: str, answer: Answer) -> Answer:
        answers[path] = answer
        return answers.get(f"/v1/proposals/{other}", answer)

    with swapping_cas(tmp_path, service, ours, swap) as front:
        where = ("--cas", f"127.0.0.1:{front.port}", "--cas-ca", str(service.ca_file))
        assert shop.scone("board", "review", other, *where).code == 0
        shown = shop.scone("board", "approve", reviewed, "--yes", *BOB, *where)
    assert (shown.code, f"asked for {reviewed}" in shown.err) == (65, True)


def test_a_proposal_of_another_session_than_was_named_is_refused(
    shop: Shop, service: RunningService, tmp_path: Path
) -> None:
    """Whoever types the name of a harmless session must not be shown, and asked for, a change of another."""
    shop.create()
    shop.propose(read="ANY")
    ours = own_client(shop, tmp_path)
    listed = ours.request(service.client_port, "GET", f"/v1/proposals?session={shop.name}")

    def swap(path: str, answer: Answer) -> Answer:
        return listed if path.startswith("/v1/proposals?") else answer

    with swapping_cas(tmp_path, service, ours, swap) as front:
        where = ("--cas", f"127.0.0.1:{front.port}", "--cas-ca", str(service.ca_file))
        for command in ("review", "status"):
            shown = shop.scone("board", command, "harmless", *where)
            assert (shown.code, shown.out) == (65, "")
            assert f"the CAS shows a proposal of session '{shop.name}' as one of session 'harmless'" in shown.err


def test_a_proposal_of_another_cas_is_refused_whoever_shows_it(
    shop: Shop, service: RunningService, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A decision for one CAS must not be had by showing its proposals at another."""
    shop.create()
    proposal = shop.propose(read="ANY")
    stolen = own_client(shop, tmp_path).request(service.client_port, "GET", f"/v1/proposals/{proposal}")
    with (
        running_service(tmp_path_factory.mktemp("second") / "data") as second,
        swapping_cas(tmp_path, second, own_client(shop, tmp_path), lambda _path, _answer: stolen) as front,
    ):
        where = ("--cas", f"127.0.0.1:{front.port}", "--cas-ca", str(second.ca_file))
        shown = shop.scone("board", "approve", proposal, "--yes", *BOB, *where)
        assert (shown.code, "of another CAS than the one that was asked" in shown.err) == (65, True)
        reviewed = rest_client(shop, service).proposal(proposal)
        key = KnownKey(name="bob", key=shop.board.members["bob"].key)
        with pytest.raises(SwappedError, match="the proposal is of another CAS than this one"):
            rest_client(shop, second).decide(reviewed, Choice.APPROVE, key=key)


def test_a_key_whose_signature_does_not_hold_sends_nothing(shop: Shop, service: RunningService) -> None:
    class Broken:
        spki = spki(ed25519_key())

        def sign(self, message: bytes) -> bytes:
            return bytes(64)

    shop.create()
    proposal = shop.propose(read="ANY")
    client = rest_client(shop, service)
    with pytest.raises(OutsideError, match="its signature does not hold; nothing was sent"):
        client.decide(client.proposal(proposal), Choice.APPROVE, key=Broken())


def rest_client(shop: Shop, service: RunningService) -> RestClient:
    """The SDK, for us."""
    return RestClient(
        parse_address(f"127.0.0.1:{service.client_port}"),
        anchors=service.ca_file.read_text(),
        identity=identity(shop),
        retries=0,
    )


def identity(shop: Shop) -> str:
    text = json.loads((shop.scone.directory / "config.json").read_text())["identity"]
    assert isinstance(text, str)
    return text


def own_client(shop: Shop, directory: Path) -> Client:
    (directory / "ours.pem").write_text(identity(shop))
    return Client(certificate=directory / "ours.pem", key=directory / "ours.pem")


# --- at a terminal ---------------------------------------------------------------------------------------------------


def test_the_person_sees_the_page_then_confirms_and_gives_the_passphrase_last(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    words = ("board", "approve", shop.name, "--key", "bob.pem", "--reason", "fine")
    done = talk(words, shop.scone.directory, [("to go on: ", "yes"), ("Passphrase of key file bob.pem: ", PASSPHRASE)])
    assert (done.code, done.out) == (0, "open: 1 of 2 approvals\n")
    places = done.order("RISKS: 1", "Members:", "To be decided", "Type yes to go on:", "Passphrase of key file")
    assert places == sorted(places)
    assert PASSPHRASE not in done.screen
    assert len(done.screen.splitlines()) <= 24
    assert shop.scone.good("board", "status", proposal) == "open\n"


def test_a_card_is_asked_by_its_pin_after_the_confirmation(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    words = ("board", "approve", proposal, "--key", tokens().uri("carol"))
    answers = [("Approve as carol, with 1 risk? Type yes", "yes"), ("PIN of PKCS#11 key 'carol'", PIN)]
    done = talk(words, shop.scone.directory, answers)
    assert (done.code, done.out) == (0, "open: 1 of 2 approvals\n")


def test_whoever_does_not_confirm_is_never_asked_for_the_key(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    for answer in ("no", "", "y", END):
        done = talk(("board", "approve", proposal, "--key", "bob.pem"), shop.scone.directory, [("to go on: ", answer)])
        assert (done.code, done.out) == (1, "")
        assert "not confirmed, so nothing was done" in done.screen
        assert "Passphrase" not in done.screen


def test_no_passphrase_is_a_wrong_one(shop: Shop) -> None:
    shop.create()
    proposal = shop.propose(read="ANY")
    for passphrase in ("", "wrong", END):
        answers = [("to go on: ", "yes"), ("Passphrase of key file bob.pem: ", passphrase)]
        done = talk(("board", "approve", proposal, "--key", "bob.pem"), shop.scone.directory, answers)
        assert (done.code, done.out) == (1, "")
        assert "the passphrase is wrong" in done.screen


def test_breaking_the_glass_is_confirmed_by_its_own_word(shop: Shop) -> None:
    board = Board(members=shop.board.members, more="break_glass: 3")
    first = shop.propose(board=board)
    for who in ("alice", "bob"):
        shop.decide("approve", first, who)
    proposal = shop.propose("--break-glass", read="ANY", board=board)
    words = ("board", "approve", proposal, *ALICE)
    done = talk(words, shop.scone.directory, [("Type break-glass to go on: ", "yes")])
    assert (done.code, "BREAK-GLASS: past every rejection" in done.screen) == (1, True)
    done = talk(words, shop.scone.directory, [("Type break-glass to go on: ", "break-glass")])
    assert (done.code, done.out) == (0, "open: 1 of 3 approvals\n")
    shown = shop.decide("approve", proposal, "bob")
    assert (shown.code, "give --break-glass beside --yes" in shown.err) == (64, True)
    assert shop.decide("approve", proposal, "bob", "--break-glass").out == "open: 2 of 3 approvals\n"
    assert shop.decide("approve", proposal, "carol", "--break-glass").out == "applied\n"


def test_who_broke_the_glass_is_loud_in_the_log_for_ever(
    shop: Shop, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read with `ostiary store log` beside the running service."""
    board = Board(members=shop.board.members, more="break_glass: 3")
    for words, changed in (((), {}), (("--break-glass",), {"read": "ANY"})):
        proposal = shop.propose(*words, board=board, **changed)
        for who in ("alice", "bob", "carol"):
            shop.decide("approve", proposal, who, *words)
    found = ("--data", str(service.ca_file.parent), "--session", shop.name)
    monkeypatch.setattr(sys, "argv", ["ostiary", "store", "log", *found])
    with contextlib.suppress(SystemExit):
        ostiary_program.main()
    lines = [line.split() for line in shop.scone.capsys.readouterr().out.splitlines()]
    quiet = [line[1] for line in lines if "BREAK-GLASS" not in line]
    assert quiet == ["proposal_created", "proposal_decided", "session_created", "proposal_closed"]
    loud = [line for line in lines if line[1] == "BREAK-GLASS"]
    assert [line[2] for line in loud] == [
        "proposal_created", "proposal_decided", "proposal_decided", "session_updated", "proposal_closed",
    ]  # fmt: skip
    assert all(f"proposal={proposal[:16]}…" in line for line in loud)
    assert ("state=open" in loud[1], "choice=approve" in loud[1]) == (True, True)


def test_without_a_terminal_nobody_is_asked_and_nothing_is_done(shop: Shop) -> None:

    shop.create()
    proposal = shop.propose(read="ANY")
    for words, says in (
        ((*ALICE,), "there is no terminal to ask anybody at\nCaused by: --yes confirms without asking"),
        (("--yes", "--key", "bob.pem"), "there is no terminal to ask anybody at\nCaused by: --pin-file FILE names"),
    ):
        done = subprocess.run(
            ["setsid", "--wait", sys.executable, "-m", "ostiary", "board", "approve", proposal, *words],
            cwd=shop.scone.directory, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
