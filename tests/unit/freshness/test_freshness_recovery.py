"""Going on with an older state on purpose: who may, for what, and what remains of it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.witnesses import KEY as LOG_KEY
from tests.simulators.witnesses import ORIGIN, WitnessProcess

from ostiary.audit import Frontier
from ostiary.audit.note import log_key
from ostiary.errors import (
    ConfigurationError,
    NotAuthorizedError,
    RefusedError,
    RollbackError,
    StoreError,
    TamperedError,
)
from ostiary.freshness import FileAnchor, WitnessAnchor, WitnessServer
from ostiary.freshness.recovery import (
    OWNER_RECORD,
    accept_rollback,
    make_statement,
    parse_owner_key,
    read_leaves,
    record_owner,
    require_anchor,
    verify_statement,
)
from ostiary.freshness.witness import witness_identity
from ostiary.https import trusting
from ostiary.store import Anchor, Head, Store, Write
from ostiary.store.sqlite import SqliteBackend

KEY = bytes(32)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAME = {"identity": "file", "successor": "file"}
OWNER = ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(statement: str, key: ec.EllipticCurvePrivateKey = OWNER) -> bytes:
    return key.sign(statement.encode(), ec.ECDSA(SHA256()))


@dataclass
class Cas:
    """A store in a file with an anchor, which can be copied and put back."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "db"

    @property
    def anchor(self) -> FileAnchor:
        return FileAnchor(self.directory / "anchor")

    @contextmanager
    def opened(self, anchor: Anchor | None) -> Iterator[Store]:
        backend = SqliteBackend(self.path)
        begin = Store.begin if backend.head() is None else Store.resume
        try:
            store = begin(backend, KEY, random=os.urandom, log=Frontier(), anchor=anchor)
        except BaseException:
            backend.close()
            raise
        with store:
            yield store

    def copy(self, name: str) -> None:
        with closing(sqlite3.connect(self.path)) as now, closing(sqlite3.connect(self.directory / name)) as copy:
            now.backup(copy)

    def put_back(self, name: str) -> None:
        for side in ("db-wal", "db-shm"):
            (self.directory / side).unlink(missing_ok=True)
        shutil.copy(self.directory / name, self.path)

    def leaves(self) -> list[bytes]:
        backend = SqliteBackend(self.path)
        try:
            return list(read_leaves(backend, KEY)(0))
        finally:
            backend.close()


@pytest.fixture
def cas(tmp_path: Path) -> Cas:
    """Two commits with an owner, then a third; the database is put back to the second."""
    made = Cas(tmp_path)
    with made.opened(made.anchor) as store:
        record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
        store.commit([Write(name="a", value=b"old", expected_version=0)], b"leaf").result()
    made.copy("old")
    with made.opened(made.anchor) as store:
        store.commit([Write(name="a", value=b"new", expected_version=2)], b"leaf").result()
    made.put_back("old")
    with pytest.raises(RollbackError), made.opened(made.anchor):
        pass
    return made


def statement_of(cas: Cas) -> str:
    with cas.opened(None) as store, closing(SqliteBackend(cas.path)) as backend:
        return make_statement(store, cas.anchor, identity="file", successor="file", leaves=read_leaves(backend, KEY))


def accept(cas: Cas, signature: bytes, *, dies: bool = False) -> Head:
    anchor = cas.anchor
    with cas.opened(None) as store, closing(SqliteBackend(cas.path)) as backend:
        leaves = read_leaves(backend, KEY)
        head = accept_rollback(
            store, anchor, signature, identity="file", successor="file", leaves=leaves, now=NOW, random=os.urandom
        )
        if not dies:
            anchor.forget()
            anchor.settle(head, leaves)
        return head


def test_the_owner_accepts_the_older_state_and_the_store_goes_on(cas: Cas) -> None:
    statement = statement_of(cas)
    accept(cas, sign(statement))
    with cas.opened(cas.anchor) as store:
        record = store.get("a")
        assert record is not None
        assert record.value == b"old"
        store.commit([], b"goes on").result()
    kept = json.loads(cas.leaves()[2])
    assert kept["type"] == "rollback_accepted"
    assert kept["data"]["statement"] == statement
    verify_statement(statement, bytes.fromhex(kept["data"]["signature"]), spki(OWNER))


def test_the_statement_names_both_states_exactly(cas: Cas) -> None:
    lines = statement_of(cas).split("\n")
    assert lines[0] == "ostiary accept-rollback v1"
    assert lines[1].startswith("found head 3 digest ")
    assert " leaves 2 root " in lines[1]
    assert lines[2] == "anchor file"
    assert lines[3].startswith("remembers head 5, digest ")
    assert ", 3 leaves with the root " in lines[3]
    assert lines[4:] == ["successor file", ""]


