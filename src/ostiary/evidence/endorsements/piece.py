"""One endorsement as bytes, and the decision whether its vendor signed it. The only place that makes `Endorsement`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import parse_certificates
from ostiary.evidence.chain import parse_certificate, parse_revocation_list, verify_chain
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.intel.quote import SGX_EXTENSION
from ostiary.evidence.intel.statement import instant_of, parse_statement, require_p256_signature
from ostiary.evidence.roots import TrustedRoot, amd_product
from ostiary.evidence.snp.layout import tcb_parts
from ostiary.evidence.snp.verify import verify_endorsements

MAX_TEXT_BYTES = 192 * 1024
"""TCB info or an identity: JSON text."""
MOST_AGE = timedelta(days=3650)
"""No session makes a statement last longer."""

Origin: TypeAlias = Literal["vendor", "attester"]

_IDS: Mapping[tuple[str, str], str] = {
    ("tcb-info", "sgx"): "SGX",
    ("tcb-info", "tdx"): "TDX",
    ("qe-identity", "sgx"): "QE",
    ("qe-identity", "tdx"): "TD_QE",
}


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """The roots that count: of SGX and TDX, and of SNP. Those of software platforms stand among the first."""

    intel: tuple[TrustedRoot, ...]
    amd: tuple[TrustedRoot, ...]

    @classmethod
    def of(cls, roots: Iterable[TrustedRoot]) -> Self:
        """Those of `roots` that count for these TEEs."""
        roots = tuple(roots)
        return cls(
            intel=tuple(root for root in roots if not root.tees.isdisjoint(("sgx", "tdx"))),
            amd=tuple(root for root in roots if "snp" in root.tees),
        )


@dataclass(frozen=True, kw_only=True)
class Piece:
    """An endorsement that nobody has verified yet.

    data: JSON text exactly as signed; a revocation list or certificate in DER; of amd-chain, PEM text. signature: of
    JSON, 64 bytes, r and s. chain: PEM of who signed it, up to the root or short of it; empty of root-crl and amd-crl,
    which the root signs, and of amd-chain.
    """

    part: Part
    data: bytes = field(repr=False)
    signature: bytes = field(default=b"", repr=False)
    chain: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Endorsement:
    """An endorsement that its vendor signed. Made by `verify_piece` only; equal only to itself.

    root: whose key vouches for it. number: tcbEvaluationDataNumber or CRL number, 0 where there is none. issued: the
    day that it speaks of, or when the certificate begins. until: `nextUpdate`, or when the certificate or its chain
    ends. chain_until: when the certificates behind it end.
    """

    piece: Piece
    root: TrustedRoot
    number: int
    issued: datetime
    until: datetime
    chain_until: datetime

    @property
    def part(self) -> Part:
        """Which one it is."""
        return self.piece.part

    def is_newer_than(self, other: Endorsement) -> bool:
        """Whether it takes the place of `other`: a higher number, or of the same number the later date."""
        return (self.number, self.issued) > (other.number, other.issued)

    def last_use(self, max_age: timedelta | None) -> datetime:
        """Until when it may be used; not any more at that time itself.

        max_age: how long after its date a statement may be used, be that before or after its `nextUpdate`; None:
        until `nextUpdate`. The list of Intel's root, which comes once a year, may be used until `nextUpdate` in any
        case: a short age says nothing of it. Certificates behind it must be in force in any case.
        """
        if max_age is None or not self.part.is_statement:
            return min(self.until, self.chain_until)
        last = self.issued + min(max_age, MOST_AGE)
        return min(max(last, self.until) if self.part.kind == "root-crl" else last, self.chain_until)

    def require(self, now: datetime, max_age: timedelta | None) -> None:
        """Raises EvidenceRefusedError unless it may be used at `now`."""
        if now < self.issued:
            raise EvidenceRefusedError(
                "the endorsements are from the future; compare the clocks of platform and service",
                f"{self.part} is of {_day(self.issued)}",
            )
        last = self.last_use(max_age)
        if now >= last:
            raise EvidenceRefusedError(
                "the endorsements have run out; have the platform fetch new ones",
                f"{self.part}, of {_day(self.issued)}, could be used until {_day(last)}",
            )


def verify_piece(piece: Piece, anchors: Anchors, *, now: datetime) -> Endorsement:
    """Decide whether a vendor signed this endorsement. Pure: `now` (aware) is the only clock.

    Guarantees on return:
    1. The certificates behind it lead to a key of `anchors` of its vendor and are in force at `now`.
    2. TCB info and identities are signed by a certificate that the root issued itself, and that is no platform's:
       whoever breaks one platform has a PCK key, and must not be able to rate platforms with it. Revocation lists are
       signed by the CA that they name, those of PCKs by another than the root; lists of a root by the root.
    3. It is what `piece.part` says: this TEE and kind of platform; this CA; this product, chip and TCB version.
    4. It says when it was made, which is not after `now`, and when it ends.
    Does not guarantee that it is in force (`Endorsement.require`), nor that none of the certificates behind it is
    revoked: that is judged with the evidence, by the revocation lists of that moment.

    Raises EvidenceFormatError (a form that cannot be read) and EvidenceRefusedError.
    Source: Intel PCS API version 4; Intel SGX PCK Certificate and CRL Profile; AMD publication 57230.
    """
    is_text = piece.part.kind in ("tcb-info", "qe-identity", "amd-chain")
    if not piece.chain.isascii() or (is_text and not piece.data.isascii()):
        raise EvidenceFormatError(f"{piece.part}: not ASCII text")
    match piece.part.kind:
        case "tcb-info" | "qe-identity":
            made = _text(piece, anchors, now)
        case "vcek":
            made = _vcek(piece, anchors, now)
        case "amd-chain":
            made = _amd_chain(piece, anchors, now)
        case _:
            made = _revocations(piece, anchors, now)
    if now < made.issued:
        raise EvidenceRefusedError(
            "the endorsements are from the future; compare the clocks of platform and service",
            f"{piece.part} is of {_day(made.issued)}",
        )
    return made


def pck_ca(issuer: x509.Name) -> str:
    """Which of Intel's two CAs for PCK certificates has this name; who it really is, signatures tell."""
    return "processor" if "Processor" in _common_name(issuer) else "platform"


