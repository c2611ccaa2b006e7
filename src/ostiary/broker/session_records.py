"""Sessions in the store: which records they are made of, and a cache of what was parsed from them.

Two kinds of record, by logical name::

    session/NAME          the current version: text, session hash, key of its creator, whether it or one before it has
                          a salt, and its secret values; or, if those lie in a key vault, the key that seals them
                          there and what is remembered of each entry
    version/NAME/HASH     each version that ever was, unchanging, without values

Text and values stand in one record, so nobody can ever see the one of one version and the other of another. A change
names the version of the record that it replaces. One record more::

    root-sealed           a session was created before anybody updated the root namespace: it stays as it is

Values in a key vault are looked at anew by `prepare`, so by every operation: whoever asks for a session afterwards
finds them, or the reason why they cannot be had, which ends whatever needs them.

The root namespace needs no record to be there: until somebody updates it, it is `namespace.default_root()`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

from ostiary.board import Creator
from ostiary.broker.namespace import ROOT, default_root
from ostiary.errors import ConflictError, NotFoundError, OstiaryError, SecretUnavailableError, StoreError, TamperedError
from ostiary.secret import BinaryValue, Value, decode_values, encode_values
from ostiary.secret.kept_entry import KeptEntry, KeptValues
from ostiary.session import ParsedSession, Secret, SignerSubject, parse_session
from ostiary.session.model import ImportedSecret, ImportedVolume, Session
from ostiary.store import Expect, Record, Store, Write

MAX_CACHED_SESSIONS = 256
"""Parsed sessions kept, the least recently used dropped first."""
MAX_KNOWN_HASHES = 32_768
"""Hashes of current versions that are kept, of more sessions than may have proposals at a time."""
MAX_PREPARED_SESSIONS = 64
"""Sessions read beforehand for one request: the one that it is about, and those that it imports from."""

MAX_LOOK_SECONDS = 120.0
"""For how long what a key vault gave may be used by an operation that asked for it, or by one that did not."""
MAX_LOOKS = 8
"""How often `prepare` begins anew because a session changed while its key vault was asked."""
VOLUME_KEY = "/volume/"
"""Begins the name under which the key of a volume is kept among the values; no secret has such a name."""

_FORM = 1
_FORM_IN_VAULT = 2
"""A record whose values lie in a key vault; an Ostiary that knows none of that must not take it for one without."""
_ROOT_SEALED = "root-sealed"

log = logging.getLogger("ostiary.broker")

Fetch = Callable[[Session, bytes, KeptValues], Awaitable[Mapping[str, Value]]]
"""All values of a version that lie in the vault of a session, by the session's hash. Raises SecretUnavailableError."""

_Kept = TypeVar("_Kept")


async def _no_way(session: Session, _hash: bytes, _kept: KeptValues) -> Mapping[str, Value]:
    raise SecretUnavailableError(f"the values of session {session.name} lie in a key vault, and no way leads there")


class Absent(Mapping[str, _Kept]):
    """Values that cannot be had: whoever asks for one, or whether there is one, gets the error in its place."""

    def __init__(self, kind: type[OstiaryError], *chain: str) -> None:
        self._kind = kind
        self._chain = chain

    def _fail(self) -> NoReturn:
        raise self._kind(*self._chain)

    def __getitem__(self, name: str) -> _Kept:
        self._fail()

    def __iter__(self) -> Iterator[str]:
        self._fail()

    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        self._fail()


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """One version of a session as the store holds it.

    creator: the signer that the text names, else the key hash (32 bytes) of the TLS client that uploaded it; None for
    an upload without either.
    salted: whether this version or one before it has a salt; None: an older Ostiary wrote it and did not say.
    values: of its secrets, by name; empty for a version of the past. volume_keys: by volume, of those whose key is kept
    here and not with their state. Asking for either raises SecretUnavailableError while a key vault does not give them.
    in_vault: where they lie; None: in the record.
    record: version number of the record it was read from, for compare-and-set; 0: the default root, which has none.
    """

    parsed: ParsedSession
    creator: Creator
    salted: bool | None = None
    values: Mapping[str, Value] = field(repr=False)
    volume_keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    in_vault: KeptValues | None = None
    record: int

    @cached_property
    def secrets(self) -> Mapping[str, Secret]:
        """The secrets of the session by name."""
        return {secret.name: secret for secret in self.parsed.session.secrets}

    @cached_property
    def exporters(self) -> tuple[str, ...]:
        """The sessions of this service that it imports secrets or volumes from, each once."""
        secrets = (secret for secret in self.secrets.values() if isinstance(secret, ImportedSecret))
        volumes = (volume for volume in self.parsed.session.volumes if isinstance(volume, ImportedVolume))
        local = (*(secret.session for secret in secrets if secret.cas is None), *(volume.session for volume in volumes))
        return tuple(dict.fromkeys(local))

    def require_values(self) -> None:
        """Raise SecretUnavailableError if its values lie in a key vault that does not give all of them as written.

        The message names what is missing: only for those who may read or change the session, or were admitted by it.
        """
        len(self.values)

    @property
    def has_values(self) -> bool:
        """Whether `require_values` raises nothing: for those who may not know what is missing."""
        return not isinstance(self.values, Absent)

    def with_values(self, kept: Mapping[str, Value]) -> StoredSession:
        """This version with what `all_values` was made of."""
        values = {name: value for name, value in kept.items() if not name.startswith(VOLUME_KEY)}
        return replace(self, values=values, volume_keys=_volume_keys(kept))

    def without_values(self, kind: type[OstiaryError], *chain: str) -> StoredSession:
        """This version with nothing but an error in place of its values."""
        return replace(self, values=Absent(kind, *chain), volume_keys=Absent(kind, *chain))

    @property
    def is_current(self) -> Expect:
        """The condition that this is still the current version, with these values."""
        return Expect(name=_current(self.parsed.session.name), version=self.record)


