"""From the file on a command line to a session: read, replace variables, rename, parse, warn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ostiary.cli.arguments import Arguments, UsageError
from ostiary.cli.session.template import is_variable_name, rename, substitute
from ostiary.cli.terminal import Terminal
from ostiary.errors import Finding, InputError, SessionFormatError
from ostiary.session import ParsedSession, parse_session
from ostiary.session.encrypted import MAX_ENCRYPTED_BYTES, EncryptedSession, parse_encrypted_session
from ostiary.session.signed import SignedSession, parse_signed_session, verify_signatures

_SIGNED, _ENCRYPTED = "signatures", "encrypted_session"
"""Members by which the JSON of a signed, and of an encrypted session is known."""

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A session from a file. text: with its variables replaced, else as it was written.

    signed: what the file holds if that is a signed session, whose signatures all hold; `text` is then that inside.
    """

    file: str
    text: str = field(repr=False)
    parsed: ParsedSession
    signed: SignedSession | None = None


def load_session(file: str, arguments: Arguments, terminal: Terminal) -> Source:
    """The session in `file`, a template or a signed session; its warnings go to the terminal.

    Variables are replaced in a template only. What a signed session says cannot change.
    Raises InputError: not readable, a variable without value, no session, a signature that does not hold, an encrypted
    session, or a warning with --fail-on-warning. Raises UsageError: a variable that is no NAME=VALUE, or --name for a
    signed session.
    """
    found = load_upload(file, arguments, terminal)
    if isinstance(found, EncryptedSession):
        raise InputError(
            f"{file} is an encrypted session, which only the service can read", "give the session it was made of"
        )
    return found


def load_upload(file: str, arguments: Arguments, terminal: Terminal) -> Source | EncryptedSession:
    """As `load_session`; an encrypted session is taken as well, unread."""
    lookup = _lookup(arguments, terminal)
    content = _read(file)
    form = _form(content)
    if form is not None and arguments.name is not None:
        what = "signed" if form == _SIGNED else "encrypted"
        raise UsageError(f"--name cannot go with {file}: it is {what}, and cannot change any more")
    if form == _ENCRYPTED:
        return _of_file(file, "encrypted session", lambda: parse_encrypted_session(content))
    if form == _SIGNED:
        source = _of_file(file, "signed session", lambda: _signed(file, content))
    else:
        source = _of_file(file, "session template", lambda: _template(file, content, lookup, arguments.name))
    for warning in source.parsed.warnings:
        terminal.warn(f"{file}: {warning}")
    if arguments.fail_on_warning and source.parsed.warnings:
        raise InputError(
            f"{file} gives reason for {len(source.parsed.warnings)} warnings, and --fail-on-warning is given"
        )
    return source


def _template(file: str, content: str, lookup: Callable[[str], str | None], name: str | None) -> Source:
    text = substitute(content, lookup)
    text = text if name is None else rename(text, name)
    return Source(file=file, text=text, parsed=parse_session(text))


def _signed(file: str, content: str) -> Source:
    signed = parse_signed_session(content)
    parsed = parse_session(signed.text)
    verify_signatures(parsed.hash, signed.signatures)
    return Source(file=file, text=signed.text, parsed=parsed, signed=signed)


def _of_file(file: str, what: str, read: Callable[[], _Found]) -> _Found:
    """What `read` makes of the file. Raises InputError that names it."""
    try:
        return read()
    except SessionFormatError as error:
        raise InputError(f"Parsing session from {what} file '{file}' failed", *error.causes) from error
    except InputError as error:
        raise InputError(f"Parsing session from {what} file '{file}' failed", *error.chain) from error


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
            content = stream.read(MAX_ENCRYPTED_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"Reading session template file '{file}' failed", str(reason)) from error
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        message = f"byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8; save the text as UTF-8"
        raise InputError(f"Reading session template file '{file}' failed", message) from None


def _form(content: str) -> str | None:
    """_SIGNED or _ENCRYPTED if the text is a JSON object with that member, else None."""
    if not content.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return next((member for member in (_SIGNED, _ENCRYPTED) if member in document), None)
