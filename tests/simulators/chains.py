"""Certificates of a vendor that tests make themselves: a root, an intermediate, a leaf, and revocation lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ostiary.evidence.roots import TrustedRoot

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def root(self, *, software: bool = False) -> TrustedRoot:
        """This certificate, trusted."""
        return TrustedRoot(certificate_der=self.der, software=software)


def issue(
    name: str,
    issuer: Holder | None = None,
    *,
    ca: bool | None = True,
    path_length: int | None = None,
    usage: str = "key_cert_sign",
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=1),
    serial: int | None = None,
    curve: ec.EllipticCurve | None = None,
) -> Holder:
    """A certificate of a fresh key, P-384 unless told; without `issuer` self-signed. ca: None leaves the extension out.

    usage: the one use that keyUsage allows; "" leaves that extension out.
    """
    key = ec.generate_private_key(curve or ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), True)
    if usage:
        builder = builder.add_extension(key_usage(usage), True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Holder(certificate=builder.sign((issuer.key if issuer else key), hashes.SHA384()), key=key)


def key_usage(use: str) -> x509.KeyUsage:
    """keyUsage that allows one use only."""
    uses = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**uses, use: True})


def revoke(
    issuer: Holder,
    *serials: int,
    signer: Holder | None = None,
    start: datetime = NOW - timedelta(hours=1),
    end: datetime = NOW + timedelta(hours=1),
) -> x509.CertificateRevocationList:
    """A revocation list in the name of `issuer`, signed by `signer`, who is the issuer unless told."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(end)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign((signer or issuer).key, hashes.SHA384())


def pem(revocations: x509.CertificateRevocationList) -> bytes:
    """The PEM text of a revocation list."""
    return revocations.public_bytes(Encoding.PEM)
