"""What the store costs beside the database below it: durable commits, verified reads, a start with a million records.

    make bench    or    PYTHONPATH=. .venv/bin/python bench/store.py [--seconds 4] [--records 1000000] [--flush-ms 1]

  writer      commits/s of one writer, over those of one writer of plain SQLite (WAL, synchronous=FULL)   at least 0.8
  writers     commits/s of 16 writers, over the same                                                       at least 3
  postgresql  commits/s with 1 and with 16 writers, over `pgbench -N` (simple update) with as many clients
              on the same server                                                                           at least 0.6
  reads       verified reads/s, and looks at a version, of one thread                                at least 50,000/s
  start       seconds until a store is open whose records and leaves of the audit log were all verified,
              and the memory of that process                                             at most 60 s and 1024 MiB

A commit makes one record of 500 bytes and a leaf of 200; a commit of plain SQLite makes one row of the size that the
record has when sealed. What is compared alternates in short rounds, so that a change of the machine's speed meets both;
the ratio is the median of the rounds'. The databases lie in the directory for temporary files, whose disk is what is
measured: --directory names another.

Ratios of commits follow from how long a flush takes, which is printed first: where a virtual disk answers at once, all
that is left to compare is the processor's time. --flush-ms adds so much to each flush of everything that is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.simulators.postgresql import PostgresqlServer, binaries, postgresql_server

from ostiary.audit import Frontier
from ostiary.store import Head, Store, Write, open_store
from ostiary.store.padding import bucket
from ostiary.store.postgresql import PostgresqlBackend

ROUND_SECONDS = 1.0
WRITERS = 16
NAMES = 1000
VALUE_BYTES = 500
LEAF = bytes(200)
SEALED_BYTES = 1 + 12 + bucket(4 + VALUE_BYTES) + 16
IN_FLIGHT = 512
PGBENCH_SCALE = 10
KEY = bytes(range(32))
MIB = 1024 * 1024
FLUSHES = 200
SHIM_VARIABLE = "FLUSH_MICROSECONDS"


def opened(directory: Path) -> Store:
    return open_store(directory, random=os.urandom, log=Frontier(), warn=lambda _: None)


def commit_in_turn(store: Store, until: float) -> int:
    """Make one record after the other, each when the one before is durable. Returns how many."""
    mine = os.urandom(8).hex()
    count = 0
    while time.perf_counter() < until:
        write = Write(name=f"{mine}/{count}", value=os.urandom(VALUE_BYTES), expected_version=0)
        store.commit([write], LEAF).result()
        count += 1
    return count


def store_round(store: Store, writers: int) -> float:
    """Commits a second of so many writers."""
    started = time.perf_counter()
    until = started + ROUND_SECONDS
    with ThreadPoolExecutor(writers) as pool:
        count = sum(pool.map(lambda _: commit_in_turn(store, until), range(writers)))
    return count / (time.perf_counter() - started)


def plain_round(connection: sqlite3.Connection) -> float:
    """Commits a second of plain SQLite."""
    started = time.perf_counter()
    count = 0
    while time.perf_counter() < started + ROUND_SECONDS:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows(id, value) VALUES (?, ?)", (os.urandom(32), os.urandom(SEALED_BYTES)))
        connection.execute("COMMIT")
        count += 1
    return count / (time.perf_counter() - started)


@contextlib.contextmanager
def plain_sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows(id BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT")
        yield connection


def again_with_slow_flushes(directory: Path, milliseconds: float) -> None:
    """This program once more, and all that it starts, with `slow_flush.c` preloaded."""
    shim = directory / "slow_flush.so"
    source = Path(__file__).with_name("slow_flush.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    # PostgreSQL runs as another user.
    directory.chmod(0o755)
    added = {"LD_PRELOAD": str(shim), SHIM_VARIABLE: str(round(milliseconds * 1000))}
    subprocess.run([sys.executable, *sys.argv], check=True, env={**os.environ, **added})


def flush_seconds(path: Path) -> float:
    """The median time until 4 KiB at the end of a file are durable."""
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def tell(name: str, rates: list[float], base: list[float], aim: float) -> None:
    """One line: rates, and the median of the rounds' ratios."""
    ratios = [rate / other for rate, other in zip(rates, base, strict=True)]
    print(
        f"{name:<24} {statistics.median(rates):8.0f} /s over {statistics.median(base):7.0f} /s: "
        f"ratio {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim at least {aim}",
        flush=True,
    )


def sqlite_commits(directory: Path, rounds: int) -> None:
    """One writer and sixteen, over plain SQLite."""
    plain: list[float] = []
    one: list[float] = []
    many: list[float] = []
    with opened(directory / "data") as store, plain_sqlite(directory / "plain.sqlite") as connection:
        for measured in (False, *[True] * rounds):
            rates = plain_round(connection), store_round(store, 1), store_round(store, WRITERS)
            if measured:
                for kept, rate in zip((plain, one, many), rates, strict=True):
                    kept.append(rate)
        tell("writer / SQLite", one, plain, 0.8)
        tell(f"{WRITERS} writers / SQLite", many, plain, 3)


