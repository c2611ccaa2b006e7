"""Which database a command is about, and its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.errors import ConfigurationError, StoreError, TamperedError

if TYPE_CHECKING:
    from ostiary.broker.storage import Storage
    from ostiary.store import Backend

DATA = Path("ostiary-data")
SCHEMA = "ostiary"

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="The data directory of the service.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="CONNINFO",
        help="The PostgreSQL database, as in 'host=db dbname=cas sslmode=verify-full'; without a password.",
    ),
]
Schema = Annotated[str, typer.Option("--schema", metavar="NAME", help="Its schema, with --store.")]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="A copy that export-encrypted made, in place of the database."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings of the state, TOML, as `ostiary serve` takes them."),
]
Sealing = Annotated[
    str | None,
    typer.Option(
        "--sealing", metavar="KIND", help="What keeps the database key: keyfile (default), tpm, gramine or snp."
    ),
]
Tpm = Annotated[
    str | None, typer.Option("--tpm", metavar="TCTI", help="--sealing tpm: where it is. Default: device:/dev/tpmrm0.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A database that is open. disk_bytes: how much room it takes now."""

    backend: Backend
    disk_bytes: Callable[[], int]


@contextmanager
def opened(
    data: Path,
    database: str | None,
    schema: str,
    *,
    config: Path | None = None,
    file: Path | None = None,
    create: bool = False,
) -> Iterator[Opened]:
    """The database that the options name, closed at the end of the block. Made only where `create` says so."""
    if file is None and database is None:
        database = settings(data, config).database or None
    if file is not None:
        if database is not None:
            raise ConfigurationError("--file and --store name two databases, expected one of them")
        with _sqlite(file, create=create) as found:
            yield found
    elif database is not None:
        with _postgresql(database, schema, create=create) as found:
            yield found
    else:
        from ostiary.store.lock import opening
        from ostiary.store.opening import DATABASE_NAME, LOCK_NAME

        if not data.is_dir():
            raise StoreError(f"{data} is no directory, expected the data directory of a service: name it with --data")
        with opening(data / LOCK_NAME, alone=create), _sqlite(data / DATABASE_NAME, create=create) as found:
            yield found


def settings(data: Path, config: Path | None, *, sealing: str | None = None, tpm: str | None = None) -> Storage:
    """What the options and the file say of the state. Raises ConfigurationError."""
    from ostiary.broker.storage import parse_storage
    from ostiary.cli.storage_options import StorageOptions, storage_document

    return parse_storage(data, storage_document(StorageOptions(sealing=sealing, tpm=tpm), config))


@contextmanager
def _sqlite(path: Path, *, create: bool) -> Iterator[Opened]:
    from ostiary.store.sqlite import SqliteBackend

    if not create and not path.is_file():
        raise StoreError(f"there is no database {path}, expected one: look at --data, --file or --store")
    if not create and not path.stat().st_size:
        # The engine would make a database of it, and these commands only look.
        raise TamperedError(f"{path}: missing: the file is empty, expected a database; restore a backup that you trust")
    backend = SqliteBackend(path)
    try:
        yield Opened(backend=backend, disk_bytes=lambda: _file_bytes(path))
    finally:
        backend.close()


@contextmanager
def _postgresql(conninfo: str, schema: str, *, create: bool) -> Iterator[Opened]:
    try:
        from ostiary.store.postgresql import PostgresqlBackend, names_password
    except ImportError as error:
        raise ConfigurationError(
            "PostgreSQL needs the package psycopg, which is not installed: pip install 'ostiary[postgresql]'"
        ) from error
    if names_password(conninfo):
        raise ConfigurationError(
            "--store holds a password, which everyone on this machine can read in the list of processes",
            "put it into a password file (PGPASSFILE, ~/.pgpass) or into PGPASSWORD",
        )
    backend = PostgresqlBackend(conninfo, schema=schema, create=create)
    try:
        yield Opened(backend=backend, disk_bytes=backend.disk_bytes)
    finally:
        backend.close()


def _file_bytes(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
