"""The state directory of a software platform: one root certificate and six keys, made once and used ever after.

`root.pem` is what the owner of a service configures as trusted. `*.key` are P-256 keys, PKCS#8 PEM, mode 0600::

    root.key         signs the certificates below           issuer.key       signs the PCK certificate
    platform.key     the PCK: signs the QE report           tcb_signer.key   signs TCB info and QE identity
    attestation.key  signs quotes                           signer.key       only its hash is used: mr_signer

A file appears whole or not at all (it is made exclusively under another name, synced, then linked), and is never
written again. Certificates below the root, revocation lists and TCB
data live in memory: `Platform.endorse` makes them anew from the keys.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ostiary.errors import ConfigurationError
from ostiary.platform.pki import (
    Key,
    Keys,
    Lifetime,
    TcbLevel,
    issue_certificates,
    make_collateral,
    make_root,
    public_der,
)
from ostiary.platform.quote import Enclave, Quoter

ROOT_LIFETIME = timedelta(days=20 * 365)
ENDORSEMENTS_LIFETIME = timedelta(days=30)
RENEW_BEFORE_END = timedelta(days=7)
CLOCK_TOLERANCE = timedelta(hours=1)

_TCB_DATE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Endorsed:
    """What the platform quotes with until `renew_at`. collateral: JSON text that goes with each quote."""

    quoter: Quoter
    collateral: bytes
    renew_at: datetime


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A software platform as its directory holds it. mr_signer: 32 bytes, in all of its quotes."""

    root: x509.Certificate
    keys: Keys = field(repr=False)
    mr_signer: bytes

    @property
    def root_pem(self) -> bytes:
        """The root certificate, for the owners of services that shall trust this platform."""
        return self.root.public_bytes(Encoding.PEM)

    def endorse(self, now: datetime) -> Endorsed:
        """New certificates and TCB data, valid from a little before `now` for ENDORSEMENTS_LIFETIME."""
        start = _whole_seconds(now) - CLOCK_TOLERANCE
        lifetime = Lifetime(start=start, end=start + ENDORSEMENTS_LIFETIME)
        certificates = issue_certificates(self.keys, self.root, lifetime)
        return Endorsed(
            quoter=Quoter(
                attestation_key=self.keys.attestation,
                platform_key=self.keys.platform,
                pck_chain=certificates.pck_chain,
            ),
            collateral=make_collateral(self.keys, certificates, lifetime, level=TcbLevel(date=_TCB_DATE)),
            renew_at=lifetime.end - RENEW_BEFORE_END,
        )

    def enclave(self, mr_enclave: bytes) -> Enclave:
        """The identity under which a program with this measurement is quoted."""
        return Enclave(mr_enclave=mr_enclave, mr_signer=self.mr_signer)


def init_platform(directory: Path, now: datetime) -> Platform:
    """Open the platform in `directory`, making what is not there yet. Two processes at once end with the same files.

    Raises ConfigurationError: the directory cannot be written, a file in it is not what its name says, or a key can be
    read by others.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = Keys(
            root=_key(directory, "root"),
            issuer=_key(directory, "issuer"),
            platform=_key(directory, "platform"),
            tcb_signer=_key(directory, "tcb_signer"),
            attestation=_key(directory, "attestation"),
        )
        signer = _key(directory, "signer")
        root = _root(directory / "root.pem", keys.root, now)
    except OSError as error:
        raise ConfigurationError(
            f"platform directory {str(directory)!r} cannot be used: {error.strerror}; name another with --dir"
        ) from error
    mr_signer = hashlib.sha256(public_der(signer.public_key())).digest()
    return Platform(root=root, keys=keys, mr_signer=mr_signer)


def _key(directory: Path, name: str) -> Key:
    file = directory / f"{name}.key"
    if not file.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        _create(file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    if file.stat().st_mode & 0o077:
        raise ConfigurationError(f"platform key {str(file)!r} can be read by others; run `chmod 600` on it")
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise _spoiled(file, "a private key in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _spoiled(file, "a P-256 key")
    return key


def _root(file: Path, key: Key, now: datetime) -> x509.Certificate:
    if not file.exists():
        start = _whole_seconds(now) - CLOCK_TOLERANCE
        made = make_root(key, Lifetime(start=start, end=start + ROOT_LIFETIME))
        _create(file, made.public_bytes(Encoding.PEM), mode=0o644)
    try:
        root = x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError as error:
        raise _spoiled(file, "a certificate in PEM form") from error
    if root.public_key() != key.public_key():
        raise _spoiled(file, "the certificate of root.key")
    return root


def _create(file: Path, content: bytes, *, mode: int) -> None:
    """Put a whole file in place unless one is there already; it is on disk when this returns."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with open(descriptor, "wb") as opened:
            os.fchmod(opened.fileno(), mode)
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    _sync_directory(file.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spoiled(file: Path, expected: str) -> ConfigurationError:
    return ConfigurationError(f"platform file {str(file)!r} is not {expected}; restore it or name another --dir")


def _whole_seconds(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)
