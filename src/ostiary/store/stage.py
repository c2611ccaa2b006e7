"""The next state, made from commits taken one after the other. Pure: no database, no thread, no clock.

Nothing of a stage counts before its batch is durable; a stage that is dropped leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ostiary.errors import ConflictError
from ostiary.store.backend import Batch, Deletion, LeafRow, RecordRow
from ostiary.store.box import NONCE_BYTES
from ostiary.store.state import MODULUS, State, seal_state
from ostiary.store.vault import Vault, entry_version, index_entry

REMEMBERED_DELETIONS = 65_536
"""Commits back from the newest whose deletions are still told; whoever is further behind reads everything anew."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Target:
    """A `Write` whose name has become a record id."""

    record_id: bytes
    value: bytes | None
    expected_version: int


@dataclass(frozen=True, kw_only=True)
class Condition:
    """An `Expect` whose name has become a record id."""

    record_id: bytes
    version: int


class Stage:
    """Commits to be made durable together, on top of `state` and the index that belongs to it.

    changes: what becomes of the index, id to entry, None where the record is deleted.
    """

    def __init__(
        self, vault: Vault, state: State, index: Mapping[bytes, bytes], *, random: Callable[[int], bytes]
    ) -> None:
        self._vault = vault
        self._state = state
        self._index = index
        self._random = random
        self._total = state.total
        self._records = state.records
        self._log = state.log
        self._rows: dict[bytes, RecordRow | Deletion] = {}
        self._leaves: list[LeafRow] = []
        self.changes: dict[bytes, bytes | None] = {}

    @property
    def empty(self) -> bool:
        return not self._leaves

    def add(self, targets: tuple[Target, ...], leaf: bytes, *, conditions: tuple[Condition, ...] = ()) -> None:
        """Take one commit, all of it or nothing.

        Guarantees that each target and each record of a condition had the version its writer expected, after the
        commits taken before. Raises ConflictError otherwise. Two targets with one id are the caller's to refuse.
        """
        for target in targets:
            self._require_version(target.record_id, target.expected_version, "to be written")
        for condition in conditions:
            self._require_version(condition.record_id, condition.version, "that the commit rests on")
        position = self._log.size
        self._log = self._log.append(leaf)
        self._leaves.append(self._vault.seal_leaf(position, leaf, nonce=self._random(NONCE_BYTES)))
        for target in targets:
            self._put(target, version=position + 1)

    def close(self) -> tuple[State, Batch]:
        """The state after all commits taken, and the batch that makes it so."""
        state = seal_state(
            self._vault,
            seq=self._state.head.seq + 1,
            total=self._total,
            records=self._records,
            previous=self._state.head.digest,
            log=self._log,
            nonce=self._random(NONCE_BYTES),
        )
        deleted = tuple(row for row in self._rows.values() if isinstance(row, Deletion))
        return state, Batch(
            expected=self._state.row,
            head=state.row,
            records=tuple(row for row in self._rows.values() if isinstance(row, RecordRow)),
            deleted=deleted,
            leaves=tuple(self._leaves),
            # Only those who delete clear up, so that other transactions do not touch one more table.
            forgotten=max(0, self._log.size - REMEMBERED_DELETIONS) if deleted else 0,
        )

    def _entry(self, record_id: bytes) -> bytes | None:
        return self.changes[record_id] if record_id in self.changes else self._index.get(record_id)

    def _require_version(self, record_id: bytes, expected: int, role: str) -> None:
        entry = self._entry(record_id)
        version = 0 if entry is None else entry_version(entry)
        if version != expected:
            found = f"is at version {version}" if version else "is absent"
            wanted = f"version {expected}" if expected else "none"
            raise ConflictError(f"a record {role} {found}, expected {wanted}: read it again and repeat the change")

    def _put(self, target: Target, *, version: int) -> None:
        before = self._entry(target.record_id)
        if before is not None:
            self._total = (self._total - self._vault.element(target.record_id, before)) % MODULUS
            self._records -= 1
        if target.value is None:
            self._rows[target.record_id] = Deletion(target.record_id, version)
            self.changes[target.record_id] = None
            return
        row = self._vault.seal_record(target.record_id, version, target.value, nonce=self._random(NONCE_BYTES))
        entry = index_entry(row)
        self._total = (self._total + self._vault.element(target.record_id, entry)) % MODULUS
        self._records += 1
        self._rows[target.record_id] = row
        self.changes[target.record_id] = entry
