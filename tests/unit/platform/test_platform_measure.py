"""The measurement: which files it covers, in which form, and what it refuses to read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from ostiary.attester import Program
from ostiary.errors import ConfigurationError
from ostiary.platform import measure as measure_module
from ostiary.platform.measure import Files, digest_file, measure_program


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("__init__.py", "errors.py", "launcher/b.py", "launcher/a.py", "attester/c.py", "other/d.py"):
        file = tmp_path / "ostiary" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "ostiary" / "launcher" / "notes.txt").write_text("not a source")
    return tmp_path / "ostiary"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "python"
    file.write_text("binary")
    return file


def test_measurement_is_the_hash_of_the_canonical_list(tmp_path: Path, package: Path, python: Path) -> None:
    for name in ("program", "interpreter", "z", "y"):
        (tmp_path / name).write_text(name)
    program = Program(
        executable=str(tmp_path / "program"),
        interpreter=str(tmp_path / "interpreter"),
        files=(str(tmp_path / "z"), str(tmp_path / "y"), str(tmp_path / "z")),
    )
    measurement = measure_program(program, python=python, package=package)
    expected = {
        "format": "ostiary-software-measurement-v1",
        "program": {
            "executable": _sha256("program"),
            "files": [[str(tmp_path / "y"), _sha256("y")], [str(tmp_path / "z"), _sha256("z")]],
            "interpreter": _sha256("interpreter"),
        },
        "runtime": [
            ["python", _sha256("binary")],
            *(
                [name, _sha256(name)]
                for name in ("__init__.py", "attester/c.py", "errors.py", "launcher/a.py", "launcher/b.py")
            ),
        ],
    }
    assert json.loads(measurement.manifest) == expected
    assert measurement.manifest == json.dumps(expected, sort_keys=True, separators=(",", ":"))
    assert measurement.mr_enclave == hashlib.sha256(measurement.manifest.encode()).digest()


def test_without_program_and_interpreter_there_is_null(tmp_path: Path, package: Path, python: Path) -> None:
    assert json.loads(measure_program(None, python=python, package=package).manifest)["program"] is None
    program = Program(executable=str(python), interpreter=None, files=())
    measured = json.loads(measure_program(program, python=python, package=package).manifest)["program"]
    assert measured == {"executable": _sha256("binary"), "files": [], "interpreter": None}


@pytest.mark.parametrize("name", ["__init__.py", "errors.py", "launcher/a.py", "attester/c.py"])
def test_every_source_of_the_runtime_counts(package: Path, python: Path, name: str) -> None:
    before = measure_program(None, python=python, package=package)
    (package / name).write_text("changed")
    assert measure_program(None, python=python, package=package).mr_enclave != before.mr_enclave


def test_sources_of_other_packages_do_not_count(package: Path, python: Path) -> None:
    before = measure_program(None, python=python, package=package)
    (package / "other" / "d.py").write_text("changed")
    (package / "launcher" / "notes.txt").write_text("changed")
    assert measure_program(None, python=python, package=package) == before


def test_package_without_a_launcher_is_refused(tmp_path: Path, python: Path) -> None:
    with pytest.raises(ConfigurationError, match="attester' cannot be read, so it cannot be measured: No such file"):
        measure_program(None, python=python, package=tmp_path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="file 'the program' cannot be read, so it cannot be measured: No su"):
        digest_file(str(tmp_path / "missing"), name="the program")


def test_name_with_nul_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be measured: embedded null byte"):
        digest_file("/a\0b", name="x")


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), str(tmp_path), "/dev/null"):
        with pytest.raises(ConfigurationError, match="is not a regular file, so it cannot be measured"):
            digest_file(path, name=path)


def test_oversized_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, measure_module.MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigurationError, match="has 1073741825 bytes, expected at most 1073741824"):
        digest_file(str(file), name="sparse")


def test_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "program"
    file.write_text("before")
    real = hashlib.file_digest

    def changing(*arguments: object) -> object:
        digest = real(*arguments)  # type: ignore[arg-type]
        file.write_text("after it")
        return digest

    monkeypatch.setattr(hashlib, "file_digest", changing)
    with pytest.raises(ConfigurationError, match="file 'program' changed while it was measured; start the program"):
        digest_file(str(file), name="program")


class TestAnotherRoot:
    """Paths are followed as a process with that root directory follows them."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "root"
        (root / "app" / "deep").mkdir(parents=True)
        (root / "app" / "program").write_text("inside")
        return root

    @pytest.mark.parametrize("path", ["/app/program", "//app/./program", "/app/deep/../program", "/../../app/program"])
    def test_path_starts_at_that_root(self, root: Path, path: str) -> None:
        assert Files(str(root)).digest(path).hex() == _sha256("inside")

    @pytest.mark.parametrize("target", ["/app/program", "program", "../app/program", "/app/deep/../program"])
    def test_link_is_followed_within_that_root(self, root: Path, target: str) -> None:
        (root / "app" / "link").symlink_to(target)
        (root / "app" / "again").symlink_to("/app/link")
        assert Files(str(root)).digest("/app/again").hex() == _sha256("inside")

    def test_link_to_a_file_outside_does_not_lead_there(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").write_text("outside")
        (root / "app" / "absolute").symlink_to(tmp_path / "outside")
        (root / "app" / "relative").symlink_to("../../outside")
        for name in ("absolute", "relative"):
            with pytest.raises(ConfigurationError, match="cannot be read, so it cannot be measured: No such file"):
                Files(str(root)).digest(f"/app/{name}")

    def test_links_without_end_are_refused(self, root: Path) -> None:
        (root / "loop").symlink_to("/loop")
        with pytest.raises(ConfigurationError, match="file '/loop' goes over more than 40 symbolic links"):
            Files(str(root)).digest("/loop")

    def test_sources_are_listed_within_that_root(self, root: Path) -> None:
        (root / "app" / "a.py").touch()
        (root / "link").symlink_to("/app")
        assert Files(str(root)).sources("/link") == ["a.py"]
