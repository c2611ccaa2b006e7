"""The state of a store and its sealed form, the head. Pure: no database, no thread, no clock.

Invariants of a `State`:
  - `total` is the sum, modulo 2^256, of the keyed hashes of all records (id, version, SHA-256 of the sealed bytes), so
    it changes with every record and, being known to nobody else, cannot be met by another set of records;
  - `log.size` is the number of commits so far, the version of the record written last;
  - `row` is the sealed form of all this and `head` its public face.

Source of the set hash: Clarke and others, "Incremental Multiset Hash Functions and Their Application to Memory
Integrity Checking", 2003, MSet-Add-Hash; sealing the sum takes the place of that paper's randomiser.
"""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.errors import OstiaryError, StoreError
from ostiary.store.backend import HeadRow
from ostiary.store.log import LeafLog
from ostiary.store.record import Head
from ostiary.store.vault import Vault, u64

MODULUS = 2**256
FIRST_PREVIOUS = bytes(32)

_COUNT_AT, _PREVIOUS_AT, _LOG_AT = 32, 40, 72


@dataclass(frozen=True, kw_only=True, repr=False)
class State:
    """See the invariants above. records: how many there are. previous: the digest of the head before this one."""

    total: int
    records: int
    previous: bytes
    log: LeafLog
    row: HeadRow
    head: Head


def seal_state(
    vault: Vault, *, seq: int, total: int, records: int, previous: bytes, log: LeafLog, nonce: bytes
) -> State:
    """The state with these contents, its head row sealed.

    Body of a head, offsets and sizes in bytes, integers unsigned big-endian:
        0x00  32  set hash over all records
        0x20   8  number of records
        0x28  32  digest of the head before; zeros in the first
        0x48   n  the log's encoding
    """
    body = total.to_bytes(_COUNT_AT, "big") + u64(records) + previous + log.encode()
    return _state(vault, vault.seal_head(seq, body, nonce=nonce), body, log)


def unseal_state(vault: Vault, row: HeadRow, *, log: LeafLog) -> State:
    """The state that a head row states, authentic but not yet compared with any record or leaf.

    Does not guarantee that it is the newest state: an older head verifies as well.
    Raises TamperedError if the row was never sealed under this key; StoreError if `log` cannot read its own encoding.
    """
    body = vault.unseal_head(row)
    try:
        return _state(vault, row, body, log.decode(body[_LOG_AT:]))
    except OstiaryError as error:
        raise StoreError(
            f"head {row.seq} is authentic but not in this program's form: start the program that wrote it", *error.chain
        ) from error


def _state(vault: Vault, row: HeadRow, body: bytes, log: LeafLog) -> State:
    return State(
        total=int.from_bytes(body[:_COUNT_AT], "big"),
        records=int.from_bytes(body[_COUNT_AT:_PREVIOUS_AT], "big"),
        previous=body[_PREVIOUS_AT:_LOG_AT],
        log=log,
        row=row,
        head=Head(seq=row.seq, digest=vault.digest(row.seq, body), log_size=log.size, log_root=log.root),
    )
