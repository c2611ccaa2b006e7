"""`session check`: is this file a session? Talks to nobody."""

from __future__ import annotations

import sys

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import load_session
from ostiary.cli.terminal import Terminal


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the session with its variables replaced."""
    source = load_session(arguments.words[0], arguments, terminal)
    for note in source.parsed.notes:
        print(f"Note: {source.file}: {note}", file=sys.stderr)
    return Outcome(stdout=source.text if source.text.endswith("\n") else f"{source.text}\n")


COMMAND = Command(
    words=("session", "check"),
    summary="Check a session file, and print it with its variables replaced.",
    run=run,
    failing="Checking the session failed",
    positionals=("FILE",),
    options=TEMPLATE,
    details=TEMPLATE_DETAILS,
    examples=("session check session.yml", "session check -e MRENCLAVE=$M --use-env session.yml"),
)
