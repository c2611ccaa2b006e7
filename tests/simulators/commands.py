"""The commands of `scone`, run in the test's own process: what a terminal would show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ostiary.cli.scone import run


@dataclass(frozen=True, kw_only=True)
class Shown:
    """stdout, stderr and exit code of one command."""

    out: str
    err: str
    code: int


@dataclass(frozen=True, kw_only=True)
class Scone:
    """directory: where the command runs, and where `write` puts files."""

    directory: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, program: str = "scone") -> Shown:
        """Run one command line, whatever its exit code."""
        self.capsys.readouterr()
        code = run(words, program)
        shown = self.capsys.readouterr()
        return Shown(out=shown.out, err=shown.err, code=code)

    def good(self, *words: str) -> str:
        """stdout of a command that must succeed and say nothing on stderr."""
        shown = self(*words)
        assert (shown.code, shown.err) == (0, ""), (words, shown)
        return shown.out

    def write(self, name: str, text: str) -> str:
        """Write a file; its name, for a command line."""
        (self.directory / name).write_text(text)
        return name
