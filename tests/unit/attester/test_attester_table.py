"""The table of attesters: each says why it is not available, and the first that is available is taken."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ostiary
from ostiary.attester import Evidence, Program, SoftwareAttester
from ostiary.attester.configfs_tsm import ConfigfsTsmAttester
from ostiary.attester.gramine import GramineAttester
from ostiary.attester.nitro import NitroAttester
from ostiary.attester.table import ATTESTERS, NAMES, Row, choose, rows_at
from ostiary.attester.tpm import TpmAttester
from ostiary.errors import OutsideError


class _Stub:
    """An attester that is available, or says why not."""

    def __init__(self, reason: str | None) -> None:
        self._reason = reason

    def unavailable(self) -> str | None:
        return self._reason

    def attest(self, report_data: bytes, program: Program | None) -> Evidence:
        raise NotImplementedError


def row(name: str, *, hardware: bool = True, reason: str | None = None, path: str = "/") -> Row:
    return replace(ATTESTERS[0], name=name, hardware=hardware, path=path, make=lambda _: _Stub(reason))


def test_names_are_unique_and_only_the_software_platform_is_no_hardware() -> None:
    assert len(set(NAMES)) == len(ATTESTERS)
    assert [row.name for row in ATTESTERS if not row.hardware] == ["software"]
    assert ATTESTERS[-1].name == "software", "what protects nothing is the last resort"


@pytest.mark.parametrize(("name", "kind"), [
    ("gramine", GramineAttester), ("configfs-tsm", ConfigfsTsmAttester), ("nitro", NitroAttester),
    ("tpm", TpmAttester), ("software", SoftwareAttester),
])  # fmt: skip
def test_each_row_makes_its_attester_and_says_in_one_line_what_is_missing(
    tmp_path: Path, name: str, kind: type[object]
) -> None:
    there, absent = tmp_path / "there", tmp_path / "absent"
    there.mkdir()
    found = next(row for row in rows_at({name: str(absent)}) if row.name == name)
    assert isinstance(found.make(str(there)), kind)
    reason = found.unavailable()
    assert reason is not None
    assert reason.startswith(f"there is no {absent}; ")
    assert "\n" not in reason


def test_an_attester_that_is_there_says_itself_what_it_lacks(tmp_path: Path) -> None:
    assert "no attestation_type" in str(rows_at({"gramine": str(tmp_path)})[0].unavailable())
    assert [row.path for row in rows_at({"gramine": str(tmp_path)})[1:]] == [row.path for row in ATTESTERS[1:]]
    assert "there is no" in str(SoftwareAttester(str(tmp_path / "none")).unavailable())
    assert SoftwareAttester(str(tmp_path)).unavailable() is None


def test_the_first_that_is_available_is_taken() -> None:
    rows = [row("a", reason="no"), row("b", path="/nowhere"), row("c"), row("d", hardware=False)]
    assert choose(rows, name=None, hardware=False).name == "c"
    assert choose(rows[::-1], name=None, hardware=False).name == "d"


def test_where_hardware_is_asked_for_the_software_platform_is_not_taken() -> None:
    rows = [row("d", hardware=False), row("a", reason="no such chip")]
    with pytest.raises(OutsideError) as refusal:
        choose(rows, name=None, hardware=True)
    assert refusal.value.chain == (
        "SCONE_MODE asks for hardware evidence, and this machine has no TEE that gives any",
        "a: no such chip",
    )


def test_a_tpm_is_taken_only_by_name() -> None:
    """Nearly every laptop has one, and it says nothing of the program."""
    assert [row.name for row in ATTESTERS if row.by_name] == ["tpm"]
    rows = [replace(row("t"), by_name=True), row("b", hardware=False)]
    assert choose(rows, name=None, hardware=False).name == "b"
    assert choose(rows, name="t", hardware=True).name == "t"
    with pytest.raises(OutsideError):
        choose(rows, name=None, hardware=True)


def test_a_named_one_is_taken_without_a_look() -> None:
    """Its own refusal says more than ours could."""
    assert choose([row("a", reason="no"), row("b")], name="a", hardware=True).name == "a"


def test_if_none_is_available_every_one_says_why() -> None:
    with pytest.raises(OutsideError) as refusal:
        choose([row("a", reason="no such chip"), row("b", path="/nowhere")], name=None, hardware=False)
    assert refusal.value.message == "this machine has nothing that gives evidence"
    assert refusal.value.causes == (
        "a: no such chip",
        "b: there is no /nowhere; a process in a Gramine SGX enclave has it",
    )


def test_attesters_whose_interface_is_not_there_are_not_loaded() -> None:
    """Every start of a program would pay for it."""
    code = """
import sys
sys.path.append(sys.argv[1])
import ostiary.launcher.run
from ostiary.attester.table import rows_at
for row in rows_at(dict.fromkeys(("gramine", "configfs-tsm", "nitro", "tpm", "software"), "/nowhere")):
    assert row.unavailable()
print(*(name for name in sys.modules if name.startswith("ostiary.attester.")))
"""
    source = str(Path(ostiary.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, source], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("ostiary.attester.") for name in done.stdout.split()}
    assert not loaded & {"gramine", "configfs_tsm", "nitro", "tpm", "tpm2"}