def test_the_newer_database_is_refused_from_then_on(cas: Cas) -> None:
    """It was lost, and somebody finds it: two histories must not both go on."""
    cas.copy("accepted")
    accept(cas, sign(statement_of(cas)))
    cas.copy("accepted")
    newer = Cas(cas.directory)
    newer.put_back("old")
    with pytest.raises(RollbackError), newer.opened(cas.anchor):
        pass
    newer.put_back("accepted")
    with newer.opened(cas.anchor) as store:
        assert store.head.log_size == 3


def test_a_statement_is_worth_nothing_a_second_time(cas: Cas) -> None:
    signature = sign(statement_of(cas))
    accept(cas, signature)
    cas.put_back("old")
    with pytest.raises(NotAuthorizedError, match=r"not of the owner, .* over this very statement"):
        accept(cas, signature)


def test_the_owner_signs_against_the_stores_own_anchor_only(cas: Cas) -> None:
    """Else somebody could show him a state of his own making that is missing, and have another one accepted."""
    with cas.opened(None) as store:
        require_anchor(store, "witness cas.example/log 1 of w+1+A", now=NOW, random=os.urandom)
    with pytest.raises(RefusedError, match=r"is anchored by witness cas\.example/log .*, found file"):
        statement_of(cas)
    with pytest.raises(RefusedError, match="give the settings that it was started with"):
        accept(cas, b"")


def test_nobody_else_can_accept_and_nothing_changes(cas: Cas) -> None:
    statement, before = statement_of(cas), cas.leaves()
    stranger = ec.generate_private_key(ec.SECP256R1())
    for signature in (
        b"", b"x" * 5000, sign(statement, stranger), sign(statement.replace("leaves 2", "leaves 1")),
        sign(statement)[:-1], Ed25519PrivateKey.generate().sign(statement.encode()),
    ):  # fmt: skip
        with pytest.raises(NotAuthorizedError, match="let the owner sign exactly the text that this command prints"):
            accept(cas, signature)
    assert cas.leaves() == before
    with pytest.raises(RollbackError), cas.opened(cas.anchor):
        pass


def test_where_nothing_was_turned_back_there_is_nothing_to_accept(tmp_path: Path) -> None:
    cas = Cas(tmp_path)
    with cas.opened(cas.anchor) as store:
        record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
    with pytest.raises(RefusedError, match="takes head 2 for the newest: there is no rollback to accept"):
        statement_of(cas)


def test_a_state_without_owner_cannot_be_accepted(tmp_path: Path) -> None:
    cas = Cas(tmp_path)
    with cas.opened(cas.anchor) as store:
        store.commit([], b"leaf").result()
    cas.copy("old")
    with cas.opened(cas.anchor) as store:
        record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
    cas.put_back("old")
    with pytest.raises(NotAuthorizedError, match="this store has no owner: none was recorded before this state"):
        accept(cas, sign(statement_of(cas)))


def test_an_end_between_log_and_anchor_leaves_the_store_refused(cas: Cas) -> None:
    """The decision is in the log, the anchor does not know: the owner is asked again, for the state there is now."""
    accept(cas, sign(statement_of(cas)), dies=True)
    with pytest.raises(RollbackError), cas.opened(cas.anchor):
        pass
    accept(cas, sign(statement_of(cas)))
    with cas.opened(cas.anchor) as store:
        assert store.head.log_size == 4


def test_a_store_is_held_to_its_anchor(tmp_path: Path) -> None:
    cas = Cas(tmp_path)
    with cas.opened(None) as store:
        require_anchor(store, "", now=NOW, random=os.urandom)
        assert store.head.log_size == 0
        require_anchor(store, "file", now=NOW, random=os.urandom)
        require_anchor(store, "file", now=NOW, random=os.urandom)
        for other in ("", "witness cas.example/log 1 of w+1+A"):
            with pytest.raises(RefusedError, match=r"this store is anchored by file, found (no anchor|witness)"):
                require_anchor(store, other, now=NOW, random=os.urandom)
    assert [json.loads(leaf)["type"] for leaf in cas.leaves()] == ["anchor_recorded"]


