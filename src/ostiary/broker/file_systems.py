"""The protected file systems of a start: whose they are, their keys, and the states that they must be in.

Their states move while programs run, so none of this is ever kept ready: it is looked up at each start.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ostiary.broker.cas import Cas
from ostiary.broker.configure import MainFileSystem, MountedVolume
from ostiary.broker.file_records import main_record, main_write, volume_record, volume_write
from ostiary.broker.file_state import (
    KEY_BYTES,
    STATE_ID_BYTES,
    MainState,
    VolumeState,
    admitted_tags,
    demanded_tag,
    main_declaration,
    volume_declaration,
)
from ostiary.broker.outside import Errands
from ostiary.broker.resolution import Resolution
from ostiary.broker.session_records import StoredSession
from ostiary.broker.volume_use import exported_volume, permitted_policy
from ostiary.errors import RefusedError, ReleaseRefusedError, VolumeUnavailableError
from ostiary.secret import BinaryValue, secrets_used
from ostiary.session import Template
from ostiary.session.model import Image, ImageVolume, Service, Session, Variable, Volume
from ostiary.store import Expect, Write

MAIN = "main"
"""The target that a main file system is, among those named `volume:NAME`."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a start may report changes of. record: of the state. state_id: of the history that the start is part of."""

    record: str
    state_id: bytes
    update_policy: str


@dataclass(frozen=True, kw_only=True)
class FileSystems:
    """What a start receives. grants: by target. writes, rests_on: the release must be committed with and on them."""

    volumes: tuple[MountedVolume, ...]
    main: MainFileSystem | None
    grants: Mapping[str, Grant]
    writes: tuple[Write, ...] = field(repr=False)
    rests_on: tuple[Expect, ...]


@dataclass(frozen=True, kw_only=True)
class VolumeUse:
    """A volume as an image uses it. owner: the session that declares it, in its current version."""

    owner: StoredSession
    volume: Volume
    update_policy: str

    @property
    def record(self) -> str:
        return volume_record(self.owner.parsed.session.name, self.volume.name)


def has_file_systems(session: Session, service: Service) -> bool:
    """Whether a service has protected file systems at all; hardly any has."""
    return service.fspf_path is not None or bool(_mounts(session, service))


def file_systems(cas: Cas, stored: StoredSession, service: Service, errands: Errands | None = None) -> FileSystems:
    """What a service of a current version may have of its volumes and main file system at this instant.

    Guarantees: each volume is this session's own or was exported to it, used no more freely than the exporter allows;
    keys that are made here are in `writes`, so that all starts of all sessions receive the same one; the states are
    those recorded last when this was called, and whoever changes one later has to name it.
    Does not guarantee anything about what lies on a disk, which only the runtime can see.
    errands: as in `Resolution`, for keys that a vault holds.
    Raises VolumeUnavailableError whose message names the volume only, ReleaseRefusedError, SecretUnavailableError, and
    Pending (`outside`).
    """
    return _Gathering(cas, stored, service, errands).gather()


def volume_use(resolution: Resolution, stored: StoredSession, mount: ImageVolume) -> VolumeUse:
    """Whose volume a mount of a current version means, and how it may be used. Raises VolumeUnavailableError."""
    try:
        return _volume_use(resolution, stored, mount)
    except RefusedError as refusal:
        raise _unavailable(mount.name, refusal) from None


def mounts_by_name(session: Session, service: Service) -> dict[str, ImageVolume]:
    """The volumes of a service's image by name. Raises VolumeUnavailableError: one of them is mounted in two ways."""
    mounts: dict[str, ImageVolume] = {}
    for mount in _mounts(session, service):
        if mounts.setdefault(mount.name, mount).update_policy != mount.update_policy:
            raise VolumeUnavailableError(
                f"volume {mount.name!r} cannot be used", "it is mounted twice in one image, with two update policies"
            )
    return mounts


def _mounts(session: Session, service: Service) -> tuple[ImageVolume, ...]:
    return next((image for image in session.images if image.name == service.image_name), Image(name="")).volumes


def _volume_use(resolution: Resolution, stored: StoredSession, mount: ImageVolume) -> VolumeUse:
    volume = next(volume for volume in stored.parsed.session.volumes if volume.name == mount.name)
    if isinstance(volume, Volume):
        return VolumeUse(owner=stored, volume=volume, update_policy=mount.update_policy)
    exporter = resolution.session(volume.session)
    exported, export = exported_volume(exporter.parsed, volume, stored.parsed)
    policy = permitted_policy(mount.update_policy, limit=export.update_policy)
    return VolumeUse(owner=exporter, volume=exported, update_policy=policy)


