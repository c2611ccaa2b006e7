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
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ostiary.broker.outside import Outside
from ostiary.errors import OstiaryError, OutsideError
from ostiary.https import ask, trusting

MAX_WAITING = 1024
"""Messages that wait to be sent, or to be sent again; beyond that the oldest that was not tried yet is dropped."""
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


@dataclass(frozen=True, kw_only=True)
class _Message:
    url: str
    body: bytes

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class Webhooks:
    """The messages of one service. `tell` and `run` on the event loop."""

    def __init__(self, outside: Outside, hosts: WebhookHosts) -> None:
        """Raises ConfigurationError if `hosts.trusted` cannot be read."""
        self._outside = outside
        self._hosts = hosts
        self._trust = None if hosts.trusted is None else trusting(hosts.trusted)
        self._reading = threading.Lock()
        self._waiting: deque[_Message] = deque()
        self._came: asyncio.Event | None = None

    def tell(self, urls: tuple[str, ...], document: Mapping[str, str]) -> None:
        """Have `document` sent to those of `urls` that the owner admits. Waits for nothing."""
        body = json.dumps(document, separators=(",", ":")).encode()
        for url in urls:
            message = _Message(url=url, body=body)
            if self._hosts.admit(url):
                self._waiting.append(message)
            else:
                log.info("webhook %s: not told, for no --webhook-host names it", message.host)
        while len(self._waiting) > MAX_WAITING:
            log.warning("webhook %s: too many messages wait, one is dropped", self._waiting.popleft().host)
        if self._came is not None:
            self._came.set()

    async def run(self) -> None:
        """Send what waits until cancelled."""
        self._came = asyncio.Event()
        sent = asyncio.Semaphore(MAX_WAITING)
        async with asyncio.TaskGroup() as sending:
            while True:
                while self._waiting:
                    await sent.acquire()
                    sending.create_task(self._send(self._waiting.popleft())).add_done_callback(lambda _: sent.release())
                self._came.clear()
                await self._came.wait()

    async def _send(self, message: _Message) -> None:
        """Try a few times; a host that is slow or away holds up nobody but itself (`Outside.run`). Raises nothing."""
        for pause in (*TRY_AGAIN_SECONDS, None):
            try:
                await self._outside.run(f"webhook {message.host}", lambda: self._ask(message), seconds=_TURN_SECONDS)
            except OstiaryError as error:
                log.warning("webhook %s: %s", message.host, error)
            else:
                return
            if pause is not None:
                await asyncio.sleep(pause)

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
