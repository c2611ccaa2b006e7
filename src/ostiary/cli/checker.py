"""`checker`: a member of policy boards that is a program, and trying its rules."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ostiary.board import MAX_NOTE_CHARS
from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.board.options import sentence
from ostiary.cli.connection import CAS, CAS_CA, IDENTITY, RETRIES, connect, read_text
from ostiary.cli.identity import Identity, parse_identity, self_signed
from ostiary.cli.output import write_out
from ostiary.cli.session.options import TEMPLATE
from ostiary.cli.session.source import load_session
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError, InputError, OutsideError
from ostiary.session import ParsedSession

if TYPE_CHECKING:
    from ostiary.checker.expression import Judged, Plain
    from ostiary.checker.rules import Rules
    from ostiary.checker.watch import Event
    from ostiary.member_key import MemberKey

EXIT_REJECTED = 1

RULES = Option(flags=("--rules",), attribute="rules", metavar="FILE", help="The rules, YAML.")
KEY = Option(
    flags=("--key",),
    attribute="key",
    metavar="KEY",
    help="The member's private key: a PEM file, ssh:SHA256:… in an SSH agent, or a pkcs11: URI.",
)
CHECK = Option(
    flags=("--check",),
    attribute="check",
    metavar="FILE",
    help="Read these rules and their lists, say what is wrong with them, and end.",
)
EXPLAIN = Option(
    flags=("--explain",),
    attribute="explain",
    help="Judge the change from session file OLD to NEW, or the first version NEW, by --rules, and end. Asks nobody.",
)
NOTE = Option(
    flags=("--note",), attribute="note", metavar="TEXT", help="With --explain: the note of the proposal. Default: none."
)
READY = Option(flags=("--ready",), attribute="ready", help="Print the ready rules, YAML, and end.")
AS_JSON = Option(
    flags=("--json",),
    attribute="as_json",
    help="Print JSON: with --check and --explain one object, else one line for each proposal.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Watch and decide; or check, explain, or print ready rules."""
    asked = [option for option in (CHECK, EXPLAIN, READY) if getattr(arguments, option.attribute)]
    if len(asked) > 1:
        raise UsageError(f"{asked[0].flags[0]} and {asked[1].flags[0]} ask for two things; give one of them")
    if arguments.words and EXPLAIN not in asked:
        raise UsageError("session files go with --explain only")
    if READY in asked:
        from ostiary.checker.rules import ready_text

        return Outcome(stdout=ready_text())
    file = arguments.value("check")
    if file is not None:
        return _check(file, arguments, terminal)
    file = arguments.value("rules")
    if file is None:
        raise UsageError("no rules are named; give --rules FILE")
    return _explain(file, arguments, terminal) if EXPLAIN in asked else _watch(file, arguments, terminal)


def _check(file: str, arguments: Arguments, terminal: Terminal) -> Outcome:
    rules, lists = _read_rules(file, terminal)
    if arguments.as_json:
        listed = [
            {"name": rule.name, "must": rule.must, "says": rule.says, "list": rule.list_name} for rule in rules.rules
        ]
        counted = [{"name": name, "measurements": len(values)} for name, values in lists.items()]
        return _json({"approve": rules.approves, "rules": listed, "lists": counted})
    lines = [f"{rule.name}: {rule.says}" if rule.says else rule.name for rule in rules.rules]
    lines += [f"list {name}: {len(values)} measurements" for name, values in lists.items()]
    return Outcome(stdout="".join(f"{line}\n" for line in lines))


def _explain(file: str, arguments: Arguments, terminal: Terminal) -> Outcome:
    from ostiary.checker.decide import decide
    from ostiary.checker.watch import judged

    rules, lists = _read_rules(file, terminal)
    if not 1 <= len(arguments.words) <= 2:
        raise UsageError("--explain takes the session files OLD and NEW, or NEW alone for a first version")
    note = sentence(arguments, "note", "--note", most=MAX_NOTE_CHARS)
    *old, new = (load_session(word, arguments, terminal).parsed for word in arguments.words)
    found = judged(_material(old[0] if old else None, new, note), rules, lambda: lists)
    verdict = decide(rules, found)
    choice = "not decided" if verdict.choice is None else verdict.choice.value
    code = EXIT_REJECTED if verdict.fired else 0
    results = {one.name: one for one in found}
    if arguments.as_json:
        told = [
            {"name": rule.name, "result": results[rule.name].result.value, "detail": results[rule.name].detail}
            for rule in rules.rules
        ]
        return _json({"decision": choice, "reason": verdict.reason, "rules": told}, code=code)
    lines = [_line(results[rule.name], rule.says) for rule in rules.rules]
    return Outcome(stdout="".join(f"{line}\n" for line in (*lines, f"{choice}: {verdict.reason}")), code=code)


def _line(judged: Judged, says: str) -> str:
    told = ": ".join(part for part in (judged.name, says, judged.detail) if part)
    return f"{judged.result.value:9}  {' '.join(told.split())}"


def _material(before: ParsedSession | None, after: ParsedSession, note: str) -> Mapping[str, Plain]:
    """What rules would see of a proposal of `after`, made now by nobody, at no CAS."""
    from ostiary.board import ProposalFacts
    from ostiary.checker.material import material

    facts = ProposalFacts(
        cas=bytes(32),
        session=after.session.name,
        predecessor=None if before is None else before.hash,
        session_hash=after.hash,
        break_glass=False,
        created=datetime.now(UTC).replace(microsecond=0),
        note=note,
        nonce=bytes(16),
    )
    return material(facts, before, after)


