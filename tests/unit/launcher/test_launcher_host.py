"""The host's environment as the kernel gave it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ostiary.launcher import host
from ostiary.launcher.host import host_environment

CODE = """
import sys
sys.path.append(sys.argv[1])
from ostiary.launcher.host import host_environment
print(host_environment())
"""


def test_what_python_adds_for_itself_is_not_the_hosts(source: str) -> None:
    """In the C locale Python sets LC_CTYPE for itself."""
    command = [sys.executable, "-I", "-S", "-c", CODE, source]
    environment = {b"A": b"\xff=1", b"EMPTY": b""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{environment}\n"


def test_the_first_of_equal_names_counts_and_nameless_entries_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "environ"
    path.write_bytes(b"A=1\0A=2\0nonsense\0=x\0B=\0")
    monkeypatch.setattr(host, "_INITIAL_ENVIRONMENT", str(path))
    assert host_environment() == {b"A": b"1", b"B": b""}


def test_without_proc_pythons_own_environment_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_INITIAL_ENVIRONMENT", str(tmp_path / "none"))
    assert host_environment() == dict(os.environb)
