"""An anchor in memory, as faithful as a quorum of witnesses or as poor as a bare counter, with trouble on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from ostiary.audit import Frontier
from ostiary.errors import RollbackError
from ostiary.store import Head

HANG_SECONDS = 60.0


class AnchorInMemory:
    """An `Anchor`. One object stands for the place outside: stores that share it share what it remembers.

    number_only: it remembers the head's seq and nothing else, as a monotonic counter does.
    failures: what to raise, call by call (None: nothing). before: what to do, call by call, before all else; calls that
    come while that is done are not counted.
    gate: while it is clear, calls wait. settled: the seq of each head that was settled. warning, place: as `Anchor`.
    """

    place = "anchor in memory"
    warning = "this anchor forgets everything when the process ends"

    def __init__(self, *, number_only: bool = False) -> None:
        self._number_only = number_only
        self._lock = threading.Lock()
        self._head: Head | None = None
        self._log = Frontier()
        self.failures: list[Exception | None] = []
        self.before: list[Callable[[], object] | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self._acting = False
        self.asked = threading.Event()
        self.settled: list[int] = []
        self.closed = 0

    @property
    def seq(self) -> int:
        """Of the newest head that was settled; -1: none."""
        return -1 if self._head is None else self._head.seq

    def forget(self) -> None:
        """As if it had been replaced by a new one."""
        self._head, self._log = None, Frontier()

    def settle(self, head: Head, leaves: Callable[[int], Iterator[bytes]]) -> None:
        self.asked.set()
        assert self.gate.wait(HANG_SECONDS)
        if self.before and not self._acting:
            self._act(self.before.pop(0))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        with self._lock:
            if head != self._head:
                self._move(head, leaves)
            self.settled.append(head.seq)

    def _act(self, action: Callable[[], object] | None) -> None:
        if action is not None:
            self._acting = True
            try:
                action()
            finally:
                self._acting = False

    def _move(self, head: Head, leaves: Callable[[int], Iterator[bytes]]) -> None:
        known = self._head
        if known is not None and head.seq < known.seq:
            raise RollbackError(f"older version: head {head.seq}, expected {known.seq} or a later one")
        if self._number_only:
            self._head = head
            return
        log = self._log
        if known is not None and (head.seq == known.seq or head.log_size < log.size):
            raise RollbackError(f"forked: another head {head.seq} than the one remembered")
        for leaf in leaves(log.size):
            log = log.append(leaf)
        if (log.size, log.root) != (head.log_size, head.log_root):
            raise RollbackError(f"forked: head {head.seq} does not continue the log that is remembered")
        self._head, self._log = head, log

    def close(self) -> None:
        self.closed += 1
