"""`scone session …` against a running service, as transcripts: stdout, stderr, exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.simulators.commands import Scone
from tests.simulators.processes import serve_process
from tests.simulators.service import RunningService

from ostiary.cli.identity import key_hash, make_identity
from ostiary.session.schema import schema

UNVERIFIED = "--only_for_testing-disable-attestation-verification"
HASH = re.compile(r"[0-9a-f]{64}\n")

SESSION = """\
version: "0.3.10"
name: {name}
predecessor: $PREDECESSOR
services:
  - name: app
    command: $COMMAND
    attestation:
      - mrenclave: [{mrenclave}]
security:
  attestation:
    tolerate: [debug-mode]
    ignore_advisories: "*"
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the session of one test; the service is shared."""
    return re.sub(r"[^a-z0-9]", "-", request.node.name)


def template(scone: Scone, name: str, *, mrenclave: str = "ab" * 32, file: str = "s.yml") -> str:
    return scone.write(file, SESSION.format(name=name, mrenclave=mrenclave))


VARIABLES = ("-e", "PREDECESSOR=~", "-e", "COMMAND=echo hi")


def test_create_prints_the_hash_alone_and_read_verify_and_calculate_agree(scone: Scone, name: str) -> None:
    file = template(scone, name)
    digest = scone.good("session", "create", *VARIABLES, file)
    assert HASH.fullmatch(digest)
    assert scone.good("session", "calculate-hash", *VARIABLES, file, "--with-self-as-creator", "tls") == digest
    assert scone.good("session", "verify", *VARIABLES, file) == digest
    read = scone.write("read.yml", scone.good("session", "read", name))
    assert scone.good("session", "calculate-hash", read) == digest
    assert scone.good("session", "verify", read) == digest


def test_what_read_prints_survives_the_editing_scripts_of_the_documentation(scone: Scone, name: str) -> None:
    digest = scone.good("session", "create", *VARIABLES, template(scone, name)).strip()
    read = scone.good("session", "read", name)
    lines = read.split("\n")
    assert "predecessor: null" in lines
    assert [line for line in lines if line.startswith("creator: ")] == [lines[-2]]
    subprocess.run(
        ["sed", "-i", f"s/predecessor:.*/predecessor: {digest} /; s/creator: .*/ /", scone.write("r.yml", read)],
        check=True,
        cwd=scone.directory,
    )
    second = scone.good("session", "create", "r.yml").strip()
    assert second != digest
    assert YAML(typ="safe").load(scone.good("session", "read", name))["predecessor"] == digest
    assert scone.good("session", "read", name, "--session-hash", digest) == read


def test_update_puts_the_predecessor_in(scone: Scone, name: str) -> None:
    file = template(scone, name)
    missing = scone("session", "update", *VARIABLES, file)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("Error: Updating the session failed\nCaused by: CAS 127.0.0.1:")
    assert f"Caused by: Failed to read session '{name}'\nCaused by: Session not found\n" in missing.err
    first = scone.good("session", "create", *VARIABLES, file).strip()
    second = scone.good("session", "update", "-e", "PREDECESSOR=~", "-e", "COMMAND=echo ho", file).strip()
    text = scone.good("session", "read", name)
    assert (YAML(typ="safe").load(text)["predecessor"], "echo ho" in text) == (first, True)
    third = scone.good("session", "update", "-e", f"PREDECESSOR={second}", "-e", "COMMAND=echo ha", file)
    assert HASH.fullmatch(third)


def test_a_document_with_its_own_creator_may_be_uploaded_as_an_update(scone: Scone, name: str) -> None:
    scone.good("session", "create", *VARIABLES, template(scone, name))
    read = scone.write("read.yml", scone.good("session", "read", name).replace("echo hi", "echo ho"))
    assert HASH.fullmatch(scone.good("session", "update", read))


def test_create_of_a_session_that_exists_is_refused_in_the_words_of_the_cas(scone: Scone, name: str) -> None:
    file = template(scone, name)
    scone.good("session", "create", *VARIABLES, file)
    shown = scone("session", "create", *VARIABLES, file)
    assert (shown.code, shown.out) == (1, "")
    assert "Caused by: Session already exists, please specify predecessor hash\n" in shown.err
    stale = scone("session", "create", "-e", f"PREDECESSOR={'0' * 64}", "-e", "COMMAND=x", file)
    assert (stale.code, stale.out) == (1, "")
    assert "is not the hash of the current version" in stale.err


def test_read_of_an_unknown_session_ends_with_2_and_nothing_else_does(scone: Scone, name: str) -> None:
    shown = scone("session", "read", name)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.endswith(f"Caused by: Failed to read session '{name}'\nCaused by: Session not found\n")
    assert scone("session", "read", f"/{name}").code == 2
    assert scone("session", "verify", *VARIABLES, template(scone, name)).code == 1


def test_read_by_another_key_is_refused(scone: Scone, name: str) -> None:
    scone.good("session", "create", *VARIABLES, template(scone, name))
    other = scone.write("other.pem", make_identity())
    shown = scone("session", "read", "--identity", other, name)
    assert (shown.code, shown.out) == (1, "")
    assert f"You have insufficient rights to access session {name}" in shown.err
    updated = scone("session", "update", "--identity", other, *VARIABLES, template(scone, name))
    assert updated.code == 1
    assert "insufficient rights" in updated.err


def test_verify_says_what_differs(scone: Scone, name: str) -> None:
    scone.good("session", "create", *VARIABLES, template(scone, name))
    other = template(scone, name, mrenclave="cd" * 32)
    shown = scone("session", "verify", *VARIABLES, other)
    assert (shown.code, shown.out) == (1, "")
    assert "is another, with hash" in shown.err
    assert f"Caused by: wider: adds 1 measurement to service app: {'ab' * 32}\n" in shown.err
    assert f"Caused by: narrower: removes 1 measurement from service app: {'cd' * 32}\n" in shown.err


def test_verify_takes_what_the_file_does_not_say_from_the_cas_and_says_so(scone: Scone, name: str) -> None:
    file = template(scone, name)
    first = scone.good("session", "create", *VARIABLES, file).strip()
    second = scone.good("session", "update", *VARIABLES, file)
    shown = scone("session", "verify", *VARIABLES, file)
    assert (shown.code, shown.out) == (0, second)
    assert f"Note: the file does not say it, and the CAS does: predecessor {first}\n" in shown.err
    own = scone.good("self", "show-key-hash").strip()
    assert f"Note: the file does not say it, and the CAS does: creator key {own}\n" in shown.err


def test_warnings_are_told_once_and_fail_before_anything_is_sent_if_asked(scone: Scone, name: str) -> None:
    file = template(scone, name)
    scone.write(file, (scone.directory / file).read_text().replace("command:", "image_name: none\n    command:"))
    failed = scone("session", "create", "--fail-on-warning", *VARIABLES, file)
    assert (failed.code, failed.out) == (1, "")
    assert "--fail-on-warning" in failed.err
    assert scone("session", "read", name).code == 2
    shown = scone("session", "create", *VARIABLES, file)
    assert (shown.code, HASH.fullmatch(shown.out) is not None) == (0, True)
    assert re.fullmatch(r"Warning: s\.yml: line 6 column 17: services\[0\]\.image_name: .*\n", shown.err)


def test_the_chain_pins_the_server(scone: Scone, service: RunningService, name: str) -> None:
    config = json.loads((scone.directory / "config.json").read_text())
    identity = make_identity()
    config["cas_db"]["cas"]["chain"] = identity[identity.index("-----BEGIN CERTIFICATE") :]
    (scone.directory / "config.json").write_text(json.dumps(config))
    shown = scone("session", "read", name)
    assert (shown.code, shown.out) == (1, "")
    assert "is not the CAS that was asked for" in shown.err
    assert scone("session", "read", "--cas-ca", str(service.ca_file), name).code == 2
    unverified = scone("session", "read", UNVERIFIED, name)
    assert unverified.code == 2
    assert unverified.err.startswith(f"Warning: CAS 127.0.0.1:{service.client_port} is not authenticated")


def test_a_cas_that_was_not_attested_needs_a_certificate(scone: Scone, service: RunningService, name: str) -> None:
    """`localhost` is another address than that of the entry."""
    address = f"localhost:{service.client_port}"
    shown = scone("session", "read", "--cas", address, name)
    assert (shown.code, shown.out) == (1, "")
    assert "was not attested" in shown.err
    assert "--cas-ca FILE" in shown.err
    assert UNVERIFIED in shown.err
    assert scone("session", "read", "--cas", address, "--cas-ca", str(service.ca_file), name).code == 2
    assert scone("session", "read", "--cas", f"https://127.0.0.1:{service.client_port}", name).code == 2
    assert scone("session", "read", UNVERIFIED, f"--cas-ca={service.ca_file}", name).code == 64


def test_the_cas_key_must_match_whatever_else_is_known(scone: Scone, service: RunningService, name: str) -> None:
    right = key_hash(service.ca_file.read_text())
    assert scone("session", "read", "--cas-key", right, name).code == 2
    wrong = scone("session", "read", "--cas-key", key_hash(make_identity()), name)
    assert (wrong.code, "another key than --cas-key says" in wrong.err) == (1, True)
    assert scone("session", "read", "--cas-key", "abc", name).code == 64
    assert scone("session", "read", UNVERIFIED, "--cas-key", right, name).code == 64


def test_with_a_cas_key_no_other_certificate_of_the_file_vouches(
    scone: Scone, service: RunningService, name: str, tmp_path: Path
) -> None:
    other = make_identity()
    certificate = other[other.index("-----BEGIN CERTIFICATE") :]
    both = tmp_path / "both.pem"
    both.write_text(certificate + service.ca_file.read_text())
    options = ("session", "read", "--cas", f"127.0.0.1:{service.client_port}", "--cas-ca", str(both))
    assert scone(*options, name).code == 2, "each of them is an anchor"
    shown = scone(*options, "--cas-key", key_hash(other), name)
    assert (shown.code, "is not the CAS that was asked for" in shown.err) == (1, True)


def test_diff_reads_versions_from_the_cas(scone: Scone, name: str) -> None:
    file = template(scone, name)
    first = scone.good("session", "create", *VARIABLES, file).strip()
    wider = scone.write("w.yml", (scone.directory / file).read_text() + "access_policy: {read: ANY}\n")
    scone("session", "update", *VARIABLES, wider)
    meaning = "wider: widens read from CREATOR to ANY\n"
    shown = scone("session", "diff", f"{name}@{first}", name)
    assert (shown.code, shown.out, shown.err) == (1, meaning, "")
    assert scone("session", "diff", *VARIABLES, file, name).out == meaning
    assert scone("session", "diff", *VARIABLES, wider, name).code == 0
    unknown = scone("session", "diff", name, "nowhere.yml")
    assert (unknown.code, "'nowhere.yml' is neither a file nor a session" in unknown.err) == (1, True)
    assert scone("session", "diff", name, f"{name}@12").code == 64


def test_the_session_from_the_processes_of_a_newcomer(tmp_path: Path) -> None:
    """`ostiary serve` and the commands as programs of their own, with nothing but the file that the service wrote."""
    (tmp_path / "s.yml").write_text(SESSION.format(name="hello", mrenclave="ab" * 32))
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path),
                   "PREDECESSOR": "~", "COMMAND": "echo hi"}  # fmt: skip
    with serve_process(tmp_path / "data") as served:
        options = ("--cas", served["client"], "--cas-ca", served["ca"], "--use-env")
        for program in (
            (sys.executable, "-m", "ostiary"),
            (sys.executable, "-c", "from ostiary.cli.scone import main; main()"),
        ):
            command = "create" if program[1] == "-m" else "verify"
            done = subprocess.run(
                [*program, "session", command, *options, "s.yml"],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
            assert HASH.fullmatch(done.stdout)
    assert (tmp_path / ".cas" / "config.json").stat().st_mode & 0o777 == 0o600


def test_the_root_session_is_read_by_its_name(scone: Scone) -> None:
    assert "name: /" in scone.good("session", "read", "/")


def test_the_printed_schema_is_the_one_that_the_parser_s_tables_give(scone: Scone) -> None:
    assert json.loads(scone.good("session", "schema")) == schema()
    assert scone("session", "schema", "x").code == 64
