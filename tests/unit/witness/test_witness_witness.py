"""The witness with its memory: what is durable, what is shown, and what a damaged directory gives."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.simulators.witnesses import KEY, LOG, ORIGIN, Log

from ostiary.audit.checkpoint import verify_cosignature
from ostiary.audit.note import UnverifiedNote, log_key, parse_note, parse_signatures, verify_note
from ostiary.errors import (
    ConfigurationError,
    InconsistentLogError,
    InputError,
    NotFoundError,
    OtherSizeError,
    StoreError,
)
from ostiary.witness import Witness, init_witness, open_witness
from ostiary.witness.directory import KEY_FILE, MEMORY_FILE, VERIFIER_FILE
from ostiary.witness.judge import trusted_logs
from ostiary.witness.memory import Memory

NOW = datetime.fromtimestamp(1760000000, UTC)
VECTORS = Path(__file__).parents[2] / "vectors" / "c2sp"
HASH = hashlib.sha256(ORIGIN.encode()).hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    init_witness(tmp_path / "witness", "witness.example")
    return tmp_path / "witness"


@pytest.fixture
def witness(home: Path) -> Iterator[Witness]:
    opened = open_witness(home, [LOG], now=lambda: NOW)
    yield opened
    opened.close()


def submission(*leaves: bytes, old: int) -> bytes:
    return Log(leaves=list(leaves)).submission(old).encode()


def test_the_vector_is_answered_byte_for_byte(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"wit").digest())
    Memory.make(tmp_path / "memory")
    memory = Memory(tmp_path / "memory")
    vector = Witness(name="witness.example", key=key, logs=trusted_logs([LOG]), memory=memory, now=lambda: NOW)
    vector.add_checkpoint(Log(leaves=[b"entry 0"]).submission(0).encode())
    assert vector.add_checkpoint((VECTORS / "request.txt").read_bytes()) == (VECTORS / "answer.txt").read_bytes()
    assert f"{HASH}/checkpoint\n" == (VECTORS / "monitoring.txt").read_text()
    vector.close()


def test_what_was_cosigned_last_is_shown_with_both_signatures(witness: Witness) -> None:
    witness.add_checkpoint(submission(b"a", old=0))
    witness.add_checkpoint(submission(b"a", b"b", old=1))
    note = parse_note(witness.checkpoint(HASH))
    assert verify_note(note, [LOG]) == LOG
    assert verify_cosignature(note, witness.verifier_key) == 1760000000
    assert note.text == Log(leaves=[b"a", b"b"]).submission(1).note.text


def test_lines_of_strangers_are_not_shown(witness: Witness) -> None:
    body = submission(b"a", old=0) + "— stranger AAAAAAA=\n".encode()
    witness.add_checkpoint(body)
    assert b"stranger" not in witness.checkpoint(HASH)


def test_the_same_again_is_cosigned_again(witness: Witness) -> None:
    first = witness.add_checkpoint(submission(b"a", old=0))
    assert witness.add_checkpoint(submission(b"a", old=1)) == first
    note = UnverifiedNote(text=Log(leaves=[b"a"]).submission(0).note.text, signatures=parse_signatures(first.decode()))
    assert verify_cosignature(note, witness.verifier_key)


def test_it_remembers_over_a_restart(witness: Witness, home: Path) -> None:
    witness.add_checkpoint(submission(b"a", b"b", old=0))
    witness.close()
    again = open_witness(home, [LOG], now=lambda: NOW)
    with pytest.raises(OtherSizeError, match="cosigned size 2 last"):
        again.add_checkpoint(submission(b"a", old=0))
    with pytest.raises(InconsistentLogError):
        again.add_checkpoint(submission(b"a", b"x", b"c", old=2))
    again.close()


def test_a_log_that_was_left_out_for_a_while_is_still_remembered(witness: Witness, home: Path) -> None:
    witness.add_checkpoint(submission(b"a", old=0))
    witness.close()
    other = open_witness(home, [log_key("another", Ed25519PrivateKey.generate())], now=lambda: NOW)
    with pytest.raises(NotFoundError, match="not told about"):
        other.add_checkpoint(submission(b"a", old=1))
    with pytest.raises(NotFoundError, match="cosigned no log with this hash"):
        other.checkpoint(HASH)
    other.close()
    again = open_witness(home, [LOG], now=lambda: NOW)
    with pytest.raises(OtherSizeError):
        again.add_checkpoint(submission(b"b", old=0))
    again.close()


def test_of_two_histories_at_once_one_is_cosigned(witness: Witness) -> None:
    """Compare and set are one step, whatever the threads do."""
    results: list[str] = []
    gate = threading.Barrier(8)

    def send(number: int) -> None:
        gate.wait()
        try:
            witness.add_checkpoint(submission(b"%d" % number, old=0))
        except OtherSizeError:
            results.append("refused")
        else:
            results.append("cosigned")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["cosigned"] + ["refused"] * 7


def test_nothing_is_shown_of_what_was_never_cosigned(witness: Witness) -> None:
    with pytest.raises(OtherSizeError):
        witness.add_checkpoint(submission(b"a", b"b", old=1))
    with pytest.raises(NotFoundError, match="cosigned no log with this hash of its origin"):
        witness.checkpoint(HASH)


def test_a_memory_that_fails_gives_no_cosignature(witness: Witness, home: Path) -> None:
    with sqlite3.connect(home / MEMORY_FILE) as other:
        other.execute("DROP TABLE checkpoints")
    with pytest.raises(StoreError, match="no such table"):
        witness.add_checkpoint(submission(b"a", old=0))
    with pytest.raises(StoreError, match="no such table"):
        witness.checkpoint(HASH)


def test_a_damaged_row_is_refused(witness: Witness, home: Path) -> None:
    witness.add_checkpoint(submission(b"a", old=0))
    with sqlite3.connect(home / MEMORY_FILE) as other:
        other.execute("UPDATE checkpoints SET root = x'00'")
    with pytest.raises(StoreError, match=r"the row of cas\.example/log is damaged"):
        witness.add_checkpoint(submission(b"a", old=1))


def test_the_key_is_for_its_owner_only(home: Path) -> None:
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((home / MEMORY_FILE).stat().st_mode) == 0o600
    (home / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigurationError, match="has mode 0640, expected 0600"):
        open_witness(home, [LOG], now=lambda: NOW)


def test_a_witness_is_made_once(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is there already, expected none"):
        init_witness(home, "witness.example")
    with pytest.raises(ConfigurationError, match="make its parent directory"):
        init_witness(tmp_path / "a" / "b", "witness.example")
    with pytest.raises(InputError, match="white space"):
        init_witness(tmp_path / "c", "a name")
    with pytest.raises(StoreError, match="expected a directory without one"):
        Memory.make(home / MEMORY_FILE)


def test_a_lost_memory_is_no_new_one(home: Path) -> None:
    (home / MEMORY_FILE).unlink()
    with pytest.raises(StoreError, match="must not go on under its key: make another one"):
        open_witness(home, [LOG], now=lambda: NOW)
    with sqlite3.connect(home / MEMORY_FILE) as other:
        other.execute("CREATE TABLE other(x)")
    with pytest.raises(StoreError, match="another schema than the memory of a witness"):
        open_witness(home, [LOG], now=lambda: NOW)


def test_a_directory_must_be_whole(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected the directory that `ostiary witness init` made"):
        open_witness(tmp_path / "none", [LOG], now=lambda: NOW)
    with pytest.raises(ConfigurationError, match="no log is named"):
        open_witness(home, [], now=lambda: NOW)
    verifier = (home / VERIFIER_FILE).read_text()
    (home / VERIFIER_FILE).write_text(str(LOG))
    with pytest.raises(ConfigurationError, match="is not the key of"):
        open_witness(home, [LOG], now=lambda: NOW)
    (home / VERIFIER_FILE).write_text("nothing")
    with pytest.raises(ConfigurationError, match="is no verifier key"):
        open_witness(home, [LOG], now=lambda: NOW)
    (home / VERIFIER_FILE).write_text(verifier)
    (home / KEY_FILE).write_text("nothing")
    with pytest.raises(ConfigurationError, match="no private key in PEM"):
        open_witness(home, [LOG], now=lambda: NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    (home / KEY_FILE).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError, match="no Ed25519 key"):
        open_witness(home, [LOG], now=lambda: NOW)


def test_the_key_of_the_log_is_not_the_witnesses(witness: Witness) -> None:
    assert witness.verifier_key.public_key != KEY.public_key().public_bytes_raw()
    assert list(witness.logs) == [ORIGIN]
