"""The roots that evidence is verified under: Intel's, pinned here, and software roots that the owner configures."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.errors import ConfigurationError

__all__ = ["TrustedRoot", "intel_root", "software_root"]

MAX_ROOT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class TrustedRoot:
    """A root certificate, DER, that the owner of this service trusts. Whoever holds its key can make any evidence.

    software: claims verified under it carry `software` and `debug`; only a vendor's hardware root may say False.
    public_key: DER SubjectPublicKeyInfo of the certificate. Vendors reissue roots for the same key, so that, not the
    certificate, says which root a chain leads to.
    Raises ConfigurationError for bytes that are not a certificate.
    """

    certificate_der: bytes
    software: bool
    public_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            key = x509.load_der_x509_certificate(self.certificate_der).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError("the root is not a certificate in DER or PEM form; give root.pem") from error
        object.__setattr__(self, "public_key", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def intel_root() -> TrustedRoot:
    """Intel's SGX root CA, valid to 2049-12-31.

    SHA-256 of the DER: 44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3.
    Source: certificates.trustedservices.intel.com, Intel SGX Root CA.
    """
    der = files(__name__).joinpath("intel-sgx-root-ca.der").read_bytes()
    return TrustedRoot(certificate_der=der, software=False)


def software_root(certificate: bytes) -> TrustedRoot:
    """The root of a software platform, from the PEM or DER of its `root.pem`. Evidence under it protects nothing.

    Raises ConfigurationError: not one certificate, or over MAX_ROOT_BYTES.
    """
    if len(certificate) > MAX_ROOT_BYTES:
        raise ConfigurationError(f"the root has {len(certificate)} bytes, expected at most {MAX_ROOT_BYTES}")
    return TrustedRoot(certificate_der=_to_der(certificate), software=True)


def _to_der(certificate: bytes) -> bytes:
    if not certificate.lstrip().startswith(b"-----BEGIN"):
        return certificate
    try:
        loaded = x509.load_pem_x509_certificates(certificate)
    except ValueError as error:
        raise ConfigurationError("the root is not a certificate in DER or PEM form; give root.pem") from error
    if len(loaded) != 1:
        raise ConfigurationError(f"the root file holds {len(loaded)} certificates, expected exactly one")
    return loaded[0].public_bytes(Encoding.DER)
