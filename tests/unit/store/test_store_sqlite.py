"""Attacks on what only an SQLite file has: its schema, its pages, its marks."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ostiary.errors import StoreError, TamperedError
from ostiary.store import Store, Write
from ostiary.store.backend import Batch, HeadRow
from ostiary.store.sqlite import SqliteBackend

OpenData = Callable[[], Store]


def connect(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(data / "records.sqlite", isolation_level=None)


SCHEMA_ATTACKS = {
    "trigger added": [
        "CREATE TRIGGER t AFTER DELETE ON records BEGIN INSERT INTO records VALUES (old.id, 1, x'00'); END"
    ],
    "table remade without key": ["DROP TABLE records", "CREATE TABLE records(id, version, sealed)"],
    "view in place of a table": ["ALTER TABLE records RENAME TO kept", "CREATE VIEW records AS SELECT * FROM kept"],
    "index dropped": ["DROP INDEX records_by_version"],
    "index over something else": [
        "DROP INDEX records_by_version",
        "CREATE INDEX records_by_version ON records(version) WHERE version < 3",
    ],
    "hints dropped": ["DROP TABLE deletions"],
    "table added": ["CREATE TABLE more(id)"],
    "half of version 1": ["DROP TABLE deletions", "PRAGMA user_version = 1"],
}


@pytest.mark.parametrize("statements", SCHEMA_ATTACKS.values(), ids=SCHEMA_ATTACKS.keys())
def test_an_altered_schema_is_refused(open_data: OpenData, data: Path, statements: list[str]) -> None:
    open_data().close()
    eve = connect(data)
    for statement in statements:
        eve.execute(statement)
    eve.close()
    with pytest.raises(TamperedError, match="changed: the schema has been altered"):
        open_data()


def test_a_database_made_to_look_like_version_1_is_brought_up_to_date_and_holds_what_it_held(
    open_data: OpenData, data: Path
) -> None:
    store = open_data()
    store.commit([Write(name="a", value=b"1", expected_version=0)], b"leaf").result()
    store.close()
    eve = connect(data)
    for statement in ("DROP TABLE deletions", "DROP INDEX records_by_version", "PRAGMA user_version = 1"):
        eve.execute(statement)
    eve.close()
    store = open_data()
    assert store.version("a") == 1
    assert store.commit([Write(name="a", value=None, expected_version=1)], b"leaf").result().seq == 2


def test_what_was_deleted_or_replaced_is_gone_from_the_files_after_compacting(open_data: OpenData, data: Path) -> None:
    store = open_data()
    for number in range(60):
        size = 50 if number % 2 else 9000
        store.commit([Write(name=str(number), value=bytes(size), expected_version=0)], b"leaf").result()
    eve = connect(data)
    sealed = [row for (row,) in eve.execute("SELECT sealed FROM records")]
    eve.close()
    assert all(holds(data, row) for row in sealed)
    for number in range(60):
        value = None if number % 3 else b"new"
        store.commit([Write(name=str(number), value=value, expected_version=number + 1)], b"leaf").result()
    with closing(connect(data)) as eve:
        (pages,) = eve.execute("PRAGMA page_count").fetchone()
    head = store.head
    store.compact()
    assert not any(holds(data, row) for row in sealed)
    assert (data / "records.sqlite-wal").stat().st_size == 0
    assert (data / "records.sqlite").stat().st_size < pages * 4096
    assert store.head == head
    assert store.commit([], b"leaf").result().seq == head.seq + 1
    store.close()
    assert open_data().version("3") == 64


def test_what_was_deleted_is_overwritten_once_the_log_is_copied_into_the_database(
    open_data: OpenData, data: Path
) -> None:
    """Without compacting: SQLite writes zeros over what it frees."""
    store = open_data()
    for number in range(20):
        store.commit([Write(name=str(number), value=bytes(9000), expected_version=0)], b"leaf").result()
    eve = connect(data)
    sealed = [row for (row,) in eve.execute("SELECT sealed FROM records")]
    eve.close()
    for number in range(20):
        store.commit([Write(name=str(number), value=None, expected_version=number + 1)], b"leaf").result()
    store.close()
    assert not any(holds(data, row) for row in sealed)


def holds(data: Path, sealed: bytes) -> bool:
    """Whether the files hold any part of the bytes that is as long as a page may keep together."""
    content = b"".join(path.read_bytes() for path in data.iterdir() if path.name.startswith("records"))
    return any(sealed[at : at + 64] in content for at in range(0, len(sealed) - 64, 512))


def test_a_closed_database_is_told(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "records.sqlite")
    backend.close()
    backend.close()
    for attempt in (
        backend.head,
        lambda: backend.record(bytes(32)),
        lambda: backend.commit(Batch(expected=None, head=HeadRow(0, b""))),
    ):
        with pytest.raises(StoreError, match="close and open the store again"):
            attempt()


def test_compacting_while_another_reads_says_that_old_bytes_are_left(
    open_data: OpenData, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.sqlite.BUSY_SECONDS", 0.05)
    store = open_data()
    eve = connect(data)
    eve.execute("BEGIN")
    eve.execute("SELECT * FROM heads").fetchall()
    store.commit([], b"leaf").result()
    with pytest.raises(StoreError, match="compacted, but others are reading"):
        store.compact()
    eve.close()
    store.compact()


def test_compacting_while_another_writes_is_refused(
    open_data: OpenData, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.store.sqlite.BUSY_SECONDS", 0.05)
    store = open_data()
    eve = connect(data)
    eve.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program holds the database open for writing"):
        store.compact()
    eve.close()
    store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        store.compact()


def test_a_change_of_schema_that_fails_leaves_version_1_as_it_was(tmp_path: Path) -> None:
    """It is one transaction: here the disk is full, and a kill is the same to SQLite."""
    vector = Path(__file__).parents[2] / "vectors" / "store" / "v1" / "records.sqlite"
    path = tmp_path / "records.sqlite"
    shutil.copy(vector, path)

    class Full(SqliteBackend):
        def _connect(self) -> sqlite3.Connection:
            connection = super()._connect()
            connection.execute("PRAGMA max_page_count = 1").fetchall()
            return connection

    with pytest.raises(StoreError, match="database or disk is full"):
        Full(path)
    with closing(sqlite3.connect(path)) as eve:
        assert eve.execute("PRAGMA user_version").fetchone() == (1,)
        assert eve.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (4,)
    backend = SqliteBackend(path)
    assert backend.head() is not None
    backend.close()


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(open_data: OpenData, data: Path, keep: float) -> None:
    store = open_data()
    for number in range(50):
        store.commit([Write(name=str(number), value=bytes(3000), expected_version=0)], b"leaf").result()
    store.close()
    path = data / "records.sqlite"
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep) // 4096 * 4096)
    with pytest.raises(TamperedError, match="changed: the database file is damaged"):
        open_data()


def test_a_file_that_is_no_database_is_refused(open_data: OpenData, data: Path) -> None:
    open_data().close()
    (data / "records.sqlite").write_bytes(b"x" * 8192)
    with pytest.raises(TamperedError, match="changed: the database file is damaged"):
        open_data()


def test_the_database_of_another_key_is_refused(open_data: OpenData, data: Path) -> None:
    open_data().close()
    (data / "database.key").write_bytes(bytes(32))
    with pytest.raises(TamperedError, match="changed: head 0 does not verify"):
        open_data()


def test_a_leaf_put_into_the_open_database_fails_the_commit(open_data: OpenData, data: Path) -> None:
    """The primary key refuses the store's own."""
    store = open_data()
    eve = connect(data)
    eve.execute("INSERT INTO leaves(position, sealed) VALUES (0, x'00')")
    with pytest.raises(TamperedError, match=r"changed: the database file is damaged .*: nothing was changed"):
        store.commit([], b"leaf").result()
    eve.execute("DELETE FROM leaves WHERE position = 0")
    eve.close()
    assert store.commit([], b"leaf").result().log_size == 1


def test_a_newer_schema_and_a_foreign_database_are_left_alone(open_data: OpenData, data: Path) -> None:
    open_data().close()
    path = data / "records.sqlite"
    for pragma, message in (
        ("user_version = 3", "has schema version 3, expected 2: start the program that wrote it"),
        ("application_id = 7", "is the database of another program"),
    ):
        eve = connect(data)
        eve.execute(f"PRAGMA {pragma}")
        eve.close()
        before = hashlib.sha256(path.read_bytes()).digest()
        with pytest.raises(StoreError, match=message):
            open_data()
        assert hashlib.sha256(path.read_bytes()).digest() == before
