"""A TPM 2.0 in software (swtpm), on loopback: started, killed, restarted by the tests, always by its pid."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
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
    def port(self) -> int:
        return self._port

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
        # Both channels; the TPM's own takes one client at a time, and lets this one go at once.
        assert self._process is not None
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            assert self._process.poll() is None, "swtpm ended"
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port)),
                socket.create_connection(("127.0.0.1", self._port + 1)),
            ):
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


class Meddler:
    """Somebody on the way between the TSS and a TPM, on a port pair of its own.

    meddle: from a command, and what asks the TPM, to the answer that is passed on. Commands and answers are raw bytes.
    """

    def __init__(self, tpm: Swtpm, meddle: Callable[[bytes, Callable[[bytes], bytes]], bytes]) -> None:
        self._target = tpm.port
        self._meddle = meddle
        self.port = _free_pair()
        self._listeners = [socket.create_server(("127.0.0.1", self.port + offset)) for offset in (0, 1)]
        for offset, listener in enumerate(self._listeners):
            threading.Thread(target=self._accept, args=(listener, offset), daemon=True).start()

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket, offset: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                relay = self._relay_commands if offset == 0 else self._relay_control
                threading.Thread(target=relay, args=(client,), daemon=True).start()

    def _relay_commands(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:

            def ask(command: bytes) -> bytes:
                server.sendall(command)
                return _message(server)

            while command := _message(client):
                client.sendall(self._meddle(command, ask))

    def _relay_control(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target + 1)) as server:
            while request := client.recv(4096):
                server.sendall(request)
                client.sendall(server.recv(4096))


def _message(connection: socket.socket) -> bytes:
    """One command or answer: tag, u16; size of all, u32; then the rest. Empty at the end of the connection."""
    header = _exactly(connection, 6)
    return header + _exactly(connection, int.from_bytes(header[2:6], "big") - 6) if header else b""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
