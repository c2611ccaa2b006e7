"""The real launcher in a played SEV-SNP machine: session, real mTLS, report through configfs, program."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.simulators.chains import NOW
from tests.simulators.service import Client, RunningService, running_service
from tests.simulators.snp_chip import MEASUREMENT, make_chip
from tests.simulators.tsm_host import TsmHost, chip_table
from tests.simulators.tsm_launcher import TsmLauncher

TIMEOUT_SECONDS = 120
_numbers = count()

Start = Callable[..., subprocess.CompletedProcess[str]]
CHIP = make_chip()
SESSION = """
name: NAME
version: "0.3.12"
services:
- name: web
  attestation: {snp: {measurement: MEASUREMENT, guest_svn_min: 5, vmpl_max: 0}}
  command: echo "the secret is" $$SCONE::token$$
  pwd: /
secrets: [{name: token, kind: ascii, value: played}]
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that trusts the maker of CHIP as it trusts AMD: as hardware."""
    with running_service(tmp_path_factory.mktemp("snp") / "data", roots=(CHIP.root.root(),), fixed_time=NOW) as running:
        yield running


@pytest.fixture
def upload(service: RunningService, alice: Client) -> Callable[[bytes], str]:
    """Upload the session for a machine of this measurement; the id of its service."""

    def send(measurement: bytes) -> str:
        name = f"snp-{next(_numbers)}"
        text = SESSION.replace("NAME", name).replace("MEASUREMENT", measurement.hex())
        answer = alice.request(service.client_port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        return f"{name}/web"

    return send


@pytest.fixture
def host(tmp_path: Path) -> TsmHost:
    (tmp_path / "report").mkdir()
    return TsmHost(tmp_path / "report", lambda data, _: CHIP.report({0x050: data}), table=chip_table(CHIP))


@pytest.fixture
def launcher(host: TsmHost, tmp_path: Path) -> Iterator[TsmLauncher]:
    with TsmLauncher(host, tmp_path / "kernel.sock") as running:
        yield running


@pytest.fixture
def start(service: RunningService, launcher: TsmLauncher, host: TsmHost) -> Start:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        attester = ("--attester", "configfs-tsm", "--attester-path", str(host.directory))
        return subprocess.run(
            launcher.command("--cas", f"127.0.0.1:{service.enclave_port}", *attester, *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
            env={"PATH": os.defpath, "SCONE_MODE": "hw"},
        )

    return run


def test_a_program_starts_in_the_machine_that_its_session_names(
    start: Start, upload: Callable[[bytes], str], host: TsmHost
) -> None:
    """The report is bound to this connection, and its certificates come from the host's table."""
    done = start("--service", upload(MEASUREMENT), "--", "/bin/echo")
    assert (done.stdout, done.stderr, done.returncode) == ("the secret is played\n", "", 0)
    assert len(host.requests) == 1
    assert list(host.directory.iterdir()) == []


def test_in_another_machine_nothing_starts(start: Start, upload: Callable[[bytes], str]) -> None:
    done = start("--service", upload(b"o" * 48), "--", "/bin/echo")
    assert (done.stdout, done.returncode) == ("", 77)
    assert f"snp.measurement: {MEASUREMENT.hex()}" in done.stderr


def test_the_machine_lists_its_attester(start: Start, host: TsmHost) -> None:
    done = start("--list-attesters", "--json")
    row = next(row for row in json.loads(done.stdout)["attesters"] if row["name"] == "configfs-tsm")
    assert (row["available"], row["chosen"], row["tees"]) == (True, True, ["tdx", "snp"])
    assert list(host.directory.iterdir()) == []