def _text(piece: Piece, anchors: Anchors, now: datetime) -> Endorsement:
    what = str(piece.part)
    if len(piece.data) > MAX_TEXT_BYTES:
        raise EvidenceFormatError(f"{what}: {len(piece.data)} bytes, expected at most {MAX_TEXT_BYTES}")
    # 1.
    chain = verify_chain([_below_root(piece.chain, anchors.intel, what)], roots=anchors.intel, now=now)
    # 2. The chain given to `verify_chain` has no CA in between.
    if any(extension.oid == SGX_EXTENSION for extension in chain.leaf.extensions):
        raise EvidenceRefusedError(f"{what} is signed by the certificate of a platform, expected Intel's TCB signer")
    require_p256_signature(chain.leaf, piece.signature, piece.data, f"{what} is not signed by its signer")
    # 3.
    members = parse_statement(piece.data, what)
    tee = piece.part.words[0]
    expected = _IDS[piece.part.kind, tee]
    if members.get("id", "SGX") != expected:
        raise EvidenceRefusedError(f"{what}: the endorsements are for another TEE than {tee.upper()}")
    if piece.part.kind == "tcb-info" and str(members.get("fmspc")).lower() != piece.part.words[1]:
        raise EvidenceRefusedError(f"{what}: the endorsements are for another kind of platform")
    number = members.get("tcbEvaluationDataNumber")
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise EvidenceFormatError(f"{what}: tcbEvaluationDataNumber is missing or no number")
    # 4.
    return Endorsement(
        piece=piece,
        root=chain.root,
        number=number,
        issued=instant_of(members, "issueDate", what),
        until=instant_of(members, "nextUpdate", what),
        chain_until=chain.not_after,
    )


def _revocations(piece: Piece, anchors: Anchors, now: datetime) -> Endorsement:
    what = str(piece.part)
    revocations = parse_revocation_list(piece.data, what)
    end = revocations.next_update_utc
    if end is None:
        raise EvidenceRefusedError(f"{what} does not say until when it holds")
    if piece.part.kind == "pck-crl":
        signer, root, chain_until = _pck_ca(piece, revocations, anchors, now)
        if not _signed_by(revocations, signer):
            raise EvidenceRefusedError(f"{what} is not signed by the CA that it names")
    else:
        roots = anchors.amd if piece.part.kind == "amd-crl" else anchors.intel
        root = _root_that_signed(revocations, roots, what)
        chain_until = x509.load_der_x509_certificate(root.certificate_der).not_valid_after_utc
        if piece.part.kind == "amd-crl":
            _require_product(root, piece.part.name, what)
    return Endorsement(
        piece=piece,
        root=root,
        number=_crl_number(revocations),
        issued=revocations.last_update_utc,
        until=end,
        chain_until=chain_until,
    )


