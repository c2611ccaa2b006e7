"""From settings to a store: what is chosen is what is used, and what does not fit the directory is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.simulators.swtpm import Swtpm, swtpm

from ostiary.broker.open_storage import open_storage
from ostiary.broker.storage import Storage, parse_storage
from ostiary.errors import ConfigurationError, RollbackError, StoreError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with swtpm(tmp_path / "tpm") as running:
        yield running


def opened(storage: Storage, commits: int = 1) -> list[str]:
    """Open, commit, close; what the operator was told."""
    told: list[str] = []
    with ExitStack() as stack:
        store = stack.enter_context(open_storage(storage, random=os.urandom, warn=told.append))
        for _ in range(commits):
            store.commit([], os.urandom(8)).result()
    return told


def test_the_defaults_warn_of_the_key_file_and_of_the_missing_anchor(data: Path) -> None:
    told = opened(parse_storage(data, {}))
    assert len(told) == 2
    assert "plain file" in told[0]
    assert "an older copy of the whole database would not be noticed" in told[1]


@pytest.mark.parametrize("mode", ["strict", "bounded:50"])
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
    for file in data.glob("records.sqlite*"):
        file.unlink()
    (data / "records.sqlite").write_bytes(older)
    (data / "records.sqlite").chmod(0o600)
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


@pytest.mark.parametrize("configured", ["tpm", "gramine", "snp"])
def test_a_key_that_is_kept_in_another_way_is_not_taken_for_a_first_start(data: Path, configured: str) -> None:
    opened(parse_storage(data, {}))
    with pytest.raises(ConfigurationError, match=r"is kept by keyfile \(database\.key\), and the configuration says"):
        opened(parse_storage(data, {"sealing": {"by": configured}}))


def test_an_anchor_is_not_dropped_by_an_oversight(data: Path, tpm: Swtpm) -> None:
    opened(parse_storage(data, {"freshness": {"by": "tpm", "tpm": tpm.tcti}}))
    with pytest.raises(
        ConfigurationError, match=r"is anchored by tpm \(anchor\.tpm\), and the configuration says none"
    ) as caught:
        opened(parse_storage(data, {}))
    assert "remove" in caught.value.causes[0]
    (data / "anchor.tpm").unlink()
    opened(parse_storage(data, {}))


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
