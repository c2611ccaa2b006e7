"""The checker's loop against a service in memory: what it signs, what it leaves alone, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
from tests.simulators.board import ANN, BEN, CEM, boarded
from tests.simulators.proposals import CAS_ID, Json, follows, member, showing, summary_of

from ostiary.board import Choice, VerifiedDecision, decision_message, verify_decision
from ostiary.board.proposal import State
from ostiary.board.shown import Proposal, read_summary, verify_facts, verify_shown
from ostiary.checker.expression import judge
from ostiary.checker.rules import Rules, parse_rules
from ostiary.checker.watch import FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, POLL_SECONDS, Checker, Event, Place, review
from ostiary.client import Counted, Listed
from ostiary.errors import (
    ConfigurationError,
    ConflictError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OstiaryError,
    OutsideError,
)
from ostiary.member_key import KnownKey, MemberKey

CAS = bytes.fromhex(CAS_ID)
KEY = KnownKey(name="the checker's", key=CEM.key)
RULES = parse_rules("""
version: 1
rules:
- ready: no-debug-mode
- name: says-why
  must: proposal.note != ""
  says: a change needs a note
""")
BEFORE = boarded("app")
HARMLESS = follows(boarded("app", images="[{name: more}]"), BEFORE)
BAD = follows(boarded("app", security="{attestation: {tolerate: [debug-mode]}}"), BEFORE)


def shown(after: str = HARMLESS, before: str | None = BEFORE, note: str = "why", **changed: object) -> Json:
    members = [member("ann", ANN), member("ben", BEN), member("cem", CEM)]
    return showing(after, before, members=members, note=note, **changed)


@dataclass
class Board:
    """A service with these proposals, which knows what was decided. trouble: raised by a method, once each."""

    answers: dict[str, Json] = field(default_factory=dict)
    decided: dict[str, VerifiedDecision] = field(default_factory=dict)
    trouble: list[tuple[str, OstiaryError]] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)

    def add(self, answer: Json, at: str | None = None) -> str:
        self.answers[at or answer["proposal"]] = answer
        return str(at or answer["proposal"])

    def _stumble(self, method: str) -> None:
        if self.trouble and self.trouble[0][0] == method:
            raise self.trouble.pop(0)[1]

    def proposals(self, *, waiting_for: bytes | None = None, after: str | None = None, wait_seconds: int = 0) -> Listed:
        self.asked.append(after)
        assert wait_seconds == (0 if after is None else POLL_SECONDS)
        self._stumble("proposals")
        waiting = [answer for name, answer in self.answers.items() if name not in self.decided]
        listed = tuple(read_summary(summary_of(answer)) for answer in waiting)
        return Listed(proposals=listed, cursor=",".join(one.proposal for one in listed) or "none")

    def proposal(self, proposal: str) -> Proposal:
        self._stumble("proposal")
        return verify_shown(self.answers[proposal], asked=proposal, cas=CAS)

    def decide(self, proposal: Proposal, choice: Choice, *, key: MemberKey, reason: str = "") -> Counted:
        self._stumble("decide")
        signature = key.sign(decision_message(proposal.facts, choice, reason))
        self.decided[proposal.id] = verify_decision(
            proposal.facts, signer=key.spki, choice=choice, reason=reason, signature=signature
        )
        return Counted(state=State.OPEN, approvals=1, needed=2)

    def reject_unread(self, proposal: str, *, key: MemberKey, reason: str) -> Counted:
        facts = verify_facts(self.answers[proposal], asked=proposal, cas=CAS)
        signature = key.sign(decision_message(facts, Choice.REJECT, reason))
        self.decided[proposal] = verify_decision(
            facts, signer=key.spki, choice=Choice.REJECT, reason=reason, signature=signature
        )
        return Counted(state=State.REJECTED, approvals=0, needed=2)


def no_lists() -> Mapping[str, tuple[str, ...] | InputError]:
    return {}


def checker(board: Board, events: list[Event], rules: Rules = RULES) -> Checker:
    return Checker(
        service=board,
        key=KEY,
        rules=rules,
        lists=no_lists,
        say=events.append,
        judge=lambda expressions, variables: tuple(judge(expressions, variables)),
    )


def turn(board: Board, rules: Rules = RULES) -> list[Event]:
    events: list[Event] = []
    checker(board, events, rules).turn(Place())
    return events


def choices(board: Board) -> dict[str, Choice]:
    return {name: one.choice for name, one in board.decided.items()}


def test_what_keeps_the_rules_is_approved_with_the_members_signature() -> None:
    board = Board()
    proposal = board.add(shown())
    [event] = turn(board)
    decision = board.decided[proposal]
    assert (decision.choice, decision.key) == (Choice.APPROVE, CEM.spki)
    assert decision.reason == "all rules hold: no-debug-mode, says-why"
    assert (event.proposal, event.session, event.told) == (proposal, "app", "it is open")


def test_what_breaks_rules_is_rejected_and_they_are_named_in_the_signed_reason() -> None:
    board = Board()
    proposal = board.add(shown(BAD, note=""))
    [event] = turn(board)
    assert choices(board) == {proposal: Choice.REJECT}
    assert "no-debug-mode: programs in debug mode" in board.decided[proposal].reason
    assert "says-why: a change needs a note" in board.decided[proposal].reason
    assert event.verdict is not None
    assert event.verdict.fired == ("no-debug-mode", "says-why")


def test_all_that_waits_is_decided_each_by_itself() -> None:
    board = Board()
    good, bad = board.add(shown()), board.add(shown(BAD))
    turn(board)
    assert choices(board) == {good: Choice.APPROVE, bad: Choice.REJECT}


def test_a_first_version_is_judged_too() -> None:
    board = Board()
    members = [member(name, one, board="own") for name, one in (("ann", ANN), ("ben", BEN), ("cem", CEM))]
    proposal = board.add(showing(BEFORE, members=members, note="the first"))
    turn(board)
    assert choices(board) == {proposal: Choice.APPROVE}


def test_a_break_glass_proposal_is_judged_like_any_other() -> None:
    board = Board()
    proposal = board.add(shown(BAD, break_glass=True))
    turn(board)
    assert choices(board) == {proposal: Choice.REJECT}


def test_a_checker_that_does_not_approve_leaves_to_others_what_keeps_its_rules() -> None:
    board = Board()
    rules = parse_rules("{version: 1, approve: false, rules: [{ready: no-debug-mode}]}")
    good, bad = board.add(shown()), board.add(shown(BAD))
    events = turn(board, rules)
    assert choices(board) == {bad: Choice.REJECT}
    assert [(event.proposal, event.told) for event in events] == [(good, "not decided"), (bad, "it is open")]


def swapped_text(answer: Json) -> Json:
    return {**answer, "session_text": shown(BAD)["session_text"]}


def another_note(answer: Json) -> Json:
    return {**answer, "note": "another"}


def another_cas(answer: Json) -> Json:
    return {**answer, "cas": "ab" * 32}


@pytest.mark.parametrize("swap", [swapped_text, another_note, another_cas])
def test_nothing_is_signed_about_what_the_id_does_not_say(swap: Callable[[Json], Json]) -> None:
    board = Board()
    answer = shown()
    board.add(swap(answer), at=answer["proposal"])
    [event] = turn(board)
    assert not board.decided
    assert event.verdict is None
    assert event.told.startswith("not decided: ")


def test_a_session_that_cannot_be_read_is_rejected_and_not_passed_over() -> None:
    """Silence would let the others approve it without the checker."""
    board = Board()
    answer = shown()
    unread = board.add({**answer, "session_text": answer["session_text"] + "from_the_future: true\n"})
    other = board.add(shown(BAD))
    turn(board)
    assert choices(board) == {unread: Choice.REJECT, other: Choice.REJECT}
    assert board.decided[unread].reason.startswith("rejected unread: the proposal's session_text is not a session")


def test_not_even_unread_is_anything_signed_that_the_id_does_not_say() -> None:
    board = Board()
    answer = shown()
    board.add({**answer, "session_text": "what: ever", "note": "swapped"}, at=answer["proposal"])
    [event] = turn(board)
    assert not board.decided
    assert "the proposal was swapped" in event.told


@pytest.mark.parametrize(
    ("method", "error", "told"),
    [
        ("decide", ConflictError("the proposal is applied"), "closed in the meantime: the proposal is applied"),
        ("proposal", NotFoundError("Proposal not found"), "closed in the meantime: Proposal not found"),
        ("decide", NotAuthorizedError("no member has this key"), "the decision was refused: no member has this key"),
        ("decide", InputError("the reason is too long"), "the decision was refused: the reason is too long"),
    ],
)
def test_what_concerns_one_proposal_keeps_nothing_from_the_next(method: str, error: OstiaryError, told: str) -> None:
    board = Board(trouble=[(method, error)])
    first, second = board.add(shown()), board.add(shown(BAD))
    events = turn(board)
    assert choices(board) == {second: Choice.REJECT}
    assert (events[0].proposal, events[0].told, events[0].verdict) == (first, told, None)


def test_closed_proposals_that_are_listed_are_left_alone() -> None:
    board = Board()
    board.add(shown(state="superseded"))
    assert not turn(board)
    assert not board.decided


class Enough(Exception):  # noqa: N818 - the test has seen enough
    pass


def running(board: Board, turns: int) -> tuple[list[Event], list[float]]:
    """The events and pauses of so many lists."""
    events: list[Event] = []
    pauses: list[float] = []
    real = board.proposals

    def counted(**asked: object) -> Listed:
        if len(board.asked) == turns:
            raise Enough
        return real(**asked)  # type: ignore[arg-type]

    board.proposals = counted  # type: ignore[method-assign]
    with pytest.raises(Enough):
        checker(board, events).run(wait=pauses.append)
    return events, pauses


def test_what_was_refused_is_tried_again_with_the_next_list() -> None:
    """A member whose key is a variable may be unknown for a while."""
    board = Board()
    proposal = board.add(shown())
    board.trouble = [("decide", NotAuthorizedError("not yet"))]
    events, pauses = running(board, 2)
    assert [event.told for event in events] == ["the decision was refused: not yet", "it is open"]
    assert choices(board) == {proposal: Choice.APPROVE}
    assert not pauses


def test_what_was_left_is_not_looked_at_again_when_the_list_changes() -> None:
    board = Board()
    rules = parse_rules("{version: 1, approve: false, rules: [{ready: no-debug-mode}]}")
    good = board.add(shown())
    events: list[Event] = []
    place = checker(board, events, rules).turn(Place())
    assert place.left == {good}
    bad = board.add(shown(BAD))
    place = checker(board, events, rules).turn(place)
    assert [event.proposal for event in events] == [good, bad]
    del board.answers[good]
    assert checker(board, events, rules).turn(place).left == frozenset()


def test_a_connection_that_is_lost_is_waited_for_ever_longer_and_all_that_waits_is_asked_for_anew() -> None:
    board = Board(trouble=[("proposals", OutsideError("cannot connect"))] * 9)
    proposal = board.add(shown())
    events, pauses = running(board, 10)
    assert pauses == [FIRST_WAIT_SECONDS * 2**at if 2**at < MAX_WAIT_SECONDS else MAX_WAIT_SECONDS for at in range(9)]
    assert board.asked == [None] * 10
    assert events[0].told == "cannot connect; trying again in 1 s"
    assert choices(board) == {proposal: Choice.APPROVE}


def test_what_failed_on_the_way_is_decided_by_the_next_list() -> None:
    board = Board(trouble=[("proposal", OutsideError("the connection broke"))])
    proposal = board.add(shown())
    events, pauses = running(board, 2)
    assert pauses == [FIRST_WAIT_SECONDS]
    assert [event.told for event in events] == [
        f"proposal {proposal}: the connection broke; trying again in 1 s",
        "it is open",
    ]
    assert choices(board) == {proposal: Choice.APPROVE}


def test_no_proposal_keeps_the_checker_from_the_others() -> None:
    """Two that the service cannot show, ahead of two that it can; then it can show one of them after all."""
    board = Board()
    stuck, second = board.add(shown(note="1")), board.add(shown(note="2"))
    good, bad = board.add(shown(note="3")), board.add(shown(BAD))
    hidden = {stuck, second}
    real = board.proposal

    def partly(proposal: str) -> Proposal:
        if proposal in hidden:
            raise OutsideError("the answer is too long")
        return real(proposal)

    board.proposal = partly  # type: ignore[method-assign]
    events: list[Event] = []
    watching = checker(board, events)
    place = watching.turn(Place())
    assert (place.cursor, place.late) == (None, (stuck,))
    place = watching.turn(place)
    assert (place.cursor, place.late) == (None, (stuck, second))
    assert place.trouble == f"proposal {second}: the answer is too long"
    place = watching.turn(place)
    assert choices(board) == {good: Choice.APPROVE, bad: Choice.REJECT}
    assert place.late == (second, stuck)
    hidden.remove(second)
    place = watching.turn(place)
    assert second in board.decided
    assert place.late == (stuck,)
    del board.answers[stuck]
    place = watching.turn(place)
    assert (place.late, place.trouble, place.cursor) == ((), "", "none")


def test_after_a_turn_that_went_well_the_pauses_begin_anew() -> None:
    lost = ("proposals", OutsideError("lost"))
    board = Board(trouble=[lost, lost])
    events: list[Event] = []
    pauses: list[float] = []
    real = board.proposals

    def once_more(**asked: object) -> Listed:
        if len(board.asked) == 3:
            board.trouble = [lost]
        if len(board.asked) == 4:
            raise Enough
        return real(**asked)  # type: ignore[arg-type]

    board.proposals = once_more  # type: ignore[method-assign]
    with pytest.raises(Enough):
        checker(board, events).run(wait=pauses.append)
    assert pauses == [1.0, 2.0, 1.0]


def test_what_only_a_person_can_mend_ends_the_checker() -> None:
    board = Board(trouble=[("proposals", ConfigurationError("the CAS is not known"))])
    with pytest.raises(ConfigurationError, match="the CAS is not known"):
        checker(board, []).run(wait=lambda _: None)


def test_what_was_left_is_judged_anew_by_a_newer_list() -> None:
    """Also one that expired: whatever it let pass, as long as others have not decided, is rejected now."""
    rules = parse_rules(
        "version: 1\napprove: false\nlists:\n- name: releases\n  file: r.txt\n  signer: "
        f"{ANN.quoted}\nrules:\n- {{ready: only-listed-measurements, list: releases}}\n"
    )
    board = Board()
    good = board.add(shown())
    events: list[Event] = []
    lists: dict[str, tuple[str, ...] | InputError] = {"releases": ("ab" * 32,)}
    watching = replace(checker(board, events, rules), lists=lambda: dict(lists))
    place = watching.turn(watching.turn(Place()))
    assert (place.left, len(events)) == (frozenset({good}), 1)
    lists["releases"] = InputError("list releases (r.txt): it expired")
    assert watching.turn(place).left == frozenset()
    assert choices(board) == {good: Choice.REJECT}


def test_a_rule_whose_list_does_not_hold_now_rejects() -> None:
    rules = parse_rules(
        "version: 1\nlists:\n- name: releases\n  file: r.txt\n  signer: "
        f"{ANN.quoted}\nrules:\n- {{ready: only-listed-measurements, list: releases}}\n- ready: no-debug-mode\n"
    )
    answer = shown()
    proposal = verify_shown(answer, asked=answer["proposal"], cas=CAS)
    broken = InputError("list releases (r.txt): it expired")
    verdict = review(proposal, rules, lambda: {"releases": broken})
    assert (verdict.choice, verdict.fired) == (Choice.REJECT, ("only-listed-measurements",))
    assert "it expired" in verdict.reason
    assert review(proposal, rules, lambda: {"releases": ("ab" * 32,)}).choice is Choice.APPROVE
