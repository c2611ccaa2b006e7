"""Whoever holds the database may do anything to it. Each row of these tables is one thing, and the class it is told as.

The history under attack: commits 1 to 6 write a, b, a, c, delete c, write d; so a is at version 3, b at 2, d at 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.simulators.anchor import AnchorInMemory
from tests.unit.store.databases import Database, Rows, begin, resume

from ostiary.errors import RollbackError, TamperedError
from ostiary.store import Anchor, Head, Store, Write
from ostiary.store.backend import Deletion, HeadRow, LeafRow, RecordRow

Opened = Callable[[Store], Store]
Past = list[Rows]
"""What the attacker kept: all rows after each commit; index 0 is the empty store."""

HISTORY: list[tuple[str, bytes | None, int]] = [
    ("a", b"1", 0),
    ("b", b"2", 0),
    ("a", b"3", 1),
    ("c", b"4", 0),
    ("c", None, 4),
    ("d", b"6", 0),
]
TRUTH = {"a": b"3", "b": b"2", "c": None, "d": b"6"}


def commit(store: Store, number: int) -> Head:
    """The commit of the history that comes after `number` others."""
    name, value, expected = HISTORY[number]
    return store.commit([Write(name=name, value=value, expected_version=expected)], b"leaf %d" % number).result()


def make_history(database: Database, *, anchor: Anchor | None = None) -> Past:
    past: Past = []
    with begin(database, anchor=anchor) as store:
        past.append(database.read())
        for number in range(len(HISTORY)):
            commit(store, number)
            past.append(database.read())
    return past


def with_record(rows: Rows, *changed: RecordRow) -> Rows:
    """These records in place of those with their ids, or besides."""
    ids = {row.id for row in changed}
    return replace(rows, records=(*(row for row in rows.records if row.id not in ids), *changed))


def record(rows: Rows, version: int) -> RecordRow:
    return next(row for row in rows.records if row.version == version)


def with_leaf(rows: Rows, *changed: LeafRow) -> Rows:
    positions = {row.position for row in changed}
    return replace(rows, leaves=(*(row for row in rows.leaves if row.position not in positions), *changed))


def flipped(sealed: bytes, at: int = 20) -> bytes:
    changed = bytearray(sealed)
    changed[at] ^= 0x80
    return bytes(changed)


def older_record(past: Past) -> Rows:
    return with_record(past[6], past[1].records[0])


def older_record_under_the_new_version(past: Past) -> Rows:
    new, old = record(past[6], 3), past[1].records[0]
    return with_record(past[6], RecordRow(new.id, new.version, old.sealed))


def only_the_version_set_back(past: Past) -> Rows:
    new = record(past[6], 3)
    return with_record(past[6], RecordRow(new.id, 1, new.sealed))


def version_below_zero(past: Past) -> Rows:
    new = record(past[6], 3)
    return with_record(past[6], RecordRow(new.id, -1, new.sealed))


def version_above_all(past: Past) -> Rows:
    new = record(past[6], 3)
    return with_record(past[6], RecordRow(new.id, 7, new.sealed))


def two_records_swapped(past: Past) -> Rows:
    one, other = past[6].records[:2]
    return with_record(
        past[6], RecordRow(one.id, one.version, other.sealed), RecordRow(other.id, other.version, one.sealed)
    )


def two_ids_swapped(past: Past) -> Rows:
    one, other = past[6].records[:2]
    return with_record(
        past[6], RecordRow(one.id, other.version, other.sealed), RecordRow(other.id, one.version, one.sealed)
    )


def record_duplicated_under_a_new_id(past: Past) -> Rows:
    copied = past[6].records[0]
    return with_record(past[6], RecordRow(bytes(32), copied.version, copied.sealed))


def record_dropped(past: Past) -> Rows:
    return replace(past[6], records=tuple(row for row in past[6].records if row.version != 2))


def newest_record_dropped(past: Past) -> Rows:
    return replace(past[6], records=tuple(row for row in past[6].records if row.version != 6))


def all_records_dropped(past: Past) -> Rows:
    return replace(past[6], records=())


def record_flipped(past: Past) -> Rows:
    new = record(past[6], 3)
    return with_record(past[6], RecordRow(new.id, new.version, flipped(new.sealed)))


def record_truncated(past: Past) -> Rows:
    new = record(past[6], 3)
    return with_record(past[6], RecordRow(new.id, new.version, new.sealed[:-1]))


def record_emptied(past: Past) -> Rows:
    new = record(past[6], 3)
    return with_record(past[6], RecordRow(new.id, new.version, b""))


def deleted_record_put_back(past: Past) -> Rows:
    return with_record(past[6], record(past[4], 4))


def record_dropped_and_deleted_one_put_back(past: Past) -> Rows:
    return with_record(record_dropped(past), record(past[4], 4))


def record_made_up(past: Past) -> Rows:
    return with_record(past[6], RecordRow(bytes(32), 1, b"\x01" + bytes(300)))


def leaves_swapped(past: Past) -> Rows:
    leaves = past[6].leaves
    return with_leaf(past[6], LeafRow(4, leaves[5].sealed), LeafRow(5, leaves[4].sealed))


def old_leaves_swapped(past: Past) -> Rows:
    leaves = past[6].leaves
    return with_leaf(past[6], LeafRow(1, leaves[2].sealed), LeafRow(2, leaves[1].sealed))


def leaf_dropped_at_the_end(past: Past) -> Rows:
    return replace(past[6], leaves=past[6].leaves[:5])


def leaf_dropped_in_the_middle(past: Past) -> Rows:
    return replace(past[6], leaves=past[6].leaves[:4] + past[6].leaves[5:])


def old_leaf_dropped(past: Past) -> Rows:
    return replace(past[6], leaves=past[6].leaves[:2] + past[6].leaves[3:])


def all_leaves_dropped(past: Past) -> Rows:
    return replace(past[6], leaves=())


def leaf_duplicated(past: Past) -> Rows:
    return with_leaf(past[6], LeafRow(6, past[6].leaves[5].sealed))


def leaf_flipped(past: Past) -> Rows:
    return with_leaf(past[6], LeafRow(4, flipped(past[6].leaves[4].sealed)))


def leaf_truncated(past: Past) -> Rows:
    return with_leaf(past[6], LeafRow(4, past[6].leaves[4].sealed[:-1]))


def older_log(past: Past) -> Rows:
    return replace(past[6], leaves=past[4].leaves)


def older_head(past: Past) -> Rows:
    return replace(past[6], heads=past[5].heads)


def older_head_under_the_new_seq(past: Past) -> Rows:
    return replace(past[6], heads=(HeadRow(6, past[5].heads[0].sealed),))


def older_head_and_records(past: Past) -> Rows:
    return replace(past[6], heads=past[4].heads, records=past[4].records)


def newer_head_under_older_rows(past: Past) -> Rows:
    return replace(past[5], heads=past[6].heads)


def head_dropped(past: Past) -> Rows:
    return replace(past[6], heads=())


def everything_dropped(past: Past) -> Rows:
    return Rows(records=(), leaves=(), heads=(), deletions=())


def head_duplicated(past: Past) -> Rows:
    return replace(past[6], heads=(*past[5].heads, *past[6].heads))


def head_flipped(past: Past) -> Rows:
    return replace(past[6], heads=(HeadRow(6, flipped(past[6].heads[0].sealed)),))


def head_truncated(past: Past) -> Rows:
    return replace(past[6], heads=(HeadRow(6, past[6].heads[0].sealed[:-1]),))


def head_under_another_seq(past: Past) -> Rows:
    return replace(past[6], heads=(HeadRow(60, past[6].heads[0].sealed),))


Attack = Callable[[Past], Rows]
ATTACKS: list[tuple[Attack, str]] = [
    (older_record, "older version: every record was once genuine"),
    (older_record_under_the_new_version, "changed: record"),
    (only_the_version_set_back, "changed: record"),
    (version_below_zero, "changed: a row without the number"),
    (version_above_all, "changed: record"),
    (two_records_swapped, "swapped: record .* holds the bytes of record"),
    (two_ids_swapped, "swapped: record .* holds the bytes of record"),
    (record_duplicated_under_a_new_id, "swapped: record 0000000000000000 holds the bytes of record"),
    (record_dropped, "missing: there are 2 records, expected 3"),
    (newest_record_dropped, "missing: there are 2 records, expected 3"),
    (all_records_dropped, "missing: there are 0 records, expected 3"),
    (record_flipped, "changed: record"),
    (record_truncated, "changed: record"),
    (record_emptied, "changed: record"),
    (deleted_record_put_back, "added: there are 4 records, expected 3"),
    (record_dropped_and_deleted_one_put_back, "older version"),
    (record_made_up, "changed: record 0000000000000000 does not verify"),
    (leaves_swapped, "swapped: leaf 4 of the audit log holds the bytes of leaf 5"),
    (old_leaves_swapped, "swapped: leaf 1 of the audit log holds the bytes of leaf 2"),
    (leaf_dropped_at_the_end, "missing: the audit log has 5 leaves, expected 6"),
    (leaf_dropped_in_the_middle, "missing: the audit log has no leaf 4"),
    (old_leaf_dropped, "missing: the audit log has no leaf 2"),
    (all_leaves_dropped, "missing: the audit log has 0 leaves, expected 6"),
    (leaf_duplicated, "swapped: leaf 6 of the audit log holds the bytes of leaf 5"),
    (leaf_flipped, "changed: leaf 4 of the audit log does not verify"),
    (leaf_truncated, "changed: leaf 4 of the audit log does not verify"),
    (older_log, "missing: the audit log has 4 leaves, expected 6"),
    (older_head, "added: there are 3 records, expected 2"),
    (older_head_under_the_new_seq, "changed: head 6 does not verify"),
    (older_head_and_records, "added: the audit log has 6 leaves, expected 4"),
    (newer_head_under_older_rows, "missing: there are 2 records, expected 3"),
    (head_dropped, "missing: there are rows without a head"),
    (everything_dropped, "missing: the database holds no head"),
    (head_duplicated, "added: there are several heads"),
    (head_flipped, "changed: head 6 does not verify"),
    (head_truncated, "changed: head 6 does not verify"),
    (head_under_another_seq, "changed: head 60 does not verify"),
]
each_attack = pytest.mark.parametrize(("attack", "message"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])


@each_attack
def test_an_attack_on_the_closed_database_is_refused_at_the_start(
    database: Database, attack: Attack, message: str
) -> None:
    past = make_history(database)
    database.write(attack(past))
    with pytest.raises(TamperedError, match=message):
        resume(database)


NOT_READ_AGAIN = (old_leaves_swapped, old_leaf_dropped, record_duplicated_under_a_new_id, record_made_up)
"""Rows that belong before the state that the process knows: it does not read them again, but the next start does."""


@each_attack
def test_an_attack_is_refused_when_a_process_picks_up_what_others_wrote(
    database: Database, opened: Opened, attack: Attack, message: str
) -> None:
    """It knows the state after commit 3, and finds the attacked one after commit 6."""
    store = opened(begin(database))
    past = [database.read()]
    for number in range(3):
        commit(store, number)
        past.append(database.read())
    with resume(database) as other:
        for number in range(3, len(HISTORY)):
            commit(other, number)
            past.append(database.read())
    database.write(attack(past))
    if attack in NOT_READ_AGAIN:
        assert {name: value(store, name) for name in TRUTH} == TRUTH
        return
    # What others wrote since is refused as a whole; a record from before is when it is read.
    failures = [found for found in (failure(store, name) for name in TRUTH) if found is not None]
    assert failures
    assert all(re.search(message.split(":", 1)[0], found) for found in failures)
    database.write(past[6])
    assert {name: value(store, name) for name in TRUTH} == TRUTH


def value(store: Store, name: str) -> bytes | None:
    found = store.get(name)
    return None if found is None else found.value


def failure(store: Store, name: str) -> str | None:
    """Why the record cannot be read; None if it can, and then it is true."""
    try:
        assert value(store, name) == TRUTH[name]
    except TamperedError as error:
        return str(error)
    return None


@each_attack
def test_an_attack_on_the_open_database_makes_no_read_lie(
    database: Database, opened: Opened, attack: Attack, message: str
) -> None:
    past = make_history(database)
    store = opened(resume(database))
    database.write(attack(past))
    failures = {name: failure(store, name) for name in TRUTH}
    heads_differ = attack(past).heads != past[6].heads
    changed = {row.id for row in set(attack(past).records) ^ set(past[6].records)}
    known = {row.id for row in past[6].records}
    # Rows that were added, and leaves, are not read again before the next start.
    assert any(failures.values()) == (heads_differ or bool(changed & known))
    if heads_differ:
        assert all(failures.values())
        with pytest.raises(TamperedError, match="nothing was changed"):
            store.commit([], b"leaf").result()
    database.write(past[6])
    assert [failure(store, name) for name in TRUTH] == [None] * len(TRUTH)
    assert store.commit([], b"leaf").result().seq == 7


LIVE_CLASSES: list[tuple[Attack, str]] = [
    (older_record, "older version: record .*, expected version 3"),
    (older_record_under_the_new_version, "changed: record .*, expected version 3"),
    (only_the_version_set_back, "changed: record .*, expected version 3"),
    (two_records_swapped, "swapped: record .*, expected version 3"),
    (all_records_dropped, "missing: record .*, expected version 3"),
    (version_below_zero, "changed: a row without the number"),
    (record_flipped, "changed: record .*, expected version 3"),
    (record_truncated, "changed: record .*, expected version 3"),
    (older_head, "older version: the database is at head 5, expected 6 or a later one"),
    (older_head_and_records, "older version: the database is at head 4, expected 6 or a later one"),
    (head_dropped, "missing: there are rows without a head"),
    (everything_dropped, "missing: the database holds no head"),
    (head_flipped, "changed: head 6 does not verify"),
    (head_truncated, "changed: head 6 does not verify"),
    (older_head_under_the_new_seq, "changed: head 6 does not verify"),
    (head_under_another_seq, "changed: head 60 does not verify"),
    (head_duplicated, "added: there are several heads"),
]


@pytest.mark.parametrize(("attack", "message"), LIVE_CLASSES, ids=[attack.__name__ for attack, _ in LIVE_CLASSES])
def test_a_read_names_the_class_of_the_attack(database: Database, opened: Opened, attack: Attack, message: str) -> None:
    past = make_history(database)
    store = opened(resume(database))
    database.write(attack(past))
    with pytest.raises(TamperedError, match=message):
        store.get("a")


def hints_dropped(past: Past) -> Rows:
    return replace(past[6], deletions=())


def hint_of_another_version(past: Past) -> Rows:
    return replace(past[6], deletions=(Deletion(past[6].deletions[0].id, 6),))


def hint_of_a_record_that_is_there(past: Past) -> Rows:
    return replace(past[6], deletions=(*past[6].deletions, Deletion(record(past[6], 2).id, 5)))


def hint_exchanged(past: Past) -> Rows:
    return replace(past[6], deletions=(Deletion(record(past[6], 2).id, 5),))


def hint_flipped(past: Past) -> Rows:
    return replace(past[6], deletions=(Deletion(flipped(past[6].deletions[0].id), 5),))


def hint_truncated(past: Past) -> Rows:
    return replace(past[6], deletions=(Deletion(past[6].deletions[0].id[:31], 5),))


def hint_duplicated(past: Past) -> Rows:
    return replace(past[6], deletions=(*past[6].deletions, Deletion(past[6].deletions[0].id, 6)))


def hint_from_the_future(past: Past) -> Rows:
    return replace(past[6], deletions=(*past[6].deletions, Deletion(record(past[6], 2).id, 2**62)))


@pytest.mark.parametrize(
    "attack",
    [
        hints_dropped,
        hint_of_another_version,
        hint_of_a_record_that_is_there,
        hint_exchanged,
        hint_flipped,
        hint_truncated,
        hint_duplicated,
        hint_from_the_future,
    ],
)
def test_an_attack_on_hints_of_deletions_changes_what_nobody_reads(
    database: Database, opened: Opened, attack: Attack
) -> None:
    """They are not authenticated, and need not be: whoever they mislead finds another sum than the head's."""
    store = opened(begin(database))
    past = [database.read()]
    for number in range(4):
        commit(store, number)
        past.append(database.read())
    with resume(database) as other:
        for number in range(4, len(HISTORY)):
            commit(other, number)
            past.append(database.read())
    database.write(attack(past))
    assert {name: value(store, name) for name in TRUTH} == TRUTH
    assert store.commit([Write(name="c", value=b"7", expected_version=0)], b"leaf").result().seq == 7
    with resume(database) as other:
        assert value(other, "c") == b"7"


