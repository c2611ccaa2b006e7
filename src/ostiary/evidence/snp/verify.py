"""Is an SNP report authentic? The only place that makes `Claims` of SEV-SNP evidence."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import parse_bundle
from ostiary.evidence.chain import VerifiedChain, verify_chain
from ostiary.evidence.claims import Claims
from ostiary.evidence.roots import TrustedRoot, amd_product
from ostiary.evidence.snp.layout import Report, parse_report, shown, tcb_parts

MAX_CHIPS = 256
"""Chips remembered by a `Verifier`, the least recently used forgotten first."""

# Extensions of AMD's end-entity certificates (publication 57230, table 8).
_AMD = "1.3.6.1.4.1.3704.1"
_PRODUCT_NAME = f"{_AMD}.2"
_TCB = {"bl": f"{_AMD}.3.1", "tee": f"{_AMD}.3.2", "snp": f"{_AMD}.3.3", "ucode": f"{_AMD}.3.8", "fmc": f"{_AMD}.3.9"}
_HARDWARE_ID = f"{_AMD}.4"
_HARDWARE_ID_BYTES = (8, 64)
_PROVIDER = f"{_AMD}.5"
_PRODUCTS = ("Milan", "Genoa", "Turin")


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A key that signs reports, and what its certificate says of it. Made by `verify_endorsements` only.

    kind: VCEK, of one chip, or VLEK, of one provider. product: whose layout of TCB versions counts. tcb: the versions
    that the key was derived for. hardware_id: the chip's, 8 or 64 bytes; None of a VLEK.
    """

    chain: VerifiedChain
    key: ec.EllipticCurvePublicKey
    kind: str
    product: str
    tcb: Mapping[str, int]
    hardware_id: bytes | None


