"""A TLS server on loopback that plays a server outside: a key vault, a vendor, a witness."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.simulators.canned import read_request

TIMEOUT_SECONDS = 60
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
Answering = Callable[[bytes, ssl.SSLSocket], None]
"""What a server does with one request: its bytes, and where the answer goes."""


def make_certificate(*names: x509.GeneralName) -> tuple[str, str]:
    """PEM of key and certificate of a server with these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outside")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem, certificate.public_bytes(Encoding.PEM).decode()


class Outside:
    """A TLS server on loopback that answers each connection with the same function."""

    def __init__(self, directory: Path, answering: Answering, *names: x509.GeneralName) -> None:
        key, self.certificate = make_certificate(*names or (LOOPBACK,))
        (directory / "server.pem").write_text(key + self.certificate)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "server.pem")
        self._answering = answering
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT_SECONDS)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(TIMEOUT_SECONDS)
            try:
                with plain, self._context.wrap_socket(plain, server_side=True) as stream:
                    self.requests.append(read_request(stream))
                    self._answering(self.requests[-1], stream)
            except OSError:
                continue
