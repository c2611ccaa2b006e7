"""The anchor in a file: what it takes for the same history, and what it refuses."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.simulators.witnesses import Log

from ostiary.audit import Frontier
from ostiary.errors import RollbackError, StoreError, TamperedError
from ostiary.freshness import FileAnchor
from ostiary.store import Head, Store
from ostiary.store.sqlite import SqliteBackend

KEY = bytes(32)


def head(seq: int, log: Log, *, digest: bytes = b"d") -> Head:
    return Head(seq=seq, digest=digest * 32, log_size=len(log.leaves), log_root=log.tree().root)


def log(*leaves: str) -> Log:
    return Log(leaves=[leaf.encode() for leaf in leaves])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "anchor.json"


def settled(path: Path, seq: int, known: Log, *, digest: bytes = b"d") -> FileAnchor:
    anchor = FileAnchor(path)
    anchor.settle(head(seq, known, digest=digest), known.read)
    return anchor


def test_it_moves_with_the_history_and_over_restarts(path: Path) -> None:
    known = log()
    for seq in range(9):
        for anchor in (settled(path, seq, known), FileAnchor(path)):
            anchor.settle(head(seq, known), known.read)
            anchor.close()
        known.leaves.append(b"%d" % seq)
    assert json.loads(path.read_text())["seq"] == 8


def test_an_epoch_without_leaf_is_a_later_state(path: Path) -> None:
    anchor = settled(path, 3, log("a"))
    anchor.settle(head(4, log("a"), digest=b"e"), log("a").read)
    assert json.loads(path.read_text())["seq"] == 4


@pytest.mark.parametrize(
    ("seq", "found", "digest"),
    [
        (4, log("a", "b"), b"d"),
        (5, log("a", "b", "c"), b"e"),
        (5, log("a", "b", "x"), b"d"),
        (6, log("a", "b"), b"d"),
        (6, log("a", "b", "x"), b"d"),
        (7, log("x", "b", "c", "d"), b"d"),
    ],
)
def test_an_older_state_or_another_history_is_refused(path: Path, seq: int, found: Log, digest: bytes) -> None:
    settled(path, 5, log("a", "b", "c"))
    before = path.read_bytes()
    with pytest.raises(RollbackError, match=r"expected head 5, digest (64){32}, 3 leaves .*found head") as refused:
        FileAnchor(path).settle(head(seq, found, digest=digest), found.read)
    assert "ostiary store accept-rollback" in str(refused.value)
    assert path.read_bytes() == before


def test_leaves_that_are_not_the_heads_are_told(path: Path) -> None:
    anchor = settled(path, 5, log("a"))
    with pytest.raises(TamperedError, match="has 2 leaves and not the root of head 6, expected 2"):
        anchor.settle(head(6, log("a", "b")), log("a", "x").read)


def test_what_was_read_once_is_not_read_again(path: Path) -> None:
    known = log(*"abcdefgh")
    anchor = settled(path, 1, known)
    starts: list[int] = []

    def counting(start: int) -> Iterator[bytes]:
        starts.append(start)
        return known.read(start)

    for seq in (2, 3):
        known.leaves.append(b"more")
        anchor.settle(head(seq, known), counting)
    assert starts == [0, 8, 9, 9]


@pytest.mark.parametrize("content", ["", "{}", "[]", "7", '{"seq": "x"}', '{"seq":1,"digest":"zz"}', "x" * 5000])
def test_a_damaged_file_is_no_empty_one(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(StoreError, match="expected one JSON object with seq, digest, log_size and log_root"):
        FileAnchor(path).settle(head(1, log()), log().read)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory: expected a file and directory that this process"):
        settled(tmp_path / "none" / "anchor.json", 1, log())
    (tmp_path / "anchor.json").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        settled(tmp_path / "anchor.json", 1, log())
    with pytest.raises(StoreError, match=r"Is a directory|Operation not permitted"):
        FileAnchor(tmp_path / "anchor.json").forget()
    (tmp_path / "b.json.draft").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        settled(tmp_path / "b.json", 1, log())


def test_it_says_loudly_what_it_does_not_protect(path: Path) -> None:
    anchor = FileAnchor(path)
    assert anchor.place == str(path)
    assert "can turn back every session unnoticed, so use it for development only" in anchor.warning
    assert anchor.remembered() == ()


def test_a_forgotten_history_is_forgotten(path: Path) -> None:
    anchor = settled(path, 5, log("a", "b"))
    assert anchor.remembered()[0].startswith("head 5, digest 6464")
    anchor.forget()
    anchor.settle(head(1, log("x")), log("x").read)
    assert anchor.remembered()[0].startswith("head 1,")


@pytest.fixture
def opened(tmp_path: Path, path: Path) -> Callable[[str], Store]:
    def opened(name: str) -> Store:
        backend = SqliteBackend(tmp_path / name)
        begin = Store.begin if backend.head() is None else Store.resume
        try:
            return begin(backend, KEY, random=os.urandom, log=Frontier(), anchor=FileAnchor(path))
        except BaseException:
            backend.close()
            raise

    return opened


def test_a_store_that_was_put_back_is_refused(tmp_path: Path, opened: Callable[[str], Store]) -> None:
    with opened("db") as store:
        store.commit([], b"one").result()
    old = (tmp_path / "db").read_bytes()
    with opened("db") as store:
        store.commit([], b"two").result()
    with opened("db") as store:
        assert store.head.log_size == 2
    for side in ("db-wal", "db-shm"):
        (tmp_path / side).unlink(missing_ok=True)
    (tmp_path / "db").write_bytes(old)
    with pytest.raises(RollbackError, match="was turned back, or goes on a history of its own"):
        opened("db")


def test_of_a_store_and_its_copy_one_goes_on(tmp_path: Path, opened: Callable[[str], Store]) -> None:
    """A fork is noticed by the one that comes second, at its next commit, before anything is acknowledged."""
    with opened("db") as store:
        store.commit([], b"one").result()
    with opened("db") as first:
        with closing(sqlite3.connect(tmp_path / "db")) as database, closing(sqlite3.connect(tmp_path / "copy")) as copy:
            database.backup(copy)
        with opened("copy") as second:
            second.commit([], b"of the copy").result()
        with pytest.raises(RollbackError):
            first.commit([], b"of the first").result()
