"""A writer killed at any moment loses nothing that it acknowledged, and what it did not acknowledge is whole or absent.

SIGKILL proves that for crashes of the process, an immediate stop of PostgreSQL for those of the server. A loss of power
is up to the flush that the database asks for before it acknowledges and to the disk keeping its word; neither can be
shown by killing a process.
"""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.simulators.postgresql import PostgresqlServer
from tests.unit.store.databases import Database, begin, resume
from tests.unit.store.postgresql_database import PostgresqlDatabase

from ostiary.audit import Frontier
from ostiary.store import Head, Store, Write, open_store

KILLS = 40
CRASHES = 10
IN_FLIGHT = 8
PAIRS = 20
WINDOW = 400
MAX_DELAY_SECONDS = 0.04
START_SECONDS = 60.0
NUMBER = struct.Struct(">Q")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """kills: writers killed. acknowledged: commits they reported. unacknowledged: found whole without a report."""

    kills: int
    acknowledged: int
    unacknowledged: int


def test_forty_kills_lose_nothing(data: Path) -> None:
    outcome = run_kills(data, kills=KILLS, seed=1)
    assert outcome.kills == KILLS
    assert outcome.acknowledged > 10 * KILLS


def test_forty_kills_of_a_writer_to_postgresql_lose_nothing(postgresql: PostgresqlServer) -> None:
    place = PostgresqlDatabase(postgresql.conninfo)
    outcome = run_kills(place, kills=KILLS, seed=2)
    assert outcome.kills == KILLS
    assert outcome.acknowledged > 10 * KILLS
    postgresql.drop(place.schema)


def test_a_server_that_crashes_ten_times_loses_nothing(postgresql: PostgresqlServer) -> None:
    """PostgreSQL is stopped without ceremony under a writer, which gives up, and started again."""
    place = PostgresqlDatabase(postgresql.conninfo)
    outcome = run_kills(place, kills=CRASHES, seed=3, end=lambda child: postgresql.restart())
    assert outcome.acknowledged > CRASHES
    postgresql.drop(place.schema)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)


def run_kills(directory: Path | Database, *, kills: int, seed: int, end: Callable[[int], None] = kill) -> Outcome:
    """Kill a writer `kills` times at random moments, one in five while it starts, and look at everything after each.

    The moments follow `seed`, the operating system does the rest. Raises AssertionError for what was lost or torn.
    """
    chance = random.Random(seed)
    size = acknowledged = unacknowledged = 0
    for _ in range(kills):
        reports = kill_one(
            directory,
            first=size,
            while_starting=chance.random() < 0.2,
            delay=chance.uniform(0, MAX_DELAY_SECONDS),
            end=end,
        )
        before, size = size, verified_size(directory)
        assert reports == list(range(before, before + len(reports)))
        assert size >= before + len(reports), "an acknowledged commit is gone"
        assert size <= before + len(reports) + IN_FLIGHT
        acknowledged += len(reports)
        unacknowledged += size - before - len(reports)
    return Outcome(kills=kills, acknowledged=acknowledged, unacknowledged=unacknowledged)


def kill_one(
    directory: Path | Database, *, first: int, while_starting: bool, delay: float, end: Callable[[int], None]
) -> list[int]:
    """Start a writer, end it after `delay` seconds, and return the commits it reported."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(directory, writer, first)
        finally:
            os._exit(1)
    os.close(writer)
    if not while_starting:
        assert select.select([reader], [], [], START_SECONDS)[0]
    time.sleep(delay)
    end(child)
    _, status = os.waitpid(child, 0)
    assert end is not kill or os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
    with os.fdopen(reader, "rb") as pipe:
        return [number for (number,) in NUMBER.iter_unpack(pipe.read())]


def write_until_killed(directory: Path | Database, pipe: int, first: int) -> None:
    """Commit as fast as the store takes it, and report each commit's number on the pipe once it is durable.

    Commit n moves both records of pair n mod PAIRS to n, makes two records of its own, and deletes those of commit
    n - WINDOW. The records of commit n are at version n + 1, so the versions to expect are known without reading.
    """
    store = opened(directory)
    waiting: deque[tuple[int, Future[Head]]] = deque()
    number = first
    while True:
        writes = [Write(name=name, value=value, expected_version=expected) for name, value, expected in changes(number)]
        waiting.append((number, store.commit(writes, str(number).encode())))
        if len(waiting) == IN_FLIGHT:
            done, future = waiting.popleft()
            future.result()
            os.write(pipe, NUMBER.pack(done))
        number += 1


def changes(number: int) -> list[tuple[str, bytes | None, int]]:
    value = str(number).encode()
    sides = ("left", "right")
    moved = [(f"pair {number % PAIRS} {side}", value, max(0, number - PAIRS + 1)) for side in sides]
    made = [(f"{number} {side}", value, 0) for side in sides]
    gone = [(f"{number - WINDOW} {side}", None, number - WINDOW + 1) for side in sides if number >= WINDOW]
    return [*moved, *made, *gone]


def verified_size(directory: Path | Database) -> int:
    """The number of commits in the store, after checking that it holds exactly what those made."""
    with opened(directory) as store:
        size = store.head.log_size
        assert contents(store, range(max(0, size - WINDOW), size)) == {
            number: (number, number) for number in range(max(0, size - WINDOW), size)
        }
        assert (
            contents(store, (*range(max(0, size - 2 * WINDOW), size - WINDOW), *range(size, size + 2 * IN_FLIGHT)))
            == {}
        )
        for pair in range(min(PAIRS, size)):
            newest = (size - 1 - pair) // PAIRS * PAIRS + pair
            assert value_of(store, f"pair {pair} left") == value_of(store, f"pair {pair} right") == newest
        return size


def contents(store: Store, numbers: range | tuple[int, ...]) -> dict[int, tuple[int | None, int | None]]:
    found = {number: (value_of(store, f"{number} left"), value_of(store, f"{number} right")) for number in numbers}
    return {number: sides for number, sides in found.items() if sides != (None, None)}


def value_of(store: Store, name: str) -> int | None:
    record = store.get(name)
    return None if record is None else int(record.value)


def opened(directory: Path | Database) -> Store:
    if isinstance(directory, Path):
        return open_store(directory, random=os.urandom, log=Frontier(), warn=lambda _: None)
    directory.settle()
    with closing(directory.backend()) as backend:
        begun = backend.head() is not None
    return resume(directory) if begun else begin(directory)
