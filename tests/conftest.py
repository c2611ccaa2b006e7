"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# How fast a machine is decides no test.
settings.register_profile("ostiary", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ostiary")


def pytest_configure() -> None:
    """Take interrupts also where the tests run in the background of a shell, which has its children ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
