"""The software platform's certificates, revocation lists and TCB data, in Intel's formats, under a root of its own.

The hierarchy is Intel's::

    root ─┬─ issuer ── platform    the PCK certificate: signs the report of the quoting enclave
          └─ tcb_signer            signs TCB info and QE identity

Nothing here protects anything: the keys are files on a machine whose owner can read them.
Source: Intel SGX PCK Certificate and CRL Profile Specification 1.5; Intel PCS API version 4 (TCB info version 3, QE
identity version 2); RFC 5280.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey

QE_MR_SIGNER = hashlib.sha256(b"ostiary software quoting enclave").digest()
QE_ATTRIBUTES = bytes([0x11]) + bytes(15)
QE_ISV_PROD_ID = 1
QE_ISV_SVN = 1
CPU_SVN = bytes([1]) * 16
PCE_SVN = 1
PCE_ID = bytes(2)
FMSPC = b"Ostiar"
PPID_BYTES = 16

_SGX = "1.2.840.113741.1.13.1"
_SGX_OID_DER = bytes.fromhex("2a864886f84d010d01")
_INTEGER, _OCTET_STRING, _OBJECT_ID, _ENUMERATED, _SEQUENCE = 0x02, 0x04, 0x06, 0x0A, 0x30


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """From when to when something counts; aware, in whole seconds."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Keys:
    """P-256 keys of the hierarchy above; `attestation` signs quotes."""

    root: Key = field(repr=False)
    issuer: Key = field(repr=False)
    platform: Key = field(repr=False)
    tcb_signer: Key = field(repr=False)
    attestation: Key = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """The certificates of the hierarchy above."""

    root: x509.Certificate
    issuer: x509.Certificate
    platform: x509.Certificate
    tcb_signer: x509.Certificate

    @property
    def pck_chain(self) -> bytes:
        """PEM: platform, issuer, root, as a quote carries it."""
        return _pem(self.platform, self.issuer, self.root)


@dataclass(frozen=True, kw_only=True)
class TcbLevel:
    """The one TCB level of the platform: Intel's word for it, its advisories, and since when."""

    date: datetime
    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()


def make_root(key: Key, lifetime: Lifetime) -> x509.Certificate:
    """The self-signed root. `lifetime` should outlive everything below it."""
    return _certificate("Ostiary Software Platform Root CA", key, None, key, lifetime, authority=True)


def issue_certificates(keys: Keys, root: x509.Certificate, lifetime: Lifetime) -> Certificates:
    """Everything below `root`, which must be of `keys.root`."""
    issuer = _certificate("Ostiary Software PCK CA", keys.issuer, root, keys.root, lifetime, authority=True)
    platform = _certificate(
        "Ostiary Software PCK Certificate", keys.platform, issuer, keys.issuer, lifetime, extension=_sgx_extension(keys)
    )
    tcb_signer = _certificate("Ostiary Software TCB Signing", keys.tcb_signer, root, keys.root, lifetime)
    return Certificates(root=root, issuer=issuer, platform=platform, tcb_signer=tcb_signer)


def make_collateral(
    keys: Keys,
    certificates: Certificates,
    lifetime: Lifetime,
    *,
    level: TcbLevel,
    revoked: Collection[x509.Certificate] = (),
) -> bytes:
    """The endorsements of the platform's quotes: JSON in the form that `evidence.intel.collateral` documents."""
    tcb_info = _json(_tcb_info(lifetime, level))
    qe_identity = _json(_qe_identity(lifetime, level))
    signer_chain = _pem(certificates.tcb_signer, certificates.root).decode()
    collateral = {
        "pck_crl_issuer_chain": _pem(certificates.issuer, certificates.root).decode(),
        "root_ca_crl": _revocation_list(certificates.root, keys.root, lifetime, revoked).hex(),
        "pck_crl": _revocation_list(certificates.issuer, keys.issuer, lifetime, revoked).hex(),
        "tcb_info_issuer_chain": signer_chain,
        "tcb_info": tcb_info,
        "tcb_info_signature": sign_raw(keys.tcb_signer, tcb_info.encode()).hex(),
        "qe_identity_issuer_chain": signer_chain,
        "qe_identity": qe_identity,
        "qe_identity_signature": sign_raw(keys.tcb_signer, qe_identity.encode()).hex(),
    }
    return _json(collateral).encode()


