"""`ostiary store stats`."""

from __future__ import annotations

import json
from dataclasses import asdict

from ostiary.cli.store.options import DATA, SCHEMA, AsJson, Config, Data, Database, File, Schema, opened

_LABELS = {
    "place": "database",
    "seq": "head",
    "records": "records",
    "record_bytes": "bytes of them",
    "largest_record_bytes": "largest, bytes",
    "newest_version": "newest version",
    "leaves": "leaves",
    "leaf_bytes": "bytes of them",
    "deletions": "deletion hints",
    "disk_bytes": "room on disk, bytes",
}


def stats(
    data: Data = DATA,
    database: Database = None,
    schema: Schema = SCHEMA,
    config: Config = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Count records, leaves and bytes. Needs no key, and verifies nothing.

    Bytes of rows are those of the sealed rows, padding included. This is all that whoever holds the database sees of it
    at one moment, beside the time and place of each change.

    Examples:

      ostiary store stats

      ostiary store stats --json --file copy.sqlite
    """
    from ostiary.cli.store.progress import Bar
    from ostiary.store import offline

    with opened(data, database, schema, config=config, file=file) as found, Bar("counting") as bar:
        sizes = offline.measure(found.backend, progress=bar)
        told = {"place": found.backend.place, **asdict(sizes), "disk_bytes": found.disk_bytes()}
    if as_json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{_LABELS[name]:<20} {'none' if value is None else value}")
