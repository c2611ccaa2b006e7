"""`ostiary measure`."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ostiary.errors import ConfigurationError


def measure(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="The program and its arguments after --, as for `ostiary run`."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--measure", metavar="FILE", help="A further file that must not change, as given to `ostiary run`."
        ),
    ] = None,
    platform_directory: Annotated[
        Path | None,
        typer.Option("--platform", metavar="DIR", help="With --json: add `mrsigner` of the platform in DIR."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print mrenclave, and what was measured, as a JSON object.")
    ] = False,
) -> None:
    """Print the measurement of a program on the software platform: what goes into a session's `mrenclave`.

    Measured are the interpreter and code of the launcher, the program's executable, the first argument that names an
    existing file (the script of an interpreter), and the files named by --measure. Without a command: the launcher.

    Examples:

      ostiary measure -- python3 /app/server.py

      ostiary measure --json -- redis-server
    """
    import ostiary
    from ostiary.attester import resolve_program
    from ostiary.platform import init_platform, measure_program
    from ostiary.platform.quote import Enclave

    program = None
    if command:
        path = os.environ.get("PATH", os.defpath)
        program = resolve_program(command, extra_files=file or [], path=path, cwd=os.getcwd())
        _check_script(command, program.files)
    python = Path(os.path.realpath(sys.executable))
    measurement = measure_program(program, python=python, package=Path(ostiary.__file__).parent)
    if not as_json:
        print(measurement.mr_enclave.hex())
        return
    signer = b"" if platform_directory is None else init_platform(platform_directory, datetime.now(UTC)).mr_signer
    enclave = Enclave(mr_enclave=measurement.mr_enclave, mr_signer=signer)
    members: dict[str, object] = {
        "mrenclave": enclave.mr_enclave.hex(),
        "isvprodid": enclave.isvprodid,
        "isvsvn": enclave.isvsvn,
        "measured": json.loads(measurement.manifest),
    }
    print(json.dumps({**members, "mrsigner": signer.hex()} if signer else members))


def _check_script(command: list[str], files: tuple[str, ...]) -> None:
    """Nothing but an executable measured is right for a native program, and admits every script of an interpreter."""
    if files:
        return
    first = next((word for word in command[1:] if not word.startswith("-")), "")
    if first.startswith(("/", "./", "../")):
        raise ConfigurationError(
            f"{first} is not there, so only the program {command[0]} would be measured and every script admitted",
            "correct the path, or leave the argument out: arguments come from the session",
        )
    print(f"only {command[0]} is measured: no argument names a file that exists", file=sys.stderr)
