"""Whether the rows of a database are exactly those that its head was made over.

Detects, whatever the head is: a record or leaf that was changed, exchanged for another, put back to an older version,
dropped, added or duplicated; a head that was changed, or put back while the rows were not.
Does not detect that head, records and leaves were all put back together, to an earlier state of this same database:
that is authentic in every part. Only an anchor outside the database can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ostiary.errors import TamperedError
from ostiary.store.backend import LeafRow, RecordRow, Snapshot
from ostiary.store.log import LeafLog
from ostiary.store.state import MODULUS, State, unseal_state
from ostiary.store.vault import Vault, index_entry

_NEXT_STEP = "restore a backup that you trust"


def load(vault: Vault, view: Snapshot, place: str, *, log: LeafLog) -> tuple[State, dict[bytes, bytes]]:
    """The state of the database and its index, record id to entry, every row compared with the head.

    log: the empty log. Raises TamperedError, naming what kind of change was found; StoreError for trouble of the
    database.
    """
    state = read_state(vault, view, place, log=log)
    index = _load_records(vault, view, place, state)
    for _ in read_leaves(vault, view, place, state, log=log):
        pass
    return state, index


def read_state(vault: Vault, view: Snapshot, place: str, *, log: LeafLog) -> State:
    """What the head states, not yet compared with any other row. Arguments and errors as of `load`."""
    row = view.head()
    if row is None:
        raise TamperedError(f"{place}: missing: the database holds no head, expected one; {_NEXT_STEP}")
    try:
        return unseal_state(vault, row, log=log)
    except TamperedError as error:
        raise TamperedError(
            f"{place}: changed: head {row.seq} does not verify; {_NEXT_STEP}, or put the database's own key in place",
            *error.chain,
        ) from error


def _load_records(vault: Vault, view: Snapshot, place: str, state: State) -> dict[bytes, bytes]:
    index: dict[bytes, bytes] = {}
    total = 0
    for row in view.records():
        index[row.id] = entry = index_entry(row)
        total += vault.element(row.id, entry)
    if total % MODULUS != state.total:
        raise TamperedError(f"{place}: {_name_change(vault, view, state)}; {_NEXT_STEP}")
    return index


def _name_change(vault: Vault, view: Snapshot, state: State) -> str:
    """What kind of change made the records differ from the head. Only for the message: the refusal stands already."""
    found = 0
    for row in view.records():
        found += 1
        if not _is_record(vault, row):
            origin = _origin(vault, row, view.records())
            if origin is None:
                return f"changed: record {row.id.hex()[:16]} does not verify"
            return f"swapped: record {row.id.hex()[:16]} holds the bytes of record {origin.id.hex()[:16]}"
    if found < state.records:
        return f"missing: there are {found} records, expected {state.records}"
    if found > state.records:
        return f"added: there are {found} records, expected {state.records}: deleted ones were put back"
    return "older version: every record was once genuine, but they are not the newest ones"


def _is_record(vault: Vault, row: RecordRow) -> bool:
    try:
        vault.unseal_record(row)
    except TamperedError:
        return False
    return True


def _origin(vault: Vault, row: RecordRow, places: Iterable[RecordRow]) -> RecordRow | None:
    """The record that these sealed bytes were made for, whether or not its version came along with them."""
    for place in places:
        for version in (place.version, row.version):
            if _is_record(vault, RecordRow(place.id, version, row.sealed)):
                return place
    return None


def read_leaves(
    vault: Vault, view: Snapshot, place: str, state: State, *, log: LeafLog
) -> Iterator[tuple[LeafLog, bytes]]:
    """Each leaf of the audit log, the oldest first, with the tree that ends in it. log: the empty log.

    Guarantees, once it has come to its end, that these are exactly the leaves that the head was made over; before that
    only that each was once sealed for its place. Raises as `load`.
    """
    for row in view.leaves():
        if row.position != log.size:
            raise TamperedError(f"{place}: missing: the audit log has no leaf {log.size}; {_NEXT_STEP}")
        try:
            leaf = vault.unseal_leaf(row)
        except TamperedError as error:
            change = _name_leaf_change(vault, row, state.log.size)
            raise TamperedError(f"{place}: {change}; {_NEXT_STEP}") from error
        log = log.append(leaf)
        yield log, leaf
    if log.size != state.log.size:
        change = "missing" if log.size < state.log.size else "added"
        raise TamperedError(
            f"{place}: {change}: the audit log has {log.size} leaves, expected {state.log.size}; {_NEXT_STEP}"
        )
    if log.root != state.log.root:
        raise TamperedError(f"{place}: changed: the audit log has another root than the head; {_NEXT_STEP}")


def _name_leaf_change(vault: Vault, row: LeafRow, size: int) -> str:
    for position in range(size):
        try:
            vault.unseal_leaf(LeafRow(position, row.sealed))
        except TamperedError:
            continue
        return f"swapped: leaf {row.position} of the audit log holds the bytes of leaf {position}"
    return f"changed: leaf {row.position} of the audit log does not verify"
