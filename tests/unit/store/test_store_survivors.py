"""A process that is killed in the middle of its writes does not hold up, or spoil, the others on the same database."""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import time

from tests.unit.store.databases import Database, begin, resume

from ostiary.store import Store, Write

MAX_DELAY_SECONDS = 0.04
START_SECONDS = 60.0
NUMBER = struct.Struct(">Q")
ROUNDS = 10
WRITERS = 2


def test_a_process_goes_on_when_another_is_killed_in_the_middle_of_its_writes(database: Database) -> None:
    """One writer is killed, the other a moment later; both have all they were told, and at most one commit more."""
    chance = random.Random(2)
    begin(database).close()
    known = [0] * WRITERS
    for _ in range(ROUNDS):
        writers = [start_writer(database, name, known[name]) for name in range(WRITERS)]
        reports = []
        for child, reader in writers:
            assert select.select([reader], [], [], START_SECONDS)[0]
            time.sleep(chance.uniform(0, MAX_DELAY_SECONDS))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
            with os.fdopen(reader, "rb") as pipe:
                reports.append([number for (number,) in NUMBER.iter_unpack(pipe.read())])
        database.settle()
        with resume(database) as store:
            for name, acknowledged in enumerate(reports):
                found = value_of(store, name)
                assert found is not None
                assert acknowledged[-1] <= found <= acknowledged[-1] + 1
                assert acknowledged == list(range(known[name] + 1, acknowledged[-1] + 1))
                known[name] = found
            assert store.head.log_size == sum(known)


def start_writer(database: Database, name: int, count: int) -> tuple[int, int]:
    """A process that raises its own record by one for ever, and the pipe on which it says what was acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store = resume(database)
            while True:
                record = store.get(str(name))
                version = 0 if record is None else record.version
                count += 1
                write = Write(name=str(name), value=str(count).encode(), expected_version=version)
                store.commit([write], b"leaf").result()
                os.write(writer, NUMBER.pack(count))
        finally:
            os._exit(1)
    os.close(writer)
    return child, reader


def value_of(store: Store, name: int) -> int | None:
    record = store.get(str(name))
    return None if record is None else int(record.value)