def test_every_stored_object_resists_a_flipped_bit_anywhere_and_a_cut(database: Database) -> None:
    """Each of the ten rows, at format byte, nonce, ciphertext and tag; then one byte less and one more."""
    past = make_history(database)
    rows = past[6]
    assert len(rows.records) + len(rows.leaves) + len(rows.heads) == 10
    for change in changes():
        attacked = [
            *(with_record(rows, RecordRow(row.id, row.version, change(row.sealed))) for row in rows.records),
            *(with_leaf(rows, LeafRow(row.position, change(row.sealed))) for row in rows.leaves),
            replace(rows, heads=(HeadRow(6, change(rows.heads[0].sealed)),)),
        ]
        for each in attacked:
            database.write(each)
            with pytest.raises(TamperedError, match=r"changed: (record|leaf|head)"):
                resume(database)
    database.write(rows)
    resume(database).close()


def changes() -> list[Callable[[bytes], bytes]]:
    flips = [lambda sealed, at=at: flipped(sealed, at) for at in (0, 1, 12, 13, -17, -16, -1)]
    return [*flips, lambda sealed: sealed[:-1], lambda sealed: sealed + b"\x00", lambda _: b""]


def test_a_record_from_a_dropped_commit_is_refused_by_the_read(database: Database, opened: Opened) -> None:
    """Genuine bytes of a future that was cut off: the same key, a version that this history never reached."""
    begin(database).close()
    with resume(database.copy()) as fork:
        fork.commit([], b"leaf").result()
        fork.commit([Write(name="a", value=b"fork", expected_version=0)], b"leaf").result()
        with fork._backend.snapshot() as view:
            (row,) = view.records()
    store = opened(resume(database))
    store.commit([Write(name="a", value=b"main", expected_version=0)], b"leaf").result()
    database.write(with_record(database.read(), row))
    with pytest.raises(TamperedError, match=r"never committed: record .*, expected version 1"):
        store.get("a")


