"""Which roots a service trusts, and what it takes to make one."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.simulators.sgx_platform import SgxPlatform

from ostiary.errors import ConfigurationError
from ostiary.evidence.claims import IDENTITIES
from ostiary.evidence.roots import (
    MAX_ROOT_BYTES,
    TrustedRoot,
    ak_root,
    ek_root,
    google_tpm_roots,
    intel_root,
    software_root,
    vendor_roots,
)


def test_intel_root_is_the_pinned_certificate_and_no_software_root() -> None:
    root = intel_root()
    assert not root.software
    assert hashlib.sha256(root.certificate_der).hexdigest() == (
        "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    )
    assert "Intel SGX Root CA" in x509.load_der_x509_certificate(root.certificate_der).subject.rfc4514_string()


def test_software_root_takes_pem_and_der_alike(platform: SgxPlatform) -> None:
    pem = platform.certificates.root.public_bytes(Encoding.PEM)
    assert software_root(pem) == software_root(platform.root_der) == platform.software_root
    assert software_root(pem).software


@pytest.mark.parametrize(
    "text", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"-----BEGIN X-----"]
)
def test_root_that_is_no_certificate_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"not a certificate in DER or PEM form"):
        software_root(text)


def test_two_roots_in_one_file_are_refused(platform: SgxPlatform) -> None:
    pem = platform.certificates.root.public_bytes(Encoding.PEM)
    with pytest.raises(ConfigurationError, match="holds 2 certificates, expected exactly one"):
        software_root(pem + pem)


def test_oversized_root_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="65537 bytes, expected at most 65536"):
        software_root(bytes(MAX_ROOT_BYTES + 1))


def test_root_refuses_der_with_something_behind_it(platform: SgxPlatform) -> None:
    with pytest.raises(ConfigurationError, match="not a certificate"):
        TrustedRoot(certificate_der=platform.root_der + b"\0", software=True)


def test_googles_roots_are_the_pinned_certificates_and_no_software_roots() -> None:
    assert [hashlib.sha256(root.certificate_der).hexdigest() for root in google_tpm_roots()] == [
        "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",
        "9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf",
    ]
    assert not any(root.software for root in google_tpm_roots())


def test_a_root_of_tpms_that_the_owner_names_is_no_software_root(platform: SgxPlatform) -> None:
    root = ak_root(platform.certificates.root.public_bytes(Encoding.PEM))
    assert root.certificate_der == platform.root_der
    assert not root.software
    with pytest.raises(ConfigurationError, match="not a certificate"):
        ak_root(b"x")


def test_a_root_of_endorsement_keys_counts_for_no_evidence(platform: SgxPlatform) -> None:
    root = ek_root(platform.certificates.root.public_bytes(Encoding.PEM))
    assert (root.certificate_der, root.software, root.tees) == (platform.root_der, False, frozenset())
    with pytest.raises(ConfigurationError, match="not a certificate"):
        ek_root(b"x")


def test_a_vendors_root_counts_for_the_vendors_own_tees() -> None:
    """A software root counts for all of them."""
    assert [sorted(root.tees) for root in vendor_roots()] == [["sgx", "tdx"], ["snp"], ["snp"], ["snp"], ["nitro"]]
    assert not any(root.software for root in vendor_roots())


def test_software_roots_count_for_every_tee(platform: SgxPlatform) -> None:
    assert software_root(platform.root_der).tees == set(IDENTITIES)
