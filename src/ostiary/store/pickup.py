"""From the state that a process knows to the one that others have brought the database to since.

Guarantees of `pick_up`, whatever the database answers: the new state is authentic, later than the known one, and made
over exactly the rows that the process will hold it against from now on; its audit log begins with the known log; and
every record that was not written since is the one that was known. So what was acknowledged is still there, or was
changed by a commit that the log shows.
Does not tell two histories apart whose audit logs hold the same bytes and whose differing records have all been
overwritten since; whoever adds a leaf sees to it that no two are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.errors import RollbackError, TamperedError
from ostiary.store.backend import HeadRow, LeafRow, Snapshot
from ostiary.store.log import LeafLog
from ostiary.store.state import MODULUS, State, unseal_state
from ostiary.store.vault import Vault, entry_version, index_entry
from ostiary.store.verification import load

_NEXT_STEP = "stop, and restore the newest database"


@dataclass(frozen=True, kw_only=True, repr=False)
class PickedUp:
    """state: the new one. changes: what becomes of the index, id to entry, None where the record is gone.

    first: the first leaf that came since; None if no commit did.
    """

    state: State
    changes: Mapping[bytes, bytes | None]
    first: LeafRow | None


def require_forward(vault: Vault, row: HeadRow | None, known: HeadRow, *, place: str) -> HeadRow:
    """The head row, if it is the known one or may be a later one.

    Raises RollbackError for a genuine head that is older, or another with the same number; TamperedError for none and
    for one that was never sealed.
    """
    if row is None:
        raise TamperedError(f"{place}: missing: the database holds no head, expected {known.seq}; {_NEXT_STEP}")
    if row.seq > known.seq or row == known:
        return row
    try:
        vault.unseal_head(row)
    except TamperedError as error:
        raise TamperedError(f"{place}: changed: head {row.seq} does not verify; {_NEXT_STEP}", *error.chain) from error
    if row.seq < known.seq:
        raise RollbackError(
            f"{place}: older version: the database is at head {row.seq}, expected {known.seq} or a later one, because "
            f"this process has seen that: it was put back; {_NEXT_STEP}"
        )
    raise RollbackError(
        f"{place}: forked: the database has another head {row.seq} than this process has seen: two histories grew from "
        f"copies of one database; {_NEXT_STEP}"
    )


def pick_up(
    vault: Vault, view: Snapshot, place: str, *, known: State, index: Mapping[bytes, bytes | None], empty: LeafLog
) -> PickedUp:
    """The state of the snapshot, found from the rows that changed since `known`, to which `index` belongs.

    Where these do not add up to the head (a hint of a deletion was already forgotten, or somebody tampered), every row
    is read. empty: the empty audit log. An id with None in `index` is as good as absent.
    Raises RollbackError and TamperedError, which name the kind of change.
    """
    row = require_forward(vault, view.head(), known.row, place=place)
    try:
        picked = _add_up(vault, view, unseal_state(vault, row, log=known.log), known, index)
    except TamperedError:
        # To be named by those who read everything.
        picked = None
    if picked is None:
        picked = _read_everything(vault, view, place, known, index, empty)
    if picked.state.head.seq == known.head.seq + 1 and picked.state.previous != known.head.digest:
        raise _forked(place, known)
    return picked


def _add_up(
    vault: Vault, view: Snapshot, state: State, known: State, index: Mapping[bytes, bytes | None]
) -> PickedUp | None:
    """What the changed rows amount to; None if that is not what the head says."""
    since = known.log.size
    changes: dict[bytes, bytes | None] = {row.id: index_entry(row) for row in view.records(since)}
    for hint in view.deletions(since):
        if hint.id in index:
            changes.setdefault(hint.id, None)
    total, records = known.total, known.records
    for record_id, entry in changes.items():
        before = index.get(record_id)
        if before is not None:
            total -= vault.element(record_id, before)
            records -= 1
        if entry is not None:
            total += vault.element(record_id, entry)
            records += 1
    log, first = known.log, None
    for leaf in view.leaves(since):
        first = first or leaf
        if leaf.position != log.size:
            return None
        log = log.append(vault.unseal_leaf(leaf))
    if (total % MODULUS, records, log.size, log.root) != (state.total, state.records, state.log.size, state.log.root):
        return None
    return PickedUp(state=state, changes=changes, first=first)


def _read_everything(
    vault: Vault, view: Snapshot, place: str, known: State, index: Mapping[bytes, bytes | None], empty: LeafLog
) -> PickedUp:
    state, found = load(vault, view, place, log=empty)
    log = empty
    first = None
    for leaf in view.leaves():
        if log.size == known.log.size:
            first = leaf
            break
        log = log.append(vault.unseal_leaf(leaf))
    since = known.log.size
    unchanged = all(
        index.get(record_id) == entry for record_id, entry in found.items() if entry_version(entry) <= since
    )
    if log.root != known.log.root or not unchanged:
        raise _forked(place, known)
    changes: dict[bytes, bytes | None] = dict.fromkeys(index.keys() - found.keys())
    changes.update((record_id, entry) for record_id, entry in found.items() if index.get(record_id) != entry)
    return PickedUp(state=state, changes=changes, first=first)


def _forked(place: str, known: State) -> RollbackError:
    return RollbackError(
        f"{place}: forked: the database has a history that did not go through head {known.head.seq}, which this "
        f"process has seen: two histories grew from copies of one database; {_NEXT_STEP}"
    )
