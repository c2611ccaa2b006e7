"""`session read`: the text of a session, as a CAS keeps it."""

from __future__ import annotations

import json

from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.stored import parse_stored
from ostiary.cli.terminal import Terminal
from ostiary.client import StoredText
from ostiary.errors import NotFoundError, OutsideError
from ostiary.session.yaml_text import write_yaml

EXIT_UNKNOWN = 2
"""No such session; scripts tell it apart from every other failure."""

_HASH_BYTES = 32

CAS_KEY = Option(
    flags=("--cas-key",),
    attribute="cas_key",
    metavar="HASH",
    help="The CAS must have the key with this hash, beside what else is known of it.",
)
SESSION_HASH = Option(
    flags=("--session-hash",),
    attribute="session_hash",
    metavar="HASH",
    help="Read the version with this hash, current or past.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the session, so that common editing scripts find `predecessor` and `creator` on one line each."""
    name = arguments.words[0]
    wanted = None if arguments.session_hash is None else parse_hash(arguments.session_hash)
    stored = connect(arguments, terminal).read(name, session_hash=wanted)
    try:
        parsed = parse_stored(stored, name)
    except OutsideError as error:
        if wanted is not None:
            raise
        terminal.warn("the session is printed as the CAS gives it, unchecked", *error.chain)
        return Outcome(stdout=_lines(stored))
    if wanted is not None and parsed.hash != wanted:
        raise OutsideError("the CAS answered with another version than was asked for", f"found {parsed.hash.hex()}")
    creator = parsed.normal.get("creator")
    text = write_yaml({key: value for key, value in parsed.normal.items() if key != "creator"})
    # JSON on one line is YAML, too.
    return Outcome(stdout=text if creator is None else f"{text}creator: {json.dumps(creator)}\n")


def parse_hash(text: str) -> bytes:
    """32 bytes of 64 hex digits. Raises UsageError."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != _HASH_BYTES or len(text) != 2 * _HASH_BYTES:
        raise UsageError(f"a session hash has 64 hex digits, found {text!r}")
    return digest


def _lines(stored: StoredText) -> str:
    return stored.text if stored.text.endswith("\n") else f"{stored.text}\n"


COMMAND = Command(
    words=("session", "read"),
    summary="Print a session as the CAS keeps it, in normal form.",
    run=run,
    failing="Reading the session failed",
    positionals=("NAME",),
    options=(*CONNECTION, CAS_KEY, SESSION_HASH),
    details=f"Exit code {EXIT_UNKNOWN}: the CAS has no such session, or not in that version.",
    examples=("session read my-session > session.yml", "session read my-session --session-hash $PREDECESSOR"),
    codes={NotFoundError: EXIT_UNKNOWN},
)
