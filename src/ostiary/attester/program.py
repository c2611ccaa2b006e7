"""Which files make up a program, so that a platform can measure them. Standard library only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ostiary.errors import ConfigurationError

MAX_SCRIPT_LINE_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Program:
    """Absolute paths. executable, interpreter: symbolic links resolved. files: sorted, each once.

    interpreter: of an executable that begins with `#!`, else None.
    """

    executable: str
    interpreter: str | None
    files: tuple[str, ...]


def resolve_program(command: Sequence[str], *, extra_files: Sequence[str], path: str, cwd: str) -> Program:
    """Name the files that a command would run, as the kernel and the C library would find them.

    1. The executable: `command[0]` as it stands if it has a slash, else the first executable file of that name in the
       directories of `path` (as in PATH; an empty entry is `cwd`).
    2. Its interpreter, if it begins with `#!`. With `env` as interpreter also the program that `env` looks up.
    3. The first argument that names an existing regular file: the script of an interpreter.
    4. `extra_files`, each of which must be a regular file.

    Relative names start at `cwd`, which is absolute. Reads directories and the first line of the executable.
    Does not guarantee: that nothing else runs. Shared libraries, modules and data that the program opens are covered
    only as far as they are named in 3 and 4.

    Raises ConfigurationError: empty command; not found; not executable; a directory; an interpreter that is a script.
    Source: execvp(3), execve(2) "Interpreter scripts".
    """
    if not command:
        raise ConfigurationError("no program to measure: the command is empty; give it after --")
    # 1.
    executable = _find(command[0], path, cwd)
    # 2.
    words = _script_words(executable)
    interpreter = _find_interpreter(words[0], executable, cwd) if words else None
    looked_up = _looked_up_by_env(interpreter, words[1:], path, cwd)
    # 3.
    script = next((name for name in command[1:] if os.path.isfile(os.path.join(cwd, name))), None)
    files = {_absolute(script, cwd)} if script else set()
    # 4.
    files |= {_extra(name, cwd) for name in extra_files}
    return Program(executable=executable, interpreter=interpreter, files=tuple(sorted(files | looked_up)))


def _find(name: str, path: str, cwd: str) -> str:
    if "/" in name:
        return _executable(os.path.join(cwd, name), name)
    refusal = ConfigurationError(f"program {name!r} was not found in PATH {path!r}; give its path")
    for candidate in _candidates(name, path, cwd):
        try:
            return _executable(candidate, name)
        except ConfigurationError as error:
            if os.path.isfile(candidate):
                refusal = error
    raise refusal


def _candidates(name: str, path: str, cwd: str) -> Iterator[str]:
    if name:
        for directory in path.split(":"):
            yield os.path.join(cwd, directory, name)


def _executable(file: str, name: str) -> str:
    try:
        resolved = os.path.realpath(file)
        mode = os.stat(resolved).st_mode
    except (OSError, ValueError):
        raise ConfigurationError(f"program {name!r} was not found at {file!r}; check the path") from None
    if stat.S_ISDIR(mode):
        raise ConfigurationError(f"program {name!r} is a directory at {file!r}; name an executable file in it")
    if not (stat.S_ISREG(mode) and os.access(resolved, os.X_OK)):
        raise ConfigurationError(f"program {name!r} at {file!r} may not be executed; set its x bit")
    return resolved


def _script_words(executable: str) -> list[str]:
    """The words after `#!`; empty if the file does not begin so."""
    try:
        with open(executable, "rb") as file:
            head = file.read(MAX_SCRIPT_LINE_BYTES)
    except OSError as error:
        raise ConfigurationError(
            f"program {executable!r} cannot be read, so it cannot be measured: {error.strerror}"
        ) from error
    if not head.startswith(b"#!"):
        return []
    words = [os.fsdecode(word) for word in head[2:].split(b"\n", 1)[0].split()]
    if not words:
        raise ConfigurationError(f"program {executable!r} begins with #! but names no interpreter")
    return words


def _find_interpreter(name: str, executable: str, cwd: str) -> str:
    interpreter = _executable(os.path.join(cwd, name), name)
    if _script_words(interpreter):
        raise ConfigurationError(f"the interpreter {interpreter!r} of {executable!r} is a script itself; name a binary")
    return interpreter


def _looked_up_by_env(interpreter: str | None, arguments: Sequence[str], path: str, cwd: str) -> set[str]:
    """`#!/usr/bin/env python3`: the program that runs is the one that `env` finds."""
    if interpreter is None or os.path.basename(interpreter) != "env":
        return set()
    name = next((word for word in arguments if not word.startswith("-") and "=" not in word), None)
    return {_find(name, path, cwd)} if name else set()


def _extra(name: str, cwd: str) -> str:
    file = _absolute(name, cwd)
    if not os.path.isfile(file):
        raise ConfigurationError(f"file to measure {name!r} is not a regular file at {file!r}; check the path")
    return file


def _absolute(name: str, cwd: str) -> str:
    """Absolute and without `.` and `..`, which are taken away as the kernel does: after following links."""
    directory, base = os.path.split(os.path.join(cwd, name))
    if ".." in directory.split("/"):
        directory = os.path.realpath(directory)
    return os.path.normpath(os.path.join(directory, base))
