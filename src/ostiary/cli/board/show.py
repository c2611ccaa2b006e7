"""`board show`: who decides about a session, and how."""

from __future__ import annotations

import sys
from pathlib import Path

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.board.form import board_form, written
from ostiary.cli.board.options import AS_JSON, EXIT_UNKNOWN
from ostiary.cli.board.page import board_page
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import load_session
from ostiary.cli.session.stored import parse_stored
from ostiary.cli.terminal import Terminal
from ostiary.errors import InputError, NotFoundError


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the policy board that the session names."""
    name = arguments.words[0]
    if Path(name).is_file():
        parsed = load_session(name, arguments, terminal).parsed
    else:
        parsed = parse_stored(connect(arguments, terminal).read(name), name)
        for warning in parsed.warnings:
            terminal.warn(f"{name}: {warning}")
    for note in parsed.notes:
        print(f"Note: {name}: {note}", file=sys.stderr)
    board = parsed.session.policy_board
    if board is None:
        raise InputError(f"{name!r} names no policy board", "its access policy alone says who may change it")
    return Outcome(stdout=written(board_form(board)) if arguments.as_json else board_page(board))


COMMAND = Command(
    words=("board", "show"),
    summary="Print who decides about changes of a session, and how.",
    run=run,
    failing="Showing the policy board failed",
    positionals=("SESSION",),
    options=(AS_JSON, *TEMPLATE, *CONNECTION),
    details=(
        "SESSION is a file, or the name of a session on the CAS. The hash after each member is the SHA-256 of its "
        f"public key, DER. {TEMPLATE_DETAILS}"
        f"\n\nExit code {EXIT_UNKNOWN}: there is neither such a file nor such a session."
    ),
    examples=("board show session.yml", "board show my-session --json"),
    codes={NotFoundError: EXIT_UNKNOWN},
)
