"""Attacks on what only an SQLite file has: its schema, its pages, its marks."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ostiary.errors import StoreError, TamperedError
from ostiary.store import Store, Write

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
