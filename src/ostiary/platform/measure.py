"""What the software platform calls a program's mr_enclave: the SHA-256 of a list of its files and their digests.

The list is JSON without blanks, members sorted, ASCII::

    {"format": "ostiary-software-measurement-v1",
     "program": null | {"executable": HEX, "files": [[ABSOLUTE PATH, HEX], …], "interpreter": HEX | null},
     "runtime": [["python", HEX], ["__init__.py", HEX], ["errors.py", HEX], ["attester/….py", HEX], …]}

HEX is the SHA-256 of a file's content. `runtime` is the Python interpreter's binary and the launcher's sources, named
relative to the package and sorted; `files` are sorted by path.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ostiary.attester import Program
from ostiary.errors import ConfigurationError

MAX_FILE_BYTES = 1 << 30
MAX_LINKS = 40

_FORMAT = "ostiary-software-measurement-v1"
_SOURCE_FILES = ("__init__.py", "errors.py")
_SOURCE_DIRECTORIES = ("attester", "launcher")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """mr_enclave: 32 bytes. manifest: the list it is the hash of, for people who ask what changed."""

    mr_enclave: bytes
    manifest: str


class Files:
    """The files that a process sees whose root directory is `root`, "" for our own. Links never lead out of it."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def digest(self, path: str) -> bytes:
        """SHA-256 of a regular file. Raises ConfigurationError: see `digest_file`, or links without end."""
        return digest_file(self._root + self._resolve(path), name=path)

    def sources(self, directory: str) -> list[str]:
        """Names of the Python sources in a directory. Raises ConfigurationError if it cannot be read."""
        try:
            return [name for name in os.listdir(self._root + self._resolve(directory)) if name.endswith(".py")]
        except OSError as error:
            raise _cannot_read(directory, error) from error

    def _resolve(self, path: str) -> str:
        """`path` without links, followed as the process would: an absolute link starts at its root, not at ours."""
        if not self._root:
            return path
        resolved, todo, links = "/", path.split("/")[::-1], 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            resolved = os.path.dirname(resolved) if name == ".." else os.path.join(resolved, name)
            target = _link_target(self._root + resolved)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise ConfigurationError(f"file {path!r} goes over more than {MAX_LINKS} symbolic links")
                resolved = "/" if target.startswith("/") else os.path.dirname(resolved)
                todo += target.split("/")[::-1]
        return resolved


def measure_program(program: Program | None, *, python: Path, package: Path) -> Measurement:
    """The measurement that the platform will find when the launcher in `package` runs `program` under `python`.

    package: directory of the `ostiary` package. Raises ConfigurationError: a file cannot be read or changes meanwhile.
    """
    return measure(program, python=digest_file(str(python), name=str(python)), package=str(package), files=Files())


def measure(program: Program | None, *, python: bytes, package: str, files: Files) -> Measurement:
    """As `measure_program`, for the digest of a Python binary and the files of another process."""
    manifest = {
        "format": _FORMAT,
        "program": _program(program, files.digest) if program else None,
        "runtime": [["python", python.hex()], *_runtime(package, files)],
    }
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return Measurement(mr_enclave=hashlib.sha256(text.encode()).digest(), manifest=text)


def digest_file(path: str, *, name: str) -> bytes:
    """SHA-256 of the regular file at `path`, which messages call `name`.

    Guarantees that size and times were the same before and after reading. Raises ConfigurationError: it cannot be read,
    is no regular file, is over MAX_FILE_BYTES, or changed while it was read.
    """
    try:
        # Before opening: to open a device can have effects.
        _require_measurable(os.stat(path), name)
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            _require_measurable(before, name)
            digest = hashlib.file_digest(file, "sha256").digest()
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise _cannot_read(name, error) from error
    if _state(before) != _state(after):
        raise ConfigurationError(f"file {name!r} changed while it was measured; start the program again")
    return digest


def _program(program: Program, digest: Callable[[str], bytes]) -> dict[str, object]:
    return {
        "executable": digest(program.executable).hex(),
        "interpreter": digest(program.interpreter).hex() if program.interpreter else None,
        "files": [[path, digest(path).hex()] for path in sorted(set(program.files))],
    }


def _runtime(package: str, files: Files) -> list[list[str]]:
    names = [*_SOURCE_FILES]
    for directory in _SOURCE_DIRECTORIES:
        names += [f"{directory}/{name}" for name in files.sources(f"{package}/{directory}")]
    return [[name, files.digest(f"{package}/{name}").hex()] for name in sorted(names)]


def _require_measurable(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"file {name!r} is not a regular file, so it cannot be measured")
    if status.st_size > MAX_FILE_BYTES:
        raise ConfigurationError(f"file {name!r} has {status.st_size} bytes, expected at most {MAX_FILE_BYTES}")


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


def _cannot_read(name: str, error: OSError | ValueError) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ConfigurationError(f"file {name!r} cannot be read, so it cannot be measured: {reason}")
