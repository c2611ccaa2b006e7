"""Becoming the program: its argv, environment and working directory, and what Python left behind undone."""

from __future__ import annotations

import errno
import os
import signal

from ostiary.errors import ConfigurationError
from ostiary.launcher.configuration import Configuration, HostArgument, HostVariable

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

DEFAULT_SEARCH_PATH = b"/usr/local/bin:/usr/bin:/bin"
"""Where a program is looked for if the session's environment has no PATH."""

# Python ignores these from its start, and an ignored signal stays ignored across exec.
_SIGNALS_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


class ProgramNotFoundError(ConfigurationError):
    """There is no such program; shells exit with 127."""


class ProgramNotExecutableError(ConfigurationError):
    """The program is there and cannot be executed; shells exit with 126."""


def build_argv(configuration: Configuration, host_arguments: Sequence[bytes], name: bytes | None) -> list[bytes]:
    """The program's argv. Pure.

    `host_arguments`: those after the program's name. `name`: what the program is called if the session gives no
    command, None if it was the session's to name it.
    Raises ConfigurationError for a host argument that is missing, or without any command.
    """
    if not configuration.argv:
        if name is None:
            raise ConfigurationError("the session gives no command; name the program after `--`")
        return [name]
    return [_word(word, host_arguments) for word in configuration.argv]


def _word(word: bytes | HostArgument, host_arguments: Sequence[bytes]) -> bytes:
    if isinstance(word, bytes):
        return word
    if word.position > len(host_arguments):
        raise ConfigurationError(
            f"the session's command asks for host argument {word.position}, and only {len(host_arguments)} stand after "
            "the program's name; add it after `-- command`"
        )
    return host_arguments[word.position - 1]


def build_environment(configuration: Configuration, host: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The program's whole environment; a host variable that is asked for and absent is empty. Pure."""
    return {
        name: host.get(value.name, b"") if isinstance(value, HostVariable) else value
        for name, value in configuration.environment
    }


def enter_directory(path: str) -> None:
    """Make `path` the working directory. Raises ConfigurationError."""
    try:
        os.chdir(path)
    except OSError as error:
        raise ConfigurationError(
            f"the session's pwd {path} cannot be entered; it must exist here", error.strerror or str(error)
        ) from None


def find_program(name: bytes, search_path: bytes | None) -> bytes:
    """The path of the program `name`: itself if it holds a slash, else the first match in `search_path`.

    search_path: directories joined by `:`, an empty one is the working directory; None for DEFAULT_SEARCH_PATH.
    Raises ProgramNotFoundError, or ProgramNotExecutableError if all that was found may not be executed.
    """
    paths = [name] if b"/" in name else _candidates(name, search_path)
    found = [path for path in paths if os.path.exists(path)]
    for path in found:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    if found:
        raise ProgramNotExecutableError(f"{os.fsdecode(found[0])} is not a file that this user may execute")
    where = "" if b"/" in name else " in PATH"
    raise ProgramNotFoundError(f"program {os.fsdecode(name)!r} was not found{where}; check the name")


def _candidates(name: bytes, search_path: bytes | None) -> list[bytes]:
    directories = (DEFAULT_SEARCH_PATH if search_path is None else search_path).split(b":")
    return [os.path.join(directory or b".", name) for directory in directories] if name else []


def execute(path: bytes, argv: Sequence[bytes], environment: Mapping[bytes, bytes]) -> NoReturn:
    """Become the program: same process, signals as before Python, open files as before.

    Raises ProgramNotFoundError or ProgramNotExecutableError; on success it does not return.
    """
    for number in _SIGNALS_PYTHON_IGNORES:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, list(argv), environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise _exec_error(path, argv, environment, error) from None


def _exec_error(
    path: bytes, argv: Sequence[bytes], environment: Mapping[bytes, bytes], error: OSError
) -> ConfigurationError:
    name = os.fsdecode(path)
    if error.errno == errno.ENOENT and not os.path.exists(path):
        return ProgramNotFoundError(f"{name}: no such file")
    if error.errno == errno.ENOENT:
        return ProgramNotExecutableError(
            f"{name}: the interpreter that its first line or its ELF header names is missing"
        )
    if error.errno == errno.E2BIG:
        size = sum(len(word) + 1 for word in argv) + sum(len(n) + len(v) + 2 for n, v in environment.items())
        return ProgramNotExecutableError(
            f"{name}: the kernel does not take {size} bytes of arguments and environment, or one of over 128 KiB"
        )
    if error.errno == errno.ENOEXEC:
        return ProgramNotExecutableError(f"{name}: neither a program of this machine nor a script that names one by #!")
    return ProgramNotExecutableError(f"{name} cannot be executed", error.strerror or str(error))
