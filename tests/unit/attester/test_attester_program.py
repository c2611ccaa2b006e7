"""Which files make up a program: found as the kernel and the C library would find them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ostiary.attester import Program, resolve_program
from ostiary.errors import ConfigurationError

NOBODY = 65534


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    _file(directory / "tool", "\x7fELF", mode=0o755)
    return directory


@contextmanager
def _as_ordinary_user() -> Iterator[None]:
    """Root reads everything, so it steps down for the while of a test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _file(path: Path, content: str, *, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def _resolve(*command: str, path: str = "", cwd: Path, extra: tuple[str, ...] = ()) -> Program:
    return resolve_program(command, extra_files=extra, path=path, cwd=str(cwd))


class TestExecutable:
    def test_name_without_slash_is_searched_in_path(self, tmp_path: Path, bin_directory: Path) -> None:
        found = _resolve("tool", path=f"/nowhere:{bin_directory}", cwd=tmp_path)
        assert found == Program(executable=str(bin_directory / "tool"), interpreter=None, files=())

    def test_empty_entry_of_path_is_the_working_directory(self, tmp_path: Path, bin_directory: Path) -> None:
        assert _resolve("tool", path="/nowhere::", cwd=bin_directory).executable == str(bin_directory / "tool")

    def test_name_with_slash_starts_at_the_working_directory(self, tmp_path: Path, bin_directory: Path) -> None:
        assert _resolve("bin/tool", path="/nowhere", cwd=tmp_path).executable == str(bin_directory / "tool")

    def test_symbolic_links_are_resolved(self, tmp_path: Path, bin_directory: Path) -> None:
        (tmp_path / "alias").symlink_to("bin/tool")
        assert _resolve("./alias", cwd=tmp_path).executable == str(bin_directory / "tool")

    def test_search_goes_on_over_what_cannot_be_executed(self, tmp_path: Path, bin_directory: Path) -> None:
        _file(tmp_path / "first" / "tool", "text")
        (tmp_path / "second" / "tool").mkdir(parents=True)
        found = _resolve("tool", path=f"{tmp_path}/first:{tmp_path}/second:{bin_directory}", cwd=tmp_path)
        assert found.executable == str(bin_directory / "tool")

    def test_found_like_the_shell_finds_it(self) -> None:
        path = os.environ["PATH"]
        found = subprocess.run(["sh", "-c", "command -v sh"], check=True, capture_output=True, text=True)
        assert _resolve("sh", path=path, cwd=Path("/")).executable == os.path.realpath(found.stdout.strip())

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            ("missing", "program 'missing' was not found in PATH '/nowhere'; give its path"),
            ("", "program '' was not found in PATH '/nowhere'"),
            ("./missing", "program './missing' was not found at"),
            ("./a\0b", "was not found at"),
            ("./bin", "program './bin' is a directory at"),
            ("./plain", "program './plain' at .* may not be executed; set its x bit"),
        ],
    )
    def test_what_cannot_be_started_is_refused(
        self, tmp_path: Path, bin_directory: Path, command: str, message: str
    ) -> None:
        _file(tmp_path / "plain", "text")
        with pytest.raises(ConfigurationError, match=message):
            _resolve(command, path="/nowhere", cwd=tmp_path)

    def test_file_found_in_path_that_may_not_be_executed_is_named(self, tmp_path: Path) -> None:
        _file(tmp_path / "plain", "text")
        with pytest.raises(ConfigurationError, match="may not be executed; set its x bit"):
            _resolve("plain", path=str(tmp_path), cwd=tmp_path)

    def test_empty_command_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="the command is empty; give it after --"):
            _resolve(cwd=tmp_path)

    def test_executable_that_cannot_be_read_is_refused(self) -> None:
        with _as_ordinary_user(), tempfile.TemporaryDirectory(dir="/tmp") as name:
            directory = Path(name)
            _file(directory / "secret", "text", mode=0o111)
            with pytest.raises(ConfigurationError, match="cannot be read, so it cannot be measured: Permission denied"):
                _resolve("./secret", cwd=directory)


