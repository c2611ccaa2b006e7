"""`cas`: the services in our configuration."""

from __future__ import annotations

from ostiary.cli.arguments import Arguments, Command, Outcome
from ostiary.cli.connection import find_known
from ostiary.cli.terminal import Terminal
from ostiary.errors import ConfigurationError


def _list(_arguments: Arguments, terminal: Terminal) -> Outcome:
    lines = [f"{'*' if cas.is_default else ' '} {cas.name}: {cas.url}\n" for cas in terminal.configuration.known()]
    return Outcome(stdout="".join(lines))


def _set_default(arguments: Arguments, terminal: Terminal) -> Outcome:
    wanted = arguments.words[0]
    cas = find_known(wanted, terminal.configuration.known())
    terminal.configuration.set_default(wanted if cas is None else cas.name)
    return Outcome(stdout="")


def _show_certificate(arguments: Arguments, terminal: Terminal) -> Outcome:
    wanted = arguments.words[0] if arguments.words else None
    cas = find_known(wanted, terminal.configuration.known())
    if cas is None:
        shown = "there is no default CAS" if wanted is None else f"CAS {wanted!r} is not known"
        raise ConfigurationError(shown, "`ostiary serve` writes the certificate of its service to cas-ca.pem")
    if not cas.chain:
        raise ConfigurationError(f"the configuration has no certificate of CAS {cas.name!r}")
    return Outcome(stdout=cas.chain if cas.chain.endswith("\n") else f"{cas.chain}\n")


COMMANDS = (
    Command(
        words=("cas", "list"),
        summary="Print the services that we know, one a line; * marks the default.",
        run=_list,
        failing="Listing the services failed",
    ),
    Command(
        words=("cas", "set-default"),
        summary="Make a service that we know the default.",
        run=_set_default,
        failing="Setting the default CAS failed",
        positionals=("CAS",),
    ),
    Command(
        words=("cas", "show-certificate"),
        summary="Print the certificate chain of a service that we know, PEM, the root last.",
        run=_show_certificate,
        failing="Showing the certificate failed",
        positionals=("[CAS]",),
    ),
)
