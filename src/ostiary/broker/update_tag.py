"""A running program reports that its protected files changed: the recorded state moves with them, or it is refused.

Source: session language, section 10.3; docs/enclave-protocol.md, "POST /v1/tags".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ostiary.audit import Kind, entry
from ostiary.broker.cas import Cas, log
from ostiary.broker.denial import deny
from ostiary.broker.file_records import main_write, volume_write
from ostiary.broker.file_state import Report, advance_main, advance_volume
from ostiary.broker.file_systems import MAIN, Grant, mounts_by_name, volume_use
from ostiary.broker.release import MAX_TRIES, Start
from ostiary.broker.resolution import Resolution
from ostiary.broker.session_records import StoredSession
from ostiary.broker.volume_use import EPHEMERAL
from ostiary.errors import ConflictError, InputError, RefusedError, ReleaseRefusedError, TagConflictError
from ostiary.session.model import Service
from ostiary.store import Expect, Write

MAX_LOOK_AGE_SECONDS = 60.0
"""How long ago a key vault may have been found to have all values of the session: programs write files all the time."""

_AGAIN = "start the program again"


async def update_tag(cas: Cas, start: Start, target: str, *, old: bytes | None, new: bytes) -> bool:
    """Record that the files of `target` went from the state `old` to the state `new`; whether that counts.

    target: `main`, or `volume:NAME` of a volume of the start's image. old, new: tags of 16 bytes; old None: the volume
    was empty and is initialised. False: the use is ephemeral, and nothing was recorded.
    Guarantees on return of True: `new` is the recorded state, durably, and its entry is in the audit log, both by one
    commit; unless the session asks for no protection, it was recorded that it follows `old`, which was recorded before
    or given by the session; at that commit the current session still had the service, and the file system was still
    used as it was released, in the same history. The same report again changes nothing and is True.
    Raises TagConflictError: `old` is not the recorded state; InputError: no such target; DeniedRelease: the session or
    the exporting one changed so that this start may not report any more; StoreError.
    """
    grant = start.grants.get(target)
    if grant is None:
        raise InputError(f"target {target[:80]!r} is no volume or main file system of this service")
    try:
        return await _update_in_turn(cas, start, target, grant, old, new)
    except TagConflictError as conflict:
        log.warning("%s, %s: %s", start.service_id, target, conflict)
        raise
    except RefusedError as refusal:
        raise await deny(cas, start.attempt("volume"), refusal) from refusal


async def _update_in_turn(cas: Cas, start: Start, target: str, grant: Grant, old: bytes | None, new: bytes) -> bool:
    async with cas.files.lock(grant.record):
        for _ in range(MAX_TRIES):
            await cas.sessions.prepare(start.stored.parsed.session.name, old_seconds=MAX_LOOK_AGE_SECONDS)
            try:
                if target == MAIN:
                    return await _update_main(cas, start, grant, old, new)
                return await _update_volume(cas, start, target.removeprefix("volume:"), grant, old, new)
            except TagConflictError:
                raise
            except ConflictError:
                continue
    raise ReleaseRefusedError(f"what {target} rests on changes faster than it can be recorded", _AGAIN)


async def _update_volume(cas: Cas, start: Start, name: str, grant: Grant, old: bytes | None, new: bytes) -> bool:
    stored, service = _current(cas, start)
    resolution = Resolution(cas.sessions, random=cas.random, now=cas.now(), renewing=False)
    mount = mounts_by_name(stored.parsed.session, service).get(name)
    if mount is None:
        raise _changed(f"volume {name!r}")
    use = volume_use(resolution, stored, mount)
    use.owner.require_values()
    state, version = cas.files.volume(use.record)
    if state is None or grant != Grant(record=use.record, state_id=state.id, update_policy=use.update_policy):
        raise _changed(f"volume {name!r}")
    after = advance_volume(state, use.update_policy, old=old, new=new)
    if after is not state:
        exporter = {} if use.owner is stored else {"exporter": use.owner.parsed.session.name}
        data = {"volume": name, "tag": new.hex(), **exporter}
        expect = (stored.is_current, *resolution.rests_on)
        await _commit(cas, start, Kind.VOLUME_FSPF_TAG_UPDATED, data, volume_write(use.record, after, version), expect)
    return use.update_policy != EPHEMERAL


async def _update_main(cas: Cas, start: Start, grant: Grant, old: bytes | None, new: bytes) -> bool:
    stored, service = _current(cas, start)
    if old is None:
        raise InputError("the report gives the main file system no state before the change, and it always has one")
    state, version = cas.files.main(grant.record)
    if service.fspf_path is None or state is None:
        raise _changed("the main file system")
    if grant != Grant(record=grant.record, state_id=state.id, update_policy=service.fspf_update_policy):
        raise _changed("the main file system")
    report = Report(old=old, new=new)
    after = advance_main(state, service, start.reported, report)
    if after is not state:
        write = main_write(grant.record, after, version)
        await _commit(cas, start, Kind.SERVICE_FSPF_TAG_UPDATED, {"tag": new.hex()}, write, (stored.is_current,))
    start.reported = report
    return True


def _current(cas: Cas, start: Start) -> tuple[StoredSession, Service]:
    """The current version of the start's session, and its service. Raises ReleaseRefusedError: it has none any more."""
    session = start.stored.parsed.session.name
    stored = cas.sessions.require(session)
    stored.require_values()
    for service in stored.parsed.session.services:
        if service.name == start.service.name:
            return stored, service
    raise ReleaseRefusedError(f"session {session} has no service {start.service.name!r} any more")


def _changed(what: str) -> ReleaseRefusedError:
    return ReleaseRefusedError(f"{what} is not used as it was when this program started", _AGAIN)


async def _commit(
    cas: Cas, start: Start, kind: Kind, data: Mapping[str, str], write: Write, expect: tuple[Expect, ...]
) -> None:
    named = {"session": start.stored.parsed.session.name, "service": start.service.name, **data}
    leaf = entry(kind, named, cas.now(), cas.random)
    await asyncio.wrap_future(cas.store.commit([write], leaf, expect=expect))
    log.debug("%s %s", kind.value, start.service_id)
