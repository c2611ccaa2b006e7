"""`ostiary serve` with an anchor: a database put back is refused, and the owner alone goes on with it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, ostiary, serve_process

EXIT_FAILED, EXIT_USAGE, EXIT_TAMPERED, EXIT_REFUSED = 1, 64, 65, 77


def serve_refused(data: Path, *options: str) -> tuple[int, str]:
    listen = ("--client", "127.0.0.1:0", "--enclave", "127.0.0.1:0")
    done = subprocess.run(
        [*OSTIARY, "serve", "--data", str(data), *listen, *options],
        capture_output=True, check=False, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=TIMEOUT_SECONDS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A service that was started twice, and whose database is that of after the first time."""
    home, key = tmp_path / "data", str(tmp_path / "owner.key")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    openssl("ec", "-in", key, "-pubout", "-out", str(tmp_path / "owner.pem"))
    (tmp_path / "cas.toml").write_text('[ostiary.freshness]\nby = "file"\n')
    options = ("--config", str(tmp_path / "cas.toml"), "--owner", str(tmp_path / "owner.pem"))
    with serve_process(home, *options):
        pass
    shutil.copy(home / "records.sqlite", tmp_path / "old")
    with serve_process(home, *options):
        pass
    shutil.copy(tmp_path / "old", home / "records.sqlite")
    return home


def test_the_owner_goes_on_with_a_database_that_was_put_back(data: Path) -> None:
    home = data.parent
    settings = ("--config", str(home / "cas.toml"))
    code, said = serve_refused(data, *settings)
    assert code == EXIT_TAMPERED
    assert "was turned back, or goes on a history of its own" in said
    assert "ostiary store accept-rollback" in said
    command = ("store", "accept-rollback", "--data", str(data), *settings)
    statement, signature = home / "statement", home / "signature"
    statement.write_text(ostiary(*command))
    lines = statement.read_text().split("\n")
    assert [line.split()[0] for line in lines[:-1]] == ["ostiary", "found", "anchor", "remembers", "successor"]
    openssl("dgst", "-sha256", "-sign", str(home / "owner.key"), "-out", str(signature), str(statement))
    forged = home / "forged"
    genuine = signature.read_bytes()
    forged.write_bytes(genuine[:-1] + bytes([genuine[-1] ^ 1]))
    refused = ostiary(*command, "--signature", str(forged), expect=EXIT_REFUSED)
    assert "the signature is not of the owner" in refused
    assert "accepted: head" in ostiary(*command, "--signature", str(signature))
    with serve_process(data, *settings):
        pass
    assert "there is no rollback to accept" in ostiary(*command, expect=EXIT_REFUSED)


def test_the_answer_can_be_read_by_a_program(data: Path) -> None:
    home = data.parent
    command = ("store", "accept-rollback", "--data", str(data), "--config", str(home / "cas.toml"))
    (home / "statement").write_text(ostiary(*command))
    openssl(
        "dgst", "-sha256", "-sign", str(home / "owner.key"), "-out", str(home / "signature"), str(home / "statement")
    )
    told = json.loads(ostiary(*command, "--signature", str(home / "signature"), "--json"))
    assert (set(told), told["log_key"]) == ({"seq", "digest", "log_key"}, "")


def test_a_service_is_held_to_its_anchor_and_its_owner(data: Path) -> None:
    home = data.parent
    with_file = ("--config", str(home / "cas.toml"))
    shutil.rmtree(data)
    with serve_process(data, *with_file, "--owner", str(home / "owner.pem")):
        pass
    (data / "anchor.file").unlink()
    code, said = serve_refused(data)
    assert (code, "this store is anchored by file, found no anchor" in said) == (EXIT_REFUSED, True)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(home / "other.key"))
    openssl("ec", "-in", str(home / "other.key"), "-pubout", "-out", str(home / "other.pem"))
    code, said = serve_refused(data, *with_file, "--owner", str(home / "other.pem"))
    assert (code, "an owner is not replaced" in said) == (EXIT_REFUSED, True)
    code, said = serve_refused(data, *with_file, "--owner", str(home / "nothing"))
    assert (code, "--owner" in said) == (EXIT_USAGE, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("", "the settings name no anchor"),
        ('[ostiary.freshness]\nby = "file"\n', "there is no database key kept by keyfile"),
        ("[other]", "expected tables below [ostiary] only"),
    ],
)
def test_settings_that_name_nothing_to_accept_are_refused(tmp_path: Path, settings: str, says: str) -> None:
    (tmp_path / "cas.toml").write_text(settings)
    (tmp_path / "data").mkdir(mode=0o700)
    expect = EXIT_FAILED if "no database key" in says else EXIT_USAGE
    command = ("store", "accept-rollback", "--data", str(tmp_path / "data"), "--config", str(tmp_path / "cas.toml"))
    assert says in ostiary(*command, expect=expect)
