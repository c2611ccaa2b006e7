"""`board list`: what is to be decided."""

from __future__ import annotations

import sys
from functools import partial

from ostiary.board.shown import key_hash
from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.board.form import summary_form, written
from ostiary.cli.board.options import (
    AS_JSON,
    EXIT_WAIT_FAILED,
    KEY,
    PIN_FILE,
    WAIT_DETAILS,
    Waiting,
    polls,
    public_key,
    seconds,
)
from ostiary.cli.board.page import list_lines
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.store.progress import patience
from ostiary.cli.terminal import Terminal, printable
from ostiary.client import MAX_WAIT_FOR_PROPOSALS_SECONDS, Client, Listed
from ostiary.errors import OstiaryError

MAX_WAIT_SECONDS = 366 * 86400
EXIT_NOTHING_CAME = 1

SESSION = Option(flags=("--session",), attribute="session", metavar="NAME", help="Only proposals of this session.")
WAITING = Option(
    flags=("--waiting",),
    attribute="waiting",
    help="Only those that the member with the key of --key has not decided.",
)
EVERY_STATE = Option(
    flags=("--closed",), attribute="every_state", help="Also those that are closed; with --session only."
)
WAIT = Option(
    flags=("--wait",),
    attribute="wait",
    metavar="SECONDS",
    help="With nothing to list, or nothing new since --after, wait so long for something.",
)
AFTER = Option(
    flags=("--after",), attribute="after", metavar="CURSOR", help="What `cursor` was in an earlier --json, for --wait."
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print a line for each proposal."""
    if arguments.every_state and arguments.value("session") is None:
        raise UsageError("--closed goes with --session NAME")
    wait = seconds(arguments, "wait", "--wait", most=MAX_WAIT_SECONDS)
    waiting_for = key_hash(public_key(arguments, terminal)) if arguments.waiting else None
    client = connect(arguments, terminal)
    with patience("waiting for proposals"):
        listed = _listed(client, arguments, waiting_for, wait, Waiting(wait, client, terminal))
    waited_in_vain = arguments.value("wait") is not None and not _came(listed, arguments)
    code = EXIT_NOTHING_CAME if waited_in_vain else 0
    if not arguments.as_json:
        if not listed.proposals:
            print(_nothing(arguments, waiting_for), file=sys.stderr)
        return Outcome(stdout=list_lines(listed.proposals), code=code)
    form = {"proposals": [summary_form(one) for one in listed.proposals], "cursor": listed.cursor}
    return Outcome(stdout=written(form), code=code)


def _nothing(arguments: Arguments, waiting_for: bytes | None) -> str:
    session = arguments.value("session")
    of = "" if session is None else f" of session {printable(session)}"
    default = ", our session signing key; name yours with --key" if arguments.key is None else ""
    waits = "" if waiting_for is None else f" waits for the key {waiting_for.hex()}{default}"
    state = "" if arguments.every_state else "open "
    return f"No {state}proposal{of} that we may see{waits}."


def _listed(client: Client, arguments: Arguments, waiting_for: bytes | None, wait: int, waiting: Waiting) -> Listed:
    """What there is, after as many long polls as it takes."""
    after = arguments.value("after")
    for left in polls(wait, MAX_WAIT_FOR_PROPOSALS_SECONDS):
        poll = partial(
            client.proposals,
            session=arguments.value("session"),
            waiting_for=waiting_for,
            every_state=arguments.every_state,
            after=after,
            wait_seconds=0 if after is None else left,
        )
        listed = waiting.ask(poll)
        if _came(listed, arguments):
            break
        after = listed.cursor
    return listed


def _came(listed: Listed, arguments: Arguments) -> bool:
    """Whether there is what `--wait` waits for."""
    given = arguments.value("after")
    return listed.cursor != given if given is not None else bool(listed.proposals)


COMMAND = Command(
    words=("board", "list"),
    summary="List open proposals that we may see, one a line.",
    run=run,
    failing="Listing proposals failed",
    options=(SESSION, WAITING, KEY, PIN_FILE, EVERY_STATE, WAIT, AFTER, AS_JSON, *CONNECTION),
    details=(
        "A line has the id, the state, approvals of how many are needed, the end of the time to decide, the session "
        "and the note. The file of --key may have a public key here. --json prints {proposals, cursor}; docs/cli.md "
        "has the members."
        f"\n\nExit code 0: done; {EXIT_NOTHING_CAME}: --wait waited in vain; {EXIT_WAIT_FAILED}: it failed, and "
        f"stderr says why.\n\n{WAIT_DETAILS}"
    ),
    examples=(
        "board list --waiting --key ssh:alice@laptop",
        "board list --waiting --wait 3600 && notify-send 'decide'",
    ),
    codes={OstiaryError: EXIT_WAIT_FAILED},
)
