"""`ostiary store log`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.cli.store.options import (
    DATA,
    SCHEMA,
    Config,
    Data,
    Database,
    File,
    Schema,
    Sealing,
    Tpm,
    opened,
    settings,
)
from ostiary.errors import InputError, StoreError

if TYPE_CHECKING:
    from ostiary.audit import Entry
    from ostiary.audit.entry import Json

LOUD = "BREAK-GLASS"
_ROOT = "/"
_LEADING = ("state", "choice", "member", "by")
"""What most of those who read the log look for."""
_NOT_SAID = ("session", "break_glass")
_HASHES = frozenset({"by", "key", "measurement", "member", "owner", "proposal", "session_hash", "signature", "signer"})
_HASH_DIGITS = 16
_HEX = re.compile(r"[0-9a-f]+")
_PLAIN = re.compile(r"[\w./:@+~-]+")


def log(
    session: Annotated[str | None, typer.Option("--session", metavar="NAME", help="Only what is about it.")] = None,
    data: Data = DATA,
    database: Database = None,
    schema: Schema = SCHEMA,
    config: Config = None,
    file: File = None,
    sealing: Sealing = None,
    tpm: Tpm = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the entries as they are, one JSON object a line.")
    ] = False,
) -> None:
    """Print the audit log, the oldest entry first, after all of it was held against the head, with the key in DIR.

    A line has the time, the type, the session and what else the entry says; BREAK-GLASS after the time if a proposal
    to break the glass is behind it. Hashes are cut to 16 digits; --json has all of them, and the very bytes that the
    log's tree is over. Reads one snapshot, so a service may run meanwhile, until all is printed.

    Exit codes: 0 verified and printed; 65 the log does not verify, and nothing of it was printed that does not; 1 it
    cannot be read, or whoever read stdout has gone; 69 stdout cannot be written.

    Examples:

      ostiary store log --data /var/lib/cas

      ostiary store log --session my-session | grep BREAK-GLASS

      ostiary store log --json | jq -r 'select(.type == "service_attested") | .data.measurement'
    """
    from ostiary.audit import Frontier
    from ostiary.broker.open_storage import kept_key
    from ostiary.cli.output import write_out
    from ostiary.cli.store.progress import Bar
    from ostiary.store import offline

    key = kept_key(settings(data, config, sealing=sealing, tpm=tpm))
    with opened(data, database, schema, config=config, file=file) as found, ExitStack() as stack:
        with Bar("verifying") as bar:
            verified = offline.verified_leaves(found.backend, key, log=Frontier(), progress=bar)
            leaves = stack.enter_context(verified)
        entries = _entries(leaves, found.backend.place)
        wanted = ((leaf, entry) for leaf, entry in entries if session is None or is_about(entry, session))
        write_out((leaf if as_json else line(entry).encode()) + b"\n" for leaf, entry in wanted)


def _entries(leaves: Iterable[bytes], place: str) -> Iterator[tuple[bytes, Entry]]:
    from ostiary.audit import read_entry

    for position, leaf in enumerate(leaves):
        try:
            yield leaf, read_entry(leaf)
        except InputError as error:
            raise StoreError(
                f"{place}: leaf {position} of the audit log is authentic but not in this program's form: start the "
                "program that wrote it",
                *error.chain,
            ) from error


def is_about(entry: Entry, session: str) -> bool:
    """Whether the entry is about that session, or counts refused starts of its services."""
    refused = entry.data.get("refused")
    counted = refused if isinstance(refused, list) else []
    named = [entry.data.get("session"), *(one.get("session") for one in counted if isinstance(one, dict))]
    return any(isinstance(name, str) and _bare(name) == _bare(session) for name in named)


def _bare(name: str) -> str:
    return name.removeprefix("/") or _ROOT


def line(entry: Entry) -> str:
    """One line for a person, without its end. Nothing in it can steer a terminal, or pass for another member."""
    data = entry.data
    loud = [LOUD] if data.get("break_glass") is True else []
    session = [_said(data["session"])] if "session" in data else []
    others = sorted(data.keys() - set(_NOT_SAID) - set(_LEADING))
    rest = (_member(name, data[name]) for name in (*_LEADING, *others) if name in data)
    return " ".join((_said(entry.time), *loud, _said(entry.kind), *session, *rest))


def _member(name: str, value: Json) -> str:
    if name in _HASHES and isinstance(value, str) and len(value) > _HASH_DIGITS and _HEX.fullmatch(value):
        return f"{_said(name)}={value[:_HASH_DIGITS]}…"
    return f"{_said(name)}={_said(value)}"


def _said(value: Json) -> str:
    """Text that is a plain word as it is, and all other in JSON's quotes, in ASCII that can be printed."""
    match value:
        case str():
            return value if value.isascii() and _PLAIN.fullmatch(value) else json.dumps(value)
        case Mapping():
            return f"{{{' '.join(_member(name, member) for name, member in value.items())}}}"
        case Sequence():
            return f"[{', '.join(_said(element) for element in value)}]"
        case _:
            return json.dumps(value)
