"""A model of commit, anchor, crash and an adversary who owns the database, explored state by state.

The adversary keeps every head that was ever written to any database, starts a process on any of them at any time (which
kills the one before, restores and forks at once), lets a database claim that a write failed, and stops any process
before any step. There are two process slots, so two processes run on two copies whenever he likes.

A head is a number; `parents` and `leaves` say what it was made on and which leaf it added (0: none, an epoch). A
process goes through

    found h ── settle ──► write an epoch e on h ── settle ──► ready ──► write x ── settle ──► acknowledge x ──► ready

and between any two of these steps everybody else may move. What the anchor remembers, and how it settles, is a `Rule`.
Acknowledged heads that are not in the history of a process that is ready are *lost unnoticed*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

EPOCH = 0


class Phase(IntEnum):
    """Where a process is. The head it holds: found, of its epoch, or written last."""

    STOPPED = 0
    FOUND = 1
    EPOCH_WRITTEN = 2
    READY = 3
    WRITTEN = 4
    SETTLED = 5


@dataclass(frozen=True, slots=True)
class Process:
    """head: what it holds. base: the head before `head`, to go back to when the database says that a write failed.

    slot: of the two, its own. pending: acknowledged and not settled (bounded mode).
    """

    phase: Phase = Phase.STOPPED
    head: int = 0
    base: int = 0
    slot: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """parents, leaves: by head. anchor: what it remembers, as the rule has it. acknowledged: heads."""

    parents: tuple[int, ...] = (0,)
    leaves: tuple[int, ...] = (EPOCH,)
    anchor: tuple[int, ...] = (0,)
    acknowledged: frozenset[int] = frozenset()
    processes: tuple[Process, Process] = (Process(), Process())

    def history(self, head: int) -> frozenset[int]:
        """`head` and all before it."""
        found = {head}
        while head:
            head = self.parents[head]
            found.add(head)
        return frozenset(found)

    def seq(self, head: int) -> int:
        number = 0
        while head:
            head, number = self.parents[head], number + 1
        return number

    def log(self, head: int) -> tuple[int, ...]:
        """The leaves up to `head`, the oldest first: all that a checkpoint's size and root say."""
        found: list[int] = []
        while head:
            if self.leaves[head] != EPOCH:
                found.append(self.leaves[head])
            head = self.parents[head]
        return tuple(reversed(found))


Settle = Callable[[State, Process], Iterator[State]]
"""The anchor's answers to a process that asks it to remember its head: the state afterwards, nothing if it refuses."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An anchor, and what goes with it.

    settle: for a head that this process wrote. open: for a head that it found.
    epoch: whether an opening writes a head of its own. epoch_leaf: whether that has a leaf that was never seen before.
    salted: whether no two commits have the same leaf; else the adversary has them all made the same.
    renew: whether a process whose write failed begins a new epoch before it goes on.
    window: how many commits may be acknowledged before the anchor remembers them; 0 is the strict mode.
    anchor_first: whether the anchor moves before the database is written.
    start: what the anchor remembers of the first head. fenced: whether the anchor knows who opened last.
    """

    settle: Settle
    open: Settle
    epoch: bool = True
    epoch_leaf: bool = False
    salted: bool = True
    renew: bool = True
    window: int = 0
    anchor_first: bool = False
    start: tuple[int, ...] = (0,)
    fenced: bool = False
    failing_writes: bool = True


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """heads: made in all. slots: processes at one time, 1 or 2."""

    heads: int
    slots: int = 2


@dataclass(frozen=True, kw_only=True)
class Explored:
    """states: how many were seen. lost: most heads lost at one opening; path: a shortest way there, step by step."""

    states: int
    lost: int
    path: tuple[str, ...]


def explore(rule: Rule, bounds: Bounds, *, stop_at: int | None = None) -> Explored:
    """All states within the bounds, breadth first. stop_at: end as soon as so many heads are lost at once."""
    first = State(anchor=rule.start)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    worst = 0
    path: tuple[str, ...] = ()
    while queue:
        state = queue.popleft()
        for name, step, lost in _steps(rule, bounds, state):
            after = step if rule.fenced else replace(step, processes=_sorted(step.processes))
            if after not in came_from:
                came_from[after] = state, name
                queue.append(after)
            if lost > worst:
                worst, path = lost, (*_path(came_from, state), name)
                if stop_at is not None and worst >= stop_at:
                    return Explored(states=len(came_from), lost=worst, path=path)
    return Explored(states=len(came_from), lost=worst, path=path)


