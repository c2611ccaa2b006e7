"""TLS that accepts any client certificate and knows the peer by its key, under uvicorn's HTTP protocol.

Python's `ssl` refuses an unknown client certificate before anyone can look at its key, so the engine is pyOpenSSL over
memory BIOs, driven inside the HTTP protocol class: one protocol object a connection, whatever the event loop. That also
puts a deadline on every phase of a connection and lets header and body of an answer leave in one record
(docs/adr/0002-tls-inside-the-http-protocol.md).

States of a connection, only forward::

    handshake ──► reading a request ◄──► answering ──► closed
        │                │                   │           ▲
        └── HANDSHAKE ───┴──── REQUEST ──────┴─ RESPONSE ┘   each deadline ends the connection
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ostiary.server import limits
from ostiary.server.answers import refusal
from ostiary.server.identity import Anonymous, Identity, Peer

_log = logging.getLogger("ostiary.server.tls")

_READ_BYTES = 64 * 1024
MIN_MODULUS_BITS = 2048
"""Of RSA and DSA client keys: 112 bits of security, as OpenSSL's level 2 and NIST SP 800-57 have it."""


def server_context(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, chain: Sequence[x509.Certificate]
) -> SSL.Context:
    """A TLS 1.2 and 1.3 server that shows `chain` (own certificate first) and asks for, but does not need, a client's.

    Any certificate is accepted, of any issuer, date or usage: only possession of its key is proven. Only an RSA or DSA
    key below MIN_MODULUS_BITS is refused, in the handshake. Sessions are never resumed, since a resumed one would come
    without the client's certificate; TLS 1.2 renegotiation is refused.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_privatekey(key)
    context.use_certificate(chain[0])
    for issuer in chain[1:]:
        context.add_extra_chain_cert(issuer)
    context.check_privatekey()
    context.set_verify(SSL.VERIFY_PEER, _accept_any_certificate)
    context.set_alpn_select_callback(_select_protocol)
    return context


def _accept_any_certificate(
    _connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int
) -> bool:
    if depth > 0:
        return True
    try:
        key = certificate.to_cryptography().public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    # A key that others can break is nobody's identity.
    return not isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) or key.key_size >= MIN_MODULUS_BITS


def _select_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def peer_of(scope: Scope) -> Peer:
    """The peer of an ASGI scope that came through `TlsHttpProtocol`."""
    return cast(Peer, scope["state"]["peer"])


class Connection:
    """One TLS connection: the same object for all of its requests, and gone with it.

    keep_alive_seconds: from an answer to the next request; whoever answers a request may set it.
    """

    __slots__ = ("__weakref__", "keep_alive_seconds")

    def __init__(self) -> None:
        self.keep_alive_seconds = limits.KEEP_ALIVE_SECONDS


def connection_of(scope: Scope) -> Connection:
    """The connection of an ASGI scope that came through `TlsHttpProtocol`."""
    return cast(Connection, scope["state"]["connection"])


class Doorman:
    """Counts the open connections of one listener and decides who must go when there are too many.

    A connection that has not finished its handshake makes room for a new one, oldest first; if all have finished
    theirs, the new one is refused. So idle strangers cannot keep others out by merely opening sockets.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._open: set[TlsHttpProtocol] = set()
        self._shaking: dict[TlsHttpProtocol, None] = {}

    def admit(self, connection: TlsHttpProtocol) -> bool:
        """Take note of a new connection; False: the caller must end it."""
        if len(self._open) >= self._capacity:
            oldest = next(iter(self._shaking), None)
            if oldest is None:
                return False
            self.leave(oldest)
            oldest.abort()
        self._open.add(connection)
        self._shaking[connection] = None
        return True

    def shaken(self, connection: TlsHttpProtocol) -> None:
        """The connection has finished its handshake."""
        self._shaking.pop(connection, None)

    def leave(self, connection: TlsHttpProtocol) -> None:
        """The connection has ended."""
        self._open.discard(connection)
        self._shaking.pop(connection, None)


