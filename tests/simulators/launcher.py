"""A launcher of the form that the quoting daemon measures, with nothing in it but the question to the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ostiary

_MAIN = """
import json, os, sys
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from ostiary.attester import SoftwareAttester, resolve_program
from ostiary.errors import OstiaryError
socket, report_data, *command = sys.argv[1:]
try:
    program = resolve_program(command, extra_files=[], path=os.environ["PATH"], cwd=os.getcwd()) if command else None
    made = SoftwareAttester(socket).attest(bytes.fromhex(report_data), program)
except OstiaryError as error:
    print(json.dumps({"error": error.chain}))
else:
    print(json.dumps({"evidence": made.evidence.hex(), "endorsements": made.endorsements.decode()}))
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one launcher process brought back: evidence and endorsements, or an error's sentences."""

    evidence: bytes
    endorsements: bytes
    error: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TestLauncher:
    """package: a copy of ours with the real attester and the launcher above."""

    __test__ = False
    package: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-I", "-S", "-B", str(self.package / "launcher" / "__main__.py")]

    async def attest(self, socket: Path, report_data: bytes, program: Sequence[str]) -> Answer:
        """Start a launcher process that asks the daemon at `socket`, and wait for its end."""
        return await ask([*self.command, str(socket), report_data.hex(), *program])


def make_launcher(directory: Path) -> TestLauncher:
    source, package = Path(ostiary.__file__).parent, directory / "ostiary"
    shutil.copytree(source / "attester", package / "attester", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py"):
        shutil.copy(source / name, package / name)
    (package / "launcher").mkdir()
    (package / "launcher" / "__init__.py").touch()
    (package / "launcher" / "__main__.py").write_text(_MAIN)
    return TestLauncher(package=package)


def real_python() -> Path:
    return Path(os.path.realpath(sys.executable))


async def ask(command: Sequence[str]) -> Answer:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    members = json.loads(output)
    return Answer(
        evidence=bytes.fromhex(members.get("evidence", "")),
        endorsements=members.get("endorsements", "").encode(),
        error=tuple(members.get("error", ())),
    )
