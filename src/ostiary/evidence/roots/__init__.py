"""The roots that evidence is verified under: vendors' roots, pinned here, and roots that the owner configures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.errors import ConfigurationError
from ostiary.evidence.claims import IDENTITIES, Tee

__all__ = [
    "TrustedRoot",
    "ak_root",
    "amd_roots",
    "ek_root",
    "google_tpm_roots",
    "intel_root",
    "nitro_root",
    "software_root",
    "vendor_roots",
]

AMD_PRODUCTS = ("Milan", "Genoa", "Turin")
MAX_ROOT_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class TrustedRoot:
    """A root certificate, DER, that the owner of this service trusts. Whoever holds its key can make any evidence.

    software: claims verified under it carry `software` and `debug`; only a vendor's hardware root may say False.
    tees: whose evidence it counts for; a vendor's for the vendor's own.
    public_key: DER SubjectPublicKeyInfo of the certificate. Vendors reissue roots for the same key, so that, not the
    certificate, says which root a chain leads to.
    Raises ConfigurationError for bytes that are not a certificate.
    """

    certificate_der: bytes
    software: bool
    tees: frozenset[Tee] = frozenset(IDENTITIES)
    public_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            key = x509.load_der_x509_certificate(self.certificate_der).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError("the root is not a certificate in DER or PEM form") from error
        object.__setattr__(self, "public_key", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def intel_root() -> TrustedRoot:
    """Intel's SGX root CA, valid to 2049-12-31.

    SHA-256 of the DER: 44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3.
    Source: certificates.trustedservices.intel.com, Intel SGX Root CA.
    """
    return _pinned("intel-sgx-root-ca.der", "sgx", "tdx")


def amd_roots() -> tuple[TrustedRoot, ...]:
    """AMD's root keys (ARK) of Milan, Genoa and Turin, RSA-4096 each.

    SHA-256 of the DER: 69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd (Milan),
    4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1 (Genoa),
    1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a (Turin). Source: AMD's key distribution service.
    """
    return tuple(_pinned(f"amd-ark-{product.lower()}.der", "snp") for product in AMD_PRODUCTS)


def amd_product(root: TrustedRoot) -> str | None:
    """Of which product a root of AMD is the root key; None for any other root."""
    return next((product for product, known in zip(AMD_PRODUCTS, amd_roots(), strict=True) if known == root), None)


def nitro_root() -> TrustedRoot:
    """The root of AWS Nitro Enclaves, G1, valid to 2049-10-28.

    SHA-256 of the DER: 641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b.
    Source: aws-nitro-enclaves.amazonaws.com, AWS_NitroEnclaves_Root-G1.
    """
    return _pinned("aws-nitro-root-g1.der", "nitro")


def google_tpm_roots() -> tuple[TrustedRoot, ...]:
    """The roots of attestation keys of virtual TPMs on Google Cloud, RSA-4096, valid to 2122-07-08 and 2118-04-06.

    SHA-256 of the DER: 594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2 (EK/AK CA Root),
    9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf (tpm_ek_v1_cloud_host_root, of VMs before 2023).
    Source: pki.goog/cloud_integrity.
    """
    return (_pinned("google-vtpm-root.der", "tpm"), _pinned("google-vtpm-root-old.der", "tpm"))


@cache
def _pinned(name: str, *tees: Tee) -> TrustedRoot:
    der = files(__name__).joinpath(name).read_bytes()
    return TrustedRoot(certificate_der=der, software=False, tees=frozenset(tees))


def vendor_roots() -> tuple[TrustedRoot, ...]:
    """All that are pinned here and count without being named; those of TPMs' keys do not."""
    return (intel_root(), *amd_roots(), nitro_root())


def software_root(certificate: bytes) -> TrustedRoot:
    """The root of a software platform, from the PEM or DER of its `root.pem`. Evidence under it protects nothing.

    Raises ConfigurationError: not one certificate, or over MAX_ROOT_BYTES.
    """
    if len(certificate) > MAX_ROOT_BYTES:
        raise ConfigurationError(f"the root has {len(certificate)} bytes, expected at most {MAX_ROOT_BYTES}")
    return TrustedRoot(certificate_der=_to_der(certificate), software=True)


def ak_root(certificate: bytes) -> TrustedRoot:
    """A root of TPM attestation keys that the owner trusts, from PEM or DER. Its claims are not those of software.

    Raises ConfigurationError: not one certificate, or over MAX_ROOT_BYTES.
    """
    return replace(software_root(certificate), software=False, tees=frozenset({"tpm"}))


def ek_root(certificate: bytes) -> TrustedRoot:
    """A root of a maker of TPMs, from PEM or DER: endorsement keys below it are believed. It counts for no evidence.

    Raises ConfigurationError: not one certificate, or over MAX_ROOT_BYTES.
    """
    return replace(software_root(certificate), software=False, tees=frozenset())


def _to_der(certificate: bytes) -> bytes:
    if not certificate.lstrip().startswith(b"-----BEGIN"):
        return certificate
    try:
        loaded = x509.load_pem_x509_certificates(certificate)
    except ValueError as error:
        raise ConfigurationError("the root is not a certificate in DER or PEM form") from error
    if len(loaded) != 1:
        raise ConfigurationError(f"the root file holds {len(loaded)} certificates, expected exactly one")
    return loaded[0].public_bytes(Encoding.DER)
