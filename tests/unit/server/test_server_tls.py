"""Who may come in when there are too many. Connections themselves are tested on real sockets."""

from __future__ import annotations

from typing import cast

from ostiary.server.tls import Doorman, TlsHttpProtocol


class Guest:
    """Stands for a connection: all that the doorman does with one is to end it."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def guests(number: int) -> list[TlsHttpProtocol]:
    return [cast("TlsHttpProtocol", Guest()) for _ in range(number)]


def aborted(connection: TlsHttpProtocol) -> bool:
    return cast("Guest", connection).aborted


def test_all_come_in_while_there_is_room() -> None:
    doorman, coming = Doorman(3), guests(3)
    assert all(doorman.admit(guest) for guest in coming)
    assert not any(aborted(guest) for guest in coming)


def test_the_oldest_that_has_not_shaken_hands_makes_room() -> None:
    doorman, (first, second, third, fourth) = Doorman(3), guests(4)
    for guest in (first, second, third):
        doorman.admit(guest)
    doorman.shaken(first)
    assert doorman.admit(fourth)
    assert [aborted(guest) for guest in (first, second, third, fourth)] == [False, True, False, False]


def test_nobody_who_has_shaken_hands_makes_room() -> None:
    doorman, (first, second) = Doorman(1), guests(2)
    doorman.admit(first)
    doorman.shaken(first)
    assert not doorman.admit(second)
    assert not aborted(first)


def test_who_leaves_makes_room() -> None:
    doorman, (first, second) = Doorman(1), guests(2)
    doorman.admit(first)
    doorman.shaken(first)
    doorman.leave(first)
    assert doorman.admit(second)


def test_to_leave_twice_or_without_having_come_is_harmless() -> None:
    doorman, (first, second) = Doorman(1), guests(2)
    doorman.leave(first)
    doorman.admit(first)
    doorman.leave(first)
    doorman.leave(first)
    assert doorman.admit(second)
