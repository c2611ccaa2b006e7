"""What `board approve`, `reject` and `withdraw` have in common: show, ask, and only then touch the key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime

from ostiary.board import MAX_REASON_CHARS, Choice
from ostiary.board.proposal import State
from ostiary.board.shown import Proposal
from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.board.form import format_time, written
from ostiary.cli.board.options import (
    AS_JSON,
    CODES,
    CODES_DETAILS,
    KEY,
    PIN_FILE,
    PROPOSAL_DETAILS,
    WHOLE,
    asking,
    find_proposal,
    is_id,
    key_place,
    sentence,
)
from ostiary.cli.board.page import review_page, taking_effect
from ostiary.cli.board.propose import BREAK_GLASS
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.store.progress import patience
from ostiary.cli.terminal import Terminal
from ostiary.client import Counted
from ostiary.errors import ConflictError, NotAuthorizedError

REASON = Option(
    flags=("-r", "--reason"),
    attribute="reason",
    metavar="TEXT",
    help=f"Why, signed with the decision and kept for ever; at most {MAX_REASON_CHARS} characters.",
)
YES = Option(
    flags=("--yes",),
    attribute="yes",
    help="Show nothing and ask no confirmation. PROPOSAL must be an id: that of what was reviewed.",
)
SAID_BREAK_GLASS = Option(
    flags=BREAK_GLASS.flags,
    attribute=BREAK_GLASS.attribute,
    help="With --yes: decide even if the proposal is one that breaks the glass.",
)
BREAK_GLASS_WORD = "break-glass"


def deciding(choice: Choice) -> Callable[[Arguments, Terminal], Outcome]:
    """The command that makes this decision."""
    return lambda arguments, terminal: _run(choice, arguments, terminal)


def _run(choice: Choice, arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print what the proposal has come to.

    Guarantees: what is signed is what was shown, as one value; neither passphrase nor PIN is asked for, and no agent or
    token asked to sign, before the proposal was held against its id, shown and confirmed.
    """
    text, reason = arguments.words[0], sentence(arguments, "reason", "--reason", most=MAX_REASON_CHARS)
    if choice is Choice.REJECT and not reason.strip():
        raise UsageError("say why: --reason TEXT; whoever proposed it will want to know")
    if arguments.yes and not is_id(text):
        raise UsageError(f"with --yes the proposal is named by its id, and {text!r} is none")
    place = key_place(arguments, terminal)
    client = connect(arguments, terminal)
    proposal = find_proposal(text, client)
    if not proposal.summary.state.is_pending:
        raise ConflictError(f"the proposal is {proposal.summary.state}; nothing is to be decided any more")
    own = place.public()
    if own is not None:
        _require_member(proposal, own, place.name)
    _confirm(choice, proposal, own, arguments, terminal)
    with place.unlocked(asking(arguments, terminal)) as key:
        _require_member(proposal, key.spki, place.name)
        with patience("waiting for the key, and then for the CAS"):
            counted = client.decide(proposal, choice, key=key, reason=reason)
    return Outcome(stdout=_told(proposal, counted, as_json=arguments.as_json))


def _require_member(proposal: Proposal, spki: bytes, name: str) -> None:
    """Raises NotAuthorizedError."""
    if not proposal.members_with(spki):
        names = ", ".join(member.name for member in proposal.members) or "none"
        raise NotAuthorizedError(
            f"{name} is of no member who decides about this proposal",
            f"members: {names}; name another key with --key",
        )


def _confirm(choice: Choice, proposal: Proposal, own: bytes | None, arguments: Arguments, terminal: Terminal) -> None:
    """Show the page to the person, not to a pipe, and have it confirmed. Raises ConfigurationError."""
    glass = proposal.facts.break_glass and choice is Choice.APPROVE
    if arguments.yes:
        if glass and not arguments.break_glass:
            raise UsageError("this proposal breaks the glass; to approve it unasked give --break-glass beside --yes")
        return
    page = review_page(proposal, now=datetime.now(UTC), own=own, whole=arguments.whole)
    print(page, end="", file=sys.stderr, flush=True)
    word = BREAK_GLASS_WORD if glass else "yes"
    count = len(proposal.risks)
    # Of a long page the end is what stands on the screen.
    risks = "" if not count else f", with {count} risk{'s' if count > 1 else ''}"
    terminal.confirm(f"{choice.value.capitalize()} as {_name(proposal, own)}{risks}?", word)


def _name(proposal: Proposal, own: bytes | None) -> str:
    if own is None:
        return "the member with this key"
    return " and ".join(dict.fromkeys(member.name for member in proposal.members_with(own)))


def _told(proposal: Proposal, counted: Counted, *, as_json: bool) -> str:
    if as_json:
        return written({
            "proposal": proposal.id,
            "state": counted.state.value,
            "approvals": counted.approvals,
            "needed": counted.needed,
            "apply_after": None if counted.apply_after is None else format_time(counted.apply_after),
        })  # fmt: skip
    if counted.state is State.APPROVED and counted.apply_after is not None:
        return f"{taking_effect(counted.state, counted.apply_after)}\n"
    if not counted.state.is_pending or counted.approvals is None or counted.needed is None:
        return f"{counted.state}\n"
    return f"{counted.state}: {counted.approvals} of {counted.needed} approvals\n"


def decision_command(choice: Choice, *, summary: str, details: str, examples: tuple[str, ...]) -> Command:
    """The command of one choice."""
    glass = (SAID_BREAK_GLASS,) if choice is Choice.APPROVE else ()
    return Command(
        words=("board", choice.value),
        summary=summary,
        run=deciding(choice),
        failing=f"The decision to {choice.value} was not made",
        positionals=("PROPOSAL",),
        options=(KEY, PIN_FILE, REASON, YES, *glass, WHOLE, AS_JSON, *CONNECTION),
        details=(
            f"{details}\n\n{PROPOSAL_DETAILS} The page of `board review` is shown on stderr, to be confirmed at "
            "the terminal; the key's passphrase or PIN is asked for last. What is signed is what was shown."
            f"\n\n{CODES_DETAILS}"
        ),
        examples=examples,
        codes=CODES,
    )
