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

from tests.simulators.tpm import sized

from ostiary.attester.tpm2 import SHA256, Tpm

START_SECONDS = 60.0
OWNER = 0x40000001


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


def command(path: str, code: int, handles: tuple[int, ...], parameters: bytes) -> None:
    """A command that only tests send, with an empty password for its first handle."""
    with Tpm(path) as device:
        device._command("a test's command", code, list(handles), parameters)


def define(path: str, index: int, data: bytes) -> None:
    """TPM2_NV_DefineSpace, TPM2_NV_Write: an index that anybody may read."""
    attributes = 1 << 1 | 1 << 17 | 1 << 18 | 1 << 2  # OWNERWRITE, OWNERREAD, AUTHREAD, AUTHWRITE
    public = struct.pack(">IHIHH", index, SHA256, attributes, 0, len(data))
    command(path, 0x12A, (OWNER,), sized(b"") + sized(public))
    for start in range(0, len(data), 512):
        command(path, 0x137, (OWNER, index), sized(data[start : start + 512]) + struct.pack(">H", start))


def extend(path: str, pcr: int, digest: bytes) -> None:
    """TPM2_PCR_Extend of the SHA-256 bank."""
    command(path, 0x182, (pcr,), struct.pack(">IH", 1, SHA256) + digest)
