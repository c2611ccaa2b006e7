"""Sessions in the store: which records they are made of, and a cache of what was parsed from them.

Three kinds of record, by logical name::

    session/NAME          the current version: text, session hash, key of its creator
    version/NAME/HASH     each version that ever was, unchanging, same form
    values/NAME           the secret values of the current version

A change writes all of them in one transaction that names the version of each record it replaces. One record more::

    root-sealed           a session was created before anybody updated the root namespace: it stays as it is

The root namespace needs no record to be there: until somebody updates it, it is `namespace.default_root()`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from ostiary.broker.namespace import ROOT, default_root
from ostiary.errors import NotFoundError, StoreError, TamperedError
from ostiary.secret import Value, decode_values, encode_values
from ostiary.session import ParsedSession, Secret, parse_session
from ostiary.store import Expect, Record, Store, Write

MAX_CACHED_SESSIONS = 256
"""Parsed sessions kept, the least recently used dropped first."""

_FORM = 1
_ROOT_SEALED = "root-sealed"

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """One version of a session as the store holds it.

    creator: key hash (32 bytes) of the TLS client that uploaded it, None for an upload without certificate.
    record: version number of the record it was read from, for compare-and-set; 0: the default root, which has none.
    """

    parsed: ParsedSession
    creator: bytes | None
    record: int

    @cached_property
    def secrets(self) -> Mapping[str, Secret]:
        """The secrets of the session by name."""
        return {secret.name: secret for secret in self.parsed.session.secrets}

    @property
    def is_current(self) -> Expect:
        """The condition that this is still the current version."""
        return Expect(name=f"session/{self.parsed.session.name}", version=self.record)


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """Secret values of the current version of `session`, and the version number of their record."""

    session: str
    values: Mapping[str, Value]
    record: int

    @property
    def are_current(self) -> Expect:
        """The condition that these are still the values."""
        return Expect(name=f"values/{self.session}", version=self.record)


class SessionRecords:
    """Reads and writes the records of sessions. Decides nothing about who may."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sessions: OrderedDict[str, StoredSession] = OrderedDict()
        self._values: OrderedDict[str, StoredValues] = OrderedDict()

    def current(self, name: str) -> StoredSession | None:
        """The newest version of the session, None if there is no session of that name. The root is always there."""
        stored = self._load(f"session/{name}")
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
        return self._load(f"version/{name}/{session_hash.hex()}")

    @property
    def root_is_sealed(self) -> bool:
        """Whether sessions were created before anybody updated the root namespace, so that it can never change."""
        return self._store.version(_ROOT_SEALED) is not None

    @property
    def root_is_not_sealed(self) -> Expect:
        """The condition that nobody has created a session before the root was updated."""
        return Expect(name=_ROOT_SEALED, version=0)

    def seal_root(self) -> Write:
        """The write after which the root namespace can never change. It must not be sealed yet."""
        return Write(name=_ROOT_SEALED, value=b"", expected_version=0)

    def values(self, name: str) -> StoredValues:
        """The secret values of the current version. Raises NotFoundError if there is no such session."""
        record_name = f"values/{name}"
        cached = self._values.get(name)
        if cached is not None and cached.record == self._store.version(record_name):
            self._values.move_to_end(name)
            return cached
        record = self._store.get(record_name)
        if record is None and name == ROOT:
            return StoredValues(session=ROOT, values={}, record=0)
        if record is None:
            raise NotFoundError("Session not found")
        stored = StoredValues(session=name, values=decode_values(record.value), record=record.version)
        _remember(self._values, name, stored)
        return stored

    def writes(
        self,
        parsed: ParsedSession,
        *,
        creator: bytes | None,
        values: Mapping[str, Value],
        replaced: StoredSession | None,
    ) -> list[Write]:
        """The writes that make `parsed` the current version, in place of `replaced` or as the first one."""
        name = parsed.session.name
        text = json.dumps(
            {
                "form": _FORM,
                "hash": parsed.hash.hex(),
                "creator": None if creator is None else creator.hex(),
                "text": parsed.text,
            }
        ).encode()
        values_record = 0 if replaced is None else self.values(name).record
        return [
            Write(name=f"session/{name}", value=text, expected_version=0 if replaced is None else replaced.record),
            Write(name=f"version/{name}/{parsed.hash.hex()}", value=text, expected_version=0),
            self.write_values(name, values, replaced=values_record),
        ]

    def write_values(self, name: str, values: Mapping[str, Value], *, replaced: int) -> Write:
        """The write that replaces the secret values of the session, read as record version `replaced`."""
        return Write(name=f"values/{name}", value=encode_values(values), expected_version=replaced)

    def _load(self, record_name: str) -> StoredSession | None:
        cached = self._sessions.get(record_name)
        if cached is not None and cached.record == self._store.version(record_name):
            self._sessions.move_to_end(record_name)
            return cached
        record = self._store.get(record_name)
        if record is None:
            return None
        stored = _parse_record(record)
        _remember(self._sessions, record_name, stored)
        return stored


def _default_root() -> StoredSession:
    return StoredSession(parsed=default_root(), creator=None, record=0)


def _parse_record(record: Record) -> StoredSession:
    members = json.loads(record.value)
    if members["form"] != _FORM:
        raise StoreError(
            f"a session record has form {members['form']}, expected {_FORM}: a newer Ostiary wrote it; run that"
        )
    parsed = parse_session(members["text"])
    if parsed.hash.hex() != members["hash"]:
        raise TamperedError("a stored session does not have the hash that was recorded for it")
    creator = members["creator"]
    return StoredSession(
        parsed=parsed, creator=None if creator is None else bytes.fromhex(creator), record=record.version
    )


def _remember(cache: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > MAX_CACHED_SESSIONS:
        cache.popitem(last=False)
