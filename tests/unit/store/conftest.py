from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.simulators.postgresql import PostgresqlServer
from tests.unit.store.databases import Database, SqliteDatabase
from tests.unit.store.postgresql_database import PostgresqlDatabase

from ostiary.audit import Frontier
from ostiary.store import Store, open_store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def open_data(data: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store in `data`; whatever the test leaves open is closed after it."""
    with ExitStack() as stack:

        def opened() -> Store:
            return stack.enter_context(open_store(data, random=os.urandom, log=Frontier(), warn=lambda _: None))

        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield SqliteDatabase(tmp_path / "database")
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    made = PostgresqlDatabase(server.conninfo)
    yield made
    server.drop(made.schema)


@pytest.fixture
def opened() -> Iterator[Callable[[Store], Store]]:
    """Closes, after the test, every store that it was given, and gives it back."""
    with ExitStack() as stack:
        yield stack.enter_context
