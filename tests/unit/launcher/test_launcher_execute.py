"""Argv, environment, working directory, and exec."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.errors import ConfigurationError
from ostiary.launcher.configuration import Configuration, HostArgument, HostVariable
from ostiary.launcher.execute import (
    ProgramNotExecutableError,
    ProgramNotFoundError,
    build_argv,
    build_environment,
    enter_directory,
    execute,
    find_program,
)


def released(
    *argv: bytes | HostArgument, environment: tuple[tuple[bytes, bytes | HostVariable], ...] = ()
) -> Configuration:
    return Configuration(
        session_hash=bytes(32), argv=argv, environment=environment, pwd="/", injection_files=()
    )  # fmt: skip


@pytest.fixture
def _signals() -> Iterator[None]:
    """`execute` gives up what Python set, also when it fails."""
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


def test_argv_is_the_sessions_with_host_arguments_where_it_says() -> None:
    """F073: text of the host is never interpreted."""
    configuration = released(b"prog", HostArgument(position=2), b"-x", HostArgument(position=1))
    assert build_argv(configuration, [b"one", b"@@1 $$SCONE::x$$", b"three"], b"/bin/other") == [
        b"prog",
        b"@@1 $$SCONE::x$$",
        b"-x",
        b"one",
    ]


def test_without_command_the_program_gets_its_name_and_no_host_argument() -> None:
    assert build_argv(released(), [b"host"], b"/bin/prog") == [b"/bin/prog"]


@pytest.mark.parametrize("given", [[], [b"one"]])
def test_a_missing_host_argument_stops_the_start(given: list[bytes]) -> None:
    """F067: too few host arguments stop the start."""
    with pytest.raises(ConfigurationError, match=f"asks for host argument 2, and only {len(given)} stand after"):
        build_argv(released(b"prog", HostArgument(position=2)), given, None)


def test_no_command_anywhere() -> None:
    with pytest.raises(ConfigurationError, match="the session gives no command; name the program after `--`"):
        build_argv(released(), [], None)


def test_the_environment_is_exactly_the_sessions() -> None:
    """F044: the environment is the session's alone."""
    environment = ((b"A", b"1"), (b"HOME", HostVariable(name=b"HOME")), (b"NO", HostVariable(name=b"NO")))
    host = {b"HOME": b"/root", b"PATH": b"/bin", b"A": b"host"}
    assert build_environment(released(environment=environment), host) == {b"A": b"1", b"HOME": b"/root", b"NO": b""}


def test_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    enter_directory(str(tmp_path))
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file"), ("file", "Not a directory")])
def test_a_working_directory_that_is_none(name: str, reason: str, tmp_path: Path) -> None:
    """F048: the working directory must exist."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=f"{name} cannot be entered; it must exist here: {reason}"):
        enter_directory(str(tmp_path / name))


def make(path: Path, mode: int = 0o755, content: str = "#!/bin/sh\n") -> bytes:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return os.fsencode(path)


def test_a_program_is_found_in_the_first_directory_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a" / "prog", mode=0o644)
    (tmp_path / "b" / "prog").mkdir(parents=True)
    expected = make(tmp_path / "c" / "prog")
    make(tmp_path / "d" / "prog")
    search = b":".join(os.fsencode(tmp_path / name) for name in ("none", "a", "b", "c", "d"))
    assert find_program(b"prog", search) == expected
    monkeypatch.chdir(tmp_path / "d")
    assert find_program(b"prog", b"") == b"./prog", "an empty entry is the working directory"
    assert find_program(b"./prog", None) == b"./prog"
    assert find_program(b"sh", None) in (b"/usr/bin/sh", b"/bin/sh")


@pytest.mark.parametrize(("name", "where"), [(b"prog", " in PATH"), (b"./prog", ""), (b"", " in PATH")])
def test_a_program_that_is_not_there(name: bytes, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProgramNotFoundError, match=f"program {name.decode()!r} was not found{where}; check the name"):
        find_program(name, os.fsencode(tmp_path))


@pytest.mark.parametrize("name", ["file", "directory"])
@pytest.mark.parametrize("slash", [True, False])
def test_what_is_there_but_no_program(name: str, slash: bool, tmp_path: Path) -> None:
    make(tmp_path / "file", mode=0o644)
    (tmp_path / "directory").mkdir()
    wanted = os.fsencode(tmp_path / name) if slash else name.encode()
    with pytest.raises(ProgramNotExecutableError, match=f"{name} is not a file that this user may execute"):
        find_program(wanted, os.fsencode(tmp_path))


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize(
    ("content", "argv", "kind", "message"),
    [
        (None, [b"p"], ProgramNotFoundError, "prog: no such file"),
        ("#!/no/such/interpreter\n", [b"p"], ProgramNotExecutableError, "interpreter .* is missing"),
        ("neither\n", [b"p"], ProgramNotExecutableError, "neither a program of this machine nor a script"),
        ("#!/bin/sh\n", [b"p", b"x" * 200_000], ProgramNotExecutableError, "does not take 200007 bytes .* 128 KiB"),
    ],
)
def test_exec_failures_are_explained(
    content: str | None, argv: list[bytes], kind: type[ConfigurationError], message: str, tmp_path: Path
) -> None:
    if content is not None:
        make(tmp_path / "prog", content=content)
    with pytest.raises(kind, match=message):
        execute(os.fsencode(tmp_path / "prog"), argv, {b"A": b"1"})


@pytest.mark.usefixtures("_signals")
def test_a_program_that_may_not_be_executed(tmp_path: Path) -> None:
    path = make(tmp_path / "prog", mode=0o644)
    with pytest.raises(ProgramNotExecutableError, match="prog cannot be executed: Permission denied"):
        execute(path, [b"p"], {})


def test_the_program_finds_signals_as_before_python(source: str) -> None:
    """Python ignores SIGPIPE and SIGXFSZ; what was ignored or blocked before it stays so."""
    code = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from ostiary.launcher.execute import execute
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
signal.signal(signal.SIGHUP, signal.SIG_IGN)
execute(b"/bin/grep", [b"grep", b"Sig[BI]", b"/proc/self/status"], {})
"""
    direct = _signal_masks(["grep", "Sig[BI]", "/proc/self/status"])
    assert _signal_masks([sys.executable, "-c", code, source]) == {
        "SigBlk": direct["SigBlk"] | 1 << (signal.SIGUSR1 - 1),
        "SigIgn": direct["SigIgn"] | 1 << (signal.SIGHUP - 1),
    }


def _signal_masks(command: list[str]) -> dict[str, int]:
    """What the last program of `command` finds blocked and ignored."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split(":")[0]: int(line.split()[1], 16) for line in done.stdout.splitlines()}
