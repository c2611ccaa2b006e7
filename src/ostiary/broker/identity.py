"""The service's own keys: a root CA `cas`, below it `cas-instance`, below that the TLS certificate of this run.

The two CAs are made once and kept sealed in the store; the TLS key is made at each start and kept in memory only. So is
the key that signs denials, beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from ostiary import __version__
from ostiary.audit import Kind, entry
from ostiary.broker.cas import Cas
from ostiary.broker.statement import DENIAL_SIGNER_NAME, StatementKey
from ostiary.errors import ConflictError, TamperedError
from ostiary.secret import (
    CertificateValue,
    Value,
    decode_values,
    encode_values,
    generate,
    generate_private_key,
    issue_certificate,
)
from ostiary.session.model import PrivateKeySecret, Secret, Session, X509CaSecret, X509Secret
from ostiary.store import Write

DEFAULT_NAMES = ("cas", "localhost")
"""DNS names of the TLS certificate; clients of SCONE CAS connect to `cas`."""

RECORD = "identity"
_AUTHORITIES: tuple[Secret, ...] = (
    PrivateKeySecret(name="cas-key"),
    X509CaSecret(name="cas", private_key="cas-key", common_name="cas"),
    PrivateKeySecret(name="cas-instance-key"),
    X509CaSecret(name="cas-instance", private_key="cas-instance-key", issuer="cas", common_name="cas-instance"),
)


@dataclass(frozen=True, kw_only=True)
class ServerIdentity:
    """What the listeners show. chain: TLS certificate, `cas-instance`. root: certificate of `cas`, to pin."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    root: x509.Certificate

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo of the TLS certificate: what attested programs bind their evidence to."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def open_identity(cas: Cas, names: Sequence[str]) -> ServerIdentity:
    """The service's identity, made at the first start, with a TLS certificate for the DNS `names`.

    Raises StoreError if the store cannot be read or written.
    """
    authorities = _authorities(cas)
    instance = _certificate(authorities, "cas-instance")
    tls = _tls_certificate(cas, instance, names)
    key = load_der_private_key(tls.private_key or b"", None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TamperedError("the TLS key just made is not of its type")
    return ServerIdentity(
        key=key,
        chain=(_load(tls.certificate_der), _load(instance.certificate_der)),
        root=_load(_certificate(authorities, "cas").certificate_der),
    )


def root_key_hash(cas: Cas) -> bytes:
    """SHA-256, 32 bytes, of the DER SubjectPublicKeyInfo of the certificate of `cas`: who this service is, for good.

    Raises StoreError if the store cannot be read or written.
    """
    root = _load(_certificate(_authorities(cas), "cas").certificate_der)
    spki = root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def open_denial_signer(cas: Cas) -> StatementKey:
    """A key to sign denials with, certified below `cas-instance`, of this run.

    Raises StoreError if the store cannot be read or written.
    """
    instance = _certificate(_authorities(cas), "cas-instance")
    certified = issue_certificate(
        X509Secret(name="denials", common_name=DENIAL_SIGNER_NAME),
        key=generate_private_key("P-256"),
        issuer=instance,
        random=cas.random,
        now=cas.now(),
    )
    key = load_der_private_key(certified.private_key or b"", None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TamperedError("the key just made to sign denials is not of its type")
    return StatementKey(key=key, chain=(_load(certified.certificate_der), _load(instance.certificate_der)))


def _authorities(cas: Cas) -> Mapping[str, Value]:
    record = cas.store.get(RECORD)
    if record is not None:
        return decode_values(record.value)
    session = Session(version="0.3", name="cas", secrets=_AUTHORITIES)
    values = generate(session, previous={}, previous_session=None, random=cas.random, now=cas.now())
    write = Write(name=RECORD, value=encode_values(values), expected_version=0)
    leaf = entry(Kind.CAS_STARTED, {"version": __version__, "first_start": True}, cas.now(), cas.random)
    try:
        cas.store.commit([write], leaf).result()
    except ConflictError:
        # Another process over the same database made it first; what is there is never removed.
        return _authorities(cas)
    return values


def _tls_certificate(cas: Cas, issuer: CertificateValue, names: Sequence[str]) -> CertificateValue:
    return issue_certificate(
        X509Secret(name="tls", common_name=names[0], endpoint="server", dns=tuple(names)),
        key=generate_private_key("P-256"),
        issuer=issuer,
        random=cas.random,
        now=cas.now(),
    )


def _certificate(values: Mapping[str, Value], name: str) -> CertificateValue:
    value = values.get(name)
    if not isinstance(value, CertificateValue):
        raise TamperedError(f"the stored identity of this service has no certificate {name!r}")
    return value


def _load(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)
