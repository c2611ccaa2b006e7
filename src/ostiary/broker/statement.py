"""Denials signed by the service, so that they can be shown elsewhere. Pure; signing uses the library's randomness.

    {"denial": {…}, "signature": {"algorithm": "ES256", "chain": ["PEM of the signer", "PEM of cas-instance"],
                                  "value": "base64 of the DER signature"}}

ECDSA, P-256 and SHA-256, over the bytes of PREFIX followed by the canonical JSON of `denial`: UTF-8, keys sorted, no
blanks, integers only, which is the form of RFC 8785 for what stands in a denial. The signer's certificate is issued by
`cas-instance`, and that by `cas`, which `ostiary serve` writes to cas-ca.pem; no other certificate of this service has
the signer's name.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ostiary.errors import InputError, RefusedError
from ostiary.evidence.chain import MAX_CHAIN_CERTIFICATES, parse_certificate, verify_chain
from ostiary.evidence.roots import TrustedRoot

DENIAL_SIGNER_NAME = "cas-denials"
PREFIX = b"ostiary-denial-v1\0"
ALGORITHM = "ES256"
MAX_STATEMENT_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class StatementKey:
    """A private key, and its certificate with those that lead to the root, without that."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]


def sign_denial(denial: Mapping[str, Any], signer: StatementKey) -> dict[str, Any]:
    """The denial with the signature of the service."""
    signature = signer.key.sign(_signed(denial), ec.ECDSA(SHA256()))
    return {
        "denial": denial,
        "signature": {
            "algorithm": ALGORITHM,
            "chain": [certificate.public_bytes(Encoding.PEM).decode() for certificate in signer.chain],
            "value": b64encode(signature).decode("ascii"),
        },
    }


def verify_denial(text: bytes | str, root_pem: str, *, now: datetime) -> dict[str, Any]:
    """The denial in the JSON text that `GET /v1/denials/ID` answered with.

    Guarantees on return: the service whose root certificate is the first in `root_pem` signed this very denial, with
    certificates in force at `now` (aware). Does not guarantee that what it says of other people's machines is true.
    Raises InputError (not of this form), RefusedError (signature or chain do not hold).
    """
    statement = _parse(text)
    denial, chain, signature = statement
    try:
        root = TrustedRoot(certificate_der=_pem(root_pem).public_bytes(Encoding.DER), software=False)
        leaf = verify_chain(chain, roots=(root,), now=now).leaf
    except RefusedError as error:
        raise RefusedError("the denial was not signed by the CAS with this certificate", *error.chain) from error
    names = [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    key = leaf.public_key()
    if names != [DENIAL_SIGNER_NAME] or not isinstance(key, ec.EllipticCurvePublicKey):
        raise RefusedError(
            "the denial was signed with a key that is not for denials", f"found {names}, expected {DENIAL_SIGNER_NAME}"
        )
    try:
        key.verify(signature, _signed(denial), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise RefusedError("the denial was changed after it was signed; fetch it anew") from None
    return denial


def _signed(denial: Mapping[str, Any]) -> bytes:
    text = json.dumps(denial, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return PREFIX + text.encode("utf-8", "surrogatepass")


def _parse(text: bytes | str) -> tuple[dict[str, Any], list[x509.Certificate], bytes]:
    if len(text) > MAX_STATEMENT_BYTES:
        raise InputError(f"a signed denial has at most {MAX_STATEMENT_BYTES} bytes, found {len(text)}")
    try:
        statement = json.loads(text)
        denial, signature = statement["denial"], statement["signature"]
        algorithm, value = signature["algorithm"], b64decode(signature["value"], validate=True)
        pems = [str(pem) for pem in signature["chain"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("this is no signed denial, as `ostiary explain ID --json` prints it") from error
    if not isinstance(denial, dict) or algorithm != ALGORITHM or len(pems) > MAX_CHAIN_CERTIFICATES:
        raise InputError(f"this is no denial signed with {ALGORITHM}, as `ostiary explain ID --json` prints it")
    return denial, [_pem(pem) for pem in pems], value


def _pem(text: str) -> x509.Certificate:
    try:
        der = x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
    except ValueError:
        raise InputError("a certificate is not in PEM") from None
    return parse_certificate(der, "a certificate")
