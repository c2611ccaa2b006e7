"""A service without listeners: the use cases on a real store, under a clock that the test moves."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ostiary.attester.binding import CLIENT
from ostiary.audit import Frontier
from ostiary.board import Caller
from ostiary.broker.cas import Cas
from ostiary.broker.configure import Configuration
from ostiary.broker.denial import DeniedRelease
from ostiary.broker.open import make_cas
from ostiary.broker.release import Request, Start, release_configuration
from ostiary.broker.upload import upload_session
from ostiary.launcher.access_token import prove_token
from ostiary.session.model import HostArgument
from ostiary.store import open_store

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def make_caller(name: str) -> Caller:
    """Somebody with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Caller(
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
        key_hash=hashlib.sha256(spki).digest(),
        key_bits_hash=hashlib.sha256(point).digest(),
    )


@dataclass
class Desk:
    """The service, and what people do with it."""

    cas: Cas
    ahead: list[timedelta] = field(default_factory=lambda: [timedelta(0)])

    def upload(self, text: str, caller: Caller | None) -> str:
        """Create or update; the hash in hex."""
        return asyncio.run(upload_session(self.cas, text.encode(), caller)).session_hash.hex()

    async def begin(self, service_id: str, client: bytes = b"c" * 32, *, token: str | None = None) -> Start:
        """Start SESSION/SERVICE[@OTP] of a session with `mode: none`; raises DeniedRelease."""
        service_id, at, password = service_id.partition("@")
        session, _, service = service_id.rpartition("/")
        nonce = self.cas.challenges.issue(client, self.cas.now())
        ends = {"nonce": nonce, "client_spki": b"client", "server_spki": b"server"}
        request = Request(
            session=session,
            service=service,
            client_spki=b"client",
            server_spki=b"server",
            client_key_hash=client,
            nonce=nonce,
            tee="none",
            evidence=b"",
            endorsements=b"",
            one_time_password=password if at else None,
            access_token_proof=b"" if token is None else prove_token(token.encode(), CLIENT, **ends),
        )
        return await release_configuration(self.cas, request)

    def start(self, service_id: str) -> Configuration:
        return asyncio.run(self.begin(service_id)).configuration

    def denied(self, service_id: str, *, token: str | None = None) -> str:
        """What a program is told that must not be let in."""
        with pytest.raises(DeniedRelease) as denied:
            asyncio.run(self.begin(service_id, token=token))
        return str(denied.value.told)

    def argv(self, service_id: str) -> list[bytes | HostArgument]:
        return list(self.start(service_id).argv)

    def pass_time(self, time: timedelta) -> None:
        self.ahead[0] += time


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    ahead = [timedelta(0)]
    with open_store(tmp_path / "data", random=os.urandom, log=Frontier(), warn=lambda _: None) as store:
        yield Desk(cas=make_cas(store, roots=(), now=lambda: NOW + ahead[0], random=os.urandom), ahead=ahead)


@pytest.fixture(scope="session")
def alice() -> Caller:
    return make_caller("alice")


@pytest.fixture(scope="session")
def eve() -> Caller:
    return make_caller("eve")
