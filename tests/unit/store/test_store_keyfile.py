from __future__ import annotations

import os
from pathlib import Path

import pytest

from ostiary.errors import StoreError
from ostiary.store.sealing import KeyFile

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.key"


def test_a_key_is_drafted_then_kept(path: Path) -> None:
    home = KeyFile(path)
    assert home.kept() is None
    assert home.drafted() is None
    assert home.draft(lambda size: KEY[:size]) == KEY
    assert (home.kept(), home.drafted()) == (None, KEY)
    home.keep()
    assert (home.kept(), home.drafted()) == (KEY, None)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_draft_replaces_what_an_interrupted_one_left(path: Path) -> None:
    path.with_name("database.key.draft").write_bytes(b"half")
    assert KeyFile(path).draft(lambda _: KEY) == KEY
    assert KeyFile(path).drafted() == KEY


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(path: Path, length: int) -> None:
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(StoreError, match=f"has {length} bytes, expected 32"):
        KeyFile(path).kept()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_key_that_others_may_touch_is_refused(path: Path, mode: int) -> None:
    path.write_bytes(KEY)
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"has mode {mode:04o}, expected 0600: .*run chmod 600"):
        KeyFile(path).kept()


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(KEY)
    (tmp_path / "elsewhere").chmod(0o600)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"database.key: .*symbolic links"):
        KeyFile(path).kept()


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_only_a_regular_file_is_read(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir(mode=0o700)
    else:
        os.mkfifo(path, 0o600)
    with pytest.raises(StoreError, match="is not a regular file, expected a file of 32 bytes"):
        KeyFile(path).kept()


def test_a_draft_is_not_written_through_a_link(path: Path, tmp_path: Path) -> None:
    path.with_name("database.key.draft").symlink_to(tmp_path / "elsewhere")
    KeyFile(path).draft(lambda _: KEY)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    home = KeyFile(tmp_path / "absent" / "database.key")
    with pytest.raises(StoreError, match=r"database.key.draft: No such file or directory: expected a file"):
        home.draft(lambda _: KEY)
    with pytest.raises(StoreError, match=r"database.key: No such file or directory"):
        home.keep()


def test_the_warning_says_where_and_what_for(path: Path) -> None:
    assert f"the plain file {path}" in KeyFile(path).warning
    assert "development only" in KeyFile(path).warning
