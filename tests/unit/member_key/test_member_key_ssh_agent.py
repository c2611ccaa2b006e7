"""Keys in a real ssh-agent: what is found, what signs, and what an agent that is none can do to us."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from hypothesis import given
from hypothesis import strategies as st
from tests.simulators.keys import (
    PrivateKey,
    SshAgent,
    ed25519_key,
    p256_key,
    p384_key,
    rsa_key,
    running_agent,
    spki,
)

from ostiary.errors import ConfigurationError, OstiaryError, OutsideError
from ostiary.member_key import choose_key
from ostiary.member_key.ssh_agent import MAX_ANSWER_BYTES, AgentKey, _Reader

MESSAGE = b"ostiary-board-decision-v1\n"
KEYS: dict[str, PrivateKey] = {
    "alice@laptop": ed25519_key(),
    "bob": p384_key(),
    "carol": p256_key(),
    "old": rsa_key(),
}


def nobody(what: str) -> str:
    raise AssertionError(f"nobody should be asked: {what}")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshAgent]:
    directory = tmp_path_factory.mktemp("agent")
    with running_agent() as running:
        for comment, key in KEYS.items():
            running.add(directory, key, comment)
        for _ in range(2):
            running.add(directory, ed25519_key(), "twin")
        yield running


@pytest.mark.parametrize("comment", ["alice@laptop", "bob", "carol"])
@pytest.mark.parametrize("by_fingerprint", [True, False])
def test_the_agent_signs_with_the_key_that_is_named(
    agent: SshAgent, monkeypatch: pytest.MonkeyPatch, comment: str, by_fingerprint: bool
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
    place = choose_key(f"ssh:{agent.fingerprints()[comment] if by_fingerprint else comment}")
    key = KEYS[comment]
    assert place.public() == spki(key)
    with place.unlocked(nobody) as usable:
        assert usable.spki == spki(key)
        signature = usable.sign(MESSAGE)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        key.public_key().verify(signature, MESSAGE)
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        digest = SHA384() if comment == "bob" else SHA256()
        key.public_key().verify(signature, MESSAGE, ec.ECDSA(digest))


@pytest.mark.parametrize(("wanted", "says"), [
    ("nobody", r"the agent does not have it: it has: SHA256:\S+ \(alice@laptop\)"),
    ("old", "RSA keys do not decide"),
    ("twin", "the agent has 2 such keys: name one by its fingerprint: SHA256:"),
    ("alice", "the agent does not have it"),
])  # fmt: skip
def test_a_name_that_is_not_of_exactly_one_key_is_refused(agent: SshAgent, wanted: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        AgentKey(path=agent.path, wanted=wanted).public()


def test_an_agent_without_keys_says_so(tmp_path: Path) -> None:
    with running_agent() as empty, pytest.raises(ConfigurationError, match="it has: none that can decide"):
        AgentKey(path=empty.path, wanted="x").public()


def test_a_key_that_was_taken_away_meanwhile_does_not_sign(tmp_path: Path) -> None:
    with running_agent() as running:
        running.add(tmp_path, KEYS["carol"], "carol")
        with AgentKey(path=running.path, wanted="carol").unlocked(nobody) as usable:
            running.run("ssh-add", "-D")
            with pytest.raises(OutsideError, match="the agent refused to sign"):
                usable.sign(MESSAGE)


def test_no_agent_is_told_with_the_way_to_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(ConfigurationError, match="SSH_AUTH_SOCK is not set: start one"):
        choose_key("ssh:alice")
    with pytest.raises(ConfigurationError, match="ssh: names no key"):
        choose_key("ssh:")
    with pytest.raises(ConfigurationError, match="no SSH agent answers"):
        AgentKey(path=str(tmp_path / "gone"), wanted="x").public()


@contextlib.contextmanager
def answering(directory: Path, *answers: bytes) -> Iterator[str]:
    """A socket that gives these answers, one a connection, whatever it is asked; its path."""
    path = str(directory / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        thread.join(60)
        listener.close()


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


BLOB = string(b"ssh-ed25519") + string(bytes(32))
LISTED = string(b"\x0c" + (1).to_bytes(4, "big") + string(BLOB) + string(b"alice"))


@pytest.mark.parametrize(("answer", "says"), [
    (b"", "it ends after 0 bytes, expected 4"),
    (b"\x00\x00", "it ends after 2 bytes, expected 4"),
    (bytes(4), "it answers with 0 bytes"),
    ((MAX_ANSWER_BYTES + 1).to_bytes(4, "big"), "it answers with 262145 bytes"),
    (string(b"\x0c\x00\x00\x00\x01")[:-1], "it ends after 4 bytes, expected 5"),
    (string(b"\x0c\x00\x00\x00\x01"), "it ends after 0 bytes, expected 4"),
    (string(b"\x0c\x00\x00\x00\x01" + string(b"\x00") + string(b"")), "it ends after 1 bytes, expected 4"),
    (string(b"\x0c\xff\xff\xff\xff"), "it ends after 0 bytes, expected 4"),
    (string(b"\x05"), "does not list its keys"),
    (string(b"\x63"), "does not list its keys"),
])  # fmt: skip
def test_an_answer_that_no_agent_gives_is_refused(tmp_path: Path, answer: bytes, says: str) -> None:
    with answering(tmp_path, answer) as path, pytest.raises(OutsideError, match=says):
        AgentKey(path=path, wanted="alice").public()


@pytest.mark.parametrize(("answer", "says"), [
    (string(b"\x05"), "the agent refused to sign"),
    (string(b"\x0e" + string(string(b"ssh-rsa") + string(bytes(64)))), "it signed with ssh-rsa, expected ssh-ed25519"),
    (string(b"\x0e" + string(b"\x00")), "it ends after 1 bytes"),
])  # fmt: skip
def test_what_is_no_signature_is_refused(tmp_path: Path, answer: bytes, says: str) -> None:
    with (
        answering(tmp_path, LISTED, answer) as path,
        AgentKey(path=path, wanted="alice").unlocked(nobody) as usable,
        pytest.raises(OutsideError, match=says),
    ):
        usable.sign(MESSAGE)


def test_a_key_blob_that_is_no_key_is_refused(tmp_path: Path) -> None:
    blob = string(b"ssh-ed25519") + string(bytes(3))
    listed = string(b"\x0c" + (1).to_bytes(4, "big") + string(blob) + string(b"alice"))
    with answering(tmp_path, listed) as path, pytest.raises(ConfigurationError, match="public key cannot be read"):
        AgentKey(path=path, wanted="alice").public()


@given(st.binary(max_size=64))
def test_no_bytes_make_the_reader_raise_anything_but_value_error(data: bytes) -> None:
    reader = _Reader(data)
    with contextlib.suppress(ValueError):
        while True:
            reader.string()


def hang_up(listener: socket.socket) -> None:
    """Close a connection on which something was sent, and was not read."""
    connection, _ = listener.accept()
    with connection:
        select.select([connection], [], [], 60)


def test_an_agent_that_breaks_off_or_says_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key may wait for a person for long, a list of keys for none."""
    monkeypatch.setattr("ostiary.member_key.ssh_agent.LIST_SECONDS", 0.1)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(OutsideError, match="did not answer within 0 s"):
            AgentKey(path=str(tmp_path / "s"), wanted="x").public()
        listener.accept()[0].close()
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        with pytest.raises(OutsideError, match=r"the SSH agent at .*/s broke off: Connection reset by peer"):
            AgentKey(path=str(tmp_path / "s"), wanted="x").public()
        thread.join(60)


def test_errors_are_of_our_tree(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "deaf"))
    with contextlib.closing(listener), pytest.raises(OstiaryError):
        AgentKey(path=str(tmp_path / "deaf"), wanted="x").public()
