"""Which process asks the quoting daemon, and what is it made of? Reads /proc; believes the kernel, not the caller."""

from __future__ import annotations

import os
import socket
import struct

from ostiary.attester import Program
from ostiary.errors import NotAuthorizedError
from ostiary.platform.measure import Files, Measurement, digest_file, measure

MAX_COMMAND_LINE_BYTES = 1 << 20

_LAUNCHER = "/ostiary/launcher/__main__.py"
_OPTIONS = ["-I", "-S", "-B"]
_FORM = "only `ostiary run` is measured, a process of the form `PYTHON -I -S -B DIR/ostiary/launcher/__main__.py …`"
_STARTED_FIELD = 19


def peer_pid(connection: int) -> int:
    """The process that connected the unix socket with this file descriptor. Source: unix(7), SO_PEERCRED.

    Raises NotAuthorizedError: it lives in a process namespace that we cannot see.
    """
    with socket.socket(fileno=os.dup(connection)) as duplicate:
        credentials = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    if pid == 0:
        raise NotAuthorizedError(
            "the caller runs in a process namespace that the quoting daemon cannot see; start the daemon beside it"
        )
    return pid


def measure_caller(pid: int, program: Program | None) -> Measurement:
    """Measure a launcher process and the files of the program that it is about to run.

    Guarantees: the files had this content when they were read, as the process sees them, and it is one and the same
    process from beginning to end.
    Does not guarantee: that the process runs what its files say. Its user can change its memory, its command line or
    its environment, and Python's standard library and shared libraries are not measured. That is what hardware is for.

    Raises NotAuthorizedError: not a launcher process, or it is gone. ConfigurationError: a file cannot be measured.
    Source: proc(5).
    """
    process = f"/proc/{pid}"
    started = _started(process)
    package = _launcher_package(process)
    measurement = measure(
        program,
        python=digest_file(f"{process}/exe", name="the caller's Python interpreter"),
        package=package,
        files=Files(f"{process}/root"),
    )
    if _started(process) != started:
        raise _gone()
    return measurement


def _launcher_package(process: str) -> str:
    words = [os.fsdecode(word) for word in _read(f"{process}/cmdline").split(b"\0")]
    if words[1:4] != _OPTIONS or len(words) < 5 or not words[4].startswith("/") or not words[4].endswith(_LAUNCHER):
        raise NotAuthorizedError(f"the caller is `{' '.join(words[:5])[:200]}`; {_FORM}")
    return os.path.dirname(os.path.dirname(words[4]))


def _started(process: str) -> bytes:
    """When the process started, in clock ticks after boot: with its id, a name that is never used twice."""
    fields = _read(f"{process}/stat").rpartition(b")")[2].split()
    if len(fields) <= _STARTED_FIELD:
        raise _gone()
    return fields[_STARTED_FIELD]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_COMMAND_LINE_BYTES)
    except OSError as error:
        raise _gone() from error


def _gone() -> NotAuthorizedError:
    return NotAuthorizedError("the caller ended before it was measured; start the program again")
