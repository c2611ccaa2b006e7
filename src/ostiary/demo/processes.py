"""Child processes of the demo: started, waited for, and ended, whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ostiary.errors import OutsideError

READY_SECONDS = 60.0
"""How long a child may take to get ready. Generous: it bounds a hang, it is no measure of speed."""
END_SECONDS = 15.0
"""How long a child may take to end before it is killed."""
_POLL_SECONDS = 0.05


@dataclass
class Children:
    """Everything the demo started. Ending is in reverse order; nothing else is ever signalled."""

    directory: Path
    _running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `command`; its stderr goes to `NAME.log` in the demo's directory."""
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=None if env is None else {**env},
            )
        self._running.append((name, child))
        return child

    def log(self, name: str) -> Path:
        """Where the child's stderr goes."""
        return self.directory / f"{name}.log"

    def stop(self) -> None:
        """End all children, the youngest first."""
        while self._running:
            _, child = self._running.pop()
            end(child)


def end(child: subprocess.Popen[bytes]) -> int:
    """Ask a child to end, insist after END_SECONDS, and return its exit status."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()
    return child.returncode


@contextlib.contextmanager
def children(directory: Path) -> Iterator[Children]:
    """Children that are gone when the block ends, also by an exception."""
    started = Children(directory)
    try:
        yield started
    finally:
        started.stop()


def ready_line(child: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """The JSON object that a child prints when it is ready. Raises OutsideError with its last words."""
    output: IO[bytes] | None = child.stdout
    if output is None:
        raise ValueError("the child was started without a pipe")
    readable, _, _ = select.select([output], [], [], READY_SECONDS)
    line = output.readline() if readable else b""
    if not line:
        raise OutsideError(f"{log.stem} did not get ready", *last_lines(log))
    return {str(key): str(value) for key, value in json.loads(line).items()}


def wait_until(ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `ready()` is true. Raises OutsideError if the child ends first, or after READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if child.poll() is not None:
            raise OutsideError(f"{log.stem} ended with status {child.returncode}", *last_lines(log))
        if time.monotonic() > deadline:
            raise OutsideError(f"{log.stem} did not get ready within {READY_SECONDS:.0f} s", *last_lines(log))
        time.sleep(_POLL_SECONDS)


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The end of a log, for an error message."""
    return log.read_text(errors="replace").splitlines()[-count:]


def clean_environment() -> dict[str, str]:
    """Our environment without variables that would lead curl or openssl to other certificates."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in {"CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    }
