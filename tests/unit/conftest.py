from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.simulators.postgresql import PostgresqlServer, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server that runs as long as the tests; each test takes a schema of its own."""
    with postgresql_server() as server:
        yield server