def test_a_leaf_from_a_fork_is_refused_at_the_start(database: Database) -> None:
    """Genuine bytes, made for this very position, but in another history."""
    begin(database).close()
    fork = database.copy()
    for place, leaf in ((database, b"attested"), (fork, b"refused")):
        with resume(place) as store:
            store.commit([], leaf).result()
    database.write(replace(database.read(), leaves=fork.read().leaves))
    with pytest.raises(TamperedError, match="changed: the audit log has another root than the head"):
        resume(database)


def test_a_database_put_back_as_a_whole_is_not_detected_without_an_anchor(database: Database) -> None:
    """The one attack that nothing inside the database can tell; its head differs, and an anchor sees that."""
    past = make_history(database)
    database.write(past[3])
    with resume(database) as store:
        assert store.head.seq == 3


@pytest.fixture(params=["digest and log", "number only"])
def anchor(request: pytest.FixtureRequest) -> AnchorInMemory:
    return AnchorInMemory(number_only=request.param == "number only")


def test_a_database_put_back_as_a_whole_to_any_time_is_refused_at_the_start(
    database: Database, anchor: AnchorInMemory
) -> None:
    past = make_history(database, anchor=anchor)
    for rows in past[:-1]:
        database.write(rows)
        with pytest.raises(RollbackError, match=r"older version: head \d, expected 7 or a later one"):
            resume(database, anchor=anchor)
    database.write(past[-1])
    resume(database, anchor=anchor).close()


