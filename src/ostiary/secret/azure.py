"""What is asked of Azure's directory and key vault, and what their answers mean. Pure: `ostiary.https` does the asking.

Sources: session language, 7 and 9.1; RFC 6749, 4.4 and 5; RFC 7521, 4.2; RFC 7523, 3; Microsoft identity platform,
"OAuth 2.0 client credentials flow" and "Application authentication certificate credentials"; Key Vault REST API 7.4,
"Get Secret" and "Set Secret".
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ostiary.errors import OutsideError, ReleaseRefusedError
from ostiary.https import Answer
from ostiary.secret.vault import VaultEntry
from ostiary.session.model import AadTokenSecret, AkvSecret

API_VERSION = "7.4"
MAX_TOKEN_ANSWER_BYTES = 64 * 1024
MAX_VAULT_ANSWER_BYTES = 256 * 1024
"""A vault holds 25 KB a secret; JSON may write each of its bytes as six."""
MAX_TOKEN_CHARACTERS = 16 * 1024
ASSERTION_LIFE = timedelta(minutes=5)

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TENANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_ENTRY_NAME = re.compile(r"[A-Za-z0-9-]{1,127}")
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_VERSION = re.compile(r"[A-Za-z0-9]{1,64}")
_CODE = re.compile(r"[A-Za-z0-9_]{1,64}")
_SHA1_DIGITS = 40


@dataclass(frozen=True, kw_only=True)
class AzureCloud:
    """One of Azure's clouds, as the owner of the service names it; the public one by default.

    directory: `https://HOST[:PORT]` that gives tokens. vault_domain: key vaults are this host and those below it; a
    token is asked for that domain, and goes nowhere else. vault_port: of all of them. anchors: PEM certificates, of
    which one must vouch for each of these servers; None: those of the operating system.
    """

    directory: str = "https://login.microsoftonline.com"
    vault_domain: str = "vault.azure.net"
    vault_port: int = 443
    anchors: str | None = field(default=None, repr=False)

    @property
    def scope(self) -> str:
        """What a token is asked for: all that the application may do in the vaults of this cloud."""
        return f"https://{self.vault_domain}/.default"


PUBLIC_CLOUD = AzureCloud()


@dataclass(frozen=True, kw_only=True)
class AzureRequest:
    """One request; it holds a credential, so that nothing of it but the host belongs in a log."""

    url: str
    method: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


def token_request(
    secret: AadTokenSecret, cloud: AzureCloud, *, now: datetime, random: Callable[[int], bytes]
) -> AzureRequest:
    """Ask the directory for a token of the application, with its secret or with an assertion that its key signed.

    now: aware. random: n bytes of a cryptographic generator, for the assertion's id.
    Raises ReleaseRefusedError: a tenant that is no name, a key that cannot be read.
    """
    if not _TENANT.fullmatch(secret.tenant_id):
        raise ReleaseRefusedError("tenant_id is no id or domain name of a directory; copy it from the registration")
    url = f"{cloud.directory}/{secret.tenant_id}/oauth2/v2.0/token"
    form = {"client_id": secret.client_id, "scope": cloud.scope, "grant_type": "client_credentials"}
    if secret.application_secret is not None:
        form["client_secret"] = secret.application_secret
    else:
        form["client_assertion_type"] = _ASSERTION_TYPE
        form["client_assertion"] = _assertion(secret, audience=url, now=now, random=random)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return AzureRequest(url=url, method="POST", headers=headers, body=urlencode(form).encode("ascii"))


def read_token(answer: Answer) -> str:
    """The token in an answer of the directory.

    Guarantees: it is a bearer token of the form of RFC 6750, 2.1. Not guaranteed: anything that it says.
    Raises OutsideError, which never quotes it.
    """
    if answer.status != 200:
        raise _refused("the directory", answer, _directory_codes(answer.body))
    members = _object("the directory", answer.body)
    kind, token = members.get("token_type"), members.get("access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise OutsideError("the directory gave a token of another type than Bearer")
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS or not _BEARER_TOKEN.fullmatch(token):
        raise OutsideError(f"the directory gave no access_token, or none of at most {MAX_TOKEN_CHARACTERS} characters")
    return token


def vault_request(secret: AkvSecret, cloud: AzureCloud, token: str) -> AzureRequest:
    """Ask a key vault for the newest version of a secret.

    Guarantees: `token` goes to a host of the cloud's vault domain only.
    Raises ReleaseRefusedError: a vault elsewhere, a name that no vault has.
    """
    if not _ENTRY_NAME.fullmatch(secret.secret_name):
        raise ReleaseRefusedError(
            f"secret_name {secret.secret_name!r} is no name in a key vault, which has 1 to 127 letters, digits and -"
        )
    return get_request(secret.vault, secret.secret_name, cloud, token)


def get_request(vault: str, name: str, cloud: AzureCloud, token: str) -> AzureRequest:
    """Ask a vault for the newest version of what it holds under `name`. Guarantees and raises as `vault_request`."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    return AzureRequest(url=_vault_url(vault, name, cloud), method="GET", headers=headers)


