"""What the daemon finds out about a process by itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ostiary.errors import NotAuthorizedError
from ostiary.platform import caller
from ostiary.platform.caller import measure_caller


def test_process_that_ended_is_refused() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(NotAuthorizedError, match="the caller ended before it was measured"):
        measure_caller(process.pid, None)


def test_process_id_that_changed_hands_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started = iter([b"1000", b"2000"])
    monkeypatch.setattr(caller, "_started", lambda _: next(started))
    monkeypatch.setattr(caller, "_launcher_package", lambda _: os.path.dirname(os.path.dirname(caller.__file__)))
    with pytest.raises(NotAuthorizedError, match="the caller ended before it was measured"):
        measure_caller(os.getpid(), None)


def test_start_time_is_read_behind_a_name_with_blanks_and_brackets() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b') 1 (2', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        renamed = caller._started(f"/proc/{process.pid}")
        with open(f"/proc/{process.pid}/stat", "rb") as file:
            assert b"() 1 (2)" in file.read()
        process.communicate(b"\n")
    own = caller._started("/proc/self")
    assert int(renamed) >= int(own) > 0


def test_status_without_a_start_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "_read", lambda _: b"1 (x) S 1")
    with pytest.raises(NotAuthorizedError, match="ended before it was measured"):
        caller._started("/proc/1")
