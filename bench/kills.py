"""Kill writers of the store again and again, more often than the tests do, and look at everything after each.

    PYTHONPATH=. .venv/bin/python bench/kills.py [--kills 1000] [--seed 1] [--engine sqlite|postgresql]

Each writer is a process that commits as fast as the store takes it and is killed (SIGKILL) within 40 ms, one in five
while it starts. Then every row is verified, and held against what the writer had reported before it died. Ends with an
AssertionError at the first acknowledged commit that is gone, or the first half one. About half a second a kill.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.simulators.postgresql import postgresql_server
from tests.unit.store.postgresql_database import PostgresqlDatabase
from tests.unit.store.test_store_crash import Outcome, run_kills


def run(engine: str, kills: int, seed: int) -> Outcome:
    if engine == "postgresql":
        with postgresql_server() as server:
            return run_kills(PostgresqlDatabase(server.conninfo), kills=kills, seed=seed)
    with tempfile.TemporaryDirectory(prefix="ostiary-kills-") as directory:
        return run_kills(Path(directory) / "data", kills=kills, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill writers of the store, and look what is lost.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    started = time.monotonic()
    outcome = run(options.engine, options.kills, options.seed)
    print(
        f"{outcome.kills} kills on {options.engine}, seed {options.seed}: {outcome.acknowledged} acknowledged commits, "
        f"0 lost; {outcome.unacknowledged} unacknowledged ones found whole, 0 torn; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
