"""The keys of attestation services that sessions name, fetched and kept for a while.

Whose keys they are is proved by TLS alone: the server of the address that the session names, under the certificates
that the session names, showed them. So a key set counts for those two together and for no other session's choice.

States of an entry, by its age: fresh (under KEY_SET_LIFE) it is used, and asked for again only for a key that it does
not have; older it is not used. No server is asked twice within ASK_AT_MOST_EVERY, whatever it answered.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

from ostiary.broker.outside import Outside
from ostiary.errors import ConfigurationError, EvidenceFormatError, KeysUnavailableError, OutsideError
from ostiary.evidence.maa import parse_key_set
from ostiary.evidence.maa.layout import MAX_KEY_SET_BYTES
from ostiary.https import DEFAULT_SECONDS, ask, trusting

KEY_SET_LIFE = timedelta(hours=1)
"""How long a key that the service withdrew may still count."""
ASK_AT_MOST_EVERY = timedelta(seconds=15)
"""A program that nobody knows yet names the key: whoever invents keys causes no more requests than this."""
MAX_KEY_SETS = 64
"""Kept at one time, the least recently used forgotten first."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Trust:
    """url: https address of an attestation service. certificates: PEM, of which one vouches for its server; none: those
    by which the owner of this service trusts Azure's servers.
    """

    url: str
    certificates: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """data: the newest key set, fetched at the time `fetched`. asked: the last time; why: what failed then."""

    data: bytes = b""
    fetched: datetime = _LONG_AGO
    asked: datetime = _LONG_AGO
    why: tuple[str, ...] = ()

    def is_fresh(self, now: datetime) -> bool:
        return timedelta(0) <= now - self.fetched < KEY_SET_LIFE

    def has(self, key_id: str) -> bool:
        known = parse_key_set(self.data)
        return key_id in known.keys or key_id in known.unfit


class KeySets:
    """Key sets by whose they are. Used on the event loop only; servers are asked on threads."""

    def __init__(self, outside: Outside, *, now: Callable[[], datetime]) -> None:
        self._outside = outside
        self._now = now
        self._entries: OrderedDict[Trust, _Entry] = OrderedDict()
        self._asking: WeakValueDictionary[Trust, asyncio.Lock] = WeakValueDictionary()

    async def key_set(self, trust: Trust, key_id: str) -> bytes:
        """The key set of an attestation service, with the key `key_id` if the service has it.

        The result was fetched less than KEY_SET_LIFE ago and is a key set.
        Raises KeysUnavailableError, whose causes are not for the peer.
        """
        entry = self._recall(trust)
        if entry.is_fresh(self._now()) and entry.has(key_id):
            return entry.data
        # One asks, the others wait and see what came of it.
        async with self._asking.setdefault(trust, asyncio.Lock()):
            entry, now = self._recall(trust), self._now()
            if not (entry.is_fresh(now) and entry.has(key_id)) and not (
                timedelta(0) <= now - entry.asked < ASK_AT_MOST_EVERY
            ):
                entry = await self._ask(trust, entry)
                self._remember(trust, entry)
        if not entry.is_fresh(self._now()):
            raise KeysUnavailableError("the keys of the session's attestation service cannot be had", *entry.why)
        return entry.data

    async def _ask(self, trust: Trust, entry: _Entry) -> _Entry:
        now = self._now()
        try:
            # Under a name of its own: several sessions wait for it, and none of them shall hold up the others.
            data = await self._outside.run(trust.url, lambda: self._fetch(trust), seconds=DEFAULT_SECONDS)
            parse_key_set(data)
        except (OutsideError, ConfigurationError, EvidenceFormatError) as error:
            return replace(entry, asked=now, why=error.chain)
        return _Entry(data=data, fetched=now, asked=now)

    def _fetch(self, trust: Trust) -> bytes:
        """On a thread."""
        answer = ask(f"{trust.url}/certs", trust=self._context(trust), max_bytes=MAX_KEY_SET_BYTES)
        if answer.status != 200:
            raise OutsideError(f"{trust.url}/certs answered with status {answer.status}")
        return answer.body

    def _context(self, trust: Trust) -> ssl.SSLContext:
        return trusting("\n".join(trust.certificates)) if trust.certificates else self._outside.trust()

    def _recall(self, trust: Trust) -> _Entry:
        if trust in self._entries:
            self._entries.move_to_end(trust)
        return self._entries.get(trust, _Entry())

    def _remember(self, trust: Trust, entry: _Entry) -> None:
        self._entries[trust] = entry
        self._entries.move_to_end(trust)
        if len(self._entries) > MAX_KEY_SETS:
            self._entries.popitem(last=False)
