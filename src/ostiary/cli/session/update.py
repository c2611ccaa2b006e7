"""`session update`: upload a session as the successor of the current version."""

from __future__ import annotations

from dataclasses import replace

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.create import upload
from ostiary.cli.session.options import OTHER_FORMS, TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import Source, load_upload
from ostiary.cli.session.stored import parse_stored
from ostiary.cli.terminal import Terminal
from ostiary.client import Client
from ostiary.errors import InputError
from ostiary.session.yaml_text import write_yaml


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash of the version that the upload made."""
    source = load_upload(arguments.words[0], arguments, terminal)
    client = connect(arguments, terminal)
    if isinstance(source, Source) and source.parsed.session.predecessor is None:
        source = succeeding(source, client)
    return upload(source, client, terminal)


def succeeding(source: Source, client: Client) -> Source:
    """The session with the hash of the current version as its predecessor. Raises NotFoundError if there is none."""
    if source.signed is not None:
        raise InputError(
            f"{source.file} is signed and names no predecessor, and cannot change any more",
            "put `predecessor` into the session before it is signed",
        )
    name = source.parsed.session.name
    current = parse_stored(client.read(name), name)
    return replace(source, text=write_yaml({**source.parsed.normal, "predecessor": current.hash.hex()}))


COMMAND = Command(
    words=("session", "update"),
    summary="Upload a session as the successor of the current version, and print its hash.",
    run=run,
    failing="Updating the session failed",
    positionals=("FILE",),
    options=(*TEMPLATE, *CONNECTION),
    details=(
        f"{TEMPLATE_DETAILS}\n\nWithout `predecessor` in FILE the current version is read, and its hash put in; there "
        "must be one. With `predecessor` the session is uploaded as it is."
        f"\n\n{OTHER_FORMS} A signed session must name its predecessor."
    ),
    examples=("session update session.yml", "session update --use-env --cas cas.example.com session.yml"),
)