def pgbench(server: PostgresqlServer, *arguments: str) -> str:
    """Run PostgreSQL's own benchmark; what it prints."""
    done = subprocess.run(
        [binaries() / "pgbench", "-h", "127.0.0.1", "-p", str(server.port), "-U", "cas", *arguments, "postgres"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PGPASSWORD": server.password},
    )
    return done.stdout


def pgbench_round(server: PostgresqlServer, clients: int) -> float:
    """Transactions a second of the simple update."""
    seconds = str(max(1, round(ROUND_SECONDS)))
    said = pgbench(server, "-N", "-n", "-c", str(clients), "-j", "2" if clients > 1 else "1", "-T", seconds)
    found = re.search(r"tps = ([0-9.]+) \(without", said)
    if found is None:
        raise ValueError(f"pgbench said something else: {said}")
    return float(found[1])


def postgresql_commits(rounds: int) -> None:
    """One writer and sixteen, over pgbench with as many clients."""
    with postgresql_server() as server:
        pgbench(server, "-i", "-q", "-s", str(PGBENCH_SCALE))
        backend = PostgresqlBackend(server.conninfo)
        with Store.begin(backend, KEY, random=os.urandom, log=Frontier()) as store:
            for clients in (1, WRITERS):
                base: list[float] = []
                rates: list[float] = []
                for measured in (False, *[True] * rounds):
                    pair = pgbench_round(server, clients), store_round(store, clients)
                    if measured:
                        base.append(pair[0])
                        rates.append(pair[1])
                tell(f"{clients} writers / pgbench -c {clients}", rates, base, 0.6)


def reads(directory: Path, rounds: int) -> None:
    """How often a second one thread reads a record, or looks at its version."""
    with opened(directory / "data") as store:
        names = [f"session {number}" for number in range(NAMES)]
        for name in names:
            store.commit([Write(name=name, value=os.urandom(VALUE_BYTES), expected_version=0)], LEAF).result()
        looks: list[tuple[str, Callable[[str], object]]] = [("reads", store.get), ("looks", store.version)]
        for what, look in looks:
            rates = []
            for _ in range(rounds + 1):
                started = time.perf_counter()
                count = 0
                while time.perf_counter() < started + ROUND_SECONDS / 2:
                    for name in names:
                        look(name)
                    count += len(names)
                rates.append(count / (time.perf_counter() - started))
            print(f"verified {what:<15} {statistics.median(rates[1:]):8.0f} /s, aim at least 50000", flush=True)


def fill(directory: Path, records: int) -> None:
    """Make so many records, each by a commit of its own."""
    with opened(directory) as store:
        waiting: deque[Future[Head]] = deque()
        for number in range(records):
            write = Write(name=f"session {number}", value=os.urandom(200), expected_version=0)
            waiting.append(store.commit([write], LEAF))
            if len(waiting) == IN_FLIGHT:
                waiting.popleft().result()
        for future in waiting:
            future.result()


def start(directory: Path) -> None:
    """In a process of its own: open the store, and print seconds and MiB."""
    started = time.perf_counter()
    with opened(directory):
        seconds = time.perf_counter() - started
        print(f"{seconds:.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB:.0f}")


def large_start(directory: Path, records: int) -> None:
    """Measure a start over so many records and as many leaves."""
    print(f"making {records} records …", file=sys.stderr, flush=True)
    fill(directory, records)
    command = [sys.executable, __file__, "--start", str(directory)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    print(f"start with {records} records and leaves: {said[0]} s, aim at most 60; {said[1]} MiB, aim at most 1024")


def main() -> None:
    """Measure all, or what --only names."""
    parts = ("sqlite", "postgresql", "reads", "start")
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each rate, in rounds of one second")
    arguments.add_argument("--records", type=int, default=1_000_000, help="of the start")
    arguments.add_argument("--directory", type=Path, help="where the databases of SQLite are made")
    arguments.add_argument("--flush-ms", type=float, help="make each flush take so much longer (needs gcc)")
    arguments.add_argument("--only", choices=parts, action="append", help="repeatable")
    arguments.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.start is not None:
        start(options.start)
        return
    chosen = options.only or parts
    rounds = max(1, int(options.seconds / ROUND_SECONDS))
    with tempfile.TemporaryDirectory(prefix="ostiary-bench-", dir=options.directory) as name:
        directory = Path(name)
        if options.flush_ms is not None and SHIM_VARIABLE not in os.environ:
            again_with_slow_flushes(directory, options.flush_ms)
            return
        print(f"a flush of 4 KiB takes {flush_seconds(directory / 'flushed') * 1000:.2f} ms", flush=True)
        if "sqlite" in chosen:
            sqlite_commits(directory, rounds)
        if "reads" in chosen:
            reads(directory, rounds)
        if "postgresql" in chosen:
            postgresql_commits(rounds)
        if "start" in chosen:
            large_start(directory / "large", options.records)


if __name__ == "__main__":
    main()
