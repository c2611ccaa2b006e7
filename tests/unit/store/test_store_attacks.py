"""Whoever holds the database may do anything to it. Each row of these tables is one thing, and the class it is told as.

The history under attack: commits 1 to 6 write a, b, a, c, delete c, write d; so a is at version 3, b at 2, d at 6.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ostiary.audit import Frontier
from ostiary.errors import StoreError, TamperedError
from ostiary.store import Store, Write, open_store

OpenData = Callable[[], Store]
Rows = list[tuple[bytes, int, bytes]]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the attacker kept: after each commit, all records, leaves and the head; index 0 is the empty store."""

    records: list[Rows]
    leaves: list[list[tuple[int, bytes]]]
    heads: list[tuple[int, bytes]]


HISTORY: list[tuple[str, bytes | None, int]] = [
    ("a", b"1", 0),
    ("b", b"2", 0),
    ("a", b"3", 1),
    ("c", b"4", 0),
    ("c", None, 4),
    ("d", b"6", 0),
]


def connect(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(data / "records.sqlite", isolation_level=None)


def make_history(open_data: OpenData, data: Path) -> Past:
    past = Past(records=[], leaves=[], heads=[])
    store = open_data()
    eve = connect(data)

    def look() -> None:
        past.records.append(eve.execute("SELECT id, version, sealed FROM records ORDER BY version").fetchall())
        past.leaves.append(eve.execute("SELECT position, sealed FROM leaves ORDER BY position").fetchall())
        past.heads.extend(eve.execute("SELECT seq, sealed FROM heads").fetchall())

    look()
    for name, value, expected in HISTORY:
        store.commit([Write(name=name, value=value, expected_version=expected)], b"leaf " + name.encode()).result()
        look()
    eve.close()
    store.close()
    return past


def put_record(eve: sqlite3.Connection, row: tuple[bytes, int, bytes]) -> None:
    eve.execute("INSERT OR REPLACE INTO records(id, version, sealed) VALUES (?, ?, ?)", row)


def put_head(eve: sqlite3.Connection, row: tuple[int, bytes]) -> None:
    eve.execute("DELETE FROM heads")
    eve.execute("INSERT INTO heads(seq, sealed) VALUES (?, ?)", row)


def flipped(sealed: bytes, at: int) -> bytes:
    changed = bytearray(sealed)
    changed[at] ^= 0x80
    return bytes(changed)


def older_record(eve: sqlite3.Connection, past: Past) -> None:
    put_record(eve, past.records[1][0])


def older_record_under_the_new_version(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("UPDATE records SET sealed = ? WHERE version = 3", (past.records[1][0][2],))


def only_the_version_set_back(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("UPDATE records SET version = 1 WHERE version = 3")


def version_below_zero(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("UPDATE records SET version = -1 WHERE version = 3")


def two_records_swapped(eve: sqlite3.Connection, past: Past) -> None:
    one, other = past.records[6][:2]
    put_record(eve, (one[0], one[1], other[2]))
    put_record(eve, (other[0], other[1], one[2]))


def two_ids_swapped(eve: sqlite3.Connection, past: Past) -> None:
    one, other = past.records[6][:2]
    put_record(eve, (one[0], other[1], other[2]))
    put_record(eve, (other[0], one[1], one[2]))


def record_duplicated_under_a_new_id(eve: sqlite3.Connection, past: Past) -> None:
    _, version, sealed = past.records[6][0]
    put_record(eve, (bytes(32), version, sealed))


def record_dropped(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("DELETE FROM records WHERE version = 2")


def all_records_dropped(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("DELETE FROM records")


def deleted_record_put_back(eve: sqlite3.Connection, past: Past) -> None:
    put_record(eve, past.records[4][-1])


def record_dropped_and_deleted_one_put_back(eve: sqlite3.Connection, past: Past) -> None:
    record_dropped(eve, past)
    deleted_record_put_back(eve, past)


def record_made_up(eve: sqlite3.Connection, past: Past) -> None:
    put_record(eve, (bytes(32), 1, b"\x01" + bytes(300)))


def leaf_swapped(eve: sqlite3.Connection, past: Past) -> None:
    for position, other in ((1, 2), (2, 1)):
        eve.execute("UPDATE leaves SET sealed = ? WHERE position = ?", (past.leaves[6][other][1], position))


def leaf_dropped_at_the_end(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("DELETE FROM leaves WHERE position = 5")


def leaf_dropped_in_the_middle(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("DELETE FROM leaves WHERE position = 2")


def leaf_duplicated(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("INSERT INTO leaves(position, sealed) VALUES (6, ?)", (past.leaves[6][5][1],))


def older_head(eve: sqlite3.Connection, past: Past) -> None:
    put_head(eve, past.heads[5])


def older_head_under_the_new_seq(eve: sqlite3.Connection, past: Past) -> None:
    put_head(eve, (6, past.heads[5][1]))


def older_head_and_records(eve: sqlite3.Connection, past: Past) -> None:
    put_head(eve, past.heads[4])
    eve.execute("DELETE FROM records")
    for row in past.records[4]:
        put_record(eve, row)


def head_dropped(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("DELETE FROM heads")


def head_duplicated(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("INSERT INTO heads(seq, sealed) VALUES (?, ?)", past.heads[5])


def trigger_added(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("CREATE TRIGGER t AFTER DELETE ON records BEGIN INSERT INTO records VALUES (old.id, 1, x'00'); END")


def table_remade_without_key(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("DROP TABLE records")
    eve.execute("CREATE TABLE records(id, version, sealed)")


def view_in_place_of_a_table(eve: sqlite3.Connection, past: Past) -> None:
    eve.execute("ALTER TABLE records RENAME TO kept")
    eve.execute("CREATE VIEW records AS SELECT * FROM kept")


Attack = Callable[[sqlite3.Connection, Past], None]
ATTACKS: list[tuple[Attack, str]] = [
    (older_record, "older version: every record was once genuine"),
    (older_record_under_the_new_version, "changed: record"),
    (only_the_version_set_back, "changed: record"),
    (version_below_zero, "changed: a row without the number"),
    (two_records_swapped, "swapped: record .* holds the bytes of record"),
    (two_ids_swapped, "swapped: record .* holds the bytes of record"),
    (record_duplicated_under_a_new_id, "swapped: record 0000000000000000 holds the bytes of record"),
    (record_dropped, "missing: there are 2 records, expected 3"),
    (all_records_dropped, "missing: there are 0 records, expected 3"),
    (deleted_record_put_back, "added: there are 4 records, expected 3"),
    (record_dropped_and_deleted_one_put_back, "older version"),
    (record_made_up, "changed: record 0000000000000000 does not verify"),
    (leaf_swapped, "swapped: leaf 1 of the audit log holds the bytes of leaf 2"),
    (leaf_dropped_at_the_end, "missing: the audit log has 5 leaves, expected 6"),
    (leaf_dropped_in_the_middle, "missing: the audit log has no leaf 2"),
    (leaf_duplicated, "swapped: leaf 6 of the audit log holds the bytes of leaf 5"),
    (older_head, "added: there are 3 records, expected 2"),
    (older_head_under_the_new_seq, "changed: head 6 does not verify"),
    (older_head_and_records, "added: the audit log has 6 leaves, expected 4"),
    (head_dropped, "missing: there are rows without a head"),
    (head_duplicated, "added: there are several heads"),
    (trigger_added, "changed: the schema has been altered"),
    (table_remade_without_key, "changed: the schema has been altered"),
    (view_in_place_of_a_table, "changed: the schema has been altered"),
]


@pytest.mark.parametrize(("attack", "message"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_an_attack_on_the_closed_database_is_refused_at_the_start(
    open_data: OpenData, data: Path, attack: Attack, message: str
) -> None:
    past = make_history(open_data, data)
    eve = connect(data)
    attack(eve, past)
    eve.close()
    with pytest.raises(TamperedError, match=message):
        open_data()


def test_every_stored_object_resists_a_flipped_bit_anywhere_and_a_cut(open_data: OpenData, data: Path) -> None:
    """Each of the ten rows, at format byte, nonce, ciphertext and tag; then one byte less and one more."""
    past = make_history(open_data, data)
    places = [("records", "version", row[1], row[2]) for row in past.records[6]]
    places += [("leaves", "position", position, sealed) for position, sealed in past.leaves[6]]
    places += [("heads", "seq", *past.heads[6])]
    assert len(places) == 10
    for table, column, key, sealed in places:
        changes = [flipped(sealed, at) for at in (0, 1, 12, 13, -17, -16, -1)]
        for change in (*changes, sealed[:-1], sealed + b"\x00", b""):
            eve = connect(data)
            eve.execute(f"UPDATE {table} SET sealed = ? WHERE {column} = ?", (change, key))
            eve.close()
            with pytest.raises(TamperedError, match=r"changed: (record|leaf|head)"):
                open_data()
        eve = connect(data)
        eve.execute(f"UPDATE {table} SET sealed = ? WHERE {column} = ?", (sealed, key))
        eve.close()
    open_data()


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


LIVE_ATTACKS: list[tuple[Attack, str]] = [
    (older_record, "older version: record"),
    (older_record_under_the_new_version, "changed: record"),
    (only_the_version_set_back, "changed: record"),
    (two_records_swapped, "swapped: record"),
    (all_records_dropped, "missing: record"),
    (version_below_zero, "changed: a row without the number"),
]


@pytest.mark.parametrize(("attack", "message"), LIVE_ATTACKS, ids=[attack.__name__ for attack, _ in LIVE_ATTACKS])
def test_an_attack_on_the_open_database_is_refused_by_the_read(
    open_data: OpenData, data: Path, attack: Attack, message: str
) -> None:
    past = make_history(open_data, data)
    store = open_data()
    eve = connect(data)
    attack(eve, past)
    with pytest.raises(TamperedError, match=message):
        store.get("a")
    for row in past.records[6]:
        put_record(eve, row)
    eve.close()
    record = store.get("a")
    assert record is not None
    assert record.value == b"3"


def test_a_record_from_a_dropped_commit_is_refused_by_the_read(open_data: OpenData, data: Path) -> None:
    """Genuine bytes of a future that was cut off: the same key, a version that this history never reached."""
    open_data().close()
    shutil.copytree(data, data.with_name("fork"))
    store = open_data()
    store.commit([], b"leaf").result()
    store.commit([Write(name="a", value=b"fork", expected_version=0)], b"leaf").result()
    store.close()
    eve = connect(data)
    (row,) = eve.execute("SELECT id, version, sealed FROM records").fetchall()
    eve.close()
    shutil.rmtree(data)
    data.with_name("fork").rename(data)
    store = open_data()
    store.commit([Write(name="a", value=b"main", expected_version=0)], b"leaf").result()
    eve = connect(data)
    put_record(eve, row)
    eve.close()
    with pytest.raises(TamperedError, match=r"never committed: record .*, expected version 1"):
        store.get("a")


def test_a_leaf_from_a_fork_is_refused_at_the_start(open_data: OpenData, data: Path) -> None:
    """Genuine bytes, made for this very position, but in another history."""
    open_data().close()
    fork = data.with_name("fork")
    shutil.copytree(data, fork)
    for place, leaf in ((data, b"attested"), (fork, b"refused")):
        with open_store(place, random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
            store.commit([], leaf).result()
    other, eve = connect(fork), connect(data)
    eve.execute("UPDATE leaves SET sealed = ?", other.execute("SELECT sealed FROM leaves").fetchone())
    other.close()
    eve.close()
    with pytest.raises(TamperedError, match="changed: the audit log has another root than the head"):
        open_data()


def test_a_record_put_into_the_open_database_is_not_there(open_data: OpenData, data: Path) -> None:
    past = make_history(open_data, data)
    store = open_data()
    eve = connect(data)
    deleted_record_put_back(eve, past)
    eve.close()
    assert store.get("c") is None


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (older_head, "older version: the database is at head 5, expected 6 or a later one"),
        (head_dropped, "missing: there are rows without a head"),
    ],
)
def test_a_head_put_back_under_the_open_database_stops_everything_until_it_is_mended(
    open_data: OpenData, data: Path, attack: Attack, message: str
) -> None:
    past = make_history(open_data, data)
    store = open_data()
    eve = connect(data)
    attack(eve, past)
    with pytest.raises(TamperedError, match=message):
        store.commit([], b"leaf").result()
    with pytest.raises(TamperedError, match=message):
        store.get("a")
    with pytest.raises(TamperedError, match=message):
        store.version("a")
    put_head(eve, past.heads[6])
    eve.close()
    assert store.commit([], b"leaf").result().seq == 7


def test_a_leaf_put_into_the_open_database_fails_the_commit(open_data: OpenData, data: Path) -> None:
    past = make_history(open_data, data)
    store = open_data()
    eve = connect(data)
    leaf_duplicated(eve, past)
    with pytest.raises(TamperedError, match=r"changed: the database file is damaged .*: nothing was changed"):
        store.commit([], b"leaf").result()
    eve.execute("DELETE FROM leaves WHERE position = 6")
    eve.close()
    assert store.commit([], b"leaf").result().log_size == 7


def test_a_database_put_back_as_a_whole_is_not_detected_without_an_anchor(open_data: OpenData, data: Path) -> None:
    """The one attack that nothing inside the database can tell; its head differs, and an anchor would see that."""
    store = open_data()
    earlier = store.commit([Write(name="a", value=b"1", expected_version=0)], b"leaf").result()
    store.close()
    shutil.copytree(data, data.with_name("copy"))
    store = open_data()
    later = store.commit([Write(name="a", value=b"2", expected_version=1)], b"leaf").result()
    store.close()
    shutil.rmtree(data)
    data.with_name("copy").rename(data)
    assert open_data().head == earlier
    assert earlier.digest != later.digest


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
