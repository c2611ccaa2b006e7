"""Signing and encrypting on the command line, up to a running service, with openssl as the one who signs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulators.commands import Scone
from tests.simulators.service import RunningService

SESSION = """\
version: "0.3.12"
name: {name}
predecessor: $PREDECESSOR
access_policy:
  read: NONE
  update: {update}
"""
SALT = "salt: 000102030405060708090a0b0c0d0e0f\n"
FIRST = ("-e", "PREDECESSOR=~")
UNVERIFIED = "--only_for_testing-disable-attestation-verification"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the session of one test; the service is shared."""
    return re.sub(r"[^a-z0-9]", "-", request.node.name)


def template(scone: Scone, name: str, update: str = "CREATOR", more: str = "") -> str:
    return scone.write("s.yml", SESSION.format(name=name, update=update) + more)


def shell(directory: Path, line: str) -> str:
    """A line as the documentation has it, with `scone` and openssl as programs of their own."""
    scone = shlex.join([sys.executable, "-c", "from ostiary.cli.scone import main; main()"])
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "HOME": str(directory),
        "SCONE_CLI_CONFIG": str(directory / "config.json"),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("scone ", f"{scone} ")],
        cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


ALGORITHMS = {
    "p-384": ("EC -pkeyopt ec_paramgen_curve:P-384", "openssl dgst -sha384 -sign key.pem"),
    # openssl signs with Ed25519 only what it can see whole.
    "ed25519": ("ed25519", "cat > message && openssl pkeyutl -sign -rawin -inkey key.pem -in message"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_documented_pipeline_with_openssl_makes_a_session_that_the_service_takes(
    scone: Scone, name: str, algorithm: str
) -> None:
    generate, sign = ALGORITHMS[algorithm]
    file = template(scone, name)
    shell(scone.directory, f"openssl genpkey -algorithm {generate} -out key.pem 2>/dev/null")
    shell(scone.directory, "openssl pkey -in key.pem -pubout -out pub.pem")
    signed = shell(
        scone.directory,
        f"scone session sign -e 'PREDECESSOR=~' {file} generate-message-to-be-signed pub.pem | ({sign}) | "
        f"scone session sign -e 'PREDECESSOR=~' {file} add-signature pub.pem",
    )
    scone.write("signed.json", signed)
    digest = scone.good("session", "create", "signed.json")
    assert digest == scone.good("session", "calculate-hash", "signed.json")
    # The very key also signs through us, and the version that follows is its.
    second = scone.good("session", "sign", "-e", f"PREDECESSOR={digest.strip()}", file, "--key", "key.pem")
    assert scone.good("session", "update", scone.write("second.json", second)) != digest


def test_sessions_are_signed_created_and_updated_by_our_own_key_over_any_connection(scone: Scone, name: str) -> None:
    file = template(scone, name)
    first = scone.good("session", "create", scone.write("1.json", scone.good("session", "sign", *FIRST, file)))
    again = scone("session", "create", "1.json")
    assert (again.code, "Session already exists" in again.err) == (1, True)
    unnamed = scone("session", "update", "1.json")
    assert (unnamed.code, unnamed.out) == (1, "")
    assert "1.json is signed and names no predecessor, and cannot change any more" in unnamed.err
    second = scone.good("session", "sign", "-e", f"PREDECESSOR={first.strip()}", file)
    assert scone.good("session", "update", scone.write("2.json", second)) == scone.good(
        "session", "calculate-hash", "2.json"
    )
    # The same person with the TLS key is somebody else.
    plain = scone("session", "create", "-e", f"PREDECESSOR={'0' * 64}", file)
    assert (plain.code, plain.out) == (1, "")


def test_f209_signatures_are_collected_one_after_the_other(scone: Scone, name: str) -> None:
    """F209: two of three."""
    signers = []
    for number in range(3):
        shell(scone.directory, f"openssl genpkey -algorithm ed25519 -out {number}.pem")
        pem = shell(scone.directory, f"openssl pkey -in {number}.pem -pubout")
        signers.append(f"{{signer: {json.dumps(pem)}}}")
    file = template(scone, name, update=f"{{require-at-least-2: [{', '.join(signers)}]}}")
    scone.write("1.json", scone.good("session", "sign", *FIRST, file, "--key", "0.pem"))
    first = scone.good("session", "create", "1.json").strip()
    one = scone.good("session", "sign", "-e", f"PREDECESSOR={first}", file, "--key", "2.pem")
    refused = scone("session", "update", scone.write("one.json", one))
    assert (refused.code, refused.out) == (1, "")
    assert "its access policy is not satisfied for 'update' by the signatures of" in refused.err
    two = scone.good("session", "sign", "one.json", "--key", "1.pem")
    assert len(scone.good("session", "update", scone.write("two.json", two)).strip()) == 64


def test_f210_a_session_is_encrypted_for_the_cas_and_created(scone: Scone, service: RunningService, name: str) -> None:
    """F210: the key comes from the CAS that is known by its certificate, or from the command line."""
    key = scone.good("cas", "show-identification", "--session-encryption-key").strip()
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    file = template(scone, name)
    printed = scone.good("session", "encrypt", *FIRST, file)
    assert json.loads(printed)["encryption_key"] == key
    first = scone.good("session", "create", scone.write("e.json", printed))
    assert first == scone.good(
        "session", "calculate-hash", scone.write("s.json", scone.good("session", "sign", *FIRST, file))
    )
    second = scone.good("session", "encrypt", "-e", f"PREDECESSOR={first.strip()}", file, "--key", key)
    assert scone.good("session", "update", scone.write("e2.json", second)) != first
    by_address = ("cas", "show-identification", f"localhost:{service.client_port}", "--session-encryption-key")
    assert scone.good(*by_address, "--cas-ca", str(service.ca_file)).strip() == key
    assert scone(*by_address).code == 1, "nothing says who answers there"
    assert scone(*by_address, UNVERIFIED).err.startswith("Warning: CAS localhost:")


def test_f210_a_session_that_was_encrypted_for_another_cas_is_refused_with_help(scone: Scone, name: str) -> None:
    """F210."""
    other = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    printed = scone.good("session", "encrypt", *FIRST, template(scone, name), "--key", other)
    shown = scone("session", "create", scone.write("e.json", printed))
    assert (shown.code, shown.out) == (1, "")
    assert f"the session is encrypted for {other}, and the key of this service is " in shown.err
    assert "or upload it signed and not encrypted" in shown.err


def test_f036_the_hash_of_a_salted_session_that_nobody_reads_is_read(scone: Scone, name: str) -> None:
    """F036: this is how the signers of a session with `read: NONE` learn what the next version must name."""
    file = template(scone, name, more=SALT)
    digest = scone.good("session", "create", scone.write("1.json", scone.good("session", "sign", *FIRST, file)))
    assert scone.good("session", "read-hash", name) == digest
    assert scone("session", "read", name).code == 1
    plain = template(scone, f"{name}-plain")
    scone.good("session", "create", scone.write("2.json", scone.good("session", "sign", *FIRST, plain)))
    shown = scone("session", "read-hash", f"{name}-plain")
    assert (shown.code, shown.out) == (1, "")
    assert f"You have insufficient rights to access session {name}-plain" in shown.err
    assert scone("session", "read-hash", "there-is-none").code == 1


def test_the_sessions_of_a_namespace_are_listed_one_a_line(scone: Scone, name: str) -> None:
    for part in (name, f"{name}/b", f"{name}/a"):
        scone.good("session", "create", scone.write("s.yml", f'version: "0.3.12"\nname: {part}\n'))
    assert scone("session", "list", name).out == f"{name}/a\n{name}/b\n"
    assert name in scone("session", "list").out.splitlines()
    assert scone("session", "list", f"{name}/a").out == ""
    shown = scone("session", "list", "there-is-none")
    assert (shown.code, shown.out) == (1, "")
    assert "Session not found" in shown.err


def test_verify_and_diff_take_signed_sessions(scone: Scone, name: str) -> None:
    file = scone.write("s.yml", SESSION.format(name=name, update="CREATOR").replace("read: NONE", "read: ANY"))
    scone.write("1.json", scone.good("session", "sign", *FIRST, file))
    digest = scone.good("session", "create", "1.json")
    assert scone.good("session", "verify", "1.json") == digest
    assert scone.good("session", "diff", "1.json", name) == ""
    read = scone.write("read.yml", scone.good("session", "read", name))
    assert scone.good("session", "calculate-hash", read) == digest
    assert scone.good("session", "verify", read) == digest
