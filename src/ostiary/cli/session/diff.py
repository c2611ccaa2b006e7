"""`session diff`: what a change means, in sentences."""

from __future__ import annotations

import json
from pathlib import Path

from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.read import parse_hash
from ostiary.cli.session.source import load_session
from ostiary.cli.session.stored import parse_stored
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError, NotFoundError
from ostiary.session import Session
from ostiary.session.diff import Difference, differences

EXIT_DIFFERENT = 1

AS_JSON = Option(
    flags=("--json",),
    attribute="as_json",
    help="Print a JSON list of {effect, path, meaning}; effect is wider, changed or narrower.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print one line a difference, the worst first; nothing if there is none."""
    before, after = (_session(name, arguments, terminal) for name in arguments.words)
    found = differences(before, after)
    lines = _json(found) if arguments.as_json else [str(difference) for difference in found]
    return Outcome(stdout="".join(f"{line}\n" for line in lines), code=EXIT_DIFFERENT if found else 0)


def _session(name: str, arguments: Arguments, terminal: Terminal) -> Session:
    """The session in the file of that name, or else `NAME` or `NAME@HASH` on the CAS."""
    if Path(name).is_file():
        return load_session(name, arguments, terminal).parsed.session
    session, at, digest = name.partition("@")
    try:
        client = connect(arguments, terminal)
    except UsageError:
        raise
    except ConfigurationError as error:
        raise ConfigurationError(f"{name!r} is no file, so it would be a session on a CAS", *error.chain) from error
    try:
        stored = client.read(session, session_hash=parse_hash(digest) if at else None)
    except NotFoundError as error:
        raise NotFoundError(f"{name!r} is neither a file nor a session", *error.chain) from error
    return parse_stored(stored, session).session


def _json(found: tuple[Difference, ...]) -> list[str]:
    members = [{"effect": one.effect.name.lower(), "path": one.path, "meaning": one.meaning} for one in found]
    return [json.dumps(members, indent=2, ensure_ascii=False)]


COMMAND = Command(
    words=("session", "diff"),
    summary="Say what the change from one session to another means, the worst first.",
    run=run,
    failing="Comparing the sessions failed",
    positionals=("A", "B"),
    options=(AS_JSON, *TEMPLATE, *CONNECTION),
    details=(
        "A and B are files, or NAME or NAME@HASH on a CAS. Each line begins with what the change is to what is "
        "admitted or shown: wider, narrower, or else changed. Predecessor, order and spelling mean nothing."
        "\n\n"
        f"{TEMPLATE_DETAILS}\n\nExit code 0: no difference; {EXIT_DIFFERENT}: some, or failed, and then stderr says so."
    ),
    examples=("session diff old.yml new.yml", "session diff my-session session.yml --json"),
)