class TlsHttpProtocol(HttpToolsProtocol):
    """One connection: ciphertext on the outside, uvicorn's HTTP protocol on the inside."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        context: SSL.Context,
        doorman: Doorman,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._doorman = doorman
        self._engine = SSL.Connection(context)
        self._engine.set_accept_state()
        self._raw: asyncio.Transport
        self._inner: _TlsTransport | None = None
        self._peer: Peer = Anonymous()
        self._connection = Connection()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = self._due = 0.0
        self._header_bytes = 0
        self._outside_bodies = 0
        self._tickets_wait = False
        self._lingering = False
        self.is_reading = False
        """Whether the newest request has begun and not come to its end."""

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if not self._doorman.admit(self):
            self._raw.abort()
            return
        self._expect_within(limits.HANDSHAKE_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._raw.is_closing() or self._lingering:
            return
        try:
            self._engine.bio_write(data)
            if self._inner is None:
                self._shake_hands()
            if self._inner is not None:
                self._pump()
        except SSL.Error as error:
            _log.debug("TLS failure: %s", error)
            self.flush_records()
            self._raw.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorman.leave(self)
        self._expect_nothing()
        if self._inner is not None:
            self._inner.lost()
            super().connection_lost(exc)

    def abort(self) -> None:
        """End the connection at once."""
        self._raw.abort()

    def _shake_hands(self) -> None:
        try:
            self._engine.do_handshake()
        except SSL.WantReadError:
            self.flush_records()
            return
        if self._engine.get_protocol_version() < SSL.TLS1_3_VERSION:
            self.flush_records()
        else:
            # All that is left are session tickets, for which nobody waits: they leave with the first answer.
            self._tickets_wait = True
        self._doorman.shaken(self)
        self._peer = _identify(self._engine)
        self._inner = _TlsTransport(self._raw, self._engine, self)
        self._expect_within(limits.REQUEST_SECONDS)
        super().connection_made(self._inner)

    def _pump(self) -> None:
        while not self._raw.is_closing():
            try:
                plaintext = self._engine.recv(_READ_BYTES)
            except SSL.WantReadError:
                if not self._tickets_wait:
                    self.flush_records()
                return
            except SSL.ZeroReturnError:
                self._end_of_requests()
                return
            self._outside_bodies += len(plaintext)
            if self._outside_bodies > limits.MAX_HEADER_BYTES + _READ_BYTES:
                self.send_400_response("request line, headers or trailers over the bound")
                return
            super().data_received(plaintext)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio lets a protocol answer, uvicorn's does not
        """The peer sends no more. Returns whether the connection stays open for the answer."""
        if self._inner is None or self._lingering:
            return False
        self._end_of_requests()
        return not self._inner.is_closing()

    def _end_of_requests(self) -> None:
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def linger(self) -> None:
        """Our side is done while the peer still sends: what it sends is thrown away, so that it reads our answer."""
        self._lingering = True
        self._raw.write_eof()
        self._expect_within(limits.LINGER_SECONDS)

    def flush_records(self) -> None:
        """Send what the engine has encrypted."""
        self._tickets_wait = False
        while not self._raw.is_closing():
            try:
                records = self._engine.bio_read(_READ_BYTES)
            except SSL.Error:
                return
            self._raw.write(records)
            if len(records) < _READ_BYTES:
                return

    # Deadlines: one for the phase the connection is in. They move several times a request and hardly ever fire, so the
    # timer is left alone while it would fire before the deadline, and looks again then.

    def _expect_within(self, seconds: float) -> None:
        now = self.loop.time()
        self._due = now + seconds
        if self._timer is None or self._due < self._timer_due:
            self._expect_nothing()
            self._set_timer(seconds, now)

    def _set_timer(self, seconds: float, now: float) -> None:
        self._timer_due = now + seconds
        self._timer = self.loop.call_later(seconds, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        now = self.loop.time()
        if now < self._due:
            self._set_timer(self._due - now, now)
        else:
            self._raw.abort()

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Requests: bounds on what comes before the body, the peer's key and the connection in the scope

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._outside_bodies = 0
        self.is_reading = True
        self.scope["state"]["peer"] = self._peer
        self.scope["state"]["connection"] = self._connection
        if not self._is_answering():
            self._expect_within(limits.REQUEST_SECONDS)

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._outside_bodies -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.is_reading = False
        self._expect_within(limits.RESPONSE_SECONDS)
        super().on_message_complete()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        if self.cycle.response_complete and self.cycle.more_body:
            # Answered before the body ended, such as one over the bound: what is left of it is not waited for.
            self.transport.close()
        if self._lingering:
            return
        self.timeout_keep_alive = self._connection.keep_alive_seconds
        self._expect_within(self.timeout_keep_alive + limits.REQUEST_SECONDS)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        told = refusal(400, msg)
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(told.body) + told.body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        # The request is answered as if it asked for nothing else, as RFC 9110 section 7.8 has it.
        return

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > limits.MAX_HEADER_BYTES:
            raise ValueError("request line and headers over the bound")


class _TlsTransport(asyncio.Transport):
    """What uvicorn writes its answers to. Writes of one turn of the event loop leave as one record."""

    def __init__(self, raw: asyncio.Transport, engine: SSL.Connection, protocol: TlsHttpProtocol) -> None:
        super().__init__()
        self._raw = raw
        self._engine = engine
        self._protocol = protocol
        self._pending: list[bytes] = []
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._engine.get_context()
        return self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._closing:
            return
        if not self._pending:
            self._protocol.loop.call_soon(self._send)
        self._pending.append(bytes(data))

    def _send(self) -> None:
        if not self._pending or self._raw.is_closing():
            return
        plaintext, self._pending = b"".join(self._pending), []
        try:
            self._engine.sendall(plaintext)
        except SSL.Error as error:
            _log.debug("TLS failure: %s", error)
            self._raw.abort()
            return
        self._protocol.flush_records()

    def close(self) -> None:
        if self._closing:
            return
        self._send()
        self._closing = True
        if self._raw.is_closing():
            return
        try:
            self._engine.shutdown()
        except SSL.Error as error:
            _log.debug("TLS failure: %s", error)
        self._protocol.flush_records()
        if self._protocol.is_reading:
            self._protocol.linger()
        else:
            self._raw.close()

    def lost(self) -> None:
        """The connection is gone: nothing more can be written."""
        self._closing = True
        self._pending.clear()

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def abort(self) -> None:
        self._closing = True
        self._raw.abort()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        raise NotImplementedError("a connection keeps its protocol: there is no upgrade on these listeners")

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol


def _identify(engine: SSL.Connection) -> Peer:
    certificate = engine.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        return Anonymous()
    return Identity(
        certificate=certificate.public_bytes(Encoding.PEM).decode("ascii"),
        spki=certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )
