"""Whoever owns disk, power and other processes, against the TPM anchor: nothing anchored is ever lost unnoticed.

Thousands of short attacks, drawn from a fixed seed. The TPM is played by the few lines that say what TPM2_NV_Extend
does, the disk by memory; tests/unit/freshness has real ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ostiary.audit import Frontier
from ostiary.errors import RollbackError
from ostiary.freshness.tpm import NOTHING, TpmAnchor
from ostiary.store import Head

ATTACKS = 10_000
STEPS = 10


@dataclass(frozen=True)
class State:
    """A database as an anchor sees it. path: what every transaction on the way to it was, which no other state shares.

    commits: those of them that were no epochs; an epoch holds nothing that could be lost.
    """

    path: tuple[int, ...] = ()
    commits: tuple[int, ...] = ()
    leaves: tuple[bytes, ...] = ()

    def commit(self, number: int, leaf: bytes | None) -> State:
        if leaf is None:
            return State((*self.path, number), self.commits, self.leaves)
        return State((*self.path, number), (*self.commits, number), (*self.leaves, leaf))

    def grew_out_of(self, other: State) -> bool:
        return self.commits[: len(other.commits)] == other.commits

    @property
    def head(self) -> Head:
        log = Frontier()
        for leaf in self.leaves:
            log = log.append(leaf)
        digest = hashlib.sha256(repr(self.path).encode()).digest()
        return Head(seq=len(self.path), digest=digest, log_size=log.size, log_root=log.root)

    def since(self, start: int) -> Iterator[bytes]:
        return iter(self.leaves[start:])


class PowerCutError(Exception): ...


def nothing() -> None: ...


@dataclass
class Tpm:
    """One index. before_extend: what others do between our look and our step. dies: when the power goes, once."""

    held: bytes | None = None
    before_extend: Callable[[], None] = nothing
    dies: str = "never"

    def define(self) -> None:
        self.held = self.held or NOTHING

    def value(self) -> bytes | None:
        return self.held

    def extend(self, data: bytes) -> None:
        act, self.before_extend = self.before_extend, nothing
        act()
        dies, self.dies = self.dies, "never"
        if dies == "before the TPM":
            raise PowerCutError
        assert self.held is not None
        self.held = hashlib.sha256(self.held + data).digest()
        if dies == "after the TPM":
            raise PowerCutError


@dataclass
class Disk:
    """What lies on a disk: the database, and the anchor's memory (with the methods of a `DraftedFile`)."""

    state: State = field(default_factory=State)
    memory: bytes | None = None
    drafted: bytes = b""
    path: Path = Path("anchor.tpm")
    running: bool = False

    def kept(self) -> bytes | None:
        return self.memory

    def draft(self, content: bytes) -> None:
        self.drafted = content

    def keep(self) -> None:
        self.memory = self.drafted


class Anchor(TpmAnchor):
    """The anchor over what is played."""

    def __init__(self, disk: Disk, tpm: Tpm) -> None:
        super().__init__(disk.path, database_key=bytes(32), tcti="played")
        self._file = disk  # type: ignore[assignment]
        self._tpm = tpm

    def _with_index(self, act: Callable[[Any], None]) -> None:
        act(self._tpm)


