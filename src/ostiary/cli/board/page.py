"""A proposal, or a board, as a page for a person with little time: the risk first. Pure.

A page of an ordinary change fits a terminal of 80 by 24. Where it would not, changes that are no risk are cut, members
that have not decided, and the note, which may not push the rest away; what is left out is counted. Risks never are.
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
from ostiary.session.duration import format_duration

COLUMNS = 80
PAGE_ROWS = 22
"""A terminal has 24; one is for what was typed, one for a question."""
NOTE_ROWS = 3
FEWEST_CHANGES = 3
FEWEST_MEMBERS = 3

_NAME_COLUMNS = 16
_SHORT_DIGITS = 16
_PAST = {Choice.APPROVE: "approved", Choice.WITHDRAW: "withdrew", Choice.REJECT: "rejected"}
_SEATS = {Seat.CURRENT: "", Seat.NAMESPACE: "[namespace] ", Seat.OWN: ""}


def review_page(proposal: Proposal, *, now: datetime, own: bytes | None = None, whole: bool = False) -> str:
    """The page. now: UTC. own: our key, DER SubjectPublicKeyInfo, to mark which member we are."""
    head = list(_head(proposal))
    risks = list(_risks(proposal))
    changes = [line for text in _other_changes(proposal) for line in _item(text)]
    members = [_member(one, own) for one in _by_decision(proposal.members, own)]
    tail = [*_origin(proposal, whole=whole), *_deadline(proposal, now)]
    room = PAGE_ROWS - len(head) - len(risks) - len(tail) - 3  # the titles of changes and members, and an empty line
    if whole:
        room = len(changes) + len(members)
    member_rows = min(len(members), max(FEWEST_MEMBERS, room - len(changes), room // 2))
    change_rows = max(FEWEST_CHANGES, room - member_rows)
    lines = [
        *head,
        *risks,
        *_part("Other changes", changes, change_rows, "lines more, none of them a risk"),
        *_part(_count(proposal), members, member_rows, "members more"),
        "",
        *tail,
    ]
    return "\n".join(lines) + "\n"


def board_page(board: PolicyBoard) -> str:
    """Who decides, and how."""
    faults, members = board.tolerated_faults, board.members
    lines = [
        f"{faults + 1} of {len(members)} members decide together{_tolerating(faults)}",
        *(f"  {one.name:{_NAME_COLUMNS}} {_power(one):16} {_key(one)}" for one in members),
        f"Decides: {', '.join(sorted(board.on))}",
        f"Proposals are open for {format_duration(board.decide_within)}",
    ]
    if board.time_lock:
        lines.append(f"A change takes effect {format_duration(board.time_lock)} after the deciding approval")
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
    proposer = "somebody without a certificate" if summary.proposer is None else f"key {_short(summary.proposer)}"
    yield f"Proposed {facts.created:%Y-%m-%d %H:%M} UTC by {proposer}"
    after = "" if facts.predecessor is None else f" after {_short(facts.predecessor)}"
    yield f"  to make version {_short(facts.session_hash)}{after}"
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
    sentences = [risk.sentence for risk in proposal.risks]
    # Some say after the meaning why it matters.
    told = {*sentences, *(sentence.rpartition(": ")[0] for sentence in sentences)}
    for one in proposal.differences:
        if one.meaning not in told:
            yield str(one)


def _count(proposal: Proposal) -> str:
    summary, board = proposal.summary, proposal.board
    if summary.approvals is None or summary.needed is None:
        return "Members"
    needed = "approval" if summary.needed == 1 else "approvals"
    glass = " to break the glass" if proposal.facts.break_glass else ""
    alone = "" if board is None or glass or not _alone(board) else ", or one member alone"
    return f"Members: {summary.approvals} of {summary.needed} {needed} needed{glass}{alone}"


def _alone(board: PolicyBoard) -> bool:
    return any(member.may_approve for member in board.members)


def _by_decision(members: Sequence[Member], own: bytes | None) -> list[Member]:
    """We first, then those who decided; else as in the board."""
    return sorted(members, key=lambda one: (own is None or not one.has_key(own), one.decided is None))


def _member(member: Member, own: bytes | None) -> str:
    you = " (you)" if own is not None and member.has_key(own) else ""
    powers = [word for word, has in (("approve", member.may_approve), ("reject", member.may_reject)) if has]
    power = f"alone: {', '.join(powers)}" if powers else "vote"
    decided = member.decided
    if decided is None:
        did = "key not known" if member.key is None else "-"
    else:
        did = f"{_PAST[decided.choice]} {decided.at:%m-%d %H:%M}"
        did += f' "{decided.reason}"' if decided.reason else ""
    line = printable(f"  {member.name + you:{_NAME_COLUMNS}} {power:22} {_SEATS[member.seat]}{did}")
    return line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…"


def _deadline(proposal: Proposal, now: datetime) -> Iterator[str]:
    summary, board = proposal.summary, proposal.board
    if summary.state is State.OPEN:
        lock = timedelta(0) if board is None else board.time_lock
        after = f", to take effect {format_duration(lock)} later" if lock else ""
        yield f"To be decided until {summary.expires:%Y-%m-%d %H:%M} UTC ({_left(summary.expires - now)}){after}"
    elif summary.state is State.APPROVED and summary.apply_after is not None:
        left = _left(summary.apply_after - now)
        yield f"Takes effect at {summary.apply_after:%Y-%m-%d %H:%M} UTC ({left}) unless members change their minds"
    else:
        yield f"Nothing is to be decided any more: {summary.state}"


def _left(duration: timedelta) -> str:
    if duration <= timedelta(0):
        return "over"
    days, hours, minutes = duration.days, duration.seconds // 3600, duration.seconds // 60 % 60
    if days:
        return f"{days} d {hours} h left"
    return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"


def _part(title: str, lines: Sequence[str], rows: int, more: str) -> Iterator[str]:
    """A title and as many of the lines as there are rows; the last row counts what is left out."""
    if not lines:
        return
    yield title
    if len(lines) <= rows:
        yield from lines
        return
    yield from lines[: rows - 1]
    yield f"  … and {len(lines) - rows + 1} {more}: --all shows them"


def _item(text: str) -> Iterator[str]:
    yield from _wrapped(text, first="  ", rest="    ")


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    return textwrap.wrap(printable(text), COLUMNS, initial_indent=first, subsequent_indent=rest)


def _short(digest: bytes) -> str:
    return f"{digest.hex()[:_SHORT_DIGITS]}…"


def _tolerating(faults: int) -> str:
    if not faults:
        return ": one member alone decides"
    return f"; {faults} may be dishonest, or away" if faults > 1 else "; one may be dishonest, or away"


def _power(member: BoardMember) -> str:
    powers = [word for word, has in (("approve", member.may_approve), ("reject", member.may_reject)) if has]
    return f"alone: {', '.join(powers)}" if powers else "vote"


def _key(member: BoardMember) -> str:
    signer = member.signer
    return key_hash(signer.spki).hex() if isinstance(signer, SignerSubject) else f"the key {signer.placeholder}"
