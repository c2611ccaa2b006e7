"""Commands that talk to nobody, as transcripts, and what the program does around every command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulators.commands import Scone

from ostiary import __version__
from ostiary.cli import scone as module
from ostiary.cli.arguments import Outcome
from ostiary.cli.identity import key_hash, make_identity

SESSION = """\
version: "0.3.10"   # the language
name: $NAME
services:
  - name: app
    command: "run $WHAT"
    pwd: /
    attestation: [{mrenclave: [%s]}]
access_policy: {read: [ANY], update: [3s1pm8W6Be6cxvAQRbRP5YXd9YuERAr7KswN97uGtoPkRW87x1]}
""" % ("ab" * 32)  # fmt: skip


@pytest.fixture
def file(scone: Scone) -> str:
    return scone.write("s.yml", SESSION)


def test_check_prints_the_session_with_its_variables_replaced_and_nothing_else(scone: Scone, file: str) -> None:
    printed = scone.good("session", "check", "-e", "NAME=x", file, "-e", "WHAT=a: b")
    assert printed == SESSION.replace("$NAME", "x").replace("$WHAT", "a: b")


def test_variables_come_from_the_environment_only_if_asked_and_after_e(
    scone: Scone, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAME", "from-environment")
    monkeypatch.setenv("WHAT", "environment")
    shown = scone("session", "check", "-e", "WHAT=option", file)
    assert (shown.code, shown.out) == (1, "")
    assert shown.err == (
        "Error: Checking the session failed\n"
        "Caused by: Parsing session from session template file 's.yml' failed\n"
        "Caused by: name: Value for variable $NAME is missing at line 2 column 7\n"
    )
    printed = scone.good("session", "check", "--use-env", "-e", "WHAT=option", file)
    assert "name: from-environment\n" in printed
    assert "run option" in printed


def test_the_name_is_replaced_after_the_variables(scone: Scone, file: str) -> None:
    """So a variable that is missing in it is missing, whatever `--name` says."""
    assert scone("session", "check", "-n", "new", "-e", "WHAT=w", file).code == 1
    assert "name: new\n" in scone.good("session", "check", "-n", "new", "-e", "WHAT=w", "-e", "NAME=x", file)


@pytest.mark.parametrize(("text", "says"), [
    ("name: a\nservice: []\n", "line 2 column 1: service: unknown key"),
    ("name: a b\n", "line 1 column 7: name: found"),
    ("name: [\n", "not YAML"),
    ("", "the document is empty"),
    ('{"session": "x", "signatures": []}', "signed session file 's.yml' failed\nCaused by: signatures must"),
    ('{"encrypted_session": "x", "encryption_key": "y"}', "Caused by: encrypted_session is not base64"),
    ('{"name": "x", ', "not YAML"),
])  # fmt: skip
def test_what_is_no_session_is_refused_with_its_place(scone: Scone, text: str, says: str) -> None:
    shown = scone("session", "check", scone.write("s.yml", text))
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("Error: Checking the session failed\nCaused by: ")
    assert says in shown.err


def test_a_file_that_cannot_be_read_is_refused(scone: Scone) -> None:
    (scone.directory / "binary.yml").write_bytes(b"name: \xff")
    (scone.directory / "large.yml").write_bytes(b"name: x\n" + b"#" * 1024 * 1024)
    for name, says in {
        "missing.yml": "No such file or directory",
        ".": "Is a directory",
        "binary.yml": "byte 0xff at offset 6 is not UTF-8",
        "large.yml": "at most 1048576 are allowed",
    }.items():
        shown = scone("session", "check", name)
        assert (shown.code, shown.out) == (1, "")
        assert says in shown.err


def test_notes_are_for_people(scone: Scone) -> None:
    text = SESSION.replace("$NAME", "x").replace("$WHAT", "it").replace("    pwd: /\n", "")
    shown = scone("session", "check", scone.write("n.yml", text))
    assert (shown.code, shown.out) == (0, text)
    assert shown.err.startswith("Note: n.yml: line 4 column 5: services[0].pwd: ")


def test_calculate_hash_depends_on_meaning_alone(scone: Scone, file: str) -> None:
    variables = ("-e", "NAME=x", "-e", "WHAT=w")
    printed = scone.good("session", "calculate-hash", *variables, file)
    assert len(bytes.fromhex(printed)) == 32
    other = scone.write("o.yml", SESSION.replace("  # the language", "").replace('"run $WHAT"', "run w"))
    assert scone.good("session", "calculate-hash", "-e", "NAME=x", other) == printed
    assert scone.good("session", "calculate-hash", *variables, "-n", "y", file) != printed


def test_the_hash_of_a_session_that_names_creator_needs_one(scone: Scone) -> None:
    file = scone.write("c.yml", "version: '0.3'\nname: c\n")
    shown = scone("session", "calculate-hash", file)
    assert (shown.code, shown.out) == (1, "")
    assert "names CREATOR, explicitly or by default" in shown.err
    assert "--with-self-as-creator" in shown.err
    own = scone.good("session", "calculate-hash", file, "--with-self-as-creator", "tls")
    certificate = json.dumps(scone.good("self", "show-certificate"))
    normal = (
        '{"version":"0.3","name":"c","predecessor":null,"access_policy":{"read":["CREATOR"],"update":["CREATOR"]},'
        '"creator":'
    )
    assert own.strip() == hashlib.sha256(f"{normal}{certificate}}}".encode()).hexdigest()
    signer = json.dumps(scone.good("self", "show-session-signing-key"))
    assert scone.good("session", "calculate-hash", file, "--with-self-as-creator", "signer").strip() == (
        hashlib.sha256(f'{normal}{{"signer":{signer}}}}}'.encode()).hexdigest()
    )


def test_for_the_hash_a_certificate_alone_is_identity_enough(scone: Scone) -> None:
    file = scone.write("c.yml", "version: '0.3'\nname: c\n")
    identity = make_identity()
    options = ("--with-self-as-creator", "tls", "--identity")
    whole = scone.good("session", "calculate-hash", file, *options, scone.write("i.pem", identity))
    alone = scone.write("c.pem", identity[identity.index("-----BEGIN CERTIFICATE") :])
    assert scone.good("session", "calculate-hash", file, *options, alone) == whole
    assert scone("session", "calculate-hash", file, *options, "missing.pem").code == 1
    # To talk to a CAS it does not do.
    shown = scone("session", "read", "x", "--cas", "x", "--cas-ca", alone, "--identity", alone)
    assert (shown.code, "expected the PEM blocks" in shown.err) == (1, True)


def test_diff_of_files_says_what_the_change_means(scone: Scone) -> None:
    text = SESSION.replace("$NAME", "x").replace("$WHAT", "it")
    first = scone.write("a.yml", text)
    second = scone.write("b.yml", text.replace("[ANY]", "[NONE]").replace("run it", "run that"))
    shown = scone("session", "diff", first, second)
    assert (shown.code, shown.err) == (1, "")
    assert shown.out == (
        'changed: changes the command of service app: "run it" becomes "run that"\n'
        "narrower: narrows read from ANY to NONE\n"
    )
    found = json.loads(scone("session", "diff", "--json", first, second).out)
    assert found[1] == {"effect": "narrower", "path": "access_policy.read", "meaning": "narrows read from ANY to NONE"}
    assert scone.good("session", "diff", first, first) == ""
    assert json.loads(scone.good("session", "diff", "--json", first, first)) == []
    assert scone("session", "diff", first).code == 64
    mistyped = scone("session", "diff", first, "c.yml")
    assert mistyped.code == 1
    assert "'c.yml' is no file, so it would be a session on a CAS\nCaused by: no CAS is named" in mistyped.err
    wrong = (first, "c.yml", "--cas", "a", "--retries", "x", "--only_for_testing-disable-attestation-verification")
    assert scone("session", "diff", *wrong).code == 64


def test_self_shows_the_identity_in_all_its_forms(scone: Scone) -> None:
    certificate = scone.good("self", "show-certificate")
    hashed = scone.good("self", "show-key-hash")
    assert hashed == f"{key_hash(certificate)}\n"
    assert scone.good("cert", "show-key-hash", scone.write("my.pem", certificate)) == hashed
    assert scone.good("self", "show-certificate-hash") == f"{hashlib.sha256(certificate.encode()).hexdigest()}\n"
    signing = scone.good("self", "show-session-signing-key")
    assert scone.good("self", "show") == (f"{certificate}\nKey hash: {hashed}Session signing public key:\n{signing}")


def test_a_file_that_others_may_read_is_warned_of_once(scone: Scone) -> None:
    scone.good("self", "show")
    (scone.directory / "cas" / "config.json").chmod(0o644)
    shown = scone("self", "show")
    assert (shown.code, shown.err.count("Warning: others may read")) == (0, 1)


def test_scripts_extract_the_identity_for_curl(scone: Scone) -> None:
    certificate = scone.good("self", "show-certificate")
    script = """printf '%b' "$(jq .identity "$SCONE_CLI_CONFIG" | tr -d '"')" > identity.pem"""
    subprocess.run(["sh", "-c", script], check=True, cwd=scone.directory)
    text = (scone.directory / "identity.pem").read_text()
    assert text.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert text.strip().endswith(certificate.strip())


