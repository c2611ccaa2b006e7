"""The command line: what help says, what wrong usage is told, and the exit codes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.simulators.processes import ostiary


@pytest.mark.parametrize(
    "command", ["serve", "run", "measure", "platform", "store", "demo", "session", "self", "cas", "cert"]
)
def test_help_lists_the_command_and_the_command_has_help(command: str) -> None:
    assert command in ostiary("--help")
    assert ostiary(command, "--help")


@pytest.mark.parametrize("command", [("serve",), ("run",), ("measure",), ("platform", "serve"), ("store", "verify")])
def test_help_of_a_command_has_examples(command: tuple[str, ...]) -> None:
    text = ostiary(*command, "--help")
    assert "Example" in text
    assert f"ostiary {' '.join(command)}" in text


def test_help_speaks_to_those_who_know_scone() -> None:
    text = ostiary("--help")
    for word in ("CAS", "LAS", "SCONE_CAS_ADDR", "SCONE_CONFIG_ID", "session"):
        assert word in text


def test_the_version_is_printed() -> None:
    assert ostiary("--version") == "ostiary 0.1.0\n"


@pytest.mark.parametrize(("arguments", "message"), [
    (("nonsense",), "No such command"),
    (("serve", "--nonsense"), "No such option"),
    (("serve", "--client", "localhost"), "--client localhost: expected HOST:PORT"),
    (("serve", "--client", "::1:8081"), "write an IPv6 address in brackets"),
    (("serve", "--enclave", "127.0.0.1:70000"), "expected HOST:PORT"),
    (("measure", "--", "/nonexistent/program"), "was not found"),
    (("platform", "nonsense"), "No such command"),
])  # fmt: skip
def test_wrong_usage_ends_with_64_and_says_what_is_wrong(arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(ostiary(*arguments, expect=64).split())


def test_a_missing_root_file_is_named(tmp_path: Path) -> None:
    said = ostiary(
        "serve", "--data", str(tmp_path / "d"), "--trust-software-root", str(tmp_path / "none.pem"), expect=64
    )
    assert "none.pem: No such file or directory" in said
    assert "ostiary platform serve" in said


def test_a_root_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("not a certificate")
    said = ostiary(
        "serve", "--data", str(tmp_path / "d"), "--trust-software-root", str(tmp_path / "root.pem"), expect=64
    )
    assert "certificate" in said


@pytest.mark.parametrize("option", ["--trust-tpm-ak", "--trust-tpm-root"])
def test_what_is_to_vouch_for_tpms_must_be_there_and_readable(tmp_path: Path, option: str) -> None:
    for content, says in ((None, "No such file or directory"), ("text", "give")):
        if content is not None:
            (tmp_path / "ak.pem").write_text(content)
        said = ostiary("serve", "--data", str(tmp_path / "d"), option, str(tmp_path / "ak.pem"), expect=64)
        assert says in said


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = ostiary("serve", "--data", str(tmp_path / "d"), "--client", address, expect=64)
    assert f"cannot listen on {address}" in said


def test_measure_prints_only_the_measurement() -> None:
    measurement = ostiary("measure", "--", "/bin/true")
    assert len(bytes.fromhex(measurement.strip())) == 32
    assert measurement == ostiary("measure", "--", "true")
    assert measurement != ostiary("measure", "--", "/bin/false")
    assert measurement != ostiary("measure")


def test_measure_as_json_says_what_was_measured(tmp_path: Path) -> None:
    members = json.loads(ostiary("measure", "--json", "--platform", str(tmp_path / "p"), "--", "/bin/true"))
    assert members["mrenclave"] == ostiary("measure", "--", "/bin/true").strip()
    assert len(bytes.fromhex(members["mrsigner"])) == 32
    assert members["isvprodid"] == 1
    assert members["measured"]["program"]["files"] == []


def test_platform_init_prints_the_root_and_keeps_it(tmp_path: Path) -> None:
    printed = ostiary("platform", "init", "--dir", str(tmp_path / "p")).strip()
    root = Path(printed).read_bytes()
    assert ostiary("platform", "init", "--dir", str(tmp_path / "p")).strip() == printed
    assert Path(printed).read_bytes() == root
    assert root.startswith(b"-----BEGIN CERTIFICATE-----")
