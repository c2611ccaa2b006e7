"""The platform's directory: made once, used ever after, never half."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ostiary.errors import ConfigurationError
from ostiary.evidence import software_root
from ostiary.evidence.sgx.verify import verify
from ostiary.platform import directory as directory_module
from ostiary.platform.directory import init_platform

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
KEYS = {"root.key", "issuer.key", "platform.key", "tcb_signer.key", "attestation.key", "signer.key"}


def test_files_are_made_with_their_modes_and_nothing_else_is_left(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "platform"
    init_platform(directory, NOW)
    assert {file.name for file in directory.iterdir()} == KEYS | {"root.pem"}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE((directory / name).stat().st_mode) for name in KEYS} == {0o600}


def test_platform_is_the_same_when_opened_again(tmp_path: Path) -> None:
    first = init_platform(tmp_path, NOW)
    content = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    again = init_platform(tmp_path, NOW + timedelta(days=400))
    assert again.root_pem == first.root_pem == content["root.pem"]
    assert again.mr_signer == first.mr_signer
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == content


def test_two_platforms_share_nothing(tmp_path: Path) -> None:
    one, other = init_platform(tmp_path / "1", NOW), init_platform(tmp_path / "2", NOW)
    assert one.root.public_key() != other.root.public_key()
    assert one.mr_signer != other.mr_signer


def test_making_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    first = init_platform(tmp_path, NOW)
    (tmp_path / "root.pem").unlink()
    (tmp_path / "signer.key").unlink()
    again = init_platform(tmp_path, NOW)
    assert again.root.public_key() == first.root.public_key()
    assert again.mr_signer != first.mr_signer


def test_two_at_once_end_with_the_same_platform(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        platforms = list(pool.map(lambda _: init_platform(tmp_path, NOW), range(8)))
    assert len({platform.root_pem for platform in platforms}) == 1
    assert len({platform.mr_signer for platform in platforms}) == 1
    assert {file.name for file in tmp_path.iterdir()} == KEYS | {"root.pem"}


def test_endorsed_quotes_verify_from_a_little_before_until_a_little_after(tmp_path: Path) -> None:
    platform = init_platform(tmp_path, NOW)
    endorsed = platform.endorse(NOW)
    quote = endorsed.quoter.quote(platform.enclave(bytes(32)), bytes(64))
    root = software_root(platform.root_pem)
    for moment in (NOW - timedelta(minutes=50), NOW, endorsed.renew_at + timedelta(days=6)):
        claims = verify(quote, endorsed.collateral, roots=[root], now=moment)
        assert claims.signer == platform.mr_signer
    assert NOW + timedelta(days=20) < endorsed.renew_at < NOW + timedelta(days=30)


def test_certificates_made_later_have_other_serial_numbers(tmp_path: Path) -> None:
    platform = init_platform(tmp_path, NOW)
    first, later = platform.endorse(NOW), platform.endorse(NOW + timedelta(days=1))
    assert hashlib.sha256(first.collateral).digest() != hashlib.sha256(later.collateral).digest()


def test_no_key_is_shown(tmp_path: Path) -> None:
    platform = init_platform(tmp_path, NOW)
    assert "PrivateKey" not in repr(platform)
    assert "PrivateKey" not in repr(platform.keys)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    init_platform(tmp_path, NOW)
    (tmp_path / "root.key").chmod(mode)
    with pytest.raises(ConfigurationError, match=r"root\.key' can be read by others; run `chmod 600` on it"):
        init_platform(tmp_path, NOW)


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("issuer.key", b"", "a private key in PEM form"),
        ("issuer.key", _pem(ed25519.Ed25519PrivateKey.generate()), "a P-256 key"),
        ("issuer.key", _pem(ec.generate_private_key(ec.SECP384R1())), "a P-256 key"),
        ("root.pem", b"x", "a certificate in PEM form"),
        ("root.key", _pem(ec.generate_private_key(ec.SECP256R1())), "the certificate of root.key"),
    ],
)
def test_spoiled_file_is_refused_and_not_replaced(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    init_platform(tmp_path, NOW)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"is not {expected}; restore it or name another --dir"):
        init_platform(tmp_path, NOW)
    assert (tmp_path / name).read_bytes() == content


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be used: Not a directory; name another with --dir"):
        init_platform(tmp_path / "file" / "platform", NOW)


def test_file_is_never_written_twice(tmp_path: Path) -> None:
    directory_module._create(tmp_path / "key", b"first", mode=0o600)
    directory_module._create(tmp_path / "key", b"second", mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["key"]
