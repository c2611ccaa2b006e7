"""`ostiary store import-encrypted`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ostiary.cli.store.options import DATA, SCHEMA, AsJson, Config, Data, Database, Schema, opened


def import_encrypted(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that export-encrypted made.")],
    data: Data = DATA,
    database: Database = None,
    schema: Schema = SCHEMA,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Put a copy into an empty database: that of DIR, or the PostgreSQL database. Needs no key.

    DIR must exist, with the key beside which the service shall find the database. To move a service to PostgreSQL, stop
    it, export, import, and start it with the new database. An import that was interrupted is refused by `verify` and by
    the service: remove the database, or drop the schema, and begin anew.

    Examples:

      ostiary store import-encrypted cas-2026-11-23.sqlite --store 'host=db dbname=cas sslmode=verify-full'
    """
    from ostiary.cli.store.progress import Bar
    from ostiary.store import offline

    with (
        opened(data, None, schema, file=file) as source,
        opened(data, database, schema, config=config, create=True) as target,
        Bar("copying") as bar,
    ):
        seq = offline.copy(source.backend, target.backend, progress=bar)
        told = {"database": target.backend.place, "seq": seq}
    print(json.dumps(told) if as_json else f"{told['database']}: head {seq}")
