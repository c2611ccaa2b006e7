"""What every backend promises, in the words of `Backend`, shown on each of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from tests.unit.store.databases import Database, SqliteDatabase
from tests.unit.store.postgresql_database import PostgresqlDatabase

from ostiary.errors import ConflictError, StoreError, TamperedError
from ostiary.store import Backend
from ostiary.store.backend import Batch, Deletion, HeadRow, LeafRow, RecordRow

HEADS = tuple(HeadRow(seq, bytes([seq]) * 300) for seq in range(10))
LARGE_BYTES = 24 * 1024 * 1024
PROCESS_SECONDS = 60


@pytest.fixture
def connected(database: Database) -> Iterator[Callable[[], Backend]]:
    """Opens the database, each time anew; what it opened is closed after the test."""
    with ExitStack() as stack:

        def open_one() -> Backend:
            backend = database.backend()
            stack.callback(backend.close)
            return backend

        yield open_one


def record(number: int, version: int, sealed: bytes = b"\x01sealed") -> RecordRow:
    return RecordRow(bytes([number]) * 32, version, sealed)


def fill(backend: Backend) -> None:
    """Four transactions: three records made, one replaced, one deleted; head 3 is the current one."""
    steps = [
        Batch(expected=None, head=HEADS[0]),
        Batch(
            expected=HEADS[0],
            head=HEADS[1],
            records=(record(1, 1), record(2, 2)),
            leaves=(LeafRow(0, b"zero"), LeafRow(1, b"one")),
        ),
        Batch(expected=HEADS[1], head=HEADS[2], records=(record(1, 3, b"new"),), leaves=(LeafRow(2, b"two"),)),
        Batch(
            expected=HEADS[2],
            head=HEADS[3],
            records=(record(3, 5),),
            deleted=(Deletion(bytes([2]) * 32, 4),),
            leaves=(LeafRow(3, b"three"), LeafRow(4, b"four")),
        ),
    ]
    for batch in steps:
        backend.commit(batch)


def everything(backend: Backend) -> tuple[object, ...]:
    """All that a snapshot tells, in a fixed order."""
    with backend.snapshot() as view:
        return (
            view.head(),
            sorted(view.records(), key=lambda row: row.id),
            sorted(view.deletions(0), key=lambda row: (row.version, row.id)),
            list(view.leaves()),
        )


FILLED = (
    HEADS[3],
    [record(1, 3, b"new"), record(3, 5)],
    [Deletion(bytes([2]) * 32, 4)],
    [LeafRow(0, b"zero"), LeafRow(1, b"one"), LeafRow(2, b"two"), LeafRow(3, b"three"), LeafRow(4, b"four")],
)


def test_an_empty_database_has_nothing(connected: Callable[[], Backend]) -> None:
    backend = connected()
    assert backend.head() is None
    assert backend.record(bytes(32)) is None
    assert everything(backend) == (None, [], [], [])


def test_what_was_committed_is_there_for_everybody_and_after_a_restart(connected: Callable[[], Backend]) -> None:
    backend, other = connected(), connected()
    fill(backend)
    for reader in (backend, other, connected()):
        assert everything(reader) == FILLED
        assert reader.head() == HEADS[3]
        assert reader.record(bytes([1]) * 32) == record(1, 3, b"new")
        assert reader.record(bytes([2]) * 32) is None


def test_bytes_come_back_exactly(connected: Callable[[], Backend]) -> None:
    """Every value of a byte, in ids, heads, records and leaves; the empty string; text that looks like an escape."""
    backend = connected()
    ids = [bytes((start + offset) % 256 for offset in range(32)) for start in range(0, 256, 32)]
    sealed = [bytes(range(256)), b"", b"\\x00", b"\x00", b"'\"\\", bytes(255), b"\xff" * 17, b"%s %b"]
    records = tuple(RecordRow(*row) for row in zip(ids, range(1, 9), sealed, strict=True))
    leaves = tuple(LeafRow(position, value) for position, value in enumerate(sealed))
    backend.commit(Batch(expected=None, head=HeadRow(0, bytes(range(256)))))
    backend.commit(
        Batch(expected=HeadRow(0, bytes(range(256))), head=HeadRow(1, b"\x00"), records=records, leaves=leaves)
    )
    assert [backend.record(row.id) for row in records] == list(records)
    assert everything(backend) == (HeadRow(1, b"\x00"), sorted(records, key=lambda row: row.id), [], list(leaves))


def test_numbers_go_up_to_the_largest(connected: Callable[[], Backend]) -> None:
    backend = connected()
    last = 2**63 - 1
    backend.commit(
        Batch(
            expected=None,
            head=HeadRow(last, b"head"),
            records=(record(1, last),),
            deleted=(Deletion(bytes(32), last),),
            leaves=(LeafRow(last, b""),),
        )
    )
    head, records, deletions, leaves = everything(backend)
    assert (head, records) == (HeadRow(last, b"head"), [record(1, last)])
    assert (deletions, leaves) == ([Deletion(bytes(32), last)], [LeafRow(last, b"")])


def test_rows_of_many_sizes_come_back(connected: Callable[[], Backend]) -> None:
    """Small ones first, by the thousand, so that whoever fetches many at once meets the large ones after."""
    backend = connected()
    small = tuple(LeafRow(position, bytes(300)) for position in range(3000))
    large = tuple(LeafRow(position, os.urandom(LARGE_BYTES // 4)) for position in range(3000, 3004))
    row = RecordRow(bytes(32), 1, os.urandom(LARGE_BYTES))
    backend.commit(Batch(expected=None, head=HEADS[0], records=(row,), leaves=small))
    backend.commit(Batch(expected=HEADS[0], head=HEADS[1], leaves=large))
    assert backend.record(row.id) == row
    with backend.snapshot() as view:
        assert list(view.leaves()) == [*small, *large]
        assert list(view.records()) == [row]


def test_what_is_newer_than_a_version_is_told(connected: Callable[[], Backend]) -> None:
    """Records and deletions above it, leaves from it on."""
    backend = connected()
    fill(backend)
    with backend.snapshot() as view:
        assert [[row.version for row in view.records(since)] for since in range(2, 6)] == [[3, 5], [5], [5], []]
        assert [[row.version for row in view.deletions(since)] for since in range(3, 5)] == [[4], []]
        assert [[row.position for row in view.leaves(since)] for since in (0, 3, 5)] == [[0, 1, 2, 3, 4], [3, 4], []]


def test_hints_of_deletions_are_forgotten_up_to_a_version(connected: Callable[[], Backend]) -> None:
    backend = connected()
    fill(backend)
    gone = tuple(Deletion(bytes([number]) * 32, version) for number, version in ((1, 6), (3, 7)))
    backend.commit(Batch(expected=HEADS[3], head=HEADS[4], deleted=gone, forgotten=4))
    with backend.snapshot() as view:
        assert sorted(view.deletions(0), key=lambda row: row.version) == list(gone)
    backend.commit(Batch(expected=HEADS[4], head=HEADS[5], forgotten=6))
    with backend.snapshot() as view:
        assert list(view.deletions(0)) == [gone[1]]


@pytest.mark.parametrize(
    "expected", [None, HEADS[2], HEADS[4], HeadRow(3, HEADS[2].sealed), HeadRow(2, HEADS[3].sealed)]
)
def test_a_batch_on_another_head_conflicts_and_changes_nothing(
    connected: Callable[[], Backend], expected: HeadRow | None
) -> None:
    """The head is compared in its number and in every byte; afterwards the backend goes on."""
    backend = connected()
    fill(backend)
    batch = Batch(
        expected=expected,
        head=HEADS[5],
        records=(record(9, 6),),
        deleted=(Deletion(bytes([1]) * 32, 6),),
        leaves=(LeafRow(5, b""),),
        forgotten=4,
    )
    with pytest.raises(ConflictError, match="another head"):
        backend.commit(batch)
    assert everything(backend) == FILLED
    backend.commit(Batch(expected=HEADS[3], head=HEADS[4]))
    assert backend.head() == HEADS[4]


def test_a_first_head_is_refused_where_no_head_is_expected(connected: Callable[[], Backend]) -> None:
    backend = connected()
    with pytest.raises(ConflictError, match="expected head 0"):
        backend.commit(Batch(expected=HEADS[0], head=HEADS[1]))
    assert everything(backend) == (None, [], [], [])


def test_of_many_that_begin_a_history_one_wins(connected: Callable[[], Backend]) -> None:
    backends = [connected() for _ in range(8)]
    barrier = threading.Barrier(len(backends))

    def begin(number: int) -> bool:
        barrier.wait()
        try:
            backends[number].commit(Batch(expected=None, head=HeadRow(number % 2, bytes([number]))))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(len(backends)) as pool:
        won = list(pool.map(begin, range(len(backends))))
    assert won.count(True) == 1
    head = backends[0].head()
    assert head is not None
    assert head.sealed == bytes([won.index(True)])


def test_of_writers_on_one_head_one_wins_each_time(connected: Callable[[], Backend]) -> None:
    """Each moves the head as often as it can, by what it read; every move is on top of another, and leaves its row."""
    writers, turns = 6, 15
    backends = [connected() for _ in range(writers)]
    backends[0].commit(Batch(expected=None, head=HeadRow(0, b"start")))

    def work(number: int) -> None:
        done = 0
        while done < turns:
            head = backends[number].head()
            assert head is not None
            row = RecordRow(bytes([number]) * 32, head.seq + 1, head.sealed)
            moved = HeadRow(head.seq + 1, bytes([number]) + bytes([done]))
            try:
                backends[number].commit(
                    Batch(expected=head, head=moved, records=(row,), leaves=(LeafRow(head.seq, moved.sealed),))
                )
            except ConflictError:
                continue
            done += 1

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(work, range(writers)))
    head, _, _, leaves = everything(backends[0])
    assert isinstance(leaves, list)
    assert len(leaves) == writers * turns
    assert head == HeadRow(writers * turns, leaves[-1].sealed)
    assert len({leaf.sealed for leaf in leaves}) == writers * turns


def test_in_its_turn_a_writer_is_the_only_one(connected: Callable[[], Backend]) -> None:
    mine, other = connected(), connected()
    fill(mine)
    tried, done = threading.Event(), threading.Event()
    told: list[BaseException] = []

    def write() -> None:
        tried.set()
        try:
            other.commit(Batch(expected=HEADS[3], head=HeadRow(HEADS[3].seq + 1, b"other"), leaves=()))
        except ConflictError as error:
            told.append(error)
        done.set()

    thread = threading.Thread(target=write)
    with mine.turn():
        assert mine.head() == HEADS[3]
        thread.start()
        assert tried.wait(60)
        assert not done.wait(0.2)
        assert other.head() == HEADS[3]
        mine.commit(Batch(expected=HEADS[3], head=HEADS[4]))
    thread.join(60)
    assert len(told) == 1
    assert mine.head() == other.head() == HEADS[4]


@pytest.mark.parametrize("failing", [False, True])
def test_a_turn_that_changes_nothing_leaves_nothing_behind(connected: Callable[[], Backend], failing: bool) -> None:
    mine, other = connected(), connected()
    fill(mine)
    for _ in range(2):
        with mine.turn():
            if failing:
                with pytest.raises(ConflictError):
                    mine.commit(Batch(expected=HEADS[2], head=HEADS[4]))
    other.commit(Batch(expected=HEADS[3], head=HEADS[4]))
    mine.commit(Batch(expected=HEADS[4], head=HeadRow(HEADS[4].seq + 1, b"next")))
    assert mine.head() == other.head() == HeadRow(HEADS[4].seq + 1, b"next")


def test_a_turn_that_breaks_off_holds_up_nobody(connected: Callable[[], Backend]) -> None:
    """Neither another process nor another thread of this one, and the next turn comes."""
    mine, other = connected(), connected()
    fill(mine)
    with pytest.raises(ZeroDivisionError), mine.turn():
        raise ZeroDivisionError
    other.commit(Batch(expected=HEADS[3], head=HEADS[4]))
    heads = [HeadRow(HEADS[4].seq + number, b"later %d" % number) for number in (1, 2)]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(mine.commit, Batch(expected=HEADS[4], head=heads[0])).result(60)
    with mine.turn():
        mine.commit(Batch(expected=heads[0], head=heads[1]))
    assert other.head() == heads[1]


def commit_elsewhere(database: Database) -> None:
    """What another process does."""
    with closing(database.backend()) as backend:
        backend.commit(
            Batch(
                expected=HEADS[3],
                head=HEADS[4],
                records=(record(1, 6, b"other"), record(4, 6)),
                deleted=(Deletion(bytes([3]) * 32, 6),),
                leaves=(LeafRow(5, b"five"),),
            )
        )


def test_a_snapshot_stays_as_it_was_while_another_process_commits(
    connected: Callable[[], Backend], database: Database
) -> None:
    backend = connected()
    fill(backend)
    with backend.snapshot() as view:
        assert view.head() == HEADS[3]
        records = view.records()
        next(records)
        process = multiprocessing.get_context("spawn").Process(target=commit_elsewhere, args=(database,))
        process.start()
        process.join(PROCESS_SECONDS)
        assert process.exitcode == 0
        assert backend.head() == HEADS[4]
        assert len(list(records)) == 1
        assert view.head() == HEADS[3]
        assert sorted(view.records(), key=lambda row: row.id) == FILLED[1]
        assert list(view.deletions(0)) == FILLED[2]
        assert list(view.leaves()) == FILLED[3]
    assert backend.record(bytes([1]) * 32) == record(1, 6, b"other")
    head, records_after, deletions, leaves = everything(backend)
    assert head == HEADS[4]
    assert records_after == [record(1, 6, b"other"), record(4, 6)]
    assert isinstance(deletions, list)
    assert isinstance(leaves, list)
    assert (len(deletions), len(leaves)) == (2, 6)


def test_scans_of_one_snapshot_may_run_into_each_other(connected: Callable[[], Backend]) -> None:
    """And one may be left before its end."""
    backend = connected()
    leaves = tuple(LeafRow(position, b"leaf") for position in range(100))
    backend.commit(Batch(expected=None, head=HEADS[0], leaves=leaves))
    with backend.snapshot() as view:
        pairs = [(outer, inner) for outer in view.leaves(98) for inner in view.leaves(97)]
        assert len(pairs) == 6
        left = view.leaves()
        assert next(left) == leaves[0]
    assert backend.head() == HEADS[0]


def test_several_threads_read_while_one_writes(connected: Callable[[], Backend]) -> None:
    backend = connected()
    backend.commit(Batch(expected=None, head=HEADS[0]))
    stop = threading.Event()

    def read() -> int:
        count = 0
        while not stop.is_set():
            with backend.snapshot() as view:
                head = view.head()
                assert head is not None
                assert len(list(view.leaves())) == head.seq
            row = backend.record(bytes([1]) * 32)
            assert row is None or row.version <= 20
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for seq in range(1, 21):
                backend.commit(
                    Batch(
                        expected=HeadRow(seq - 1, bytes([seq - 1]) * 300),
                        head=HeadRow(seq, bytes([seq]) * 300),
                        records=(record(1, seq),),
                        leaves=(LeafRow(seq - 1, b"leaf"),),
                    )
                )
        finally:
            stop.set()
        assert all(reader.result() for reader in readers)


def test_a_missing_head_over_rows_is_told(connected: Callable[[], Backend], database: Database) -> None:
    backend = connected()
    fill(backend)
    database.write(replace(database.read(), heads=()))
    for look in (backend.head, lambda: everything(backend)):
        with pytest.raises(TamperedError, match="missing: there are rows without a head"):
            look()


def test_a_second_head_is_told(connected: Callable[[], Backend], database: Database) -> None:
    backend = connected()
    fill(backend)
    database.write(replace(database.read(), heads=(HEADS[3], HEADS[4])))
    for look in (backend.head, lambda: everything(backend)):
        with pytest.raises(TamperedError, match="added: there are several heads"):
            look()


def hints(backend: Backend, since: int) -> list[Deletion]:
    with backend.snapshot() as view:
        return list(view.deletions(since))


ID = bytes([1]) * 32
NEGATIVE: list[tuple[dict[str, object], Callable[[Backend], object]]] = [
    ({"heads": (HeadRow(-1, b"head"),)}, lambda backend: backend.head()),
    ({"records": (RecordRow(ID, -1, b"sealed"),)}, lambda backend: backend.record(ID)),
    ({"records": (RecordRow(ID, -1, b"sealed"),)}, everything),
    ({"deletions": (Deletion(ID, -1),)}, lambda backend: hints(backend, -9)),
]


@pytest.mark.parametrize(("change", "look"), NEGATIVE)
def test_a_number_below_zero_is_no_row_of_ours(
    connected: Callable[[], Backend],
    database: Database,
    change: dict[str, object],
    look: Callable[[Backend], object],
) -> None:
    backend = connected()
    fill(backend)
    database.write(replace(database.read(), **change))  # type: ignore[arg-type]
    with pytest.raises(TamperedError, match="changed: a row without the number that belongs there"):
        look(backend)


def test_a_leaf_that_stands_there_already_fails_the_commit_and_changes_nothing(
    connected: Callable[[], Backend],
) -> None:
    backend = connected()
    fill(backend)
    batch = Batch(expected=HEADS[3], head=HEADS[4], records=(record(1, 6),), leaves=(LeafRow(4, b"again"),))
    with pytest.raises(TamperedError, match="changed: the database"):
        backend.commit(batch)
    assert everything(backend) == FILLED
    backend.commit(Batch(expected=HEADS[3], head=HEADS[4]))


def test_compacting_changes_nothing_and_gives_room_back(connected: Callable[[], Backend], database: Database) -> None:
    backend = connected()
    fill(backend)
    few = database.read()
    many = tuple(LeafRow(position, os.urandom(2000)) for position in range(5, 3005))
    backend.commit(Batch(expected=HEADS[3], head=HEADS[4], leaves=many))
    database.write(few)
    before = size(database)
    backend.compact()
    assert size(database) < before // 2
    assert everything(backend) == FILLED
    backend.commit(Batch(expected=HEADS[3], head=HEADS[4]))


def size(database: Database) -> int:
    """Bytes on the disk."""
    if isinstance(database, SqliteDatabase):
        return database.path.stat().st_size
    assert isinstance(database, PostgresqlDatabase)
    return database.disk_bytes()


def test_a_second_close_does_nothing_and_afterwards_everything_is_an_error(connected: Callable[[], Backend]) -> None:
    backend = connected()
    fill(backend)
    backend.close()
    backend.close()
    uses: list[Callable[[], object]] = [
        backend.head,
        lambda: backend.record(bytes(32)),
        lambda: everything(backend),
        lambda: backend.commit(Batch(expected=HEADS[3], head=HEADS[4])),
        lambda: backend.turn().__enter__(),
        backend.compact,
    ]
    for use in uses:
        with pytest.raises(StoreError, match="closed"):
            use()
    assert everything(connected()) == FILLED