def test_the_owner_alone_gives_a_store_another_anchor(tmp_path: Path) -> None:
    """Nothing was turned back, and the statement says so."""
    cas = Cas(tmp_path)
    with cas.opened(cas.anchor) as store:
        record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
        require_anchor(store, "file", now=NOW, random=os.urandom)
    with cas.opened(None) as store, closing(SqliteBackend(cas.path)) as backend:
        leaves = read_leaves(backend, KEY)
        statement = make_statement(store, cas.anchor, identity="file", successor="another", leaves=leaves)
        assert "remembers" not in statement
        assert statement.endswith("anchor file\nsuccessor another\n")
        accept_rollback(
            store,
            cas.anchor,
            sign(statement),
            identity="file",
            successor="another",
            leaves=leaves,
            now=NOW,
            random=os.urandom,
        )
        require_anchor(store, "another", now=NOW, random=os.urandom)
        with pytest.raises(RefusedError, match="anchored by another, found file"):
            require_anchor(store, "file", now=NOW, random=os.urandom)


def test_an_owner_is_recorded_once(tmp_path: Path) -> None:
    cas = Cas(tmp_path)
    with cas.opened(None) as store:
        record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
        record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
        with pytest.raises(NotAuthorizedError, match="an owner is not replaced"):
            record_owner(store, spki(ec.generate_private_key(ec.SECP256R1())), now=NOW, random=os.urandom)
    assert [json.loads(leaf)["type"] for leaf in cas.leaves()] == ["owner_recorded"]


def test_an_owner_may_have_an_ed25519_key() -> None:
    key = Ed25519PrivateKey.generate()
    verify_statement("text\n", key.sign(b"text\n"), spki(key))
    with pytest.raises(NotAuthorizedError):
        verify_statement("other\n", key.sign(b"text\n"), spki(key))


def test_other_keys_are_refused(tmp_path: Path) -> None:
    others = (
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
    for text, says in (
        *((text, "neither Ed25519 nor an EC key on P-256") for text in others),
        (b"nothing", "no public key in PEM"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            parse_owner_key(text)
    good = OWNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert parse_owner_key(good) == spki(OWNER)
    with pytest.raises(TamperedError, match="the recorded key of the owner is none"):
        verify_statement("text", b"", b"nothing")
    assert OWNER_RECORD == "owner"


def test_with_witnesses_the_log_goes_on_under_another_name(tmp_path: Path) -> None:
    """The owner alone cannot do it: a quorum of witnesses must be told the new name in place of the old one."""
    cas, next_name = Cas(tmp_path), f"{ORIGIN}/2"
    witnesses = [WitnessProcess(tmp_path, name, log_key(ORIGIN, LOG_KEY)) for name in ("w1", "w2", "w3")]
    servers = [WitnessServer(url=one.url, key=one.key, trust=trusting(one.certificate)) for one in witnesses]

    def anchor(origin: str) -> WitnessAnchor:
        return WitnessAnchor(origin=origin, key=LOG_KEY, witnesses=servers, quorum=2)

    def identity(origin: str) -> str:
        return witness_identity(origin, 2, [one.key for one in witnesses])

    @contextmanager
    def started(origin: str) -> Iterator[Store]:
        with closing(anchor(origin)) as kept, cas.opened(kept) as store:
            require_anchor(store, identity(origin), now=NOW, random=os.urandom)
            yield store

    try:
        with started(ORIGIN) as store:
            record_owner(store, spki(OWNER), now=NOW, random=os.urandom)
        cas.copy("old")
        with started(ORIGIN) as store:
            store.commit([], b"newer").result()
        cas.copy("newer")
        cas.put_back("old")
        with pytest.raises(RollbackError, match="remember"), started(ORIGIN):
            pass
        with (
            cas.opened(None) as store,
            closing(SqliteBackend(cas.path)) as backend,
            closing(anchor(ORIGIN)) as before,
        ):
            leaves = read_leaves(backend, KEY)
            names = {"identity": identity(ORIGIN), "successor": identity(next_name)}
            statement = make_statement(store, before, **names, leaves=leaves)
            assert "remembers a longer log of 3 leaves\n" in statement
            accept_rollback(store, before, sign(statement), **names, leaves=leaves, now=NOW, random=os.urandom)
        cas.copy("accepted")
        with pytest.raises(StoreError, match="was not told about this log"), started(next_name):
            pass
        witnesses[0].retell(log_key(next_name, LOG_KEY))
        with pytest.raises(StoreError, match="1 cosigned 3 leaves"), started(next_name):
            pass
        witnesses[1].retell(log_key(next_name, LOG_KEY))
        with started(next_name) as store:
            store.commit([], b"goes on").result()
        # The newer state turns up after all: its name is known to a minority now.
        cas.put_back("newer")
        with pytest.raises(StoreError, match="1 cosigned 3 leaves"), started(ORIGIN):
            pass
        for name in ("newer", "old", "accepted"):
            cas.put_back(name)
            with pytest.raises(RollbackError), started(next_name):
                pass
    finally:
        for witness in witnesses:
            witness.close()