def test_cas_commands_show_and_choose_what_the_configuration_knows(scone: Scone) -> None:
    scone.write("c.json", json.dumps({
        "default_cas": "one", "cas_db": {"one": {"url": "https://one:8081/", "chain": "CHAIN"},
                                         "two:1": {"url": "https://two:1/", "chain": ""}},
    }))  # fmt: skip
    (scone.directory / "c.json").chmod(0o600)
    config = ("-c", "c.json")
    assert scone.good(*config, "cas", "list") == "* one: https://one:8081/\n  two:1: https://two:1/\n"
    assert scone.good(*config, "cas", "show-certificate") == "CHAIN\n"
    assert scone.good(*config, "cas", "show-certificate", "https://one") == "CHAIN\n"
    assert "no certificate" in scone(*config, "cas", "show-certificate", "two:1").err
    assert "'three' is not known" in scone(*config, "cas", "show-certificate", "three").err
    assert scone.good(*config, "cas", "set-default", "two:1") == ""
    assert scone.good(*config, "cas", "list").startswith("  one: ")
    assert scone(*config, "cas", "set-default", "three").code == 1
    assert scone.good("cas", "list") == ""
    assert "there is no default CAS" in scone("cas", "show-certificate").err


def test_attest_is_refused_with_the_ways_there_are(scone: Scone) -> None:
    shown = scone("cas", "attest", "-GCS", "cas.example.com", "--only_for_testing-debug")
    assert (shown.code, shown.out) == (1, "")
    assert "--cas-ca FILE" in shown.err
    assert "--only_for_testing-disable-attestation-verification" in shown.err


