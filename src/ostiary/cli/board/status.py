"""`board status`: how far a proposal is, for people and scripts."""

from __future__ import annotations

from functools import partial

from ostiary.board.proposal import State
from ostiary.board.shown import Proposal
from ostiary.cli.arguments import Arguments, Command, Option, Outcome
from ostiary.cli.board.form import summary_form, written
from ostiary.cli.board.list_ import MAX_WAIT_SECONDS
from ostiary.cli.board.options import (
    AS_JSON,
    CODES,
    CODES_DETAILS,
    EXIT_WAIT_FAILED,
    PROPOSAL_DETAILS,
    WAIT_DETAILS,
    Waiting,
    find_proposal,
    polls,
    seconds,
)
from ostiary.cli.board.page import taking_effect
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.store.progress import patience
from ostiary.cli.terminal import Terminal
from ostiary.client import Client
from ostiary.errors import OstiaryError

EXIT_NOT_APPLIED = 1
LOOK_SECONDS = 20
"""How often we look by ourselves while we wait: time passing changes a state, too."""

WAIT = Option(flags=("--wait",), attribute="wait", metavar="SECONDS", help="Wait until it is closed, at most so long.")


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the state, and when a time lock ends."""
    wait = seconds(arguments, "wait", "--wait", most=MAX_WAIT_SECONDS)
    client = connect(arguments, terminal)
    with patience("waiting for a decision"):
        proposal = _closed(client, arguments.words[0], wait, Waiting(wait, client, terminal))
    state = proposal.summary.state
    still_good = arguments.value("wait") is None and state.is_pending
    code = 0 if state is State.APPLIED or still_good else EXIT_NOT_APPLIED
    if arguments.as_json:
        return Outcome(stdout=written(summary_form(proposal.summary)), code=code)
    return Outcome(stdout=f"{taking_effect(state, proposal.summary.apply_after)}\n", code=code)


def _closed(client: Client, text: str, wait: int, waiting: Waiting) -> Proposal:
    """The proposal once it is closed, or when the time is over."""
    proposal = waiting.ask(lambda: find_proposal(text, client))
    session, after = proposal.facts.session, None
    for left in polls(wait, LOOK_SECONDS):
        if not proposal.summary.state.is_pending or not left:
            break
        poll = partial(client.proposals, session=session, after=after, wait_seconds=left)
        after = waiting.ask(poll).cursor
        proposal = waiting.ask(partial(client.proposal, proposal.id))
    return proposal


COMMAND = Command(
    words=("board", "status"),
    summary="Print the state of a proposal, and when its time lock ends.",
    run=run,
    failing="Showing the proposal's state failed",
    positionals=("PROPOSAL",),
    options=(WAIT, AS_JSON, *CONNECTION),
    details=(
        f"The states are {', '.join(State)}; the line begins with it. {PROPOSAL_DETAILS}"
        f"\n\nExit code 0: applied, or without --wait also open or approved; {EXIT_NOT_APPLIED}: all other states; "
        f"{EXIT_WAIT_FAILED}: it failed, and stderr says why. {CODES_DETAILS}\n\n{WAIT_DETAILS}"
    ),
    examples=("board status my-session", "board status $ID --wait 86400 && deploy"),
    codes={**CODES, OstiaryError: EXIT_WAIT_FAILED},
)
