"""`ostiary`: the commands. stdout is data, stderr is for people; each command's file imports what it needs when called.

Exit codes: 0 done; 1 failed; 64 wrong usage or a wrong file; 65 stored state that does not verify; 69 something outside
cannot be reached; 77 not permitted.
`ostiary run` has its own (see `ostiary run --help`) and otherwise ends with the program's; the commands that SCONE's
CLI has too are in scone.py, with the exit codes of that.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ostiary import __version__
from ostiary.cli import demo, endorsements, evidence, measure, platform, scone, serve, store, tpm, witness
from ostiary.cli.client_commands import COMMANDS, GROUPS
from ostiary.errors import ConfigurationError, InputError, OstiaryError, OutsideError, RefusedError, TamperedError

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_TAMPERED = 65
EXIT_OUTSIDE = 69
EXIT_REFUSED = 77
_PARSER_USAGE = 2

_ABOUT = """An open configuration and attestation service (CAS).

A program proves to Ostiary what it is. Only then does it receive its arguments, environment, files and keys, as a
**session** says: a text in the policy language of SCONE CAS. Nobody else ever sees the generated secrets.

First steps: **ostiary demo** shows the whole way in a minute.
On your own machine: **ostiary platform serve** stands in for the hardware, **ostiary serve** is the
service, **ostiary measure** prints what goes into a session's `mrenclave`, **ostiary session create** uploads the
session, and **ostiary run** starts a program under it.

For those who know SCONE: `serve` is CAS (client API 8081, enclave API 18765), `platform serve` is LAS, `run` is the
runtime and takes SCONE_CAS_ADDR and SCONE_CONFIG_ID, `measure` is SCONE_HASH=1, and the console script `scone` has
the commands of the CLI."""

app = typer.Typer(
    help=_ABOUT,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="serve")(serve.serve)
app.add_typer(platform.app, name="platform")
app.add_typer(store.app, name="store")
app.add_typer(witness.app, name="witness")
app.add_typer(endorsements.app, name="endorsements")
app.command(name="measure", context_settings={"ignore_unknown_options": True})(measure.measure)
app.add_typer(evidence.app, name="evidence")
app.add_typer(tpm.app, name="tpm")
app.command(name="demo")(demo.demo)


@app.command(
    name="run",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def run() -> None:
    """Start a program under a session: attest, receive its configuration, become the program."""
    # `ostiary run` never comes here: entry.py hands it to the launcher. This is its line in the list of commands.
    raise ConfigurationError("`run` must be the first word after `ostiary`")


def _elsewhere() -> None:
    # These commands never come here: `main` hands them to scone.py. This is their line in the list of commands.
    raise ConfigurationError("options of `ostiary` and commands of `scone` cannot be mixed; write the command first")


_SINGLE = {command.words[0]: command.summary for command in COMMANDS if len(command.words) == 1}
for _name, _summary in {**GROUPS, **_SINGLE}.items():
    app.command(name=_name, help=_summary)(_elsewhere)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ostiary {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with its code."""
    if scone.claims(sys.argv[1:]):
        sys.exit(scone.run(sys.argv[1:], "ostiary"))
    try:
        app()
    except SystemExit as done:
        # The parser's own code for wrong usage, 2, is kept for answers such as "no such session".
        sys.exit(EXIT_USAGE if done.code == _PARSER_USAGE else done.code)
    except OstiaryError as error:
        _tell(error)
        sys.exit(_exit_code(error))


def _tell(error: OstiaryError) -> None:
    print(f"ostiary: {error.message}", file=sys.stderr)
    for cause in error.causes:
        print(f"  {cause}", file=sys.stderr)


def _exit_code(error: OstiaryError) -> int:
    if isinstance(error, ConfigurationError | InputError):
        return EXIT_USAGE
    if isinstance(error, TamperedError):
        return EXIT_TAMPERED
    if isinstance(error, OutsideError):
        return EXIT_OUTSIDE
    if isinstance(error, RefusedError):
        return EXIT_REFUSED
    return EXIT_FAILED
