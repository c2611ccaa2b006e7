"""One request to a server outside, over HTTPS, with an end to its size and its time: key vaults, vendors, witnesses.

It follows no redirect, keeps no connection and sends no cookie. Blocking: the server calls it on a thread.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ostiary.errors import ConfigurationError, OutsideError

DEFAULT_SECONDS = 10.0
"""For the whole request, from the first address tried to the last byte of the answer."""
DEFAULT_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Answer:
    """status: of HTTP. headers: names in lower case; of repeated ones the last. body: never in a repr."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def trusting(anchors: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer to servers whose certificate bears their name.

    anchors: PEM certificates, of which one must vouch for the server; None takes those of the operating system.
    Raises ConfigurationError if they cannot be read.
    """
    context = ssl.create_default_context() if anchors is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if anchors is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(cadata=anchors)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError("certificates to trust cannot be read", _reason(error)) from error
    return context


def ask(
    url: str,
    *,
    trust: ssl.SSLContext,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds: float = DEFAULT_SECONDS,
    max_bytes: int = DEFAULT_ANSWER_BYTES,
) -> Answer:
    """What the server at `url` answers, whatever the status; the caller judges it.

    url: `https://HOST[:PORT]/PATH[?QUERY]`. Raises OutsideError, which names the host and never path, query, headers or
    body: no connection, not the server of that name, broken off, over `max_bytes`, not done after `seconds`; and
    ConfigurationError for a url of another form.
    """
    host, port, target = _parts(url)
    deadline = _Deadline(seconds)
    try:
        with (
            socket.create_connection((host, port), timeout=seconds) as plain,
            deadline.over(plain),
            trust.wrap_socket(plain, server_hostname=host) as stream,
        ):
            connection = http.client.HTTPSConnection(host, port)
            connection.sock = stream
            connection.request(method, target, body, {**(headers or {}), "Connection": "close"})
            with connection.getresponse() as response:
                content = _body(response, host, max_bytes)
                answered = {name.lower(): value for name, value in response.getheaders()}
        deadline.check()
    except ssl.SSLCertVerificationError as error:
        raise OutsideError(f"{host} does not prove its name", error.verify_message) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = "timed out" if deadline.passed else _reason(error)
        raise OutsideError(f"{host} does not answer", reason) from error
    return Answer(status=response.status, headers=answered, body=content)


class _Deadline:
    """Ends a connection when its time is over, also one whose server sends a byte now and then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.passed = False

    @contextlib.contextmanager
    def over(self, connection: socket.socket) -> Iterator[None]:
        # A descriptor of its own, since TLS takes the socket's away.
        with socket.socket(fileno=os.dup(connection.fileno())) as handle:
            timer = threading.Timer(self._seconds, self._end, (handle,))
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()

    def check(self) -> None:
        """Raise TimeoutError if the connection was ended here: its end looks like that of an answer without length."""
        if self.passed:
            raise TimeoutError

    def _end(self, handle: socket.socket) -> None:
        self.passed = True
        with contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)


def _body(response: http.client.HTTPResponse, host: str, max_bytes: int) -> bytes:
    content = response.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OutsideError(f"{host} answers with more than {max_bytes} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return content


def _parts(url: str) -> tuple[str, int, str]:
    """Host, port, and path with query."""
    try:
        parts = urlsplit(url)
        port = parts.port or http.client.HTTPS_PORT
    except ValueError as error:
        raise ConfigurationError("an address that is no https URL", str(error)) from None
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme != "https" or not parts.hostname or parts.fragment or "@" in parts.netloc or not plain:
        raise ConfigurationError(f"{parts.hostname or 'an address'}: expected https://HOST[:PORT]/PATH")
    return parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection was closed before the answer was complete"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__
