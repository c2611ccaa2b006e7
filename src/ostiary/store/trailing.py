"""The bounded mode: commits are acknowledged when durable, and a thread takes the anchor after them.

Guarantees: no transaction begins once the oldest head that the anchor does not remember is older than the bound. So
whoever turns the database back unnoticed takes with it what was acknowledged within one such span, and not more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ostiary.errors import RollbackError, StoreError

RETRY_SECONDS = 1.0
"""Between two attempts at an anchor that fails; less where the bound is shorter."""


class Trailing:
    """Follows the heads of one store with its anchor. place: of the anchor, for messages.

    settle: has the anchor remember the newest head; called by one thread only. Raises as `Anchor.settle`.
    """

    def __init__(self, settle: Callable[[], None], *, place: str, max_lag_seconds: float) -> None:
        self._settle = settle
        self._place = place
        self._max_lag = max_lag_seconds
        self._wake = threading.Condition()
        # When the oldest head came that the anchor does not remember, and the first since the anchor was last asked.
        self._behind_since: float | None = None
        self._moved_again: float | None = None
        self._rollback: RollbackError | None = None
        self._trouble: tuple[str, ...] = ()
        self._closing = False
        self._thread = threading.Thread(target=self._follow_until_closed, name="ostiary-anchor", daemon=True)
        self._thread.start()

    def moved(self) -> None:
        """Say that the store has a head that the anchor may not remember."""
        with self._wake:
            if self._behind_since is None:
                self._behind_since = time.monotonic()
                self._wake.notify()
            elif self._moved_again is None:
                self._moved_again = time.monotonic()

    def require_intact(self) -> None:
        """Raise RollbackError if the anchor has told one."""
        if self._rollback is not None:
            raise RollbackError(*self._rollback.chain)

    def require_near(self) -> None:
        """Raise StoreError if the anchor is further behind than the bound."""
        self.require_intact()
        since = self._behind_since
        if since is not None and time.monotonic() - since > self._max_lag:
            raise StoreError(
                f"the anchor {self._place} has not followed for {time.monotonic() - since:.1f} s, at most "
                f"{self._max_lag:g} s are allowed: nothing is committed until it does",
                *self._trouble,
            )

    def close(self) -> None:
        """Take the anchor to the newest head, once more, and end. An anchor that fails now is left behind."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _follow_until_closed(self) -> None:
        # Half of the bound is for the anchor's own work, and spares those that wear out with each step.
        delay = self._max_lag / 2
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._behind_since is not None)
                if self._behind_since is None:
                    return
                self._wake.wait_for(lambda: self._closing, delay)
                closing = self._closing
                self._moved_again = None
            try:
                self._settle()
                delay, self._trouble = self._max_lag / 2, ()
                with self._wake:
                    self._behind_since = self._moved_again
            except RollbackError as error:
                self._rollback = error
                return
            # Whatever went wrong, the thread lives on: commits stop by themselves when the bound is reached.
            except Exception as error:
                delay = min(RETRY_SECONDS, self._max_lag / 2)
                self._trouble = error.chain if isinstance(error, StoreError) else (type(error).__name__,)
            if closing:
                return
