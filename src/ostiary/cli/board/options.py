"""Options that several board commands have, and what they name: a proposal, a key."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ostiary.board.shown import Proposal
from ostiary.cli.arguments import Arguments, Option, UsageError
from ostiary.cli.signing import own_signing_key
from ostiary.cli.terminal import Terminal, printable
from ostiary.client import Client
from ostiary.errors import AwayError, ConfigurationError, NotFoundError, SwappedError
from ostiary.member_key import Asking, KeyPlace, choose_key
from ostiary.member_key.pin_file import read_pin

SHORTEST_POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0
"""Between two questions to a service that is away."""
EXIT_UNKNOWN = 2
"""No such proposal, or not for us."""
EXIT_SWAPPED = 65
"""What the CAS shows is not what its id says. As for stored state that does not verify."""
NOT_FOR_US = (
    "a first version is shown to its proposer, and to members with their own key in --identity; other versions also to "
    "whom the session's `read` admits"
)
"""Why a proposal may be there, and we do not see it."""
EXIT_WAIT_FAILED = 69
"""Of commands of which 1 is an answer. As where something outside cannot be reached, which it mostly is."""
CODES = {NotFoundError: EXIT_UNKNOWN, SwappedError: EXIT_SWAPPED}
CODES_DETAILS = (
    f"Exit code {EXIT_UNKNOWN}: the CAS has no such proposal, or not for us; {EXIT_SWAPPED}: the CAS shows another "
    "proposal than the one that its id says."
)

KEY = Option(
    flags=("--key",),
    attribute="key",
    metavar="KEY",
    help="A PEM file, ssh:SHA256:… or ssh:COMMENT (SSH agent), or a pkcs11: URI. Default: our session signing key.",
)
PIN_FILE = Option(
    flags=("--pin-file",),
    attribute="pin_file",
    metavar="FILE",
    help="The first line of FILE is the key's passphrase or PIN; without it a person is asked.",
)
AS_JSON = Option(flags=("--json",), attribute="as_json", help="Print JSON.")
WHOLE = Option(flags=("--all",), attribute="whole", help="Leave nothing out, however long the page gets.")
PROPOSAL_DETAILS = (
    "PROPOSAL is the id, 64 hex digits, or the name of a session that has exactly one open proposal. Hash, differences "
    "and risks are worked out here, from the texts that the CAS sends, and held against the id."
)

Answer = TypeVar("Answer")

WAIT_DETAILS = "With --wait a CAS that is away, as while it is started anew, is asked again until the time is over."

_ID = re.compile(r"[0-9a-f]{64}")


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def find_proposal(text: str, client: Client) -> Proposal:
    """The proposal that `text` names, held against its id and, if a session was named, against that.

    Raises NotFoundError, ConfigurationError if the session has several, and what `Client.proposal` raises.
    """
    if is_id(text):
        return client.proposal(text)
    proposal = client.proposal(_only_open(text, client))
    found = proposal.facts.session
    if found.lstrip("/") != text.lstrip("/"):
        raise SwappedError(f"the CAS shows a proposal of session {found!r} as one of session {text!r}")
    return proposal


def _only_open(text: str, client: Client) -> str:
    listed = client.proposals(session=text).proposals
    if not listed:
        raise NotFoundError(
            f"session {text!r} has no open proposal, or not for us",
            "`ostiary board list --session NAME --closed` has those that are closed",
            NOT_FOR_US,
        )
    if len(listed) > 1:
        shown = (f"{one.proposal}  {one.created:%Y-%m-%d %H:%M}  {printable(one.note)}".rstrip() for one in listed)
        raise ConfigurationError(f"session {text!r} has {len(listed)} open proposals; give the id of one", *shown)
    return listed[0].proposal


def key_place(arguments: Arguments, terminal: Terminal) -> KeyPlace:
    """The key of `--key`, else our session signing key. Asks nothing yet. Raises ConfigurationError."""
    if arguments.key is not None:
        return choose_key(arguments.key)
    return own_signing_key(terminal)


def public_key(arguments: Arguments, terminal: Terminal) -> bytes:
    """DER SubjectPublicKeyInfo of that key, which may have to be unlocked for it. Raises as the key does."""
    place = key_place(arguments, terminal)
    public = place.public()
    if public is None:
        with place.unlocked(asking(arguments, terminal)) as key:
            public = key.spki
    return public


def asking(arguments: Arguments, terminal: Terminal) -> Asking:
    """Who knows the passphrase or PIN: the file of `--pin-file`, or a person."""
    file = arguments.value("pin_file")
    return terminal.secret if file is None else lambda _: read_pin(Path(file))


class Waiting:
    """Asks for as long as we are to wait, also a service that is away meanwhile, which is told once."""

    def __init__(self, wait: int, client: Client, terminal: Terminal) -> None:
        self._end = time.monotonic() + wait
        self._where = client.address.authority
        self._terminal = terminal
        self._told = False

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What is answered. The question only reads: it may be asked again. Raises as it does; AwayError at the end."""
        pause = SHORTEST_POLL_SECONDS
        while True:
            try:
                return question()
            except AwayError as error:
                left = self._end - time.monotonic()
                if left <= 0:
                    raise
                if not self._told:
                    self._terminal.warn(f"CAS {self._where} is away; asking again until the wait is over", *error.chain)
                    self._told = True
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def polls(wait: int, longest: int) -> Iterator[int]:
    """How many seconds, at most `longest`, to wait in each of the polls that `wait` seconds take; of 0 s one poll.

    One that was answered at once, as by a service at its bounds, is not followed by the next at once.
    """
    end = time.monotonic() + wait
    while True:
        begun = time.monotonic()
        yield min(max(0, math.ceil(end - begun)), longest)
        now = time.monotonic()
        if now >= end:
            return
        time.sleep(min(end - now, max(0.0, begun + SHORTEST_POLL_SECONDS - now)))


def sentence(arguments: Arguments, attribute: str, flag: str, *, most: int) -> str:
    """The value of an option that takes a text for people, "" if it was not given. Raises UsageError."""
    text = arguments.value(attribute) or ""
    if len(text) > most:
        raise UsageError(f"{flag} has {len(text)} characters, at most {most} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # The command line is bytes, and those that are no text stand in it as halves of surrogate pairs.
        raise UsageError(f"{flag} is not UTF-8, at character {error.start + 1}; write it in UTF-8") from None
    return text


def seconds(arguments: Arguments, attribute: str, flag: str, *, most: int) -> int:
    """The value of an option that takes seconds, 0 if it was not given. Raises UsageError."""
    text = arguments.value(attribute)
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()) or int(text[:9]) > most:
        raise UsageError(f"{flag} {text}: expected a number of seconds from 0 to {most}")
    return int(text)
