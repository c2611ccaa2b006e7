"""Connections that are slow, half-open, odd, or too many: the service answers, refuses or hangs up, and stays up."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.processes import serve_process
from tests.simulators.service import TIMEOUT_SECONDS, Client, RunningService, exchange, make_client

from ostiary.server import limits


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines short enough to be met in a test; what is tested is that they are enforced at all."""
    for name in ("HANDSHAKE_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(limits, name, 0.2)


def answers(service: RunningService) -> None:
    """The service still does its work."""
    assert Client().request(service.client_port, "GET", "/v1/version").status == 200


def is_hung_up(connection: socket.socket, *, after_an_answer: bool = False) -> bool:
    """Whether the service ends the connection, within a generous time."""
    readable, _, _ = select.select([connection], [], [], TIMEOUT_SECONDS)
    if not readable:
        return False
    received = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        received = connection.recv(4096)
        while received and after_an_answer:
            received = connection.recv(4096)
    return received == b""


def raw_connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)


@contextlib.contextmanager
def tls_connection(port: int, client: Client) -> Iterator[ssl.SSLSocket]:
    with raw_connection(port) as raw, client.context().wrap_socket(raw) as connection:
        yield connection


def test_who_never_begins_the_handshake_is_hung_up_on(service: RunningService, impatient: None) -> None:
    with raw_connection(service.client_port) as connection:
        assert is_hung_up(connection)
    answers(service)


