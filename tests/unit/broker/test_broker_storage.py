"""What may be configured of the state, and every combination that contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.broker.storage import (
    AnchoredBy,
    EnclaveIdentity,
    Freshness,
    SealedBy,
    Sealing,
    Storage,
    Witness,
    parse_storage,
)
from ostiary.errors import ConfigurationError

DATA = Path("data")
WITNESSES = [
    {"url": "https://one.example", "key": "one+00000000+AA"},
    {"url": "https://two.example", "key": "two+1+AB"},
]


def parse(**tables: object) -> Storage:
    return parse_storage(DATA, tables)


def refused(match: str, **tables: object) -> str:
    with pytest.raises(ConfigurationError, match=match) as caught:
        parse(**tables)
    return str(caught.value)


def test_nothing_said_is_a_key_file_and_no_anchor() -> None:
    assert parse() == Storage(directory=DATA, database="", sealing=Sealing(), freshness=Freshness())
    assert parse().sealing.by is SealedBy.KEYFILE
    assert parse().freshness.by is AnchoredBy.NONE


def test_everything_that_can_be_said_is_taken() -> None:
    assert parse(
        store={"database": "postgresql://cas@db.example:5433/cas?sslmode=verify-full"},
        sealing={"by": "tpm", "tpm": "swtpm:host=h", "pcrs": [7, 0, 7]},
        freshness={"by": "tpm", "tpm": "device:/dev/tpm9", "index": 0x01800001, "mode": "bounded:250"},
    ) == Storage(
        directory=DATA,
        database="postgresql://cas@db.example:5433/cas?sslmode=verify-full",
        sealing=Sealing(by=SealedBy.TPM, tpm="swtpm:host=h", pcrs=(0, 7)),
        freshness=Freshness(by=AnchoredBy.TPM, tpm="device:/dev/tpm9", index=0x01800001, max_lag_seconds=0.25),
    )


def test_each_kind_takes_its_own_members() -> None:
    assert parse(sealing={"by": "gramine", "identity": "mrsigner"}).sealing.identity is EnclaveIdentity.MRSIGNER
    assert parse(sealing={"by": "snp", "vmpl": 3}).sealing.vmpl == 3
    assert parse(freshness={"by": "file", "file": "/elsewhere/a"}).freshness.file == Path("/elsewhere/a")
    assert parse(freshness={"by": "file", "mode": "strict"}).freshness.max_lag_seconds == 0.0
    witnessed = {"by": "witness", "origin": "cas.example/log", "witnesses": WITNESSES, "quorum": 2}
    assert parse(freshness=witnessed).freshness == Freshness(
        by=AnchoredBy.WITNESS,
        origin="cas.example/log",
        witnesses=tuple(Witness(url=each["url"], key=each["key"]) for each in WITNESSES),
        quorum=2,
    )


@pytest.mark.parametrize(
    ("tables", "match"),
    [
        ({"storage": {}}, r"ostiary\.storage: found an unknown member, expected one of freshness, sealing, store"),
        ({"store": {"path": "x"}}, r"ostiary\.store\.path: found an unknown member, expected one of database"),
        ({"sealing": {"by": "tpm", "pcr": [7]}}, r"ostiary\.sealing\.pcr: found an unknown member"),
        ({"freshness": {"kind": "tpm"}}, r"ostiary\.freshness\.kind: found an unknown member"),
        ({"sealing": {"by": "sgx"}}, r"ostiary\.sealing\.by: found 'sgx', expected one of keyfile, tpm, gramine, snp"),
        ({"freshness": {"by": True}}, r"ostiary\.freshness\.by: found True, expected one of none, file, witness, tpm"),
        ({"sealing": "tpm"}, r"ostiary\.sealing: found str, expected a table"),
    ],
)
def test_what_is_not_known_is_refused(tables: dict[str, object], match: str) -> None:
    refused(match, **tables)


@pytest.mark.parametrize(
    ("tables", "match"),
    [
        ({"sealing": {"pcrs": [7]}}, r"sealing\.pcrs: found it beside by = 'keyfile', expected it only with tpm"),
        (
            {"sealing": {"by": "snp", "identity": "mrsigner"}},
            r"identity: found it beside by = 'snp', .* only with gramine",
        ),
        ({"sealing": {"by": "gramine", "vmpl": 0}}, r"vmpl: found it beside by = 'gramine', expected it only with snp"),
        (
            {"freshness": {"mode": "strict"}},
            r"mode: found it beside by = 'none', expected it only with file, witness, tpm",
        ),
        ({"freshness": {"by": "witness", "index": 0x01800000}}, r"index: found it beside by = 'witness'"),
        ({"freshness": {"by": "file", "tpm": "x"}}, r"tpm: found it beside by = 'file', expected it only with tpm"),
        (
            {"freshness": {"by": "tpm", "quorum": 1}},
            r"quorum: found it beside by = 'tpm', expected it only with witness",
        ),
        ({"freshness": {"by": "tpm", "witnesses": WITNESSES}}, r"witnesses: found it beside by = 'tpm'"),
    ],
)
def test_what_another_kind_would_need_is_refused(tables: dict[str, object], match: str) -> None:
    """It would look as if it did something."""
    assert refused(match, **tables).endswith(": leave it out")


WITNESSED = {"by": "witness", "origin": "o", "witnesses": WITNESSES, "quorum": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"witnesses": []}, "witnesses: found none, expected one or more: without any, nothing vouches"),
        ({"quorum": 0}, "quorum: found 0, expected a number from 1 to 63"),
        ({"quorum": True}, "quorum: found True, expected a number"),
        ({"witnesses": [{"url": "x", "key": "k", "ca": 5}]}, r"witnesses\[0\]\.ca: found 5, expected a text"),
        ({"witnesses": WITNESSES[0]}, "witnesses: found dict, expected a list of at most 63"),
        ({"witnesses": ["x"]}, r"witnesses\[0\]: found str, expected a table with url and key"),
        ({"witnesses": [{"url": "x"}]}, r"witnesses\[0\]\.key: found None, expected a text"),
        ({"witnesses": [{"url": "x", "key": "k", "name": "n"}]}, r"witnesses\[0\]\.name: found an unknown member"),
        ({"origin": ""}, "origin: found '', expected a text that is not empty"),
    ],
)
def test_a_quorum_that_vouches_for_nothing_is_refused(change: dict[str, object], match: str) -> None:
    refused(match, freshness={**WITNESSED, **change})


@pytest.mark.parametrize("missing", ["witnesses", "origin", "quorum"])
def test_a_witnessed_log_needs_all_three(missing: str) -> None:
    refused(f"{missing}: found none", freshness={name: WITNESSED[name] for name in WITNESSED if name != missing})


@pytest.mark.parametrize("pcrs", [[], 7, [True], ["7"], [-1], [24], [7, 16], [23]])
def test_pcrs_that_prove_nothing_are_refused(pcrs: object) -> None:
    refused(r"ostiary\.sealing\.pcrs: found", sealing={"by": "tpm", "pcrs": pcrs})


@pytest.mark.parametrize("index", [0x017FFFFF, 0x01C00000, "0x01800000", None])
def test_an_index_that_is_not_an_owners_is_refused(index: object) -> None:
    refused(r"index: found .*, expected a number from 25165824 to 29360127", freshness={"by": "tpm", "index": index})


@pytest.mark.parametrize(
    "mode",
    [
        "",
        "Strict",
        "bounded",
        "bounded:",
        "bounded:0",
        "bounded:-1",
        "bounded:1.5",
        "bounded:60001",
        "bounded:٣",
        5,
        f"bounded:{9:05000}",
    ],
)
def test_another_mode_is_refused(mode: object) -> None:
    refused(r"ostiary\.freshness\.mode: found", freshness={"by": "tpm", "mode": mode})


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite:///x", "the scheme 'sqlite'"),
        ("cas.db", "the scheme ''"),
        ("postgresql://u:hunter2@h/d", "a password"),
        ("postgresql://u:@h/d", "a password"),
        ("postgresql://h/d?user=u&password=hunter2", "a password"),
        ("postgresql://[::1/d", "no URL"),
        ("", "''"),
        (5, "5"),
    ],
)
def test_a_database_url_that_is_wrong_or_tells_a_password_is_refused(url: object, found: str) -> None:
    message = refused(r"ostiary\.store\.database: found", store={"database": url})
    assert f"found {found}, expected" in message
    assert "hunter2" not in message


_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["tpm", "witness"])
)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
_MEMBERS = [
    "by",
    "tpm",
    "pcrs",
    "identity",
    "vmpl",
    "mode",
    "index",
    "file",
    "origin",
    "witnesses",
    "quorum",
    "database",
]


@given(
    st.dictionaries(
        st.sampled_from(["store", "sealing", "freshness"]),
        st.dictionaries(st.sampled_from(_MEMBERS), _VALUES, max_size=4) | _VALUES,
    )
)
def test_no_document_raises_anything_else(document: dict[str, object]) -> None:
    try:
        parse_storage(DATA, document)
    except ConfigurationError as error:
        message = error.message
    else:
        return
    assert message.startswith("ostiary.")
