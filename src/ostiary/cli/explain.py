"""`explain`: why a start was denied, and the smallest change of the session that would admit it."""

from __future__ import annotations

import copy
import io
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ostiary.appraisal.form import read_advice
from ostiary.appraisal.patch import Operation, apply_operations, change_in_place
from ostiary.broker.statement import MAX_STATEMENT_BYTES, verify_denial
from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.connection import CONNECTION, connect, read_certificates, read_text
from ostiary.cli.explain_page import page, summary
from ostiary.cli.terminal import Terminal
from ostiary.errors import InputError, NotFoundError, OutsideError
from ostiary.session import MAX_DOCUMENT_BYTES, parse_session
from ostiary.session.yaml_text import write_yaml

_INDENTED_LIST = re.compile(r"^( *)[A-Za-z_]+:[ \t]*\n(?: *#.*\n)*\1  - ", re.MULTILINE)
_SERVICE = re.compile(r"services\[[0-9]+\]")

EXIT_UNKNOWN = 2
"""No such denial, or not for us."""

LIST = Option(
    flags=("--list",),
    attribute="list_session",
    metavar="SESSION",
    help="List the denials of a session, the newest first, in place of explaining one.",
)
BEFORE = Option(
    flags=("--before",), attribute="before", metavar="ID", help="With --list: those that are older than this one."
)
AS_JSON = Option(
    flags=("--json",),
    attribute="as_json",
    help="Print JSON: the signed denial, or with --list a list of them in short.",
)
PATCHED = Option(
    flags=("--patched",),
    attribute="patched",
    metavar="FILE",
    help="Print the session in FILE with the change carried out and its comments kept, in place of the page.",
)
VERIFY = Option(
    flags=("--verify",),
    attribute="verify",
    metavar="FILE",
    help="Explain the signed denial in FILE, which the CAS of --cas-ca must have signed. Asks nobody.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the page of one denial, its JSON, the patched session, or the list of a session's denials."""
    session, file = arguments.value("list_session"), arguments.value("verify")
    wanted = len(arguments.words) + (session is not None) + (file is not None)
    if wanted != 1:
        raise UsageError("give the id of one denial, or --list SESSION, or --verify FILE")
    if session is not None:
        return _list(session, arguments, terminal)
    if file is not None:
        signed, denial = _verified(file, arguments)
    else:
        signed, denial = _asked(arguments.words[0], arguments, terminal)
    patched = arguments.value("patched")
    if patched is not None:
        return Outcome(stdout=_patched(patched, denial, terminal))
    if arguments.as_json:
        return Outcome(stdout=_json(signed))
    return Outcome(stdout=page(denial), on_terminal=page(denial, colours=not os.environ.get("NO_COLOR")))


def _list(session: str, arguments: Arguments, terminal: Terminal) -> Outcome:
    if arguments.value("patched") is not None:
        raise UsageError("--patched goes with one denial")
    denials = connect(arguments, terminal).denials(session, before=arguments.value("before"))
    return Outcome(stdout=_json(denials) if arguments.as_json else summary(denials))


def _asked(denial: str, arguments: Arguments, terminal: Terminal) -> tuple[dict[str, Any], dict[str, Any]]:
    signed: dict[str, Any] = connect(arguments, terminal).denial(denial)
    content = signed.get("denial")
    if not isinstance(content, dict) or content.get("id") != denial:
        raise OutsideError("the CAS did not answer with the denial that was asked for")
    return signed, content


def _verified(file: str, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Any]]:
    if arguments.cas_ca is None:
        raise UsageError("--verify needs --cas-ca FILE, the certificate of the CAS that must have signed")
    try:
        with Path(file).open("rb") as stream:
            text = stream.read(MAX_STATEMENT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error
    root = read_certificates(arguments.cas_ca)
    try:
        denial = verify_denial(text, root, now=datetime.now(UTC))
    except InputError as error:
        raise InputError(f"{file} cannot be verified", *error.chain) from error
    return json.loads(text), denial


def _patched(file: str, denial: dict[str, Any], terminal: Terminal) -> str:
    """The author's text with the change, as little else touched as the YAML library can."""
    advice = None if denial.get("advice") is None else read_advice(denial["advice"])
    if advice is None or not advice.suffices:
        raise InputError(
            "no change of the session admits this program", "`ostiary explain` says what stands in the way"
        )
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = MAX_DOCUMENT_BYTES
    text = read_text(file, "--patched")
    if _INDENTED_LIST.search(text):
        yaml.indent(mapping=2, sequence=4, offset=2)
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{file} has more than {MAX_DOCUMENT_BYTES} bytes, and is no session")
    try:
        document = yaml.load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is no YAML that can be changed", str(error)[:200]) from None
    name = document.get("name") if isinstance(document, dict) else None
    if not isinstance(name, str) or (name != denial.get("session") and "$" not in name):
        raise InputError(f"{file} is not session {denial.get('session')!r}, which denied the start")
    _require_service(file, document, denial.get("service"), advice.operations)
    before = copy.deepcopy(document)
    change_in_place(document, advice.operations)
    if document == before:
        terminal.warn(f"{file} has this change already", "the CAS has it once you upload it: `ostiary session update`")
    stream = io.StringIO()
    yaml.dump(document, stream)
    _require_same(file, text, stream.getvalue(), advice.operations)
    return stream.getvalue()


def _require_service(file: str, document: dict[str, Any], denied: object, operations: tuple[Operation, ...]) -> None:
    """Operations count services; in another version of the session the same number is perhaps another service's."""
    written = document.get("services")
    services = written if isinstance(written, list) else [written]
    for place in sorted({found[0] for one in operations if (found := _SERVICE.match(one.path)) is not None}):
        index = int(place[len("services[") : -1])
        service = services[index] if index < len(services) else None
        name = service.get("name") if isinstance(service, dict) else None
        if name != denied and "$" not in str(name):
            raise InputError(
                f"{file}: {place} is {name!r}, expected {denied!r}, which was denied",
                "the file is another version of the session; merge the patch that `ostiary explain` shows",
            )


def _require_same(file: str, before: str, after: str, operations: tuple[Operation, ...]) -> None:
    """Nothing else may have changed: the library reads some scalars as other types than sessions do.

    A template, whose variables have no values yet, is no session and cannot be compared.
    """
    try:
        meant = apply_operations(parse_session(before).normal, operations)
    except InputError:
        return
    if parse_session(after).hash != parse_session(write_yaml(meant)).hash:
        raise InputError(
            f"{file} cannot be changed without changing more than that", "merge the patch that `ostiary explain` shows"
        )


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


COMMAND = Command(
    words=("explain",),
    summary="Say why a start was denied, and the smallest change of the session that would admit it.",
    run=run,
    failing="Explaining the denial failed",
    positionals=("[DENIAL_ID]",),
    options=(AS_JSON, PATCHED, LIST, BEFORE, VERIFY, *CONNECTION),
    details=(
        "DENIAL_ID is what the program was told. Those who may read the session may read its denials; to all others "
        "there are none. The change is what would admit this very program: whether that is wise, and for how long, is "
        "said for each part of it, and only its author can decide."
        f"\n\nExit code {EXIT_UNKNOWN}: the CAS has no such denial, or not for us."
    ),
    examples=(
        "explain 1f2e3d4c5b6a7988",
        "explain --list my-session",
        "explain 1f2e3d4c5b6a7988 --patched session.yml > new.yml",
        "explain 1f2e3d4c5b6a7988 --json > denial.json",
        "explain --verify denial.json --cas-ca cas-ca.pem",
    ),
    codes={NotFoundError: EXIT_UNKNOWN},
)
