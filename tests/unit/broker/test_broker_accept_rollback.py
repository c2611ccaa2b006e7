"""What comes of the owner's decision, for each kind of anchor that the settings can name."""

from __future__ import annotations

import dataclasses
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.swtpm import Swtpm
from tests.simulators.witnesses import LOG, ORIGIN, WitnessProcess

from ostiary.audit.note import log_key
from ostiary.broker.accept_rollback import accept_rollback, statement_to_sign
from ostiary.broker.open import close_cas, open_cas
from ostiary.broker.storage import AnchoredBy, Freshness, Storage, Witness
from ostiary.errors import ConfigurationError, RollbackError, StoreError
from ostiary.freshness import derive_log_key
from ostiary.store.opening import DATABASE_NAME

OWNER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
SPKI = OWNER.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def run(storage: Storage) -> None:
    """Start and end the service once."""
    close_cas(open_cas(storage, roots=(), warn=lambda _: None, owner=SPKI))


def turned_back(storage: Storage) -> None:
    """Two runs, then the database of after the first one."""
    database = storage.directory / DATABASE_NAME
    run(storage)
    shutil.copy(database, storage.directory.parent / "old")
    run(storage)
    shutil.copy(storage.directory.parent / "old", database)
    with pytest.raises(RollbackError):
        run(storage)


def accept(storage: Storage, successor: Storage) -> str:
    statement = statement_to_sign(storage, successor, random=os.urandom)
    signature = OWNER.sign(statement.encode())
    return accept_rollback(storage, successor, signature, now=NOW, random=os.urandom).log_key


@pytest.fixture
def in_file(tmp_path: Path) -> Storage:
    return Storage(directory=tmp_path / "data", freshness=Freshness(by=AnchoredBy.FILE))


def test_a_file_forgets_and_the_service_runs_again(in_file: Storage) -> None:
    turned_back(in_file)
    assert accept(in_file, in_file) == ""
    run(in_file)


def test_an_owner_may_give_up_the_anchor(in_file: Storage) -> None:
    """Then nothing holds anything against the state; the log says who decided it."""
    turned_back(in_file)
    nothing = Storage(directory=in_file.directory)
    assert accept(in_file, nothing) == ""
    (in_file.directory / "anchor.file").unlink()
    run(nothing)


def test_settings_without_an_anchor_have_nothing_to_accept(in_file: Storage) -> None:
    with pytest.raises(ConfigurationError, match="the settings name no anchor"):
        accept(Storage(directory=in_file.directory), in_file)


def test_without_a_store_there_is_nothing_to_accept(in_file: Storage) -> None:
    in_file.directory.mkdir(mode=0o700)
    with pytest.raises(StoreError, match="there is no database key kept by keyfile"):
        accept(in_file, in_file)


def test_a_tpm_forgets_and_the_service_runs_again(tmp_path: Path) -> None:
    tpm = Swtpm(tmp_path / "tpm")
    tpm.start()
    try:
        freshness = Freshness(by=AnchoredBy.TPM, tpm=tpm.tcti)
        storage = Storage(directory=tmp_path / "data", freshness=freshness)
        turned_back(storage)
        assert accept(storage, storage) == ""
        run(storage)
        shutil.copy(tmp_path / "old", storage.directory / DATABASE_NAME)
        with pytest.raises(RollbackError):
            run(storage)
    finally:
        tpm.stop()


def test_witnesses_get_another_log_key(tmp_path: Path) -> None:
    witness = WitnessProcess(tmp_path, "w1", LOG)
    try:
        (tmp_path / "w1.ca").write_text(witness.certificate)
        one = Witness(url=witness.url, key=str(witness.key), ca=tmp_path / "w1.ca")
        freshness = Freshness(by=AnchoredBy.WITNESS, origin=ORIGIN, witnesses=(one,), quorum=1)
        storage = Storage(directory=tmp_path / "data", freshness=freshness)
        with pytest.raises(StoreError, match=r"was not told about this log|does not trust this log's key"):
            run(storage)
        key = derive_log_key((storage.directory / "database.key.draft").read_bytes())
        witness.retell(log_key(ORIGIN, key))
        turned_back(storage)
        with pytest.raises(ConfigurationError, match=r"witnesses never forget the log cas\.example/log"):
            accept(storage, storage)
        renamed = dataclasses.replace(storage, freshness=dataclasses.replace(freshness, origin=f"{ORIGIN}/2"))
        told = accept(storage, renamed)
        assert told == str(log_key(f"{ORIGIN}/2", key))
        witness.retell(log_key(f"{ORIGIN}/2", key))
        run(renamed)
    finally:
        witness.close()
