"""A TPM 2.0 of software, swtpm: the same bytes as from /dev/tpmrm0, over a socket."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0


@contextmanager
def running_tpm(directory: Path) -> Iterator[str]:
    """Path of the socket of a fresh TPM with its state in `directory`. It ends with the block."""
    socket = directory / "tpm.sock"
    log = directory / "swtpm.log"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}", "--server", f"type=unixio,path={socket}"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, "--flags", "not-need-init,startup-clear"], stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not socket.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "swtpm did not start in time"
                os.sched_yield()
            yield str(socket)
        finally:
            process.terminate()
            process.wait()
