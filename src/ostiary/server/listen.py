"""Several listeners in one process, under one event loop, ended together and in order."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import uvicorn
from OpenSSL import SSL
from starlette.types import ASGIApp

from ostiary.errors import ConfigurationError
from ostiary.server import limits
from ostiary.server.tls import Doorman, TlsHttpProtocol

_FILES_FOR_US = 256
_SHUTDOWN_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class Listener:
    """One application behind one listening socket. context: of TLS; None: plain HTTP, for a proxy on this machine."""

    app: ASGIApp
    socket: socket.socket
    context: SSL.Context | None


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket for a numeric address or a host name; port 0 takes a free one.

    Raises ConfigurationError if the address cannot be taken, naming it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # The protocol number must be given: asyncio sets TCP_NODELAY only on sockets that say IPPROTO_TCP.
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}", error.strerror or str(error)) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _probe_idle_peers(listening)
        listening.bind(address)
        listening.listen(limits.BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}",
            error.strerror or str(error),
            "choose another address or port, or end the program that has it",
        ) from error
    return listening


def _probe_idle_peers(listening: socket.socket) -> None:
    """Have the kernel find out which peers of accepted connections are gone, however long those may be idle."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.PROBE_AFTER_SECONDS)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.PROBE_EVERY_SECONDS)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, limits.PROBES)


def capacity() -> int:
    """Connections that one listener may hold open, after raising the soft limit on open files as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return limits.MAX_CONNECTIONS
    return max(1, min(limits.MAX_CONNECTIONS, (soft - _FILES_FOR_US) // 2))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Whoever runs `serve` decides what ends it, and both listeners end together.
        yield


async def serve(listeners: Sequence[Listener], stop: asyncio.Event) -> None:
    """Answer on all `listeners` until `stop` is set, then let running requests end, at most 5 s."""
    room = capacity()
    servers = [_server(listener, room) for listener in listeners]

    async def pass_on() -> None:
        await stop.wait()
        for server in servers:
            server.should_exit = True

    waiting = asyncio.create_task(pass_on())
    try:
        await asyncio.gather(
            *(server.serve(sockets=[listener.socket]) for server, listener in zip(servers, listeners, strict=True))
        )
    finally:
        waiting.cancel()


def _server(listener: Listener, room: int) -> _Server:
    config = uvicorn.Config(
        listener.app,
        http="httptools"
        if listener.context is None
        else partial(  # type: ignore[arg-type]
            TlsHttpProtocol, context=listener.context, doorman=Doorman(room)
        ),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        backlog=limits.BACKLOG,
        limit_concurrency=room if listener.context is None else None,
    )
    return _Server(config)
