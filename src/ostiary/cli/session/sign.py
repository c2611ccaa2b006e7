"""`session sign`: signatures for a session, ours or from elsewhere. Talks to nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from ostiary.cli.arguments import Arguments, Command, Option, Outcome, UsageError
from ostiary.cli.board.options import KEY, PIN_FILE, asking, key_place, public_key
from ostiary.cli.session.options import TEMPLATE, TEMPLATE_DETAILS
from ostiary.cli.session.source import Source, load_session
from ostiary.cli.signing import read_signer, require_session_signer, sign_session
from ostiary.cli.store.progress import patience
from ostiary.cli.terminal import Terminal
from ostiary.errors import InputError
from ostiary.session import ParsedSession, with_signer
from ostiary.session.signed import (
    MAX_SIGNATURE_BYTES,
    MAX_SIGNATURES,
    Signature,
    SignedSession,
    message_to_be_signed,
    read_signature,
    signer_pem,
    verify_signatures,
)

FORCE = Option(
    flags=("-f", "--force"),
    attribute="force",
    help="Print the bytes to be signed even to a terminal.",
)

_WITH_OWN_KEY = "sign-with-cli-identity"
_MESSAGE = "generate-message-to-be-signed"
_ADD = "add-signature"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A session that cannot change any more, and the signatures it has. All of them hold."""

    parsed: ParsedSession
    text: str = field(repr=False)
    signatures: tuple[Signature, ...]

    def signed(self, signature: Signature) -> SignedSession:
        """The session with this signature beside the others, or in place of the one that the same key made.

        Raises InputError: it does not hold, or there are too many.
        """
        signatures = (*(one for one in self.signatures if one.spki != signature.spki), signature)
        if len(signatures) > MAX_SIGNATURES:
            raise InputError(f"the session has {MAX_SIGNATURES} signatures, and more are not allowed")
        verify_signatures(self.parsed.hash, signatures)
        return SignedSession(text=self.text, signatures=signatures)


def draft(source: Source, spki: bytes) -> Draft:
    """The session of a file, for this signer, who becomes its creator if it needs one.

    A session that was signed before stays as it is. The same source and signer give the same session.
    Raises InputError.
    """
    if source.signed is not None:
        return Draft(parsed=source.parsed, text=source.signed.text, signatures=source.signed.signatures)
    if isinstance(source.parsed.session.creator, str):
        raise InputError(
            f"{source.file}: creator is a certificate, and the creator of a signed session is one of its signers",
            "remove `creator`, and the signer is put in",
        )
    parsed = with_signer(source.parsed, signer_pem(spki))
    return Draft(parsed=parsed, text=parsed.text, signatures=())


def run(arguments: Arguments, terminal: Terminal) -> Outcome:
    """Print the signed session, or what is to be signed of it."""
    action, *rest = arguments.words[1:] or [_WITH_OWN_KEY]
    if action not in _ACTIONS:
        raise UsageError(f"{action!r} is no way to sign; there are {', '.join(_ACTIONS)}")
    do, most = _ACTIONS[action]
    if len(rest) > most:
        raise UsageError(f"{rest[most]!r} is one argument too many after {action}")
    if arguments.key is not None and (rest or action == _ADD):
        raise UsageError("--key and SIGNER contradict each other; give one of them")
    return do(arguments, terminal, rest)


def _sign(arguments: Arguments, terminal: Terminal, _rest: list[str]) -> Outcome:
    """Nobody is asked for a passphrase or PIN for a session or a key that cannot be signed, or sign."""
    source, place = load_session(arguments.words[0], arguments, terminal), key_place(arguments, terminal)
    known = place.public()
    if known is not None:
        require_session_signer(known, place.name)
        draft(source, known)
    with place.unlocked(asking(arguments, terminal)) as key:
        require_session_signer(key.spki, place.name)
        found = draft(source, key.spki)
        with patience("waiting for the key"):
            signature = sign_session(found.parsed.hash, key)
    return Outcome(stdout=found.signed(signature).to_json())


def _message(arguments: Arguments, terminal: Terminal, rest: list[str]) -> Outcome:
    spki = read_signer(rest[0]) if rest else public_key(arguments, terminal)
    require_session_signer(spki, "the key")
    message = message_to_be_signed(_draft(arguments, terminal, spki).parsed.hash)
    return Outcome(stdout=message, for_terminals=arguments.force)


def _add(arguments: Arguments, terminal: Terminal, rest: list[str]) -> Outcome:
    if not rest:
        raise UsageError(f"{_ADD} needs SIGNER, a file with the public key")
    spki = read_signer(rest[0])
    signature = _given(rest[1]) if len(rest) > 1 else sys.stdin.buffer.read(MAX_SIGNATURE_BYTES + 1)
    if not 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        raise InputError(
            f"found {'no' if not signature else 'too long a'} signature on stdin, expected its bytes",
            "pipe in what signed, or give the signature in base64 after SIGNER",
        )
    made = Signature(signer=signer_pem(spki), spki=spki, signature=signature)
    return Outcome(stdout=_draft(arguments, terminal, spki).signed(made).to_json())


def _draft(arguments: Arguments, terminal: Terminal, spki: bytes) -> Draft:
    return draft(load_session(arguments.words[0], arguments, terminal), spki)


def _given(text: str) -> bytes:
    """`base64` breaks long lines, which means nothing."""
    try:
        return read_signature("".join(text.split()))
    except ValueError as error:
        raise UsageError(f"SIGNATURE: {error}") from None


_Action = Callable[[Arguments, Terminal, list[str]], Outcome]
_ACTIONS: dict[str, tuple[_Action, int]] = {_WITH_OWN_KEY: (_sign, 0), _MESSAGE: (_message, 1), _ADD: (_add, 2)}
"""What to do, and how many arguments may follow its name."""

COMMAND = Command(
    words=("session", "sign"),
    summary="Sign a session, or add a signature to a signed one, and print it as JSON.",
    run=run,
    failing="Signing the session failed",
    positionals=("FILE", "[ACTION]", "[SIGNER]", "[SIGNATURE]"),
    options=(*TEMPLATE, KEY, PIN_FILE, FORCE),
    details=(
        f"ACTION is {_WITH_OWN_KEY} (also without ACTION), which signs with the key of --key, Ed25519 or P-384; "
        f"{_MESSAGE} [SIGNER], which prints the 34 bytes to be signed elsewhere; or {_ADD} SIGNER [SIGNATURE], which "
        "adds a signature made elsewhere, in base64, or as bytes on stdin. SIGNER is a file with a public key, PEM, "
        "Ed25519 or P-384."
        "\n\n"
        "If the access policy names CREATOR and there is no `creator`, the first signer becomes it. A session that was "
        "signed once cannot change any more. Every signature is verified before anything is printed."
        "\n\n"
        f"{TEMPLATE_DETAILS}"
    ),
    examples=(
        "session sign session.yml > signed.json",
        "session sign signed.json --key second.pem > both.json",
        "session sign session.yml --key ssh:alice@laptop > signed.json",
        "session sign s.yml generate-message-to-be-signed pub.pem | openssl dgst -sha384 -sign key.pem > s.sig",
        "session sign s.yml add-signature pub.pem < s.sig > signed.json",
    ),
)