def put_request(vault: str, name: str, value: str, cloud: AzureCloud, token: str) -> AzureRequest:
    """Make `value`, at most 25,000 characters, the newest version under `name`. Otherwise as `get_request`."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    body = json.dumps({"value": value}).encode()
    return AzureRequest(url=_vault_url(vault, name, cloud), method="PUT", headers=headers, body=body)


def _vault_url(vault: str, name: str, cloud: AzureCloud) -> str:
    if vault != cloud.vault_domain and not vault.endswith(f".{cloud.vault_domain}"):
        raise ReleaseRefusedError(
            f"vault {vault} is not below {cloud.vault_domain}, the only place of key vaults that this service asks",
            "correct the vault in the session; the owner of the service can name another cloud",
        )
    return f"https://{vault}:{cloud.vault_port}/secrets/{quote(name, safe='')}?api-version={API_VERSION}"


def read_entry(answer: Answer) -> VaultEntry:
    """The secret in an answer of a key vault, to a GET or a PUT. Raises OutsideError, which never quotes it.

    Its version is the last part of its `id`, `https://VAULT/secrets/NAME/VERSION`; "" if that names none.
    """
    if answer.status != 200:
        raise _refused("the key vault", answer, _vault_codes(answer.body))
    members = _object("the key vault", answer.body)
    value, kind, place = members.get("value"), members.get("contentType"), members.get("id")
    if not isinstance(value, str) or not isinstance(kind, str | None):
        raise OutsideError("the key vault gave no value that is text, or a contentType that is none")
    version = place.rpartition("/")[2] if isinstance(place, str) else ""
    return VaultEntry(text=value, type=kind or "", version=version if _VERSION.fullmatch(version) else "")


def _assertion(secret: AadTokenSecret, *, audience: str, now: datetime, random: Callable[[int], bytes]) -> str:
    """A JWT that names the certificate by its thumbprint: of SHA-1 in `x5t` with RS256, of SHA-256 in `x5t#S256`
    with PS256, as the directory's documentation had it before and has it since it prefers SHA-256.
    """
    thumbprint = secret.certificate_thumbprint or ""
    old = len(thumbprint) == _SHA1_DIGITS
    header = {"x5t" if old else "x5t#S256": _base64url(bytes.fromhex(thumbprint))}
    issued = int(now.timestamp())
    claims = {
        "aud": audience,
        "iss": secret.client_id,
        "sub": secret.client_id,
        "jti": str(UUID(bytes=random(16), version=4)),
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(ASSERTION_LIFE.total_seconds()),
    }
    return jwt.encode(claims, _key(secret), algorithm="RS256" if old else "PS256", headers=header)


def _key(secret: AadTokenSecret) -> rsa.RSAPrivateKey:
    """Whether its parts belong together is not checked, which takes long: then the directory refuses the signature."""
    try:
        key = load_pem_private_key((secret.private_key or "").encode(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ReleaseRefusedError("private_key is no RSA key that can be used; write it as openssl pkcs8 -topk8 does")
    return key


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _object(who: str, body: bytes) -> dict[str, object]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise OutsideError(f"{who} answered with something else than a JSON object")
    return members


def _refused(who: str, answer: Answer, codes: list[str]) -> OutsideError:
    """Status and codes, which are of a fixed form; never the sentences beside them, which may quote anything."""
    wait = answer.headers.get("retry-after", "")
    told = [", ".join(codes)] if codes else []
    if wait.isascii() and wait.isdecimal() and len(wait) < 7:
        told.append(f"it asks to come back in {wait} s")
    return OutsideError(f"{who} refused with status {answer.status}", *told)


def _directory_codes(body: bytes) -> list[str]:
    members = _members(body)
    numbers = members.get("error_codes")
    numbers = numbers[:4] if isinstance(numbers, list) else []
    return [*_codes(members.get("error")), *(f"AADSTS{n}" for n in numbers if type(n) is int and 0 < n < 10**9)]


def _vault_codes(body: bytes) -> list[str]:
    error = _members(body).get("error")
    inner = error.get("innererror") if isinstance(error, dict) else None
    return [
        *_codes(error.get("code") if isinstance(error, dict) else None),
        *_codes(inner.get("code") if isinstance(inner, dict) else None),
    ]


def _codes(code: object) -> list[str]:
    return [code] if isinstance(code, str) and _CODE.fullmatch(code) else []


def _members(body: bytes) -> dict[str, object]:
    try:
        return _object("", body)
    except OutsideError:
        return {}
