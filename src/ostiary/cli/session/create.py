"""`session create`: upload a session as it is."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import OTHER_FORMS, TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import Source, load_upload, warn_again
from ostiary.cli.terminal import Terminal
from ostiary.client import Client
from ostiary.errors import Finding
from ostiary.session.encrypted import EncryptedSession


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash of the version that the upload made."""
    source = load_upload(arguments.words[0], arguments, terminal)
    return upload(source, connect(arguments, terminal), terminal)


def upload(source: Source | EncryptedSession, client: Client, terminal: Terminal) -> Outcome:
    """Send the session in the form that it has, and print the hash of what the CAS made of it."""
    known: tuple[Finding, ...] = ()
    if isinstance(source, EncryptedSession):
        uploaded = client.upload_encrypted(source.to_json())
    elif source.signed is not None:
        uploaded, known = client.upload_signed(source.signed.to_json()), source.parsed.warnings
    else:
        uploaded, known = client.upload(source.text), source.parsed.warnings
    warn_again(uploaded.warnings, known, terminal)
    return Outcome(stdout=f"{uploaded.session_hash.hex()}\n")


COMMAND = Command(
    words=("session", "create"),
    summary="Upload a session, and print its hash.",
    run=run,
    failing="Creating the session failed",
    positionals=("FILE",),
    options=(*TEMPLATE, *CONNECTION),
    details=(
        f"{TEMPLATE_DETAILS}\n\nThe session is uploaded as it is: without `predecessor` a session of its name must not "
        "exist yet, with one it must be the hash of the current version."
        f"\n\n{OTHER_FORMS}"
    ),
    examples=(
        "session create --cas localhost --cas-ca ostiary-data/cas-ca.pem session.yml",
        "session create -e MRENCLAVE=$M --name my-session session.yml",
        "session create signed.json",
    ),
)
