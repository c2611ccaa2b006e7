"""Sessions in the store: which records they are made of, and a cache of what was parsed from them.

Two kinds of record, by logical name::

    session/NAME          the current version: text, session hash, key of its creator, whether it or one before it has
                          a salt, and its secret values
    version/NAME/HASH     each version that ever was, unchanging, without values

Text and values stand in one record, so nobody can ever see the one of one version and the other of another. A change
names the version of the record that it replaces. One record more::

    root-sealed           a session was created before anybody updated the root namespace: it stays as it is

The root namespace needs no record to be there: until somebody updates it, it is `namespace.default_root()`.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from ostiary.board import Creator
from ostiary.broker.namespace import ROOT, default_root
from ostiary.errors import NotFoundError, StoreError, TamperedError
from ostiary.secret import Value, decode_values, encode_values
from ostiary.session import ParsedSession, Secret, SignerSubject, parse_session
from ostiary.session.model import ImportedSecret
from ostiary.store import Expect, Record, Store, Write

MAX_CACHED_SESSIONS = 256
"""Parsed sessions kept, the least recently used dropped first."""
MAX_PREPARED_SESSIONS = 64
"""Sessions read beforehand for one request: the one that it is about, and those that it imports from."""

_FORM = 1
_ROOT_SEALED = "root-sealed"


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """One version of a session as the store holds it.

    creator: the signer that the text names, else the key hash (32 bytes) of the TLS client that uploaded it; None for
    an upload without either.
    salted: whether this version or one before it has a salt; None: an older Ostiary wrote it and did not say.
    values: of its secrets, by name; empty for a version of the past.
    record: version number of the record it was read from, for compare-and-set; 0: the default root, which has none.
    """

    parsed: ParsedSession
    creator: Creator
    salted: bool | None = None
    values: Mapping[str, Value] = field(repr=False)
    record: int

    @cached_property
    def secrets(self) -> Mapping[str, Secret]:
        """The secrets of the session by name."""
        return {secret.name: secret for secret in self.parsed.session.secrets}

    @cached_property
    def exporters(self) -> tuple[str, ...]:
        """The sessions of this service that it imports from, each once."""
        imports = (secret for secret in self.secrets.values() if isinstance(secret, ImportedSecret))
        return tuple(dict.fromkeys(secret.session for secret in imports if secret.cas is None))

    @property
    def is_current(self) -> Expect:
        """The condition that this is still the current version, with these values."""
        return Expect(name=_current(self.parsed.session.name), version=self.record)


class SessionRecords:
    """Reads and writes the records of sessions, on the event loop only. Decides nothing about who may."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sessions: OrderedDict[str, StoredSession] = OrderedDict()

    async def prepare(self, name: str) -> None:
        """Read the session into the cache, and the sessions that it imports from, link by link, if they are not there:
        a large one takes long, and others would wait. Over MAX_PREPARED_SESSIONS the rest is read when it is needed.
        """
        names = [name]
        for found in names:
            await self._prepare(_current(found))
            stored = self._sessions.get(_current(found))
            if stored is not None:
                room = MAX_PREPARED_SESSIONS - len(names)
                names += islice((exporter for exporter in stored.exporters if exporter not in names), room)

    async def prepare_version(self, name: str, session_hash: bytes) -> None:
        """The same for one version of the past."""
        await self._prepare(_past(name, session_hash))

    async def _prepare(self, record_name: str) -> None:
        if self._cached(record_name) is None:
            record = self._store.get(record_name)
            if record is not None:
                self._remember(record_name, await asyncio.to_thread(_parse_record, record))

    def current(self, name: str) -> StoredSession | None:
        """The newest version of the session, None if there is no session of that name. The root is always there."""
        stored = self._load(_current(name))
        return _default_root() if stored is None and name == ROOT else stored

    def require(self, name: str) -> StoredSession:
        """As `current`; raises NotFoundError if there is none."""
        stored = self.current(name)
        if stored is None:
            raise NotFoundError("Session not found")
        return stored

    def version(self, name: str, session_hash: bytes) -> StoredSession | None:
        """The version of the session with that hash, None if it never had one."""
        if name == ROOT and session_hash == default_root().hash:
            return _default_root()
        return self._load(_past(name, session_hash))

    async def is_salted(self, stored: StoredSession) -> bool:
        """Whether `stored` or any version before it has a salt, so that its hash is public."""
        if stored.salted is not None:
            return stored.salted
        return await asyncio.to_thread(self._find_salt, stored)

    def _find_salt(self, stored: StoredSession) -> bool:
        """Walk back to a version that says. Keeps nothing, so that it may run beside the event loop."""
        name, version = stored.parsed.session.name, stored
        while version.salted is None and version.parsed.session.salt is None:
            predecessor = version.parsed.session.predecessor
            record = None if predecessor is None else self._store.get(_past(name, predecessor))
            if record is None:
                return False
            version = _parse_record(record)
        return version.salted is not False

    @property
    def root_is_sealed(self) -> bool:
        """Whether sessions were created before anybody updated the root namespace, so that it can never change."""
        return self._store.version(_ROOT_SEALED) is not None

    @property
    def root_is_claimed(self) -> bool:
        """Whether somebody has updated the root namespace."""
        return self._store.version(_current(ROOT)) is not None

    @property
    def root_is_not_sealed(self) -> Expect:
        """The condition that nobody has created a session before the root was updated."""
        return Expect(name=_ROOT_SEALED, version=0)

    def seal_root(self) -> Write:
        """The write after which the root namespace can never change. It must not be sealed yet."""
        return Write(name=_ROOT_SEALED, value=b"", expected_version=0)

    def _load(self, record_name: str) -> StoredSession | None:
        cached = self._cached(record_name)
        if cached is not None:
            return cached
        record = self._store.get(record_name)
        if record is None:
            return None
        stored = _parse_record(record)
        self._remember(record_name, stored)
        return stored

    def _cached(self, record_name: str) -> StoredSession | None:
        cached = self._sessions.get(record_name)
        if cached is None or cached.record != self._store.version(record_name):
            return None
        self._sessions.move_to_end(record_name)
        return cached

    def _remember(self, record_name: str, stored: StoredSession) -> None:
        self._sessions[record_name] = stored
        self._sessions.move_to_end(record_name)
        if len(self._sessions) > MAX_CACHED_SESSIONS:
            self._sessions.popitem(last=False)


