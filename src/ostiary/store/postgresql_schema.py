"""The tables of the PostgreSQL backend: made once, and at every start held against what this program makes.

The database is untrusted, and nothing here makes it less so: whatever it claims, the store verifies the rows. The check
keeps honest databases from surprises: a trigger, rule, policy, inherited table or index expression would run or hide
rows inside our transactions, an unlogged table would lose acknowledged commits.
"""

from __future__ import annotations

from typing import LiteralString

import psycopg
from psycopg import sql

from ostiary.errors import StoreError, TamperedError

SCHEMA_VERSION = 1
CREATION_LOCK = 0x4F737469  # "Osti"
"""Advisory lock of the one process that makes the tables."""

_TABLES: dict[str, LiteralString] = {
    "heads": "(seq bigint PRIMARY KEY, sealed bytea NOT NULL)",
    "records": "(id bytea PRIMARY KEY, version bigint NOT NULL, sealed bytea NOT NULL)",
    "leaves": "(position bigint PRIMARY KEY, sealed bytea NOT NULL)",
    "deletions": "(version bigint, id bytea, PRIMARY KEY (version, id))",
}
# Changes are picked up by version, which must not read a million records each time.
_INDEXES: tuple[LiteralString, ...] = ("CREATE INDEX records_version ON records USING btree (version)",)
# Sealed bytes do not compress; not to try costs less.
_STORAGE: tuple[LiteralString, ...] = tuple(
    f"ALTER TABLE {table} ALTER COLUMN sealed SET STORAGE EXTERNAL" for table in ("heads", "records", "leaves")
)

EXPECTED = frozenset({
    "table deletions", "table heads", "table leaves", "table records",
    "column deletions.1 version bigint not null", "column deletions.2 id bytea not null",
    "column heads.1 seq bigint not null", "column heads.2 sealed bytea not null",
    "column leaves.1 position bigint not null", "column leaves.2 sealed bytea not null",
    "column records.1 id bytea not null", "column records.2 version bigint not null",
    "column records.3 sealed bytea not null",
    "constraint deletions PRIMARY KEY (version, id)", "constraint heads PRIMARY KEY (seq)",
    "constraint leaves PRIMARY KEY (\"position\")", "constraint records PRIMARY KEY (id)",
    "index CREATE UNIQUE INDEX deletions_pkey ON deletions USING btree (version, id)",
    "index CREATE UNIQUE INDEX heads_pkey ON heads USING btree (seq)",
    "index CREATE UNIQUE INDEX leaves_pkey ON leaves USING btree (\"position\")",
    "index CREATE UNIQUE INDEX records_pkey ON records USING btree (id)",
    "index CREATE INDEX records_version ON records USING btree (version)",
})  # fmt: skip
"""What `_FOUND` prints of the tables as this program makes them."""

# Every line names one thing in the schema, or hung on a table of it, that could change what our statements do.
_FOUND: LiteralString = """
WITH schema AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
relation AS (SELECT c.* FROM pg_class c JOIN schema ON c.relnamespace = schema.oid)
SELECT CASE WHEN c.relkind = 'r' AND c.relpersistence = 'p' AND a.amname = 'heap' THEN 'table '
            ELSE format('relation of kind %%s, persistence %%s ', c.relkind, c.relpersistence) END || c.relname
  FROM relation c LEFT JOIN pg_am a ON a.oid = c.relam WHERE c.relkind NOT IN ('i', 'I')
UNION ALL
SELECT format('column %%s.%%s %%s %%s', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod))
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
       || CASE WHEN a.atthasdef THEN ' default' ELSE '' END
       || CASE WHEN a.attidentity <> '' THEN ' identity' ELSE '' END
  FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attnum > 0 AND c.relkind NOT IN ('i', 'I')
UNION ALL
SELECT format('constraint %%s %%s', c.relname, pg_get_constraintdef(k.oid))
  FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid WHERE k.contype <> 'n'
UNION ALL
SELECT 'index ' || replace(pg_get_indexdef(c.oid), format(' ON %%I.', %(schema)s::text), ' ON ')
       || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END
  FROM relation c JOIN pg_index i ON i.indexrelid = c.oid
UNION ALL
SELECT format('trigger %%s on %%s', t.tgname, c.relname) FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid
UNION ALL
SELECT format('rule %%s on %%s', r.rulename, c.relname)
  FROM relation c JOIN pg_rewrite r ON r.ev_class = c.oid WHERE c.relkind = 'r'
UNION ALL
SELECT format('policy %%s on %%s', p.polname, c.relname) FROM relation c JOIN pg_policy p ON p.polrelid = c.oid
UNION ALL
SELECT format('row security on %%s', c.relname) FROM relation c WHERE c.relrowsecurity OR c.relforcerowsecurity
UNION ALL
SELECT format('inheritance of %%s', c.relname)
  FROM relation c JOIN pg_inherits h ON c.oid IN (h.inhparent, h.inhrelid)
"""


def prepare(connection: psycopg.Connection[tuple[object, ...]], schema: str, place: str, *, create: bool) -> None:
    """Make the tables if the schema is absent or empty and `create` allows it, then refuse any other schema.

    Two processes that start at once make them once. Raises StoreError (absent and not to be made, or of another
    program or version), TamperedError (altered), psycopg.Error.
    """
    found = _found(connection, schema)
    if not found and create:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (CREATION_LOCK,))
            if not _found(connection, schema):
                _create(connection, schema)
        found = _found(connection, schema)
    if not found:
        raise StoreError(
            f"{place}: there is no store, expected one: name the database and schema that the service uses"
        )
    _require_version(connection, schema, place)
    if found != EXPECTED:
        raise TamperedError(f"{place}: changed: {_difference(found)}; restore a backup")


def _found(connection: psycopg.Connection[tuple[object, ...]], schema: str) -> frozenset[str]:
    return frozenset(str(line) for (line,) in connection.execute(_FOUND, {"schema": schema}))


def _create(connection: psycopg.Connection[tuple[object, ...]], schema: str) -> None:
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    connection.execute("SELECT set_config('search_path', quote_ident(%s), true)", (schema,))
    for name, definition in _TABLES.items():
        connection.execute(sql.SQL("CREATE TABLE {} {}").format(sql.Identifier(name), sql.SQL(definition)))
    for statement in (*_INDEXES, *_STORAGE):
        connection.execute(statement)
    connection.execute(f"COMMENT ON TABLE heads IS 'ostiary store {SCHEMA_VERSION}'")


def _require_version(connection: psycopg.Connection[tuple[object, ...]], schema: str, place: str) -> None:
    row = connection.execute(
        "SELECT obj_description(to_regclass(format('%%I.heads', %s::text)), 'pg_class')", (schema,)
    ).fetchone()
    mark = None if row is None else row[0]
    if mark == f"ostiary store {SCHEMA_VERSION}":
        return
    if isinstance(mark, str) and mark.startswith("ostiary store "):
        raise StoreError(
            f"{place}: has schema version {mark.removeprefix('ostiary store ')[:20]}, expected {SCHEMA_VERSION}: start "
            "the program that wrote it"
        )
    raise StoreError(f"{place}: the schema belongs to another program: choose another schema or database")


def _difference(found: frozenset[str]) -> str:
    strange, absent = sorted(found - EXPECTED), sorted(EXPECTED - found)
    parts = [f"found {', '.join(strange[:3])[:200]}"] if strange else []
    parts += [f"expected {', '.join(absent[:3])}"] if absent else []
    return "the schema has been altered: " + ", ".join(parts)
