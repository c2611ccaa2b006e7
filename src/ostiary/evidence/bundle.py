"""Endorsements that are certificates and revocation lists: PEM blocks in one text, in any order."""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

from ostiary.errors import EvidenceFormatError
from ostiary.evidence.chain import MAX_CHAIN_CERTIFICATES, parse_certificate, parse_revocation_list

MAX_BUNDLE_BYTES = 6 * 1024 * 1024
MAX_REVOCATION_LISTS = 4

_BLOCK = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----([A-Za-z0-9+/=\s]{1,8000000})-----END \1-----")
_BEGIN = re.compile(rb"-----BEGIN ")
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----.*?-----END \1-----", re.DOTALL)
_DER_SEQUENCES = (b"\x30\x81", b"\x30\x82")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """chain: the end-entity certificate first, then its issuer and so on. Nothing of it is verified yet."""

    chain: tuple[x509.Certificate, ...]
    revocation_lists: tuple[x509.CertificateRevocationList, ...]


def parse_bundle(data: bytes) -> Bundle:
    """Certificates and revocation lists from PEM. Authenticates nothing.

    The chain begins with the one certificate that is no CA; certificates that lead nowhere are left out.
    Raises EvidenceFormatError, and nothing else for any input: over a bound, a block that cannot be read or is of
    another kind, no certificate, not exactly one that is no CA.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise EvidenceFormatError(f"endorsements: {len(data)} bytes, expected at most {MAX_BUNDLE_BYTES}")
    blocks = _BLOCK.findall(data)
    if len(blocks) != len(_BEGIN.findall(data)):
        raise EvidenceFormatError("endorsements: a PEM block that is no CERTIFICATE or X509 CRL, or is damaged")
    ders = [(label, _decode(text)) for label, text in blocks]
    certificates = [der for label, der in ders if label == b"CERTIFICATE"]
    lists = [der for label, der in ders if label == b"X509 CRL"]
    if len(certificates) > MAX_CHAIN_CERTIFICATES or len(lists) > MAX_REVOCATION_LISTS:
        raise EvidenceFormatError(
            f"endorsements: {len(certificates)} certificates and {len(lists)} revocation lists, expected at most "
            f"{MAX_CHAIN_CERTIFICATES} and {MAX_REVOCATION_LISTS}"
        )
    return Bundle(
        chain=in_order([parse_certificate(der, "a certificate of the endorsements") for der in certificates]),
        revocation_lists=tuple(parse_revocation_list(der, "a revocation list of the endorsements") for der in lists),
    )


def _decode(text: bytes) -> bytes:
    try:
        return a2b_base64(text)
    except Base64Error as error:
        raise EvidenceFormatError("endorsements: a PEM block is not base64") from error


def in_order(certificates: list[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The chain that begins with the one certificate that is no CA; what leads nowhere is left out.

    Raises EvidenceFormatError if not exactly one is no CA.
    """
    leaves = [certificate for certificate in certificates if not _is_ca(certificate)]
    if len(leaves) != 1:
        raise EvidenceFormatError(
            f"endorsements: {len(leaves)} certificates that are no CA, expected the one of the key that signed"
        )
    chain = leaves
    left = [certificate for certificate in certificates if certificate is not leaves[0]]
    while left:
        issuer = next((certificate for certificate in left if certificate.subject == chain[-1].issuer), None)
        if issuer is None:
            break
        left.remove(issuer)
        chain.append(issuer)
    return tuple(chain)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def pem_of(files: Mapping[str, bytes]) -> bytes:
    """The certificates and revocation lists of files, contents by name, in PEM; a DER file is a list if its name ends
    in `.crl`. Other files are left out. Authenticates nothing.
    """
    blocks: list[bytes] = []
    for name, content in sorted(files.items()):
        if b"-----BEGIN " in content and not content.lstrip().startswith(b"{"):
            blocks += (found[0] for found in _PEM.finditer(content))
        elif content.startswith(_DER_SEQUENCES):
            label = b"X509 CRL" if name.endswith(".crl") else b"CERTIFICATE"
            blocks.append(b"-----BEGIN %s-----\n%s-----END %s-----" % (label, b2a_base64(content), label))
    return b"\n".join(blocks) + b"\n"
