"""What runs is what was measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ostiary.attester import Program, resolve_program
from ostiary.errors import ConfigurationError
from ostiary.launcher.measured import require_same_program, require_unchanged, snapshot

NONE: frozenset[str] = frozenset()
PATH = b"/usr/bin:/bin"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("data")
    path = tmp_path / "script"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


def resolve(*command: str, extra: tuple[str, ...] = ()) -> Program:
    return resolve_program(command, extra_files=extra, path=PATH.decode(), cwd=os.getcwd())


def test_nothing_changed(script: Path) -> None:
    program = resolve(str(script), "data")
    require_unchanged(program, snapshot(program), injected=NONE)


@pytest.mark.parametrize("changed", ["script", "data"])
def test_a_changed_or_replaced_file_stops_the_start(changed: str, script: Path) -> None:
    program = resolve(str(script), "data")
    before = snapshot(program)
    path = script.parent / changed
    content = path.read_bytes()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(content)
    path.chmod(0o755)
    with pytest.raises(ConfigurationError, match=f"{changed} is not the file that was measured"):
        require_unchanged(program, before, injected=NONE)


def test_a_file_changed_in_place_stops_the_start(script: Path) -> None:
    program = resolve(str(script))
    before = snapshot(program)
    status = script.stat()
    script.write_bytes(script.read_bytes().replace(b"0", b"1"))
    os.utime(script, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(ConfigurationError, match="script is not the file that was measured: it was changed since"):
        require_unchanged(program, before, injected=NONE)


def test_a_file_that_is_gone_stops_the_start(script: Path) -> None:
    program = resolve(str(script))
    before = snapshot(program)
    script.unlink()
    with pytest.raises(ConfigurationError, match=r"measured file .*script cannot be looked at: No such file"):
        require_unchanged(program, before, injected=NONE)


def test_what_is_no_regular_file_is_not_measured() -> None:
    with pytest.raises(ConfigurationError, match="measured file /dev/null is not a regular file"):
        snapshot(Program(executable="/dev/null", interpreter=None, files=()))


def test_an_injection_file_may_hide_measured_data_but_not_the_program(script: Path) -> None:
    data = script.parent / "data"
    program = resolve(str(script), "data")
    before = snapshot(program)
    data.write_text("changed")
    require_unchanged(program, before, injected=frozenset({str(data)}))
    script.write_text("#!/bin/sh\n# changed")
    with pytest.raises(ConfigurationError, match="script is not the file that was measured"):
        require_unchanged(program, before, injected=frozenset({str(data), str(script)}))


def test_the_measured_script_may_run(script: Path) -> None:
    for command in (["/bin/sh", str(script)], ["/bin/sh", "script"]):
        require_same_program(resolve(*command), [b"sh", b"-e", b"./script", b"data"], search_path=PATH, injected=NONE)


@pytest.mark.parametrize("command", [["/bin/sh", "script"], ["/bin/sh", "nothing"]])
def test_another_script_than_the_measured_one_stops_the_start(command: list[str], script: Path) -> None:
    """`--measure` alone counts as much as a script of the command."""
    program = resolve(*command, extra=("script",))
    with pytest.raises(
        ConfigurationError, match=r"the session's command runs .*/data, which was not measured; name it"
    ):
        require_same_program(program, [b"sh", b"data", b"script"], search_path=PATH, injected=NONE)


def test_a_script_from_the_cas_needs_no_measuring(script: Path) -> None:
    injected = frozenset({str(script.parent / "data")})
    program = resolve("/bin/sh", "script")
    require_same_program(program, [b"sh", b"data", b"script"], search_path=PATH, injected=injected)
    (script.parent / "other").touch()
    with pytest.raises(ConfigurationError, match="other, which was not measured"):
        require_same_program(program, [b"sh", b"data", b"other"], search_path=PATH, injected=injected)


def test_where_the_executable_alone_was_measured_arguments_are_free(script: Path) -> None:
    require_same_program(resolve("/bin/sh"), [b"sh", b"data"], search_path=PATH, injected=NONE)


def test_env_must_find_the_interpreter_that_was_measured(script: Path) -> None:
    script.write_text("#!/usr/bin/env sh\n")
    program = resolve(str(script))
    require_same_program(program, [b"script"], search_path=PATH, injected=NONE)
    other = script.parent / "bin" / "sh"
    other.parent.mkdir()
    other.write_bytes(b"\x7fELF")
    other.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"runs .*/bin/sh, which was not measured"):
        require_same_program(program, [b"script"], search_path=os.fsencode(other.parent), injected=NONE)
