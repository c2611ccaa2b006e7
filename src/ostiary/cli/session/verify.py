"""`session verify`: is the current version of a session what this file says?"""

from __future__ import annotations

import hmac
import sys

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect, own_identity
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import load_session
from ostiary.cli.session.stored import parse_stored
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConflictError
from ostiary.session import ParsedSession, with_creator
from ostiary.session.diff import differences, show_creator
from ostiary.session.normal import session_hash

MAX_DIFFERENCES = 20


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash of the current version if the file says the same.

    The file need not say who created the session and what it follows: then first our own certificate and no
    predecessor are tried, and after that both are taken from the current version and named on stderr.
    """
    given = load_session(arguments.words[0], arguments, terminal).parsed
    name = given.session.name
    current = parse_stored(connect(arguments, terminal).read(name), name)
    ours = given
    if given.session.creator is None:
        ours = with_creator(given, own_identity(arguments, terminal).certificate)
    if ours.hash != current.hash:
        _compare_loosely(given, current)
    return Outcome(stdout=f"{current.hash.hex()}\n")


def _compare_loosely(given: ParsedSession, current: ParsedSession) -> None:
    """Take what the file does not say from the current version. Raises ConflictError if they still differ."""
    normal = dict(given.normal)
    adopted: list[str] = []
    if given.session.predecessor is None and current.session.predecessor is not None:
        normal["predecessor"] = current.session.predecessor.hex()
        adopted.append(f"predecessor {current.session.predecessor.hex()}")
    if given.session.creator is None and given.names_creator and "creator" in current.normal:
        normal["creator"] = current.normal["creator"]
        adopted.append(f"creator {show_creator(current.session.creator)}")
    if not hmac.compare_digest(session_hash(normal), current.hash):
        found = differences(given.session, current.session)
        sentences = [str(difference) for difference in found[:MAX_DIFFERENCES]]
        if len(found) > MAX_DIFFERENCES:
            sentences.append(f"and {len(found) - MAX_DIFFERENCES} differences more; `session diff` lists them")
        raise ConflictError(
            f"the current version of session {given.session.name!r} is another, with hash {current.hash.hex()}",
            *(sentences or ["predecessor, creator or the order of a list differs"]),
        )
    for fact in adopted:
        print(f"Note: the file does not say it, and the CAS does: {fact}", file=sys.stderr)


COMMAND = Command(
    words=("session", "verify"),
    summary="Compare a file with the current version of its session, and print the hash of that.",
    run=run,
    failing="Verifying the session failed",
    positionals=("FILE",),
    options=(*TEMPLATE, *CONNECTION),
    details=(
        f"{TEMPLATE_DETAILS}\n\nWhat FILE does not say of `creator` and `predecessor` is taken from the CAS, unless "
        "our own certificate and no predecessor fit, and then named on stderr."
    ),
    examples=("session verify session.yml", "session verify --name my-session session.yml > hash"),
)
