"""A maker of TPMs: endorsement keys, the certificates that it gives them, and what a machine offers with them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID
from tests.simulators.chains import NOW, Holder, key_usage
from tests.simulators.tpm import sized

from ostiary.attester.tpm2 import ENDORSEMENT, Tpm
from ostiary.attester.tpm_enrolment import EK_KINDS
from ostiary.evidence.tpm.endorsement_key import parse_endorsement_key

EK_PURPOSE = x509.ObjectIdentifier("2.23.133.8.1")
AK_PURPOSE = x509.ObjectIdentifier("2.23.133.8.3")
POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK_ATTRIBUTES = 0x000300B2


def ek_area(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, *, attributes: int = EK_ATTRIBUTES) -> bytes:
    """TPMT_PUBLIC of a key as if a TPM had made it by the TCG's template for its kind."""
    numbers = key.public_numbers()
    common = b"\x00\x0b" + attributes.to_bytes(4, "big") + sized(POLICY) + bytes.fromhex("0006 0080 0043 0010")
    if isinstance(numbers, rsa.RSAPublicNumbers):
        size = (numbers.n.bit_length() + 7) // 8
        return b"\x00\x01" + common + bytes.fromhex("0800 00000000") + sized(numbers.n.to_bytes(size, "big"))
    x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
    return b"\x00\x23" + common + bytes.fromhex("0003 0010") + sized(x) + sized(y)


def ek_spki(path: str, kind: str) -> bytes:
    """DER SubjectPublicKeyInfo of the EK of a running TPM."""
    with Tpm(path) as device:
        handle, area = device.create_primary(ENDORSEMENT, EK_KINDS[kind].template)
        device.flush(handle)
    return parse_endorsement_key(area).spki


def certify(
    spki: bytes,
    maker: Holder,
    *,
    purposes: Sequence[x509.ObjectIdentifier] = (EK_PURPOSE,),
    use: str | None = None,
    ca: bool = False,
    critical_purpose: bool = False,
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=1),
) -> x509.Certificate:
    """An EK's certificate: no subject, the TPM named beside it. use: what keyUsage allows; "" leaves it out."""
    key = load_der_public_key(spki)
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    tpm = x509.Name(
        [
            x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.1"), "id:4F535459"),
            x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.2"), "gate\x1b[2J"),
            x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.3"), "id:00010002"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "not shown"),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(maker.certificate.subject)
        .public_key(key)
        .serial_number(0xABCDEF)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(tpm)]), True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical_purpose)
    if use is None:
        use = "key_encipherment" if isinstance(key, rsa.RSAPublicKey) else "key_agreement"
    if use:
        builder = builder.add_extension(key_usage(use), True)
    return builder.sign(maker.key, hashes.SHA384())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def offer_text(certificates: bytes, ek_public: bytes, ak_public: bytes, /, **changes: object) -> bytes:
    """An offer, JSON; `changes` replace members, ... leaves one out."""
    members: dict[str, object] = {
        "format": "ostiary-tpm-offer-v1",
        "ek_certificate": certificates.decode(),
        "ek_public": b64encode(ek_public).decode(),
        "ak_public": b64encode(ak_public).decode(),
        **changes,
    }
    return json.dumps({name: member for name, member in members.items() if member is not ...}).encode()
