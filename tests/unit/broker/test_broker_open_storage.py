"""From settings to a store: what is chosen is what is used, and what does not fit the directory is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.simulators.postgresql import PostgresqlServer
from tests.simulators.swtpm import Swtpm, swtpm
from tests.simulators.witnesses import WitnessProcess

from ostiary.audit.note import KeyKind, VerifierKey, log_key
from ostiary.broker.open import close_cas, open_cas
from ostiary.broker.open_storage import open_storage
from ostiary.broker.storage import Storage, parse_storage
from ostiary.errors import ConfigurationError, RefusedError, RollbackError, StoreError
from ostiary.freshness import derive_log_key


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with swtpm(tmp_path / "tpm") as running:
        yield running


def opened(storage: Storage, commits: int = 1, random: Callable[[int], bytes] = os.urandom) -> list[str]:
    """Open, commit, close; what the operator was told."""
    told: list[str] = []
    with ExitStack() as stack:
        store = stack.enter_context(open_storage(storage, random=random, warn=told.append))
        for _ in range(commits):
            store.commit([], os.urandom(8)).result()
    return told


def test_the_defaults_warn_of_the_key_file_and_of_the_missing_anchor(data: Path) -> None:
    told = opened(parse_storage(data, {}))
    assert len(told) == 2
    assert "plain file" in told[0]
    assert "an older copy of the whole database would not be noticed" in told[1]


@pytest.mark.parametrize("mode", ["strict", "bounded:30000"])
def test_key_and_freshness_in_one_tpm(data: Path, tpm: Swtpm, mode: str) -> None:
    storage = parse_storage(
        data,
        {"sealing": {"by": "tpm", "tpm": tpm.tcti}, "freshness": {"by": "tpm", "tpm": tpm.tcti, "mode": mode}},
    )
    for _ in range(3):
        told = opened(storage, commits=5)
        assert ["sealed to the TPM" in told[0], "trusted from its first use on" in told[1]] == [True, True]
    older = (data / "records.sqlite").read_bytes()
    opened(storage)
    turn_back(data, older)
    with pytest.raises(RollbackError, match="the database is older than NV index"):
        opened(storage)


def test_a_refused_start_leaves_nothing_open(data: Path, tpm: Swtpm) -> None:
    """The emulated TPM takes one connection: a second start would hang if the first one kept its own."""
    storage = parse_storage(data, {"freshness": {"by": "tpm", "tpm": tpm.tcti}})
    opened(storage)
    (data / "anchor.tpm").unlink()
    for _ in range(3):
        with pytest.raises(RollbackError, match=r"anchor\.tpm is gone"):
            opened(storage)


def turn_back(data: Path, database: bytes) -> None:
    for file in data.glob("records.sqlite*"):
        file.unlink()
    (data / "records.sqlite").write_bytes(database)
    (data / "records.sqlite").chmod(0o600)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_freshness_in_a_file(data: Path, tmp_path: Path, elsewhere: bool) -> None:
    freshness: dict[str, object] = {"by": "file"}
    path = data / "anchor.file"
    if elsewhere:
        path = tmp_path / "elsewhere"
        freshness["file"] = str(path)
    storage = parse_storage(data, {"freshness": freshness})
    told = opened(storage)
    assert f"is remembered in the plain file {path}" in told[1]
    older = (data / "records.sqlite").read_bytes()
    opened(storage)
    turn_back(data, older)
    with pytest.raises(RollbackError):
        opened(storage)


def test_freshness_with_a_witness(data: Path, tmp_path: Path) -> None:
    key = os.urandom(32)
    witness = WitnessProcess(tmp_path, "w.example", log_key("cas.example/log", derive_log_key(key)))
    try:
        entry = {"url": witness.url, "key": str(witness.key), "ca": str(tmp_path / "w.example.pem")}
        table = {"by": "witness", "origin": "cas.example/log", "witnesses": [entry], "quorum": 1}
        storage = parse_storage(data, {"freshness": table})
        # The database key is the first thing of its length that a start draws.
        told = opened(storage, random=lambda size: key if size == len(key) else os.urandom(size))
        assert "is watched by one witness alone" in told[1]
        older = (data / "records.sqlite").read_bytes()
        opened(storage)
        turn_back(data, older)
        with pytest.raises(RollbackError, match="this database was turned back"):
            opened(storage)
    finally:
        witness.kill()


ONE = str(VerifierKey(name="w.example", kind=KeyKind.WITNESS, public_key=bytes(32)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"quorum": 2}, "a quorum of 2 of 1 witnesses, expected 1 to 1"),
        ({"witnesses": [{"url": "https://w", "key": ONE}] * 2}, "two witnesses have the same key"),
        ({"witnesses": [{"url": "https://w", "key": "w.example"}]}, "the key of a witness cannot be used"),
        ({"witnesses": [{"url": "https://w", "key": ONE, "ca": "absent.pem"}]}, "absent.pem .*: No such file"),
        ({"witnesses": [{"url": "https://w", "key": ONE, "ca": "/dev/null"}]}, "certificates to trust cannot be read"),
    ],
)
def test_witnesses_that_cannot_be_are_refused_before_anything_is_made(
    data: Path, change: dict[str, object], match: str
) -> None:
    table = {"by": "witness", "origin": "o", "witnesses": [{"url": "https://w", "key": ONE}], "quorum": 1, **change}
    with pytest.raises(ConfigurationError, match=match):
        opened(parse_storage(data, {"freshness": table}))
    assert not data.exists()


def test_certificates_that_are_no_text_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"\xff")
    entry = {"url": "https://w", "key": ONE, "ca": str(tmp_path / "ca")}
    table = {"by": "witness", "origin": "o", "witnesses": [entry], "quorum": 1}
    with pytest.raises(ConfigurationError, match="that a witness is known by: it is no text"):
        opened(parse_storage(data, {"freshness": table}))


def test_the_database_in_postgresql_with_its_key_in_the_directory(
    data: Path, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password comes from where libpq looks for it."""
    server = conninfo_to_dict(postgresql.conninfo)
    monkeypatch.setenv("PGPASSWORD", str(server["password"]))
    postgresql.execute("CREATE DATABASE opened_by_settings")
    url = f"postgresql://{server['user']}@{server['host']}:{server['port']}/opened_by_settings"
    storage = parse_storage(data, {"store": {"database": url}, "freshness": {"by": "file"}})
    opened(storage)
    opened(storage)
    assert {file.name for file in data.iterdir()} >= {"database.key", "anchor.file"}
    assert not (data / "records.sqlite").exists()


