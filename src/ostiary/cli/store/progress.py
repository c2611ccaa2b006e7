"""A bar on stderr for what takes its time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SILENT_SECONDS = 2.0
"""What is done sooner needs no bar."""
_ROWS_A_LOOK = 500


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Shows that the block is still at work, after SILENT_SECONDS, if a person is watching stderr."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(f"{what} …")
    timer = threading.Timer(SILENT_SECONDS, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


class Bar:
    """Counts rows, and after SILENT_SECONDS shows how far it is, if a person is watching stderr."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._rows = 0
        self._total: int | None = None
        self._begun = time.monotonic()
        self._shown: tuple[Progress, TaskID] | None = None
        self._watched = sys.stderr.isatty()

    def expect(self, rows: int) -> None:
        """So many rows will be read in all."""
        self._total = rows

    def advance(self) -> None:
        """One more row was read."""
        self._rows += 1
        if self._watched and self._rows % _ROWS_A_LOOK == 0:
            self._show()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown[0].stop()

    def _show(self) -> None:
        if self._shown is None and time.monotonic() - self._begun >= SILENT_SECONDS:
            self._shown = self._start()
        if self._shown is not None:
            progress, task = self._shown
            # More rows than the head counts are what a verification is about to refuse.
            progress.update(task, completed=min(self._rows, self._total or self._rows))

    def _start(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        progress = Progress(
            TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
        )
        progress.start()
        return progress, progress.add_task(self._what, total=self._total)
