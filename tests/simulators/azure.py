"""Azure's directory, key vaults and attestation service at one address on loopback."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.simulators.canned import answer
from tests.simulators.outside import LOOPBACK, Answering, Outside

from ostiary.secret.azure import AzureCloud

MAX_VALUE_CHARACTERS = 25_000
ENTRY_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
LOCALHOST = x509.DNSName("localhost")
TENANT, CLIENT, SECRET = "0dbfba1e-8d1a-4d0a-a3a4-3b1f0b9d9a10", "7c2b5b0e-3f7d-4b9a-9a55-1d5f3e7c2b60", "app-s3cret+&="
TOKEN = "ey.the-token.x"
DIRECTORY_REFUSAL = {
    "error": "invalid_client",
    "error_description": f"AADSTS7000215: Invalid client secret provided, {SECRET}.",
    "error_codes": [7000215],
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request that the simulator was sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]
    body: bytes


def parse_request(request: bytes) -> Asked:
    """The parts of a request."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    method, target, _ = first.split(" ")
    parts = urlsplit(target)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    is_form = headers.get("content-type") == "application/x-www-form-urlencoded"
    return Asked(
        method=method,
        path=parts.path,
        query={name: value for name, (value,) in parse_qs(parts.query).items()},
        headers=headers,
        form={name: value for name, (value,) in parse_qs(body.decode("ascii")).items()} if is_form else {},
        body=body,
    )


class Azure:
    """entries: what the vault holds, by name, as it answers. application_key: verifies the application's assertions.

    in_place_of: answers to one path, instead of what the simulator would say. in_place_of_vault: answers to one method
    of every vault. written: by host of the vault and name, all versions that were put there, the newest last.
    """

    def __init__(self, directory: Path, *names: x509.GeneralName) -> None:
        self.server = Outside(directory, self._answer, *(names or (LOOPBACK, LOCALHOST)))
        self.entries: dict[str, dict[str, object]] = {}
        self.application_key: rsa.RSAPublicKey | None = None
        self.application_secret = SECRET
        self.in_place_of: dict[str, Answering] = {}
        self.in_place_of_vault: dict[str, Answering] = {}
        self.written: dict[str, dict[str, list[dict[str, object]]]] = {}
        self._versions = count(1)
        self.certs: Callable[[], bytes] = lambda: answer(404, {})

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    @property
    def cloud(self) -> AzureCloud:
        """How a service is told of it."""
        return AzureCloud(
            directory=self.server.url,
            vault_domain="localhost",
            vault_port=self.port,
            anchors=self.server.certificate,
        )

    @property
    def asked(self) -> list[Asked]:
        return [parse_request(request) for request in self.server.requests]

    @property
    def token_path(self) -> str:
        return f"/{TENANT}/oauth2/v2.0/token"

    def forget(self) -> None:
        """As if nothing had been asked, and nothing been set."""
        self.server.requests.clear()
        self.in_place_of.clear()
        self.in_place_of_vault.clear()
        self.entries.clear()
        self.written.clear()
        self.application_key = None
        self.application_secret = SECRET

    def _answer(self, request: bytes, stream: ssl.SSLSocket) -> None:
        asked = parse_request(request)
        if asked.path in self.in_place_of:
            self.in_place_of[asked.path](request, stream)
        elif asked.path == self.token_path:
            stream.sendall(self._directory(asked))
        elif asked.path.startswith("/secrets/") and asked.method in self.in_place_of_vault:
            self.in_place_of_vault[asked.method](request, stream)
        elif asked.path.startswith("/secrets/"):
            stream.sendall(self._vault(asked))
        elif asked.path == "/certs":
            stream.sendall(self.certs())
        else:
            stream.sendall(answer(404, {}))

    def _directory(self, asked: Asked) -> bytes:
        form = asked.form
        right = asked.method == "POST" and asked.headers["content-type"] == "application/x-www-form-urlencoded"
        right &= (form["grant_type"], form["scope"]) == ("client_credentials", "https://localhost/.default")
        if not right:
            return answer(400, {"error": "invalid_request", "error_codes": [90014]})
        if form["client_id"] != CLIENT or not (
            form.get("client_secret") == self.application_secret or self._asserted(form)
        ):
            return answer(401, DIRECTORY_REFUSAL)
        return answer(200, {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": TOKEN})

    def _asserted(self, form: dict[str, str]) -> bool:
        if (
            self.application_key is None
            or form.get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        ):
            return False
        try:
            claims = jwt.decode(
                form["client_assertion"],
                self.application_key,
                algorithms=["RS256", "PS256"],
                audience=f"{self.server.url}{self.token_path}",
                issuer=CLIENT,
                subject=CLIENT,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["jti", "exp"]},
            )
        except jwt.InvalidTokenError:
            return False
        return bool(0 < claims["exp"] - claims["nbf"] <= 600)

    def vault(self, request: bytes) -> bytes:
        """What a vault answers."""
        return self._vault(parse_request(request))

    def _vault(self, asked: Asked) -> bytes:
        if asked.query != {"api-version": "7.4"} or asked.method not in ("GET", "PUT"):
            return answer(400, {"error": {"code": "BadParameter", "message": "?"}})
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return answer(401, {"error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a token."}})
        name = asked.path.removeprefix("/secrets/")
        versions = self.written.setdefault(asked.headers["host"].partition(":")[0], {})
        if asked.method == "PUT":
            return self._put(asked, name, versions)
        if versions.get(name):
            return answer(200, versions[name][-1])
        entry = self.entries.get(name)
        if entry is None:
            return answer(404, {"error": {"code": "SecretNotFound", "message": "A secret was not found."}})
        return answer(200, {"id": f"https://localhost{asked.path}/1", "attributes": {"enabled": True}, **entry})

    def _put(self, asked: Asked, name: str, versions: dict[str, list[dict[str, object]]]) -> bytes:
        members = json.loads(asked.body)
        value = members.pop("value", None)
        fits = isinstance(value, str) and len(value) <= MAX_VALUE_CHARACTERS and not members
        if asked.headers.get("content-type") != "application/json" or not fits or not ENTRY_NAME.fullmatch(name):
            return answer(400, {"error": {"code": "BadParameter", "message": "?"}})
        entry = {
            "value": value,
            "id": f"https://{asked.headers['host']}/secrets/{name}/{next(self._versions):032x}",
            "attributes": {"enabled": True, "recoveryLevel": "Recoverable+Purgeable"},
        }
        versions.setdefault(name, []).append(entry)
        return answer(200, entry)
