"""`session encrypt`: a signed session that only one service can read."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.connection import CONNECTION, connect
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.sign import draft
from ostiary.cli.session.source import load_session
from ostiary.cli.signing import own_signing_key, sign_session
from ostiary.cli.terminal import Terminal
from ostiary.errors import InputError
from ostiary.session.encrypted import encrypt_session, parse_encryption_key

KEY = Option(
    flags=("--key",),
    attribute="key",
    metavar="KEY",
    help="The session encryption key of the CAS, 64 hex digits; then no CAS is asked.",
)


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the encrypted session. One that nobody has signed is signed with our session signing key first."""
    signed = _signed(arguments, terminal)
    return Outcome(stdout=encrypt_session(signed, _encryption_key(arguments, terminal)).to_json())


def _signed(arguments: Arguments, terminal: Terminal) -> str:
    source = load_session(arguments.words[0], arguments, terminal)
    if source.signed is not None:
        return source.signed.to_json()
    key = own_signing_key(terminal)
    found = draft(source, key.spki)
    return found.signed(sign_session(found.parsed.hash, key)).to_json()


def _encryption_key(arguments: Arguments, terminal: Terminal) -> bytes:
    if arguments.key is None:
        return connect(arguments, terminal).session_encryption_key()
    if arguments.cas is not None:
        raise UsageError("--cas and --key contradict each other; give one of them")
    try:
        return parse_encryption_key(arguments.key)
    except InputError as error:
        raise UsageError(f"--key: {error.message}") from None


COMMAND = Command(
    words=("session", "encrypt"),
    summary="Encrypt a session for one CAS, and print it as JSON; sign it first if nobody has.",
    run=run,
    failing="Encrypting the session failed",
    positionals=("FILE",),
    options=(*TEMPLATE, KEY, *CONNECTION),
    details=(
        "Without --key the CAS is asked for its key, over a connection whose server is known by its certificate. "
        "FILE is a template or a signed session. Anybody can encrypt; what the CAS goes by are the signatures inside."
        "\n\n"
        f"{TEMPLATE_DETAILS}"
    ),
    examples=(
        "session encrypt session.yml --cas localhost --cas-ca ostiary-data/cas-ca.pem > encrypted.json",
        "session encrypt --key $(scone cas show-identification --session-encryption-key) signed.json",
    ),
)
