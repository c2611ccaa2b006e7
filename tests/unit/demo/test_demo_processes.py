"""Children of the demo: started, waited for, and ended whatever happens."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from ostiary.demo import processes
from ostiary.demo.processes import accepts_connections, children, end, free_port, ready_line, wait_until
from ostiary.errors import OutsideError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(600)",
]


def test_children_are_ended_when_the_block_ends_also_by_an_exception(tmp_path: Path) -> None:
    with contextlib.suppress(KeyError), children(tmp_path) as running:
        child = running.start("sleeper", SLEEP)
        assert child.poll() is None
        raise KeyError
    assert child.poll() is not None


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END_SECONDS", 0.2)
    with children(tmp_path) as running:
        child = running.start("stubborn", STUBBORN)
        ready_line(child, running.log("stubborn"))
        assert end(child) == -9


def test_the_first_line_of_a_child_is_read_as_json(tmp_path: Path) -> None:
    with children(tmp_path) as running:
        child = running.start("ready", [sys.executable, "-c", "print('{\"a\": 1}', flush=True)"])
        assert ready_line(child, running.log("ready")) == {"a": "1"}


def test_a_child_that_ends_too_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with children(tmp_path) as running:
        child = running.start("broken", [sys.executable, "-c", "import sys; sys.exit('out of luck')"])
        with pytest.raises(OutsideError, match="broken did not get ready: out of luck"):
            ready_line(child, running.log("broken"))
        with pytest.raises(OutsideError, match="broken ended with status 1: out of luck"):
            wait_until(lambda: False, child, running.log("broken"))


def test_a_child_that_never_gets_ready_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "READY_SECONDS", 0.2)
    with children(tmp_path) as running:
        child = running.start("slow", SLEEP)
        with pytest.raises(OutsideError, match="slow did not get ready"):
            ready_line(child, running.log("slow"))
        with pytest.raises(OutsideError, match="slow did not get ready within"):
            wait_until(lambda: False, child, running.log("slow"))


def test_a_free_port_accepts_connections_only_when_somebody_listens() -> None:
    port = free_port()
    assert not accepts_connections(port)
    with socket.create_server(("127.0.0.1", port)):
        assert accepts_connections(port)
