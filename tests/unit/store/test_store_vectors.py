"""The stored vectors, one a schema version: read by this program and by a reader that follows docs/store-format.md
alone; the newest one is made again.

Run this file to write the newest vector anew after a deliberate change of format:
python tests/unit/store/test_store_vectors.py
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostiary.audit import Frontier
from ostiary.store import Head, Store, Write, open_store

VECTORS = Path(__file__).parents[2] / "vectors" / "store"
VERSIONS = ("v1", "v2")
NEWEST = VECTORS / VERSIONS[-1]


class RecordVector(TypedDict):
    name: str
    id: str
    version: int
    value: str


class HeadVector(TypedDict):
    seq: int
    body: str
    digest: str
    log_size: int
    log_root: str


class Vector(TypedDict):
    database_key: str
    records: list[RecordVector]
    leaves: list[str]
    head: HeadVector


def load(version: str) -> Vector:
    vector: Vector = json.loads((VECTORS / version / "expected.json").read_text())
    return vector


def counting_random() -> Callable[[int], bytes]:
    """Bytes that are the same in every run: SHA-256 of a counter, cut to size. Only for vectors."""
    count = 0

    def random(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.sha256(count.to_bytes(8, "big")).digest()[:size]

    return random


COMMITS: list[list[tuple[str, bytes | None, int]]] = [
    [("session/shop", b"name: shop\n", 0), ("values/shop", bytes(range(256)), 0)],
    [("session/shop", b"name: shop\nversion: '0.3'\n", 1), ("session/\N{LATIN SMALL LETTER E WITH ACUTE}", b"", 0)],
    [("values/shop", None, 1)],
]


def make(directory: Path) -> Head:
    """The database of the vector, in `directory`, which must not exist."""
    with open_store(directory, random=counting_random(), log=Frontier(), warn=lambda _: None) as store:
        for number, changes in enumerate(COMMITS):
            writes = [Write(name=name, value=value, expected_version=expected) for name, value, expected in changes]
            store.commit(writes, b'{"commit":%d}' % number).result()
        return store.head


def rows(database: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(database)
    try:
        found: dict[str, list[tuple[object, ...]]] = {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("sqlite_schema", "heads", "leaves", "records", "deletions")
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone() or "_" in table
        }
        return {**found, "sqlite_schema": sorted((row[1], row[4]) for row in found["sqlite_schema"])}
    finally:
        connection.close()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def copy(data: Path, version: str) -> Path:
    """The vector as a data directory that a store can be opened on."""
    data.mkdir(mode=0o700)
    shutil.copy(VECTORS / version / "records.sqlite", data)
    (data / "database.key").write_bytes(bytes.fromhex(load(version)["database_key"]))
    (data / "database.key").chmod(0o600)
    return data


@pytest.mark.usefixtures("copy")
def test_this_program_reads_the_vector(version: str, open_data: Callable[[], Store]) -> None:
    store, vector = open_data(), load(version)
    for expected in vector["records"]:
        record = store.get(expected["name"])
        assert record is not None
        assert (record.version, record.value.hex()) == (expected["version"], expected["value"])
    assert store.get("values/shop") is None
    head = store.head
    assert (head.seq, head.digest.hex(), head.log_size, head.log_root.hex()) == (
        vector["head"]["seq"],
        vector["head"]["digest"],
        vector["head"]["log_size"],
        vector["head"]["log_root"],
    )


def test_the_newest_vector_is_made_again(tmp_path: Path) -> None:
    make(tmp_path / "again")
    assert rows(tmp_path / "again" / "records.sqlite") == rows(NEWEST / "records.sqlite")
    assert (tmp_path / "again" / "database.key").read_bytes().hex() == load(VERSIONS[-1])["database_key"]


@pytest.mark.usefixtures("copy")
def test_an_opened_vector_has_the_newest_schema_and_the_rows_it_had(
    version: str, data: Path, open_data: Callable[[], Store]
) -> None:
    open_data().close()
    found, before = rows(data / "records.sqlite"), rows(VECTORS / version / "records.sqlite")
    assert found["sqlite_schema"] == rows(NEWEST / "records.sqlite")["sqlite_schema"]
    assert all(found[table] == before[table] for table in ("heads", "leaves", "records"))


class Reader:
    """Written from docs/store-format.md, with nothing of this program."""

    def __init__(self, database_key: bytes) -> None:
        self._database_key = database_key

    def key(self, info: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=b"ostiary-store-v1", info=info).derive(self._database_key)

    def mac(self, info: bytes, message: bytes) -> bytes:
        return hmac.new(self.key(info), message, hashlib.sha256).digest()

    def unseal(self, kind: bytes, sealed: bytes, context: bytes) -> bytes:
        assert sealed[0] == 1
        padded = AESGCMSIV(self.key(kind)).decrypt(
            sealed[1:13], sealed[13:], b"ostiary-store-v1 " + kind + b"\x00" + context
        )
        return padded[4 : 4 + int.from_bytes(padded[:4], "big")]


def test_the_format_page_is_enough_to_read_the_vector(copy: Path, version: str) -> None:
    vector, tables = load(version), rows(copy / "records.sqlite")
    reader = Reader(bytes.fromhex(vector["database_key"]))
    total = 0
    values: dict[str, tuple[int, str]] = {}
    for record_id, number, sealed in tables["records"]:
        assert isinstance(record_id, bytes)
        assert isinstance(number, int)
        assert isinstance(sealed, bytes)
        place = record_id + number.to_bytes(8, "big")
        values[record_id.hex()] = (number, reader.unseal(b"record", sealed, place).hex())
        total += int.from_bytes(reader.mac(b"state", place + hashlib.sha256(sealed).digest()), "big")
    assert values == {record["id"]: (record["version"], record["value"]) for record in vector["records"]}
    for record in vector["records"]:
        assert reader.mac(b"record id", record["name"].encode()).hex() == record["id"]
    if version != "v1":
        assert tables["deletions"] == [(3, reader.mac(b"record id", b"values/shop"))]
    leaves = []
    for position, sealed in tables["leaves"]:
        assert isinstance(position, int)
        assert isinstance(sealed, bytes)
        leaves.append(reader.unseal(b"leaf", sealed, position.to_bytes(8, "big")).decode())
    assert leaves == vector["leaves"]
    ((seq, sealed),) = tables["heads"]
    assert isinstance(seq, int)
    assert isinstance(sealed, bytes)
    body = reader.unseal(b"head", sealed, seq.to_bytes(8, "big"))
    assert body.hex() == vector["head"]["body"]
    assert body[:32] == (total % 2**256).to_bytes(32, "big")
    assert int.from_bytes(body[32:40], "big") == len(values)
    assert reader.mac(b"anchor", seq.to_bytes(8, "big") + body).hex() == vector["head"]["digest"]


def write() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "data"
        head = make(directory)
        key = (directory / "database.key").read_bytes()
        reader = Reader(key)
        ((seq, sealed),) = rows(directory / "records.sqlite")["heads"]
        assert isinstance(seq, int)
        assert isinstance(sealed, bytes)
        vector: Vector = {
            "database_key": key.hex(),
            "records": [
                {"name": name, "id": reader.mac(b"record id", name.encode()).hex(), "version": 2, "value": value.hex()}
                for name, value, _ in COMMITS[1]
                if value is not None
            ],
            "leaves": [f'{{"commit":{number}}}' for number in range(len(COMMITS))],
            "head": {
                "seq": seq,
                "body": reader.unseal(b"head", sealed, seq.to_bytes(8, "big")).hex(),
                "digest": head.digest.hex(),
                "log_size": head.log_size,
                "log_root": head.log_root.hex(),
            },
        }
        NEWEST.mkdir(parents=True, exist_ok=True)
        (NEWEST / "expected.json").write_text(json.dumps(vector, indent=1, ensure_ascii=False) + "\n")
        shutil.copy(directory / "records.sqlite", NEWEST / "records.sqlite")


if __name__ == "__main__":
    write()
