"""How long polls follow one another."""

from __future__ import annotations

import time

import pytest

from ostiary.cli.board import options
from ostiary.cli.board.options import polls


class Hours:
    """A clock that moves when somebody sleeps, and by `answering` seconds for each poll."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        monkeypatch.setattr(options, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_without_waiting_there_is_one_poll_that_does_not_wait() -> None:
    before = time.monotonic()
    assert list(polls(0, 60)) == [0]
    assert time.monotonic() - before < 60


def test_a_long_wait_is_polls_of_the_longest_kind_and_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours(monkeypatch)
    asked = []
    for left in polls(130, 60):
        asked.append(left)
        hours.now += left
    assert (asked, hours.slept) == ([60, 60, 10], [0.0, 0.0])


def test_polls_that_are_answered_at_once_are_a_second_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours(monkeypatch)
    asked = []
    for left in polls(3, 60):
        asked.append(left)
        hours.now += 0.25
    assert asked == [3, 2, 1, 0]
    assert hours.slept == [0.75, 0.75, 0.75]
    assert hours.now == 3.25
