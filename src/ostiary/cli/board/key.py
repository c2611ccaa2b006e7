"""`board key`: the public half of a key, wherever it lies, as a session names it."""

from __future__ import annotations

from ostiary.board.shown import key_hash
from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.board.form import written
from ostiary.cli.board.options import AS_JSON, KEY, PIN_FILE, public_key
from ostiary.cli.terminal import Terminal
from ostiary.session.signed import signer_pem


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the public key, PEM."""
    spki = public_key(arguments, terminal)
    pem = signer_pem(spki)
    return Outcome(stdout=written({"key": key_hash(spki).hex(), "pem": pem}) if arguments.as_json else pem)


COMMAND = Command(
    words=("board", "key"),
    summary="Print the public key that belongs to --key, PEM, for `signer` of a member.",
    run=run,
    failing="Showing the public key failed",
    options=(KEY, PIN_FILE, AS_JSON),
    details=(
        "Asks no CAS and signs nothing; a passphrase or PIN is asked for only where the public key is locked away with "
        "the private one. --json prints {key, pem}; key is the SHA-256 by which proposals name members."
    ),
    examples=("board key --key ssh:alice@laptop", "board key --key alice.pem > alice-public.pem"),
)
