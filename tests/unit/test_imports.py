"""Imports point downwards only, and what runs beside the program uses the standard library alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import ostiary

PACKAGE = Path(ostiary.__file__).parent

ROWS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"entry"}),
    frozenset({"cli"}),
    frozenset({"demo"}),
    frozenset({"server", "launcher", "checker"}),
    frozenset({"broker", "client"}),
    frozenset({"freshness", "witness"}),
    frozenset({"appraisal", "secret", "board", "store", "audit", "platform"}),
    frozenset({"session", "evidence", "attester"}),
    frozenset({"https", "member_key", "tpm"}),
    frozenset({"errors"}),
    frozenset({"__init__"}),
)
"""From the top down; packages of one row do not know each other."""

STANDARD_LIBRARY_ONLY = ("launcher", "attester", "errors", "entry", "__init__")
BESIDE_THE_PROGRAM = {"launcher", "attester", "errors", "__init__"}


def imports(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "ostiary" else {node.module}
            )
    return found


def room(module: str) -> str:
    """The room that a module of ours is in: `ostiary.store.sqlite` is in `store`."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1].startswith("__version"):
        return "__init__"
    return parts[1]


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def home(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def row(name: str) -> int:
    """Position from the top. A room that no row lists is a mistake of this test or of the tree."""
    return next(number for number, names in enumerate(ROWS) if name in names)


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_downwards(file: Path) -> None:
    own = home(file)
    for module in imports(file):
        if module.split(".")[0] == "ostiary":
            other = room(module)
            assert other == own or row(other) > row(own), f"{own} must not import {module}"


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_runs_beside_the_program_imports_the_standard_library_only(file: Path) -> None:
    if home(file) not in STANDARD_LIBRARY_ONLY:
        return
    foreign = {module for module in imports(file) if module.split(".")[0] not in {*sys.stdlib_module_names, "ostiary"}}
    assert not foreign
    if home(file) in BESIDE_THE_PROGRAM:
        ours = {room(module) for module in imports(file) if module.split(".")[0] == "ostiary"}
        assert ours <= BESIDE_THE_PROGRAM


def test_the_client_knows_nothing_of_the_service() -> None:
    """Beside people and programs: sessions, evidence and what is signed, but no store or secret of a service."""
    files_of_client = [file for file in files() if home(file) == "client"]
    assert files_of_client
    for file in files_of_client:
        ours = {room(module) for module in imports(file) if module.split(".")[0] == "ostiary"}
        assert ours <= {"board", "member_key", "session", "evidence", "attester", "errors", "__init__"}


def test_the_checker_uses_the_public_api_alone() -> None:
    """It is a program that others run: what it knows of a service is what a client knows."""
    files_of_checker = [file for file in files() if home(file) == "checker"]
    assert files_of_checker
    for file in files_of_checker:
        ours = {room(module) for module in imports(file) if module.split(".")[0] == "ostiary"}
        assert ours <= {"checker", "client", "board", "member_key", "session", "errors", "__init__"}


def test_the_test_sees_an_import_that_points_upwards(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import ostiary.server.tls\nfrom ostiary import errors\nfrom ostiary.cli.main import app\n")
    assert {room(module) for module in imports(file)} == {"server", "errors", "cli"}
    assert row("server") < row("store") < row("errors")