class TestInterpreter:
    @pytest.mark.parametrize("line", ["#!{}", "#! {} -x\n", "#!{}\t-a b\nmore"])
    def test_interpreter_of_a_script_is_part_of_the_program(
        self, tmp_path: Path, bin_directory: Path, line: str
    ) -> None:
        _file(tmp_path / "script", line.format(bin_directory / "tool"), mode=0o755)
        found = _resolve("./script", cwd=tmp_path)
        assert found == Program(executable=str(tmp_path / "script"), interpreter=str(bin_directory / "tool"), files=())

    @pytest.mark.parametrize("line", ["#!{}/env tool", "#!{}/env -S A=1 tool -x"])
    def test_program_that_env_looks_up_is_part_of_it_too(self, tmp_path: Path, bin_directory: Path, line: str) -> None:
        _file(bin_directory / "env", "\x7fELF", mode=0o755)
        _file(tmp_path / "script", line.format(bin_directory), mode=0o755)
        found = _resolve("./script", path=str(bin_directory), cwd=tmp_path)
        assert found.interpreter == str(bin_directory / "env")
        assert found.files == (str(bin_directory / "tool"),)

    def test_env_without_a_program_adds_nothing(self, tmp_path: Path, bin_directory: Path) -> None:
        _file(bin_directory / "env", "\x7fELF", mode=0o755)
        _file(tmp_path / "script", f"#!{bin_directory}/env -i", mode=0o755)
        assert _resolve("./script", cwd=tmp_path).files == ()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("#!\n", "begins with #! but names no interpreter"),
            ("#!/nowhere/python", "program '/nowhere/python' was not found at"),
            ("#!{}/inner", "the interpreter .* is a script itself; name a binary"),
            ("#!{}/env nothing", "program 'nothing' was not found in PATH"),
        ],
    )
    def test_interpreter_that_cannot_be_found_is_refused(
        self, tmp_path: Path, bin_directory: Path, line: str, message: str
    ) -> None:
        _file(bin_directory / "env", "\x7fELF", mode=0o755)
        _file(bin_directory / "inner", f"#!{bin_directory}/tool", mode=0o755)
        _file(tmp_path / "script", line.format(bin_directory), mode=0o755)
        with pytest.raises(ConfigurationError, match=message):
            _resolve("./script", path=str(bin_directory), cwd=tmp_path)


class TestFiles:
    def test_first_argument_that_names_a_file_is_the_script(self, tmp_path: Path, bin_directory: Path) -> None:
        _file(tmp_path / "app.py", "")
        _file(tmp_path / "data.txt", "")
        found = _resolve("bin/tool", "-u", "bin", "app.py", "data.txt", cwd=tmp_path)
        assert found.files == (str(tmp_path / "app.py"),)

    def test_extra_files_are_added_sorted_and_once(self, tmp_path: Path, bin_directory: Path) -> None:
        _file(tmp_path / "app.py", "")
        _file(tmp_path / "lib.py", "")
        extra = ("lib.py", "./app.py", str(tmp_path / "lib.py"))
        found = _resolve("bin/tool", "app.py", cwd=tmp_path, extra=extra)
        assert found.files == (str(tmp_path / "app.py"), str(tmp_path / "lib.py"))

    def test_paths_lose_dots_as_the_kernel_follows_them(self, tmp_path: Path, bin_directory: Path) -> None:
        _file(tmp_path / "real" / "app.py", "the kernel's")
        _file(tmp_path / "app.py", "not this one")
        (tmp_path / "real" / "inner").mkdir()
        (tmp_path / "link").symlink_to("real/inner")
        assert _resolve("bin/tool", "link/../app.py", cwd=tmp_path).files == (str(tmp_path / "real" / "app.py"),)
        assert _resolve("bin/tool", ".//real/./app.py", cwd=tmp_path).files == (str(tmp_path / "real" / "app.py"),)

    def test_script_keeps_its_own_name_when_it_is_a_link(self, tmp_path: Path, bin_directory: Path) -> None:
        _file(tmp_path / "real.py", "")
        (tmp_path / "app.py").symlink_to("real.py")
        assert _resolve("bin/tool", "app.py", cwd=tmp_path).files == (str(tmp_path / "app.py"),)

    @pytest.mark.parametrize("name", ["missing", "bin"])
    def test_extra_file_that_is_none_is_refused(self, tmp_path: Path, bin_directory: Path, name: str) -> None:
        with pytest.raises(ConfigurationError, match=f"file to measure '{name}' is not a regular file at"):
            _resolve("bin/tool", cwd=tmp_path, extra=(name,))
