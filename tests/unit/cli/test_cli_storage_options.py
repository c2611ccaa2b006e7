"""Options and file of `ostiary serve`: which of the two counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulators.processes import ostiary

from ostiary.cli.storage_options import MAX_FILE_BYTES, StorageOptions, storage_document
from ostiary.errors import ConfigurationError

FILE = """
[ostiary.store]
database = "postgresql://db.example/cas"

[ostiary.sealing]
by = "tpm"
tpm = "device:/dev/tpm1"
pcrs = [0, 7]

[ostiary.freshness]
by = "witness"
mode = "bounded:100"
origin = "cas.example/log"
quorum = 1
[[ostiary.freshness.witnesses]]
url = "https://w.example"
key = "w+00000000+AA"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cas.toml"
    path.write_text(FILE)
    return path


def test_nothing_said_is_nothing() -> None:
    assert storage_document(StorageOptions(), None) == {"store": {}, "sealing": {}, "freshness": {}}


def test_the_file_alone_counts(file: Path) -> None:
    document = storage_document(StorageOptions(), file)
    assert document["store"] == {"database": "postgresql://db.example/cas"}
    assert document["sealing"] == {"by": "tpm", "tpm": "device:/dev/tpm1", "pcrs": [0, 7]}
    assert document["freshness"]["witnesses"] == [{"url": "https://w.example", "key": "w+00000000+AA"}]


def test_an_option_goes_before_the_member_of_the_file(file: Path) -> None:
    options = StorageOptions(store="postgresql://o/cas", tpm_pcrs="4, 0x7", freshness_mode="strict", witness_quorum=2)
    document = storage_document(options, file)
    assert document["store"] == {"database": "postgresql://o/cas"}
    assert document["sealing"] == {"by": "tpm", "tpm": "device:/dev/tpm1", "pcrs": [4, 7]}
    assert (document["freshness"]["mode"], document["freshness"]["quorum"]) == ("strict", 2)
    assert document["freshness"]["origin"] == "cas.example/log"


def test_an_option_that_chooses_goes_before_the_whole_table(file: Path) -> None:
    options = StorageOptions(sealing="keyfile", freshness="tpm", tpm_index="0x01800001", tpm="swtpm")
    document = storage_document(options, file)
    assert document["sealing"] == {"by": "keyfile"}
    assert document["freshness"] == {"by": "tpm", "index": 0x01800001, "tpm": "swtpm"}


def test_one_tpm_is_for_all_that_use_one() -> None:
    document = storage_document(StorageOptions(sealing="tpm", freshness="tpm", tpm="swtpm:port=1"), None)
    assert document["sealing"]["tpm"] == document["freshness"]["tpm"] == "swtpm:port=1"


def test_witnesses_are_a_url_and_a_key() -> None:
    options = StorageOptions(
        freshness="witness", witnesses=["https://a a+1+AA", "https://b"], log_origin="o", gramine_identity=None
    )
    document = storage_document(options, None)
    assert document["freshness"]["witnesses"] == [
        {"url": "https://a", "key": "a+1+AA"},
        {"url": "https://b", "key": ""},
    ]


def test_every_other_option_has_its_member() -> None:
    options = StorageOptions(
        sealing="gramine", gramine_identity="mrsigner", snp_vmpl=1, freshness="file", freshness_file=Path("/a")
    )
    document = storage_document(options, None)
    assert document["sealing"] == {"by": "gramine", "identity": "mrsigner", "vmpl": 1}
    assert document["freshness"] == {"by": "file", "file": "/a"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (StorageOptions(tpm="swtpm"), "--tpm names a TPM, and neither --sealing nor --freshness is tpm"),
        (StorageOptions(freshness="witness", witness_ca=Path("x")), "--witness-ca is for --witness, and there is none"),
        (StorageOptions(tpm_pcrs="seven"), "--tpm-pcrs: found 'seven', expected a number"),
        (StorageOptions(tpm_pcrs=""), "--tpm-pcrs: found '', expected a number"),
        (StorageOptions(tpm_index="x"), "--tpm-index: found 'x', expected a number such as 7 or 0x1804f53"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: StorageOptions, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        storage_document(options, None)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"= 1", "it is not TOML"),
        (b"\xff", "it is not TOML"),
        (b"[database]\npath = 'x'", r"found \[database\], expected tables below \[ostiary\] only"),
        (b"ostiary = 1", "found another value, expected tables"),
        (b"[ostiary]\nsealing = 'tpm'", "found another value, expected tables"),
        (b"#" * (MAX_FILE_BYTES + 1), "over 1048576 bytes"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "cas.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=match):
        storage_document(StorageOptions(), path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--config .*absent: No such file"):
        storage_document(StorageOptions(), tmp_path / "absent")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sealing", "vault"), "ostiary.sealing.by: found 'vault', expected one of keyfile, tpm, gramine, snp"),
        (("--tpm-pcrs", "7"), "ostiary.sealing.pcrs: found it beside by = 'keyfile', expected it only with tpm"),
        (("--freshness", "witness"), "ostiary.freshness.witnesses: found none, expected one or more"),
        (("--freshness-mode", "strict"), "ostiary.freshness.mode: found it beside by = 'none'"),
        (("--store", "postgresql://u:p@h/d"), "ostiary.store.database: found a password, expected none"),
        (("--config", "absent.toml"), "--config absent.toml: No such file or directory"),
    ],
)
def test_the_command_refuses_before_it_touches_anything(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    data = tmp_path / "data"
    assert told in ostiary("serve", "--data", str(data), *arguments, expect=64)
    assert not data.exists()
