"""What an adversary who owns the database can do, whatever he does: docs/freshness.md has the argument.

Where the model is to find an attack, it must find it: so a model that sees nothing cannot pass.
"""

from __future__ import annotations

import pytest
from tests.model.freshness import Bounds, Rule, counter, counter_first, explore, fenced_counter, forgetful, log

ONE_PROCESS = Bounds(heads=6, slots=1)
TWO_PROCESSES = Bounds(heads=4)


@pytest.mark.parametrize(
    ("rule", "bounds", "at_least"),
    [
        (log(), TWO_PROCESSES, 9_000),
        (log(epoch=False), TWO_PROCESSES, 14_000),
        (log(salted=False, epoch_leaf=True), TWO_PROCESSES, 6_000),
        (log(), ONE_PROCESS, 20_000),
        (counter(), ONE_PROCESS, 15_000),
        (fenced_counter(), TWO_PROCESSES, 15_000),
    ],
    ids=["log", "log without epochs", "log with leaves that repeat, but an epoch leaf that does not",
         "log, one process", "counter, one process", "counter with a fence"],
)  # fmt: skip
def test_strict_loses_nothing_that_was_acknowledged(rule: Rule, bounds: Bounds, at_least: int) -> None:
    """Whatever is killed, put back, copied or dropped, and wherever: a process that serves has all of it."""
    explored = explore(rule, bounds)
    assert explored.lost == 0, explored.path
    assert explored.states >= at_least, "the model does not go through what it did"


@pytest.mark.parametrize(
    ("rule", "bounds"),
    [
        (forgetful(), ONE_PROCESS),
        (counter(epoch=False), ONE_PROCESS),
        (counter(epoch=False, failing_writes=False), ONE_PROCESS),
        (counter_first(), ONE_PROCESS),
        (counter(renew=False), ONE_PROCESS),
        (counter(), TWO_PROCESSES),
        (log(salted=False), TWO_PROCESSES),
        (log(salted=False, epoch_leaf=True, renew=False), ONE_PROCESS),
    ],
    ids=["no anchor", "counter without epochs", "counter without epochs, writes that do not fail", "anchor first",
         "counter, a number used again after a failed write", "counter, two processes", "log with leaves that repeat",
         "log with leaves that repeat, after a failed write"],
)  # fmt: skip
def test_the_attack_is_found_where_there_is_one(rule: Rule, bounds: Bounds) -> None:
    explored = explore(rule, bounds, stop_at=1)
    assert explored.lost == 1


def test_why_a_counter_needs_epochs() -> None:
    """Two heads of one number, one of them acknowledged: the counter cannot tell them apart."""
    assert explore(counter(epoch=False), ONE_PROCESS, stop_at=1).path == (
        "start 0 on 0", "0 settles 0, which it found", "0 writes 1",
        "start 0 on 0", "0 settles 0, which it found", "0 writes 2", "0 settles 2", "0 acknowledges 2",
        "start 0 on 1", "0 settles 1, which it found",
    )  # fmt: skip


def test_why_the_database_goes_first() -> None:
    """A crash between the two leaves the database one behind, which must be let in; so must one that was put back."""
    path = explore(counter_first(), ONE_PROCESS, stop_at=1).path
    assert path[-2:] == ("start 0 on 0", "0 settles 0, which it found")
    assert "0 acknowledges 1" in path


@pytest.mark.parametrize("window", [1, 2, 3])
def test_bounded_loses_at_most_what_the_anchor_was_behind(window: int) -> None:
    """And exactly that much, at one time, for each process that ran."""
    for rule in (log(window=window), counter(window=window)):
        assert explore(rule, ONE_PROCESS).lost == window


def test_bounded_loses_that_much_for_each_of_two_processes() -> None:
    assert explore(log(window=1), Bounds(heads=5), stop_at=2).lost == 2
