"""A running service, two people and their command line, for the tests of this directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.commands import Scone
from tests.simulators.service import Client, RunningService, make_client, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("service") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("people")


@pytest.fixture(scope="session")
def alice(people: Path) -> Client:
    return make_client(people, "alice")


@pytest.fixture(scope="session")
def eve(people: Path) -> Client:
    return make_client(people, "eve")


@pytest.fixture
def scone(
    tmp_path: Path, service: RunningService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Scone:
    """`scone` and `ostiary` whose default CAS is the service, known by its chain."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCONE_CLI_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.setenv("SCONE_CLI_RETRIES", "0")
    instance = service.identity.chain[1].public_bytes(Encoding.PEM)
    chain = (instance + service.identity.root.public_bytes(Encoding.PEM)).decode()
    entry = {"url": f"https://127.0.0.1:{service.client_port}/", "chain": chain}
    (tmp_path / "config.json").write_text(json.dumps({"default_cas": "cas", "cas_db": {"cas": entry}}))
    (tmp_path / "config.json").chmod(0o600)
    return Scone(directory=tmp_path, capsys=capsys)