def test_a_database_put_back_as_a_whole_to_any_time_is_refused_by_an_open_process(
    database: Database, anchor: AnchorInMemory, opened: Opened
) -> None:
    past = make_history(database, anchor=anchor)
    store = opened(resume(database, anchor=anchor))
    newest = database.read()
    for rows in past:
        database.write(rows)
        for name in TRUTH:
            assert "older version: the database is at head" in str(failure(store, name))
        with pytest.raises(RollbackError, match=r"older version: the database is at head \d, expected 8"):
            store.commit([], b"leaf").result()
    database.write(newest)
    assert [failure(store, name) for name in TRUTH] == [None] * len(TRUTH)


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_of_two_processes_on_two_copies_only_one_is_acknowledged(
    database: Database, opened: Opened, ahead: int
) -> None:
    """The other is told of the fork, whichever of them is ahead, and neither database can be opened in its place."""
    anchor = AnchorInMemory()
    store = opened(begin(database, anchor=anchor))
    for number in range(3):
        commit(store, number)
    copy = database.copy()
    elsewhere = opened(resume(copy, anchor=anchor))
    for number in range(ahead):
        elsewhere.commit([], b"there %d" % number).result()
    for _ in range(ahead + 3):
        with pytest.raises(RollbackError, match=r"(older version|forked): "):
            store.commit([], b"here").result()
    assert elsewhere.commit([], b"there").result().seq == anchor.seq
    with pytest.raises(RollbackError, match=r"(older version|forked): "):
        resume(database, anchor=anchor)
