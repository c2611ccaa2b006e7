"""A proposal, or a board, as a page for a person with little time: the risk first. Pure.

A page of an ordinary change fits a terminal of 80 by 24. Where it would not, changes that are no risk are cut, members
that have not decided, their reasons, and the note, which may not push the rest away; what is left out is counted. Risks
never are, nor is a measurement, a key, or what a member has decided. What no page has, values of variables and files,
stands in the text, and the page says how to get that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from ostiary.board import Choice
from ostiary.board.proposal import State
from ostiary.board.shown import Member, Proposal, Seat, Summary, key_hash
from ostiary.cli.terminal import printable
from ostiary.session import BoardMember, PolicyBoard, SignerSubject
from ostiary.session.diff import show_creator
from ostiary.session.duration import show_duration

COLUMNS = 80
PAGE_ROWS = 22
"""A terminal has 24; one is for what was typed, one for a question."""
NOTE_ROWS = 3
REASON_ROWS = 2
FEWEST_CHANGES = 3
"""Rows, as the next one."""
FEWEST_MEMBERS = 3
MOMENT = "%Y-%m-%d %H:%M UTC"

_NAME_COLUMNS = 16
_PAST = {Choice.APPROVE: "approved", Choice.WITHDRAW: "withdrew", Choice.REJECT: "rejected"}
_SEATS = {Seat.CURRENT: "", Seat.NAMESPACE: "[namespace] ", Seat.OWN: ""}


def review_page(proposal: Proposal, *, now: datetime, own: bytes | None = None, whole: bool = False) -> str:
    """The page. now: UTC. own: our key, DER SubjectPublicKeyInfo, to mark which member we are."""
    head = list(_head(proposal))
    risks = list(_risks(proposal))
    changes = [_item(text) for text in _other_changes(proposal)]
    members = [_member(one, own, whole=whole) for one in _by_decision(proposal.members, own)]
    tail = [*_origin(proposal, whole=whole), *_deadline(proposal, now)]
    room = PAGE_ROWS - len(head) - len(risks) - len(tail) - 3  # the titles of changes and members, and an empty line
    of_changes, of_members = (sum(len(item) for item in items) for items in (changes, members))
    if whole:
        room = of_changes + of_members
    member_rows = min(of_members, max(FEWEST_MEMBERS, room - of_changes, room // 2))
    if member_rows < of_members:
        # Rather many decisions than the reasons of a few.
        members = [_decision_alone(lines) for lines in members]
        member_rows = min(len(members), member_rows)
    change_rows = max(FEWEST_CHANGES, room - member_rows)
    lines = [
        *head,
        *risks,
        *_part("Other changes", changes, change_rows, "more, none of them a risk"),
        *_part(_count(proposal), members, member_rows, "more"),
        "",
        *tail,
    ]
    return "\n".join(lines) + "\n"


def board_page(board: PolicyBoard) -> str:
    """Who decides, and how."""
    lines = [
        *_quorum(board),
        *(f"  {one.name:{_NAME_COLUMNS}} {_power(one):16} {_key(one)}" for one in board.members),
        f"Decides: {', '.join(sorted(board.on))}",
        f"Proposals are open for {show_duration(board.decide_within)}",
    ]
    if board.time_lock:
        lines.append(f"A change takes effect {show_duration(board.time_lock)} after the deciding approval")
    if board.break_glass is not None:
        lines.append(f"Break-glass: {board.break_glass} members may act whatever others reject")
    lines += [f"Told of proposals: {url}" for url in board.notify]
    return "".join(f"{printable(line)}\n" for line in lines)


def list_lines(listed: Iterable[Summary]) -> str:
    """A line for each proposal, its fields apart by two spaces, the note last."""
    lines = []
    for one in listed:
        glass = "  BREAK-GLASS" if one.break_glass else ""
        fields = (one.proposal, one.state, _progress(one), f"{one.expires:%Y-%m-%dT%H:%MZ}", one.session)
        lines.append(printable("  ".join(fields) + glass + (f"  {one.note}" if one.note else "")))
    return "".join(f"{line}\n" for line in lines)


def _progress(summary: Summary) -> str:
    """`1/2`, or `-` where the service does not count: with several boards, or for want of saying so."""
    if summary.approvals is None or summary.needed is None:
        return "-"
    return f"{summary.approvals}/{summary.needed}"


def _head(proposal: Proposal) -> Iterator[str]:
    summary, facts = proposal.summary, proposal.facts
    if facts.break_glass:
        yield "BREAK-GLASS: past every rejection, and in the log as that for ever."
    what = "First version" if proposal.before is None else "Update"
    yield printable(f"{what} of session {facts.session}: {summary.state}")
    yield f"  proposal {proposal.id}"


def _origin(proposal: Proposal, *, whole: bool) -> Iterator[str]:
    facts, summary = proposal.facts, proposal.summary
    proposer = "somebody without a certificate" if summary.proposer is None else summary.proposer.hex()
    creator, known = proposal.after.session.creator, proposal.before and proposal.before.session.creator
    yield f"Proposed {facts.created:{MOMENT}}"
    yield f"  by key   {proposer}" if summary.proposer is not None else f"  by       {proposer}"
    yield f"  version  {facts.session_hash.hex()}"
    if facts.predecessor is not None:
        yield f"  after    {facts.predecessor.hex()}"
    if creator is not None and known is None:
        # Between two that are known, another one is a risk.
        yield from _wrapped(f"CREATOR  {show_creator(creator)}", first="  ", rest="           ")
    yield "  text     ostiary board review ID --json | jq -r .session_text"
    if facts.note:
        note = _wrapped(f'"{facts.note}"', first="  ", rest="   ")
        yield from note if whole or len(note) <= NOTE_ROWS else (*note[: NOTE_ROWS - 1], "   … --all shows the rest")


def _risks(proposal: Proposal) -> Iterator[str]:
    if not proposal.risks:
        yield "RISKS: none found"
        return
    yield f"RISKS: {len(proposal.risks)}"
    for risk in proposal.risks:
        yield from _wrapped(f"! {risk.kind}: {risk.sentence}", first="  ", rest="    ")


def _other_changes(proposal: Proposal) -> Iterator[str]:
    """Changes that no risk tells of, the worst first."""
    told = {risk.difference for risk in proposal.risks}
    for one in proposal.differences:
        if one not in told:
            yield str(one)


def _count(proposal: Proposal) -> str:
    summary, board = proposal.summary, proposal.board
    if summary.approvals is None or summary.needed is None:
        return "Members"
    needed = "approval" if summary.needed == 1 else "approvals"
    glass = " to break the glass" if proposal.facts.break_glass else ""
    # Of a namespace's board, which decides too, only the members are known here.
    several = len({member.seat for member in proposal.members}) > 1
    alone = "" if board is None or glass or several or not _alone(board) else ", or one member alone"
    return f"Members: {summary.approvals} of {summary.needed} {needed} needed{glass}{alone}"


def _alone(board: PolicyBoard) -> bool:
    return any(member.may_approve for member in board.members)


def _by_decision(members: Sequence[Member], own: bytes | None) -> list[Member]:
    """We first, then those who decided; else as in the board."""
    return sorted(members, key=lambda one: (own is None or not one.has_key(own), one.decided is None))


def _member(member: Member, own: bytes | None, *, whole: bool) -> list[str]:
    """What it has decided, whatever its name and its reason are."""
    you = " (you)" if own is not None and member.has_key(own) else ""
    powers = [word for word, has in (("approve", member.may_approve), ("reject", member.may_reject)) if has]
    power = f"alone: {', '.join(powers)}" if powers else "vote"
    decided = member.decided
    if decided is None:
        did = "key not known" if member.key is None else "-"
    else:
        did = f"{_PAST[decided.choice]} {decided.at:%m-%d %H:%M}"
    rest = f"{power:22} {_SEATS[member.seat]}{did}"
    mark = len(' "…"') if decided is not None and decided.reason else 0
    room = COLUMNS - len(f"   {you}{rest}") - mark
    lines = []
    name = member.name
    if len(name) > room and whole:
        lines, name = [f"  {name}"], ""
    lines.append(f"  {_middle(name, room) + you:{_NAME_COLUMNS}} {rest}")
    return lines if decided is None or not decided.reason else _with_reason(lines, decided.reason, whole=whole)


def _with_reason(lines: list[str], reason: str, *, whole: bool) -> list[str]:
    line = printable(f'{lines[-1]} "{reason}"')
    if len(line) <= COLUMNS:
        return [*lines[:-1], line]
    told = _wrapped(f'"{reason}"', first="      ", rest="       ")
    if whole or len(told) <= REASON_ROWS:
        return [*lines, *told]
    return [*lines, *told[: REASON_ROWS - 1], "       … --all shows the rest"]


def _decision_alone(lines: list[str]) -> list[str]:
    return lines if len(lines) == 1 else [f'{lines[0]} "…"']


def _middle(name: str, columns: int) -> str:
    """Shortened where names differ least: not at their ends."""
    if len(name) <= columns:
        return name
    end = columns // 3
    return f"{name[: columns - end - 1]}…{name[-end:]}"


def _deadline(proposal: Proposal, now: datetime) -> Iterator[str]:
    summary, board = proposal.summary, proposal.board
    if summary.state is State.OPEN:
        lock = timedelta(0) if board is None else board.time_lock
        after = f", to take effect {show_duration(lock)} later" if lock else ""
        if any(member.seat is Seat.NAMESPACE for member in proposal.members):
            yield "The namespace's board may have a time lock of its own, which is not known here"
        yield f"To be decided until {summary.expires:{MOMENT}} ({_left(summary.expires - now)}){after}"
    elif summary.state is State.APPROVED and summary.apply_after is not None:
        left = _left(summary.apply_after - now)
        yield f"Takes effect at {summary.apply_after:{MOMENT}} ({left}) unless members change their minds"
    else:
        yield f"Nothing is to be decided any more: {summary.state}"


def _left(duration: timedelta) -> str:
    if duration <= timedelta(0):
        return "over"
    days, hours, minutes = duration.days, duration.seconds // 3600, duration.seconds // 60 % 60
    if days:
        return f"{days} d {hours} h left"
    return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"


def _part(title: str, items: Sequence[Sequence[str]], rows: int, more: str) -> Iterator[str]:
    """A title and as many of the items, of some lines each, as there are rows; the last row counts what is left out."""
    if not items:
        return
    yield title
    if sum(len(item) for item in items) <= rows:
        yield from (line for item in items for line in item)
        return
    used = 0
    for shown, item in enumerate(items):  # noqa: B007 - how many were shown
        used += len(item)
        if used > rows - 1:
            break
        yield from item
    yield f"  … and {len(items) - shown} {more}: --all shows them"


def _item(text: str) -> list[str]:
    return _wrapped(text, first="  ", rest="    ")


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    return textwrap.wrap(printable(text), COLUMNS, initial_indent=first, subsequent_indent=rest)


def taking_effect(state: State, apply_after: datetime | None) -> str:
    """The state, and when it ends if that is a matter of time alone."""
    waits = state is State.APPROVED and apply_after is not None
    return f"{state}: takes effect {apply_after:{MOMENT}}" if waits else state.value


def _quorum(board: PolicyBoard) -> Iterator[str]:
    """How many it takes, and how many may fail: to be dishonest is another matter than to be away."""
    needed, members = board.tolerated_faults + 1, len(board.members)
    if members == 1:
        yield "One member decides alone"
        return
    together = (
        f"{needed} of {members} members decide together" if needed > 1 else f"Any one of {members} members decides"
    )
    yield f"{together}: {_some(needed - 1)} may be dishonest; {_some(members - needed)} may be away"
    alone = [member.name for member in board.members if member.may_approve]
    if alone and needed > 1:
        yield f"Decides alone, and must be honest: {', '.join(alone)}"


def _some(number: int) -> str:
    return {0: "none", 1: "one"}.get(number, str(number))


def _power(member: BoardMember) -> str:
    powers = [word for word, has in (("approve", member.may_approve), ("reject", member.may_reject)) if has]
    return f"alone: {', '.join(powers)}" if powers else "vote"


def _key(member: BoardMember) -> str:
    signer = member.signer
    return key_hash(signer.spki).hex() if isinstance(signer, SignerSubject) else f"the key {signer.placeholder}"
