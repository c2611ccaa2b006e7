"""The argument grammar of `scone`: options anywhere, prefixes of long ones, bundles of short ones, argument files.

Commands describe their options as data; `argparse` does the parsing, and help is written here, so that it looks the
same under every version of Python.
"""

from __future__ import annotations

import argparse
import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError, OstiaryError

MAX_FILE_NESTING = 16
MAX_ARGUMENTS = 10_000
MAX_FILE_BYTES = 16 * 1024 * 1024
HELP_COLUMNS = 100

CLOSE = 0.8
"""How much of a mistyped command or option must be right for a guess at what was meant; 1 is all of it."""

_OPTION_COLUMNS = 30


class UsageError(ConfigurationError):
    """The command line itself is wrong."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """flags: as typed, short ones first. attribute: of `Arguments`. metavar: of its value, "" if it takes none."""

    flags: tuple[str, ...]
    attribute: str
    help: str
    metavar: str = ""
    repeated: bool = False
    choices: tuple[str, ...] = ()

    @property
    def written(self) -> str:
        return ", ".join(self.flags) + (f" {self.metavar}" if self.metavar else "")


class Arguments(argparse.Namespace):
    """What was typed. A command reads the attributes of its own options only; words are its positional arguments."""

    words: list[str]
    help: bool
    cas: str | None
    cas_ca: str | None
    cas_key: str | None
    unverified: bool
    retries: str | None
    identity: str | None
    variables: list[str] | None
    use_env: bool
    name: str | None
    fail_on_warning: bool
    with_self_as_creator: str | None
    key: str | None
    force: bool
    session_hash: str | None
    as_json: bool
    yes: bool
    break_glass: bool
    whole: bool
    waiting: bool
    every_state: bool
    config: str | None
    output: str | None
    version: bool

    def value(self, attribute: str) -> str | None:
        """The value of an option that not every command has."""
        value = getattr(self, attribute, None)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """stdout: all that goes there; bytes for what is no text. code: exit code. for_terminals: even those bytes.

    on_terminal: the same with colours, for a terminal; empty: there is no such text.
    """

    stdout: str | bytes
    code: int = 0
    for_terminals: bool = False
    on_terminal: str = ""

    @property
    def data(self) -> bytes:
        """The bytes of `stdout`."""
        return self.stdout if isinstance(self.stdout, bytes) else self.stdout.encode()


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command. words: its name, such as ("session", "create"). positionals: `NAME`, or `[NAME]` if optional.

    failing: the first line of its errors. codes: exit codes of errors, 1 for all others.
    """

    words: tuple[str, ...]
    summary: str
    run: Callable[[Arguments, Terminal], Outcome]
    failing: str
    positionals: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    details: str = ""
    examples: tuple[str, ...] = ()
    codes: Mapping[type[OstiaryError], int] = field(default_factory=dict)

    def usage(self, program: str) -> str:
        """The line after `Usage:`."""
        return " ".join((program, *self.words, "[OPTIONS]", *self.positionals))

    def parse(self, words: Sequence[str]) -> Arguments:
        """What `words`, all after the command's name, say. Raises UsageError."""
        before, after = _split(words)
        options = (*self.options, HELP)
        with _guessing(options, before):
            arguments = _parser(options).parse_intermixed_args(before, Arguments())
        arguments.words = [*arguments.words, *after]
        least = sum(not name.startswith("[") for name in self.positionals)
        if not arguments.help and not least <= len(arguments.words) <= len(self.positionals):
            expected, found = " ".join(self.positionals) or "no arguments", len(arguments.words)
            plural = "" if found == 1 else "s"
            raise UsageError(f"found {found} argument{plural} beside the options, expected {expected}")
        return arguments

    def help(self, program: str) -> str:
        """The whole help page, at most HELP_COLUMNS wide."""
        parts = [f"{self.summary}\n", f"Usage: {self.usage(program)}\n"]
        if self.details:
            parts.append(f"{_wrapped(self.details)}\n")
        parts.append("Options:\n" + "\n".join(_option_lines((*self.options, HELP))) + "\n")
        if self.examples:
            parts.append("Examples:\n" + "\n".join(f"  {program} {example}" for example in self.examples) + "\n")
        return "\n".join(parts)