def verify(report: bytes, endorsements: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> Claims:
    """Verify an SNP report with its certificates. Pure: `now` (aware) is the only clock.

    endorsements: PEM of the VCEK or VLEK certificate, its issuers, and revocation lists if there are any.
    Guarantees what `verify_endorsements` and `verify_report` do, and raises what they raise.
    """
    return verify_report(report, verify_endorsements(endorsements, roots=roots, now=now))


def verify_endorsements(endorsements: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> SigningKey:
    """Decide whether the key of the end-entity certificate is one that AMD vouches for.

    1. Form: PEM, one certificate that is no CA (`bundle`).
    2. The chain leads to the key of one of `roots`, is in force at `now`, and nothing of it is revoked (`chain`).
    3. The key is P-384; its certificate has the product's name, which is that of the root where the root is AMD's, a
       TCB version, and either a chip's id (VCEK) or a provider's (VLEK).
    Does not guarantee that a revocation list was there.

    Raises EvidenceFormatError (1) and EvidenceRefusedError.
    Source: AMD, VCEK Certificate and KDS Interface Specification (publication 57230).
    """
    bundle = parse_bundle(endorsements)
    chain = verify_chain(bundle.chain, roots=roots, revocation_lists=bundle.revocation_lists, now=now)
    key = chain.leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceRefusedError("the certificate of the report's key is not of a P-384 key, as AMD's are")
    extensions = {
        extension.oid.dotted_string: extension.value.value
        for extension in chain.leaf.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    product = _product(extensions, chain.root)
    hardware_id = extensions.get(_HARDWARE_ID)
    of_chip = hardware_id is not None and len(hardware_id) in _HARDWARE_ID_BYTES
    if of_chip == (_PROVIDER in extensions) or (hardware_id is not None and not of_chip):
        raise EvidenceRefusedError("the certificate of the report's key names neither one chip nor one provider")
    return SigningKey(
        chain=chain,
        key=key,
        kind="VLEK" if hardware_id is None else "VCEK",
        product=product,
        tcb={part: _integer(extensions, oid) for part, oid in _TCB.items() if oid in extensions},
        hardware_id=hardware_id,
    )


def verify_report(data: bytes, signing_key: SigningKey) -> Claims:
    """The claims of a report that this key signed.

    1. Form (`layout`).
    2. The report says that it was signed by a key of this kind (VCEK or VLEK), and its processor is of the product.
    3. The versions in the key's certificate are those of `reported_tcb`.
    4. The chip id in the certificate is that of the report; Turin has 8 bytes of it. A report that shows no chip id,
       because the host masks it, is bound to the chip by the signature alone.
    5. The signature, ECDSA P-384 with SHA-384, is over these bytes.

    Guarantees: the chip, or one of the provider's chips, made this report at this TCB version. `debug` is the guest's:
    its host may read its memory.
    Does not guarantee: that the TCB version is a good one, that the report is for this connection, or that anybody
    wants this guest (`appraise` judges that).
    Raises EvidenceFormatError (1) and EvidenceRefusedError (2 to 5). Source: AMD publication 56860, ATTESTATION_REPORT.
    """
    report = parse_report(data)
    # 2.
    if report.signing_key != signing_key.kind:
        raise EvidenceRefusedError(
            f"the report says that a {report.signing_key} signed it, the certificate is that of a {signing_key.kind}"
        )
    if report.product not in (None, signing_key.product):
        raise EvidenceRefusedError(
            f"the report is of a {report.product} processor, and the certificate of a {signing_key.product}"
        )
    # 3.
    reported = tcb_parts(report.reported_tcb, signing_key.product)
    if {part: signing_key.tcb.get(part) for part in reported} != dict(reported):
        raise EvidenceRefusedError(
            "the certificate is for another TCB version than the report",
            f"the report has {_versions(reported)}, the certificate {_versions(signing_key.tcb)}; have the platform "
            "fetch the certificate anew",
        )
    # 4.
    chip = report.chip_id[: len(signing_key.hardware_id or b"")]
    if signing_key.hardware_id is not None and any(report.chip_id) and signing_key.hardware_id != chip:
        raise EvidenceRefusedError("the certificate is that of another chip than the report")
    # 5.
    try:
        signature = encode_dss_signature(report.r, report.s)
        signing_key.key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError) as error:
        raise EvidenceRefusedError(
            "the report is not signed by the key of its certificate: it was changed, or is of another chip"
        ) from error
    return _claims(report, signing_key)


class Verifier:
    """`verify` for a service that sees many reports of few chips: the certificates of a chip are verified once.

    Invariant: an entry was made by `verify_endorsements` from exactly these bytes under these roots; whether it is in
    force is asked at each use.
    """

    def __init__(self, roots: tuple[TrustedRoot, ...]) -> None:
        self._roots = roots
        self._keys: OrderedDict[bytes, SigningKey] = OrderedDict()

    def verify(self, report: bytes, endorsements: bytes, *, now: datetime) -> Claims:
        """The claims of a report, with the guarantees and errors of the function `verify`."""
        digest = hashlib.sha256(endorsements).digest()
        known = self._keys.get(digest)
        if known is None:
            known = self._keys[digest] = verify_endorsements(endorsements, roots=self._roots, now=now)
            if len(self._keys) > MAX_CHIPS:
                self._keys.popitem(last=False)
        self._keys.move_to_end(digest)
        known.chain.require(now)
        return verify_report(report, known)


def _product(extensions: Mapping[str, bytes], root: TrustedRoot) -> str:
    try:
        name = asn1.decode_der(asn1.IA5String, extensions.get(_PRODUCT_NAME, b"")).as_str()
    except ValueError as error:
        raise EvidenceRefusedError("the certificate of the report's key has no product name, as AMD's have") from error
    product = name.partition("-")[0]
    if product not in _PRODUCTS or amd_product(root) not in (None, product):
        raise EvidenceRefusedError(
            f"the certificate of the report's key is for {name[:40]!r}, which its root is not for"
        )
    return product


def _integer(extensions: Mapping[str, bytes], oid: str) -> int:
    try:
        return asn1.decode_der(int, extensions[oid])
    except ValueError as error:
        raise EvidenceFormatError(f"certificate extension {oid}: not an integer in DER") from error


def _versions(parts: Mapping[str, int]) -> str:
    return " ".join(f"{part} {number}" for part, number in sorted(parts.items()))


def _claims(report: Report, signing_key: SigningKey) -> Claims:
    software = signing_key.chain.root.software
    return Claims(
        tee="snp",
        measurements={
            "measurement": report.measurement,
            "host_data": report.host_data,
            "id_key_digest": report.id_key_digest,
            "author_key_digest": report.author_key_digest,
            "family_id": report.family_id,
            "image_id": report.image_id,
        },
        signer=report.id_key_digest if any(report.id_key_digest) else None,
        product_id=None,
        svn=report.guest_svn,
        report_data=report.report_data,
        debug=report.debug or software,
        software=software,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=None,
        platform_id=report.chip_id.hex() if any(report.chip_id) else "",
        conditions=frozenset({"migration-agent"} if report.migratable else ()),
        issued=signing_key.chain.issued,
        raw=shown(report, signing_key.product),
    )
