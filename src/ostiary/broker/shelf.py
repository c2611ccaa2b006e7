"""The endorsements that a service keeps, as sealed records, each verified before it is stored and when it is read back.

By logical name::

    endorsements           which parts there are, and where they came from
    endorsement/PART       one part, in the form of a bundle

What stands in the store is only ever replaced by better copies (`_improves`): newer, of an equal or better origin, and
not run out if the kept one has not. So neither a vendor's server nor an attester can turn TCB data or revocation lists
back.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ostiary.audit import Kind, entry
from ostiary.errors import ConflictError, EvidenceFormatError, EvidenceRefusedError, StoreError
from ostiary.evidence.endorsements.bundle_file import read_bundle, write_bundle
from ostiary.evidence.endorsements.choice import Kept
from ostiary.evidence.endorsements.part import Part, parse_part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, Origin, verify_piece
from ostiary.store import Expect, Store, Write

MAX_KEPT = 1024
"""Parts in the store. Beyond, the ones of attesters that were stored longest ago go first, then the vendors'."""
MAX_IN_MEMORY = 256
"""Parts that are kept ready, the least recently used forgotten first; they can be read again."""
MAX_AT_ONCE = 64
"""Parts in one commit."""
MAX_TRIES = 8
"""How often storing begins anew because another process over the same database was faster."""

INDEX = "endorsements"
_FORM = 1

log = logging.getLogger("ostiary.broker.endorsements")


