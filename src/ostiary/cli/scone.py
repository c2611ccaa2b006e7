"""`scone`: the command line that scripts written for SCONE's CLI call. `ostiary session …` is the same.

stdout is exactly the result that was asked for; everything else goes to stderr: `Error: …`, then `Caused by: …`.
Exit codes: 0 done; 1 failed, refused or different; 2 no such session (`session read`), denial (`explain`) or proposal
(`board`); 64 wrong usage; 65 a swapped proposal (`board`); 69 failed, where 1 is an answer (`board list`, `status`);
70 a fault of this program; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ostiary import __version__
from ostiary.cli.arguments import (
    CLOSE,
    HELP,
    Arguments,
    Command,
    Option,
    Outcome,
    UsageError,
    expand_argument_files,
    parse_options,
)
from ostiary.cli.client_commands import COMMANDS, GROUPS, NOT_YET, OUT_OF_SCOPE, REFUSED
from ostiary.cli.output import write_out
from ostiary.cli.terminal import open_terminal
from ostiary.errors import ConfigurationError, OstiaryError, OutsideError

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130

COMPATIBLE_VERSION = "7.0.0"
"""The level of SCONE's CLI whose commands these are; scripts compare its first number with that of the CAS."""

CONFIG = Option(
    flags=("-c", "--config"),
    attribute="config",
    metavar="FILE",
    help="Identity and known services. Default: SCONE_CLI_CONFIG, else ~/.cas/config.json.",
)
OUTPUT = Option(flags=("-o",), attribute="output", metavar="FILE", help="Write there what would go to stdout.")
VERSION = Option(flags=("-V", "--version"), attribute="version", help="Print the version and exit.")
TOP_OPTIONS = (CONFIG, OUTPUT, HELP, VERSION)

_TAKE_A_VALUE = ("-c", "-o", "--c", "--co", "--con", "--conf", "--confi", "--config")


def main() -> None:
    """Run the command line of this process as `scone`, and exit with its code."""
    if os.environ.get("SCONE_HASH") == "1":
        print(own_measurement())
        sys.exit(0)
    if os.environ.get("SCONE_VERSION") == "1":
        print(f"ostiary {__version__}", file=sys.stderr)
    sys.exit(run(sys.argv[1:], "scone"))


def run(words: Sequence[str], program: str) -> int:
    """Run one command line; its exit code."""
    try:
        return _run(expand_argument_files(words), program)
    except UsageError as error:
        return _misused(error, program, program)
    except OstiaryError as error:
        _tell(*error.chain)
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read stdout has gone.
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        # The last resort. What the error says may be secret, so only its place is told.
        place = traceback.extract_tb(error.__traceback__)[-1]
        _tell("internal error; please report it", f"{type(error).__name__} at {place.filename}:{place.lineno}")
        return EXIT_INTERNAL


def claims(words: Sequence[str]) -> bool:
    """Whether a command line, perhaps with options before it, names a command of this module."""
    rest = words[_end_of_options(words) :]
    return bool(rest) and (rest[0] in GROUPS or (rest[0],) in (command.words for command in COMMANDS))


def own_measurement() -> str:
    """What the software platform measures of a service whose command is this program, 64 hex digits."""
    import ostiary
    from ostiary.attester import resolve_program
    from ostiary.platform import measure_program

    path = os.environ.get("PATH", os.defpath)
    measured = resolve_program([sys.argv[0]], extra_files=[], path=path, cwd=os.getcwd())
    python = Path(os.path.realpath(sys.executable))
    return measure_program(measured, python=python, package=Path(ostiary.__file__).parent).mr_enclave.hex()


def _run(words: list[str], program: str) -> int:
    end = _end_of_options(words)
    top, rest = parse_options(TOP_OPTIONS, words[:end]), words[end:]
    if top.version:
        return _print(Outcome(stdout=f"{program} {COMPATIBLE_VERSION}\n"), top)
    if rest[:2] == ["cas", "session"]:
        rest = rest[1:]
    if top.help or not rest or rest == ["help"]:
        return _print(Outcome(stdout=overview(program), code=0 if top.help or rest else EXIT_USAGE), top)
    if rest == ["version"]:
        return _print(Outcome(stdout=f"{program} {COMPATIBLE_VERSION}\nostiary {__version__}\n"), top)
    if rest == ["help-markdown"]:
        return _print(Outcome(stdout=help_markdown(program)), top)
    if len(rest) > 1 and rest[0] in GROUPS and rest[1] in ("help", "-h", "--help"):
        return _print(Outcome(stdout=group_help(rest[0], program)), top)
    command = next((one for one in COMMANDS if tuple(rest[: len(one.words)]) == one.words), None)
    if command is None:
        return _unknown(rest, program)
    return _execute(command, rest[len(command.words) :], top, program)


