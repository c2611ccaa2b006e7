"""The REST client: who it believes, what it makes of answers, and when it tries again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.simulators.canned import SERVER, TIMEOUT_SECONDS, Server, answer, certificate, serving

from ostiary.cli.identity import make_identity
from ostiary.client import DEFAULT_RETRIES, Address, Client, StoredText, Uploaded, parse_address
from ostiary.errors import (
    AwayError,
    ConfigurationError,
    ConflictError,
    IdentityRequiredError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OstiaryError,
    OutsideError,
    TooLargeError,
)

DIGEST = "ab" * 32


@pytest.fixture
def waits() -> list[float]:
    return []


def client(
    server: Server, waits: list[float], *, anchors: str | None = certificate(SERVER), retries: int = 0
) -> Client:
    return Client(server.address, anchors=anchors, identity=None, retries=retries, wait=waits.append)


def test_an_upload_is_one_request_and_gives_hash_and_warnings(tmp_path: Path, waits: list[float]) -> None:
    told = {"hash": DIGEST, "warnings": [["outer", "cause"], "x", [3], ["bell \a"]]}
    with serving(tmp_path, [answer(201, told)]) as server:
        uploaded = client(server, waits).upload("name: ä")
    assert uploaded == Uploaded(session_hash=bytes.fromhex(DIGEST), warnings=(("outer", "cause"), ("bell \\x07",)))
    assert server.requests[0].startswith(b"POST /v1/sessions HTTP/1.1\r\n")
    assert server.requests[0].endswith("\r\n\r\nname: ä".encode())


def test_signed_and_encrypted_sessions_are_put_as_json(tmp_path: Path, waits: list[float]) -> None:
    told = answer(201, {"hash": DIGEST, "warnings": []})
    with serving(tmp_path, [told, told]) as server:
        assert client(server, waits).upload_signed("{1}").session_hash.hex() == DIGEST
        assert client(server, waits).upload_encrypted("{2}").session_hash.hex() == DIGEST
    for request, path, body in zip(server.requests, ("signed", "encrypted"), (b"{1}", b"{2}"), strict=True):
        assert request.startswith(f"PUT /v1/{path}_sessions HTTP/1.1\r\n".encode())
        assert b"Content-Type: application/json\r\n" in request
        assert request.endswith(b"\r\n\r\n" + body)


def test_hash_and_encryption_key_are_asked_for_by_address(tmp_path: Path, waits: list[float]) -> None:
    told = [answer(200, {"hash": DIGEST}), answer(200, {"session_encryption_key": DIGEST})]
    with serving(tmp_path, told) as server:
        assert client(server, waits).read_hash("/a/b c").hex() == DIGEST
        assert client(server, waits).session_encryption_key().hex() == DIGEST
    assert server.requests[0].startswith(b"GET /v1/session_hashes/a/b%20c HTTP/1.1\r\n")
    assert server.requests[1].startswith(b"GET /v1/session_encryption_key HTTP/1.1\r\n")


def test_a_list_of_sessions_is_asked_for_until_it_ends(tmp_path: Path, waits: list[float]) -> None:
    told = [answer(200, {"sessions": ["a/b"], "next": 7}), answer(200, {"sessions": ["a/c"], "next": None})]
    with serving(tmp_path, told) as server:
        assert client(server, waits).sessions("a b") == ("a/b", "a/c")
    assert server.requests[0].startswith(b"GET /v1/sessions?namespace=a+b&from=0 HTTP/1.1\r\n")
    assert server.requests[1].startswith(b"GET /v1/sessions?namespace=a+b&from=7 HTTP/1.1\r\n")


@pytest.mark.parametrize(("value", "says"), [
    ({}, "its answer has no list of sessions"),
    ({"sessions": [5], "next": None}, "its answer has no list of sessions"),
    ({"sessions": ["\x1b[2J"], "next": None}, "its answer has no list of sessions"),
    ({"sessions": [], "next": 0}, "its list of sessions never ends"),
    ({"sessions": [], "next": "1"}, "its list of sessions never ends"),
])  # fmt: skip
def test_a_list_of_sessions_that_no_cas_gives_is_refused(
    tmp_path: Path, waits: list[float], value: object, says: str
) -> None:
    with serving(tmp_path, [answer(200, value)]) as server, pytest.raises(OutsideError, match=says):
        client(server, waits).sessions("/")


@pytest.mark.parametrize(("canned", "is_away"), [
    (answer(503, {"msg": ["the service is ending"]}), True),
    (answer(502, b"<html>nginx</html>"), True),
    (b"", True),
    (None, True),
    (answer(404, b"<html>nginx</html>"), False),
    (answer(404, {"msg": ["no such path; this listener has POST /v1/configure"]}), False),
    (answer(200, []), False),
])  # fmt: skip
def test_a_service_that_may_answer_later_is_told_from_what_is_none(
    tmp_path: Path, waits: list[float], canned: bytes | None, is_away: bool
) -> None:
    with serving(tmp_path, [canned]) as server, pytest.raises(OutsideError) as caught:
        client(server, waits, retries=0).read("a")
    assert isinstance(caught.value, AwayError) == is_away


@pytest.mark.parametrize("status", [500, 503])
def test_trouble_of_the_cas_is_told_in_its_words(tmp_path: Path, waits: list[float], status: int) -> None:
    says = r"^CAS .* failed at reading session 'a': not now: read again$"
    canned = answer(status, {"msg": ["not now", "read again"]})
    with serving(tmp_path, [canned]) as server, pytest.raises(OutsideError, match=says):
        client(server, waits).read("a")


@pytest.mark.parametrize("value", [{}, {"hash": "12", "session_encryption_key": 5}, {"hash": None}])
def test_an_answer_without_hash_or_key_is_none_that_a_cas_gives(
    tmp_path: Path, waits: list[float], value: object
) -> None:
    with serving(tmp_path, [answer(200, value), answer(200, value)]) as server:
        with pytest.raises(OutsideError, match="did not answer as a CAS does: its answer has no session hash"):
            client(server, waits).read_hash("x")
        with pytest.raises(OutsideError, match="its answer has no session encryption key"):
            client(server, waits).session_encryption_key()


def test_a_read_names_session_and_version_in_the_path(tmp_path: Path, waits: list[float]) -> None:
    told = [answer(200, {"session": "name: x", "hash": DIGEST}), answer(200, {"session": "name: y"})]
    with serving(tmp_path, told) as server:
        found = client(server, waits).read("/a/b c?d", session_hash=bytes.fromhex(DIGEST))
        old = client(server, waits).read("~y")
    assert found == StoredText(text="name: x", session_hash=bytes.fromhex(DIGEST))
    assert old == StoredText(text="name: y", session_hash=None)
    assert server.requests[0].startswith(b"GET /v1/sessions/a/b%20c%3Fd?hash=" + DIGEST.encode() + b" HTTP/1.1\r\n")
    assert server.requests[1].startswith(b"GET /v1/sessions/~y HTTP/1.1\r\n")


@pytest.mark.parametrize(("status", "kind"), [
    (400, InputError), (401, IdentityRequiredError), (403, NotAuthorizedError), (404, NotFoundError),
    (409, ConflictError), (413, TooLargeError),
])  # fmt: skip
def test_a_refusal_is_an_error_of_its_kind_with_the_words_of_the_service(
    tmp_path: Path, waits: list[float], status: int, kind: type[OstiaryError]
) -> None:
    """Never tried again, and what the service says twice is told once, without control characters."""
    told = {"msg": ["Failed to read session 'x': no\x1b[2J", "no\x1b[2J", 5], "version": "1"}
    with serving(tmp_path, [answer(status, told)]) as server, pytest.raises(kind) as caught:
        client(server, waits, retries=3).read("x")
    assert type(caught.value) is kind
    assert caught.value.message == f"CAS 127.0.0.1:{server.port} refused reading session 'x'"
    assert caught.value.causes == ("Failed to read session 'x'", "no\\x1b[2J")
    assert waits == []


@pytest.mark.parametrize("canned", [
    answer(404, b"<html>nginx</html>"),
    answer(404, {"detail": "no"}),
    answer(500, {"message": ["internal"]}),
    answer(302, {"msg": ["over there"]}),
    answer(200, b""),
    answer(200, b"[" * 100_000),
    answer(200, []),
    answer(200, {"hash": DIGEST}),
    answer(200, {"session": 5}),
])  # fmt: skip
def test_what_no_cas_answers_to_a_read_is_an_error_of_the_outside(
    tmp_path: Path, waits: list[float], canned: bytes
) -> None:
    with serving(tmp_path, [canned]) as server, pytest.raises(OutsideError, match="did not answer as a CAS does"):
        client(server, waits, retries=3).read("x")
    assert waits == []


@pytest.mark.parametrize("value", [{}, {"hash": "12"}, {"hash": "xy" * 32}, {"hash": 5}])
def test_an_upload_without_a_hash_in_the_answer_is_an_error(tmp_path: Path, waits: list[float], value: object) -> None:
    with serving(tmp_path, [answer(201, value)]) as server, pytest.raises(OutsideError, match="no session hash"):
        client(server, waits).upload("x")


def test_an_answer_over_the_bound_is_refused(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.client.MAX_ANSWER_BYTES", 100)
    canned = answer(200, {"session": "x" * 100})
    with serving(tmp_path, [canned]) as server, pytest.raises(OutsideError, match="more than 100 bytes"):
        client(server, waits).read("x")


def test_a_server_of_another_certificate_is_not_believed_and_not_tried_again(
    tmp_path: Path, waits: list[float]
) -> None:
    other = certificate(make_identity())
    with serving(tmp_path, [b"never sent"]) as server, pytest.raises(OutsideError, match="is not the CAS") as caught:
        client(server, waits, anchors=other, retries=3).read("x")
    assert "certificate" in caught.value.causes[0]
    assert (waits, server.requests) == ([], [])


def test_without_anchors_any_server_is_accepted(tmp_path: Path, waits: list[float]) -> None:
    with serving(tmp_path, [answer(200, {"session": "x"})]) as server:
        assert client(server, waits, anchors=None).read("x").text == "x"


def test_a_read_is_tried_again_after_network_failures_with_growing_waits(tmp_path: Path, waits: list[float]) -> None:
    told: list[bytes | None] = [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", None, None, None]
    with serving(tmp_path, [*told, answer(200, {"session": "x"})]) as server:
        assert client(server, waits, retries=6).read("x").text == "x"
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_an_upload_is_tried_again_only_while_no_connection_came_about(tmp_path: Path, waits: list[float]) -> None:
    with serving(tmp_path, [None, answer(201, {"hash": DIGEST})]) as server:
        client(server, waits, retries=3).upload("x")
    assert waits == [0.5]
    waits.clear()
    with serving(tmp_path, [b""]) as server, pytest.raises(OutsideError, match="may have been stored"):
        client(server, waits, retries=3).upload("x")
    assert (waits, len(server.requests)) == ([], 1)


def test_when_tries_run_out_the_last_failure_is_told(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    away = Client(Address(host="127.0.0.1", port=port), anchors=None, identity=None, retries=2, wait=waits.append)
    with pytest.raises(OutsideError) as caught:
        away.read("x")
    assert caught.value.chain == (f"cannot connect to CAS 127.0.0.1:{port}", "Connection refused")
    assert waits == [0.5, 1.0]
    assert DEFAULT_RETRIES == 3


def test_a_server_that_speaks_no_tls_is_not_tried_again(waits: list[float]) -> None:
    def speak(listener: socket.socket) -> None:
        with listener.accept()[0] as plain:
            plain.recv(10_000)
            plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        plain = Client(Address(host="127.0.0.1", port=port), anchors=None, identity=None, retries=3, wait=waits.append)
        with pytest.raises(OutsideError, match="cannot connect"):
            plain.read("x")
        thread.join(TIMEOUT_SECONDS)
    assert waits == []


@pytest.mark.parametrize("make", [
    lambda address: Client(address, anchors="no certificate", identity=None),
    lambda address: Client(address, anchors=None, identity="no identity"),
    lambda address: Client(address, anchors=None, identity=certificate(SERVER)),
])  # fmt: skip
def test_what_cannot_be_loaded_is_refused_before_anything_is_sent(make: Callable[[Address], Client]) -> None:
    with pytest.raises(ConfigurationError, match="cannot be"):
        make(Address(host="127.0.0.1"))


@pytest.mark.parametrize(("text", "url"), [
    ("cas", "https://cas:8081/"),
    ("cas:1", "https://cas:1/"),
    ("https://cas", "https://cas:8081/"),
    ("https://cas:1/", "https://cas:1/"),
    ("127.0.0.1:8081", "https://127.0.0.1:8081/"),
    ("[::1]", "https://[::1]:8081/"),
    ("[::1]:1", "https://[::1]:1/"),
])  # fmt: skip
def test_addresses(text: str, url: str) -> None:
    assert str(parse_address(text)) == url


@pytest.mark.parametrize("text", [
    "", ":1", "http://cas", "https://", "cas:x", "cas:70000", "cas:0", "cas/path", "a b", "me@cas", "https://cas/?q",
    "cas\n", "[::1", "cas:-1",
])  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address of a CAS"):
        parse_address(text)
