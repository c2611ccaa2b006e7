"""Every way in which SCONE's documentation calls `session` and `self` commands is understood."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest
from tests.simulators.commands import Scone

from ostiary.cli.arguments import Arguments
from ostiary.cli.client_commands import COMMANDS
from ostiary.cli.scone import run

A = "--only_for_testing-disable-attestation-verification"


def parse(line: str) -> tuple[tuple[str, ...], Arguments]:
    """The command that a line names, and what its arguments say."""
    words: Sequence[str] = shlex.split(line)
    words = words[1:] if words[0] == "cas" and words[1] == "session" else words
    command = next(one for one in COMMANDS if tuple(words[: len(one.words)]) == one.words)
    return command.words, command.parse(words[len(command.words) :])


@pytest.mark.parametrize(("line", "expected"), [
    ("session check s.yml", {"words": ["s.yml"]}),
    ("cas session check s.yml", {"words": ["s.yml"]}),
    ("session check -e NS=a -e PREDECESSOR=~ F", {"words": ["F"], "variables": ["NS=a", "PREDECESSOR=~"]}),
    ("cas session update -e NGINX_MRENCLAVE=m s.yml", {"words": ["s.yml"], "variables": ["NGINX_MRENCLAVE=m"]}),
    ("cas session verify -e NGINX_MRENCLAVE=m s.yml", {"words": ["s.yml"], "variables": ["NGINX_MRENCLAVE=m"]}),
    ("session create s.yml", {"words": ["s.yml"], "cas": None, "use_env": False, "unverified": False}),
    ("session create --cas cas.example2.com s.yml", {"words": ["s.yml"], "cas": "cas.example2.com"}),
    ("session create --cas 127.0.0.1:8081 s.yml", {"words": ["s.yml"], "cas": "127.0.0.1:8081"}),
    ("session create --use-env s.yml", {"words": ["s.yml"], "use_env": True}),
    ("session create --name=n --use-env s.yml", {"words": ["s.yml"], "name": "n", "use_env": True}),
    ('session create -e NS="a b" s.yml', {"words": ["s.yml"], "variables": ["NS=a b"]}),
    ("session create -e SESSION=s -e MRENCLAVE=m s.yml", {"variables": ["SESSION=s", "MRENCLAVE=m"]}),
    (f"session create --cas a {A} --use-env s.yml", {"words": ["s.yml"], "unverified": True, "use_env": True}),
    (f"session create {A} --cas=a --name=n /p/s.yml", {"words": ["/p/s.yml"], "unverified": True, "name": "n"}),
    ("session update s.yml", {"words": ["s.yml"]}),
    ("session update --use-env s.yml", {"words": ["s.yml"], "use_env": True}),
    (f"session update  --cas a  {A} s.yml", {"words": ["s.yml"], "unverified": True, "cas": "a"}),
    ("session read n", {"words": ["n"]}),
    (f"session read  --cas a n  {A}", {"words": ["n"], "cas": "a", "unverified": True}),
    ("session read --cas A --cas-key K --session-hash H /a/b",
     {"words": ["/a/b"], "cas": "A", "cas_key": "K", "session_hash": "H"}),
    ("session verify f.yaml", {"words": ["f.yaml"]}),
    (f"session verify  --cas a -n n  {A} f.yml", {"words": ["f.yml"], "name": "n", "unverified": True}),
    ("session calculate-hash f.yaml", {"words": ["f.yaml"], "with_self_as_creator": None}),
    ("session calculate-hash s.yaml  --with-self-as-creator tls", {"with_self_as_creator": "tls"}),
    ("session create --retries 10 --identity i.pem -c a s.yml", {"retries": "10", "identity": "i.pem", "cas": "a"}),
    ("session sign F --use-env", {"words": ["F"], "use_env": True, "key": None, "force": False}),
    ("session sign s.yml generate-message-to-be-signed pub.pem",
     {"words": ["s.yml", "generate-message-to-be-signed", "pub.pem"]}),
    ("session sign -e A=b s.yml generate-message-to-be-signed -f",
     {"words": ["s.yml", "generate-message-to-be-signed"], "force": True, "variables": ["A=b"]}),
    ("session sign s.yml add-signature pub.pem", {"words": ["s.yml", "add-signature", "pub.pem"]}),
    ("session sign s.yml add-signature pub.pem c2ln", {"words": ["s.yml", "add-signature", "pub.pem", "c2ln"]}),
    ("session sign s.yml sign-with-cli-identity", {"words": ["s.yml", "sign-with-cli-identity"]}),
    ("session encrypt --key abcd F", {"words": ["F"], "key": "abcd"}),
    ("session encrypt F --cas a", {"words": ["F"], "cas": "a", "key": None}),
    ("cas show-identification", {"words": []}),
    ("cas show-identification -c", {"cas_key_hash": True, "cas_software_key_hash": False}),
    ("cas show-identification -s", {"cas_software_key_hash": True}),
    ("cas show-identification --cas-key-hash a:8081", {"words": ["a:8081"], "cas_key_hash": True}),
    ("cas show-identification --session-encryption-key", {"session_encryption_key": True}),
    ("self show", {"words": []}),
    ("self show-certificate", {"words": []}),
    ("self show-certificate-hash", {"words": []}),
    ("self show-key-hash", {"words": []}),
    ("self show-session-signing-key", {"words": []}),
    ("cert show-key-hash my-certificate.pem", {"words": ["my-certificate.pem"]}),
    ("cas list", {"words": []}),
    ("cas set-default a", {"words": ["a"]}),
    ("cas show-certificate", {"words": []}),
    ("cas show-certificate a:8081", {"words": ["a:8081"]}),
])  # fmt: skip
def test_the_documented_invocation_is_understood(line: str, expected: dict[str, object]) -> None:
    _, arguments = parse(line)
    assert {name: getattr(arguments, name) for name in expected} == expected


@pytest.mark.parametrize("line", [
    "--help", "session --help", "session help", "help", "session create --help", "session update -h", "self help",
    "--version", "-V", "version", "help-markdown",
])  # fmt: skip
def test_help_and_version_succeed(scone: Scone, line: str) -> None:
    assert scone.good(*line.split())


@pytest.mark.parametrize(("line", "code", "says"), [
    ("gcc -o x", 64, "Error: scone gcc is not part of Ostiary\n"),
    ("host install", 64, "Error: scone host is not part of Ostiary\n"),
    ("session sign F nonsense", 64, "Error: scone: 'nonsense' is no way to sign; there are sign-with-cli-identity, "),
    ("session sign F sign-with-cli-identity x", 64, "Error: scone: 'x' is one argument too many after sign-with-cli"),
    ("session sign F generate-message-to-be-signed a b", 64, "Error: scone: 'b' is one argument too many after gen"),
    ("session sign F add-signature", 64, "Error: scone: add-signature needs SIGNER, a file with the public key\n"),
    ("session sign F add-signature a --key b", 64, "Error: scone: --key and SIGNER contradict each other"),
    ("session encrypt F --cas a --key b", 64, "Error: scone: --cas and --key contradict each other"),
    ("session encrypt F --key b", 64, "Error: scone: --key: a session encryption key has 64 hex digits, found 'b'\n"),
    ("cas show-identification -cs", 64, "Error: scone: these options each ask for one value; give one of them\n"),
    ("session list a b", 64, "Error: scone: found 2 arguments beside the options, expected [PATH]\n"),
    ("fspf create x", 64, "Error: scone fspf is not part of this version of Ostiary yet\n"),
    ("binaryfs / x", 64, "Error: scone binaryfs is not part of this version of Ostiary yet\n"),
    ("nonsense", 64, "Error: scone: there is no command 'nonsense'\n"),
    ("session nonsense", 64, "Error: scone: there is no command 'session nonsense'\n"),
    ("session", 64, "Error: scone: session needs a command: check, "),
    ("--nonsense session check x", 64, "Error: scone: unrecognized arguments: --nonsense\n"),
    ("-c", 64, "Error: scone: argument -c/--config: expected one argument\n"),
    ("session check", 64, "Error: scone: found 0 arguments beside the options, expected FILE\n"),
    ("session read a --retries x", 64, "Error: scone: --retries x: expected a number from 0 to 1000\n"),
    ("session check -e =1 F", 64, "Error: scone: -e '': expected NAME=VALUE"),
    ("session read a --session-hash 12", 64, "Error: scone: a session hash has 64 hex digits, found '12'\n"),
    ("@missing", 64, "Error: scone: argument file 'missing' cannot be read: No such file or directory\n"),
    ("cas attest -GCS a --only_for_testing-debug", 1, "Error: Attesting the CAS failed\n"),
])  # fmt: skip
def test_what_is_not_understood_is_told_and_has_its_code(scone: Scone, line: str, code: int, says: str) -> None:
    scone.write("F", "version: '0.3'\nname: x\naccess_policy: {read: ANY, update: NONE}\n")
    shown = scone(*([*line.split(), "--cas", "a", A] if line.startswith("session read") else line.split()))
    assert (shown.code, shown.out) == (code, "")
    # The warning about the unauthenticated server may come first.
    assert says in shown.err
    assert shown.err.startswith(("Error: ", "Warning: CAS a:8081 is not authenticated"))


def test_no_command_at_all_shows_the_overview() -> None:
    assert run([], "scone") == 64


@pytest.mark.parametrize(("line", "causes"), [
    ("session check", ["`scone session check --help` says more"]),
    ("session check --nonsense F", ["`scone session check --help` says more"]),
    ("explain --verify F", ["`scone explain --help` says more"]),
    ("session", ["`scone session --help` says more"]),
    ("session chek F", ["did you mean 'session check'?", "`scone --help` says more"]),
    ("sesion check F", ["did you mean 'session'?", "`scone --help` says more"]),
    ("session nonsense", ["`scone --help` says more"]),
    ("-c", ["`scone --help` says more"]),
])  # fmt: skip
def test_wrong_usage_ends_with_the_help_page_of_that_command(scone: Scone, line: str, causes: list[str]) -> None:
    shown = scone(*line.split())
    assert (shown.code, shown.out) == (64, "")
    assert shown.err.splitlines()[1:] == [f"Caused by: {cause}" for cause in causes]