def upload_writes(
    parsed: ParsedSession,
    *,
    creator: bytes | None,
    values: Mapping[str, Value],
    replaced: StoredSession | None,
    salted: bool,
) -> list[Write]:
    """The writes that make `parsed` the current version, in place of `replaced` or as the first one.

    creator: key hash of the TLS client, None for another upload. salted: as of `StoredSession`.
    """
    name = parsed.session.name
    return [
        Write(
            name=_current(name),
            value=_encode(parsed, creator, salted, values),
            expected_version=0 if replaced is None else replaced.record,
        ),
        Write(name=_past(name, parsed.hash), value=_encode(parsed, creator, salted, {}), expected_version=0),
    ]


def values_write(stored: StoredSession, values: Mapping[str, Value]) -> Write:
    """The write that gives the current version other secret values."""
    return Write(
        name=_current(stored.parsed.session.name),
        value=_encode(stored.parsed, stored.creator, stored.salted, values),
        expected_version=stored.record,
    )


def _current(name: str) -> str:
    return f"session/{name}"


def _past(name: str, session_hash: bytes) -> str:
    return f"version/{name}/{session_hash.hex()}"


def _encode(parsed: ParsedSession, creator: Creator, salted: bool | None, values: Mapping[str, Value]) -> bytes:
    members = {
        "form": _FORM,
        "hash": parsed.hash.hex(),
        # A signer stands in the text.
        "creator": creator.hex() if isinstance(creator, bytes) else None,
        "salted": salted,
        "text": parsed.text,
        "values": b64encode(encode_values(values)).decode("ascii"),
    }
    return json.dumps(members).encode()


def _default_root() -> StoredSession:
    return StoredSession(parsed=default_root(), creator=None, salted=False, values={}, record=0)


def _parse_record(record: Record) -> StoredSession:
    members = json.loads(record.value)
    if members["form"] != _FORM:
        raise StoreError(
            f"a session record has form {members['form']}, expected {_FORM}: a newer Ostiary wrote it; run that"
        )
    parsed = parse_session(members["text"])
    if parsed.hash.hex() != members["hash"]:
        raise TamperedError("a stored session does not have the hash that was recorded for it")
    creator, named = members["creator"], parsed.session.creator
    if isinstance(named, SignerSubject):
        stored_creator: Creator = named
    else:
        stored_creator = None if creator is None else bytes.fromhex(creator)
    return StoredSession(
        parsed=parsed,
        creator=stored_creator,
        salted=members.get("salted"),
        values=decode_values(b64decode(members["values"])),
        record=record.version,
    )
