"""Webhooks against real TLS servers: who is told, how often it is tried, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.simulators.outside import Outside as Server

from ostiary.broker import webhooks
from ostiary.broker.outside import Outside
from ostiary.broker.webhooks import WebhookHosts, Webhooks
from ostiary.cli.webhooks import webhook_hosts
from ostiary.errors import ConfigurationError
from ostiary.secret.azure import PUBLIC_CLOUD

DOCUMENT = {"proposal": "ab" * 32, "session": "s", "state": "open", "event": "proposed"}


@pytest.fixture
def outside() -> Iterator[Outside]:
    made = Outside(PUBLIC_CLOUD, now=lambda: datetime.now(UTC), random=os.urandom)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TRY_AGAIN_SECONDS", (0.01, 0.01))


class Told:
    """A server that answers with one status after the other, the last one for ever."""

    def __init__(self, directory: Path, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.server = Server(directory, self._answer)
        self.host = self.server.url.removeprefix("https://")

    def _answer(self, _: bytes, stream: ssl.SSLSocket) -> None:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        stream.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nLocation: https://127.0.0.1:1/\r\n\r\n" % status)

    @property
    def count(self) -> int:
        return len(self.server.requests)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Callable[..., Told]]:
    made: list[Told] = []

    def make(*statuses: int) -> Told:
        made.append(Told(tmp_path, *statuses))
        return made[-1]

    yield make
    for one in made:
        one.server.close()


def run(hooks: Webhooks, *urls: str, until: Callable[[], bool]) -> None:
    """Tell `urls`, and send for as long as it takes."""

    async def story() -> None:
        sending = asyncio.create_task(hooks.run())
        hooks.tell(urls, DOCUMENT)
        while not until():
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))


def waiting(hooks: Webhooks) -> list[str]:
    """Where the messages that wait are to be sent."""
    return [message.url for line in hooks._lines.values() for message in line.messages]


def hosts(*told: Told) -> WebhookHosts:
    return WebhookHosts(
        hosts=frozenset(one.host for one in told), trusted="".join(one.server.certificate for one in told)
    )


def test_a_listed_host_is_told_what_happened(outside: Outside, told: Callable[..., Told]) -> None:
    server = told(200)
    run(Webhooks(outside, hosts(server)), f"{server.server.url}/hook", until=lambda: server.count == 1)
    head, _, body = server.server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    assert b"Content-Type: application/json" in head
    assert json.loads(body) == DOCUMENT


def test_what_was_told_before_anything_is_sent_is_sent_then(outside: Outside, told: Callable[..., Told]) -> None:
    server = told(200)
    hooks = Webhooks(outside, hosts(server))
    hooks.tell((server.server.url,), DOCUMENT)
    run(hooks, until=lambda: server.count == 1)


def test_it_is_tried_again_where_that_may_help(outside: Outside, told: Callable[..., Told]) -> None:
    server = told(503, 429, 204)
    run(Webhooks(outside, hosts(server)), server.server.url, until=lambda: server.count == 3)
    assert server.statuses == [204]


def test_after_the_last_try_the_message_is_given_up(
    outside: Outside, told: Callable[..., Told], caplog: pytest.LogCaptureFixture
) -> None:
    server = told(500)
    with caplog.at_level(logging.WARNING, "ostiary.broker"):
        run(Webhooks(outside, hosts(server)), server.server.url, until=lambda: len(caplog.records) == 3)
    assert server.count == 3
    assert "answers with status 500" in caplog.text


def test_a_host_that_is_away_holds_up_no_other(
    outside: Outside, told: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TRY_AGAIN_SECONDS", (3600.0,))
    server = told(200)
    with socket.create_server(("127.0.0.1", 0)) as away:
        port = away.getsockname()[1]
    listed = hosts(server)
    both = WebhookHosts(hosts=listed.hosts | {f"127.0.0.1:{port}"}, trusted=listed.trusted)
    urls = [f"https://127.0.0.1:{port}/{number}" for number in range(40)]
    run(Webhooks(outside, both), *urls, server.server.url, until=lambda: server.count == 1)


@pytest.mark.parametrize("status", [302, 404])
def test_a_refusal_or_a_redirect_is_not_tried_again(
    outside: Outside, told: Callable[..., Told], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    server = told(status)
    with caplog.at_level(logging.WARNING, "ostiary.broker"):
        run(Webhooks(outside, hosts(server)), server.server.url, until=lambda: bool(caplog.records))
    assert server.count == 1
    assert f"status {status}, expected 200" in caplog.text


def test_a_server_that_does_not_prove_its_name_is_told_nothing(
    outside: Outside, told: Callable[..., Told], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    server, other = told(200), Told(tmp_path / "other", 200)
    trusting_other = WebhookHosts(hosts=frozenset({server.host}), trusted=other.server.certificate)
    with caplog.at_level(logging.WARNING, "ostiary.broker"):
        run(Webhooks(outside, trusting_other), server.server.url, until=lambda: len(caplog.records) == 3)
    other.server.close()
    assert server.count == 0
    assert "does not prove its name" in caplog.text


@pytest.mark.parametrize(
    ("listed", "url", "admitted"),
    [
        ("hooks.example", "https://hooks.example/x", True),
        ("hooks.example", "https://HOOKS.example:443/x", True),
        ("hooks.example:443", "https://hooks.example/x", True),
        ("hooks.example", "https://hooks.example:8443/x", False),
        ("hooks.example:8443", "https://hooks.example/x", False),
        ("hooks.example", "https://hooks.example.evil/x", False),
        ("hooks.example", "https://evil/hooks.example", False),
        ("hooks.example", "https://sub.hooks.example/", False),
        ("[::1]", "https://[::1]/", True),
        ("", "https://hooks.example/", False),
    ],
)
def test_only_the_very_host_that_is_listed_is_admitted(listed: str, url: str, admitted: bool) -> None:
    assert WebhookHosts(hosts=frozenset({listed} - {""})).admit(url) is admitted


def test_by_default_nobody_is_told(outside: Outside, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Webhooks(outside, webhooks.NO_HOSTS)
    with caplog.at_level(logging.INFO, "ostiary.broker"):
        hooks.tell(("https://hooks.example/",), DOCUMENT)
    assert waiting(hooks) == []
    assert "webhook hooks.example: not told, for no --webhook-host names it" in caplog.text


def test_what_waits_is_bounded_and_the_oldest_is_dropped(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "MAX_WAITING", 2)
    hooks = Webhooks(outside, WebhookHosts(hosts=frozenset({"hooks.example"})))
    hooks.tell(tuple(f"https://hooks.example/{number}" for number in range(3)), DOCUMENT)
    assert waiting(hooks) == ["https://hooks.example/1", "https://hooks.example/2"]
    assert "too many messages wait" in caplog.text


def test_who_has_most_messages_waiting_loses_one_of_them(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is of one host and of the sessions of one namespace: others share the host, or have another one."""
    monkeypatch.setattr(webhooks, "MAX_WAITING", 4)
    hooks = Webhooks(outside, WebhookHosts(hosts=frozenset({"hooks.example", "other.example"})))
    hooks.tell(("https://hooks.example/good",), {**DOCUMENT, "session": "good/a"})
    hooks.tell(("https://other.example/good",), {**DOCUMENT, "session": "good/b"})
    for number in range(4):
        hooks.tell((f"https://hooks.example/{number}",), {**DOCUMENT, "session": f"evil/{number}"})
    assert waiting(hooks) == [
        "https://hooks.example/good",
        "https://other.example/good",
        "https://hooks.example/2",
        "https://hooks.example/3",
    ]


