"""Certificate chains of vendors whose rules are not those of the web: a key pinned at the top, few checks, all named.

The verifier of the cryptography library keeps to the profile of the web, which AMD's RSASSA-PSS certificates break. So
its parts are put together here: it parses, checks each signature, and this module walks the chain.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.roots import TrustedRoot

MAX_CERTIFICATE_BYTES = 16 * 1024
MAX_CHAIN_CERTIFICATES = 8
MAX_CRL_BYTES = 4 * 1024 * 1024
MAX_EXTENSIONS = 32
"""Of one certificate; vendors use at most a dozen."""

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_KNOWN_CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})

# AMD's certificates of chips have the serial number 0, which RFC 5280 forbids and the library warns of at each load.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")
# Of names in certificates that anybody may send.
warnings.filterwarnings("ignore", message="Attribute's length must be")


@dataclass(frozen=True, kw_only=True)
class VerifiedChain:
    """A chain that held at some time, and holds in between. Made by `verify_chain` only.

    leaf: the end-entity certificate. root: whose key it leads to. not_before, not_after: when all certificates and
    revocation lists are in force. issued: when the oldest of the revocation lists was, None without one of the root:
    only that can revoke whoever signed the others.
    """

    leaf: x509.Certificate
    root: TrustedRoot
    not_before: datetime
    not_after: datetime
    issued: datetime | None = None

    def require(self, now: datetime) -> None:
        """Raises EvidenceRefusedError unless all of it is in force at `now` (aware)."""
        if now < self.not_before:
            raise EvidenceRefusedError(
                "a certificate is from the future; compare the clocks of platform and service",
                f"the chain holds from {self.not_before:%Y-%m-%dT%H:%M:%SZ}",
            )
        if now > self.not_after:
            raise EvidenceRefusedError(
                "a certificate or revocation list has run out; have the platform fetch new endorsements",
                f"the chain held until {self.not_after:%Y-%m-%dT%H:%M:%SZ}",
            )


def parse_certificate(der: bytes, what: str) -> x509.Certificate:
    """A certificate from DER. Authenticates nothing. what: names it in messages.

    Raises EvidenceFormatError, and nothing else: over MAX_CERTIFICATE_BYTES or MAX_EXTENSIONS, not a certificate.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise EvidenceFormatError(f"{what}: {len(der)} bytes, expected at most {MAX_CERTIFICATE_BYTES}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Parsed only when asked for: here, so that nothing fails later.
        extensions = len(certificate.extensions)
        _ = (certificate.public_key(), certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string())
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except _UNREADABLE as error:
        raise EvidenceFormatError(f"{what}: not a certificate in DER that can be read") from error
    if extensions > MAX_EXTENSIONS:
        raise EvidenceFormatError(f"{what}: {extensions} extensions, expected at most {MAX_EXTENSIONS}")
    return certificate


def parse_revocation_list(der: bytes, what: str) -> x509.CertificateRevocationList:
    """A revocation list from DER. Authenticates nothing. Raises EvidenceFormatError, and nothing else."""
    if len(der) > MAX_CRL_BYTES:
        raise EvidenceFormatError(f"{what}: {len(der)} bytes, expected a revocation list of at most {MAX_CRL_BYTES}")
    try:
        revocations = x509.load_der_x509_crl(der)
        _ = (revocations.issuer.rfc4514_string(), revocations.last_update_utc, revocations.next_update_utc)
    except _UNREADABLE as error:
        raise EvidenceFormatError(f"{what}: not a revocation list in DER") from error
    return revocations


def verify_chain(
    certificates: Sequence[x509.Certificate],
    *,
    roots: Sequence[TrustedRoot],
    revocation_lists: Sequence[x509.CertificateRevocationList] = (),
    now: datetime,
    understood: Collection[x509.ObjectIdentifier] = (),
    understood_of_issuers: Collection[x509.ObjectIdentifier] = (),
    revocation_required: bool = False,
) -> VerifiedChain:
    """Decide whether a chain, leaf first, leads to the key of one of `roots`. Pure: `now` (aware) is the only clock.

    understood: critical extensions of the leaf that the caller looks at, or that say nothing which it relies on.
    understood_of_issuers: the same of the certificates between it and the root.
    revocation_required: each certificate has to stand in no list of its own issuer, and that list has to be there.

    Guarantees on return:
    1. There are one to MAX_CHAIN_CERTIFICATES certificates; a root at the end counts by its key, and is not needed.
    2. Each certificate was signed by the next, whose subject is its issuer; the last by the key of a root.
    3. Each signer may sign certificates: basicConstraints CA, a path length that suffices, keyCertSign where the use of
       the key is limited. No certificate has a critical extension that is neither looked at here nor `understood`.
    4. All certificates, that of the root included, are in force at `now`.
    5. No certificate stands in one of `revocation_lists`. Each of those is signed by a signer of the chain, and neither
       from the future nor past its next update at `now`.
    6. If `revocation_required`, whoever issued a certificate of the chain gave one of `revocation_lists`.
    Does not guarantee otherwise that a revocation list was given, nor that names mean what they say: only keys are
    compared.

    Raises EvidenceRefusedError. Source: RFC 5280 section 6.1, without policies and name constraints.
    """
    # 1.
    path, root = _to_root(certificates, roots)
    signers = [*path[1:], x509.load_der_x509_certificate(root.certificate_der)]
    for depth, (certificate, signer) in enumerate(zip(path, signers, strict=True)):
        # 2.
        _require_issued(certificate, signer)
        # 3.
        _require_signer(signer, depth)
        _require_known(certificate, understood if depth == 0 else understood_of_issuers)
    # 4.
    every = [*path, signers[-1]]
    ends = [certificate.not_valid_after_utc for certificate in every]
    chain = VerifiedChain(
        leaf=path[0],
        root=root,
        not_before=max(certificate.not_valid_before_utc for certificate in every),
        not_after=min(ends + [_end(revocations) for revocations in revocation_lists]),
        issued=_issued(revocation_lists, signers[-1]),
    )
    chain.require(now)
    # 5.
    for revocations in revocation_lists:
        _require_not_revoked(path, signers, revocations, now)
    # 6.
    if revocation_required:
        _require_lists(path, revocation_lists)
    starts = [chain.not_before, *(revocations.last_update_utc for revocations in revocation_lists)]
    return replace(chain, not_before=max(starts))


def _issued(revocation_lists: Sequence[x509.CertificateRevocationList], root: x509.Certificate) -> datetime | None:
    if all(revocations.issuer != root.subject for revocations in revocation_lists):
        return None
    return min(revocations.last_update_utc for revocations in revocation_lists)


def _to_root(
    certificates: Sequence[x509.Certificate], roots: Sequence[TrustedRoot]
) -> tuple[list[x509.Certificate], TrustedRoot]:
    """The chain without its root, and the root that it leads to. No trust comes of it: signatures are checked later."""
    if not 1 <= len(certificates) <= MAX_CHAIN_CERTIFICATES:
        raise EvidenceRefusedError(
            f"the endorsements have {len(certificates)} certificates in a chain, expected 1 to {MAX_CHAIN_CERTIFICATES}"
        )
    path = list(certificates)
    by_key = {root.public_key: root for root in roots}
    last = by_key.get(_key(path[-1]))
    if last is not None and len(path) > 1:
        return path[:-1], last
    for root in roots:
        if _is_issued(path[-1], root):
            return path, root
    raise EvidenceRefusedError(
        "the certificates lead to a root that this service does not trust",
        f"the last of them is issued by {path[-1].issuer.rfc4514_string()[:200]!r}",
    )


def _is_issued(certificate: x509.Certificate, root: TrustedRoot) -> bool:
    try:
        _require_issued(certificate, x509.load_der_x509_certificate(root.certificate_der))
    except EvidenceRefusedError:
        return False
    return True


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _require_issued(certificate: x509.Certificate, signer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise EvidenceRefusedError(
            "a certificate is not signed by the next one of its chain",
            f"{_named(certificate)} is not issued by {_named(signer)}",
        ) from error


def _require_signer(signer: x509.Certificate, below: int) -> None:
    """below: how many certificates of the chain stand between this signer and the leaf."""
    try:
        constraints = signer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise EvidenceRefusedError(f"{_named(signer)} may not sign certificates: it is no CA") from None
    if not constraints.ca:
        raise EvidenceRefusedError(f"{_named(signer)} may not sign certificates: it is no CA")
    if constraints.path_length is not None and constraints.path_length < below:
        raise EvidenceRefusedError(
            f"{_named(signer)} may have {constraints.path_length} CAs below it, the chain has {below}"
        )
    try:
        usage = signer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise EvidenceRefusedError(f"{_named(signer)} may not sign certificates: its key is for other uses")


def _require_known(certificate: x509.Certificate, understood: Collection[x509.ObjectIdentifier]) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL and extension.oid not in understood:
            raise EvidenceRefusedError(
                f"{_named(certificate)} has the critical extension {extension.oid.dotted_string}, unknown here"
            )


def _end(revocations: x509.CertificateRevocationList) -> datetime:
    end = revocations.next_update_utc
    if end is None:
        raise EvidenceRefusedError("a revocation list does not say until when it holds; fetch it from the vendor anew")
    return end


def _require_not_revoked(
    path: Sequence[x509.Certificate],
    signers: Sequence[x509.Certificate],
    revocations: x509.CertificateRevocationList,
    now: datetime,
) -> None:
    if now < revocations.last_update_utc:
        raise EvidenceRefusedError("a revocation list is from the future; compare the clocks of platform and service")
    mine = [signer for signer in signers if signer.subject == revocations.issuer]
    if not any(_signed(revocations, signer) for signer in mine):
        raise EvidenceRefusedError(
            "a revocation list is not signed by a certificate of the chain",
            f"it names {revocations.issuer.rfc4514_string()[:200]!r} as its issuer",
        )
    for certificate in path:
        issued_by_it = certificate.issuer == revocations.issuer
        if issued_by_it and revocations.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise EvidenceRefusedError(
                "a certificate of the evidence or its endorsements is revoked", _named(certificate)
            )


def _require_lists(
    path: Sequence[x509.Certificate], revocation_lists: Sequence[x509.CertificateRevocationList]
) -> None:
    for certificate in path:
        if all(revocations.issuer != certificate.issuer for revocations in revocation_lists):
            raise EvidenceRefusedError(
                "there is no revocation list of who issued a certificate; have the platform fetch new endorsements",
                f"{_named(certificate)} is issued by {certificate.issuer.rfc4514_string()[:200]!r}",
            )


def _signed(revocations: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    try:
        return revocations.is_signature_valid(signer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _named(certificate: x509.Certificate) -> str:
    return f"certificate {certificate.subject.rfc4514_string()[:200]!r}"