HELP = Option(flags=("-h", "--help"), attribute="help", help="Print this page and exit.")


def parse_options(options: Sequence[Option], words: Sequence[str]) -> Arguments:
    """Words that are options and their values only. Raises UsageError."""
    with _guessing(options, words):
        arguments = _parser(options).parse_args(words, Arguments())
    if arguments.words:
        raise UsageError(f"{arguments.words[0]!r} stands where an option is expected")
    return arguments


@contextlib.contextmanager
def _guessing(options: Sequence[Option], words: Sequence[str]) -> Iterator[None]:
    """Says in a UsageError of the block which option may be meant, if one is misspelt."""
    flags = [flag for option in options for flag in option.flags if flag.startswith("--")]
    try:
        yield
    except UsageError as error:
        written = (word.partition("=")[0] for word in words if word.startswith("--"))
        unknown = [word for word in written if not any(flag.startswith(word) for flag in flags)]
        near = [match for word in unknown for match in get_close_matches(word, flags, n=1, cutoff=CLOSE)]
        raise UsageError(*error.chain, *(f"did you mean {flag!r}?" for flag in dict.fromkeys(near))) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser(options: Sequence[Option]) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=True)
    for option in options:
        if not option.metavar:
            parser.add_argument(*option.flags, dest=option.attribute, action="store_true")
        else:
            parser.add_argument(
                *option.flags,
                dest=option.attribute,
                action="append" if option.repeated else "store",
                choices=option.choices or None,
            )
    parser.add_argument("words", nargs="*")
    return parser


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words before and after `--`."""
    if "--" not in words:
        return list(words), []
    end = words.index("--")
    return list(words[:end]), list(words[end + 1 :])


def expand_argument_files(words: Sequence[str]) -> list[str]:
    """The words with each `@FILE` replaced by the lines of the file, one argument a line, without quoting rules.

    A line that begins with `@` is expanded again. LF or CRLF end lines, and the last one makes no argument. Nothing
    is expanded after `--`. Raises UsageError: a file that cannot be read, over the bounds, or that names itself.
    """
    expansion = _Expansion()
    expansion.take(words, ())
    return expansion.words


class _Expansion:
    """words: what came out so far. After `--` everything is taken as it is."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._ended = False

    def take(self, words: Sequence[str], inside: tuple[Path, ...]) -> None:
        for word in words:
            if word.startswith("@") and not self._ended:
                self._take_file(word[1:], inside)
                continue
            self._ended = self._ended or word == "--"
            self.words.append(word)
            if len(self.words) > MAX_ARGUMENTS:
                raise UsageError(f"argument files give more than {MAX_ARGUMENTS} arguments")

    def _take_file(self, name: str, inside: tuple[Path, ...]) -> None:
        lines = _lines(name)
        path = Path(name).resolve()
        if path in inside:
            raise UsageError(f"argument file {name!r} names itself")
        if len(inside) == MAX_FILE_NESTING:
            raise UsageError(f"argument files name one another more than {MAX_FILE_NESTING} deep")
        self.take(lines, (*inside, path))


def _lines(name: str) -> list[str]:
    try:
        with open(name, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise UsageError(f"argument file {name!r} cannot be read: {error.strerror}") from error
    except ValueError:
        raise UsageError(f"argument file {name!r} cannot be read: it is not UTF-8, or no file name") from None
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"argument file {name!r} has more than {MAX_FILE_BYTES} bytes")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _option_lines(options: Sequence[Option]) -> Iterator[str]:
    indent = " " * (_OPTION_COLUMNS + 4)
    for option in options:
        written, lines = f"  {option.written}", textwrap.wrap(option.help, HELP_COLUMNS - len(indent))
        if len(written) > _OPTION_COLUMNS + 2:
            yield written
        else:
            yield f"{written:{len(indent)}}{lines.pop(0)}"
        yield from (indent + line for line in lines)


def _wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, HELP_COLUMNS) for paragraph in text.split("\n\n"))
