"""A TLS server that gives canned answers: what a service would never say, and connections that break."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ostiary.cli.identity import make_identity
from ostiary.client import Address

SERVER = make_identity()
TIMEOUT_SECONDS = 30


def answer(status: int, value: object) -> bytes:
    """An HTTP answer; `value` is its body, or JSON of it."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@dataclass
class Server:
    """A TLS server that gives one canned answer a connection; requests: what it was sent."""

    port: int
    requests: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(host="127.0.0.1", port=self.port)


@contextlib.contextmanager
def serving(tmp_path: Path, answers: Sequence[bytes | None]) -> Iterator[Server]:
    """None: the connection is closed before TLS. An empty answer: it is closed after the request was read."""
    (tmp_path / "server.pem").write_text(SERVER)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_SECONDS)
        server = Server(port=listener.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(listener, context, answers, server))
        thread.start()
        yield server
        thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()


def _serve(listener: socket.socket, context: ssl.SSLContext, answers: Sequence[bytes | None], server: Server) -> None:
    for canned in answers:
        plain = listener.accept()[0]
        plain.settimeout(TIMEOUT_SECONDS)
        with plain, contextlib.suppress(OSError):
            if canned is None:
                continue
            with context.wrap_socket(plain, server_side=True) as stream:
                server.requests.append(read_request(stream))
                stream.sendall(canned)


def read_request(stream: ssl.SSLSocket) -> bytes:
    """One request with its whole body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += stream.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def certificate(identity: str) -> str:
    """The certificate of an identity."""
    return identity[identity.index("-----BEGIN CERTIFICATE") :]
