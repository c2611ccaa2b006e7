"""A program that attests over the wire, step by step, so that a test can do one of the steps wrongly."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.simulators.service import Answer, Client, RunningService, exchange
from tests.simulators.sgx_platform import SgxPlatform

from ostiary.attester.binding import report_data


@dataclass(frozen=True, kw_only=True)
class AttestingProgram:
    """One connection to the enclave API, and what this end would sign about it."""

    connection: object
    client_spki: bytes
    server_spki: bytes

    def post(self, path: str, members: Mapping[str, str | None] | None = None) -> Answer:
        """One request on the connection."""
        body = None if members is None else json.dumps(members).encode()
        return exchange(self.connection, "POST", path, body)  # type: ignore[arg-type]

    def challenge(self) -> bytes:
        """A fresh nonce."""
        return bytes.fromhex(self.post("/v1/challenge").body["nonce"])

    def binding(self, nonce: bytes) -> bytes:
        """The report data of an honest program."""
        return report_data(nonce=nonce, client_spki=self.client_spki, server_spki=self.server_spki)

    def configure(
        self, nonce: bytes, quote: bytes, endorsements: bytes, service: str, tee: str = "sgx", **more: str
    ) -> Answer:
        """Ask for the configuration of `service`; `more` are further members."""
        return self.post(
            "/v1/configure",
            {
                "service": service,
                "nonce": nonce.hex(),
                "tee": tee,
                "evidence": base64.b64encode(quote).decode(),
                "endorsements": base64.b64encode(endorsements).decode(),
                **more,
            },
        )

    def report(self, target: str, old: str | None, new: str) -> Answer:
        """Tell that the files of `target` went from one state to another."""
        return self.post("/v1/tags", {"target": target, "old": old, "new": new})

    def start(self, platform: SgxPlatform, service: str) -> Answer:
        """Everything as an honest program does it."""
        nonce = self.challenge()
        return self.configure(nonce, platform.quote(report_data=self.binding(nonce)), platform.collateral(), service)


@contextmanager
def attesting(service: RunningService, client: Client) -> Iterator[AttestingProgram]:
    """A program whose TLS key is that of `client`."""
    if client.certificate is None:
        raise ValueError("a program needs a certificate")
    certificate = x509.load_pem_x509_certificate(client.certificate.read_bytes())
    connection = client.connect(service.enclave_port)
    try:
        yield AttestingProgram(
            connection=connection,
            client_spki=certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            server_spki=service.identity.spki,
        )
    finally:
        connection.close()