@pytest.mark.parametrize("configured", ["tpm", "gramine", "snp"])
def test_a_key_that_is_kept_in_another_way_is_not_taken_for_a_first_start(data: Path, configured: str) -> None:
    opened(parse_storage(data, {}))
    with pytest.raises(ConfigurationError, match=r"is kept by keyfile \(database\.key\), and the configuration says"):
        opened(parse_storage(data, {"sealing": {"by": configured}}))


def served(storage: Storage) -> None:
    """A start of the service, and its end."""
    close_cas(open_cas(storage, roots=(), warn=lambda _: None))


@pytest.mark.parametrize("other", ["none", "file"])
def test_an_anchor_is_not_dropped_or_exchanged(data: Path, tpm: Swtpm, other: str) -> None:
    """Nor by whoever deletes its file: the store itself records what it is anchored by."""
    anchored = parse_storage(data, {"freshness": {"by": "tpm", "tpm": tpm.tcti}})
    served(anchored)
    memory = (data / "anchor.tpm").read_bytes()
    (data / "anchor.tpm").unlink()
    with pytest.raises(RefusedError, match="this store is anchored by tpm 0x01804f53, found"):
        served(parse_storage(data, {"freshness": {"by": other}}))
    (data / "anchor.tpm").write_bytes(memory)
    (data / "anchor.tpm").chmod(0o600)
    served(anchored)


@pytest.mark.parametrize(
    ("by", "match"),
    [
        ("tpm", "this host has no TPM 2.0 at /dev/tpmrm0"),
        ("gramine", "runs in no SGX enclave under Gramine"),
        ("snp", "is no SEV-SNP virtual machine"),
    ],
)
def test_what_this_host_lacks_is_told_and_no_store_is_begun(data: Path, by: str, match: str) -> None:
    storage = parse_storage(data, {"sealing": {"by": by}})
    for _ in range(2):
        with pytest.raises(StoreError, match=match):
            opened(storage)


@pytest.mark.parametrize(
    ("module", "document", "advice"),
    [
        ("tpm2_pytss", {"sealing": {"by": "tpm"}}, "install ostiary[tpm]"),
        ("tpm2_pytss", {"freshness": {"by": "tpm"}}, "install ostiary[tpm]"),
        ("psycopg", {"store": {"database": "postgresql://h/d"}}, "install ostiary[postgresql]"),
    ],
)
def test_an_extra_that_is_not_installed_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch, module: str, document: dict[str, object], advice: str
) -> None:
    for loaded in [*sys.modules]:
        if loaded.startswith(
            ("tpm2_pytss", "psycopg", "ostiary.tpm", "ostiary.freshness.tpm", "ostiary.store.postgres")
        ):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.delitem(sys.modules, "ostiary.store.sealing.tpm", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError) as caught:
        opened(parse_storage(data, document))
    assert any(advice in cause for cause in caught.value.causes)
