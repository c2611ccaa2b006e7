"""The console script `ostiary`: `ostiary run` becomes the launcher, everything else the command line interface.

Imports nothing heavy at the top: an attested start pays for every line here.
"""

from __future__ import annotations

import os
import sys

from ostiary.launcher.host import host_environment


def main() -> None:
    """Run the command of `sys.argv`. `run` replaces this process by the launcher: same pid, stdio and environment.

    The launcher's command line is exactly `PYTHON -I -S -B DIRECTORY/ostiary/launcher/__main__.py ARGUMENT…`; the
    quoting daemon of the software platform recognises it by that form.
    """
    if sys.argv[1:2] == ["run"]:
        os.execve(sys.executable, launcher_command(sys.argv[2:]), host_environment())  # noqa: S606 - no shell is the point
    from ostiary.cli.main import main as cli_main  # noqa: PLC0415 - `run` must not pay for it

    cli_main()


def launcher_command(arguments: list[str]) -> list[str]:
    """The launcher's command line for the arguments after `ostiary run`."""
    launcher = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher", "__main__.py")
    return [sys.executable, "-I", "-S", "-B", launcher, *arguments]
