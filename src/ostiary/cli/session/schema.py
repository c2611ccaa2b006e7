"""`session schema`: the language as a JSON Schema, for editors."""

from __future__ import annotations

import json

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.terminal import Terminal
from ostiary.session.schema import schema


def run(_arguments: Arguments, _terminal: Terminal) -> Outcome:
    """Print the schema. Talks to nobody."""
    return Outcome(stdout=json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")


COMMAND = Command(
    words=("session", "schema"),
    summary="Print a JSON Schema of sessions, for editors.",
    run=run,
    failing="Printing the schema failed",
    positionals=(),
    options=(),
    details=(
        "JSON Schema, draft 2020-12, made from the tables of the parser. Editors with a YAML language server take it "
        "from a file:\n`# yaml-language-server: $schema=session.schema.json` in the first line of a session. It helps "
        "while writing; `session check` is the one that decides."
    ),
    examples=("session schema > session.schema.json",),
)
