"""The CLI's file: what is made when, what is kept, what is refused, and several writers at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from ostiary.cli.configuration import FORMAT, Configuration, KnownCas
from ostiary.cli.identity import make_identity
from ostiary.errors import ConfigurationError


def configuration(path: Path) -> Configuration:
    warnings: list[str] = []
    return Configuration(path=path, warn=warnings.append)


def test_a_fresh_start_makes_the_identity_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.json"
    first = configuration(path).identity()
    assert configuration(path).identity() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == {"identity": first.pem, "cas_db": {}}
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_an_empty_file_is_a_fresh_start(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch(mode=0o600)
    assert configuration(path).known() == ()
    assert configuration(path).identity()


def test_what_we_do_not_know_survives(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    entry = {"url": "https://a:1/", "chain": "", "ias_report": {"x": [1]}}
    document = {"z": {"q": None}, "cas_db": {"a": entry}, "ostiary": {"format": FORMAT, "more": 1}}
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    configuration(path).set_default("a")
    seed = configuration(path).signing_seed()
    kept = json.loads(path.read_text())
    assert kept == {**document, "default_cas": "a", "session_signing_keypair_ed25519_seed": seed.hex()}
    assert configuration(path).known() == (KnownCas(name="a", url="https://a:1/", chain="", is_default=True),)


@pytest.mark.parametrize("written", ["11" * 32, "ERERERERERERERERERERERERERERERERERERERERERE=", [17] * 32])
def test_the_signing_seed_is_read_in_every_form(tmp_path: Path, written: object) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"session_signing_keypair_ed25519_seed": written}))
    assert configuration(path).signing_seed() == b"\x11" * 32


@pytest.mark.parametrize(("content", "says"), [
    ("{", "it is not JSON"),
    ("[]", "it is not a JSON object"),
    ("[" * 100_000, "it is not JSON"),
    ('{"ostiary": {"format": 2}}', "a newer version wrote it (format 2, this one knows 1)"),
    ('{"ostiary": {"format": "x"}}', "a newer version wrote it"),
    ('{"identity": 3}', "identity is no text"),
    ('{"identity": "x"}', "identity: expected the PEM blocks"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_and_kept(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        configuration(path).identity()
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_text() == content


@pytest.mark.parametrize("seed", ["11", "x", [1, 2], [300] * 32, {"a": 1}, 5])
def test_a_signing_seed_of_another_form_is_refused(tmp_path: Path, seed: object) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"session_signing_keypair_ed25519_seed": seed}))
    with pytest.raises(ConfigurationError, match="is not 32 bytes"):
        configuration(path).signing_seed()


def test_entries_of_a_wrong_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"cas_db": {"a": {"url": 1}}}))
    with pytest.raises(ConfigurationError, match="url and chain of cas_db entry 'a'"):
        configuration(path).known()
    with pytest.raises(ConfigurationError, match="CAS 'b' is not known"):
        configuration(path).set_default("b")


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        configuration(tmp_path).known()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Not a directory"):
        configuration(tmp_path / "file" / "config.json").identity()


def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(0o644)
    warnings: list[str] = []
    Configuration(path=path, warn=warnings.append).known()
    assert warnings == [f"others may read {path}, which holds your private key; run: chmod 600 {path}"]


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "config.json")
    configuration(tmp_path / "link").identity()
    assert (tmp_path / "link").is_symlink()
    assert "identity" in json.loads((tmp_path / "real" / "config.json").read_text())


def test_a_file_that_cannot_be_replaced_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it is mounted alone into a container, where a rename over it fails."""

    def busy(_source: str, _target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    path = tmp_path / "config.json"
    path.write_text('{"cas_db": {"' + "x" * 5000 + '": {}}}')
    path.chmod(0o600)
    before = path.stat().st_ino
    monkeypatch.setattr(os, "replace", busy)
    identity = configuration(path).identity()
    assert path.stat().st_ino == before
    assert configuration(path).identity() == identity
    assert list(tmp_path.iterdir()) == [path]


def _identity(path: str) -> str:
    return configuration(Path(path)).identity().pem


def test_concurrent_first_runs_agree_on_one_identity(tmp_path: Path) -> None:
    path = str(tmp_path / "cas" / "config.json")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_identity, [path] * 12)
    assert len(set(found)) == 1
    assert make_identity() not in found