@pytest.mark.parametrize(("words", "says"), [
    (("read", "x"), "no CAS is named"),
    (("read", "x", "--cas", "a b"), "is no address of a CAS"),
    (("read", "x", "--cas", "x", "--cas-ca", "missing.pem"), "--cas-ca missing.pem: No such file"),
    (("read", "x", "--cas", "x", "--cas-ca", "binary"), "it is no text in UTF-8"),
    (("read", "x", "--cas", "x", "--cas-ca", "s.yml"), "--cas-ca s.yml: no PEM certificate can be read"),
    (("read", "x", "--cas", "broken"), "the chain of cas_db entry 'broken' is no PEM certificate"),
    (("read", "x", "--cas", "odd:1"), "was not attested"),
])  # fmt: skip
def test_what_does_not_name_a_cas_is_refused(scone: Scone, file: str, words: tuple[str, ...], says: str) -> None:
    (scone.directory / "binary").write_bytes(b"\xff")
    (scone.directory / "cas").mkdir()
    scone.write("cas/config.json", '{"cas_db": {"broken": {"chain": "x"}, "b": {"url": "ftp://x"}}}')
    shown = scone("session", *words)
    assert (shown.code, shown.out) == (1, "")
    assert says in shown.err


def test_retries_come_from_the_option_or_the_environment(scone: Scone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCONE_CLI_RETRIES", "many")
    words = ("session", "read", "x", "--only_for_testing-disable-attestation-verification", "--cas", "127.0.0.1:1")
    shown = scone(*words)
    assert (shown.code, "SCONE_CLI_RETRIES many: expected a number" in shown.err) == (64, True)
    assert "cannot connect to CAS 127.0.0.1:1\nCaused by: Connection refused\n" in scone(*words, "--retries=0").err


def test_o_writes_to_a_file_what_would_go_to_stdout(scone: Scone) -> None:
    assert scone.good("-o", "out", "self", "show-key-hash") == ""
    assert (scone.directory / "out").read_text() == scone.good("self", "show-key-hash")
    shown = scone("-o", "missing/out", "self", "show-key-hash")
    assert (shown.code, shown.out, "-o missing/out: No such file" in shown.err) == (1, "", True)


def test_an_argument_file_is_expanded_before_anything_else(scone: Scone, file: str) -> None:
    scone.write("args", f"check\n-e\nNAME=x\n-eWHAT=a b\n{file}\n")
    assert "run a b" in scone.good("session", "@args")


def test_versions(scone: Scone) -> None:
    assert scone.good("--version") == "scone 7.0.0\n"
    assert scone.good("version") == f"scone 7.0.0\nostiary {__version__}\n"


def test_ostiary_has_the_same_commands(scone: Scone, file: str) -> None:
    shown = scone("session", "check", "-e", "NAME=x", "-e", "WHAT=w", file, program="ostiary")
    assert shown == scone("session", "check", "-e", "NAME=x", "-e", "WHAT=w", file)
    assert "Usage: ostiary session check" in scone("session", "check", "--help", program="ostiary").out
    assert module.claims(["session", "check"])
    assert module.claims(["-c", "x", "--output=y", "self"])
    assert not module.claims(["serve"])
    assert not module.claims(["--version"])
    assert not module.claims([])


def test_an_internal_error_has_its_own_code_and_shows_no_values(
    scone: Scone, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Outcome:
        raise ValueError("hunter2")

    monkeypatch.setattr("ostiary.cli.session.check.load_session", fail)
    shown = scone("session", "check", file)
    assert (shown.code, shown.out) == (70, "")
    assert shown.err.startswith("Error: internal error; please report it\nCaused by: ValueError at ")
    assert "hunter2" not in shown.err


def test_an_interrupt_ends_with_130(scone: Scone, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> Outcome:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal came too late")

    monkeypatch.setattr("ostiary.cli.session.check.load_session", interrupt)
    assert scone("session", "check", file).code == 130


def process(*words: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`scone` as a program of its own."""
    main = "from ostiary.cli.scone import main; main()"
    return subprocess.run(
        [sys.executable, "-c", main, *words],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_configuration_is_found_at_home(tmp_path: Path) -> None:
    done = process("self", "show-key-hash", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".cas" / "config.json").is_file()
    again = process("self", "show-key-hash", home=tmp_path, SCONE_CLI_CONFIG="~/.cas/config.json")
    assert again.stdout == done.stdout
    other = process("self", "show-key-hash", home=tmp_path, SCONE_CLI_CONFIG="~/other.json", SCONE_VERSION="1")
    assert (other.stderr, other.stdout == done.stdout) == (f"ostiary {__version__}\n", False)


def test_scone_hash_prints_what_the_platform_measures_of_this_program(tmp_path: Path) -> None:
    """As `ostiary measure` says of the same file; and does nothing else."""
    script = tmp_path / "scone"
    script.write_text(f"#!{sys.executable}\nfrom ostiary.cli.scone import main\nmain()\n")
    script.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    printed = subprocess.run(
        ["scone", "cas", "nonsense"], env={**environment, "SCONE_HASH": "1"}, check=True, capture_output=True, text=True
    ).stdout
    measured = subprocess.run(
        [sys.executable, "-m", "ostiary", "measure", "--", str(script)],
        env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert printed == measured
    assert not (tmp_path / ".cas").exists()


def test_a_reader_of_stdout_who_has_gone_is_no_disaster(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    main = "from ostiary.cli.scone import main; main()"
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-c", main, "--help"],
            env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
            stdout=gone, stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_help_pages_in_the_documentation_are_those_of_the_program(scone: Scone) -> None:
    documented = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    assert documented.endswith(f"-->\n\n{scone.good('help-markdown')}"), (
        "put the output of `scone help-markdown` at the end of docs/cli.md"
    )