def _sorted(processes: tuple[Process, Process]) -> tuple[Process, Process]:
    """The two slots are alike, except for who opened last; what is so in one order is so in the other."""
    first, second = (replace(process, slot=0) for process in processes)
    return (first, second) if _key(first) >= _key(second) else (second, first)


def _key(process: Process) -> tuple[int, int, int, int]:
    return process.phase, process.head, process.base, process.pending


def _path(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names: list[str] = []
    while (before := came_from[state]) is not None:
        state, name = before
        names.append(name)
    return tuple(reversed(names))


def _apart(state: State, head: int) -> int:
    """How many acknowledged heads are on another branch than `head`: neither of the two came before the other."""
    history = state.history(head)
    return sum(head not in state.history(other) for other in state.acknowledged - history)


def _steps(rule: Rule, bounds: Bounds, state: State) -> Iterator[tuple[str, State, int]]:
    """Each step: its name, the state after it, and how many acknowledged heads it loses unnoticed."""
    for slot in range(bounds.slots):
        process = state.processes[slot]
        for head in range(len(state.parents)):
            name = f"start {slot} on {head}"
            opened = Process(phase=Phase.FOUND, head=head, base=head, slot=slot)
            # A slot opens anew with each start, so its number says as much as a count of all openings would.
            at = replace(state, anchor=(state.anchor[0], slot)) if rule.fenced else state
            yield name, _put(at, slot, opened), 0
        match process.phase:
            case Phase.FOUND:
                yield from _found(rule, bounds, state, slot)
            case Phase.EPOCH_WRITTEN:
                for after in rule.settle(state, process):
                    yield from _ready(after, slot, process, f"{slot} settles its epoch {process.head}")
            case Phase.READY:
                yield from _commit(rule, bounds, state, slot)
            case Phase.WRITTEN:
                for after in rule.settle(state, process):
                    done = replace(process, phase=Phase.SETTLED)
                    yield f"{slot} settles {process.head}", _put(after, slot, done), 0
                if rule.failing_writes and process.head != process.base:
                    yield from _fail(rule, state, slot)
            case Phase.SETTLED:
                ready = replace(process, phase=Phase.READY, base=process.head)
                told = replace(state, acknowledged=state.acknowledged | {process.head})
                lost = _apart(state, process.head)
                yield f"{slot} acknowledges {process.head}", _put(told, slot, ready), lost


def _found(rule: Rule, bounds: Bounds, state: State, slot: int) -> Iterator[tuple[str, State, int]]:
    process = state.processes[slot]
    for after in rule.open(state, process):
        name = f"{slot} settles {process.head}, which it found"
        if not rule.epoch:
            yield from _ready(after, slot, process, name)
        elif len(state.parents) <= bounds.heads:
            leaf = len(state.parents) if rule.epoch_leaf else EPOCH
            made, head = _write(after, process.head, leaf)
            written = replace(process, phase=Phase.EPOCH_WRITTEN, head=head, base=process.head)
            yield f"{name}, and writes epoch {head}", _put(made, slot, written), 0


def _ready(state: State, slot: int, process: Process, name: str) -> Iterator[tuple[str, State, int]]:
    """The process serves from now on; what was acknowledged and is not in its history is lost, and counted once."""
    history = state.history(process.head)
    ready = replace(process, phase=Phase.READY, base=process.head, pending=0)
    known = replace(state, acknowledged=state.acknowledged & history)
    yield name, _put(known, slot, ready), len(state.acknowledged - history)


def _commit(rule: Rule, bounds: Bounds, state: State, slot: int) -> Iterator[tuple[str, State, int]]:
    process = state.processes[slot]
    if rule.window and process.pending:
        for after in rule.settle(state, process):
            followed = replace(process, base=process.head, pending=0)
            yield f"the anchor follows {slot} to {process.head}", _put(after, slot, followed), 0
    if len(state.parents) > bounds.heads:
        return
    leaf = len(state.parents) if rule.salted else 1
    made, head = _write(state, process.head, leaf)
    if rule.window:
        if process.pending < rule.window:
            told = replace(made, acknowledged=state.acknowledged | {head})
            lagging = replace(process, head=head, pending=process.pending + 1)
            yield f"{slot} writes and acknowledges {head}", _put(told, slot, lagging), 0
        return
    written = replace(process, phase=Phase.WRITTEN, head=head, base=process.head)
    if rule.anchor_first:
        # The head is known and the anchor moves, but no database has the head yet: a crash now leaves the one before.
        for after in rule.settle(made, written):
            yield f"the anchor moves to {head}", _put(replace(state, anchor=after.anchor), slot, process), 0
            yield f"{slot} writes {head}", _put(after, slot, replace(written, phase=Phase.SETTLED)), 0
        return
    yield f"{slot} writes {head}", _put(made, slot, written), 0


def _fail(rule: Rule, state: State, slot: int) -> Iterator[tuple[str, State, int]]:
    """The database says that the write did not happen; the adversary keeps what was written."""
    process = state.processes[slot]
    back = replace(process, head=process.base)
    name = f"the database says that {process.head} of {slot} was not written"
    if rule.renew:
        yield name, _put(state, slot, replace(back, phase=Phase.FOUND)), 0
    else:
        yield name, _put(state, slot, replace(back, phase=Phase.READY)), 0


def _write(state: State, parent: int, leaf: int) -> tuple[State, int]:
    head = len(state.parents)
    return replace(state, parents=(*state.parents, parent), leaves=(*state.leaves, leaf)), head


def _put(state: State, slot: int, process: Process) -> State:
    first, second = state.processes
    return replace(state, processes=(process, second) if slot == 0 else (first, process))


# Anchors


def _counter_settle(state: State, process: Process) -> Iterator[State]:
    """The counter is one behind (bounded: or more), and this process moves it."""
    seq = state.seq(process.head)
    if state.anchor[0] == state.seq(process.base) < seq:
        yield replace(state, anchor=(seq,))


def _counter_open(window: int) -> Settle:
    def settle(state: State, process: Process) -> Iterator[State]:
        """The database is where the counter is, or ahead by what may be lost to a crash."""
        seq = state.seq(process.head)
        if state.anchor[0] <= seq <= state.anchor[0] + max(1, window):
            yield replace(state, anchor=(seq,))

    return settle


def counter(*, window: int = 0, epoch: bool = True, renew: bool = True, failing_writes: bool = True) -> Rule:
    """A counter that only ever goes up: the database first, then the counter."""
    return Rule(
        settle=_counter_settle, open=_counter_open(window), window=window, epoch=epoch, renew=renew,
        failing_writes=failing_writes,
    )  # fmt: skip


def _late_counter_open(state: State, process: Process) -> Iterator[State]:
    """With the anchor moved first, the database may be one behind after a crash, and must be let in."""
    seq = state.seq(process.head)
    if seq <= state.anchor[0] <= seq + 1:
        yield replace(state, anchor=(seq,))


def counter_first() -> Rule:
    """A counter that moves before the database is written."""
    return Rule(settle=_counter_settle, open=_late_counter_open, anchor_first=True, epoch=False)


def _fenced_settle(state: State, process: Process) -> Iterator[State]:
    """The counter is one behind, and nobody has opened since this process did."""
    count, opener = state.anchor
    seq = state.seq(process.head)
    if opener == process.slot and count == state.seq(process.base) < seq:
        yield replace(state, anchor=(seq, opener))


def _fenced_open(state: State, process: Process) -> Iterator[State]:
    count, opener = state.anchor
    seq = state.seq(process.head)
    if opener == process.slot and count <= seq <= count + 1:
        yield replace(state, anchor=(seq, opener))


def fenced_counter() -> Rule:
    """Two counters: each opening moves the second and keeps its value, so that it can tell whether it was the last.

    The check and the move of the first counter are one step here; a TPM takes two, and looks at the second again."""
    return Rule(settle=_fenced_settle, open=_fenced_open, start=(0, 0), fenced=True)


def _log_settle(state: State, process: Process) -> Iterator[State]:
    """The log begins as the one remembered. anchor[0] is the head whose size and root are remembered."""
    known, found = state.log(state.anchor[0]), state.log(process.head)
    if found[: len(known)] == known:
        yield replace(state, anchor=(process.head,) if len(found) > len(known) else state.anchor)


def log(
    *, window: int = 0, epoch: bool = True, epoch_leaf: bool = False, salted: bool = True, renew: bool = True
) -> Rule:
    """Size and root of the log, as witnesses remember them."""
    return Rule(
        settle=_log_settle, open=_log_settle, window=window, epoch=epoch, epoch_leaf=epoch_leaf, salted=salted,
        renew=renew,
    )  # fmt: skip


def forgetful() -> Rule:
    """No anchor at all."""

    def settle(state: State, _process: Process) -> Iterator[State]:
        yield state

    return Rule(settle=settle, open=settle)
