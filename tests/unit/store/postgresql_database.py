"""A schema of a PostgreSQL server as its holder sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from tests.unit.store.databases import Rows

from ostiary.store import Backend
from ostiary.store.backend import Deletion, HeadRow, LeafRow, RecordRow
from ostiary.store.postgresql import PostgresqlBackend

SETTLE_SECONDS = 60.0

_COLUMNS: dict[LiteralString, LiteralString] = {
    "records": "id, version, sealed",
    "leaves": "position, sealed",
    "heads": "seq, sealed",
    "deletions": "id, version",
}


class PostgresqlDatabase:
    """A `Database` in a schema of its own, which the first backend makes."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.schema = f"Test {os.urandom(8).hex()}"

    def backend(self) -> Backend:
        return PostgresqlBackend(self.conninfo, schema=self.schema)

    def read(self) -> Rows:
        with self._transaction() as connection:
            return Rows(
                records=tuple(RecordRow(*row) for row in self._select(connection, "records", "version, id")),
                leaves=tuple(LeafRow(*row) for row in self._select(connection, "leaves", "position")),
                heads=tuple(HeadRow(*row) for row in self._select(connection, "heads", "seq")),
                deletions=tuple(Deletion(*row) for row in self._select(connection, "deletions", "version")),
            )

    def write(self, rows: Rows) -> None:
        content: dict[LiteralString, list[tuple[object, ...]]] = {
            "records": [(row.id, row.version, row.sealed) for row in rows.records],
            "leaves": [(row.position, row.sealed) for row in rows.leaves],
            "heads": [(row.seq, row.sealed) for row in rows.heads],
            "deletions": [(row.id, row.version) for row in rows.deletions],
        }
        with self._transaction() as connection, connection.cursor() as cursor:
            for table, values in content.items():
                cursor.execute(sql.SQL("DELETE FROM {}").format(self._table(table)))
                marks = ", ".join(["%s"] * len(_COLUMNS[table].split(", ")))
                cursor.executemany(
                    sql.SQL("INSERT INTO {}({}) VALUES ({})").format(
                        self._table(table), sql.SQL(_COLUMNS[table]), sql.SQL(marks)
                    ),
                    values,
                )

    def copy(self) -> PostgresqlDatabase:
        other = PostgresqlDatabase(self.conninfo)
        for made in (self, other):
            made.backend().close()
        other.write(self.read())
        return other

    def settle(self) -> None:
        """A server goes on with what it has received, for all it knows the client waits for it."""
        deadline = time.monotonic() + SETTLE_SECONDS
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            while connection.execute(
                "SELECT FROM pg_stat_activity WHERE application_name = 'ostiary' AND datname = current_database()"
            ).rowcount:
                assert time.monotonic() < deadline
                time.sleep(0.005)

    def disk_bytes(self) -> int:
        """Of the leaves."""
        with self._transaction() as connection:
            (row,) = connection.execute("SELECT pg_total_relation_size(format('%%I.leaves', %s::text))", (self.schema,))
            return int(row[0])

    def _table(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)

    def _select(
        self, connection: psycopg.Connection[tuple[Any, ...]], table: LiteralString, order: LiteralString
    ) -> list[tuple[Any, ...]]:
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}")
        return connection.execute(
            query.format(sql.SQL(_COLUMNS[table]), self._table(table), sql.SQL(order)), binary=True
        ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with psycopg.connect(self.conninfo) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield connection
