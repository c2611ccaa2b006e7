"""The real service on loopback, in a thread of the test, and the ways a test talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from os import urandom
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from ostiary.audit import Frontier
from ostiary.broker.cas import Cas
from ostiary.broker.identity import DEFAULT_NAMES, ServerIdentity, open_identity
from ostiary.broker.open import make_cas
from ostiary.evidence.roots import TrustedRoot
from ostiary.secret.azure import PUBLIC_CLOUD, AzureCloud
from ostiary.server.listen import Listener, bind, serve
from ostiary.server.service import make_listeners
from ostiary.store import open_store

TIMEOUT_SECONDS = 60


@dataclass
class Clock:
    """The service's time: the real one, or one that stands still at `fixed`; tests move it by `ahead`."""

    fixed: datetime | None = None
    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return (self.fixed or datetime.now(UTC)) + self.ahead


@dataclass(frozen=True, kw_only=True)
class Answer:
    """status and parsed JSON body of an answer."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunningService:
    """Ports on 127.0.0.1, the CA file, and the parts inside, for tests that look there."""

    cas: Cas
    identity: ServerIdentity
    client_port: int
    enclave_port: int
    ca_file: Path
    clock: Clock


@contextlib.contextmanager
def running_service(
    directory: Path,
    *,
    roots: tuple[TrustedRoot, ...] = (),
    fixed_time: datetime | None = None,
    azure: AzureCloud = PUBLIC_CLOUD,
    aks: frozenset[bytes] = frozenset(),
) -> Iterator[RunningService]:
    """A service with its state in `directory`, running until the block ends."""
    clock = Clock(fixed=fixed_time)
    with open_store(directory, random=urandom, log=Frontier(), warn=lambda _: None) as store:
        cas = make_cas(store, roots=roots, now=clock, random=urandom, azure=azure, aks=aks)
        identity = open_identity(cas, DEFAULT_NAMES)
        ca_file = directory / "cas-ca.pem"
        ca_file.write_bytes(identity.root.public_bytes(Encoding.PEM))
        client, enclave = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        service = RunningService(
            cas=cas,
            identity=identity,
            client_port=client.getsockname()[1],
            enclave_port=enclave.getsockname()[1],
            ca_file=ca_file,
            clock=clock,
        )
        with _running(make_listeners(cas, identity, client=client, enclave=enclave)):
            yield service
        cas.outside.close()


@contextlib.contextmanager
def _running(listeners: Sequence[Listener]) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(listeners, stop)), name="service")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(TIMEOUT_SECONDS)
        loop.close()


@dataclass(frozen=True, kw_only=True)
class Client:
    """Somebody with a TLS client certificate, or without one."""

    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A TLS client context that shows our certificate and does not verify the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def connect(self, port: int) -> http.client.HTTPSConnection:
        """A connection to keep for several requests."""
        return http.client.HTTPSConnection("127.0.0.1", port, context=self.context(), timeout=TIMEOUT_SECONDS)

    def request(self, port: int, method: str, path: str, body: bytes | None = None) -> Answer:
        """One request on a connection of its own."""
        with contextlib.closing(self.connect(port)) as connection:
            return exchange(connection, method, path, body)


def exchange(connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None = None) -> Answer:
    """One request on an open connection."""
    connection.request(method, path, body)
    response = connection.getresponse()
    text = response.read()
    return Answer(
        status=response.status,
        body=json.loads(text) if text else None,
        headers={name.lower(): value for name, value in response.getheaders()},
    )


def make_client(directory: Path, name: str, *options: str) -> Client:
    """A client with a new self-signed certificate, made by openssl; `options` replace the default P-256 key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    algorithm = options or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", *algorithm, "-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
    )
    return Client(certificate=certificate, key=key)
