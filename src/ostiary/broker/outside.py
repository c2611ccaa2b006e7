"""The way to servers outside: requests run on threads of their own, so that nobody who does not need them waits.

What a release takes from Azure is asked for anew by each release and kept by none. A `Resolution` reads records on the
event loop and cannot wait; where it needs a value from outside it raises `Pending`, whoever runs it has the errand
carried out, and runs it again with what came back (`Errands.with_outside`).
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from weakref import WeakValueDictionary

from ostiary.broker.session_records import StoredSession
from ostiary.errors import OutsideError, ReleaseRefusedError, SecretUnavailableError
from ostiary.https import DEFAULT_SECONDS, Answer, ask, trusting
from ostiary.secret import Released, Sources, VaultEntry, fetch_outside
from ostiary.secret.azure import (
    MAX_TOKEN_ANSWER_BYTES,
    MAX_VAULT_ANSWER_BYTES,
    AzureCloud,
    AzureRequest,
    read_entry,
    read_token,
    token_request,
    vault_request,
)
from ostiary.session.model import AadTokenSecret, AkvSecret
from ostiary.store import Expect

MAX_THREADS = 32
"""Requests to servers outside that run at one time."""
MAX_OF_ONE_SESSION = 4
"""Of these, for one session: a vault that is slow holds up the starts of its own session first."""
MAX_RELEASE_SECONDS = 30.0
"""For everything that one release asks for, waiting for its turn included."""
MAX_RELEASE_SECRETS = 64
"""Secrets from outside in one release, those of sessions that it imports from included."""

_Thing = TypeVar("_Thing")
_Place = tuple[str, int, str]
"""Session, version of its record, secret: another version of a session may mean another secret by the same name."""


class Outside:
    """Threads, addresses and trust; one for the whole service."""

    def __init__(self, cloud: AzureCloud, *, now: Callable[[], datetime], random: Callable[[int], bytes]) -> None:
        """Raises ConfigurationError if the anchors cannot be read."""
        self.cloud = cloud
        self.now = now
        self.random = random
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="outside")
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._trust = None if cloud.anchors is None else trusting(cloud.anchors)
        self._reading_anchors = threading.Lock()
        self._closed = False

    def errands(self) -> Errands:
        """What one release needs, from now on for MAX_RELEASE_SECONDS."""
        return Errands(self, end=time.monotonic() + MAX_RELEASE_SECONDS)

    async def run(self, whose: str, work: Callable[[], _Thing], *, seconds: float) -> _Thing:
        """What `work`, which may block, returns or raises; it is run on a thread.

        whose: of one name, MAX_OF_ONE_SESSION run at a time, the others wait for their turn.
        Raises OutsideError if that took `seconds`; `work` must see to its own end.
        """
        self._require_open()
        turn = self._turns.setdefault(whose, asyncio.Semaphore(MAX_OF_ONE_SESSION))
        try:
            async with asyncio.timeout(max(seconds, 0)), turn:
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise OutsideError("servers outside took too long, or too many starts wait for them") from None

    def trust(self) -> ssl.SSLContext:
        """Whom to believe; on a thread, as reading the anchors of the operating system takes its time."""
        with self._reading_anchors:
            if self._trust is None:
                self._trust = trusting()
            return self._trust

    def ask(self, request: AzureRequest, *, end: float, max_bytes: int) -> Answer:
        """Ask one server of Azure, on a thread. end: in the clock of time.monotonic. Raises OutsideError."""
        self._require_open()
        left = end - time.monotonic()
        if left <= 0:
            raise OutsideError(f"there was no time left, of {MAX_RELEASE_SECONDS:g} s for one release")
        return ask(
            request.url,
            trust=self.trust(),
            method=request.method,
            headers=request.headers,
            body=request.body,
            seconds=min(DEFAULT_SECONDS, left),
            max_bytes=max_bytes,
        )

    def close(self) -> None:
        """Let running requests end, and begin no other."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _require_open(self) -> None:
        if self._closed:
            raise OutsideError("the service is ending")


