"""`self` and `cert`: who we are to a CAS. stdout is exactly the value that was asked for."""

from __future__ import annotations

import hashlib

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import read_text
from ostiary.cli.identity import certificate_pem, key_hash, signing_public_key
from ostiary.cli.terminal import Terminal

_FAILING = "Showing our identity failed"


def _show(_arguments: Arguments, terminal: Terminal) -> Outcome:
    identity, signing = terminal.configuration.identity(), signing_public_key(terminal.configuration.signing_seed())
    return Outcome(
        stdout=f"{identity.certificate}\nKey hash: {identity.key_hash}\nSession signing public key:\n{signing}"
    )


def _show_certificate(_arguments: Arguments, terminal: Terminal) -> Outcome:
    return Outcome(stdout=terminal.configuration.identity().certificate)


def _show_certificate_hash(_arguments: Arguments, terminal: Terminal) -> Outcome:
    certificate = terminal.configuration.identity().certificate
    return Outcome(stdout=f"{hashlib.sha256(certificate.encode()).hexdigest()}\n")


def _show_key_hash(_arguments: Arguments, terminal: Terminal) -> Outcome:
    return Outcome(stdout=f"{terminal.configuration.identity().key_hash}\n")


def _show_session_signing_key(_arguments: Arguments, terminal: Terminal) -> Outcome:
    return Outcome(stdout=signing_public_key(terminal.configuration.signing_seed()))


def _show_key_hash_of_file(arguments: Arguments, _terminal: Terminal) -> Outcome:
    file = arguments.words[0]
    return Outcome(stdout=f"{key_hash(certificate_pem(read_text(file, 'FILE'), file))}\n")


COMMANDS = (
    Command(
        words=("self", "show"),
        summary="Print our certificate, its key hash, and the public key that we sign sessions with.",
        run=_show,
        failing=_FAILING,
        examples=("self show",),
    ),
    Command(
        words=("self", "show-certificate"),
        summary="Print our certificate, PEM.",
        run=_show_certificate,
        failing=_FAILING,
        examples=("self show-certificate > me.pem",),
    ),
    Command(
        words=("self", "show-certificate-hash"),
        summary="Print the SHA-256 of our certificate's PEM text, as sha256sum does. Deprecated: use the key hash.",
        run=_show_certificate_hash,
        failing=_FAILING,
        examples=("self show-certificate-hash",),
    ),
    Command(
        words=("self", "show-key-hash"),
        summary="Print the hash of our key, for access policies.",
        run=_show_key_hash,
        failing=_FAILING,
        examples=("self show-key-hash",),
    ),
    Command(
        words=("self", "show-session-signing-key"),
        summary="Print the public key that we sign sessions with, PEM.",
        run=_show_session_signing_key,
        failing=_FAILING,
        examples=("self show-session-signing-key > signer.pem",),
    ),
    Command(
        words=("cert", "show-key-hash"),
        summary="Print the key hash of a PEM certificate.",
        run=_show_key_hash_of_file,
        failing="Showing the key hash failed",
        positionals=("FILE",),
        examples=("cert show-key-hash colleague.pem",),
    ),
)
