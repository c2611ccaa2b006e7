"""`session create`: upload a session as it is."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import load_session, warn_again
from ostiary.cli.terminal import Terminal


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash of the version that the upload made."""
    source = load_session(arguments.words[0], arguments, terminal)
    uploaded = connect(arguments, terminal).upload(source.text)
    warn_again(uploaded.warnings, source.parsed.warnings, terminal)
    return Outcome(stdout=f"{uploaded.session_hash.hex()}\n")


COMMAND = Command(
    words=("session", "create"),
    summary="Upload a session, and print its hash.",
    run=run,
    failing="Creating the session failed",
    positionals=("FILE",),
    options=(*TEMPLATE, *CONNECTION),
    details=(
        f"{TEMPLATE_DETAILS}\n\nThe session is uploaded as it is: without `predecessor` a session of its name must not "
        "exist yet, with one it must be the hash of the current version."
    ),
    examples=(
        "session create --cas localhost --cas-ca ostiary-data/cas-ca.pem session.yml",
        "session create -e MRENCLAVE=$M --name my-session session.yml",
    ),
)
