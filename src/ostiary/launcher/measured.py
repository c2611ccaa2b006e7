"""What runs is what was measured: the host picks what is measured, the session what runs, and the two must meet."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from ostiary.attester import Program, resolve_program
from ostiary.errors import ConfigurationError

Snapshot = Mapping[str, tuple[int, int, int, int]]
"""Path to device, inode, size in bytes and time of change in nanoseconds."""


def snapshot(program: Program) -> Snapshot:
    """Which files the measured paths name now. Raises ConfigurationError for one that is not a regular file."""
    return {path: _identity(path) for path in (*_executed(program), *program.files)}


def require_unchanged(program: Program, before: Snapshot, *, injected: frozenset[str]) -> None:
    """Refuse if a measured path names another file than before, or one that was changed since.

    `injected`: paths of injection files. A measured file that is not executed itself may be hidden by one, whose
    content the CAS gave; the executable and its interpreter may not.
    Does not guarantee: anything against a host that sets the clock or writes to the disk below the file system.
    Raises ConfigurationError.
    """
    executed = _executed(program)
    for path, identity in before.items():
        if path in injected and path not in executed:
            continue
        if _identity(path) != identity:
            raise ConfigurationError(
                f"{path} is not the file that was measured: it was changed since, or an injection file hides it"
            )


def require_same_program(
    program: Program, argv: Sequence[bytes], *, search_path: bytes, injected: frozenset[str]
) -> None:
    """Refuse if the session's argv leads the program to a script or interpreter that was not measured.

    The files measured were named by the host's command, and the arguments come from the session: a host could have an
    honest script measured and let the session's command run another. So the files that argv names, found as for
    measuring but in the session's PATH and working directory, must be among those measured. Injection files are the
    CAS's own. Where no file was measured beside the executable, the session admits the executable alone, and argv is
    free. Only what `resolve_program` finds is compared, one script.
    Raises ConfigurationError.
    """
    if not program.files:
        return
    words = [word for word in map(os.fsdecode, argv[1:]) if os.path.join(os.getcwd(), word) not in injected]
    started = resolve_program(
        [program.executable, *words], extra_files=(), path=os.fsdecode(search_path), cwd=os.getcwd()
    )
    for path in started.files:
        if path not in program.files:
            raise ConfigurationError(
                f"the session's command runs {path}, which was not measured; name it after `--` or with --measure"
            )


def _executed(program: Program) -> tuple[str, ...]:
    return (program.executable,) if program.interpreter is None else (program.executable, program.interpreter)


def _identity(path: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise ConfigurationError(f"measured file {path} cannot be looked at", error.strerror or str(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"measured file {path} is not a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
