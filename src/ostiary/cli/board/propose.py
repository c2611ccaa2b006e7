"""`board propose`: a session as the next version, for those who decide about it."""

from __future__ import annotations

import sys

from ostiary.board import MAX_NOTE_CHARS
from ostiary.cli.arguments import Arguments, Command, Option, Outcome
from ostiary.cli.board.form import written
from ostiary.cli.board.options import AS_JSON, sentence
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import Source, load_session, warn_again
from ostiary.cli.session.update import succeeding
from ostiary.cli.terminal import Terminal
from ostiary.client import Client
from ostiary.errors import InputError, NotFoundError

NOTE = Option(
    flags=("--note",),
    attribute="note",
    metavar="TEXT",
    help=f"Why, for those who decide; at most {MAX_NOTE_CHARS} characters.",
)
BREAK_GLASS = Option(
    flags=("--break-glass",),
    attribute="break_glass",
    help="Ask for the larger quorum that acts past every rejection. The audit log (`ostiary store log`) says so for "
    "ever.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the id of the proposal."""
    note = sentence(arguments, "note", "--note", most=MAX_NOTE_CHARS)
    source = load_session(arguments.words[0], arguments, terminal)
    if source.signed is not None:
        raise InputError(
            f"{source.file} is signed, and a policy board decides about the session, not about signatures of it",
            "propose the session that was signed",
        )
    for finding in source.parsed.notes:
        print(f"Note: {source.file}: {finding}", file=sys.stderr)
    client = connect(arguments, terminal)
    source = _following(source, client)
    proposed = client.propose(source.text, note=note, break_glass=arguments.break_glass)
    warn_again(proposed.warnings, source.parsed.warnings, terminal)
    form = {
        "proposal": proposed.proposal,
        "state": proposed.state.value,
        "hash": proposed.session_hash.hex(),
        "expires": f"{proposed.expires:%Y-%m-%dT%H:%M:%SZ}",
    }
    return Outcome(stdout=written(form) if arguments.as_json else f"{proposed.proposal}\n")


def _following(source: Source, client: Client) -> Source:
    """The source with its predecessor, unless it names one, or is the first version."""
    if source.parsed.session.predecessor is not None:
        return source
    try:
        return succeeding(source, client)
    except NotFoundError:
        return source


COMMAND = Command(
    words=("board", "propose"),
    summary="Propose a session as the next version to its policy board, and print the proposal's id.",
    run=run,
    failing="Proposing the session failed",
    positionals=("FILE",),
    options=(NOTE, BREAK_GLASS, AS_JSON, *TEMPLATE, *CONNECTION),
    details=(
        f"{TEMPLATE_DETAILS}\n\nWithout `predecessor` in FILE the current version is read, and its hash put in; if "
        "there is none that we may read, FILE is proposed as the first version. It takes effect when the board has "
        "approved it, unless another version became current meanwhile."
    ),
    examples=(
        'board propose session.yml --note "rotate the TLS certificate"',
        "board propose --use-env --cas cas.example.com session.yml --json",
    ),
)
