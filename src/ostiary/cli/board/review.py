"""`board review`: what a proposal means, on one page, the risk first."""

from __future__ import annotations

from datetime import UTC, datetime

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.board.form import proposal_form, written
from ostiary.cli.board.options import (
    AS_JSON,
    CODES,
    CODES_DETAILS,
    KEY,
    PROPOSAL_DETAILS,
    WHOLE,
    find_proposal,
    key_place,
)
from ostiary.cli.board.page import review_page
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.terminal import Terminal


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the page."""
    own = key_place(arguments, terminal).public()
    client = connect(arguments, terminal)
    proposal = find_proposal(arguments.words[0], client)
    if arguments.as_json:
        return Outcome(stdout=written(proposal_form(proposal)))
    return Outcome(stdout=review_page(proposal, now=datetime.now(UTC), own=own, whole=arguments.whole))


COMMAND = Command(
    words=("board", "review"),
    summary="Say what a proposal means, the risks first, and who has decided what.",
    run=run,
    failing="Reviewing the proposal failed",
    positionals=("PROPOSAL",),
    options=(KEY, WHOLE, AS_JSON, *CONNECTION),
    details=f"{PROPOSAL_DETAILS} --key only marks which member we are; nothing is unlocked.\n\n{CODES_DETAILS}",
    examples=("board review my-session", "board review my-session --json | jq .risks"),
    codes=CODES,
)
