"""A TPM's endorsement key (EK): its public area, and its certificate by the TPM's maker."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import parse_bundle
from ostiary.evidence.chain import verify_chain
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.tpm.reader import Reader

MAX_PUBLIC_BYTES = 1024
EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
"""The extended key usage of an EK's certificate, tcg-kp-EKCertificate."""

# The name of the TPM, in an extension that is critical where the subject is empty (3.2.9 of the profile), decides
# nothing; what the key is for is looked at here.
_UNDERSTOOD = frozenset({ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.EXTENDED_KEY_USAGE})
# Makers name the policy that they issue by, which nothing here rests on, and what their keys are for: looked at here.
_UNDERSTOOD_OF_ISSUERS = frozenset({ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.EXTENDED_KEY_USAGE})
# Named by SHA-256; fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt; the policy that is
# PolicySecret(TPM_RH_ENDORSEMENT); AES-128-CFB; no scheme.
_COMMON = bytes.fromhex(
    "000b 000300b2 0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa 0006 0080 0043 0010"
)
_RSA = bytes.fromhex("0001") + _COMMON + bytes.fromhex("0800 00000000")
_ECC = bytes.fromhex("0023") + _COMMON + bytes.fromhex("0003 0010")
_RSA_BITS = 2048
_RSA_BYTES = _RSA_BITS // 8
_EXPONENT = 65537
_COORDINATE_BYTES = 32
_TPM_NAMES = {"2.23.133.2.1": "manufacturer", "2.23.133.2.2": "model", "2.23.133.2.3": "version"}
_MAX_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class EndorsementKey:
    """kind: which template. area: TPMT_PUBLIC. name: hash algorithm and digest of that. spki: DER."""

    kind: Literal["rsa", "ecc"]
    area: bytes
    spki: bytes

    @property
    def name(self) -> bytes:
        return b"\x00\x0b" + hashlib.sha256(self.area).digest()


def parse_endorsement_key(data: bytes) -> EndorsementKey:
    """Read the public area (TPMT_PUBLIC) of an EK made from one of two templates. Authenticates nothing.

    Everything but the key's numbers is that of L-1, RSA-2048, or L-2, P-256:
        0  2  type: 0x0001 RSA, 0x0023 ECC    2  48  as `_COMMON`
        RSA   2  bits = 2048     4  exponent = 0, for 65537    2 n; n bytes modulus, 256
        ECC   2  curve = 0x0003  2  kdf = 0x0010               x and y, each 2 n; n bytes, at most 32
        the area ends here

    Raises EvidenceFormatError, and nothing else for any input. Source: TCG EK Credential Profile for TPM 2.0, appendix
    B; TPM 2.0 Library, part 2: TPMT_PUBLIC.
    """
    if len(data) > MAX_PUBLIC_BYTES:
        raise EvidenceFormatError(f"EK public area: {len(data)} bytes, expected at most {MAX_PUBLIC_BYTES}")
    reader = Reader(data, "EK public area", "big")
    try:
        if data.startswith(_RSA):
            reader.take(len(_RSA), "template")
            modulus = int.from_bytes(reader.sized("unique", _RSA_BYTES), "big")
            if modulus.bit_length() != _RSA_BITS:
                raise reader.wrong("unique", f"{modulus.bit_length()} bits", f"{_RSA_BITS}")
            key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
            key = rsa.RSAPublicNumbers(_EXPONENT, modulus).public_key()
        elif data.startswith(_ECC):
            reader.take(len(_ECC), "template")
            x, y = (int.from_bytes(reader.sized(f"unique.{of}", _COORDINATE_BYTES), "big") for of in "xy")
            key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        else:
            raise EvidenceFormatError(
                "EK public area: not that of an endorsement key of the TCG's templates L-1 (RSA-2048) or L-2 (P-256)"
            )
    except ValueError as error:
        raise EvidenceFormatError("EK public area: its numbers are no public key") from error
    reader.end()
    return EndorsementKey(
        kind="rsa" if isinstance(key, rsa.RSAPublicKey) else "ecc",
        area=data,
        spki=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def verify_ek_certificate(
    certificates: bytes, ek: EndorsementKey, *, roots: Sequence[TrustedRoot], now: datetime
) -> x509.Certificate:
    """Decide whether somebody who makes TPMs certified `ek`. Pure: `now` (aware) is the only clock.

    certificates: PEM, the EK's certificate, which is the one that is no CA's, with its issuers and revocation lists.
    roots: of makers of TPMs whom the owner believes.

    Guarantees: the certificate
    1. leads to one of `roots`, is in force and not revoked (`verify_chain`);
    2. says that it is that of an EK (extended key usage), whose use, where it is limited, is not signing; its issuers,
       where they say what they certify, say the same;
    3. is for this very key.
    So the key is what the maker calls an EK: it never leaves its TPM, which gives out a credential only while it holds
    the key that the credential names. Does not guarantee which machine the TPM is in, nor that a revocation list was
    given.

    Raises EvidenceFormatError and EvidenceRefusedError. Source: TCG EK Credential Profile for TPM 2.0, 3.2.
    """
    bundle = parse_bundle(certificates)
    # 1.
    try:
        leaf = verify_chain(
            bundle.chain,
            roots=roots,
            revocation_lists=bundle.revocation_lists,
            now=now,
            understood=_UNDERSTOOD,
            understood_of_issuers=_UNDERSTOOD_OF_ISSUERS,
        ).leaf
    except EvidenceRefusedError as error:
        raise EvidenceRefusedError(
            "the EK's certificate does not hold under the roots that were named", *error.chain
        ) from error
    # 2.
    _require_endorsement(leaf)
    for issuer in bundle.chain[1:]:
        purposes = _purposes(issuer)
        if purposes and EK_CERTIFICATE not in purposes:
            raise EvidenceRefusedError(
                "an issuer of the EK's certificate may not certify endorsement keys: its extended key usage says what",
                issuer.subject.rfc4514_string()[:200],
            )
    # 3.
    if leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != ek.spki:
        raise EvidenceRefusedError(
            "the EK's certificate is for another key than the offer's EK: it is another TPM's, or one for the other "
            "kind of EK; choose with `ostiary tpm offer --ek`"
        )
    return leaf


def ek_certificate(certificates: bytes) -> x509.Certificate:
    """The end-entity certificate of a PEM bundle, for people to look at. Authenticates nothing.

    Raises EvidenceFormatError.
    """
    return parse_bundle(certificates).chain[0]


def _require_endorsement(leaf: x509.Certificate) -> None:
    if EK_CERTIFICATE not in _purposes(leaf):
        raise EvidenceRefusedError(
            "the certificate is not that of an endorsement key: its extended key usage does not name it",
            f"expected {EK_CERTIFICATE.dotted_string}",
        )
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not (usage.key_encipherment or usage.key_agreement):
        raise EvidenceRefusedError("the EK's certificate is for a key that may not decrypt: it is that of another key")


def _purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    """Extended key usage; nothing if it is not limited."""
    try:
        return [*certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value]
    except x509.ExtensionNotFound:
        return []


def shown_tpm(certificate: x509.Certificate) -> dict[str, str]:
    """What a certificate says of its TPM: `manufacturer`, `model`, `version`, as far as it does. For people only."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {}
    return {
        _TPM_NAMES[attribute.oid.dotted_string]: str(attribute.value)[:_MAX_SHOWN_CHARACTERS]
        for name in names.get_values_for_type(x509.DirectoryName)
        for attribute in name
        if attribute.oid.dotted_string in _TPM_NAMES
    }
