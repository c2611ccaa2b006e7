"""Signed lists of measurements: whose they are, for how long, and what is in them."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ostiary.checker.listed import MAX_LIST_BYTES, verify_list
from ostiary.checker.rules import ListSource
from ostiary.errors import InputError
from ostiary.session.access import signer_key

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HEAD = "ostiary-measurements-v1\nname releases\nexpires 2026-12-31T00:00:00Z\n"
FIRST, SECOND = "ab" * 32, "CD" * 48
LIST = f"{HEAD}# built by CI\n\n{FIRST} app 1.2.3\n{SECOND}\n{FIRST}\n".encode()
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32)


def source(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = KEY, name: str = "releases") -> ListSource:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return ListSource(name=name, file="releases.txt", signer=spki)


def signed(data: bytes, key: ed25519.Ed25519PrivateKey = KEY) -> bytes:
    return base64.b64encode(key.sign(data)) + b"\n"


def test_a_list_that_its_signer_signed_gives_its_measurements_in_lower_case_and_once() -> None:
    assert verify_list(source(), LIST, signed(LIST), now=NOW) == (FIRST, SECOND.lower())


def test_a_p_384_key_signs_lists_too() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    signature = base64.encodebytes(key.sign(LIST, ec.ECDSA(SHA384())))
    assert verify_list(source(key), LIST, signature, now=NOW)


@pytest.mark.parametrize("algorithm", ["ed25519", "EC"])
def test_openssl_signs_what_is_verified_as_the_page_says(tmp_path: Path, algorithm: str) -> None:
    """docs/checker.md, "Signed lists"."""
    options = ["-pkeyopt", "ec_paramgen_curve:P-384"] if algorithm == "EC" else []
    (tmp_path / "releases.txt").write_bytes(LIST)
    digest = ["-digest", "sha384"] if algorithm == "EC" else []
    for command in (
        ["openssl", "genpkey", "-algorithm", algorithm, *options, "-out", "key.pem"],
        ["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"],
        ["openssl", "pkeyutl", "-sign", "-rawin", *digest, "-inkey", "key.pem", "-in", "releases.txt", "-out", "raw"],
        ["openssl", "base64", "-in", "raw", "-out", "releases.txt.sig"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    by_openssl = ListSource(
        name="releases", file="releases.txt", signer=signer_key((tmp_path / "public.pem").read_text().strip())
    )
    assert verify_list(by_openssl, LIST, (tmp_path / "releases.txt.sig").read_bytes(), now=NOW)


def refusal(data: bytes, signature: bytes, *, of: ListSource | None = None, now: datetime = NOW) -> str:
    with pytest.raises(InputError) as refused:
        verify_list(of or source(), data, signature, now=now)
    return str(refused.value)


def test_a_list_of_another_signer_is_refused() -> None:
    message = refusal(LIST, signed(LIST, OTHER))
    assert "list releases (releases.txt): the signature does not hold" in message
    assert "sign it again" in message


def test_a_changed_list_is_refused() -> None:
    assert "does not hold" in refusal(LIST + b"ee" * 32 + b"\n", signed(LIST))


def test_another_list_of_the_same_signer_is_refused() -> None:
    message = refusal(LIST, signed(LIST), of=source(name="tests"))
    assert "line 2: expected `name tests`; this is another list of that signer" in message


def test_a_list_is_refused_from_the_second_on_in_which_it_expires() -> None:
    late = datetime(2026, 12, 31, tzinfo=UTC)
    assert "it expired at 2026-12-31T00:00:00Z; ask its signer for a newer one" in refusal(LIST, signed(LIST), now=late)


@pytest.mark.parametrize("signature", [b"", b"\xff", b"not base64!", b"QUJD", b"A" * 2000])
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    assert "signature" in refusal(LIST, signature)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: expected ostiary-measurements-v1"),
        (b"ostiary-measurements-v2\n", "line 1: expected ostiary-measurements-v1"),
        (b"ostiary-measurements-v1", "line 2: expected `name releases`"),
        (b"ostiary-measurements-v1\nname releases", "line 3: expected `expires"),
        (b"ostiary-measurements-v1\nname releases\nexpires never\n", "line 3: expected `expires"),
        (HEAD.encode(), "it names no measurement"),
        (HEAD.encode() + b"# none\n\n", "it names no measurement"),
        (HEAD.encode() + b"ab\n", "line 4: expected the 64 or 96 hex digits of a measurement"),
        (HEAD.encode() + b"zz" * 32, "line 4: expected"),
        (HEAD.encode() + b"a" * 65, "line 4: expected"),
        (HEAD.encode() + FIRST.encode() + b"\r\n", "line 4: expected"),
        (HEAD.replace("\n", "\r\n").encode() + FIRST.encode(), "line 1: expected"),
        (LIST + b"\xff", "it is no text in UTF-8"),
        (LIST + b"#" * MAX_LIST_BYTES, "it has more than 1048576 bytes"),
    ],
)
def test_what_is_no_list_is_refused_though_it_is_signed(data: bytes, message: str) -> None:
    assert message in refusal(data, signed(data))


@given(data=st.binary(max_size=200), tail=st.text(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes, tail: str) -> None:
    for one in (data, HEAD.encode() + data, (HEAD + tail).encode(errors="replace")):
        try:
            found = verify_list(source(), one, signed(one), now=NOW)
        except InputError:
            continue
        assert found
        assert all(len(value) in (64, 96) and value == value.lower() for value in found)
