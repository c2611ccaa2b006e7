"""Keys in files: which forms are read, what is asked, and what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat
from tests.simulators.keys import (
    PrivateKey,
    ed25519_key,
    p256_key,
    p384_key,
    p521_key,
    pem,
    public_pem,
    rsa_key,
    spki,
)

from ostiary.errors import ConfigurationError
from ostiary.member_key import KeyFile, KnownKey, choose_key
from ostiary.member_key.file import MAX_KEY_FILE_BYTES
from ostiary.member_key.pin_file import MAX_PIN_FILE_BYTES, read_pin

MESSAGE = b"ostiary-board-decision-v1\n"
KINDS = (ed25519_key, p256_key, p384_key)


def nobody(what: str) -> str:
    raise AssertionError(f"nobody should be asked: {what}")


def answer(passphrase: str) -> Callable[[str], str]:
    return lambda _: passphrase


def verify(key: PrivateKey, signature: bytes) -> None:
    """Written out here once more, apart from the code under test."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        key.public_key().verify(signature, MESSAGE)
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        digest = {"secp256r1": SHA256(), "secp384r1": SHA384()}[key.curve.name]
        key.public_key().verify(signature, MESSAGE, ec.ECDSA(digest))


def key_file(directory: Path, content: str) -> KeyFile:
    (directory / "key.pem").write_text(content)
    return KeyFile(path=directory / "key.pem")


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL, PrivateFormat.OpenSSH])
def test_a_key_without_passphrase_signs_and_asks_nobody(tmp_path: Path, make: type, form: PrivateFormat) -> None:
    key = make()
    if form is PrivateFormat.TraditionalOpenSSL and isinstance(key, ed25519.Ed25519PrivateKey):
        form = PrivateFormat.PKCS8
    place = key_file(tmp_path, pem(key, form=form))
    assert place.public() == spki(key)
    with place.unlocked(nobody) as usable:
        assert usable.spki == spki(key)
        verify(key, usable.sign(MESSAGE))


@pytest.mark.parametrize(("make", "form"), [
    (ed25519_key, PrivateFormat.PKCS8),
    (p256_key, PrivateFormat.PKCS8),
    (p384_key, PrivateFormat.TraditionalOpenSSL),
])  # fmt: skip
def test_a_key_with_a_passphrase_is_unlocked_by_it_alone(tmp_path: Path, make: type, form: PrivateFormat) -> None:
    key = make()
    place = key_file(tmp_path, pem(key, "open sesame", form=form))
    assert place.public() is None
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return "open sesame"

    with place.unlocked(ask) as usable:
        verify(key, usable.sign(MESSAGE))
    assert asked == [f"Passphrase of key file {place.path}"]
    asked_again: list[str] = []
    for wrong in ("open says me", ""):
        with pytest.raises(ConfigurationError, match="the passphrase is wrong"), place.unlocked(answer(wrong)):
            asked_again.append(wrong)
    assert not asked_again


def test_a_public_key_tells_whose_it_is_and_signs_nothing(tmp_path: Path) -> None:
    key = ed25519_key()
    ssh = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for content in (public_pem(key), f"{ssh} alice@laptop\n"):
        place = key_file(tmp_path, content)
        assert place.public() == spki(key)
        with pytest.raises(ConfigurationError, match="only a private one signs"), place.unlocked(nobody):
            pass


@pytest.mark.parametrize(("content", "says"), [
    ("", "expected one private key, PEM"),
    ("nonsense", "expected one private key, PEM"),
    ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "expected one private key, PEM"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "expected one private key, PEM"),
    ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "the public key cannot be read"),
    ("ssh-ed25519 AAAA\n", "the public key cannot be read"),
    ("x" * (MAX_KEY_FILE_BYTES + 1), "and is no key"),
    (pem(ed25519_key()).replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2V4"), "expected one private key, PEM"),
    (pem(rsa_key()), "the key is of another type, expected Ed25519, P-384 or P-256"),
    (public_pem(rsa_key()), "the key is of another type, expected Ed25519, P-384 or P-256"),
    (pem(p521_key()), "the key is on the curve secp521r1, expected Ed25519, P-384 or P-256"),
])  # fmt: skip
def test_what_is_no_key_of_a_member_is_refused(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        key_file(tmp_path, content).public()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"key file .*/missing: No such file or directory"):
        KeyFile(path=tmp_path / "missing").public()


def test_an_openssh_key_with_a_passphrase_is_sent_to_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "sesame", "-f", str(file)], check=True, timeout=60)
    place = KeyFile(path=file)
    with pytest.raises(ConfigurationError, match="ssh-add"):
        place.public()


def test_no_key_shows_itself() -> None:
    key = KnownKey(name="ours", key=ed25519_key())
    assert "KnownKey(name='ours')" in repr(key)


@pytest.mark.parametrize("text", ["key.pem", "./ssh:x", "/home/a/key.pem"])
def test_all_else_is_a_file(text: str) -> None:
    assert choose_key(text) == KeyFile(path=Path(text))


def test_a_pin_file_has_the_pin_on_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text("12 34\r\nwhat it is for\n")
    assert read_pin(file) == "12 34"


@pytest.mark.parametrize(("content", "says"), [
    (b"", "its first line is empty"),
    (b"\n1234\n", "its first line is empty"),
    (b"\xff", "is not UTF-8"),
    (b"1" * (MAX_PIN_FILE_BYTES + 1), "has more than 4096 bytes"),
    (None, "No such file"),
])  # fmt: skip
def test_a_pin_file_without_a_pin_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "pin").write_bytes(content)
    with pytest.raises(ConfigurationError, match=says):
        read_pin(tmp_path / "pin")