def test_messages_that_wait_to_be_tried_again_keep_no_other_from_being_sent(
    outside: Outside, told: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same host, too, and of others, as many as may wait."""
    monkeypatch.setattr(webhooks, "TRY_AGAIN_SECONDS", (3600.0,))
    monkeypatch.setattr(webhooks, "MAX_WAITING", 4)
    failing, good = told(503, 503, 503, 503, 200), told(200)
    hooks = Webhooks(outside, hosts(failing, good))

    async def story() -> None:
        sending = asyncio.create_task(hooks.run())
        hooks.tell(tuple(f"{failing.server.url}/{number}" for number in range(4)), DOCUMENT)
        while failing.count < 4:
            await asyncio.sleep(0.01)
        hooks.tell((f"{failing.server.url}/same",), {**DOCUMENT, "session": "t"})
        hooks.tell((good.server.url,), {**DOCUMENT, "session": "u"})
        while (failing.count, good.count) != (5, 1):
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_message_that_is_dropped_while_it_waits_is_not_tried_again(
    outside: Outside, told: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TRY_AGAIN_SECONDS", (3600.0,))
    monkeypatch.setattr(webhooks, "MAX_WAITING", 1)
    server = told(503)
    hooks = Webhooks(outside, hosts(server))

    async def story() -> None:
        sending = asyncio.create_task(hooks.run())
        hooks.tell((f"{server.server.url}/old",), {**DOCUMENT, "session": "s"})
        while not server.count:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(webhooks, "TRY_AGAIN_SECONDS", (0.01,))
        hooks.tell((f"{server.server.url}/new",), {**DOCUMENT, "session": "t"})
        while hooks._lines:
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))
    assert [request.split(b" ")[1] for request in server.server.requests] == [b"/old", b"/new", b"/new"]


def test_options_name_hosts_and_who_vouches_for_them(tmp_path: Path, told: Callable[..., Told]) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(told(200).server.certificate)
    found = webhook_hosts(["Hooks.Example", "other:8443"], ca)
    assert found.hosts == {"hooks.example", "other:8443"}
    assert found.trusted == ca.read_text()
    assert webhook_hosts([], None) == webhooks.NO_HOSTS
    for wrong in ("https://hooks.example", "hooks.example/x", "a b", ""):
        with pytest.raises(ConfigurationError, match="--webhook-host"):
            webhook_hosts([wrong], None)
    with pytest.raises(ConfigurationError, match="--webhook-ca"):
        webhook_hosts([], tmp_path / "missing.pem")
