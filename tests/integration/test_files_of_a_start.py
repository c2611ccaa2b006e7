"""The real launcher and the real service: what becomes of the files that a program finds at its start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.simulators.processes import OSTIARY, TIMEOUT_SECONDS, serve_process
from tests.simulators.service import make_client

CHANGE = 'for f in "$@"; do cat "$f"; echo changed > "$f"; echo "+ more" >> "$f"; cat "$f"; done'

SESSION = """
name: files
version: "0.3.12"
security: {attestation: {mode: none}}
services:
- name: injected
  image_name: injected
  command: [sh, -c, 'CHANGE', sh, DIRECTORY/given, DIRECTORY/template]
- name: protected
  image_name: protected
  command: [sh, -c, 'echo started; echo leaked > DIRECTORY/data/file']
images:
- name: injected
  injection_files:
  - path: DIRECTORY/given
    content: "given with $$SCONE::token$$\\n"
  - DIRECTORY/template
- name: protected
  volumes: [{name: data, path: DIRECTORY/data}]
volumes:
- name: data
secrets:
- {name: token, kind: ascii, value: a-token}
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A service with the session above, and the directory that its files are in."""

    served: dict[str, str]
    directory: Path

    def run(self, service: str) -> subprocess.CompletedProcess[str]:
        options = ["--cas", self.served["enclave"], "--cas-ca", self.served["ca"], "--service", f"files/{service}"]
        return subprocess.run(
            [*OSTIARY, "run", *options, "--no-attestation"],
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("files")
    author = make_client(directory, "author")
    with serve_process(directory / "cas") as served:
        port = int(served["client"].rpartition(":")[2])
        text = SESSION.replace("CHANGE", CHANGE).replace("DIRECTORY", str(directory))
        answer = author.request(port, "POST", "/session", text.encode())
        assert answer.status == 201, answer.body
        yield Stage(served=served, directory=directory)


def test_f143_what_a_program_does_to_an_injected_file_is_gone_at_the_next_start(stage: Stage) -> None:
    """F143: the program sees its changes, a second start sees the original, and nothing of it reaches the disk."""
    template, given = stage.directory / "template", stage.directory / "given"
    template.write_text("template with $$SCONE::token$$\n")
    seen = "given with a-token\nchanged\n+ more\ntemplate with a-token\nchanged\n+ more\n"
    for _ in range(2):
        done = stage.run("injected")
        assert (done.stdout, done.stderr, done.returncode) == (seen, "", 0)
        assert template.read_text() == "template with $$SCONE::token$$\n"
        assert not given.exists() or given.read_bytes() == b""


def test_a_service_with_a_volume_is_not_started_by_a_launcher_that_cannot_protect_it(stage: Stage) -> None:
    (stage.directory / "data").mkdir()
    done = stage.run("protected")
    assert (done.stdout, done.returncode) == ("", 78)
    assert f"volume 'data' at '{stage.directory / 'data'}'" in done.stderr
    assert "this launcher cannot protect any; nothing was started" in done.stderr
    assert list((stage.directory / "data").iterdir()) == []
