"""X.509 certificates: issued, read from a session text, judged due for renewal.

Source: RFC 5280; section numbers stand where a rule is applied. Signatures use the cryptography library's own
randomness (ECDSA); serial numbers come from the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ostiary.errors import InputError
from ostiary.secret.pem import pem_labels
from ostiary.secret.private_key import PrivateKey, load_private_key, signature_hash
from ostiary.secret.value import CertificateValue, PrivateKeyValue, format_instant
from ostiary.session.model import X509CaSecret, X509Secret

NOT_BEFORE_SKEW = timedelta(hours=1)  # so that a peer whose clock is behind accepts a new certificate
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # section 4.1.2.5: no well-defined end
RENEWAL_FRACTION = 3  # due when one third of the lifetime is left
MAX_CHAIN_CERTIFICATES = 16  # every certificate carries its chain, so that a long one costs its square in bytes
MAX_COMMON_NAME_CHARACTERS = 64  # ub-common-name, appendix A.1
MAX_DNS_NAME_CHARACTERS = 253
_SERIAL_BYTES = 20  # section 4.1.2.2: at most 20 octets

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_ENDPOINT_USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}

CertificateSecret: TypeAlias = X509CaSecret | X509Secret
AlternativeName: TypeAlias = str | IPv4Address | IPv6Address
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def issue_certificate(
    secret: CertificateSecret,
    *,
    key: PrivateKeyValue,
    issuer: CertificateValue | None,
    random: Callable[[int], bytes],
    now: datetime,
) -> CertificateValue:
    """Certify `key` as the session declares it, signed by `issuer`, or by itself if `issuer` is None.

    Guarantees: version 3; serial positive, 20 bytes, 158 of its bits from `random`; valid from NOT_BEFORE_SKEW before
    `now` to `valid_for` after it (FOREVER if none), but never beyond the issuer; critical BasicConstraints and
    KeyUsage; SubjectKeyIdentifier and AuthorityKeyIdentifier; ExtendedKeyUsage as `endpoint` says; the names of `dns`
    or `san` in SubjectAlternativeName, each once. The path to the root verifies at `now` if the issuer's own does.
    Does not guarantee: that name constraints of an explicit issuer admit the names.

    Raises InputError: the issuer is no CA, has expired, has no private key here, admits no further CA below it, or its
    chain is over MAX_CHAIN_CERTIFICATES; a name does not fit into a certificate.
    """
    private_key = load_private_key(key)
    chain = _chain_through(issuer, to_ca=isinstance(secret, X509CaSecret), now=now)
    subject = _subject(secret, self_signed=issuer is None)
    signer, issuer_name, authority_key_id = _authority(issuer, private_key, subject)
    not_before = now.astimezone(UTC).replace(microsecond=0) - NOT_BEFORE_SKEW
    not_after = _not_after(secret.valid_for, not_before + NOT_BEFORE_SKEW, issuer)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer_name)
        .subject_name(subject)
        .public_key(private_key.public_key())
        .serial_number(_serial(random))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(authority_key_id, critical=False)
    )
    for extension, critical in _extensions(secret, private_key, subject):
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(signer, signature_hash(signer))
    return CertificateValue(
        certificate_der=certificate.public_bytes(Encoding.DER),
        chain_der=chain,
        private_key=key.pkcs8_der,
        not_before=not_before,
        not_after=not_after,
    )


def parse_certificate(text: str, *, key: PrivateKeyValue | None) -> CertificateValue:
    """A certificate given in a session text: PEM blocks `CERTIFICATE`, the first is meant, the rest is its chain.

    Guarantees: all blocks parse, the chain is at most MAX_CHAIN_CERTIFICATES long, and `key`, if given, is the
    certified key. Does not guarantee: that the chain verifies, is in order, or that anything is valid now.
    Raises InputError.
    """
    labels = pem_labels(text)
    if not labels or set(labels) != {"CERTIFICATE"}:
        raise InputError("value is not PEM with blocks 'CERTIFICATE' only; give the certificate, then its chain")
    if len(labels) > 1 + MAX_CHAIN_CERTIFICATES:
        raise InputError(f"value holds {len(labels)} certificates, expected at most {1 + MAX_CHAIN_CERTIFICATES}")
    certificate, *chain = _load_pem(text)
    if key is not None and _spki(certificate.public_key()) != _spki(load_private_key(key).public_key()):
        raise InputError("private_key is not the key of the certificate in value; name the matching key, or none")
    return CertificateValue(
        certificate_der=certificate.public_bytes(Encoding.DER),
        chain_der=tuple(link.public_bytes(Encoding.DER) for link in chain),
        private_key=None if key is None else key.pkcs8_der,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def renewal_time(value: CertificateValue) -> datetime:
    """When a certificate that `issue_certificate` made is due: one third of its lifetime is then left."""
    lifetime = value.not_after - (value.not_before + NOT_BEFORE_SKEW)
    return value.not_after - lifetime / RENEWAL_FRACTION


def needs_renewal(value: CertificateValue, now: datetime) -> bool:
    """Whether a certificate that `issue_certificate` made is due at `now`. Not for certificates given in a text."""
    return now >= renewal_time(value)


def chain_below(issuer: CertificateValue | None) -> tuple[bytes, ...]:
    """The chain of every certificate that `issuer` signs, or of a self-signed one if it is None."""
    return () if issuer is None else (issuer.certificate_der, *issuer.chain_der)


def _chain_through(issuer: CertificateValue | None, *, to_ca: bool, now: datetime) -> tuple[bytes, ...]:
    """The chain of what `issuer` signs. Raises InputError if a certificate signed by it would not verify."""
    if issuer is None:
        return ()
    if issuer.not_after <= now:
        raise InputError(f"the issuer expired at {format_instant(issuer.not_after)}; give a newer one")
    chain = chain_below(issuer)
    if len(chain) > MAX_CHAIN_CERTIFICATES:
        raise InputError(f"the chain has {len(chain)} certificates, expected at most {MAX_CHAIN_CERTIFICATES}")
    for position, der in enumerate(chain):
        _check_may_sign(x509.load_der_x509_certificate(der), cas_below=position + to_ca)
    return chain


def _check_may_sign(certificate: x509.Certificate, *, cas_below: int) -> None:
    """Section 4.2.1.9 and 4.2.1.3, as path validation (6.1.4 k, l, n) applies them."""
    constraints = _find_extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise InputError("the issuer is not a CA certificate; name an x509-ca secret")
    usage = _find_extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise InputError("the key usage of the issuer has no certificate signing; give another CA certificate")
    if constraints.path_length is not None and constraints.path_length < cas_below:
        raise InputError(
            f"the issuer's path length is {constraints.path_length}, expected at least {cas_below}; shorten the chain"
        )


def _authority(
    issuer: CertificateValue | None, own_key: PrivateKey, subject: x509.Name
) -> tuple[PrivateKey, x509.Name, x509.AuthorityKeyIdentifier]:
    """Who signs, under which name, and the key identifier by which verifiers find it (section 4.2.1.1)."""
    if issuer is None:
        return own_key, subject, x509.AuthorityKeyIdentifier.from_issuer_public_key(own_key.public_key())
    if issuer.private_key is None:
        raise InputError("the issuer's private key is not known here; give the issuer its private_key")
    signer = load_private_key(PrivateKeyValue(pkcs8_der=issuer.private_key))
    certificate = x509.load_der_x509_certificate(issuer.certificate_der)
    key_id = _find_extension(certificate, x509.SubjectKeyIdentifier)
    if key_id is None:
        return signer, certificate.subject, x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return signer, certificate.subject, x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _subject(secret: CertificateSecret, *, self_signed: bool) -> x509.Name:
    """Common name: the given one, else the first DNS name, else the secret's name.

    A DNS name over the limit is left out of an end entity's subject, and then stands, critical, in its
    SubjectAlternativeName alone (sections 4.1.2.6 and 4.2.1.6). A CA and a self-signed certificate need a name
    (4.1.2.4), and a name the author wrote is never dropped: those are refused.
    """
    dns = [name for name in _alternative_names(secret) if isinstance(name, str)]
    name = next(iter(dns), secret.name) if secret.common_name is None else secret.common_name
    if secret.common_name is None and dns and len(name) > MAX_COMMON_NAME_CHARACTERS and not self_signed:
        return x509.Name([])
    if not 1 <= len(name) <= MAX_COMMON_NAME_CHARACTERS:
        raise InputError(
            f"the common name has {len(name)} characters, expected 1 to {MAX_COMMON_NAME_CHARACTERS}; "
            "give a shorter common_name"
        )
    if not name.isprintable():
        raise InputError("the common name has characters that cannot be printed; give another common_name")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _not_after(valid_for: timedelta | None, start: datetime, issuer: CertificateValue | None) -> datetime:
    wanted = FOREVER if valid_for is None or valid_for > FOREVER - start else start + valid_for
    wanted = wanted.replace(microsecond=0)
    return wanted if issuer is None else min(wanted, issuer.not_after)


def _serial(random: Callable[[int], bytes]) -> int:
    """Top bit clear, so that it is positive in 20 octets; next bit set, so that it is never zero and never shorter."""
    drawn = int.from_bytes(random(_SERIAL_BYTES), "big")
    top = 8 * _SERIAL_BYTES - 1
    return drawn & ((1 << top) - 1) | 1 << (top - 1)


def _extensions(
    secret: CertificateSecret, key: PrivateKey, subject: x509.Name
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """The extensions that do not depend on the issuer, each with whether it is critical."""
    is_ca = isinstance(secret, X509CaSecret)
    yield x509.BasicConstraints(ca=is_ca, path_length=None), True
    yield _key_usage(key, is_ca=is_ca), True
    yield x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
    if isinstance(secret, X509Secret) and secret.endpoint is not None:
        yield x509.ExtendedKeyUsage([_endpoint_usage(secret.endpoint)]), False
    if names := _alternative_names(secret):
        # Section 4.2.1.6: critical if and only if the subject is empty.
        yield x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)]), not subject.rdns


def _key_usage(key: PrivateKey, *, is_ca: bool) -> x509.KeyUsage:
    """CA: signs certificates and revocation lists. End entity: signs, and takes an encrypted key if it is RSA."""
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=not is_ca and isinstance(key, rsa.RSAPrivateKey),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _endpoint_usage(endpoint: str) -> x509.ObjectIdentifier:
    if endpoint not in _ENDPOINT_USAGE:
        raise InputError(f"endpoint is {endpoint!r}, expected 'server' or 'client'")
    return _ENDPOINT_USAGE[endpoint]


def _alternative_names(secret: CertificateSecret) -> tuple[AlternativeName, ...]:
    return (*secret.dns, *secret.san) if isinstance(secret, X509Secret) else ()


def _general_name(name: AlternativeName) -> x509.GeneralName:
    """Section 4.2.1.6: an address is 4 or 16 bytes, a host name is in ASCII."""
    if not isinstance(name, str):
        return x509.IPAddress(name)
    if len(name) > MAX_DNS_NAME_CHARACTERS or not _DNS_NAME.fullmatch(name):
        raise InputError(
            f"dns has {name[:MAX_DNS_NAME_CHARACTERS]!r}, expected an ASCII host name such as 'db.example.com' or "
            "'*.example.com'; write an international name in its xn-- form"
        )
    return x509.DNSName(name)


def _find_extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    return next((found.value for found in certificate.extensions if isinstance(found.value, kind)), None)


def _load_pem(text: str) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
        for certificate in certificates:
            _ = certificate.extensions, certificate.public_key(), certificate.subject
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise InputError(f"value holds a certificate that cannot be read ({type(error).__name__})") from None
    return certificates


def _spki(public_key: CertificatePublicKeyTypes) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
