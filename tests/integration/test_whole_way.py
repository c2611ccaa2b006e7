"""The whole way with real processes: daemon, service, curl as existing clients call it, `ostiary run`, the demo."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, ostiary, platform_process, serve_process, start_service
from tests.simulators.service import Client, make_client

PYTHON = os.path.realpath(sys.executable)
DEMO_SECONDS = 600

PROGRAM = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "environment": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(),
    "key": open("/injected/key.pem").read(), "mode": oct(os.stat("/injected/key.pem").st_mode & 0o777),
}))
sys.exit(int(os.environ["STATUS"]))
"""

SESSION = """
name: whole-way
version: "0.3.11"
security:
  attestation:
    tolerate: [debug-mode]
services:
- name: program
  image_name: image
  attestation: {mrenclave: MEASUREMENT}
  command: PYTHON PROGRAM first "second word" @@2
  pwd: /usr
  environment:
    STATUS: "7"
    SECRET: $$SCONE::token$$
    \\@\\@ASKED_FOR: ""
images:
- name: image
  injection_files:
  - path: /injected/key.pem
    content: $$SCONE::key$$
    permission: 0o400
secrets:
- {name: token, kind: ascii}
- {name: key, kind: private-key}
- {name: api_ca_key, kind: private-key}
- {name: api_ca_cert, kind: x509-ca, private_key: api_ca_key, export_public: true}
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A platform, a service that trusts it, somebody, and a program with its session."""

    served: dict[str, str]
    socket: str
    me: Client
    program: Path

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`ostiary run` of the session's service."""
        options = ["--cas", self.served["enclave"], "--service", "whole-way/program", "--platform-socket", self.socket]
        return subprocess.run(
            [*OSTIARY, "run", *options, "--", *command],
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=env,
        )

    def curl(self, *arguments: str) -> str:
        """What curl prints. Environment variables that would change its trust are not passed on."""
        clean = {name: value for name, value in os.environ.items() if name != "CURL_CA_BUNDLE"}
        return subprocess.run(
            ["curl", "-sS", *arguments], check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=clean
        ).stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("stage")
    with (
        platform_process(directory / "platform") as platform,
        serve_process(directory / "data", "--trust-software-root", platform["root"]) as served,
    ):
        program = directory / "program.py"
        program.write_text(PROGRAM)
        stage = Stage(served=served, socket=platform["socket"], me=make_client(directory, "me"), program=program)
        measurement = ostiary("measure", "--", PYTHON, str(program)).strip()
        text = SESSION.replace("MEASUREMENT", measurement).replace("PYTHON", PYTHON).replace("PROGRAM", str(program))
        (directory / "session.yml").write_text(text)
        answer = stage.curl(
            *("-k", "--cert", str(stage.me.certificate), "--key", str(stage.me.key)),
            *("--data-binary", f"@{directory / 'session.yml'}", "-X", "POST", f"https://{served['client']}/session"),
        )
        assert len(json.loads(answer)["hash"]) == 64, answer
        yield stage


def test_a_program_starts_as_its_session_says(stage: Stage) -> None:
    host = {**os.environ, "ASKED_FOR": "from the host", "NOT_ASKED_FOR": "must not be seen"}
    done = stage.run(PYTHON, str(stage.program), "two", env=host)
    assert done.returncode == 7, done.stderr
    seen = json.loads(done.stdout)
    assert seen["argv"] == [str(stage.program), "first", "second word", "two"]
    assert set(seen["environment"]) - {"LC_CTYPE"} == {"STATUS", "SECRET", "ASKED_FOR"}
    assert seen["environment"]["ASKED_FOR"] == "from the host"
    assert len(seen["environment"]["SECRET"]) == 20
    assert seen["cwd"] == "/usr"
    assert seen["key"].startswith("-----BEGIN PRIVATE KEY-----\n")
    assert seen["mode"] == "0o400"
    assert not Path("/injected").exists()


def test_scone_s_variables_name_service_and_address(stage: Stage) -> None:
    done = subprocess.run(
        [*OSTIARY, "run", "--platform-socket", stage.socket, "--", PYTHON, str(stage.program), "two"],
        capture_output=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, "SCONE_CAS_ADDR": stage.served["enclave"], "SCONE_CONFIG_ID": "whole-way/program"},
    )
    assert done.returncode == 7, done.stderr


def test_a_program_changed_by_one_byte_is_refused_and_the_log_says_why(stage: Stage, tmp_path: Path) -> None:
    original = stage.program.read_bytes()
    stage.program.write_bytes(original.replace(b"first", b"f1rst", 1) + b"#")
    try:
        done = stage.run(PYTHON, str(stage.program), "two")
    finally:
        stage.program.write_bytes(original)
    assert done.returncode == 77
    assert done.stdout == ""
    assert "CAS refused to configure whole-way/program" in done.stderr
    assert "mrenclave" in done.stderr
    assert "denial id" in done.stderr
    log = Path(stage.served["ca"]).parent.with_suffix(".log").read_text()
    assert "denied whole-way/program" in log
    assert "start the program that was measured" in log


