"""Listening sockets, and how many connections they may hold."""

from __future__ import annotations

import resource
import socket

import pytest

from ostiary.errors import ConfigurationError
from ostiary.server import limits
from ostiary.server.listen import bind, capacity


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("localhost", None)])
def test_a_free_port_is_taken_and_listened_on(host: str, family: int | None) -> None:
    with bind(host, 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
        assert family in (None, listening.family)
        with socket.create_connection(listening.getsockname()[:2], timeout=10):
            pass


def test_peers_that_vanish_are_found_out_by_the_kernel() -> None:
    """Accepted connections inherit it, so that a long idle one does not keep its place for nobody."""
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname(), timeout=10):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == limits.PROBE_AFTER_SECONDS
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == limits.PROBE_EVERY_SECONDS
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == limits.PROBES


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=f"127.0.0.1:{port}: Address already in use: choose another address"
        ):
            bind("127.0.0.1", port)


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on host\.invalid:1"):
        bind("host.invalid", 1)


@pytest.mark.parametrize(("files", "connections"), [
    ((256, 256), 1),
    ((1024, 1024), 384),
    ((1024, 4096), 1920),
    ((1 << 20, 1 << 20), limits.MAX_CONNECTIONS),
    ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), limits.MAX_CONNECTIONS),
])  # fmt: skip
def test_two_listeners_share_the_files_that_the_process_may_open(
    monkeypatch: pytest.MonkeyPatch, files: tuple[int, int], connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: files)
    monkeypatch.setattr(resource, "setrlimit", lambda _, __: None)
    assert capacity() == connections
