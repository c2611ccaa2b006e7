"""A CAS that speaks the enclave protocol on loopback, for tests of the program's side: honest, or told to misbehave.

It checks what the real one checks of the wire form: client certificate, nonce, and evidence over both keys, which the
simulated quoting daemon gives as the bare report data.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

Json = dict[str, object]

PLACEHOLDER = b"$$SCONE::token$$"
"""The only placeholder that the simulator knows; it becomes `s3cret`."""


def configuration(
    *,
    argv: tuple[str | int, ...] = (),
    environment: Mapping[str, str] | None = None,
    host_variables: tuple[str, ...] = (),
    pwd: str = "/",
    files: Mapping[str, tuple[int, bytes]] | None = None,
    templates: Mapping[str, int] | None = None,
) -> Json:
    """A configuration in the wire form; integers in `argv` are host arguments."""
    variables: Json = {name: {"value": _base64(value.encode())} for name, value in (environment or {}).items()}
    variables.update({name: {"host_variable": name} for name in host_variables})
    return {
        "session_hash": "ab" * 32,
        "argv": [{"host_argument": w} if isinstance(w, int) else {"value": _base64(w.encode())} for w in argv],
        "environment": variables,
        "pwd": pwd,
        "injection_files": [
            {"path": path, "permission": permission, "content": _base64(content)}
            for path, (permission, content) in (files or {}).items()
        ],
        "file_templates": [{"path": path, "permission": permission} for path, permission in (templates or {}).items()],
    }


def http(status: int, body: Json) -> bytes:
    """An HTTP/1.1 answer with a JSON body."""
    content = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(content), content)


@dataclass
class Seen:
    """What the simulator received, in order."""

    connections: int = 0
    paths: list[str] = field(default_factory=list)
    configure: list[Json] = field(default_factory=list)
    render: list[Json] = field(default_factory=list)
    client_spkis: list[bytes] = field(default_factory=list)


class CasSimulator:
    """A server thread. `script`: path to raw answer, in place of the honest one; None closes the connection.

    `drop`: how many connections are closed right after accept. `drip`: seconds between the bytes of an answer.
    `token`: the session's access token; programs must prove it, and get the simulator's proof.
    """

    def __init__(
        self,
        released: Json,
        *,
        script: Mapping[str, Callable[[], bytes | None]] | None = None,
        drop: int = 0,
        drip: float = 0.0,
        token: bytes | None = None,
    ) -> None:
        self.seen = Seen()
        self.ca_pem, self._identity = _make_identity()
        self._released = released
        self._script = dict(script or {})
        self._drop = drop
        self._drip = drip
        self._token = token
        self._nonces: set[str] = set()
        self._context = _context(self._identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CasSimulator:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listener.close()

    @property
    def leaf_pem(self) -> bytes:
        """The certificate that the server shows."""
        return self._identity[1].public_bytes(Encoding.PEM)

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo of that certificate."""
        return _spki(self._identity[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while True:
            plain, _ = self._listener.accept()
            with plain:
                if self._stopped.is_set():
                    return
                self.seen.connections += 1
                if self.seen.connections <= self._drop:
                    continue
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    self._converse(SSL.Connection(self._context, plain))
                except (SSL.Error, OSError):
                    continue

    def _converse(self, stream: SSL.Connection) -> None:
        stream.set_accept_state()
        stream.do_handshake()
        peer = stream.get_peer_certificate(as_cryptography=True)
        spki = _spki(peer) if peer else b""
        self.seen.client_spkis.append(spki)
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                data += stream.recv(65536)
            head, _, data = data.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(data) < length:
                data += stream.recv(65536)
            body, data = data[:length], data[length:]
            path = head.split(b" ")[1].decode()
            self.seen.paths.append(path)
            answer = self._script[path]() if path in self._script else self._answer(path, body, spki)
            if answer is None:
                stream.shutdown()
                return
            self._send(stream, answer)
            if b"connection: close" in answer:
                stream.shutdown()
                return

    def _send(self, stream: SSL.Connection, answer: bytes) -> None:
        if not self._drip:
            stream.sendall(answer)
            return
        for byte in answer:
            stream.sendall(bytes((byte,)))
            if self._stopped.wait(self._drip):
                return

    def _answer(self, path: str, body: bytes, spki: bytes) -> bytes:
        if path == "/v1/challenge":
            nonce = os.urandom(32).hex()
            self._nonces.add(nonce)
            return http(200, {"nonce": nonce, "expires_in": 60})
        request = json.loads(body)
        if path == "/v1/render":
            self.seen.render.append(request)
            rendered = base64.b64decode(request["content"]).replace(PLACEHOLDER, b"s3cret")
            return http(200, {"content": _base64(rendered)})
        self.seen.configure.append(request)
        if request["nonce"] not in self._nonces:
            return http(403, {"msg": ["challenge refused"], "version": "0"})
        self._nonces.remove(request["nonce"])
        if request["tee"] == "sgx" and base64.b64decode(request["evidence"]) != self._expected(request["nonce"], spki):
            return http(403, {"msg": ["evidence refused", "report_data"], "version": "0", "denial": "d-1"})
        if self._token is None:
            return http(200, self._released)
        if request.get("access_token_proof") != self._proof(b"client", request["nonce"], spki):
            return http(403, {"msg": ["another token"], "version": "0", "denial": "d-2"})
        return http(200, {**self._released, "access_token_proof": self._proof(b"server", request["nonce"], spki)})

    def _expected(self, nonce: str, client_spki: bytes) -> bytes:
        return hashlib.sha512(b"ostiary-attest-v1" + self._connection(nonce, client_spki)).digest()

    def _proof(self, end: bytes, nonce: str, client_spki: bytes) -> str:
        key = HKDF(hashes.SHA256(), 32, salt=None, info=b"ostiary-access-token-v1").derive(self._token or b"")
        return hmac.digest(key, end + self._connection(nonce, client_spki), "sha256").hex()

    def _connection(self, nonce: str, client_spki: bytes) -> bytes:
        return bytes.fromhex(nonce) + hashlib.sha256(client_spki).digest() + hashlib.sha256(self.spki).digest()


class QuotingDaemonSimulator:
    """Answers at a unix socket with the report data itself as evidence, or with `error`. Keeps the requests."""

    def __init__(self, path: Path, *, error: list[str] | None = None) -> None:
        self.path = path
        self.requests: list[Json] = []
        self._error = error
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> QuotingDaemonSimulator:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        with socket.socket(socket.AF_UNIX) as waker:
            waker.connect(str(self.path))
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            stream, _ = self._listener.accept()
            with stream, stream.makefile("rwb") as lines:
                if self._stopped.is_set():
                    return
                request = json.loads(lines.readline())
                self.requests.append(request)
                evidence = bytes.fromhex(request["report_data"])
                answer: Json = {"evidence": _base64(evidence), "endorsements": _base64(b"{}")}
                if self._error is not None:
                    answer = {"error": self._error}
                lines.write(json.dumps(answer).encode() + b"\n")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


Identity = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def _make_identity() -> tuple[bytes, Identity]:
    """A CA's certificate in PEM, and the key and certificate of a server under it."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("simulated CAS root", ca_key, None, ca_key)
    leaf = _certificate("simulated CAS", key, ca, ca_key)
    return ca.public_bytes(Encoding.PEM), (key, leaf)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _context(identity: Identity) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey(identity[0])
    context.use_certificate(identity[1])
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    return context
