"""A TPM 2.0 of software (swtpm) for attesters: the same bytes as from /dev/tpmrm0, over a Unix socket."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ostiary.attester.tpm2 import SHA256, Tpm

START_SECONDS = 60.0


@contextmanager
def running_tpm(directory: Path) -> Iterator[str]:
    """Path of the socket of a fresh TPM with its state in `directory`. It ends with the block."""
    path = directory / "tpm.sock"
    log = directory / "swtpm.log"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}", "--server", f"type=unixio,path={path}"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, "--flags", "not-need-init,startup-clear"], stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(path):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "swtpm did not start in time"
                os.sched_yield()
            yield str(path)
        finally:
            process.terminate()
            process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def extend(path: str, pcr: int, digest: bytes) -> None:
    """TPM2_PCR_Extend of the SHA-256 bank."""
    with Tpm(path) as device:
        device._command("TPM2_PCR_Extend", 0x182, [pcr], struct.pack(">IH", 1, SHA256) + digest)
