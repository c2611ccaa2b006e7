"""Microsoft's attestation service with a key of our own: it says of an enclave whatever a test wants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from tests.simulators.sgx_platform import MR_ENCLAVE, MR_SIGNER, NOW, REPORT_DATA

LIFE = timedelta(hours=8)


@dataclass(frozen=True, kw_only=True)
class AttestationService:
    """issuer: its address. key, key_id: what it signs with."""

    issuer: str
    key_id: str = "the-key"
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048), repr=False)

    def jwk(self) -> dict[str, str]:
        """Its key, as its key set has it."""
        public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"kty": "RSA", "use": "sig", "kid": self.key_id, "n": public["n"], "e": public["e"]}

    def key_set(self) -> bytes:
        """What its server answers to GET /certs."""
        return json.dumps({"keys": [self.jwk()]}).encode()

    def claims(
        self, *, report_data: bytes = REPORT_DATA, issued: datetime = NOW, **others: object
    ) -> dict[str, object]:
        """Of the enclave that the simulated platform quotes; one of `others` that is None is left out."""
        start = int(issued.astimezone(UTC).timestamp())
        claims: dict[str, object] = {
            "exp": start + int(LIFE.total_seconds()),
            "iat": start,
            "iss": self.issuer,
            "nbf": start,
            "x-ms-attestation-type": "sgx",
            "x-ms-sgx-is-debuggable": False,
            "x-ms-sgx-mrenclave": MR_ENCLAVE.hex(),
            "x-ms-sgx-mrsigner": MR_SIGNER.hex(),
            "x-ms-sgx-product-id": 7,
            "x-ms-sgx-report-data": report_data.hex(),
            "x-ms-sgx-svn": 3,
            "x-ms-ver": "1.0",
        }
        changed = {**claims, **{name.replace("_", "-"): value for name, value in others.items()}}
        return {name: value for name, value in changed.items() if value is not None}

    def token(
        self,
        *,
        report_data: bytes = REPORT_DATA,
        issued: datetime = NOW,
        algorithm: str = "RS256",
        headers: Mapping[str, object] | None = None,
        **others: object,
    ) -> bytes:
        """A token of `claims` with these arguments."""
        header = {"kid": self.key_id, "jku": f"{self.issuer}/certs", **(headers or {})}
        claims = self.claims(report_data=report_data, issued=issued, **others)
        return jwt.encode(claims, self.key, algorithm=algorithm, headers=header).encode()
