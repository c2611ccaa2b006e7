"""`session sign`, `encrypt` and what takes their files, without any service, as transcripts."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.simulators.commands import Scone
from tests.simulators.keys import (
    PIN,
    PrivateKey,
    SshAgent,
    ed25519_key,
    p256_key,
    p384_key,
    pem,
    public_pem,
    running_agent,
    spki,
    tokens,
)
from tests.simulators.signers import Person, ed25519_person, p384_person
from tests.unit.session import pki

from ostiary.cli.terminal import Terminal
from ostiary.session import parse_session
from ostiary.session.encrypted import decrypt_session, parse_encrypted_session
from ostiary.session.signed import MAX_SIGNATURES, SignedSession, parse_signed_session, verify_signatures

ANN, BEN = ed25519_person(), p384_person()
SESSION = """\
version: "0.3.10"
name: $NAME
access_policy: {read: ANY}
"""
VARIABLES = ("-e", "NAME=s")
NO_SIGNER = "cannot sign sessions: expected a key of type Ed25519 or P-384, found P-256"
BODY = 'version: "0.3.10"\nname: s\naccess_policy: {read: ANY}\n'


@pytest.fixture
def file(scone: Scone) -> str:
    return scone.write("s.yml", SESSION)


def key_file(scone: Scone, person: Person, name: str = "key.pem") -> str:
    return scone.write(name, pem(person.key))


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def holds(text: str, *people: Person) -> SignedSession:
    """The signed session printed, which must be signed by exactly these."""
    signed = parse_signed_session(text)
    verified = verify_signatures(parse_session(signed.text).hash, signed.signatures)
    assert verified.keys == {person.spki for person in people}
    return signed


def test_our_session_signing_key_signs_and_becomes_the_creator(scone: Scone, file: str) -> None:
    printed = scone.good("session", "sign", *VARIABLES, file)
    own = scone.good("self", "show-session-signing-key")
    signed = parse_signed_session(printed)
    parsed = parse_session(signed.text)
    (signer,) = verify_signatures(parsed.hash, signed.signatures).keys
    assert signed.signatures[0].signer == own
    assert signed.text == parsed.text, "in normal form"
    assert parsed.normal["creator"] == {"signer": own}
    hashed = scone.good("session", "calculate-hash", *VARIABLES, file, "--with-self-as-creator", "signer")
    assert hashed == f"{parsed.hash.hex()}\n"
    assert list(json.loads(printed)) == ["session", "signatures"]
    assert signer.hex() not in printed


def test_the_same_key_in_a_configuration_of_another_cli_signs_the_same(scone: Scone, file: str) -> None:
    assert scone.good("session", "sign", *VARIABLES, file) == scone.good(
        "session", "sign", *VARIABLES, file, "sign-with-cli-identity"
    )


@pytest.mark.parametrize("person", [ANN, BEN], ids=["ed25519", "p-384"])
def test_another_key_signs_in_its_place(scone: Scone, file: str, person: Person) -> None:
    signed = holds(scone.good("session", "sign", *VARIABLES, file, "--key", key_file(scone, person)), person)
    assert parse_session(signed.text).normal["creator"] == {"signer": person.pem}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SshAgent]:
    with running_agent() as running:
        monkeypatch.setenv("SSH_AUTH_SOCK", running.path)
        yield running


@pytest.mark.parametrize("make", [ed25519_key, p384_key])
def test_keys_sign_wherever_board_members_keep_theirs(
    scone: Scone, file: str, agent: SshAgent, make: Callable[[], PrivateKey]
) -> None:
    """Encrypted PEM, an SSH agent, a card: one after the other over the same session, as docs/board.md has them."""
    key, in_agent = make(), make()
    scone.write("key.pem", pem(key, "open sesame"))
    scone.write("pin", "open sesame\n")
    scone.write("card-pin", f"{PIN}\n")
    agent.add(scone.directory, in_agent, "me@laptop")
    label = "alice" if make is ed25519_key else "bob"
    first = scone.good("session", "sign", *VARIABLES, file, "--key", "key.pem", "--pin-file", "pin")
    scone.write("one.json", first)
    scone.write("two.json", scone.good("session", "sign", "one.json", "--key", "ssh:me@laptop"))
    on_card = ("--key", tokens().uri(label), "--pin-file", "card-pin")
    signed = parse_signed_session(scone.good("session", "sign", "two.json", *on_card))
    verified = verify_signatures(parse_session(signed.text).hash, signed.signatures)
    assert verified.keys == {spki(key), spki(in_agent), spki(tokens().keys[label])}
    words = ("one.json", "generate-message-to-be-signed")
    assert message(scone, *words, "--key", "ssh:me@laptop") == message(scone, *words)


def test_nobody_is_asked_for_a_passphrase_of_a_key_for_a_session_that_cannot_be_signed(
    scone: Scone, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(_: Terminal, what: str) -> str:
        asked.append(what)
        return "open sesame"

    monkeypatch.setattr(Terminal, "secret", answer)
    scone.write("key.pem", pem(ed25519_key(), "open sesame"))
    scone.write("bad.yml", "name: 5: 6")
    assert scone("session", "sign", "bad.yml", "--key", "key.pem").code == 1
    assert asked == []
    scone.good("session", "sign", *VARIABLES, file, "--key", "key.pem")
    assert asked == ["Passphrase of key file key.pem"]


def test_a_signed_session_takes_further_signatures_and_does_not_change(scone: Scone, file: str) -> None:
    first = scone.good("session", "sign", *VARIABLES, file, "--key", key_file(scone, ANN))
    scone.write("first.json", first)
    both = scone.good("session", "sign", "first.json", "--key", key_file(scone, BEN))
    assert holds(both, ANN, BEN).text == parse_signed_session(first).text
    again = scone.good("session", "sign", scone.write("both.json", both), "--key", key_file(scone, ANN))
    assert len(holds(again, ANN, BEN).signatures) == 2, "the same key signs once"


def test_a_creator_that_is_there_stays(scone: Scone) -> None:
    file = scone.write("s.yml", f"{BODY}creator: {{signer: {ANN.quoted}}}\n")
    signed = holds(scone.good("session", "sign", file, "--key", key_file(scone, BEN)), BEN)
    assert parse_session(signed.text).normal["creator"] == {"signer": ANN.pem}


def test_a_session_that_does_not_name_its_creator_gets_none(scone: Scone) -> None:
    file = scone.write("s.yml", BODY.replace("ANY", "ANY, update: NONE"))
    assert "creator" not in holds(scone.good("session", "sign", file, "--key", key_file(scone, ANN)), ANN).text


def test_a_session_that_does_not_say_who_reads_is_not_signed(scone: Scone) -> None:
    """F187: found before anybody signs."""
    shown = scone("session", "sign", scone.write("s.yml", "version: '0.3.10'\nname: s\n"))
    assert (shown.code, shown.out) == (1, "")
    assert shown.err == (
        "Error: Signing the session failed\nCaused by: the session cannot be signed with this key as its creator\n"
        "Caused by: access_policy.read: the creator is a signer, who cannot read as CREATOR; set access_policy.read to "
        "somebody else, or NONE\n"
    )


def test_a_certificate_as_creator_is_not_signed(scone: Scone) -> None:
    file = scone.write("s.yml", f"{BODY}creator: {json.dumps(pki.certificate_pem())}\n")
    shown = scone("session", "sign", file)
    assert (shown.code, shown.out) == (1, "")
    assert "creator is a certificate, and the creator of a signed session is one of its signers" in shown.err


def message(scone: Scone, *words: str) -> bytes:
    """What `generate-message-to-be-signed` prints."""
    assert scone.good("-o", "message", "session", "sign", *words) == ""
    return (scone.directory / "message").read_bytes()


@pytest.mark.parametrize("person", [ANN, BEN], ids=["ed25519", "p-384"])
@pytest.mark.parametrize("by_argument", [True, False])
def test_a_signature_from_elsewhere_is_added(
    scone: Scone, file: str, person: Person, by_argument: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scone.write("pub.pem", person.pem)
    data = message(scone, *VARIABLES, file, "generate-message-to-be-signed", "pub.pem")
    assert (len(data), data[:2]) == (34, b"\x00\x01")
    signature = person.sign(data[2:])
    given = [base64.encodebytes(signature).decode()] if by_argument else []
    stdin(monkeypatch, b"" if by_argument else signature)
    signed = holds(scone.good("session", "sign", *VARIABLES, file, "add-signature", "pub.pem", *given), person)
    assert parse_session(signed.text).normal["creator"] == {"signer": person.pem}


def test_without_a_signer_the_message_is_that_of_our_own_key(scone: Scone, file: str) -> None:
    signed = parse_signed_session(scone.good("session", "sign", *VARIABLES, file))
    data = message(scone, *VARIABLES, file, "generate-message-to-be-signed")
    assert data == b"\x00\x01" + parse_session(signed.text).hash
    other = message(scone, *VARIABLES, file, "generate-message-to-be-signed", "--key", key_file(scone, BEN))
    assert other != data


def test_a_signer_key_may_be_in_the_older_form(scone: Scone, file: str) -> None:
    scone.write("old", "LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM\n")
    key = "MCowBQYDK2VwAyEAOsufQ7RCOXueVLQBpk7Y44GAaj+LzPbmHfdr/TPdlrE="
    scone.write("new", f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n")
    messages = {message(scone, *VARIABLES, file, "generate-message-to-be-signed", name) for name in ("old", "new")}
    assert len(messages) == 1


@pytest.mark.parametrize(("given", "code", "says"), [
    ("###", 64, "SIGNATURE: it is neither base64 nor 128 hex digits"),
    (base64.b64encode(ANN.sign(b"h" * 32)).decode(), 1, "signatures[0] does not hold"),
    (base64.b64encode(BEN.sign(parse_session(BODY).hash)).decode(), 1, "signatures[0] does not hold"),
])  # fmt: skip
def test_a_signature_that_does_not_hold_is_not_added(scone: Scone, file: str, given: str, code: int, says: str) -> None:
    scone.write("pub.pem", ANN.pem)
    shown = scone("session", "sign", *VARIABLES, file, "add-signature", "pub.pem", given)
    assert (shown.code, shown.out) == (code, "")
    assert says in shown.err


@pytest.mark.parametrize(("data", "says"), [(b"", "found no signature on stdin"), (b"x" * 200, "found too long a")])
def test_what_is_no_signature_on_stdin_is_told(
    scone: Scone, file: str, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str
) -> None:
    """The signing program of a pipe may have failed."""
    scone.write("pub.pem", ANN.pem)
    stdin(monkeypatch, data)
    shown = scone("session", "sign", *VARIABLES, file, "add-signature", "pub.pem")
    assert (shown.code, shown.out) == (1, "")
    assert says in shown.err


@pytest.mark.parametrize(("words", "content", "says"), [
    (("--key", "k"), "x", "key file k: expected one private key, PEM, and there is none that can be read"),
    (("--key", "k"), pki.pkcs8_pem(pki.private_key("P-256")), f"key file k {NO_SIGNER}"),
    (("generate-message-to-be-signed", "--key", "k"), public_pem(p256_key()), f"the key {NO_SIGNER}"),
    (("--key", "k", "--pin-file", "pin"), pem(p256_key(), "secret"), f"key file k {NO_SIGNER}"),
    (("--key", "k"), ANN.pem, "key file k has a public key, and only a private one signs"),
    (("--key", "absent"), "", "key file absent: No such file or directory"),
    (("--key", "k", "--pin-file", "pin"), pem(p384_key(), "other"), "key file k: the passphrase is wrong"),
    (("--key", "k", "--pin-file", "absent"), pem(p384_key(), "other"), "PIN file absent: No such file"),
    (("--key", "ssh:nobody"), "", "SSH agent key nobody: the agent does not have it"),
    (("--key", "ssh:small"), "", f"SSH agent key small {NO_SIGNER}"),
    (("--key", tokens().uri("carol"), "--pin-file", "absent"), "", f"PKCS#11 key 'carol' on token 'board' {NO_SIGNER}"),
    (("--key", "pkcs11:"), "", "PKCS#11 URI: it names no key"),
    (("generate-message-to-be-signed", "k"), pki.public_pem(pki.private_key("P-256")), "SIGNER k: no public key of a"),
    (("generate-message-to-be-signed", "k"), "nonsense", "SIGNER k: no public key of a signer: "),
])  # fmt: skip
def test_a_key_that_cannot_sign_sessions_is_refused(
    scone: Scone, file: str, agent: SshAgent, words: tuple[str, ...], content: str, says: str
) -> None:
    agent.add(scone.directory, p256_key(), "small")
    scone.write("k", content)
    scone.write("pin", "secret\n")
    shown = scone("session", "sign", *VARIABLES, file, *words)
    assert (shown.code, shown.out) == (1, "")
    assert says in shown.err


def test_the_number_of_signatures_is_bounded(scone: Scone) -> None:
    text = BODY.replace("ANY", "ANY, update: NONE")
    people = [ed25519_person() for _ in range(MAX_SIGNATURES)]
    digest = parse_session(text).hash
    signatures = [{"signer": one.pem, "signature": base64.b64encode(one.sign(digest)).decode()} for one in people]
    file = scone.write("full.json", json.dumps({"session": text, "signatures": signatures}))
    shown = scone("session", "sign", file)
    assert (shown.code, shown.out) == (1, "")
    assert f"the session has {MAX_SIGNATURES} signatures, and more are not allowed" in shown.err


def signed_file(scone: Scone, **members: object) -> str:
    printed = scone.good("session", "sign", *VARIABLES, scone.write("t.yml", SESSION), "--key", key_file(scone, ANN))
    return scone.write("signed.json", json.dumps({**json.loads(printed), **members}))


def test_check_and_calculate_hash_take_signed_sessions_as_they_are(scone: Scone) -> None:
    """No variable is replaced in them, and no --name."""
    signed = signed_file(scone)
    text = json.loads((scone.directory / signed).read_text())["session"]
    assert scone.good("session", "check", signed, "-e", "NAME=other") == text
    assert scone.good("session", "calculate-hash", signed) == f"{parse_session(text).hash.hex()}\n"
    for command in ("check", "sign", "calculate-hash", "create"):
        shown = scone("session", command, signed, "--name", "other")
        assert (shown.code, shown.out) == (64, "")
        assert "--name cannot go with signed.json: it is signed, and cannot change any more" in shown.err


def test_a_signed_session_that_was_changed_is_noticed_by_every_command(scone: Scone) -> None:
    text = BODY + f"creator: {{signer: {ANN.quoted}}}\nservices: []\nsecrets: [{{name: x, kind: ascii}}]\n"
    signed = signed_file(scone, session=text)
    for command in ("check", "sign", "calculate-hash", "create", "encrypt"):
        shown = scone("session", command, signed)
        assert (shown.code, shown.out) == (1, "")
        assert "Caused by: Parsing session from signed session file 'signed.json' failed\n" in shown.err
        assert "Caused by: signatures[0] does not hold" in shown.err


KEY = X25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def test_f210_encrypt_encrypts_a_signed_session_as_it_is(scone: Scone) -> None:
    """F210: signed first, then encrypted."""
    signed = signed_file(scone)
    printed = scone.good("session", "encrypt", "--key", PUBLIC, signed)
    assert json.loads(printed)["encryption_key"] == PUBLIC
    opened = decrypt_session(parse_encrypted_session(printed), KEY)
    assert parse_signed_session(opened) == parse_signed_session((scone.directory / signed).read_text())


def test_f210_encrypt_signs_a_session_that_nobody_signed(scone: Scone, file: str) -> None:
    """F210."""
    printed = scone.good("session", "encrypt", *VARIABLES, file, "--key", PUBLIC)
    opened = decrypt_session(parse_encrypted_session(printed), KEY).decode()
    assert opened == scone.good("session", "sign", *VARIABLES, file)


def test_an_encrypted_session_is_only_good_for_uploading(scone: Scone, file: str) -> None:
    scone.write("e.json", scone.good("session", "encrypt", *VARIABLES, file, "--key", PUBLIC))
    for command in ("check", "sign", "encrypt", "verify", "calculate-hash"):
        shown = scone("session", command, "e.json")
        assert (shown.code, shown.out) == (1, "")
        assert "e.json is an encrypted session, which only the service can read" in shown.err
    named = scone("session", "create", "e.json", "-n", "x")
    assert (named.code, "it is encrypted, and cannot change any more" in named.err) == (64, True)


@pytest.mark.parametrize("force", [False, True])
def test_bytes_are_not_written_to_a_terminal_unless_forced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "s.yml").write_text(BODY.replace("ANY", "ANY, update: NONE"))
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "ostiary", "session", "sign", "s.yml", "generate-message-to-be-signed"]
    done = subprocess.run(
        [*command, *(["-f"] if force else [])], cwd=tmp_path, stdout=child, stderr=subprocess.PIPE, text=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}, check=False, timeout=60,
    )  # fmt: skip
    os.close(child)
    try:
        shown = os.read(parent, 100) if force else b""
    finally:
        os.close(parent)
    assert (done.returncode, shown[:2]) == ((0, b"\x00\x01") if force else (1, b""))
    assert ("stdout would be bytes and not text" in done.stderr) is not force


CHAIN_OPTIONS = ("-c", "-C", "-s", "-S", "-T")


@pytest.fixture
def known(scone: Scone) -> str:
    """A configuration that knows a CAS by its chain: instance, root. The chain."""
    chain = pki.certificate_pem("P-384") + pki.certificate_pem("P-256")
    config = {"default_cas": "cas", "cas_db": {"cas": {"url": "https://cas:8081/", "chain": chain}}}
    (scone.directory / "cas").mkdir()
    (scone.directory / "cas" / "config.json").write_text(json.dumps(config))
    (scone.directory / "cas" / "config.json").chmod(0o600)
    return chain


def test_show_identification_prints_exactly_one_value_of_the_chain(scone: Scone, known: str) -> None:
    software, root = pki.certificate_pem("P-384"), pki.certificate_pem("P-256")
    scone.write("software.pem", software)
    scone.write("root.pem", root)
    printed = {option: scone.good("cas", "show-identification", option) for option in CHAIN_OPTIONS}
    assert printed == {
        "-c": scone.good("cert", "show-key-hash", "root.pem"),
        "-C": root,
        "-s": scone.good("cert", "show-key-hash", "software.pem"),
        "-S": software,
        "-T": known,
    }
    assert scone.good("cas", "show-identification") == scone.good("cas", "show-certificate", "cas") == known


@pytest.mark.parametrize(("chain", "option", "says"), [
    (pki.certificate_pem(), "-s", "has no certificate of the software key of CAS 'cas'"),
    ("nonsense", "-c", "the chain of cas_db entry 'cas' is no PEM certificate"),
    ("", "-c", "the configuration has no certificate of CAS 'cas'"),
])  # fmt: skip
def test_a_value_that_is_not_there_is_a_failure_and_no_empty_line(
    scone: Scone, known: str, chain: str, option: str, says: str
) -> None:
    config = scone.directory / "cas" / "config.json"
    config.write_text(config.read_text().replace(json.dumps(known), json.dumps(chain)))
    shown = scone("cas", "show-identification", option)
    assert (shown.code, shown.out) == (1, "")
    assert says in shown.err
    assert scone("cas", "show-identification", option, "unknown").code == 1
