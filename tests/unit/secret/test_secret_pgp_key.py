"""OpenPGP keys, as GnuPG sees them."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.format import public_text
from ostiary.secret.pgp_key import generate_pgp_key
from ostiary.secret.render import render
from ostiary.secret.value import PgpKeyValue
from ostiary.session.placeholder import Placeholder, Template

USER_ID = "key-" + "00" * 16


class Gpg:
    """GnuPG with a home directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str, data: bytes = b"") -> bytes:
        options = ["--batch", "--no-tty", "--quiet", "--trust-model", "always"]
        command = ["gpg", "--homedir", str(self.home), *options, *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    def keys(self, *, secret: bool) -> list[list[str]]:
        """The records of `--with-colons` for keys and user ids."""
        listed = self("--with-colons", "--list-secret-keys" if secret else "--list-keys").decode()
        records = [line.split(":") for line in listed.splitlines()]
        return [record for record in records if record[0] in {"pub", "sec", "sub", "ssb", "uid"}]


@pytest.fixture
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("gpg")  # short: the agent's socket lies in it
    home.chmod(0o700)
    yield Gpg(home)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def values() -> Mapping[str, PgpKeyValue]:
    return {"pgp": generate_pgp_key(bytes)}


def one(values: Mapping[str, PgpKeyValue], form: str) -> bytes:
    return render(Template(parts=(Placeholder(name="pgp", format=form),)), values)


def decoded(values: Mapping[str, PgpKeyValue], form: str) -> bytes:
    data = one(values, form)
    return base64.b64decode(data, validate=True) if form.endswith("base64") else data


@pytest.mark.parametrize("form", ["asciiarmored", "binary", "base64"])
def test_each_form_of_the_secret_key_imports_and_can_do_everything(
    gpg: Gpg, values: Mapping[str, PgpKeyValue], form: str
) -> None:
    """Feature F125: the three forms of the secret key; 22 is EdDSA, 18 is ECDH."""
    gpg("--import", data=decoded(values, f"privatekey:{form}"))
    keys = gpg.keys(secret=True)
    assert [(key[0], key[3], key[16]) for key in keys if key[0] != "uid"] == [
        ("sec", "22", "ed25519"),
        ("ssb", "22", "ed25519"),
        ("ssb", "18", "cv25519"),
    ]
    assert [key[9] for key in keys if key[0] == "uid"] == [USER_ID]
    message = gpg("--sign", "--encrypt", "--recipient", USER_ID, data=b"to myself")
    assert gpg("--decrypt", data=message) == b"to myself"


@pytest.mark.parametrize("form", ["asciiarmored", "binary", "base64"])
def test_each_form_of_the_public_key_imports_and_verifies(
    gpg: Gpg, values: Mapping[str, PgpKeyValue], form: str
) -> None:
    """Feature F125: the three forms of the public key, without the secret one."""
    gpg("--import", data=decoded(values, f"publickey:{form}"))
    assert [key[0] for key in gpg.keys(secret=False)] == ["pub", "uid", "sub", "sub"]
    assert gpg.keys(secret=True) == []


def test_what_the_secret_key_signs_the_public_key_verifies(
    tmp_path_factory: pytest.TempPathFactory, gpg: Gpg, values: Mapping[str, PgpKeyValue]
) -> None:
    gpg("--import", data=one(values, "privatekey:binary"))
    signed = gpg("--sign", data=b"said")
    home = tmp_path_factory.mktemp("other")
    home.chmod(0o700)
    other = Gpg(home)
    with pytest.raises(subprocess.CalledProcessError):
        other("--decrypt", data=signed)
    other("--import", data=one(values, "publickey:binary"))
    assert other("--decrypt", data=signed) == b"said"


def test_the_armor_is_that_of_gnupg(values: Mapping[str, PgpKeyValue]) -> None:
    """Feature F125: no comment lines, one newline at the end."""
    for form, block in (("privatekey", "PRIVATE"), ("publickey", "PUBLIC")):
        text = one(values, f"{form}:asciiarmored").decode()
        assert text.startswith(f"-----BEGIN PGP {block} KEY BLOCK-----\n\n")
        assert text.endswith(f"-----END PGP {block} KEY BLOCK-----\n")


def test_a_pgp_key_has_no_bare_form(values: Mapping[str, PgpKeyValue]) -> None:
    """Feature F125."""
    with pytest.raises(ReleaseRefusedError, match=r"secret 'pgp', pgp-key, has no format ''; its formats are: 'privat"):
        one(values, "")


def test_only_the_public_part_is_ever_shown_to_everybody(values: Mapping[str, PgpKeyValue]) -> None:
    assert public_text(values["pgp"]).encode() == one(values, "publickey:asciiarmored")


def test_two_keys_are_different() -> None:
    assert generate_pgp_key(bytes) != generate_pgp_key(bytes)


def test_the_secret_key_does_not_show() -> None:
    assert "secret_key" not in repr(generate_pgp_key(bytes))