def _watch(file: str, arguments: Arguments, terminal: Terminal) -> NoReturn:
    from ostiary.checker.confined import check_confined
    from ostiary.checker.lists_on_disk import read_lists
    from ostiary.checker.watch import Checker
    from ostiary.member_key import choose_key

    rules, _ = _read_rules(file, terminal)
    where = arguments.value("key")
    if where is None:
        raise UsageError("no key is named; give --key KEY, that of the board member which this checker is")
    arguments.unverified = False  # what a CAS that nobody knows shows can be swapped as it likes
    with choose_key(where).unlocked(_nobody) as key:
        client = connect(arguments, terminal, identity=_identity(arguments, key))
        check_confined()
        # A checker that does not know the CAS could decide nothing, so that it ends before it begins.
        cas = client.cas
        if not arguments.as_json:
            print(f"ostiary: deciding by {len(rules.rules)} rules at CAS {cas.hex()}", file=sys.stderr)
        checker = Checker(
            service=client,
            key=key,
            rules=rules,
            lists=lambda: read_lists(rules, Path(file).parent, now=lambda: datetime.now(UTC)),
            say=_say_json if arguments.as_json else _say,
        )
        # Whoever stops it waits for nothing, and nothing is lost: what is not decided waits at the service.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        checker.run()


def _nobody(what: str) -> str:
    raise ConfigurationError(f"{what} is needed, and a checker has nobody to ask", "use a key that is not locked")


def _identity(arguments: Arguments, key: MemberKey) -> Identity:
    """The identity of --identity, else the member's key with a certificate of its own."""
    from ostiary.member_key import KnownKey

    if arguments.identity is not None:
        return parse_identity(read_text(arguments.identity, "--identity"), f"--identity {arguments.identity}")
    if not isinstance(key, KnownKey):
        raise ConfigurationError(
            "the key cannot be shown in TLS, as it stays where it is",
            "give --identity FILE, of an identity that may read",
        )
    return parse_identity(self_signed(key.key), f"--key {arguments.key}")


def _read_rules(file: str, terminal: Terminal) -> tuple[Rules, Mapping[str, tuple[str, ...]]]:
    """The rules and their lists, which must all hold; warnings go to the terminal. Raises InputError."""
    from ostiary.checker.lists_on_disk import read_lists
    from ostiary.checker.rules import parse_rules

    try:
        rules = parse_rules(read_text(file, "rules file"))
    except InputError as error:
        raise InputError(f"rules file {file}: {error.message}", *error.causes) from error
    for warning in rules.warnings:
        terminal.warn(f"{file}: {warning}")
    lists: dict[str, tuple[str, ...]] = {}
    for name, found in read_lists(rules, Path(file).parent, now=lambda: datetime.now(UTC)).items():
        if isinstance(found, InputError):
            raise found
        lists[name] = found
    return rules, lists


def _say(event: Event) -> None:
    """One line on stdout of what was decided; what was not goes to stderr."""
    if event.verdict is None:
        about = f"proposal {event.proposal} of session {event.session}: " if event.proposal else ""
        print(f"ostiary: {about}{event.told}", file=sys.stderr, flush=True)
        return
    choice = "no decision" if event.verdict.choice is None else event.verdict.choice.value
    _tell(f"{choice} {event.proposal} of session {event.session}: {event.verdict.reason} ({event.told})")


def _say_json(event: Event) -> None:
    verdict = event.verdict
    line = {
        "proposal": event.proposal or None,
        "session": event.session or None,
        "decision": None if verdict is None or verdict.choice is None else verdict.choice.value,
        "rules": [] if verdict is None else list(verdict.fired),
        "reason": None if verdict is None else verdict.reason,
        "told": event.told,
    }
    _tell(json.dumps(line))


def _tell(line: str) -> None:
    """Raises ConfigurationError: a checker whose decisions nobody can read ends."""
    try:
        write_out((f"{line}\n".encode(),))
    except OutsideError as error:
        raise ConfigurationError(*error.chain) from error


def _json(members: Mapping[str, object], *, code: int = 0) -> Outcome:
    return Outcome(stdout=json.dumps(members, indent=2, ensure_ascii=False) + "\n", code=code)


COMMAND = Command(
    words=("checker",),
    summary="Decide proposals by rules, as a member of policy boards.",
    run=run,
    failing="The checker failed",
    positionals=("[OLD]", "[NEW]"),
    options=(RULES, KEY, CAS, CAS_CA, IDENTITY, RETRIES, CHECK, EXPLAIN, NOTE, READY, AS_JSON, *TEMPLATE),
    details=(
        "Waits for proposals that wait for the key's decision, judges each by every rule, and approves if all hold, "
        "else rejects with the names of the rules that fired. A rule that cannot be evaluated rejects. Each decision "
        "is a line on stdout; whatever else happens is told on stderr. It goes on until it is stopped, and after any "
        "stop goes on where it was."
        "\n\n"
        "Without --identity it shows the member's key in TLS, so that it may read what its board decides. The extra "
        "`checker` brings the library for rules. docs/checker.md has the format of rules."
        "\n\n"
        f"Exit code 0: done, or stopped by SIGTERM; {EXIT_REJECTED}: --explain rejects, or it failed, and then stderr "
        "says so."
    ),
    examples=(
        "checker --rules rules.yaml --cas cas.example.com --cas-ca cas-ca.pem --key key.pem",
        "checker --check rules.yaml",
        "checker --explain --rules rules.yaml old.yml new.yml",
        "checker --ready > ready.yaml",
    ),
)
