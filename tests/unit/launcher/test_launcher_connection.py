"""TLS to the CAS: own key, trust in the server, time limits, retries."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.simulators.cas import CasSimulator, configuration

from ostiary.errors import ConfigurationError, InputError, OutsideError
from ostiary.launcher import connection
from ostiary.launcher.connection import MAX_REQUEST_BYTES, Connection, connect


@pytest.fixture
def cas() -> Iterator[CasSimulator]:
    with CasSimulator(configuration()) as simulator:
        yield simulator


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where `serve` has the first connection to itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            stream, _ = server.accept()
            with stream:
                serve(stream)

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def open_connection(cas: CasSimulator, *, cas_ca: Path | None = None) -> Connection:
    return connect("127.0.0.1", cas.port, cas_ca=str(cas_ca) if cas_ca else None, retries=0)


def test_both_ends_agree_on_the_keys(cas: CasSimulator) -> None:
    stream = open_connection(cas)
    assert stream.post("/v1/challenge", b"").status == 200
    stream.close()
    assert cas.seen.client_spkis == [stream.client_spki]
    assert stream.server_spki == cas.spki


def test_each_connection_has_a_key_of_its_own(cas: CasSimulator) -> None:
    keys = set()
    for _ in range(2):
        stream = open_connection(cas)
        keys.add(stream.client_spki)
        stream.close()
    assert len(keys) == 2


def test_the_memory_that_held_the_key_is_closed(cas: CasSimulator) -> None:
    stream = open_connection(cas)
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    names = [os.readlink(link) for link in links if os.path.lexists(link)]
    stream.close()
    assert any(name.startswith("socket:") for name in names)
    assert not any("ostiary-identity" in name for name in names)


@pytest.mark.parametrize("which", ["root", "leaf"])
def test_a_server_under_the_anchor_is_trusted(cas: CasSimulator, which: str, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.pem"
    anchor.write_bytes(cas.ca_pem if which == "root" else cas.leaf_pem)
    stream = open_connection(cas, cas_ca=anchor)
    assert stream.post("/v1/challenge", b"").status == 200
    stream.close()


def test_a_server_under_another_anchor_is_refused_at_once(cas: CasSimulator, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.pem"
    with CasSimulator(configuration()) as other:
        anchor.write_bytes(other.ca_pem)
    with pytest.raises(OutsideError, match=r"is not the CAS that --cas-ca names: .*certificate"):
        connect("127.0.0.1", cas.port, cas_ca=str(anchor), retries=3)
    assert cas.seen.connections == 1, "an answer is not retried"
    assert cas.seen.paths == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"no pem", "no PEM certificates can be read")]
)
def test_an_anchor_that_cannot_be_read_is_our_mistake(content: bytes | None, message: str, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.pem"
    if content is not None:
        anchor.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        connect("127.0.0.1", 1, cas_ca=str(anchor), retries=0)


@pytest.mark.parametrize("dropped", [1, 2])
def test_connections_that_fail_are_tried_again(dropped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_WAIT_SECONDS", 0.01)
    with CasSimulator(configuration(), drop=dropped) as cas:
        stream = connect("127.0.0.1", cas.port, cas_ca=None, retries=2)
        assert stream.post("/v1/challenge", b"").status == 200
        stream.close()
    assert cas.seen.connections == dropped + 1


def test_retries_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_WAIT_SECONDS", 0.01)
    with CasSimulator(configuration(), drop=9) as cas:
        with pytest.raises(OutsideError, match=f"cannot connect to the CAS at 127.0.0.1:{cas.port}: "):
            connect("127.0.0.1", cas.port, cas_ca=None, retries=2)
        assert cas.seen.connections == 3


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OutsideError, match=f"cannot connect to the CAS at 127.0.0.1:{port}: Connection refused"):
        connect("127.0.0.1", port, cas_ca=None, retries=0)


def test_ipv6_is_named_in_brackets() -> None:
    with pytest.raises(OutsideError, match=r"cannot connect to the CAS at \[::1\]:1: "):
        connect("::1", 1, cas_ca=None, retries=0)


@pytest.mark.parametrize(
    ("host", "message"),
    [("ostiary.invalid", "cannot connect"), ("ä.invalid", "cannot connect"), ("ä" * 80, "is not a host")],
)
def test_names_that_lead_nowhere(host: str, message: str) -> None:
    with pytest.raises(OutsideError, match=message):
        connect(host, 1, cas_ca=None, retries=0)


def test_a_server_that_speaks_no_tls_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_WAIT_SECONDS", 60.0)
    with (
        listener(lambda stream: stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port,
        pytest.raises(OutsideError, match=r"cannot connect to the CAS at .*: .*WRONG_VERSION_NUMBER|wrong version"),
    ):
        connect("127.0.0.1", port, cas_ca=None, retries=1)


def test_a_server_that_never_ends_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    ended = threading.Event()
    with listener(lambda _: _wait(ended)) as port:
        with pytest.raises(OutsideError, match=r"cannot connect to the CAS at .*: .*timed out"):
            connect("127.0.0.1", port, cas_ca=None, retries=0)
        ended.set()


def _wait(event: threading.Event) -> None:
    event.wait(10)


def test_an_answer_that_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def late() -> bytes | None:
        ended.wait(10)
        return None

    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.1)
    with CasSimulator(configuration(), script={"/v1/challenge": late}) as cas:
        stream = open_connection(cas)
        with pytest.raises(OutsideError, match="the CAS did not answer /v1/challenge within 0 s"):
            stream.post("/v1/challenge", b"")
        stream.close()
        ended.set()


def test_the_limit_holds_for_the_answer_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a byte now and then does not keep us for ever."""
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.3)
    with CasSimulator(configuration(), drip=0.05) as cas:
        stream = open_connection(cas)
        started = time.monotonic()
        with pytest.raises(OutsideError, match="did not answer"):
            stream.post("/v1/challenge", b"")
        assert time.monotonic() - started < 5
        stream.close()


