"""Tokens and key sets of Microsoft Azure Attestation: bytes to fields. Nothing here is authenticated; `verify` does."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import InvalidKeyError
from jwt.algorithms import RSAAlgorithm

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.claims import JsonValue

MAX_TOKEN_BYTES = 32 * 1024
MAX_KEY_SET_BYTES = 256 * 1024
MAX_KEYS = 64
MAX_KEY_ID_CHARACTERS = 256
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
KEY_SETS_REMEMBERED = 16

_PARTS = 3
# Prefix in a token, prefix shown, claims.
_OF_TEES = (
    ("x-ms-sgx-", "sgx_", ("mrenclave", "mrsigner", "product-id", "svn", "is-debuggable", "report-data")),
    (
        "x-ms-sevsnpvm-",
        "snp_",
        (
            "launchmeasurement",
            "hostdata",
            "idkeydigest",
            "imageId",
            "familyId",
            "guestsvn",
            "is-debuggable",
            "migration-allowed",
            "reportdata",
            "reportid",
            "vmpl",
            "bootloader-svn",
            "microcode-svn",
            "snpfw-svn",
            "tee-svn",
        ),
    ),
)
_HASH_BYTES, _REPORT_DATA_BYTES = 32, 64
_MAX_U16 = 0xFFFF


@dataclass(frozen=True, kw_only=True)
class UnverifiedToken:
    """What a token says before anybody has looked at its signature: good for finding the key, and for nothing else."""

    key_id: str


@dataclass(frozen=True, kw_only=True)
class KeySet:
    """keys: RSA keys of MIN_RSA_BITS to MAX_RSA_BITS by `kid`. unfit: of the other keys."""

    keys: Mapping[str, rsa.RSAPublicKey]
    unfit: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class SgxPayload:
    """The claims about an SGX enclave that matter here, of a token of type `sgx`. Sizes as in `evidence.Claims`."""

    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    debug: bool
    report_data: bytes


def parse_token(data: bytes) -> UnverifiedToken:
    """Read what is needed to find the key of a token. Authenticates nothing.

    A JWS in compact form (RFC 7515, 3.1): three parts in base64url without padding, joined by dots; the first is a JSON
    object with `kid`, text. `jku`, `x5c` and the like, by which a token would choose its own key, are not looked at.
    Raises EvidenceFormatError, and nothing else for any bytes: over MAX_TOKEN_BYTES, not of this form, an extension
    (`crit`).
    """
    if len(data) > MAX_TOKEN_BYTES:
        raise EvidenceFormatError(f"MAA token: {len(data)} bytes, expected at most {MAX_TOKEN_BYTES}")
    parts = data.split(b".")
    if len(parts) != _PARTS:
        raise EvidenceFormatError(f"MAA token: {len(parts)} parts joined by dots, expected {_PARTS}")
    header = _object(_base64url(parts[0], "header"), "MAA token, header")
    if "crit" in header:
        raise EvidenceFormatError("MAA token, header: crit is not supported, expected none")
    return UnverifiedToken(key_id=_key_id(header, "MAA token, header"))


@lru_cache(maxsize=KEY_SETS_REMEMBERED)
def parse_key_set(data: bytes) -> KeySet:
    """Read the keys of an attestation service. Authenticates nothing: the caller fetched them from the right server.

    A JSON object (RFC 7517, 5) with `keys`, a list of objects with `kid`, and either `n` and `e` or `x5c`, whose first
    certificate (RFC 7517, 4.7; base64 of DER) has the key. Of certificates nothing but the key counts. A key of another
    type, size or `use` than `sig` is `unfit`, as is one that cannot be read.
    Raises EvidenceFormatError: over MAX_KEY_SET_BYTES or MAX_KEYS, not of this form, two keys of one `kid`.
    """
    if len(data) > MAX_KEY_SET_BYTES:
        raise EvidenceFormatError(f"MAA key set: {len(data)} bytes, expected at most {MAX_KEY_SET_BYTES}")
    entries = _object(data, "MAA key set").get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise EvidenceFormatError(f"MAA key set: keys is no list of at most {MAX_KEYS} keys")
    keys: dict[str, rsa.RSAPublicKey] = {}
    unfit: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"MAA key set, keys[{index}]"
        if not isinstance(entry, dict):
            raise EvidenceFormatError(f"{where}: expected a JSON object")
        key_id, key = _key_id(entry, where), _rsa_key(entry)
        if key_id in keys or key_id in unfit:
            raise EvidenceFormatError(f"{where}: two keys have the kid {key_id!r}")
        if key is None:
            unfit.add(key_id)
        else:
            keys[key_id] = key
    return KeySet(keys=keys, unfit=frozenset(unfit))


def parse_sgx_payload(payload: bytes) -> SgxPayload:
    """The claims of a token of type `sgx`: `x-ms-sgx-mrenclave`, `-mrsigner`, `-product-id`, `-svn`, `-is-debuggable`
    and `-report-data`. Copies under other names, which a policy may have made, are not looked at.

    Raises EvidenceRefusedError: a token about something else. EvidenceFormatError: a claim is missing or of another
    form. Source: Azure Attestation, "Claim sets"; vectors/maa.
    """
    claims = _object(payload, "MAA token, payload")
    kind = claims.get("x-ms-attestation-type")
    if kind != "sgx":
        found = kind[:32] if isinstance(kind, str) else "none"
        raise EvidenceRefusedError(f"the token is of x-ms-attestation-type {found!r}, expected 'sgx'")
    return SgxPayload(
        mrenclave=_hex(claims, "x-ms-sgx-mrenclave", _HASH_BYTES),
        mrsigner=_hex(claims, "x-ms-sgx-mrsigner", _HASH_BYTES),
        isvprodid=_u16(claims, "x-ms-sgx-product-id"),
        isvsvn=_u16(claims, "x-ms-sgx-svn"),
        debug=_boolean(claims, "x-ms-sgx-is-debuggable"),
        report_data=_hex(claims, "x-ms-sgx-report-data", _REPORT_DATA_BYTES),
    )


@dataclass(frozen=True, kw_only=True)
class Validity:
    """Who issued a token, and from when until when it is valid (RFC 7519, 4.1: `iss`, `nbf`, `exp`)."""

    issuer: str
    not_before: datetime
    expires: datetime


def parse_validity(payload: bytes) -> Validity:
    """The registered claims of a token. Raises EvidenceFormatError: one is missing or of another form."""
    claims = _object(payload, "MAA token, payload")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise EvidenceFormatError("MAA token, payload: iss is missing or not text")
    return Validity(issuer=issuer, not_before=_time(claims, "nbf"), expires=_time(claims, "exp"))


def _object(data: bytes, where: str) -> dict[str, object]:
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise EvidenceFormatError(f"{where}: not JSON, expected an object in UTF-8")
    return members


def _base64url(part: bytes, name: str) -> bytes:
    try:
        return urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise EvidenceFormatError(f"MAA token: {name} is not base64url") from None


def _key_id(members: dict[str, object], where: str) -> str:
    key_id = members.get("kid")
    if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID_CHARACTERS:
        raise EvidenceFormatError(f"{where}: kid is missing, or no text of at most {MAX_KEY_ID_CHARACTERS} characters")
    return key_id


def _rsa_key(entry: dict[str, object]) -> rsa.RSAPublicKey | None:
    if entry.get("use", "sig") != "sig":
        return None
    try:
        key = _certified_key(entry) if "n" not in entry else _bare_key(entry)
    except (ValueError, TypeError, InvalidKeyError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None
    return key if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else None


def _bare_key(entry: dict[str, object]) -> object:
    if entry.get("kty") != "RSA" or not isinstance(entry["n"], str) or not isinstance(entry.get("e"), str):
        return None
    return RSAAlgorithm.from_jwk({"kty": "RSA", "n": entry["n"], "e": str(entry["e"])})


def _certified_key(entry: dict[str, object]) -> object:
    chain = entry.get("x5c")
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        return None
    return x509.load_der_x509_certificate(b64decode(chain[0], validate=True)).public_key()


def _hex(claims: dict[str, object], name: str, size: int) -> bytes:
    value = claims.get(name)
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != size:
        raise EvidenceFormatError(f"MAA token, payload: {name} is missing or not {2 * size} hex digits")
    return data


def _u16(claims: dict[str, object], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_U16:
        raise EvidenceFormatError(f"MAA token, payload: {name} is missing or no number from 0 to {_MAX_U16}")
    return value


def _boolean(claims: dict[str, object], name: str) -> bool:
    value = claims.get(name)
    if not isinstance(value, bool):
        raise EvidenceFormatError(f"MAA token, payload: {name} is missing or neither true nor false")
    return value


def _time(claims: dict[str, object], name: str) -> datetime:
    value = claims.get(name)
    if type(value) is int:
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError):
            pass
    raise EvidenceFormatError(f"MAA token, payload: {name} is missing or no number of seconds since 1970")


def shown(token: bytes) -> dict[str, JsonValue]:
    """What a token says, for people and programs to read, whatever its type. Authenticates nothing.

    Header: alg, jku, kid. Registered claims: iss, iat, nbf, exp, jti. Of the rest the claims of the TEE: `x-ms-sgx-…`
    as `sgx_…`, `x-ms-sevsnpvm-…` as `snp_…`, also where a token of type `azurevm` has them in `x-ms-isolation-tee`.
    Raises EvidenceFormatError, and nothing else for any bytes.
    """
    parse_token(token)
    parts = token.split(b".")
    header = _object(_base64url(parts[0], "header"), "MAA token, header")
    claims = _object(_base64url(parts[1], "payload"), "MAA token, payload")
    fields: dict[str, object] = {name: header.get(name) for name in ("alg", "jku", "kid")}
    fields |= {name: claims.get(name) for name in ("iss", "iat", "nbf", "exp", "jti")}
    for name in ("ver", "attestation-type", "policy-hash"):
        fields[name.replace("-", "_")] = claims.get(f"x-ms-{name}")
    isolated = claims.get("x-ms-isolation-tee")
    tee = isolated if isinstance(isolated, dict) else claims
    for prefix, short, names in _OF_TEES:
        for name in names:
            if prefix + name in tee:
                fields[short + name.lower().replace("-", "_")] = tee[prefix + name]
    if "x-ms-sgx-ehd" in claims:
        fields["ehd"] = claims["x-ms-sgx-ehd"]
    if isinstance(isolated, dict):
        runtime = claims.get("x-ms-runtime")
        payload = runtime.get("client-payload") if isinstance(runtime, dict) else None
        fields |= {
            "isolation_tee_type": isolated.get("x-ms-attestation-type"),
            "compliance_status": isolated.get("x-ms-compliance-status"),
            "secureboot": claims.get("secureboot"),
            "vmid": claims.get("x-ms-azurevm-vmid"),
            "attested_pcrs": claims.get("x-ms-azurevm-attested-pcrs"),
            "nonce": payload.get("nonce") if isinstance(payload, dict) else None,
        }
    return {name: _json(value) for name, value in fields.items()}


def _json(value: object) -> JsonValue:
    """A value as JSON gave it; numbers that are no integers as their text."""
    if isinstance(value, float):
        return str(value)
    return cast(JsonValue, value)
