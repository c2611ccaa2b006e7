"""The real launcher in a process of its own, on a machine whose kernel is a `TsmHost` of the test's process.

Only the two system calls that a directory cannot play are sent there: `mkdir` and `rmdir` below `tsm/report`. The
launcher is `ostiary.launcher.run.main` with its arguments, as `ostiary run` starts it.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from types import TracebackType

from tests.simulators.tsm_host import TsmHost

import ostiary

_MAIN = """
import os, socket, sys
source, directory, player, *arguments = sys.argv[1:]
sys.path.append(source)
def played(name, real):
    def call(path, *rest, **options):
        if not os.fsdecode(path).startswith(directory + "/"):
            return real(path, *rest, **options)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(player)
            connection.sendall(f"{name} {path}\\n".encode())
            number = int(connection.makefile().readline())
            if number:
                raise OSError(number, os.strerror(number), path)
    return call
os.mkdir, os.rmdir = played("mkdir", os.mkdir), played("rmdir", os.rmdir)
from ostiary.launcher.run import main
sys.exit(main(arguments))
"""


class TsmLauncher:
    """Answers `mkdir` and `rmdir` of launchers on behalf of `host`."""

    def __init__(self, host: TsmHost, path: Path) -> None:
        self._host = host
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a launcher with the arguments of `ostiary run`."""
        source = str(Path(ostiary.__file__).parent.parent)
        return [
            *(sys.executable, "-I", "-S", "-B", "-c", _MAIN, source, str(self._host.directory), str(self._path)),
            *arguments,
        ]

    def __enter__(self) -> TsmLauncher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_UNIX) as waker:
            waker.connect(str(self._path))
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rw") as lines:
                name, _, path = lines.readline().rstrip("\n").partition(" ")
                if not name:
                    return
                lines.write(f"{self._call(name, path)}\n")

    def _call(self, name: str, path: str) -> int:
        try:
            (self._host.mkdir if name == "mkdir" else self._host.rmdir)(path)
        except OSError as error:
            return error.errno or 1
        return 0
