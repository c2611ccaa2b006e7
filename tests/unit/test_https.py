"""Requests to servers outside: who is believed, what is too much, and that time ends."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from tests.simulators.outside import LOOPBACK, TIMEOUT_SECONDS, Answering, Outside, make_certificate

from ostiary.errors import ConfigurationError, OutsideError
from ostiary.https import ask, trusting


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Callable[..., Outside]]:
    made: list[Outside] = []

    def make(answering: Answering, *names: x509.GeneralName) -> Outside:
        made.append(Outside(tmp_path, answering, *names))
        return made[-1]

    yield make
    for server in made:
        server.close()


def saying(data: bytes) -> Answering:
    return lambda _request, stream: stream.sendall(data)


def test_an_answer_has_status_headers_and_body(outside: Callable[..., Outside]) -> None:
    server = outside(saying(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno"))
    answer = ask(f"{server.url}/a/b?c=d", trust=trusting(server.certificate), method="POST", body=b"x=1")
    assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "7", b"no")
    assert server.requests[0].startswith(b"POST /a/b?c=d HTTP/1.1\r\n")
    assert server.requests[0].endswith(b"\r\n\r\nx=1")


def test_an_answer_without_a_length_ends_with_the_connection(outside: Callable[..., Outside]) -> None:
    server = outside(saying(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
    assert ask(server.url, trust=trusting(server.certificate)).body == b"all of it"


def test_the_answer_is_in_no_repr(outside: Callable[..., Outside]) -> None:
    server = outside(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"))
    assert "secret" not in repr(ask(server.url, trust=trusting(server.certificate)))


def test_a_server_that_nothing_vouches_for_is_refused(outside: Callable[..., Outside]) -> None:
    server = outside(saying(b""))
    _, other = make_certificate(LOOPBACK)
    with pytest.raises(OutsideError, match=r"127\.0\.0\.1 does not prove its name: self-signed certificate"):
        ask(server.url, trust=trusting(other))
    with pytest.raises(OutsideError, match="does not prove its name"):
        ask(server.url, trust=trusting())


def test_a_server_with_another_name_is_refused(outside: Callable[..., Outside]) -> None:
    server = outside(saying(b""), x509.DNSName("vault.example"))
    with pytest.raises(OutsideError, match="does not prove its name: IP address mismatch"):
        ask(server.url, trust=trusting(server.certificate))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the connection was closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "closed before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "closed before the answer was complete"),
        (b"garbage\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n", "more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000 + b"\r\n\r\n", "more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, "more than 100 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101, "more than 100 bytes"),
    ],
)
def test_an_answer_that_is_none_is_refused(outside: Callable[..., Outside], data: bytes, reason: str) -> None:
    server = outside(saying(data))
    with pytest.raises(OutsideError, match=reason):
        ask(f"{server.url}/secret-path", trust=trusting(server.certificate), max_bytes=100)


def test_a_server_that_drips_does_not_get_more_time(outside: Callable[..., Outside]) -> None:
    stopped = threading.Event()

    def drip(_request: bytes, stream: ssl.SSLSocket) -> None:
        stream.sendall(b"HTTP/1.1 200 OK\r\nA: ")
        try:
            while not stopped.wait(0.05):
                stream.sendall(b"x")
        except OSError:
            stopped.set()

    server = outside(drip)
    with pytest.raises(OutsideError, match=r"127\.0\.0\.1 does not answer: timed out"):
        ask(server.url, trust=trusting(server.certificate), seconds=0.5)
    assert stopped.wait(TIMEOUT_SECONDS)


def test_nobody_listening_is_said_without_the_path() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OutsideError) as caught:
        ask(f"https://127.0.0.1:{port}/token?code=secret", trust=trusting())
    assert str(caught.value) == "127.0.0.1 does not answer: Connection refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "https://",
        "https://a.example:99999/",
        "https://u:p@a.example/",
        "https://a.example/#x",
        "https://a.example/\r\nX: y",
        "https://a.example/ b",
        "https://ä.example/",
        "https://[::1",
        "",
    ],
)
def test_another_form_of_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected https://|no https URL"):
        ask(url, trust=trusting())


def test_anchors_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="certificates to trust cannot be read"):
        trusting("no certificate")
