"""Lists in files beside the rules: read each time they are asked for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.checker.listed import MAX_LIST_BYTES, MAX_SIGNATURE_FILE_BYTES
from ostiary.checker.lists_on_disk import read_lists
from ostiary.checker.rules import ListSource, Rule, Rules
from ostiary.errors import InputError

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def rules(file: str = "r.txt") -> Rules:
    return Rules(rules=(Rule(name="a", must="true"),), lists=(ListSource(name="releases", file=file, signer=SPKI),))


def write(directory: Path, value: str) -> None:
    data = f"ostiary-measurements-v1\nname releases\nexpires 2026-12-01T00:00:00Z\n{value}\n".encode()
    (directory / "r.txt").write_bytes(data)
    (directory / "r.txt.sig").write_bytes(base64.b64encode(KEY.sign(data)))


def read(directory: Path, of: Rules | None = None, now: datetime = NOW) -> tuple[str, ...] | InputError:
    return read_lists(of or rules(), directory, now=lambda: now)["releases"]


def test_a_newer_list_counts_as_soon_as_it_is_there(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32)
    assert read(tmp_path) == ("ab" * 32,)
    write(tmp_path, "cd" * 32)
    assert read(tmp_path) == ("cd" * 32,)


def test_a_file_is_beside_the_rules_or_where_its_absolute_name_says(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32)
    assert read(Path("/elsewhere"), rules(str(tmp_path / "r.txt"))) == ("ab" * 32,)


def trouble(directory: Path, of: Rules | None = None, now: datetime = NOW) -> str:
    found = read(directory, of, now)
    assert isinstance(found, InputError)
    return str(found)


def test_a_list_that_expires_while_the_checker_runs_holds_no_more(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32)
    assert "it expired at 2026-12-01T00:00:00Z" in trouble(tmp_path, now=datetime(2027, 1, 1, tzinfo=UTC))


def test_a_list_without_its_signature_is_none(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32)
    (tmp_path / "r.txt.sig").unlink()
    assert "list releases (r.txt): r.txt.sig cannot be read: No such file or directory" in trouble(tmp_path)


def test_a_newer_list_with_the_older_signature_is_none(tmp_path: Path) -> None:
    write(tmp_path, "ab" * 32)
    (tmp_path / "r.txt").write_bytes((tmp_path / "r.txt").read_bytes() + b"cd" * 32)
    assert "the signature does not hold" in trouble(tmp_path)


@pytest.mark.parametrize(("name", "most"), [("r.txt", MAX_LIST_BYTES), ("r.txt.sig", MAX_SIGNATURE_FILE_BYTES)])
def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path, name: str, most: int) -> None:
    write(tmp_path, "ab" * 32)
    (tmp_path / name).write_bytes(b"A" * (most + 1))
    assert "releases" in trouble(tmp_path)


def test_what_is_no_file_name_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in trouble(tmp_path, rules("a\0b"))
    (tmp_path / "r.txt").mkdir()
    assert "Is a directory" in trouble(tmp_path)