class Adversary:
    """A service on the first disk, a fork of it on the second; copies of both are kept and put back as one likes.

    anchored: the newest state that `settle` returned for, to whomever. In the strict mode a commit is acknowledged only
    then. same_leaves: the audit log does not tell commits apart.
    """

    def __init__(self, draw: Random, *, same_leaves: bool) -> None:
        self.draw = draw
        self.same_leaves = same_leaves
        self.tpm = Tpm()
        self.disks = (Disk(), Disk())
        self.states = [State()]
        self.memories: list[bytes | None] = [None]
        self.number = 0
        self.anchored = State()
        self.lost = False

    def settle(self, disk: Disk) -> None:
        """Have the service on this disk settle its database; whoever is refused, or loses power, stops."""
        try:
            self.ask(disk)
        except (RollbackError, PowerCutError):
            disk.running = False
            return
        disk.running = True
        self.lost |= not disk.state.grew_out_of(self.anchored)
        self.anchored = disk.state

    def ask(self, disk: Disk) -> None:
        Anchor(disk, self.tpm).settle(disk.state.head, disk.state.since)

    def grow(self, disk: Disk, *, epoch: bool = False) -> None:
        self.number += 1
        leaf = b"leaf" if self.same_leaves else b"leaf %d" % self.number
        disk.state = disk.state.commit(self.number, None if epoch else leaf)

    def start(self, disk: Disk) -> None:
        """What was found is settled, then an epoch."""
        self.settle(disk)
        if disk.running:
            self.grow(disk, epoch=True)
            self.settle(disk)

    def commit(self, disk: Disk) -> None:
        if disk.running:
            self.grow(disk)
            self.settle(disk)

    def commit_and_lose_power(self, disk: Disk) -> None:
        if disk.running:
            self.grow(disk)
            self.copy(disk)
            self.tpm.dies = self.draw.choice(("before the TPM", "after the TPM"))
            self.settle(disk)
            self.tpm.dies = "never"

    def commit_while_a_copy_does(self, disk: Disk) -> None:
        """A copy on the other disk starts and commits between our look at the TPM and our step, around our lock."""
        if disk.running:
            before = disk.state
            self.grow(disk)

            def copy_runs() -> None:
                other = self.disks[0] if disk is self.disks[1] else self.disks[1]
                other.state, other.memory = before, disk.memory
                self.start(other)
                self.commit(other)

            self.tpm.before_extend = copy_runs
            self.settle(disk)
            self.tpm.before_extend = nothing

    def commit_that_the_database_denies(self, disk: Disk) -> None:
        """The server keeps the rows and says that the transaction failed."""
        if disk.running:
            before = disk.state
            self.grow(disk)
            self.copy(disk)
            disk.state = before

    def copy(self, disk: Disk) -> None:
        self.states.append(disk.state)
        self.memories.append(disk.memory)

    def put_database_back(self, disk: Disk) -> None:
        disk.state = self.draw.choice(self.states)
        self.start(disk)

    def put_all_back(self, disk: Disk) -> None:
        disk.memory = self.draw.choice(self.memories)
        self.put_database_back(disk)

    def commit_several_and_lose_power(self, disk: Disk) -> None:
        """The bounded mode: none of these was anchored."""
        if disk.running:
            self.copy(disk)
            for _ in range(self.draw.randint(1, 4)):
                self.grow(disk)
            self.copy(disk)
            disk.running = False

    STRICT = (
        start,
        commit,
        commit_and_lose_power,
        commit_while_a_copy_does,
        commit_that_the_database_denies,
        copy,
        put_database_back,
        put_all_back,
    )
    BOUNDED = (*STRICT, commit_several_and_lose_power)


def attack(adversary: Adversary, acts: tuple[Callable[[Any, Disk], None], ...]) -> list[str]:
    """Do STEPS things at random, until something anchored is lost; what was done."""
    done: list[str] = []
    adversary.start(adversary.disks[0])
    for _ in range(STEPS):
        act, which = adversary.draw.choice(acts), adversary.draw.choice((0, 0, 0, 1))
        done.append(f"{act.__name__} on disk {which}")
        act(adversary, adversary.disks[which])
        if adversary.lost:
            break
    return done


@pytest.mark.parametrize("mode", ["strict", "bounded"])
def test_nothing_that_was_anchored_is_lost_unnoticed(mode: str) -> None:
    """Strict: even where the audit log tells no two commits apart. Bounded: as far as it does."""
    draw = Random(mode)
    for _ in range(ATTACKS):
        adversary = Adversary(draw, same_leaves=mode == "strict")
        done = attack(adversary, Adversary.STRICT if mode == "strict" else Adversary.BOUNDED)
        assert not adversary.lost, done


class Counted(Adversary):
    """Against an anchor that knows numbers only."""

    def ask(self, disk: Disk) -> None:
        counted = int.from_bytes(self.tpm.held or b"", "big")
        if len(disk.state.path) < counted:
            raise RollbackError("older")
        self.tpm.held = len(disk.state.path).to_bytes(8, "big")


def test_the_same_adversary_beats_a_counter() -> None:
    """So the attacks above are worth something, and a counter is not enough (docs/adr/0021)."""
    draw = Random("counter")
    beaten = []
    for _ in range(ATTACKS):
        adversary = Counted(draw, same_leaves=False)
        done = attack(adversary, Adversary.STRICT)
        if adversary.lost:
            beaten.append(done)
    shortest = min(beaten, key=len)
    assert len(shortest) <= STEPS
    assert len(beaten) > ATTACKS // 100