def test_another_program_is_refused(stage: Stage) -> None:
    done = stage.run("/bin/true")
    assert done.returncode == 77
    assert "is not admitted" in done.stderr


def test_existing_curl_lines_work_as_written(stage: Stage, tmp_path: Path) -> None:
    url = f"https://{stage.served['client']}/v1/values/session=whole-way"
    values = stage.curl("-k", "-X", "GET", url)
    certificate = subprocess.run(
        ["jq", "-r", ".values.api_ca_cert.value"], input=values, check=True, capture_output=True, text=True
    ).stdout
    assert certificate.startswith("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "ca.pem").write_text(certificate)
    subprocess.run(["openssl", "x509", "-in", str(tmp_path / "ca.pem"), "-noout"], check=True, capture_output=True)


def test_curl_verifies_the_service_by_its_root_under_the_name_cas(stage: Stage) -> None:
    port = stage.served["client"].rpartition(":")[2]
    answer = stage.curl(
        *("--cacert", stage.served["ca"], "--connect-to", f"cas:8081:127.0.0.1:{port}", "https://cas:8081/v1/version")
    )
    assert json.loads(answer) == {"version": "0.1.0"}


def test_the_head_of_a_value_prints_405_in_exactly_one_line(stage: Stage) -> None:
    printed = stage.curl("-k", "-I", f"https://{stage.served['client']}/v1/values/session=whole-way")
    assert len([line for line in printed.splitlines() if "405" in line]) == 1


def test_a_killed_service_comes_back_with_every_acknowledged_session(tmp_path: Path) -> None:
    """kill -9 in the middle of uploads, several times; what was answered with 201 is there afterwards."""
    data, me = tmp_path / "data", make_client(tmp_path, "me")
    acknowledged: dict[str, str] = {}
    for life in range(4):
        process, served = start_service(data)
        port = int(served["client"].rpartition(":")[2])
        for name, session_hash in acknowledged.items():
            assert me.request(port, "GET", f"/session/{name}").body["hash"] == session_hash
        killer = threading.Timer(0.05 + 0.1 * life, process.send_signal, [signal.SIGKILL])
        killer.start()
        try:
            for number in range(10_000):
                name = f"life-{life}-{number}"
                answer = me.request(port, "POST", "/session", f"name: {name}\nversion: '0.3.10'\n".encode())
                assert answer.status == 201
                acknowledged[name] = answer.body["hash"]
        except (OSError, http.client.HTTPException):
            pass
        killer.join()
        assert process.wait(TIMEOUT_SECONDS) == -signal.SIGKILL
        if process.stdout is not None:
            process.stdout.close()
    assert acknowledged
    with serve_process(data) as served:
        port = int(served["client"].rpartition(":")[2])
        for name, session_hash in acknowledged.items():
            assert me.request(port, "GET", f"/session/{name}").body["hash"] == session_hash


def test_the_service_keeps_its_identity_across_restarts(tmp_path: Path) -> None:
    roots = []
    for _ in range(2):
        with serve_process(tmp_path / "data") as served:
            roots.append(Path(served["ca"]).read_bytes())
    assert roots[0] == roots[1]


def test_two_services_on_the_same_state_are_one(tmp_path: Path) -> None:
    me = make_client(tmp_path, "me")
    with serve_process(tmp_path / "data") as one, serve_process(tmp_path / "data") as other:
        ports = [int(served["client"].rpartition(":")[2]) for served in (one, other)]
        assert Path(one["ca"]).read_bytes() == Path(other["ca"]).read_bytes()
        for number in range(10):
            name = f"shared-{number}"
            written, read = ports if number % 2 else reversed(ports)
            answer = me.request(written, "POST", "/session", f"name: {name}\nversion: '0.3.10'\n".encode())
            assert answer.status == 201
            assert me.request(read, "GET", f"/session/{name}").body["hash"] == answer.body["hash"]


def test_the_demo_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*OSTIARY, "demo"],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEMO_SECONDS,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello from an attested program" in done.stdout
    assert "NOAUTH" in done.stdout
    assert "visits: 2" in done.stdout
    assert "CAS refused to configure hello/application" in done.stdout
    # Three people and a checker: two harmless versions pass, a bad one does not, and carol alone changes nothing.
    assert [line.split(": ", 1)[1].split(",")[0] for line in done.stdout.splitlines() if "program decides" in line] == [
        "approve", "approve", "reject",
    ]  # fmt: skip
    assert done.stdout.count("the proposal is applied") == 2
    assert "Caused by: the proposal is rejected" in done.stdout
    assert done.stdout.count("the proposal is open") == 2
    logged = done.stdout.partition("$ ostiary store log --session board\n")[2].splitlines()
    assert [line.split()[1] for line in logged if line.split()[2:3] == ["board"]] == [
        "proposal_created", "proposal_decided", "session_created", "proposal_closed",
        "proposal_created", "proposal_decided", "session_updated", "proposal_closed",
        "proposal_created", "proposal_closed",
        "proposal_created", "proposal_decided",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ostiary", "demo"],
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )
    assert done.returncode == 69
    assert "the demo needs curl, openssl, redis-server, redis-cli" in done.stderr
