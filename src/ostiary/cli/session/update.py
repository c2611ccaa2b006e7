"""`session update`: upload a session as the successor of the current version."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import load_session, warn_again
from ostiary.cli.session.stored import parse_stored
from ostiary.cli.terminal import Terminal
from ostiary.session.yaml_text import write_yaml


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash of the version that the upload made."""
    source = load_session(arguments.words[0], arguments, terminal)
    client = connect(arguments, terminal)
    text, session = source.text, source.parsed.session
    if session.predecessor is None:
        current = parse_stored(client.read(session.name), session.name)
        text = write_yaml({**source.parsed.normal, "predecessor": current.hash.hex()})
    uploaded = client.upload(text)
    warn_again(uploaded.warnings, source.parsed.warnings, terminal)
    return Outcome(stdout=f"{uploaded.session_hash.hex()}\n")


COMMAND = Command(
    words=("session", "update"),
    summary="Upload a session as the successor of the current version, and print its hash.",
    run=run,
    failing="Updating the session failed",
    positionals=("FILE",),
    options=(*TEMPLATE, *CONNECTION),
    details=(
        f"{TEMPLATE_DETAILS}\n\nWithout `predecessor` in FILE the current version is read, and its hash put in; there "
        "must be one. With `predecessor` the session is uploaded as it is."
    ),
    examples=("session update session.yml", "session update --use-env --cas cas.example.com session.yml"),
)