def test_who_stops_inside_the_handshake_is_hung_up_on(service: RunningService, impatient: None) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = Client().context().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        engine.do_handshake()
    hello = outgoing.read()
    with raw_connection(service.enclave_port) as connection:
        connection.sendall(hello[: len(hello) // 2])
        assert is_hung_up(connection)
    answers(service)


@pytest.mark.parametrize("sent", [
    b"",
    b"POST /session HTTP/1.1\r\nHost: x\r\n",
    b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nname: x",
], ids=["nothing", "half the headers", "half the body"])  # fmt: skip
def test_who_never_ends_a_request_is_hung_up_on(
    service: RunningService, alice: Client, impatient: None, sent: bytes
) -> None:
    with tls_connection(service.client_port, alice) as connection:
        connection.sendall(sent)
        assert is_hung_up(connection)
    answers(service)


def test_what_is_no_tls_is_hung_up_on(service: RunningService) -> None:
    with raw_connection(service.client_port) as connection:
        connection.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(4096)  # the alert
        assert is_hung_up(connection)
    answers(service)


def test_what_is_no_http_is_told_so(service: RunningService, alice: Client) -> None:
    with tls_connection(service.client_port, alice) as connection:
        connection.sendall(b"\x16\x03 what?\r\n\r\n")
        head, _, body = connection.recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["msg"]
    answers(service)


ENDLESS = {
    "URL": b"GET /",
    "header name": b"GET /v1/version HTTP/1.1\r\nHost: x\r\n",
    "header value": b"GET /v1/version HTTP/1.1\r\nHost: x\r\nX: ",
    "chunk extension": b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;",
    "trailer": b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
}


@pytest.mark.parametrize("place", ENDLESS)
def test_what_never_ends_outside_a_body_is_cut_off(service: RunningService, place: str) -> None:
    """The parser itself would gather it for ever, and ever more slowly."""
    with tls_connection(service.client_port, Client()) as connection:
        connection.sendall(ENDLESS[place])
        with contextlib.suppress(OSError):
            for _ in range(64):
                connection.sendall(b"a" * 65536)
        assert is_hung_up(connection, after_an_answer=True)
    answers(service)


def test_small_chunks_of_a_body_within_the_bound_are_no_flood(service: RunningService, alice: Client) -> None:
    body = b"name: chunked\nversion: '0.3.10'\n" + b"# comment\n" * 2000
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (body[at : at + 100] for at in range(0, len(body), 100))
    )
    with tls_connection(service.client_port, alice) as connection:
        connection.sendall(
            b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")


def test_a_body_far_over_the_bound_gets_its_answer_before_the_connection_ends(service: RunningService) -> None:
    """The sender is still sending when it is told; a reset would take the answer from it."""
    for _ in range(5):
        with tls_connection(service.client_port, Client()) as connection:
            connection.sendall(b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n")
            with contextlib.suppress(OSError):
                connection.sendall(b"#" * 20_000_000)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_who_closes_its_side_after_a_request_still_gets_the_answer(service: RunningService, alice: Client) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = alice.context().wrap_bio(incoming, outgoing)
    with raw_connection(service.client_port) as raw:
        while True:
            try:
                engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        engine.write(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.sendall(outgoing.read())
        raw.shutdown(socket.SHUT_WR)
        while part := raw.recv(65536):
            incoming.write(part)
        assert engine.read(4096).startswith(b"HTTP/1.1 200 ")


def test_renegotiation_is_refused_at_once_and_the_connection_goes_on(service: RunningService) -> None:
    """TLS 1.2: the refusal is an alert of its own, not one that waits for the next answer."""
    address = f"127.0.0.1:{service.client_port}"
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", address, "-tls1_2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        out, _ = client.communicate(b"R\nGET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", timeout=20)
    finally:
        client.kill()
        client.wait()
    assert b"no renegotiation" in out or b"200 OK" in out


def test_an_upgrade_is_not_taken_up(service: RunningService, caplog: pytest.LogCaptureFixture) -> None:
    with tls_connection(service.client_port, Client()) as connection:
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        connection.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n" + upgrade)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert "pip install" not in caplog.text


def test_headers_over_the_bound_are_refused(service: RunningService, alice: Client) -> None:
    with tls_connection(service.client_port, alice) as connection:
        connection.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\nX: " + b"y" * limits.MAX_HEADER_BYTES + b"\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    answers(service)


def test_several_requests_use_one_connection_with_one_identity(service: RunningService, alice: Client) -> None:
    with contextlib.closing(alice.connect(service.client_port)) as connection:
        session = b"name: kept-connection\nversion: '0.3.10'\n"
        assert exchange(connection, "POST", "/session", session).status == 201
        assert exchange(connection, "GET", "/session/kept-connection").status == 200


def test_requests_sent_at_once_are_answered_in_order(service: RunningService, alice: Client) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    with tls_connection(service.client_port, alice) as connection:
        connection.sendall(request % b"/v1/version" + request % b"/session/none")
        received = b""
        while received.count(b"HTTP/1.1 ") < 2 or not received.endswith(b"}"):
            received += connection.recv(65536)
    assert received.index(b"HTTP/1.1 200 ") < received.index(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(service: RunningService, alice: Client, version: ssl.TLSVersion) -> None:
    context = alice.context()
    context.minimum_version = context.maximum_version = version
    with raw_connection(service.client_port) as raw, context.wrap_socket(raw) as connection:
        assert connection.version() == version.name.replace("_", ".")


def test_tls_1_1_is_not_spoken(service: RunningService) -> None:
    done = subprocess.run(
        [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{service.client_port}",
            "-tls1_1",
            "-cipher",
            "ALL:@SECLEVEL=0",
        ],
        input=b"",
        capture_output=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode != 0
    assert b"alert" in done.stderr


def test_the_certificate_verifies_under_the_service_s_own_root(service: RunningService) -> None:
    context = ssl.create_default_context(cafile=service.ca_file)
    for name in ("cas", "localhost"):
        with raw_connection(service.client_port) as raw, context.wrap_socket(raw, server_hostname=name) as connection:
            assert connection.getpeercert()


def test_the_certificate_does_not_verify_for_another_name(service: RunningService) -> None:
    context = ssl.create_default_context(cafile=service.ca_file)
    with raw_connection(service.client_port) as raw, pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        context.wrap_socket(raw, server_hostname="example.com")


KEYS = {
    "RSA-4096": ("-newkey", "rsa:4096"),
    "RSA-PSS": ("-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"),
    "P-384": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"),
    "P-521": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"),
    "Ed25519": ("-newkey", "ed25519"),
    "a CA certificate, serial 1": (
        *("-newkey", "rsa:2048", "-set_serial", "1"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    ),
    "for servers only": (
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-addext", "extendedKeyUsage=critical,serverAuth"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_any_self_signed_certificate_is_an_identity(service: RunningService, tmp_path: Path, kind: str) -> None:
    """What a certificate says is not looked at; only its key counts."""
    client = make_client(tmp_path, "odd", *KEYS[kind])
    name = f"odd-{list(KEYS).index(kind)}"
    assert (
        client.request(service.client_port, "POST", "/session", f"name: {name}\nversion: '0.3.10'\n".encode()).status
        == 201
    )
    session = client.request(service.client_port, "GET", f"/session/{name}")
    assert session.status == 200
    # What is recorded as creator is the same identity when it comes back as text.
    again = session.body["session"].replace(f"name: {name}", f"name: {name}-again")
    assert client.request(service.client_port, "POST", "/session", again.encode()).status == 201


def test_an_expired_certificate_is_an_identity(service: RunningService, tmp_path: Path) -> None:
    client = make_client(tmp_path, "old")
    assert client.certificate is not None
    assert client.key is not None
    subprocess.run(
        [
            *("openssl", "x509", "-in", str(client.certificate), "-signkey", str(client.key), "-days", "-1"),
            *("-out", str(client.certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert client.request(service.client_port, "POST", "/session", b"name: old\nversion: '0.3.10'\n").status == 201


def test_a_renewed_certificate_of_the_same_key_is_the_same_identity(
    service: RunningService, alice: Client, tmp_path: Path
) -> None:
    """F176: a certificate admits by its key."""
    assert alice.request(service.client_port, "POST", "/session", b"name: renewed\nversion: '0.3.10'\n").status == 201
    renewed = tmp_path / "renewed.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-key",
            str(alice.key),
            "-subj",
            "/CN=alice again",
            "-days",
            "9",
            "-out",
            str(renewed),
        ],
        check=True,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
    )
    again = Client(certificate=renewed, key=alice.key)
    assert again.request(service.client_port, "GET", "/session/renewed").status == 200


def test_a_key_too_weak_to_be_an_identity_is_refused_in_the_handshake(service: RunningService, tmp_path: Path) -> None:
    client = make_client(tmp_path, "weak", "-newkey", "rsa:1024")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(str(client.certificate), client.key)
    with raw_connection(service.client_port) as raw, context.wrap_socket(raw) as connection:
        # With TLS 1.3 a client learns only afterwards that its certificate was refused.
        connection.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_hung_up(connection)
    answers(service)


def test_a_resumed_connection_never_comes_without_its_certificate(service: RunningService, alice: Client) -> None:
    """No tickets are given out that would let a client come back without showing its key."""
    context = alice.context()
    with raw_connection(service.client_port) as raw, context.wrap_socket(raw) as first:
        first.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
        first.recv(4096)
        session = first.session
    with raw_connection(service.client_port) as raw, context.wrap_socket(raw, session=session) as second:
        assert not second.session_reused


def test_ten_thousand_idle_connections_do_not_keep_others_out(tmp_path: Path) -> None:
    """More connections than the listener holds: the oldest that never shook hands make room."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with serve_process(tmp_path / "data") as served, contextlib.ExitStack() as idle:
        port = int(served["client"].rpartition(":")[2])
        for _ in range(min(10_000, most - 512)):
            idle.enter_context(raw_connection(port))
        assert Client().request(port, "GET", "/v1/version").status == 200
        idle.close()
        assert Client().request(port, "GET", "/v1/version").status == 200