def test_a_closed_connection() -> None:
    with CasSimulator(configuration(), script={"/v1/challenge": lambda: None}) as cas:
        stream = open_connection(cas)
        with pytest.raises(OutsideError, match="closed the connection before its answer was complete"):
            stream.post("/v1/challenge", b"")
        with pytest.raises(
            OutsideError, match=r"the connection to the CAS broke during /v1/configure|closed the connection"
        ):
            stream.post("/v1/configure", b"x" * MAX_REQUEST_BYTES)
        stream.close()


@pytest.mark.parametrize("body", [b"", b"{", b'{"nonce": "'])
def test_a_body_that_ends_before_its_announced_length_is_not_taken_for_an_answer(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n"
    with CasSimulator(configuration(), script={"/v1/challenge": lambda: head + body}) as cas:
        stream = open_connection(cas)
        with pytest.raises(OutsideError, match="closed the connection before its answer was complete"):
            stream.post("/v1/challenge", b"")
        stream.close()


def test_an_answer_over_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 10)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b"x" * 11
    with CasSimulator(configuration(), script={"/v1/challenge": lambda: answer}) as cas:
        stream = open_connection(cas)
        with pytest.raises(InputError, match="an answer of more than 10 bytes"):
            stream.post("/v1/challenge", b"")
        stream.close()


def test_an_answer_that_is_no_http() -> None:
    with CasSimulator(configuration(), script={"/v1/challenge": lambda: b"hello\r\n\r\n"}) as cas:
        stream = open_connection(cas)
        with pytest.raises(InputError, match=r"did not answer in HTTP; is this a CAS.s enclave port.: BadStatusLine"):
            stream.post("/v1/challenge", b"")
        stream.close()


def test_a_request_that_the_cas_would_not_take_is_not_sent(cas: CasSimulator) -> None:
    stream = open_connection(cas)
    with pytest.raises(OutsideError, match="the request has 1572865 bytes, the CAS takes 1572864"):
        stream.post("/v1/configure", bytes(MAX_REQUEST_BYTES + 1))
    stream.close()
    assert cas.seen.paths == []


def test_a_kernel_without_memory_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gramine's: the fresh key is in no file with a name, so there is no start without them."""

    def refuse(_name: str, _flags: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OutsideError, match=r"memory for the fresh TLS key .*: Function not implemented"):
        connect("127.0.0.1", 1, cas_ca=None, retries=0)
