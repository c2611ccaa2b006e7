"""The last evidence that each platform of each service was admitted with, for a forecast of what will be refused.

One sealed record of the store for each service that was attested by its hardware, by logical name
``last-evidence/SESSION/SERVICE``, and one, ``last-evidence``, that lists them. Evidence is no secret: it was made for a
nonce that is spent, over keys of a connection that is over. It is written a while after the start that brought it, many
at once, and the newest of a minute may be lost when the service ends suddenly.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ostiary.audit import Kind, entry
from ostiary.errors import ConflictError, OstiaryError, StoreError
from ostiary.store import Store, Write

FORESEEN = frozenset({"sgx", "tdx", "snp"})
"""The TEEs with endorsements that change, so that there is something to foresee."""
MAX_SERVICES = 1024
"""Services whose evidence is kept, the ones that started longest ago forgotten first."""
MAX_PLATFORMS = 16
"""Platforms of one service, likewise."""
MAX_EVIDENCE_BYTES = 16 * 1024
"""One piece of evidence with its endorsements left out; what is larger is not kept."""
MAX_SENT_BYTES = 16 * 1024
"""Certificates that came with it, where they cannot be had in another way (a VLEK); larger ones are not kept."""
MAX_AT_ONCE = 32
"""Services in one commit."""
MAX_TRIES = 8
"""How often storing begins anew because another process over the same database was faster."""
WRITE_EVERY = timedelta(minutes=1)
RENEW_AFTER = timedelta(hours=6)
"""Evidence of the same kind from the same platform is written again only so much later."""

INDEX = "last-evidence"
_FORM = 1

log = logging.getLogger("ostiary.broker.endorsements")


@dataclass(frozen=True, kw_only=True)
class LastEvidence:
    """tee, platform: as the claims of that evidence say. sent: certificates that came with it, where needed."""

    session: str
    service: str
    tee: str
    platform: str
    at: datetime
    evidence: bytes = field(repr=False)
    sent: bytes = field(default=b"", repr=False)


_Service = tuple[str, str]


class LastEvidences:
    """The last evidence of all services of one store. Used on the event loop; `run` writes on a thread."""

    def __init__(self, store: Store, *, now: Callable[[], datetime], random: Callable[[int], bytes]) -> None:
        """Raises StoreError for an index of a later version."""
        self._store = store
        self._now = now
        self._random = random
        self._read_index()
        self._new: dict[_Service, dict[str, LastEvidence]] = {}
        self._seen: OrderedDict[tuple[str, str, str], datetime] = OrderedDict()

    def note(self, last: LastEvidence) -> None:
        """Remember that a service was admitted with this evidence; it is stored by the next `write`."""
        key = (last.session, last.service, last.platform)
        seen = self._seen.get(key)
        if seen is not None and last.at - seen < RENEW_AFTER:
            return
        if len(last.evidence) > MAX_EVIDENCE_BYTES or len(last.sent) > MAX_SENT_BYTES:
            return
        of_service = self._new.setdefault((last.session, last.service), {})
        of_service[last.platform] = last
        self._seen[key] = last.at
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_SERVICES * MAX_PLATFORMS:
            self._seen.popitem(last=False)
        if len(of_service) > MAX_PLATFORMS:
            del of_service[next(iter(of_service))]
        if len(self._new) > MAX_SERVICES:
            del self._new[next(iter(self._new))]

    def all(self) -> Iterator[LastEvidence]:
        """What is stored or noted, by services, the platform that started last at the end."""
        _, stored = self._read_index()
        for service in [*stored, *(service for service in self._new if service not in stored)]:
            yield from {**self._stored(service), **self._new.get(service, {})}.values()

    def write(self) -> None:
        """Store what was noted; waits for the disk. Raises StoreError and ConflictError."""
        self._store_all(self._take())

    def _take(self) -> dict[_Service, dict[str, LastEvidence]]:
        """What was noted, which is not noted any more; by the thread that notes."""
        new, self._new = self._new, {}
        return new

    def _store_all(self, new: Mapping[_Service, Mapping[str, LastEvidence]]) -> None:
        services = list(new.items())
        for start in range(0, len(services), MAX_AT_ONCE):
            self._store_some(dict(services[start : start + MAX_AT_ONCE]), tries=MAX_TRIES)

    def _store_some(self, new: Mapping[_Service, Mapping[str, LastEvidence]], *, tries: int) -> None:
        index_version, stored = self._read_index()
        index = {service: None for service in stored if service not in new} | dict.fromkeys(new)
        dropped = list(index)[: max(0, len(index) - MAX_SERVICES)]
        writes = []
        for service, platforms in new.items():
            if service not in dropped:
                merged = {name: one for name, one in self._stored(service).items() if name not in platforms}
                newest = dict([*merged.items(), *platforms.items()][-MAX_PLATFORMS:])
                writes.append(self._write(_name(service), _encode(newest)))
        writes += [self._write(_name(service), None) for service in dropped if service in stored]
        kept = [service for service in index if service not in dropped]
        value = json.dumps({"form": _FORM, "services": kept}).encode()
        writes.append(Write(name=INDEX, value=value, expected_version=index_version))
        leaf = entry(Kind.EVIDENCE_KEPT, {"services": len(new)}, self._now(), self._random)
        try:
            self._store.commit(writes, leaf).result()
        except ConflictError:
            # Another process over the same database was faster.
            if tries <= 1:
                raise
            self._store_some(new, tries=tries - 1)

    async def run(self) -> None:
        """Write from time to time until cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY.total_seconds())
            try:
                await asyncio.to_thread(self._store_all, self._take())
            except OstiaryError as error:
                log.warning("the last evidence of services could not be stored: %s", error)

    def _stored(self, service: _Service) -> Mapping[str, LastEvidence]:
        record = self._store.get(_name(service))
        return {} if record is None else _decode(service, record.value)

    def _write(self, name: str, value: bytes | None) -> Write:
        return Write(name=name, value=value, expected_version=self._store.version(name) or 0)

    def _read_index(self) -> tuple[int, dict[_Service, None]]:
        record = self._store.get(INDEX)
        if record is None:
            return 0, {}
        members = json.loads(record.value)
        if members["form"] != _FORM:
            raise StoreError(
                f"the index of evidence has form {members['form']}, expected {_FORM}: a newer Ostiary wrote it; run "
                "that"
            )
        return record.version, dict.fromkeys((session, service) for session, service in members["services"])


def _name(service: _Service) -> str:
    return f"last-evidence/{'/'.join(service)}"


def _encode(platforms: Mapping[str, LastEvidence]) -> bytes:
    entries = [
        {
            "tee": one.tee,
            "platform": platform,
            "at": one.at.isoformat(),
            "evidence": base64.b64encode(one.evidence).decode(),
            "sent": base64.b64encode(one.sent).decode(),
        }
        for platform, one in platforms.items()
    ]
    return json.dumps(entries).encode()


def _decode(service: _Service, value: bytes) -> dict[str, LastEvidence]:
    return {
        one["platform"]: LastEvidence(
            session=service[0],
            service=service[1],
            tee=one["tee"],
            platform=one["platform"],
            at=datetime.fromisoformat(one["at"]),
            evidence=base64.b64decode(one["evidence"]),
            sent=base64.b64decode(one["sent"]),
        )
        for one in json.loads(value)
    }
