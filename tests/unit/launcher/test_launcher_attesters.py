"""Which attester a start asks, and the list that tells why the others are not asked."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ostiary.attester import table
from ostiary.attester.nitro import NitroAttester
from ostiary.attester.software import SoftwareAttester
from ostiary.attester.table import NAMES
from ostiary.entry import launcher_command
from ostiary.errors import OutsideError
from ostiary.launcher.attesters import choose_attester, list_attesters
from ostiary.launcher.options import Listing, Options, parse_options

REQUIRED = ["--cas", "h", "--service", "a/b"]


def options(*arguments: str, **environment: str) -> Options:
    parsed = parse_options([*REQUIRED, *arguments], environment, lambda _: False)
    assert isinstance(parsed, Options)
    return parsed


def listing(*arguments: str, **environment: str) -> Listing:
    parsed = parse_options(["--list-attesters", *arguments], environment, lambda _: False)
    assert isinstance(parsed, Listing)
    return parsed


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose hardware attesters are not there, whatever machine this is."""
    elsewhere = tuple(replace(row, path=f"/nowhere/{row.name}") for row in table.ATTESTERS)
    monkeypatch.setattr(table, "ATTESTERS", elsewhere)


@pytest.mark.usefixtures("bare")
def test_the_software_platform_is_taken_where_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert isinstance(choose_attester(options(OSTIARY_PLATFORM_SOCKET=str(tmp_path / "s"))), SoftwareAttester)


def test_a_named_attester_is_taken_at_the_path_named(tmp_path: Path) -> None:
    """Without a look at whether it is there: it says so itself."""
    attester = choose_attester(options("--attester", "nitro", "--attester-path", str(tmp_path / "nsm")))
    assert isinstance(attester, NitroAttester)
    with pytest.raises(OutsideError, match=f"{tmp_path}/nsm gives no attestation document: No such file"):
        attester.attest(bytes(64), None)


@pytest.mark.usefixtures("bare")
def test_a_machine_with_nothing_says_why_and_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(OutsideError) as refusal:
        choose_attester(options(OSTIARY_PLATFORM_SOCKET=str(tmp_path / "none")))
    first, *reasons, last = refusal.value.chain
    assert first == "this machine has nothing that gives evidence"
    assert [reason.partition(":")[0] for reason in reasons] == [name for name in NAMES if name != "tpm"]
    assert "--no-attestation" in last


@pytest.mark.usefixtures("bare")
def test_mode_hw_does_not_take_the_software_platform(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    with pytest.raises(OutsideError, match="SCONE_MODE asks for hardware evidence"):
        choose_attester(options(OSTIARY_PLATFORM_SOCKET=str(tmp_path / "s"), SCONE_MODE="hw"))


@pytest.mark.usefixtures("bare")
def test_the_list_has_a_line_for_each_and_marks_the_one_that_would_be_taken(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    lines = list_attesters(listing(OSTIARY_PLATFORM_SOCKET=str(tmp_path / "s"))).splitlines()
    assert [line[2:].split()[0] for line in lines] == list(NAMES)
    assert [line[0] for line in lines] == [" ", " ", " ", " ", "*"]
    assert "not available: there is no /nowhere/nitro; an AWS Nitro enclave has it" in lines[2]
    assert "available: a quote of the software platform" in lines[4]


@pytest.mark.usefixtures("bare")
def test_the_list_as_json(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    socket = str(tmp_path / "s")
    first, *_, software = json.loads(list_attesters(listing("--json", OSTIARY_PLATFORM_SOCKET=socket)))["attesters"]
    assert first == {
        "name": "gramine",
        "tees": ["sgx"],
        "hardware": True,
        "path": "/nowhere/gramine",
        "available": False,
        "reason": "there is no /nowhere/gramine; a process in a Gramine SGX enclave has it",
        "chosen": False,
    }
    assert (software["available"], software["reason"], software["chosen"]) == (True, None, True)
    hardware = json.loads(list_attesters(listing("--json", OSTIARY_PLATFORM_SOCKET=socket, SCONE_MODE="hw")))
    assert [member["chosen"] for member in hardware["attesters"]] == [False] * len(NAMES)


def test_the_list_is_data_on_stdout_and_ends_with_zero(tmp_path: Path) -> None:
    """As a process: with a played module at another path."""
    (tmp_path / "nsm").touch()
    command = ["--list-attesters", "--json", "--attester", "nitro", "--attester-path", str(tmp_path / "nsm")]
    done = subprocess.run(launcher_command(command), capture_output=True, timeout=60, check=True, env={})
    assert done.stderr == b""
    nitro = next(row for row in json.loads(done.stdout)["attesters"] if row["name"] == "nitro")
    assert (nitro["available"], nitro["chosen"], nitro["path"]) == (True, True, str(tmp_path / "nsm"))