class SessionRecords:
    """Reads and writes the records of sessions, on the event loop only. Decides nothing about who may."""

    def __init__(self, store: Store, fetch: Fetch = _no_way) -> None:
        """fetch: from key vaults."""
        self._store = store
        self._fetch = fetch
        self._sessions: OrderedDict[str, StoredSession] = OrderedDict()
        self._hashes: OrderedDict[str, _Hash] = OrderedDict()
        self._looks: OrderedDict[str, _Look] = OrderedDict()
        self._looking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prepare(self, *names: str, old_seconds: float = 0.0, looking: bool = True, asking: bool = True) -> None:
        """Read the sessions into the cache, and those that they import from, link by link, if they are not there:
        a large one takes long, and others would wait. Over MAX_PREPARED_SESSIONS the rest is read when it is needed.

        Values that lie in a key vault are looked at, all of them, whether they are known or not; but not if somebody
        began to since this call, or found them all there less than `old_seconds` before. Until the caller waits again,
        `current` has them.

        looking: False: by what the store knows, without a look, for whoever commits on what it finds.
        asking: False: no key vault is asked.
        """
        wanted = _Wanted(since=time.monotonic(), old_seconds=old_seconds)
        for _ in range(MAX_LOOKS):
            if looking:
                self._store.look()
            if len(names) == 1 and self._is_at_hand(names[0]):
                return
            found = await self._prepare_links(names)
            missing = [
                (stored, kept)
                for stored in found
                if (kept := stored.in_vault) is not None and not self._is_looked_at(stored, wanted)
            ]
            if not missing or not asking:
                return
            await asyncio.gather(*(self._look(stored, kept, wanted) for stored, kept in missing))

    def _is_at_hand(self, name: str) -> bool:
        """Whether the session is in the cache and needs nothing from elsewhere: so it mostly is."""
        stored = self._known(_current(name))
        return stored is not None and stored.in_vault is None and not stored.exporters

    async def _prepare_links(self, first: tuple[str, ...]) -> list[StoredSession]:
        names, sessions = list(dict.fromkeys(first)), []
        for found in names:
            stored = await self._prepare(_current(found))
            if stored is not None:
                sessions.append(stored)
                room = max(MAX_PREPARED_SESSIONS - len(names), 0)
                names += islice((exporter for exporter in stored.exporters if exporter not in names), room)
        return sessions

    def _looked_at(self, stored: StoredSession) -> StoredSession:
        """The version with what its vault gave lately; if nobody looked, as it is, with values that raise."""
        look = self._looks.get(stored.parsed.session.name)
        if look is None or look.stored.record != stored.record:
            return stored
        return look.stored if time.monotonic() - look.began < MAX_LOOK_SECONDS else stored

    def _is_looked_at(self, stored: StoredSession, wanted: _Wanted) -> bool:
        look = self._looks.get(stored.parsed.session.name)
        if look is None or look.stored.record != stored.record:
            return False
        # That a vault did not answer a while ago says nothing.
        return look.began >= wanted.since - (wanted.old_seconds if look.stored.has_values else 0.0)

    async def _look(self, stored: StoredSession, kept: KeptValues, wanted: _Wanted) -> None:
        """Ask the vault. However many want that at a time, one asks, and the next one for all who came meanwhile."""
        name = stored.parsed.session.name
        async with self._looking.setdefault(name, asyncio.Lock()):
            if self._is_looked_at(stored, wanted):
                return
            began = time.monotonic()
            self._looks[name] = _Look(stored=await self._fetched(stored, kept), began=began)
            self._looks.move_to_end(name)
            if len(self._looks) > MAX_CACHED_SESSIONS:
                self._looks.popitem(last=False)

    async def _fetched(self, stored: StoredSession, kept: KeptValues) -> StoredSession:
        session = stored.parsed.session
        try:
            return stored.with_values(await self._fetch(session, stored.parsed.hash, kept))
        except SecretUnavailableError as error:
            log.warning("session %s: %s", session.name, error)
            return stored.without_values(SecretUnavailableError, *error.chain)

    async def prepare_version(self, name: str, session_hash: bytes) -> None:
        """The same for one version of the past."""
        await self._prepare(_past(name, session_hash))

    async def _prepare(self, record_name: str) -> StoredSession | None:
        """What is in the cache then, by a look since the last wait if one was made before."""
        stored = self._known(record_name)
        if stored is None and self._store.known_version(record_name) is not None:
            record = self._store.get(record_name)
            if record is not None:
                self._remember(record_name, await asyncio.to_thread(_parse_record, record))
                stored = self._cached(record_name)
        return stored

    def current(self, name: str) -> StoredSession | None:
        """The newest version of the session, None if there is no session of that name. The root is always there."""
        stored = self._load(_current(name))
        if stored is not None and stored.in_vault is not None:
            return self._looked_at(stored)
        return _default_root() if stored is None and name == ROOT else stored

    def is_absent(self, name: str) -> Expect:
        """The condition that there is no session of that name, or, of the root, that it is the default one."""
        return Expect(name=_current(name), version=0)

    async def current_hash(self, name: str) -> bytes | None:
        """The hash of the version that `current` returns, by what the store knows, None if there is no session.

        The session is not parsed, and its record is read once for each version that it gets; after that others have
        their turn.
        """
        version = self._store.known_version(_current(name))
        if version is None:
            return default_root().hash if name == ROOT else None
        known = self._hashes.get(name)
        if known is None or known.record != version:
            known = self._read_hash(name)
            await asyncio.sleep(0)
        return known.hash

    def _read_hash(self, name: str) -> _Hash:
        record = self._store.get(_current(name))
        if record is None:
            raise StoreError(f"the record of session {name} is missing")
        known = self._hashes[name] = _Hash(record=record.version, hash=bytes.fromhex(_members_of(record)["hash"]))
        self._hashes.move_to_end(name)
        if len(self._hashes) > MAX_KNOWN_HASHES:
            self._hashes.popitem(last=False)
        return known

    async def as_recorded(self, name: str) -> StoredSession | None:
        """As `current`, by what the store knows and without what key vaults gave; read on a thread."""
        stored = await self._prepare(_current(name))
        return _default_root() if stored is None and name == ROOT else stored

    def require(self, name: str) -> StoredSession:
        """As `current`; raises NotFoundError if there is none."""
        stored = self.current(name)
        if stored is None:
            raise NotFoundError("Session not found")
        return stored

    def prepared(self, name: str) -> StoredSession:
        """As `require`, by what the store knows, for whoever commits on it."""
        stored = self._known(_current(name))
        return self.require(name) if stored is None or stored.in_vault is not None else stored

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
        if cached is not None or self._store.known_version(record_name) is None:
            return cached
        record = self._store.get(record_name)
        if record is None:
            return None
        stored = _parse_record(record)
        self._remember(record_name, stored)
        return stored

    def _cached(self, record_name: str) -> StoredSession | None:
        self._store.look()
        return self._known(record_name)

    def _known(self, record_name: str) -> StoredSession | None:
        """The same by what the store knows."""
        cached = self._sessions.get(record_name)
        if cached is None or cached.record != self._store.known_version(record_name):
            return None
        self._sessions.move_to_end(record_name)
        return cached

    def _remember(self, record_name: str, stored: StoredSession) -> None:
        self._sessions[record_name] = stored
        self._sessions.move_to_end(record_name)
        if len(self._sessions) > MAX_CACHED_SESSIONS:
            self._sessions.popitem(last=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Hash:
    """The hash of a current version. record: the version of its record."""

    record: int
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A look that began after `since`, in the clock of time.monotonic, or at most `old_seconds` before and was good."""

    since: float
    old_seconds: float


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a key vault gave. began: in the clock of time.monotonic."""

    stored: StoredSession
    began: float


def all_values(values: Mapping[str, Value], volume_keys: Mapping[str, bytes]) -> dict[str, Value]:
    """What is kept of a version, in the record or in a vault: the keys of volumes beside the values of secrets."""
    return {**values, **{VOLUME_KEY + name: BinaryValue(data=key) for name, key in volume_keys.items()}}


def _volume_keys(kept: Mapping[str, Value]) -> dict[str, bytes]:
    return {
        name.removeprefix(VOLUME_KEY): value.data
        for name, value in kept.items()
        if name.startswith(VOLUME_KEY) and isinstance(value, BinaryValue)
    }


def upload_writes(
    parsed: ParsedSession,
    *,
    creator: bytes | None,
    values: Mapping[str, Value] | KeptValues,
    replaced: StoredSession | None,
    salted: bool,
) -> list[Write]:
    """The writes that make `parsed` the current version, in place of `replaced` or as the first one.

    creator: key hash of the TLS client, None for another upload. salted: as of `StoredSession`. values: as of
    `all_values`, or where they lie.
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


def values_write(stored: StoredSession, values: Mapping[str, Value] | KeptValues) -> Write:
    """The write that gives the current version other values, as of `all_values`, or says where those lie."""
    return Write(
        name=_current(stored.parsed.session.name),
        value=_encode(stored.parsed, stored.creator, stored.salted, values),
        expected_version=stored.record,
    )


def _current(name: str) -> str:
    return f"session/{name}"


def _past(name: str, session_hash: bytes) -> str:
    return f"version/{name}/{session_hash.hex()}"


def _encode(
    parsed: ParsedSession, creator: Creator, salted: bool | None, values: Mapping[str, Value] | KeptValues
) -> bytes:
    in_vault = isinstance(values, KeptValues)
    members = {
        "form": _FORM_IN_VAULT if in_vault else _FORM,
        "hash": parsed.hash.hex(),
        # A signer stands in the text.
        "creator": creator.hex() if isinstance(creator, bytes) else None,
        "salted": salted,
        "text": parsed.text,
        **({"vault": _write_kept(values)} if isinstance(values, KeptValues) else {"values": _write_values(values)}),
    }
    return json.dumps(members).encode()


def _write_values(values: Mapping[str, Value]) -> str:
    return b64encode(encode_values(values)).decode("ascii")


def _write_kept(kept: KeptValues) -> dict[str, object]:
    return {
        "key": kept.key.hex(),
        "entries": {
            name: [[entry.tag.hex(), entry.version, entry.digest.hex()] for entry in entries]
            for name, entries in kept.entries.items()
        },
    }


def _read_kept(members: Mapping[str, Any]) -> KeptValues:
    return KeptValues(
        key=bytes.fromhex(members["key"]),
        entries={
            name: tuple(
                KeptEntry(tag=bytes.fromhex(tag), version=version, digest=bytes.fromhex(digest))
                for tag, version, digest in entries
            )
            for name, entries in members["entries"].items()
        },
    )


def _default_root() -> StoredSession:
    return StoredSession(parsed=default_root(), creator=None, salted=False, values={}, record=0)


def _members_of(record: Record) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(record.value)
    if members["form"] not in (_FORM, _FORM_IN_VAULT):
        raise StoreError(
            f"a session record has form {members['form']}, expected {_FORM} or {_FORM_IN_VAULT}: a newer Ostiary wrote "
            "it; run that"
        )
    return members


def _parse_record(record: Record) -> StoredSession:
    members = _members_of(record)
    parsed = parse_session(members["text"])
    if parsed.hash.hex() != members["hash"]:
        raise TamperedError("a stored session does not have the hash that was recorded for it")
    creator, named = members["creator"], parsed.session.creator
    if isinstance(named, SignerSubject):
        stored_creator: Creator = named
    else:
        stored_creator = None if creator is None else bytes.fromhex(creator)
    in_vault = members["form"] == _FORM_IN_VAULT
    stored = StoredSession(
        parsed=parsed,
        creator=stored_creator,
        salted=members.get("salted"),
        values={},
        in_vault=_read_kept(members["vault"]) if in_vault else None,
        record=record.version,
    )
    if not in_vault:
        return stored.with_values(decode_values(b64decode(members["values"])))
    not_yet = f"session {parsed.session.name} changed at this moment, and its key vault was not asked yet"
    return stored.without_values(ConflictError, not_yet, "try again")
