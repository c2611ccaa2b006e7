"""A TPM 2.0 in software (swtpm), on loopback: started, killed, restarted by the tests, always by its pid."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

HANG_SECONDS = 60


class Swtpm:
    """One TPM with its memory in `state`; a restart keeps what a power cut would."""

    def __init__(self, state: Path) -> None:
        state.mkdir(exist_ok=True)
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def tcti(self) -> str:
        """Where it is, in the notation of the TSS. The same over all restarts."""
        return f"swtpm:host=127.0.0.1,port={self._port}"

    def start(self) -> None:
        """Power on: every PCR is as after a reset, sessions and transient objects are gone."""
        self._port = self._port or _free_pair()
        self._process = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}"),
                *("--ctrl", f"type=tcp,bindaddr=127.0.0.1,port={self._port + 1}"),
                *("--server", f"type=tcp,bindaddr=127.0.0.1,port={self._port}"),
                *("--flags", "not-need-init,startup-clear"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._await_ready()

    def kill(self) -> None:
        """Cut the power: SIGKILL, at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(HANG_SECONDS)
        self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def _await_ready(self) -> None:
        # The control channel, as the TPM's own takes one client at a time.
        assert self._process is not None
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            assert self._process.poll() is None, "swtpm ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port + 1)):
                return
            assert time.monotonic() < deadline, "swtpm does not listen"
            time.sleep(0.005)


def _free_pair() -> int:
    """A port that is free with the one after it, where the TSS expects the control channel."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


@contextlib.contextmanager
def swtpm(state: Path) -> Iterator[Swtpm]:
    """A running TPM, new if `state` is absent or empty, until the block ends."""
    tpm = Swtpm(state)
    tpm.start()
    try:
        yield tpm
    finally:
        tpm.stop()