def _execute(command: Command, words: list[str], top: Arguments, program: str) -> int:
    try:
        arguments = command.parse(words)
        help_page = Outcome(stdout=command.help(program)) if arguments.help else None
        outcome = help_page or command.run(arguments, open_terminal(top.config))
    except UsageError as error:
        return _misused(error, program, " ".join((program, *command.words)))
    except OstiaryError as error:
        _tell(command.failing, *error.chain)
        return _code(error, command)
    try:
        return _print(outcome, top)
    except OutsideError as error:
        # What it did, such as a decision that was sent, is done all the same.
        _tell(*error.chain, *(() if arguments.help else ("the command itself was carried out",)))
        return _code(error, command)


def _code(error: OstiaryError, command: Command) -> int:
    return next((code for kind, code in command.codes.items() if isinstance(error, kind)), EXIT_FAILED)


def _unknown(rest: list[str], program: str) -> int:
    named = " ".join(rest[:2] if rest[0] in GROUPS else rest[:1])
    refused = REFUSED.get(tuple(rest[:2]))
    if refused is not None:
        _tell(*refused)
        return EXIT_FAILED
    if rest[0] in OUT_OF_SCOPE:
        _tell(f"{program} {named} is not part of Ostiary")
    elif tuple(rest[:2]) in NOT_YET or tuple(rest[:1]) in NOT_YET:
        _tell(f"{program} {named} is not part of this version of Ostiary yet")
    elif rest[0] in GROUPS and len(rest) == 1:
        needs = UsageError(f"{named} needs a command: {', '.join(one.words[1] for one in _group(named))}")
        return _misused(needs, program, f"{program} {named}")
    else:
        known = [" ".join(one.words) for one in _group(rest[0])] or [one.words[0] for one in COMMANDS]
        near = get_close_matches(named, known, n=1, cutoff=CLOSE)
        raise UsageError(f"there is no command {named!r}", *(f"did you mean {word!r}?" for word in near))
    return EXIT_USAGE


def _print(outcome: Outcome, top: Arguments) -> int:
    if top.output is None:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        if isinstance(outcome.stdout, bytes) and not outcome.for_terminals and is_terminal:
            raise ConfigurationError(
                "stdout would be bytes and not text", "pipe it on, write it with -o, or give --force"
            )
        coloured = outcome.on_terminal.encode() if is_terminal else b""
        write_out((coloured or outcome.data,))
        return outcome.code
    try:
        Path(top.output).write_bytes(outcome.data)
    except OSError as error:
        raise OutsideError(f"-o {top.output}: {error.strerror}") from error
    return outcome.code


def _misused(error: UsageError, program: str, page: str) -> int:
    """Tell what is wrong with the command line, and whose help page says more."""
    _tell(f"{program}: {error.message}", *error.causes, f"`{page} --help` says more")
    return EXIT_USAGE


def _tell(what: str, *causes: str) -> None:
    print(f"Error: {what}", *(f"Caused by: {cause}" for cause in causes), sep="\n", file=sys.stderr)


def _end_of_options(words: Sequence[str]) -> int:
    """How many words stand before the command."""
    end = 0
    while end < len(words) and words[end].startswith("-"):
        end += 2 if words[end] in _TAKE_A_VALUE else 1
    return min(end, len(words))


def _group(name: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] == name]


def overview(program: str) -> str:
    """The help page of the whole program."""
    parts = [
        "Sessions of Ostiary or SCONE CAS, and who you are to them, with the commands of SCONE's CLI.\n",
        f"Usage: {program} [OPTIONS] COMMAND\n",
        "Commands:",
    ]
    for name in GROUPS:
        parts += [f"  {' '.join(command.words):30}{command.summary}" for command in _group(name)]
    parts += [f"  {command.words[0]:30}{command.summary}" for command in COMMANDS if len(command.words) == 1]
    parts += [
        f"  {'version':30}Print the version of this program.",
        f"  {'help-markdown':30}Print all help pages as markdown.",
        "\nOptions:",
        *(f"  {option.written:30}{option.help}" for option in TOP_OPTIONS),
        "\nAn argument @FILE is replaced by the lines of FILE, one argument a line.",
        "Exit codes: 0 done, 1 failed or different, 2 not found (session read, explain, board), 64 wrong usage,",
        "65 a swapped proposal (board), 69 failed, where 1 is an answer (board list, board status).",
    ]
    return "\n".join(parts) + "\n"


def group_help(name: str, program: str) -> str:
    """The help page of one group of commands."""
    lines = [f"  {command.words[1]:28}{command.summary}" for command in _group(name)]
    return "\n".join([GROUPS[name], f"\nUsage: {program} {name} COMMAND\n", "Commands:", *lines]) + "\n"


def help_markdown(program: str) -> str:
    """All help pages."""
    pages = [("", overview(program)), *((" ".join(one.words), one.help(program)) for one in COMMANDS)]
    return "\n".join(f"## {f'{program} {name}'.strip()}\n\n```text\n{page}```\n" for name, page in pages)
