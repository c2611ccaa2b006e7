"""States of protected file systems: which are demanded at a start, and what a change makes of them. Pure.

A *tag* of 16 bytes names one exact state of all files of a volume or of a service's main file system. It is no secret.

Volumes have one history::

    no tag ──first report──► T1 ──► T2 ──► …            T1 may be given by the session instead

Main file systems have one line of tags for each line of instances, all of which begin at the initial state::

    initial ─┬─► A1 ──► A2 (head)
             └─► B1 (head)

Source: session language, sections 10.1 and 10.3.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

from ostiary.broker.volume_use import EPHEMERAL, NO_ROLLBACK_PROTECTION, ROLLBACK_PROTECTED
from ostiary.errors import ReleaseRefusedError, TagConflictError
from ostiary.session.model import Service, Variable, Volume

STATE_ID_BYTES = 16
KEY_BYTES = 32
MAX_LINES = 1024
"""Lines of the main file system of one service whose newest tags are kept."""


@dataclass(frozen=True, kw_only=True)
class VolumeState:
    """What is known of a volume. id: 16 bytes, of this history of it and no other.

    declaration: digest of what the session says of key and tag; another declaration begins another history.
    key: the key that was made here, 32 bytes; None: the session gives it, or keeps it among its values. tag: None
    before the first initialisation. replaced: the tag before this one, None if there was none.
    """

    id: bytes
    declaration: bytes
    files: str
    key: bytes | None = field(default=None, repr=False)
    tag: bytes | None = None
    replaced: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class MainState:
    """What is known of a service's main file system. id, declaration: as in VolumeState.

    heads: the newest tag of each line, the least recently changed first. Two lines may be in the same state, so a tag
    can stand there twice; the initial tag, at which any line may begin, never does.
    """

    id: bytes
    declaration: bytes
    heads: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The last change that one start reported of its main file system: it is on the line with the head `new`."""

    old: bytes
    new: bytes


def volume_declaration(volume: Volume) -> bytes:
    """Digest of the text that gives a volume's key and tag, 32 bytes."""
    return _declaration(volume.fspf_key, volume.fspf_tag)


def main_declaration(service: Service) -> bytes:
    """Digest of the text that gives the key and the initial tag of a main file system, 32 bytes."""
    return _declaration(service.fspf_key, service.fspf_tag)


def _declaration(key: bytes | Variable | None, tag: bytes | None) -> bytes:
    written = str(key.placeholder) if isinstance(key, Variable) else key and key.hex()
    return hashlib.sha256(json.dumps([written, tag and tag.hex()]).encode()).digest()


def demanded_tag(state: VolumeState, policy: str) -> bytes | None:
    """The tag that a volume on disk must have at a start.

    None: any state under its key, or no state yet (`state.tag` tells which). Guarantees: except with
    `no_rollback_protection`, no state but the last recorded one is admitted; and where none is recorded, only a start
    whose changes count may make one.
    Raises ReleaseRefusedError: an ephemeral use of a volume that nobody has made.
    """
    if policy == NO_ROLLBACK_PROTECTION:
        return None
    if policy == EPHEMERAL and state.tag is None:
        raise ReleaseRefusedError(
            "it has no state yet, and an ephemeral use cannot give it one",
            f"start a service first that mounts it with update_policy {ROLLBACK_PROTECTED}",
        )
    return state.tag


def advance_volume(state: VolumeState, policy: str, *, old: bytes | None, new: bytes) -> VolumeState:
    """The state after a program changed the volume from `old` (None: it was empty) to `new`.

    Returns `state` itself where there is nothing to record: an ephemeral use, or a change that was recorded already.
    Guarantees: except with `no_rollback_protection`, the new state follows the recorded one. Does not guarantee that
    the program which reports is the only one that changes the volume.
    Raises TagConflictError with the recorded tag: the change is of another state.
    """
    if policy == EPHEMERAL:
        return state
    if new == state.tag and old in (state.replaced, state.tag):
        return state
    if policy != NO_ROLLBACK_PROTECTION and old != state.tag:
        raise _conflict("the volume", old, state.tag)
    return replace(state, tag=new, replaced=old)


def admitted_tags(state: MainState, service: Service) -> tuple[bytes, ...] | None:
    """The tags of which the main file system on disk must have one at a start, the initial one first; None: any."""
    if service.fspf_update_policy == NO_ROLLBACK_PROTECTION:
        return None
    initial = () if service.fspf_tag is None else (service.fspf_tag,)
    return tuple(dict.fromkeys((*initial, *state.heads)))


def advance_main(state: MainState, service: Service, last: Report | None, report: Report) -> MainState:
    """The state after a start reported a change of its main file system.

    last: what this start reported before; None: nothing, so that `report.old` tells which state it began with.
    Returns `state` itself where nothing changes. Guarantees, except with `no_rollback_protection`: a start that began
    at the initial tag has opened one line, one that began at a head continues that line, and from then on each change
    follows the one before it. Of more than MAX_LINES lines, the least recently changed are forgotten.
    Raises TagConflictError: the change is of another state, or its line was continued by another start or forgotten.
    """
    if report == last:
        return state
    if service.fspf_update_policy == NO_ROLLBACK_PROTECTION:
        return replace(state, heads=() if report.new == service.fspf_tag else (report.new,))
    if last is not None and report.old != last.new:
        raise _conflict("this start's line of the main file system", report.old, last.new)
    if not _admits(state, service, report.old):
        raise _conflict("the main file system", report.old, None)
    if report.old == report.new:
        return state
    heads = list(state.heads)
    if report.old != service.fspf_tag:
        heads.remove(report.old)
    if report.new != service.fspf_tag:
        heads.append(report.new)
    return replace(state, heads=tuple(heads[-MAX_LINES:]))


def _admits(state: MainState, service: Service, tag: bytes) -> bool:
    admitted = admitted_tags(state, service)
    return admitted is None or tag in admitted


def _conflict(what: str, old: bytes | None, current: bytes | None) -> TagConflictError:
    named = "without a state" if old is None else f"with the tag {old.hex()}"
    known = "no such state is the newest one" if current is None else f"its newest state has the tag {current.hex()}"
    return TagConflictError(
        f"a change of {what} {named}: {known}",
        "the files were put back to an older state, or another program has changed them",
        current=current,
    )
