"""Telling members of policy boards that something happened to a proposal: POST to the addresses that their board names.

What is told is no secret and decides nothing: whoever is told reads the proposal. Only hosts that the owner of the
service lists are asked, so that no session makes the service reach into a network. Requests wait in memory and are sent
beside everything else; what waits when the service ends, or does not get through, is lost, and members who also look
at their list of proposals miss nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ostiary.broker.outside import Outside
from ostiary.errors import OstiaryError, OutsideError
from ostiary.https import ask, trusting

MAX_WAITING = 1024
"""Messages that wait to be sent, or to be sent again. Beyond that the oldest is dropped of those to the host, about
the sessions of the namespace, of which most wait: so who has many fail, or has many sent, loses his first; but many
namespaces of one tenant are not told from those of many."""
TRY_AGAIN_SECONDS = (2.0, 20.0, 120.0)
"""Pauses after failures: as many tries more."""
MAX_ANSWER_BYTES = 64 * 1024
_REQUEST_SECONDS = 10.0
_TURN_SECONDS = 60.0
_TOO_BUSY = 429

log = logging.getLogger("ostiary.broker")


@dataclass(frozen=True, kw_only=True)
class WebhookHosts:
    """hosts: `host` or `host:port`, lower case, that may be told. trusted: PEM of who vouches for them; None: whom the
    operating system trusts."""

    hosts: frozenset[str] = frozenset()
    trusted: str | None = field(default=None, repr=False)

    def admit(self, url: str) -> bool:
        """Whether the owner lists the host of this https address; 443 is the port where none stands."""
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or 443
        shown = f"[{host}]" if ":" in host else host
        return f"{shown}:{port}" in self.hosts or (port == 443 and shown in self.hosts)


NO_HOSTS = WebhookHosts()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Message:
    """tried: how often it did not get through."""

    url: str
    body: bytes
    tried: int = 0

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class _Line:
    """Messages to one host, about sessions of one namespace; one of them is sent at a time.

    messages: those that wait, the oldest first, and when each is to be sent, in the clock of time.monotonic.
    """

    def __init__(self) -> None:
        self.messages: dict[_Message, float] = {}
        self.came = asyncio.Event()

    def add(self, message: _Message, *, after_seconds: float = 0.0) -> None:
        self.messages[message] = time.monotonic() + after_seconds
        self.came.set()

    def drop(self) -> _Message:
        """The oldest, which is not sent any more, or not again. There must be one."""
        oldest = next(iter(self.messages))
        del self.messages[oldest]
        self.came.set()
        return oldest

    async def next(self) -> _Message | None:
        """The one whose time comes first, once it has come, whatever else comes meanwhile; None: all were dropped."""
        while self.messages:
            first = min(self.messages, key=self.messages.__getitem__)
            left = self.messages[first] - time.monotonic()
            if left <= 0:
                return first
            self.came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.came.wait(), left)
        return None


class Webhooks:
    """The messages of one service. `tell` and `run` on the event loop."""

    def __init__(self, outside: Outside, hosts: WebhookHosts) -> None:
        """Raises ConfigurationError if `hosts.trusted` cannot be read."""
        self._outside = outside
        self._hosts = hosts
        self._trust = None if hosts.trusted is None else trusting(hosts.trusted)
        self._reading = threading.Lock()
        self._lines: dict[tuple[str, str], _Line] = {}
        self._sending: asyncio.TaskGroup | None = None

    def tell(self, urls: tuple[str, ...], document: Mapping[str, str]) -> None:
        """Have `document`, about the session that it names, sent to those of `urls` that the owner admits. Waits for
        nothing."""
        body = json.dumps(document, separators=(",", ":")).encode()
        namespace = document["session"].partition("/")[0]
        for url in urls:
            message = _Message(url=url, body=body)
            if self._hosts.admit(url):
                self._add(message, namespace)
            else:
                log.info("webhook %s: not told, for no --webhook-host names it", message.host)

    def _add(self, message: _Message, namespace: str) -> None:
        place = (message.host.lower(), namespace)
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line()
            if self._sending is not None:
                self._sending.create_task(self._send(place, line))
        line.add(message)
        if sum(len(one.messages) for one in self._lines.values()) > MAX_WAITING:
            longest = max(self._lines.values(), key=lambda one: len(one.messages))
            log.warning("webhook %s: too many messages wait, one is dropped", longest.drop().host)

    async def run(self) -> None:
        """Send what waits until cancelled."""
        async with asyncio.TaskGroup() as sending:
            for place, line in self._lines.items():
                sending.create_task(self._send(place, line))
            self._sending = sending
            try:
                await asyncio.Event().wait()
            finally:
                self._sending = None

    async def _send(self, place: tuple[str, str], line: _Line) -> None:
        """Send what a line has until it is empty. Raises nothing.

        A host that is slow or away, which holds up nobody but itself (`Outside.run`), is tried again a few times; while
        one message waits for that, others are sent.
        """
        while message := await line.next():
            is_done = await self._try(message)
            was_dropped = line.messages.pop(message, None) is None
            if not is_done and not was_dropped and message.tried < len(TRY_AGAIN_SECONDS):
                line.add(replace(message, tried=message.tried + 1), after_seconds=TRY_AGAIN_SECONDS[message.tried])
        del self._lines[place]

    async def _try(self, message: _Message) -> bool:
        """Whether there is no point in trying again."""
        try:
            await self._outside.run(f"webhook {message.host}", lambda: self._ask(message), seconds=_TURN_SECONDS)
        except OstiaryError as error:
            log.warning("webhook %s: %s", message.host, error)
            return False
        return True

    def _ask(self, message: _Message) -> None:
        """On a thread. Raises OutsideError where it is worth to try again."""
        answer = ask(
            message.url,
            trust=self._trusted(),
            method="POST",
            headers={"Content-Type": "application/json"},
            body=message.body,
            seconds=_REQUEST_SECONDS,
            max_bytes=MAX_ANSWER_BYTES,
        )
        if answer.status >= 500 or answer.status == _TOO_BUSY:
            raise OutsideError(f"answers with status {answer.status}")
        if answer.status >= 300:
            log.warning("webhook %s: answers with status %d, expected 200", message.host, answer.status)

    def _trusted(self) -> ssl.SSLContext:
        # Not at the start: reading the anchors of the operating system takes its time.
        with self._reading:
            if self._trust is None:
                self._trust = trusting()
            return self._trust
