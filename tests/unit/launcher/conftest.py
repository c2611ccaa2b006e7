"""Real processes, real namespaces, real TLS on loopback; the CAS and the quoting daemon are simulated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.cas import QuotingDaemonSimulator

ROOT = Path(__file__).parents[3]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach and write to; pytest's own are closed to others. In memory where it can."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ostiary-test-", dir=base) as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[QuotingDaemonSimulator]:
    with QuotingDaemonSimulator(tmp_path / "platform.sock") as simulator:
        yield simulator


@pytest.fixture(scope="session")
def source() -> Iterator[str]:
    """Where the package can be imported from by every user: our tree, or a copy where that lies behind closed doors."""
    tree = ROOT / "src"
    if all(directory.stat().st_mode & 0o005 == 0o005 for directory in (tree, *tree.parents)):
        yield str(tree)
        return
    with tempfile.TemporaryDirectory(prefix="ostiary-test-") as name:
        Path(name).chmod(0o755)
        copy = Path(name) / "src"
        shutil.copytree(tree, copy)
        yield str(copy)


@pytest.fixture(scope="session")
def other_user_python() -> list[str]:
    """A command that runs Python as another, unprivileged user; skips where there is none."""
    if os.geteuid() != 0:
        return [sys.executable]
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for python in (sys.executable, "/usr/bin/python3"):
        command = [*drop, python, "-B"]
        probe = [*command, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            break
    pytest.skip("no Python 3.11 that another user can run, or no setpriv")