def _pck_ca(
    piece: Piece, revocations: x509.CertificateRevocationList, anchors: Anchors, now: datetime
) -> tuple[x509.Certificate, TrustedRoot, datetime]:
    what = str(piece.part)
    issuers = [found for found in parse_certificates(piece.chain) if found.subject == revocations.issuer]
    if len(issuers) != 1:
        raise EvidenceRefusedError(
            f"{what} comes with {len(issuers)} certificates of the CA that signed it, expected one"
        )
    chain = verify_chain(issuers, roots=anchors.intel, now=now)
    if _public_key(chain.leaf) == chain.root.public_key:
        raise EvidenceRefusedError(f"{what} is the revocation list of the root, which revokes no platform")
    if pck_ca(revocations.issuer) != piece.part.name:
        raise EvidenceRefusedError(f"{what} is the revocation list of another CA")
    return chain.leaf, chain.root, chain.not_after


def _root_that_signed(
    revocations: x509.CertificateRevocationList, roots: Sequence[TrustedRoot], what: str
) -> TrustedRoot:
    for root in roots:
        if _signed_by(revocations, x509.load_der_x509_certificate(root.certificate_der)):
            return root
    raise EvidenceRefusedError(f"{what} is not signed by a root that this service trusts")


def _signed_by(revocations: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    try:
        return revocations.is_signature_valid(signer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _crl_number(revocations: x509.CertificateRevocationList) -> int:
    try:
        return revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        return 0


def _vcek(piece: Piece, anchors: Anchors, now: datetime) -> Endorsement:
    what = f"the VCEK of chip {piece.part.words[1][:16]}"
    product, hardware_id, tcb = piece.part.words
    certificate = parse_certificate(piece.data, what)
    signing_key = verify_endorsements(certificate.public_bytes(Encoding.PEM) + piece.chain, roots=anchors.amd, now=now)
    if signing_key.chain.leaf != certificate:
        raise EvidenceRefusedError(f"{what} came with another certificate that is no CA")
    if signing_key.product != product or (signing_key.hardware_id or b"").hex() != hardware_id:
        raise EvidenceRefusedError(f"{what}: the certificate is for another chip")
    if dict(signing_key.tcb) != dict(tcb_parts(bytes.fromhex(tcb), product)):
        raise EvidenceRefusedError(f"{what}: the certificate is for another TCB version")
    return Endorsement(
        piece=piece,
        root=signing_key.chain.root,
        number=0,
        issued=certificate.not_valid_before_utc,
        until=signing_key.chain.not_after,
        chain_until=signing_key.chain.not_after,
    )


def _amd_chain(piece: Piece, anchors: Anchors, now: datetime) -> Endorsement:
    what = str(piece.part)
    kind, product = piece.part.words
    chain = verify_chain([_below_root(piece.data, anchors.amd, what)], roots=anchors.amd, now=now)
    _require_product(chain.root, product, what)
    if ("VLEK" in _common_name(chain.leaf.subject)) != (kind == "vlek"):
        raise EvidenceRefusedError(f"{what}: the certificate is that of another issuer")
    return Endorsement(
        piece=piece,
        root=chain.root,
        number=0,
        issued=chain.not_before,
        until=chain.not_after,
        chain_until=chain.not_after,
    )


def _below_root(pem: bytes, roots: Sequence[TrustedRoot], what: str) -> x509.Certificate:
    """The one certificate that is not of a root's key."""
    keys = {root.public_key for root in roots}
    certificates = parse_certificates(pem)
    found = [certificate for certificate in certificates if _public_key(certificate) not in keys]
    if not found:
        raise EvidenceFormatError(f"{what}: no certificate of who signed it")
    if len(found) > 1 and len(found) == len(certificates):
        raise EvidenceRefusedError(f"{what}: the certificates lead to a root that this service does not trust")
    if len(found) > 1:
        raise EvidenceRefusedError(f"{what}: {len(found)} certificates below the root, expected one that it issued")
    return found[0]


def _require_product(root: TrustedRoot, product: str, what: str) -> None:
    if amd_product(root) not in (None, product):
        raise EvidenceRefusedError(f"{what} is signed by the root of another product")


def _public_key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _common_name(name: x509.Name) -> str:
    return " ".join(str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME))


def _day(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