def _unavailable(name: str, refusal: RefusedError) -> VolumeUnavailableError:
    return VolumeUnavailableError(f"volume {name!r} cannot be used", *refusal.chain)


class _Gathering:
    """One look at all file systems of one service. `_new`: states that are made by this release, by record."""

    def __init__(self, cas: Cas, stored: StoredSession, service: Service, errands: Errands | None) -> None:
        self._cas = cas
        self._stored = stored
        self._service = service
        # Nothing is renewed on the way: no key is a certificate.
        self._resolution = Resolution(cas.sessions, random=cas.random, now=cas.now(), renewing=False, errands=errands)
        self._new: dict[str, VolumeState] = {}
        self._writes: list[Write] = []
        self._grants: dict[str, Grant] = {}

    def gather(self) -> FileSystems:
        volumes = tuple(self._volumes())
        main = None if self._service.fspf_path is None else self._main(self._service.fspf_path)
        return FileSystems(
            volumes=volumes,
            main=main,
            grants=self._grants,
            writes=tuple(self._writes),
            rests_on=self._resolution.rests_on,
        )

    def _volumes(self) -> Iterator[MountedVolume]:
        session = self._stored.parsed.session
        by_name = mounts_by_name(session, self._service)
        for mount in _mounts(session, self._service):
            use = volume_use(self._resolution, self._stored, by_name[mount.name])
            try:
                yield self._mounted(mount, use)
            except RefusedError as refusal:
                raise _unavailable(mount.name, refusal) from None

    def _mounted(self, mount: ImageVolume, use: VolumeUse) -> MountedVolume:
        state = self._volume_state(use)
        policy = use.update_policy
        grant = Grant(record=use.record, state_id=state.id, update_policy=policy)
        self._grants[f"volume:{mount.name}"] = grant
        if use.volume.fspf_key is None:
            key = state.key or use.owner.volume_keys.get(use.volume.name)
        else:
            key = self._key(use.owner, use.volume.fspf_key)
        if key is None:
            raise ReleaseRefusedError("neither the session nor the record of its state has a key")
        return MountedVolume(
            name=mount.name,
            path=self._absolute(mount.path),
            key=key,
            tag=demanded_tag(state, policy),
            initialise=state.tag is None,
            files=use.volume.files,
            update_policy=policy,
        )

    def _volume_state(self, use: VolumeUse) -> VolumeState:
        known, _ = self._cas.files.volume(use.record)
        state = known or self._new.get(use.record)
        if state is None:
            is_given = use.volume.fspf_key is not None or use.volume.name in use.owner.volume_keys
            state = VolumeState(
                id=self._cas.random(STATE_ID_BYTES),
                declaration=volume_declaration(use.volume),
                files=use.volume.files,
                key=None if is_given else self._cas.random(KEY_BYTES),
                tag=use.volume.fspf_tag,
            )
            self._new[use.record] = state
            self._writes.append(volume_write(use.record, state, 0))
        return state

    def _main(self, path: str) -> MainFileSystem:
        service = self._service
        if service.fspf_key is None:
            raise ReleaseRefusedError("the main file system has no key; give fspf_key")
        record = main_record(self._stored.parsed.session.name, service.name)
        state, _ = self._cas.files.main(record)
        if state is None:
            state = MainState(id=self._cas.random(STATE_ID_BYTES), declaration=main_declaration(service))
            self._writes.append(main_write(record, state, 0))
        self._grants[MAIN] = Grant(record=record, state_id=state.id, update_policy=service.fspf_update_policy)
        return MainFileSystem(
            path=self._absolute(path),
            key=self._key(self._stored, service.fspf_key),
            tags=admitted_tags(state, service),
            update_policy=service.fspf_update_policy,
        )

    def _absolute(self, path: str) -> str:
        return posixpath.join(self._service.pwd or "/", path)

    def _key(self, owner: StoredSession, key: bytes | Variable) -> bytes:
        """Raises ReleaseRefusedError, SecretUnavailableError."""
        if not isinstance(key, Variable):
            return key
        wanted = secrets_used(owner.parsed.session, (Template(parts=(key.placeholder,)),))
        for value in self._resolution.released(owner, wanted).values():
            if isinstance(value, BinaryValue) and len(value.data) == KEY_BYTES:
                return value.data
        raise ReleaseRefusedError(f"{key.placeholder} is no binary secret of {KEY_BYTES} bytes; the key must be one")