def record_name(part: Part) -> str:
    """The logical name of a part's record. It leaves this process as a keyed hash only."""
    return f"endorsement/{part}"


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A part as it was read at a version of its record. kept: None if it does not verify."""

    version: int | None
    origin: Origin
    kept: Kept | None


class Shelf:
    """The parts in one store. Safe to use from any thread; `put` waits for the disk."""

    def __init__(
        self, store: Store, anchors: Anchors, *, now: Callable[[], datetime], random: Callable[[int], bytes]
    ) -> None:
        """Raises StoreError for an index of a later version."""
        self._store = store
        self._anchors = anchors
        self._now = now
        self._random = random
        self._ready: OrderedDict[Part, _Ready] = OrderedDict()
        # The first is held while the disk works, the second never: starts look things up meanwhile.
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._index_version, self._origins = self._read_index()

    def look(self) -> None:
        """Hear what other processes over the same database stored since the last look. Raises StoreError."""
        self._store.look()
        self.follow()

    def follow(self) -> None:
        """The same by what the store knows, without a look, for whoever commits on `conditions`."""
        with self._lock:
            if self._store.known_version(INDEX) == self._index_version:
                return
            self._index_version, self._origins = self._read_index()
            for part, ready in list(self._ready.items()):
                now = (self._store.known_version(record_name(part)), self._origins.get(part))
                if (ready.version, ready.origin) != now:
                    del self._ready[part]

    def conditions(self, parts: Iterable[Part]) -> tuple[Expect, ...]:
        """That nothing was stored of these parts since this call: asked for before `follow` and `held`, so that what
        those find is never older.
        """
        names = [record_name(part) for part in parts]
        return tuple(Expect(name=name, version=self._store.known_version(name) or 0) for name in names)

    def parts(self) -> tuple[Part, ...]:
        """Every part that is kept, whether it can be used or not."""
        with self._lock:
            return tuple(sorted(self._origins))

    def held(self, part: Part) -> Kept | None:
        """The copy that is kept as of the last look, verified under today's roots; None if none verifies."""
        with self._lock:
            origin = self._origins.get(part)
            if origin is None:
                return None
            if part not in self._ready:
                version, endorsement = self._read(part)
                kept = None if endorsement is None else Kept(endorsement=endorsement, origin=origin)
                self._ready[part] = _Ready(version=version, origin=origin, kept=kept)
                if len(self._ready) > MAX_IN_MEMORY:
                    self._ready.popitem(last=False)
            self._ready.move_to_end(part)
            return self._ready[part].kept

    def put(self, endorsements: Sequence[Endorsement], origin: Origin) -> tuple[Part, ...]:
        """Store what is better than what is kept, and return its parts; durable on return.

        Endorsements of software roots are never kept: whoever holds such a root would speak for hardware.
        Raises StoreError.
        """
        with self._writing:
            for _ in range(MAX_TRIES):
                self.look()
                try:
                    return self._put(endorsements, origin)
                except ConflictError:
                    continue
                finally:
                    self.look()
        raise StoreError("other processes store endorsements all the time: try again later")

    def _put(self, endorsements: Sequence[Endorsement], origin: Origin) -> tuple[Part, ...]:
        stored: list[Part] = []
        wanted = [one for one in endorsements if not one.root.software and self._improves(one, origin)]
        for start in range(0, len(wanted), MAX_AT_ONCE):
            stored += self._store_some(wanted[start : start + MAX_AT_ONCE], origin)
            self.look()
        return tuple(stored)

    def _improves(self, new: Endorsement, origin: Origin) -> bool:
        kept = self.held(new.part)
        if kept is None:
            return True
        if new.last_use(None) <= self._now() < kept.endorsement.last_use(None):
            return False
        if kept.origin != origin:
            return origin == "vendor"
        return new.is_newer_than(kept.endorsement)

    def _store_some(self, new: list[Endorsement], origin: Origin) -> list[Part]:
        with self._lock:
            before = dict(self._origins)
            index_version = self._index_version
        origins = {part: known for part, known in before.items() if part not in {one.part for one in new}}
        origins |= {one.part: origin for one in new}
        dropped = _to_drop(origins)
        kept = {part: known for part, known in origins.items() if part not in dropped}
        stored = [one for one in new if one.part in kept]
        if not stored:
            return []
        writes = [self._write(record_name(one.part), write_bundle([one])) for one in stored]
        writes += [self._write(record_name(part), None) for part in dropped if part in before]
        members = {"form": _FORM, "parts": {str(part): known for part, known in kept.items()}}
        # By the version that was read: whoever stored something meanwhile makes this a conflict.
        writes.append(Write(name=INDEX, value=json.dumps(members).encode(), expected_version=index_version or 0))
        data = {"origin": origin, "parts": [str(one.part) for one in stored]}
        self._store.commit(writes, entry(Kind.ENDORSEMENTS_STORED, data, self._now(), self._random)).result()
        return [one.part for one in stored]

    def _write(self, name: str, value: bytes | None) -> Write:
        return Write(name=name, value=value, expected_version=self._store.version(name) or 0)

    def _read(self, part: Part) -> tuple[int | None, Endorsement | None]:
        record = self._store.get(record_name(part))
        if record is None:
            return None, None
        try:
            (piece,) = read_bundle(record.value)
            return record.version, verify_piece(piece, self._anchors, now=self._now())
        except (EvidenceFormatError, EvidenceRefusedError) as error:
            log.warning("the stored %s cannot be used: %s", part, error)
            return record.version, None

    def _read_index(self) -> tuple[int | None, dict[Part, Origin]]:
        record = self._store.get(INDEX)
        if record is None:
            return None, {}
        members = json.loads(record.value)
        if members["form"] != _FORM:
            raise StoreError(
                f"the index of endorsements has form {members['form']}, expected {_FORM}: a newer Ostiary wrote it; "
                "run that"
            )
        return record.version, {parse_part(text): origin for text, origin in members["parts"].items()}


def _to_drop(origins: dict[Part, Origin]) -> set[Part]:
    """What is over MAX_KEPT; `origins` is in the order in which the parts were stored."""
    over = len(origins) - MAX_KEPT
    if over <= 0:
        return set()
    first = [part for part, origin in origins.items() if origin == "attester"]
    return set([*first, *(part for part, origin in origins.items() if origin == "vendor")][:over])