@dataclass(frozen=True, kw_only=True)
class Errand:
    """One secret to be fetched. imports: what it may be made of and comes from outside too, by names in the session.

    rests_on: all records that were looked at until it turned out to be needed.
    """

    stored: StoredSession
    secret: AadTokenSecret | AkvSecret
    imports: Mapping[str, Released] = field(repr=False)
    rests_on: tuple[Expect, ...]

    @property
    def place(self) -> _Place:
        return self.stored.parsed.session.name, self.stored.record, self.secret.name


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A value from outside, and the records by which it was asked for: a release must rest on these as well."""

    value: Released = field(repr=False)
    rests_on: tuple[Expect, ...]


class Pending(Exception):  # noqa: N818 - not a fault: the value is not there yet
    """A resolution needs a value from outside."""

    def __init__(self, errand: Errand) -> None:
        super().__init__(errand.secret.name)
        self.errand = errand


class Errands:
    """What one release fetched. It lives as long as that release, and nothing of it is ever stored.

    Tokens, values and refusals are kept by the version of the session that asked for them, so that a release which is
    judged anew uses no value of an older version.
    """

    def __init__(self, outside: Outside, *, end: float) -> None:
        self._outside = outside
        self._end = end
        self._done: dict[_Place, Fetched | SecretUnavailableError] = {}
        self._tokens: dict[_Place, str] = {}
        self._count = 0

    def value(self, errand: Errand) -> Fetched:
        """What the errand brought. Raises Pending if nobody went yet, SecretUnavailableError if it failed."""
        done = self._done.get(errand.place)
        if done is None:
            raise Pending(errand)
        if isinstance(done, SecretUnavailableError):
            raise done
        return done

    def forget(self) -> None:
        """Fetch everything anew, because a record that it was asked for by has changed."""
        self._done.clear()
        self._tokens.clear()

    async def with_outside(self, make: Callable[[], _Thing]) -> _Thing:
        """What `make` returns, run again after each errand that it needs. What `make` raises, and nothing else."""
        while True:
            try:
                return make()
            except Pending as pending:
                errand = pending.errand
            self._done[errand.place] = await self._carry_out(errand)

    async def _carry_out(self, errand: Errand) -> Fetched | SecretUnavailableError:
        session = errand.stored.parsed.session
        refused = f"secret {errand.secret.name!r} cannot be fetched"
        self._count += 1
        if self._count > MAX_RELEASE_SECRETS:
            return SecretUnavailableError(refused, f"one release fetches at most {MAX_RELEASE_SECRETS} secrets")
        seconds = self._end - time.monotonic()
        try:
            value = await self._outside.run(session.name, lambda: self._fetch(errand), seconds=seconds)
        except (OutsideError, ReleaseRefusedError) as error:
            return SecretUnavailableError(refused, *error.chain)
        return Fetched(value=value, rests_on=errand.rests_on)

    def _fetch(self, errand: Errand) -> Released:
        stored, name = errand.stored, errand.secret.name
        sources = Sources(
            imports=errand.imports,
            fetch_token=lambda secret: self._token(stored, secret),
            fetch_vault=self._entry,
        )
        return fetch_outside(stored.parsed.session, stored.values, (name,), sources)[name]

    def _token(self, stored: StoredSession, secret: AadTokenSecret) -> str:
        place = (stored.parsed.session.name, stored.record, secret.name)
        if place not in self._tokens:
            outside = self._outside
            request = token_request(secret, outside.cloud, now=outside.now(), random=outside.random)
            self._tokens[place] = read_token(outside.ask(request, end=self._end, max_bytes=MAX_TOKEN_ANSWER_BYTES))
        return self._tokens[place]

    def _entry(self, secret: AkvSecret, token: str) -> VaultEntry:
        request = vault_request(secret, self._outside.cloud, token)
        return read_entry(self._outside.ask(request, end=self._end, max_bytes=MAX_VAULT_ANSWER_BYTES))
