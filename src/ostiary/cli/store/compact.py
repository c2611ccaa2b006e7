"""`ostiary store compact`."""

from __future__ import annotations

import json

from ostiary.cli.store.options import DATA, SCHEMA, AsJson, Config, Data, Database, Schema, opened


def compact(
    data: Data = DATA,
    database: Database = None,
    schema: Schema = SCHEMA,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the database anew without what was deleted or replaced, and give the room back.

    Changes no row and needs no key, but for a while room for a second copy. A service that runs meanwhile waits with
    its commits, about a second for 100 MB; it is left alone, and this fails, if it is reading for longer.

    Examples:

      ostiary store compact

      ostiary store compact --json --store 'host=db dbname=cas sslmode=verify-full'
    """
    from ostiary.cli.store.progress import patience

    with opened(data, database, schema, config=config) as found:
        before = found.disk_bytes()
        with patience("compacting"):
            found.backend.compact()
        told = {"place": found.backend.place, "before_bytes": before, "after_bytes": found.disk_bytes()}
    print(json.dumps(told) if as_json else f"{told['place']}: {before} bytes before, {told['after_bytes']} after")
