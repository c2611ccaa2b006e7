"""`session list`: the names of the sessions of a namespace."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.read import CAS_KEY
from ostiary.cli.terminal import Terminal

_ROOT = "/"


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the names in order, one a line; of sessions below these, nothing: each namespace has a list of its own."""
    namespace = arguments.words[0] if arguments.words else _ROOT
    names = connect(arguments, terminal).sessions(namespace)
    return Outcome(stdout="".join(f"{name}\n" for name in sorted(names)))


COMMAND = Command(
    words=("session", "list"),
    summary="Print the names of the sessions of a namespace, one a line.",
    run=run,
    failing="Listing the sessions failed",
    positionals=("[PATH]",),
    options=(*CONNECTION, CAS_KEY),
    details="Without PATH, those that are in no other. The namespace's access_policy.list_sessions says who may.",
    examples=("session list", "session list my-namespace"),
)
