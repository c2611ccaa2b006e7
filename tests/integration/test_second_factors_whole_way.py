"""One-time passwords and access tokens with real processes: `ostiary serve`, `ostiary platform`, `ostiary run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.simulators.authenticator import SECRET_BASE32, password_at
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, ostiary, platform_process, serve_process
from tests.simulators.service import Client, make_client

PYTHON = os.path.realpath(sys.executable)
PROGRAM = """
import json, os, sys
print(json.dumps({"argv": sys.argv, "environment": dict(os.environ)}))
"""
OWN_SECRET = b"the secret of one service"
TOKEN = "wC2YkzR0pQ7mVbT4xL9e"
USED = "A One-time Password was already used within this time-step. Please try again in the next time-step"
WRONG = "The given One-time Password is invalid. Please try again."

SESSION = """
name: NAME
version: "0.3.12"
security:
SECURITY
  attestation:
    tolerate: [debug-mode]
PASSWORD
services:
- {name: program, attestation: {mrenclave: MEASUREMENT}, command: PYTHON PROGRAM}
- name: own
  attestation: {mrenclave: MEASUREMENT}
  command: PYTHON PROGRAM
  one_time_password_shared_secret: $$SCONE::otp:base32nopad$$
- name: told
  attestation: {mrenclave: MEASUREMENT}
  command: PYTHON PROGRAM
  environment: {"\\\\@\\\\@SCONE_SERVICE_ACCESS_TOKEN": ""}
secrets:
- {name: otp, kind: binary, value: OWN}
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A platform that a service trusts, its data, somebody, and a program."""

    directory: Path
    platform: Mapping[str, str]
    me: Client
    program: Path

    @property
    def options(self) -> tuple[str, ...]:
        """Of `ostiary serve`."""
        return ("--trust-software-root", self.platform["root"])

    def upload(self, served: Mapping[str, str], name: str, *, security: str = "", password: str = "") -> None:
        text = SESSION.replace("NAME", name).replace("SECURITY", security).replace("PASSWORD", password)
        text = text.replace("MEASUREMENT", ostiary("measure", "--", PYTHON, str(self.program)).strip())
        text = text.replace("PYTHON", PYTHON).replace("PROGRAM", str(self.program)).replace("OWN", OWN_SECRET.hex())
        port = int(served["client"].rpartition(":")[2])
        answer = self.me.request(port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body

    def run(self, served: Mapping[str, str], *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`ostiary run` of the program, with these options and variables."""
        return subprocess.run(
            [
                *(*OSTIARY, "run", "--cas", served["enclave"], "--platform-socket", self.platform["socket"]),
                *(*options, "--", PYTHON, str(self.program)),
            ],
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env={**os.environ, **environment},
        )

    @staticmethod
    def log(data: Path) -> str:
        return data.with_suffix(".log").read_text()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("stage")
    with platform_process(directory / "platform") as platform:
        program = directory / "program.py"
        program.write_text(PROGRAM)
        yield Stage(directory=directory, platform=platform, me=make_client(directory, "me"), program=program)


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert (done.returncode, done.stdout) == (77, "")
    assert says in done.stderr


def test_f201_a_password_starts_a_program_once_and_not_again_after_a_restart(stage: Stage) -> None:
    """F201, F202: in SCONE_CONFIG_ID and in --service; neither the program nor any log learns it."""
    data = stage.directory / "passwords"
    secret = f"    one_time_password_shared_secret: {SECRET_BASE32}"
    with serve_process(data, *stage.options) as served:
        stage.upload(served, "guarded", password=secret)
        refused(stage.run(served, SCONE_CONFIG_ID="guarded/program"), "SCONE_CONFIG_ID=guarded/program@<otp>")
        password = password_at(datetime.now(UTC))
        done = stage.run(served, SCONE_CONFIG_ID=f"guarded/program@{password}")
        assert done.returncode == 0, done.stderr
        assert password not in done.stdout + done.stderr
        assert json.loads(done.stdout)["argv"] == [str(stage.program)]
        refused(stage.run(served, SCONE_CONFIG_ID=f"guarded/program@{password}"), USED)
        refused(stage.run(served, SCONE_CONFIG_ID=f"guarded/own@{password}"), WRONG)
        own = password_at(datetime.now(UTC), OWN_SECRET)
        done = stage.run(served, "--service", f"guarded/own@{own}")
        assert done.returncode == 0, done.stderr
    with serve_process(data, *stage.options) as served:
        refused(stage.run(served, SCONE_CONFIG_ID=f"guarded/program@{password}"), USED)
    log = stage.log(data)
    assert USED in log
    assert password not in log
    assert own not in log


def test_f199_program_and_service_prove_the_token_to_each_other(stage: Stage) -> None:
    """F199: wrong, missing, on one side only; the program gets the token if the session says so."""
    data = stage.directory / "tokens"
    with serve_process(data, *stage.options) as served:
        stage.upload(served, "guarded", security=f"  service_access_token: {TOKEN}")
        stage.upload(served, "open")
        done = stage.run(served, SCONE_CONFIG_ID="guarded/program", SCONE_SERVICE_ACCESS_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        assert "SCONE_SERVICE_ACCESS_TOKEN" not in json.loads(done.stdout)["environment"]
        told = stage.run(served, SCONE_CONFIG_ID="guarded/told", SCONE_SERVICE_ACCESS_TOKEN=TOKEN)
        assert json.loads(told.stdout)["environment"]["SCONE_SERVICE_ACCESS_TOKEN"] == TOKEN
        refused(stage.run(served, SCONE_CONFIG_ID="guarded/program"), "token and the program has none")
        wrong = stage.run(served, SCONE_CONFIG_ID="guarded/program", SCONE_SERVICE_ACCESS_TOKEN=TOKEN.lower())
        refused(wrong, "the program has another service access token than the session")
        needless = stage.run(served, SCONE_CONFIG_ID="open/program", SCONE_SERVICE_ACCESS_TOKEN=TOKEN)
        refused(needless, "token and the session has none")
        assert stage.run(served, SCONE_CONFIG_ID="open/program").returncode == 0
    assert TOKEN not in stage.log(data)
