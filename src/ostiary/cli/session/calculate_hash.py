"""`session calculate-hash`: the session hash of a file. Talks to nobody."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Option, Outcome
from ostiary.cli.connection import IDENTITY, own_identity, read_text
from ostiary.cli.identity import certificate_pem, signing_public_key
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import load_session
from ostiary.cli.terminal import Terminal
from ostiary.errors import InputError
from ostiary.session import with_creator
from ostiary.session.normal import session_hash

WITH_SELF = Option(
    flags=("--with-self-as-creator",),
    attribute="with_self_as_creator",
    metavar="tls|signer",
    choices=("tls", "signer"),
    help="Put us in as creator: our certificate, as an upload over TLS would, or our session signing key.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the hash. A session that names CREATOR has none before its creator is known."""
    parsed = load_session(arguments.words[0], arguments, terminal).parsed
    if arguments.with_self_as_creator == "tls":
        parsed = with_creator(parsed, _own_certificate(arguments, terminal))
    elif arguments.with_self_as_creator == "signer" and parsed.names_creator:
        signer = signing_public_key(terminal.configuration.signing_seed())
        return Outcome(stdout=f"{session_hash({**parsed.normal, 'creator': {'signer': signer}}).hex()}\n")
    if parsed.names_creator and parsed.session.creator is None:
        raise InputError(
            "the access policy names CREATOR, explicitly or by default, and the session has no creator",
            "give --with-self-as-creator tls to calculate the hash it will have when you upload it",
        )
    return Outcome(stdout=f"{parsed.hash.hex()}\n")


def _own_certificate(arguments: Arguments, terminal: Terminal) -> str:
    if arguments.identity is None:
        return own_identity(arguments, terminal).certificate
    where = f"--identity {arguments.identity}"
    return certificate_pem(read_text(arguments.identity, "--identity"), where)


COMMAND = Command(
    words=("session", "calculate-hash"),
    summary="Print the session hash of a file.",
    run=run,
    failing="Calculating the session hash failed",
    positionals=("FILE",),
    options=(*TEMPLATE, WITH_SELF, IDENTITY),
    details=f"{TEMPLATE_DETAILS}\n\nWith --with-self-as-creator the certificate alone suffices in --identity FILE.",
    examples=("session calculate-hash session.yml", "session calculate-hash session.yml --with-self-as-creator tls"),
)
