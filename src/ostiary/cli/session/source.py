"""From the file on a command line to a session: read, replace variables, rename, parse, warn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ostiary.cli.arguments import Arguments, UsageError
from ostiary.cli.session.template import is_variable_name, rename, substitute
from ostiary.cli.terminal import Terminal
from ostiary.errors import Finding, InputError, SessionFormatError
from ostiary.session import MAX_DOCUMENT_BYTES, ParsedSession, parse_session

_NOT_TEMPLATES = {"signatures": "a signed session", "encrypted_session": "an encrypted session"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A session from a file. text: with its variables replaced, else as it was written."""

    file: str
    text: str = field(repr=False)
    parsed: ParsedSession


def load_session(file: str, arguments: Arguments, terminal: Terminal) -> Source:
    """The session in `file`, after its variables; its warnings go to the terminal.

    Raises InputError: not readable, a variable without value, no session, or a warning with --fail-on-warning.
    Raises UsageError: a variable that is no NAME=VALUE.
    """
    lookup = _lookup(arguments, terminal)
    content = _read(file)
    _refuse_other_forms(file, content)
    try:
        text = substitute(content, lookup)
        text = text if arguments.name is None else rename(text, arguments.name)
        parsed = parse_session(text)
    except SessionFormatError as error:
        raise InputError(f"Parsing session from session template file '{file}' failed", *error.causes) from error
    except InputError as error:
        raise InputError(f"Parsing session from session template file '{file}' failed", *error.chain) from error
    for warning in parsed.warnings:
        terminal.warn(f"{file}: {warning}")
    if arguments.fail_on_warning and parsed.warnings:
        raise InputError(f"{file} gives reason for {len(parsed.warnings)} warnings, and --fail-on-warning is given")
    return Source(file=file, text=text, parsed=parsed)


def warn_again(told: tuple[tuple[str, ...], ...], known: tuple[Finding, ...], terminal: Terminal) -> None:
    """What the CAS warns of, without what the file was warned of already."""
    messages = tuple(finding.message for finding in known)
    for sentence, *causes in told:
        if not messages or not sentence.endswith(messages):
            terminal.warn(sentence, *causes)


def _lookup(arguments: Arguments, terminal: Terminal) -> Callable[[str], str | None]:
    given: dict[str, str] = {}
    for variable in arguments.variables or ():
        name, equals, value = variable.partition("=")
        if not equals or not is_variable_name(name):
            raise UsageError(f"-e {name!r}: expected NAME=VALUE with a name of letters, digits and _")
        given[name] = value

    def lookup(name: str) -> str | None:
        if name in given or not arguments.use_env:
            return given.get(name)
        return terminal.environment.get(name)

    return lookup


def _read(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"Reading session template file '{file}' failed", str(reason)) from error
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        message = f"byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8; save the text as UTF-8"
        raise InputError(f"Reading session template file '{file}' failed", message) from None


def _refuse_other_forms(file: str, content: str) -> None:
    """Signed and encrypted sessions are JSON, told apart by a member."""
    if not content.lstrip().startswith("{"):
        return
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return
    for member, what in _NOT_TEMPLATES.items():
        if isinstance(document, dict) and member in document:
            raise InputError(f"{file} is {what}, which this version of Ostiary does not take yet; give it as YAML")
