from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from ostiary.errors import ConflictError
from ostiary.store import Head, Store, Write

THREADS = 8
INCREMENTS = 25
NAMES = [f"counter {number}" for number in range(5)]


def increment(store: Store, name: str) -> Head:
    """Read, add one, write if nobody was faster, else again."""
    while True:
        record = store.get(name)
        count, version = (0, 0) if record is None else (json.loads(record.value), record.version)
        write = Write(name=name, value=json.dumps(count + 1).encode(), expected_version=version)
        try:
            return store.commit([write], name.encode()).result()
        except ConflictError:
            continue


@pytest.fixture
def busy_switching() -> object:
    """Let threads take turns far more often than usual, so that they meet in every place."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield None
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("busy_switching")
def test_no_update_is_lost_and_the_history_is_linear(open_data: Callable[[], Store]) -> None:
    store = open_data()
    heads: list[Head] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for turn in range(INCREMENTS):
                for name in NAMES:
                    before = store.head
                    head = increment(store, name)
                    assert head.seq > before.seq, turn
                    heads.append(head)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    total = THREADS * INCREMENTS * len(NAMES)
    for name in NAMES:
        record = store.get(name)
        assert record is not None
        assert json.loads(record.value) == THREADS * INCREMENTS
    assert store.head.log_size == len(heads) == total
    # One digest a seq, and both counters rise together: no two transactions grew from the same head.
    history = sorted(set(heads), key=lambda head: head.seq)
    assert [head.seq for head in history] == list(range(1, len(history) + 1))
    assert all(earlier.log_size < later.log_size for earlier, later in pairwise(history))
    store.close()
    assert open_data().head == history[-1]
