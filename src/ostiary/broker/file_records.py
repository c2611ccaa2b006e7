"""States of protected file systems in the store, beside the sessions that declare them.

Two kinds of record, by logical name::

    volume/SESSION/VOLUME     of the session that declares the volume, whoever imports it
    main-fspf/SESSION/SERVICE

A record appears with the first start that uses the file system, and outlives every version of its session, also one
that does not have the volume. It is dropped, and with it a key that was made here, when a version is stored that gives
the key or the tag otherwise: so a record always fits what the current version declares.

The key of a volume stands in its record, unless its session keeps, or once kept, its values in a key vault: then it is
among those values (`StoredSession.volume_keys`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

from ostiary.broker.file_state import MainState, VolumeState, main_declaration, volume_declaration
from ostiary.errors import InputError, StoreError
from ostiary.session.model import Session, Volume
from ostiary.store import Expect, Record, Store, Write

_FORM = 1


@dataclass(frozen=True, kw_only=True)
class Succession:
    """What an update means for the states: `writes` drop or change some, `expect` is what it was judged by.

    dropped: volumes that begin anew. moved: keys by volume, which the writes take out of the records and the caller
    has to keep. elsewhere: volumes without fspf_key that were used, and whose record has no key.
    """

    writes: tuple[Write, ...] = field(default=(), repr=False)
    expect: tuple[Expect, ...] = ()
    dropped: frozenset[str] = frozenset()
    moved: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    elsewhere: frozenset[str] = frozenset()


class FileRecords:
    """Reads and makes writes of the records, on the event loop only. Decides nothing about who may."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def volume(self, name: str) -> tuple[VolumeState | None, int]:
        """The state of a volume by the name of its record, and the version of that; None and 0: never used."""
        record = self._store.get(name)
        return (None, 0) if record is None else (_volume_state(record), record.version)

    def main(self, name: str) -> tuple[MainState | None, int]:
        """As `volume`, of a main file system."""
        record = self._store.get(name)
        return (None, 0) if record is None else (_main_state(record), record.version)

    def lock(self, name: str) -> asyncio.Lock:
        """Held by whoever changes a record over and over, so that all come to it in turn and none starves."""
        return self._locks.setdefault(name, asyncio.Lock())

    @asynccontextmanager
    async def succeeding(self, before: Session | None, after: Session) -> AsyncIterator[Succession]:
        """What storing `after` in place of `before` does to the states of its volumes and main file systems.

        While the block lasts, nobody else of this process changes what is dropped or changed here. Raises InputError:
        a volume that is kept would have other `files`.
        """
        async with AsyncExitStack() as held:
            for name in sorted(write.name for write in self._succession(before, after).writes):
                await held.enter_async_context(self.lock(name))
            yield self._succession(before, after)

    def _succession(self, before: Session | None, after: Session) -> Succession:
        if before is None:
            return Succession()  # Nobody can have used anything of it yet.
        writes: list[Write] = []
        expect: dict[Expect, None] = {}
        for name, declaration, state, version in (*self._volumes(before, after), *self._mains(before, after)):
            if state is None:
                # A first start may be about to make the record as the version before declares it.
                expect[Expect(name=name, version=0)] = None
            elif state.declaration != declaration:
                writes.append(Write(name=name, value=None, expected_version=version))
        dropped = {write.name for write in writes}
        keys: dict[str, bytes | None] = {}
        for volume in _without_key(after):
            name = volume_record(after.name, volume.name)
            state, version = self.volume(name)
            if name in dropped:
                continue
            if state is None:
                if after.secret_store is not None:
                    # The same: that start would put a key into the record.
                    expect[Expect(name=name, version=0)] = None
                continue
            keys[volume.name] = state.key
            if state.key is not None and after.secret_store is not None:
                writes.append(volume_write(name, replace(state, key=None), version))
        return Succession(
            writes=tuple(writes),
            expect=tuple(expect),
            dropped=frozenset(v.name for v in after.volumes if volume_record(after.name, v.name) in dropped),
            moved={name: key for name, key in keys.items() if key is not None and after.secret_store is not None},
            elsewhere=frozenset(name for name, key in keys.items() if key is None),
        )

    def _volumes(self, before: Session, after: Session) -> Iterator[tuple[str, bytes, VolumeState | None, int]]:
        """Record name, new declaration, state and version of the volumes whose record may not fit any more."""
        former = {volume.name: volume for volume in before.volumes if isinstance(volume, Volume)}
        for volume in after.volumes:
            if not isinstance(volume, Volume):
                continue
            old, declaration = former.get(volume.name), volume_declaration(volume)
            if old is not None:
                _require_same_files(volume, old.files)
                if volume_declaration(old) == declaration:
                    continue
            name = volume_record(after.name, volume.name)
            state, version = self.volume(name)
            if state is not None:
                _require_same_files(volume, state.files)
            if state is not None or old is not None:
                yield name, declaration, state, version

    def _mains(self, before: Session, after: Session) -> Iterator[tuple[str, bytes, MainState | None, int]]:
        former = {service.name: service for service in before.services if service.fspf_path is not None}
        for service in after.services:
            if service.fspf_path is None:
                continue
            old, declaration = former.get(service.name), main_declaration(service)
            if old is not None and main_declaration(old) == declaration:
                continue
            name = main_record(after.name, service.name)
            state, version = self.main(name)
            if state is not None or old is not None:
                yield name, declaration, state, version


