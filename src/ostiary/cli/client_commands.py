"""All commands that SCONE's CLI has too, and those that it has and this program does not."""

from __future__ import annotations

from collections.abc import Mapping

from ostiary.cli import checker, explain, known, own
from ostiary.cli.arguments import Command
from ostiary.cli.board import approve, key, list_, propose, reject, review, show, status, withdraw
from ostiary.cli.connection import UNVERIFIED
from ostiary.cli.session import (
    calculate_hash,
    check,
    create,
    diff,
    encrypt,
    listing,
    read,
    read_hash,
    schema,
    sign,
    update,
    verify,
)

COMMANDS: tuple[Command, ...] = (
    check.COMMAND,
    calculate_hash.COMMAND,
    create.COMMAND,
    update.COMMAND,
    sign.COMMAND,
    encrypt.COMMAND,
    read.COMMAND,
    read_hash.COMMAND,
    listing.COMMAND,
    verify.COMMAND,
    diff.COMMAND,
    schema.COMMAND,
    key.COMMAND,
    show.COMMAND,
    propose.COMMAND,
    list_.COMMAND,
    review.COMMAND,
    approve.COMMAND,
    reject.COMMAND,
    withdraw.COMMAND,
    status.COMMAND,
    explain.COMMAND,
    checker.COMMAND,
    *own.COMMANDS,
    *known.COMMANDS,
)

GROUPS: Mapping[str, str] = {
    "session": "Check, sign, upload, read and compare sessions.",
    "board": "Propose sessions to those who decide about them; review, approve, reject.",
    "self": "Who we are to a CAS.",
    "cas": "The services in our configuration.",
    "cert": "Certificates in files.",
}

OUT_OF_SCOPE = frozenset(
    "cargo g++ gcc gccgo gdb gfortran rustc signer host swarm service stack".split()  # noqa: SIM905 - as a person types them
)
"""Compilers and machines; never part of Ostiary."""

NOT_YET = frozenset({
    ("cas", "provision"), ("cas", "update-config"), ("cas", "register-backup"),
    ("cas", "register-upgrade"), ("cas", "start-upgrade"), ("cas", "verify-audit-log"), ("cas", "attest-audit-log"),
    ("cas", "get-audit-log-checkpoints"), ("cas", "version"),
    ("fspf",), ("las",), ("binary-fs",), ("binaryfs",),
})  # fmt: skip
"""Known, and not part of this version."""

REFUSED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("cas", "attest"): (
        "Attesting the CAS failed",
        "a CAS gives no evidence of itself in this version of Ostiary, so it cannot be attested",
        "name the certificate that `ostiary serve` wrote on each command: --cas-ca FILE",
        f"only for tests, where nobody is on the way: {UNVERIFIED}",
    ),
}
"""Commands that fail, and why: what failed, then the causes."""
