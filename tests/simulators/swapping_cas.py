"""A CAS whose front was taken over: it has the keys of the real one, passes requests on to it, and changes answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.simulators.canned import answer, read_request
from tests.simulators.service import Answer, Client, RunningService, exchange

TIMEOUT_SECONDS = 60
Swapping = Callable[[str, Answer], Answer]
"""What becomes of an answer: the request's path and what the real service says, to what is sent."""


class SwappingCas:
    """Listens on `port`. seen: method and path of each request; changed: there was one."""

    def __init__(self, directory: Path, service: RunningService, client: Client, swap: Swapping, port: int) -> None:
        identity = service.identity
        key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / "front.pem").write_bytes(key + b"".join(one.public_bytes(Encoding.PEM) for one in identity.chain))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "front.pem")
        self._behind = service.client_port
        self._client = client
        self._swap = swap
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.seen: list[str] = []
        self.changed = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT_SECONDS)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(TIMEOUT_SECONDS)
            with contextlib.suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as stream:
                stream.sendall(self._answered(read_request(stream)))

    def _answered(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        method, path = head.decode().split(" ")[:2]
        self.seen.append(f"{method} {path}")
        self.changed.set()
        with contextlib.closing(self._client.connect(self._behind)) as connection:
            got = exchange(connection, method, path, body or None)
        sent = self._swap(path, got)
        return answer(sent.status, sent.body)


@contextlib.contextmanager
def swapping_cas(
    directory: Path, service: RunningService, client: Client, swap: Swapping, port: int = 0
) -> Iterator[SwappingCas]:
    """Such a CAS until the block ends. client: whom it pretends to be to the real one. port: 0 for a free one."""
    front = SwappingCas(directory, service, client, swap, port)
    try:
        yield front
    finally:
        front.close()
