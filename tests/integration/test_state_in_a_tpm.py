"""The real service with its key and its freshness in a TPM: it comes back, and refuses what was turned back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, serve_process, start_service
from tests.simulators.swtpm import Swtpm, swtpm
from tpm2_pytss import ESYS_TR, TPM2_ALG, TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

from ostiary.tpm import Tpm

EXIT_FAILED = 1
EXIT_TAMPERED = 65


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with swtpm(tmp_path / "tpm") as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def options(tpm: Swtpm) -> tuple[str, ...]:
    return ("--sealing", "tpm", "--freshness", "tpm", "--tpm", tpm.tcti, "--tpm-pcrs", "0,7")


def served(data: Path, tpm: Swtpm) -> bytes:
    """Start and end in order; the CA certificate, which tells one state from another."""
    with serve_process(data, *options(tpm)) as ready:
        return Path(ready["ca"]).read_bytes()


def refused(data: Path, *more: str, status: int = EXIT_FAILED) -> str:
    """What stderr says at a start that fails."""
    listen = ("--client", "127.0.0.1:0", "--enclave", "127.0.0.1:0")
    done = subprocess.run(
        [*OSTIARY, "serve", "--data", str(data), *listen, *more],
        capture_output=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == status, done.stderr
    return done.stderr.decode()


def copy_database(data: Path, to: Path) -> None:
    to.mkdir()
    for file in data.glob("records.sqlite*"):
        shutil.copy(file, to)


def put_back(data: Path, copy: Path) -> None:
    for file in data.glob("records.sqlite*"):
        file.unlink()
    for file in copy.iterdir():
        shutil.copy(file, data)


def test_the_service_keeps_its_identity_over_restarts_of_itself_and_the_tpm(data: Path, tpm: Swtpm) -> None:
    first = served(data, tpm)
    tpm.restart()
    assert served(data, tpm) == first
    assert not (data / "database.key").exists()
    assert {"database.key.tpm", "anchor.tpm"} <= {file.name for file in data.iterdir()}


def test_an_older_database_is_refused_with_the_way_out(data: Path, tpm: Swtpm, tmp_path: Path) -> None:
    served(data, tpm)
    copy_database(data, tmp_path / "copy")
    served(data, tpm)
    newest = tmp_path / "newest"
    copy_database(data, newest)
    put_back(data, tmp_path / "copy")
    told = refused(data, *options(tpm), status=EXIT_TAMPERED)
    assert "the database is older than NV index 0x01804f53 of the TPM" in told
    assert "ostiary store accept-rollback" in told
    # A refused start changes nothing: the newest database is taken again.
    put_back(data, newest)
    served(data, tpm)


def test_an_older_copy_of_the_whole_directory_is_refused(data: Path, tpm: Swtpm, tmp_path: Path) -> None:
    served(data, tpm)
    shutil.copytree(data, tmp_path / "copy")
    served(data, tpm)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "copy", data)
    assert "both were put back to an earlier time" in refused(data, *options(tpm), status=EXIT_TAMPERED)


def test_a_deleted_database_does_not_pass_for_a_first_start(data: Path, tpm: Swtpm) -> None:
    """Not even when everything on the disk is deleted: the TPM remembers."""
    served(data, tpm)
    for file in data.glob("records.sqlite*"):
        file.unlink()
    assert "is empty or gone" in refused(data, *options(tpm))
    shutil.rmtree(data)
    assert "is not the one that this store made" in refused(data, *options(tpm), status=EXIT_TAMPERED)


def test_a_machine_started_otherwise_gets_no_key(data: Path, tpm: Swtpm) -> None:
    first = served(data, tpm)
    measured = TPML_DIGEST_VALUES([TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=bytes(range(32))))])
    with Tpm(tpm.tcti) as connection:
        connection.esapi.pcr_extend(ESYS_TR.PCR7, measured)
    told = refused(data, *options(tpm))
    assert "PCR 7 changed since the key was sealed" in told
    tpm.restart()
    assert served(data, tpm) == first


def test_a_start_without_the_tpm_is_refused(data: Path, tpm: Swtpm) -> None:
    served(data, tpm)
    tpm.kill()
    assert "it does not answer" in refused(data, *options(tpm))
    tpm.start()
    served(data, tpm)


def test_a_service_killed_at_work_comes_back(data: Path, tpm: Swtpm) -> None:
    """And the TPM loses its power with it."""
    for _ in range(5):
        process, _ready = start_service(data, *options(tpm))
        process.kill()
        process.wait(TIMEOUT_SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        tpm.restart()
    served(data, tpm)
