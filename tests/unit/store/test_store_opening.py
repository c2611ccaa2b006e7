"""The first start, every later one, and what must never pass for a first start."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ostiary.audit import Frontier
from ostiary.errors import StoreError
from ostiary.store import Store, Write, open_store
from ostiary.store.sealing import KeyFile
from ostiary.store.sqlite import SqliteBackend

OpenData = Callable[[], Store]


def test_the_first_start_makes_everything_private(open_data: OpenData, data: Path) -> None:
    store = open_data()
    store.commit([], b"leaf").result()
    assert data.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
    assert {"records.sqlite", "records.sqlite-wal", "records.sqlite.lock", "database.key"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_every_start_warns_of_the_key_file(data: Path) -> None:
    for _ in range(2):
        warnings: list[str] = []
        open_store(data, random=os.urandom, log=Frontier(), warn=warnings.append).close()
        assert len(warnings) == 1
        assert "development only" in warnings[0]


def test_a_database_without_its_key_is_refused(open_data: OpenData, data: Path) -> None:
    open_data().close()
    (data / "database.key").unlink()
    with pytest.raises(StoreError, match=r"is there but its key .*database.key is gone: restore the key"):
        open_data()
    assert not (data / "database.key").exists()


@pytest.mark.parametrize("left", ["nothing", "empty file"])
def test_a_key_without_its_database_is_refused(open_data: OpenData, data: Path, left: str) -> None:
    """A deleted database must not look like a first start."""
    open_data().close()
    (data / "records.sqlite").unlink()
    if left == "empty file":
        (data / "records.sqlite").touch()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"is there but its database .* is empty or gone: restore the database"):
            open_data()


def test_a_start_killed_before_the_first_head_starts_anew(open_data: OpenData, data: Path) -> None:
    data.mkdir(mode=0o700)
    SqliteBackend(data / "records.sqlite").close()
    (data / "database.key.draft").write_bytes(b"torn")
    assert open_data().head.seq == 0
    assert not (data / "database.key.draft").exists()


def test_a_start_killed_before_the_key_was_kept_carries_on(open_data: OpenData, data: Path) -> None:
    head = open_data().head
    (data / "database.key").rename(data / "database.key.draft")
    (data / "records.sqlite.lock").unlink()
    assert open_data().head == head
    assert (data / "database.key").exists()
    assert not (data / "database.key.draft").exists()


def test_a_key_that_cannot_be_read_leaves_nothing_locked(open_data: OpenData, data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "database.key").symlink_to("absent")
    with pytest.raises(StoreError, match="symbolic links"):
        open_data()
    (data / "database.key").unlink()
    open_data()


def test_a_key_that_cannot_be_kept_stops_the_start_and_the_next_one_carries_on(
    open_data: OpenData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: KeyFile) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(KeyFile, "keep", fail)
        with pytest.raises(StoreError, match="disk full"):
            open_data()
    assert open_data().head.seq == 0


def test_a_release_that_shares_with_nobody_keeps_others_out(
    open_data: OpenData, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the releases of schema version 1 did: they would not notice that the schema changes under them."""
    open_data().close()
    monkeypatch.setattr("ostiary.store.lock.WAIT_SECONDS", 0.05)
    with (data / "records.sqlite.lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"4711")
        file.truncate()
        file.flush()
        with pytest.raises(StoreError, match=r"is locked by process 4711, .* wait until it has started, or stop it"):
            open_data()
    open_data()


def test_first_starts_at_one_time_make_one_store(data: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from ostiary.audit import Frontier\n"
        "from ostiary.store import open_store\n"
        "with open_store(pathlib.Path(sys.argv[1]), random=os.urandom, log=Frontier(), warn=lambda _: None) as store:\n"
        "    store.commit([], b'leaf').result()\n"
    )
    command = [sys.executable, "-c", program, str(data)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    with open_store(data, random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        assert store.head.log_size == 4


def test_a_directory_that_others_may_write_is_refused(open_data: OpenData, data: Path) -> None:
    data.mkdir()
    data.chmod(0o770)
    with pytest.raises(StoreError, match=r"has mode 0770, expected 0700: .*run chmod 700"):
        open_data()


def test_a_file_in_place_of_the_directory_is_refused(open_data: OpenData, data: Path) -> None:
    data.write_text("")
    with pytest.raises(StoreError, match="is not a directory"):
        open_data()


def test_a_directory_without_parent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory: make its parent"):
        open_store(tmp_path / "no" / "data", random=os.urandom, log=Frontier(), warn=print)


@pytest.mark.parametrize("name", ["records.sqlite", "records.sqlite.lock"])
def test_links_in_the_directory_are_not_followed(open_data: OpenData, data: Path, tmp_path: Path, name: str) -> None:
    data.mkdir(mode=0o700)
    (data / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic links"):
        open_data()
    assert not (tmp_path / "elsewhere").exists()


def test_a_database_that_another_program_writes_to_is_told(
    open_data: OpenData, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.sqlite.BUSY_SECONDS", 0.05)
    store = open_data()
    other = sqlite3.connect(data / "records.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked; another program holds the database open for writing"):
        store.commit([Write(name="a", value=b"", expected_version=0)], b"leaf").result()
    other.execute("ROLLBACK")
    other.close()
    assert store.commit([Write(name="a", value=b"", expected_version=0)], b"leaf").result().seq == 1


def test_a_full_disk_fails_the_commit_and_room_mends_it(open_data: OpenData, data: Path) -> None:
    """SQLite's own bound on the file's pages stands in for the disk: the same error at the same place."""
    store = open_data()
    backend = store._backend
    assert isinstance(backend, SqliteBackend)
    backend._writer.execute("PRAGMA max_page_count = 20")
    writes = [Write(name=str(number), value=bytes(4000), expected_version=0) for number in range(40)]
    head = store.head
    with pytest.raises(StoreError, match="database or disk is full; make room on its file system and try again"):
        store.commit(writes, b"leaf").result()
    assert store.head == head
    backend._writer.execute("PRAGMA max_page_count = 100000")
    assert store.commit(writes, b"leaf").result().seq == 1
    store.close()
    assert open_data().get("39") is not None