def volume_record(session: str, volume: str) -> str:
    """The name of the record of a volume that `session` declares."""
    return f"volume/{session}/{volume}"


def main_record(session: str, service: str) -> str:
    """The name of the record of the main file system of a service."""
    return f"main-fspf/{session}/{service}"


def volume_write(name: str, state: VolumeState, version: int) -> Write:
    """The write that makes `state` the state of a volume, in place of what had `version`."""
    members = {
        "form": _FORM,
        "id": state.id.hex(),
        "declaration": state.declaration.hex(),
        "files": state.files,
        "key": state.key and state.key.hex(),
        "tag": state.tag and state.tag.hex(),
        "replaced": state.replaced and state.replaced.hex(),
    }
    return Write(name=name, value=json.dumps(members).encode(), expected_version=version)


def main_write(name: str, state: MainState, version: int) -> Write:
    """As `volume_write`, of a main file system."""
    members = {
        "form": _FORM,
        "id": state.id.hex(),
        "declaration": state.declaration.hex(),
        "heads": [head.hex() for head in state.heads],
    }
    return Write(name=name, value=json.dumps(members).encode(), expected_version=version)


def _without_key(session: Session) -> Iterator[Volume]:
    """The volumes of a session whose key is made here."""
    return (volume for volume in session.volumes if isinstance(volume, Volume) and volume.fspf_key is None)


def _require_same_files(volume: Volume, files: str) -> None:
    if volume.files != files:
        raise InputError(
            f"volume {volume.name}: files is {volume.files}, and the volume of this name has {files} files",
            "leave it as it was, or give the volume another name, which makes a new one",
        )


def _volume_state(record: Record) -> VolumeState:
    members = _members(record)
    return VolumeState(
        id=bytes.fromhex(members["id"]),
        declaration=bytes.fromhex(members["declaration"]),
        files=members["files"],
        key=_optional(members["key"]),
        tag=_optional(members["tag"]),
        replaced=_optional(members["replaced"]),
    )


def _main_state(record: Record) -> MainState:
    members = _members(record)
    return MainState(
        id=bytes.fromhex(members["id"]),
        declaration=bytes.fromhex(members["declaration"]),
        heads=tuple(bytes.fromhex(head) for head in members["heads"]),
    )


def _members(record: Record) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(record.value)
    if members["form"] != _FORM:
        raise StoreError(
            f"a record of protected files has form {members['form']}, expected {_FORM}: a newer Ostiary wrote it; run "
            "that"
        )
    return members


def _optional(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)
