"""`session read-hash`: the hash of a session, which anyone may know once it has a salt."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.read import CAS_KEY
from ostiary.cli.terminal import Terminal


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash of the current version, as the CAS says it: there is no text to compare it with."""
    return Outcome(stdout=f"{connect(arguments, terminal).read_hash(arguments.words[0]).hex()}\n")


COMMAND = Command(
    words=("session", "read-hash"),
    summary="Print the hash of the current version of a session.",
    run=run,
    failing="Reading the session hash failed",
    positionals=("NAME",),
    options=(*CONNECTION, CAS_KEY),
    details=(
        "If the session has a `salt`, in this version or one before it, anyone may ask; else those who may read it."
    ),
    examples=(
        "session read-hash my-session",
        "session read-hash my-session --cas localhost --cas-ca ostiary-data/cas-ca.pem",
    ),
)