def sign_raw(key: Key, data: bytes) -> bytes:
    """ECDSA over SHA-256 as 64 bytes, r and s big-endian, as quotes and TCB data have it."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificate(
    name: str,
    key: Key,
    issuer: x509.Certificate | None,
    issuer_key: Key,
    lifetime: Lifetime,
    *,
    authority: bool = False,
    extension: x509.UnrecognizedExtension | None = None,
) -> x509.Certificate:
    """A certificate; `issuer` None: self-signed. Same key and start give the same serial number, others another."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    serial = hashlib.sha256(public_der(key.public_key()) + _time(lifetime.start).encode()).digest()[:16]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(serial, "big") >> 1 | 1)
        .not_valid_before(lifetime.start)
        .not_valid_after(lifetime.end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(_key_usage(authority=authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key_identifier(issuer_key), critical=False)
    )
    if extension:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, SHA256())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(key: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _revocation_list(
    issuer: x509.Certificate, key: Key, lifetime: Lifetime, revoked: Collection[x509.Certificate]
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(lifetime.start)
        .next_update(lifetime.end)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(_authority_key_identifier(key), critical=False)
    )
    for certificate in revoked:
        if certificate.issuer == issuer.subject:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(lifetime.start).build())
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def _sgx_extension(keys: Keys) -> x509.UnrecognizedExtension:
    ppid = hashlib.sha256(public_der(keys.platform.public_key())).digest()[:PPID_BYTES]
    components = [_attribute(_der(_INTEGER, bytes([svn])), 2, n) for n, svn in enumerate(CPU_SVN, start=1)]
    tcb = _der(
        _SEQUENCE,
        *components,
        _attribute(_der(_INTEGER, bytes([PCE_SVN])), 2, 17),
        _attribute(_der(_OCTET_STRING, CPU_SVN), 2, 18),
    )
    value = _der(
        _SEQUENCE,
        _attribute(_der(_OCTET_STRING, ppid), 1),
        _attribute(tcb, 2),
        _attribute(_der(_OCTET_STRING, PCE_ID), 3),
        _attribute(_der(_OCTET_STRING, FMSPC), 4),
        _attribute(_der(_ENUMERATED, bytes(1)), 5),
    )
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), value)


def _attribute(value: bytes, *arcs: int) -> bytes:
    """SEQUENCE of an object id, `arcs` (each under 128) below the SGX extension's, and its value."""
    return _der(_SEQUENCE, _der(_OBJECT_ID, _SGX_OID_DER, bytes(arcs)), value)


def _der(tag: int, *contents: bytes) -> bytes:
    """One DER element of up to 65535 bytes."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes(2, "big").lstrip(b"\0")
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def _tcb_info(lifetime: Lifetime, level: TcbLevel) -> dict[str, object]:
    tcb = {"sgxtcbcomponents": [{"svn": svn} for svn in CPU_SVN], "pcesvn": PCE_SVN}
    return {
        "id": "SGX",
        "version": 3,
        "issueDate": _time(lifetime.start),
        "nextUpdate": _time(lifetime.end),
        "fmspc": FMSPC.hex(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": 1,
        "tcbLevels": [
            {
                "tcb": tcb,
                "tcbDate": _time(level.date),
                "tcbStatus": level.status,
                "advisoryIDs": list(level.advisories),
            }
        ],
    }


def _qe_identity(lifetime: Lifetime, level: TcbLevel) -> dict[str, object]:
    return {
        "id": "QE",
        "version": 2,
        "issueDate": _time(lifetime.start),
        "nextUpdate": _time(lifetime.end),
        "tcbEvaluationDataNumber": 1,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": QE_ATTRIBUTES.hex(),
        "attributesMask": "FFFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_MR_SIGNER.hex(),
        "isvprodid": QE_ISV_PROD_ID,
        "tcbLevels": [
            {"tcb": {"isvsvn": QE_ISV_SVN}, "tcbDate": _time(level.date), "tcbStatus": "UpToDate", "advisoryIDs": []}
        ],
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
