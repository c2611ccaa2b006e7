"""`HOST:PORT` as people write it."""

from __future__ import annotations

import pytest

from ostiary.cli.address import parse_listen_address, show_address
from ostiary.errors import ConfigurationError


@pytest.mark.parametrize(("text", "address"), [
    ("127.0.0.1:8081", ("127.0.0.1", 8081)),
    ("localhost:0", ("localhost", 0)),
    ("[::]:65535", ("::", 65535)),
])  # fmt: skip
def test_an_address_is_read_and_shown_again(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text, "--client") == address
    assert show_address(*address) == text


@pytest.mark.parametrize("text", ["", ":", "8081", "host:", ":8081", "host:x", "host:-1", "host:65536", "host:\uff18"])
def test_what_is_no_address_is_refused_with_the_option_s_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--client .*expected HOST:PORT"):
        parse_listen_address(text, "--client")


def test_an_ipv6_address_needs_brackets() -> None:
    with pytest.raises(ConfigurationError, match="in brackets"):
        parse_listen_address("::1:8081", "--client")
