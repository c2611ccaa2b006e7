"""What goes into the store and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Record:
    """A verified record. version: the number of the commit that wrote it, counted from 1 over the life of the store.

    So every later write of any record, also one after a deletion, has a higher version, and none is ever used twice.
    """

    version: int
    value: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Write:
    """One change of a commit: `name` gets `value`, or is deleted where `value` is None.

    expected_version: the version that was read, which must still be the current one; 0: the record must be absent.
    """

    name: str
    value: bytes | None = field(repr=False)
    expected_version: int


@dataclass(frozen=True, kw_only=True)
class Expect:
    """A condition of a commit on a record that it does not write. version: as `Write.expected_version`."""

    name: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Head:
    """The state of the whole store at one moment, fit to be shown and anchored outside; holds no secret.

    seq: transactions since the store began. digest: 32 bytes, commits to every record, to the audit log and, through
    the digest before it, to all of the history; it tells nothing to those without the database key.
    log_size, log_root: leaves of the audit log, which is also the number of commits, and their Merkle root, 32 bytes.
    """

    seq: int
    digest: bytes
    log_size: int
    log_root: bytes
