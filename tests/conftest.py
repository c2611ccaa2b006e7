"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take interrupts also where the tests run in the background of a shell, which has its children ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
