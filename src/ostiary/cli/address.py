"""`HOST:PORT` as people write it."""

from __future__ import annotations

from ostiary.errors import ConfigurationError


def parse_listen_address(text: str, option: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPv6]:PORT`; port 0 asks for a free one.

    Raises ConfigurationError that names `option`.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigurationError(f"{option} {text}: write an IPv6 address in brackets, such as [::]:8081")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"{option} {text}: expected HOST:PORT, such as 127.0.0.1:8081")
    return host, int(port)


def show_address(host: str, port: int) -> str:
    """The same, back as text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
