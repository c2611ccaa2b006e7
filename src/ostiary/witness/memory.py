"""What a witness must never forget: one row a log, compared and set in one durable transaction.

SQLite, `journal_mode=WAL`, `synchronous=FULL`. Whoever puts this file back to an earlier state has a witness that lies;
that is what the others of a quorum are for.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ostiary.audit.tree import HASH_BYTES
from ostiary.errors import StoreError
from ostiary.store.durable import sync_directory
from ostiary.witness.judge import Seen

BUSY_SECONDS = 5.0
APPLICATION_ID = 0x4F737457  # "OstW"

_SCHEMA = (
    "CREATE TABLE checkpoints(origin TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, "
    "note TEXT NOT NULL, cosignature TEXT NOT NULL) STRICT"
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A row. note: the checkpoint with the signature of its log. cosignature: our line."""

    seen: Seen
    note: str
    cosignature: str


class Memory:
    """The rows in one file, which `make` made; several threads and processes may use it."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError if the file is not there or not one of these: a lost memory is no new one."""
        self._path = path
        self._lock = threading.Lock()
        self._connection = self._open()

    @classmethod
    def make(cls, path: Path) -> None:
        """Make an empty file, mode 0600, durably. Raises StoreError if there is one."""
        try:
            path.touch(mode=0o600, exist_ok=False)
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(_SCHEMA)
            connection.close()
            sync_directory(path.parent)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: {_reason(error)}: expected a directory without one, writable for us") from error

    def read(self, origin: str) -> Kept | None:
        """The row of a log, None if there is none. Raises StoreError."""
        with self._lock:
            try:
                return self._row(origin)
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {_reason(error)}") from error

    def update(self, origin: str, change: Callable[[Seen], Kept]) -> Kept:
        """Put in place of a row what `change` makes of it, in one transaction. If `change` raises, nothing changes.

        Returns once it would survive a loss of power. Raises StoreError, after which the row is as it was or as it was
        to be; nobody has been told.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                row = self._row(origin)
                kept = change(Seen() if row is None else row.seen)
                self._connection.execute(
                    "INSERT OR REPLACE INTO checkpoints(origin, size, root, note, cosignature) VALUES (?, ?, ?, ?, ?)",
                    (origin, kept.seen.size, kept.seen.root, kept.note, kept.cosignature),
                )
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise StoreError(f"{self._path}: {_reason(error)}") from error
            except BaseException:
                self._roll_back()
                raise
            return kept

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(self._path.absolute()))}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=BUSY_SECONDS,
                check_same_thread=False,
            )
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA synchronous=FULL")
            schema = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path}: {_reason(error)}: expected what `ostiary witness init` made; a witness whose memory is "
                "lost must not go on under its key: make another one"
            ) from error
        if schema != [(_SCHEMA,)]:
            connection.close()
            raise StoreError(f"{self._path}: has another schema than the memory of a witness")
        return connection

    def _row(self, origin: str) -> Kept | None:
        rows = self._connection.execute(
            "SELECT size, root, note, cosignature FROM checkpoints WHERE origin = ?", (origin,)
        )
        row = rows.fetchone()
        if row is None:
            return None
        size, root, note, cosignature = row
        if len(root) != HASH_BYTES or size < 0:
            raise StoreError(f"{self._path}: the row of {origin} is damaged")
        return Kept(seen=Seen(size=size, root=root), note=note, cosignature=cosignature)

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
