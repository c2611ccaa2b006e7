"""What proposals cost a service: a list of ten thousand, and a decision beside a durable commit.

    make bench    or    PYTHONPATH=. .venv/bin/python bench/governance_service.py [--proposals 10000] [--flush-ms 1]

  list        milliseconds to list all open proposals for a member of every board, ready to be sent: the first of a
              process, when a proposal has changed, and when none has                                   at most 50 ms
  decision    milliseconds of a decision that is counted, over those of a durable commit of one record      at most 1.5

The list is made inside the service, without TLS and HTTP. Decisions and commits alternate one by one, so that a change
of the machine's speed meets both; the ratio is that of the medians. --flush-ms adds so much to each flush of the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.store import SHIM_VARIABLE, VALUE_BYTES, again_with_slow_flushes, flush_seconds
from tests.simulators.board import ANN, BEN, Board, boarded, decision, member_hash
from tests.simulators.signers import Person, ed25519_person

from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.board.count import Choice
from ostiary.broker.cas import Cas
from ostiary.broker.decide import Cast, decide
from ostiary.broker.open import make_cas
from ostiary.broker.propose import propose
from ostiary.broker.read_proposal import Query, list_proposals, read_proposal
from ostiary.cli.serve import GC_THRESHOLD
from ostiary.store import Write, open_store

OF_SESSION = 16
DECISIONS = 400
ROUNDS = 21
"""Lists of each sort."""


def caller(key_hash: str) -> Caller:
    """Somebody at the other end of TLS."""
    return Caller(certificate="", key_hash=bytes.fromhex(key_hash), key_bits_hash=bytes(32))


async def proposed(cas: Cas, text: str) -> str:
    made = await propose(cas, text.encode(), note="a new image", break_glass=False, caller=caller(member_hash(ANN)))
    return made.proposal.id


async def decided(cas: Cas, body: dict[str, str], proposal: str, signer: bytes) -> str:
    cast = Cast(
        signer=signer,
        choice=Choice(body["decision"]),
        reason=body["reason"],
        signature=base64.b64decode(body["signature"]),
    )
    return (await decide(cas, proposal, cast)).state.value


async def shown(cas: Cas, proposal: str) -> dict[str, Any]:
    return await read_proposal(cas, proposal, caller=caller(member_hash(ANN)))


async def listed_milliseconds(cas: Cas, expected: int) -> float:
    started = time.perf_counter()
    listed = await list_proposals(
        cas, Query(waiting_for="me"), caller=caller(member_hash(BEN)), after=None, wait_seconds=0
    )
    body = b'{"proposals":[%s],"cursor":"%s"}' % (b",".join(listed.shown), listed.cursor.encode())
    taken = (time.perf_counter() - started) * 1000
    assert len(listed.shown) == expected, (len(listed.shown), expected)
    assert len(body) > 100 * expected
    return taken


async def lists(cas: Cas, directory: Path, proposals: int) -> None:
    """Sessions with as many proposals as may wait of one, until there are so many."""
    for number in range(proposals // OF_SESSION):
        first = await proposed(cas, boarded(f"s{number}"))
        for person in (ANN, BEN):
            await decided(cas, decision(person, await shown(cas, first)), first, person.spki)
        predecessor = (await shown(cas, first))["hash"]
        await asyncio.gather(
            *(
                proposed(cas, boarded(f"s{number}", predecessor=predecessor, salt=f"{at:032x}"))
                for at in range(OF_SESSION)
            )
        )
        if sys.stderr.isatty():
            print(f"\r{(number + 1) * OF_SESSION} proposals", end="", file=sys.stderr, flush=True)
    count = proposals // OF_SESSION * OF_SESSION
    unchanged = [await listed_milliseconds(cas, count) for _ in range(ROUNDS)]
    changed = []
    for entry in cas.proposals.waiting_for(bytes.fromhex(member_hash(ANN)))[:ROUNDS]:
        about = await shown(cas, entry.proposal)
        await decided(cas, decision(ANN, about), entry.proposal, ANN.spki)
        changed.append(await listed_milliseconds(cas, count))
    with opened(directory) as again:
        cold = await listed_milliseconds(service(again), count)
    print(
        f"list of {count} proposals: {statistics.median(unchanged):.1f} ms, after a change "
        f"{statistics.median(changed):.1f} ms (at most 50); the first of a process {cold:.0f} ms",
        flush=True,
    )


async def decisions(cas: Cas) -> None:
    """Approvals of boards of five, none of which decides, beside commits of one record."""
    people = {f"m{number}": ed25519_person() for number in range(5)}
    board = Board(members=people, faults=4)
    casts: list[tuple[dict[str, str], str, Person]] = []
    for number in range(DECISIONS // 4):
        proposal = await proposed(cas, boarded(f"decided{number}", board))
        about = await shown(cas, proposal)
        casts += [(decision(person, about), proposal, person) for person in list(people.values())[:4]]
    deciding, committing = [], []
    for number, (body, proposal, person) in enumerate(casts):
        started = time.perf_counter()
        assert await decided(cas, body, proposal, person.spki) == "open"
        between = time.perf_counter()
        write = Write(name=f"plain/{number}", value=os.urandom(VALUE_BYTES), expected_version=0)
        await asyncio.wrap_future(cas.store.commit([write], bytes(200)))
        committing.append(time.perf_counter() - between)
        deciding.append(between - started)
    one, other = statistics.median(deciding) * 1000, statistics.median(committing) * 1000
    print(f"decision {one:.2f} ms, durable commit {other:.2f} ms: {one / other:.2f} (at most 1.5)", flush=True)


def opened(directory: Path) -> Any:
    return open_store(directory / "data", random=os.urandom, log=Frontier(), warn=lambda _: None)


def service(store: Any) -> Cas:
    return make_cas(store, roots=(), now=lambda: datetime.now(UTC), random=os.urandom)


def main() -> None:
    """Measure both, or what --only names."""
    parts = ("list", "decision")
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--proposals", type=int, default=10_000)
    arguments.add_argument("--directory", type=Path, help="where the database is made")
    arguments.add_argument("--flush-ms", type=float, help="make each flush take so much longer (needs gcc)")
    arguments.add_argument("--only", choices=parts, action="append", help="repeatable")
    options = arguments.parse_args()
    chosen = options.only or parts
    with tempfile.TemporaryDirectory(prefix="ostiary-bench-", dir=options.directory) as name:
        directory = Path(name)
        if options.flush_ms is not None and SHIM_VARIABLE not in os.environ:
            again_with_slow_flushes(directory, options.flush_ms)
            return
        print(f"a flush of 4 KiB takes {flush_seconds(directory / 'flushed') * 1000:.2f} ms", flush=True)
        gc.set_threshold(GC_THRESHOLD)
        with opened(directory) as store:
            cas = service(store)
            if "decision" in chosen:
                asyncio.run(decisions(cas))
            if "list" in chosen:
                asyncio.run(lists(cas, directory, options.proposals))


if __name__ == "__main__":
    main()
