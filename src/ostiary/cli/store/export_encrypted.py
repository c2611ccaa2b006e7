"""`ostiary store export-encrypted`."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ostiary.cli.store.options import DATA, SCHEMA, AsJson, Config, Data, Database, Schema, opened
from ostiary.errors import ConfigurationError, StoreError


def export_encrypted(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy is written; must not exist.")],
    data: Data = DATA,
    database: Database = None,
    schema: Schema = SCHEMA,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Copy the database of one moment to FILE, every row sealed as it is. Needs no key.

    FILE is a database of the embedded engine (docs/store-format.md, section 12): `import-encrypted` puts it into
    PostgreSQL or a data directory, and `verify --file` reads it with the key. It holds no key, so keep that as well.
    Putting a copy back is a rollback, which the service's anchor refuses until its owner accepts it.

    Examples:

      ostiary store export-encrypted cas-$(date +%F).sqlite

      ostiary store export-encrypted copy.sqlite --store 'host=db dbname=cas sslmode=verify-full'
    """
    from ostiary.cli.store.progress import Bar
    from ostiary.store import offline
    from ostiary.store.durable import sync_directory
    from ostiary.store.sqlite import SqliteBackend

    draft = file.with_name(file.name + ".partial")
    _reserve(file)
    try:
        with opened(data, database, schema, config=config) as found, Bar("copying") as bar:
            _remove(draft)
            target = SqliteBackend(draft)
            try:
                seq = offline.copy(found.backend, target, progress=bar)
            finally:
                target.close()
        draft.replace(file)
        sync_directory(file.absolute().parent)
    except BaseException:
        _remove(draft)
        file.unlink()
        raise
    told = {"file": str(file), "seq": seq, "bytes": file.stat().st_size}
    print(json.dumps(told) if as_json else f"{file}: head {seq}, {told['bytes']} bytes")


def _reserve(file: Path) -> None:
    """Make the file, empty, so that nothing of others is ever replaced."""
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise ConfigurationError(f"{file} is there already, expected a new file: name another one") from None
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}: choose a place that this process may write to") from error


def _remove(draft: Path) -> None:
    """The file and what the database engine puts beside it."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            draft.with_name(draft.name + suffix).unlink()
