"""Which endorsements a piece of evidence is verified with: what came with it, or copies that are kept. Asks nobody."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from dcap_qvl import parse_pck_extension_from_pem  # type: ignore[import-untyped]

from ostiary.errors import EndorsementsMissingError, EvidenceFormatError, EvidenceRefusedError, OstiaryError
from ostiary.evidence.bundle import parse_bundle, parse_certificates
from ostiary.evidence.chain import parse_revocation_list, verify_chain
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement, Origin, Piece, pck_ca, verify_piece
from ostiary.evidence.endorsements.vendors import read_thim
from ostiary.evidence.intel.collateral import digest_of, parse_collateral
from ostiary.evidence.intel.quote import PCK_CHAIN, SignedQuote, parse_signed_quote
from ostiary.evidence.intel.statement import parse_statement
from ostiary.evidence.intel.verify import named_root
from ostiary.evidence.roots import AMD_PRODUCTS
from ostiary.evidence.snp.layout import Report, parse_report, tcb_parts
from ostiary.evidence.snp.verify import SigningKey, verify_endorsements
from ostiary.evidence.tpm.guest import guest_endorsements, guest_evidence, with_guest_endorsements

MAX_REMEMBERED = 256
"""Endorsements of attesters whose verification is remembered, the least recently used forgotten first."""

_JUST_BEFORE = timedelta(seconds=1)
"""At their `nextUpdate` itself, dcap-qvl takes revocation lists for expired."""
_TEE_OF_ID = {"SGX": "sgx", "TDX": "tdx", "QE": "sgx", "TD_QE": "tdx"}
_MISSING = "the platform sent no endorsements that can be used, and this service has none for it"
_Thing = TypeVar("_Thing")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A copy that a service keeps. origin: the vendor, or the service's owner in its place; or an attester."""

    endorsement: Endorsement
    origin: Origin


Held = Callable[[Part], "Kept | None"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """endorsements: what to verify the evidence with, in the form of its TEE. at: when they are judged, `now` or, where
    stale ones are used, the last moment at which all of them were in force.

    parts: which they are, where they were looked at. sent: endorsements of hardware that came with the evidence, for a
    service to keep once the evidence is accepted.
    """

    endorsements: bytes = field(repr=False)
    at: datetime
    parts: tuple[Part, ...] = ()
    sent: tuple[Endorsement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What was chosen for one platform, of what it sent and what was kept then.

    picked: None: what was sent, as it is. kept: of each part that was looked for, the copy that was there.
    since, until: when it would be made the same of these copies: none of them begins or ends to count in between, nor
    is any of those picked close to its end.
    """

    picked: tuple[Endorsement, ...] | None
    parts: tuple[Part, ...]
    sent: tuple[Endorsement, ...]
    kept: Mapping[Part, Kept | None]
    since: datetime
    until: datetime

    def would_be_the_same(self, held: Held, now: datetime) -> bool:
        return self.since <= now < self.until and all(held(part) == copy for part, copy in self.kept.items())

    def chosen(self, sent: bytes, now: datetime) -> Chosen:
        endorsements = sent if self.picked is None else assemble(self.picked)
        return Chosen(endorsements=endorsements, at=now, parts=self.parts, sent=self.sent)


class Chooser:
    """Chooses for one service. held: the copies that it keeps, each verified under `anchors` before.

    Invariants: what is remembered of sent endorsements was verified under `anchors`; whether it is in force is asked at
    each use. A choice that is remembered is used only for the same platform, sent bytes and age, beside the very copies
    that it was made beside, and at times at which it would be made again.
    """

    def __init__(self, anchors: Anchors, held: Held) -> None:
        self._anchors = anchors
        self._held = held
        self._choices: OrderedDict[tuple[str, bytes, bytes, timedelta | None], _Choice] = OrderedDict()
        self._sent: OrderedDict[bytes, tuple[Endorsement, ...]] = OrderedDict()
        self._keys: OrderedDict[bytes, SigningKey] = OrderedDict()
        self._vceks: OrderedDict[bytes, tuple[Endorsement, ...]] = OrderedDict()

    def choose(self, tee: str, evidence: bytes, sent: bytes, *, now: datetime, max_age: timedelta | None) -> Chosen:
        """What to verify this evidence with. Pure but for its memory: `now` (aware) is the only clock.

        tee: of "sgx", "tdx" and "snp" endorsements are looked at, and of "tpm" those of the guest that has the vTPM, if
        there is one; of any other the sent ones are taken as they are.
        sent: what the attester gave, may be empty. max_age: as in `Endorsement.last_use`.

        Part by part, what was sent counts if it may be used; but a copy that the vendor or the owner gave, and that is
        newer, takes its place, so that no platform hides its own state behind older TCB data. Copies that came from
        other attesters only fill gaps: nobody brings others under TCB data that does not count yet. Under a software
        root only what was sent counts.

        Guarantees on return, of what is looked at: every statement was signed by its vendor, and is in force or not
        older than `max_age`; every certificate is in force at `now`. Does not guarantee that the evidence is authentic,
        or that none of the certificates is revoked: whoever verifies it with the result learns that.

        Raises EndorsementsMissingError with the parts that would help; EvidenceFormatError and EvidenceRefusedError.
        """
        if tee in ("sgx", "tdx"):
            return self._choose_intel(parse_signed_quote(evidence), sent, now, max_age)
        if tee == "snp":
            return self._choose_snp(parse_report(evidence), sent, now, max_age)
        guest = guest_evidence(evidence) if tee == "tpm" else None
        if guest is None:
            return Chosen(endorsements=sent, at=now)
        kind, guests = guest
        chosen = self.choose(kind, guests, guest_endorsements(sent, kind), now=now, max_age=max_age)
        return replace(chosen, endorsements=with_guest_endorsements(sent, kind, chosen.endorsements))

    def _choose_intel(self, quote: SignedQuote, sent: bytes, now: datetime, max_age: timedelta | None) -> Chosen:
        if quote.certification_type != PCK_CHAIN:
            # Says more about it than could be said here.
            return Chosen(endorsements=sent, at=now)
        key = (quote.tee, hashlib.sha256(quote.certification).digest(), digest_of(sent), max_age)
        made = self._choices.get(key)
        if made is None or not made.would_be_the_same(self._held, now):
            self._choices.pop(key, None)
            anew = self._choose_intel_anew(quote, sent, now, max_age)
            if isinstance(anew, Chosen):
                return anew
            made = self._choices[key] = anew
            if len(self._choices) > MAX_REMEMBERED:
                self._choices.popitem(last=False)
        self._choices.move_to_end(key)
        return made.chosen(sent, now)

    def _choose_intel_anew(
        self, quote: SignedQuote, sent: bytes, now: datetime, max_age: timedelta | None
    ) -> Chosen | _Choice:
        """As `choose`; a choice that may be remembered is one that was made without any fault or stale copy."""
        parts = parts_of_quote(quote)
        own: dict[Part, Endorsement] = {}
        refused: tuple[str, ...] = ()
        if sent:
            try:
                own = {one.part: one for one in self._read_sent(sent, now)}
            except (EvidenceFormatError, EvidenceRefusedError) as error:
                refused = error.chain
        if own and parts[0] not in own:
            other = next(part for part in own if part.kind == "tcb-info").words[0] != quote.tee
            what = f"another TEE than {quote.tee.upper()}" if other else "another kind of platform"
            refused = (f"the endorsements are for {what}",)
        chosen: list[Endorsement] = []
        missing: dict[Part, tuple[str, ...]] = {}
        kept = {part: self._held(part) for part in parts if part not in own or not own[part].root.software}
        for part in parts:
            try:
                chosen.append(_pick(part, own.get(part), kept.get(part), now, max_age))
            except EndorsementsMissingError as error:
                missing[part] = error.chain if part in own else ()
        if missing:
            if named_root(quote.certification, self._anchors.intel) is None:
                # The verification refuses it for that, and says what the owner could do.
                return Chosen(endorsements=sent, at=now)
            # Nobody is asked about a platform that is none.
            verify_chain(parse_bundle(quote.certification).chain, roots=self._anchors.intel, now=now)
            told = refused or next((why for why in missing.values() if why), (_MISSING,))
            raise EndorsementsMissingError(*told, parts=tuple(map(str, missing)))
        at = min(now, *(one.until - _JUST_BEFORE for one in chosen))
        picked = None if set(chosen) == set(own.values()) else tuple(chosen)
        if at < now:
            _require_overlap(chosen, at)
            _require_in_force(quote, now)
        if at < now or refused:
            return Chosen(
                endorsements=sent if picked is None else assemble(picked),
                at=at,
                parts=parts,
                sent=_of_hardware(own.values()),
            )
        looked_at = [*own.values(), *(copy.endorsement for copy in kept.values() if copy is not None)]
        ends = [one.until - _JUST_BEFORE for one in chosen]
        turns = [instant for one in looked_at for instant in (one.issued, one.last_use(max_age)) if instant > now]
        return _Choice(
            picked=picked,
            parts=parts,
            sent=_of_hardware(own.values()),
            kept=kept,
            since=now,
            until=min(*ends, *turns),
        )

    def _read_sent(self, sent: bytes, now: datetime) -> tuple[Endorsement, ...]:
        return _remembered(self._sent, sent, lambda: read_collateral(sent, self._anchors, now=now))

    def _choose_snp(self, report: Report, sent: bytes, now: datetime, max_age: timedelta | None) -> Chosen:
        pem = sent if not sent or sent.lstrip().startswith(b"-----BEGIN ") else read_thim(sent)
        alternatives = parts_of_report(report)
        first: OstiaryError | None = None
        for tried in self._candidates(report, pem, alternatives, now, max_age):
            try:
                key = self._signing_key(tried, now)
                _require_of(key, report)
            except (EvidenceFormatError, EvidenceRefusedError) as error:
                first = first or error
                continue
            endorsements, at = self._with_list(tried, key, now, max_age)
            new = self._pieces(tried, key, report, now) if pem and tried.startswith(pem) else ()
            parts = tuple(part for part in alternatives if key.product in part.words)
            return Chosen(endorsements=endorsements, at=at, parts=parts, sent=new)
        told = (_MISSING,) if first is None or not pem else first.chain
        raise EndorsementsMissingError(*told, parts=tuple(map(str, alternatives)))

    def _candidates(
        self, report: Report, pem: bytes, parts: Sequence[Part], now: datetime, max_age: timedelta | None
    ) -> list[bytes]:
        """Certificates that may vouch for the report's key, in the order in which they count."""
        held = {}
        for part in parts:
            try:
                held[part] = _pick(part, None, self._held(part), now, max_age).piece
            except EndorsementsMissingError:
                continue
        chains = [piece.data for part, piece in held.items() if part.kind == "amd-chain"]
        sent = [pem, *(pem + b"\n" + chain for chain in chains)] if pem else []
        if report.signing_key == "VLEK":
            return sent
        return sent + [
            _certificate_pem(piece.data) + piece.chain for part, piece in held.items() if part.kind == "vcek"
        ]

    def _signing_key(self, pem: bytes, now: datetime) -> SigningKey:
        key = _remembered(self._keys, pem, lambda: verify_endorsements(pem, roots=self._anchors.amd, now=now))
        key.chain.require(now)
        return key

    def _with_list(
        self, pem: bytes, key: SigningKey, now: datetime, max_age: timedelta | None
    ) -> tuple[bytes, datetime]:
        """These certificates with AMD's revocation list, and when to judge them.

        The list that is kept counts, in place of what was sent without one of the root that is as new; without a kept
        one those that were sent.
        One that is too old cannot be judged with; but what it revokes stays revoked. AMD's lists are not required.
        Raises EvidenceRefusedError for what an old list revokes.
        """
        kept = None if key.chain.root.software else self._held(Part(kind="amd-crl", name=key.product))
        if kept is None:
            return pem, now
        ours, bundle = kept.endorsement, parse_bundle(pem)
        revocations = parse_revocation_list(ours.piece.data, str(ours.part))
        # Of the root: who has the key of a CA that the root revoked can sign lists as well.
        of_root = [sent for sent in bundle.revocation_lists if sent.issuer == revocations.issuer]
        if any(sent.last_update_utc >= ours.issued for sent in of_root):
            return pem, now
        at = min(now, ours.until - _JUST_BEFORE)
        if (now < ours.until or now < ours.last_use(max_age)) and at >= key.chain.not_before:
            certificates = b"".join(one.public_bytes(Encoding.PEM) for one in bundle.chain)
            return certificates + revocations.public_bytes(Encoding.PEM), at
        for certificate in bundle.chain:
            of_it = certificate.issuer == revocations.issuer
            if of_it and revocations.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                raise EvidenceRefusedError("a certificate of the evidence or its endorsements is revoked")
        return pem, now

    def _pieces(self, pem: bytes, key: SigningKey, report: Report, now: datetime) -> tuple[Endorsement, ...]:
        """The VCEK that was sent, as a piece to keep."""
        if key.hardware_id is None or key.chain.root.software:
            return ()
        return _remembered(self._vceks, report.reported_tcb + pem, lambda: self._vcek(pem, key, report, now))

    def _vcek(self, pem: bytes, key: SigningKey, report: Report, now: datetime) -> tuple[Endorsement, ...]:
        issuers = b"".join(one.public_bytes(Encoding.PEM) for one in parse_certificates(pem) if one != key.chain.leaf)
        try:
            part = Part(kind="vcek", name=f"{key.product}/{(key.hardware_id or b'').hex()}/{report.reported_tcb.hex()}")
            piece = Piece(part=part, data=key.chain.leaf.public_bytes(Encoding.DER), chain=issuers)
            return (verify_piece(piece, self._anchors, now=now),)
        except (EvidenceFormatError, EvidenceRefusedError):
            return ()


def _pick(
    part: Part, own: Endorsement | None, kept: Kept | None, now: datetime, max_age: timedelta | None
) -> Endorsement:
    """The copy of a part to use. Raises EndorsementsMissingError, which says what is wrong with it."""
    why: tuple[str, ...] = (f"there is no {part}",)
    usable: list[Endorsement] = []
    for copy in (None if kept is None else kept.endorsement, own):
        if copy is not None:
            try:
                copy.require(now, max_age)
                usable.append(copy)
            except EvidenceRefusedError as error:
                why = error.chain
    if not usable:
        raise EndorsementsMissingError(*why, parts=(str(part),))
    if len(usable) == 2 and kept is not None and kept.origin == "vendor" and usable[0].is_newer_than(usable[1]):
        return usable[0]
    return usable[-1]


def parts_of(tee: str, evidence: bytes) -> tuple[Part, ...]:
    """The endorsements that this evidence can be verified with. Raises EvidenceFormatError.

    Of an SNP report that does not name its product, those of all products that it may be of.
    """
    if tee == "snp":
        return parts_of_report(parse_report(evidence))
    if tee in ("sgx", "tdx"):
        quote = parse_signed_quote(evidence)
        return parts_of_quote(quote) if quote.certification_type == PCK_CHAIN else ()
    guest = guest_evidence(evidence) if tee == "tpm" else None
    return () if guest is None else parts_of(*guest)


def parts_of_quote(quote: SignedQuote) -> tuple[Part, ...]:
    """TCB info, QE identity and both revocation lists of the platform that its PCK certificate names."""
    fmspc, ca = _platform_of(quote.certification)
    return parts_of_platform(quote.tee, fmspc, ca)


@lru_cache(maxsize=MAX_REMEMBERED)
def parts_of_platform(tee: str, fmspc: str, *cas: str) -> tuple[Part, ...]:
    """The same for a platform by its FMSPC, and by the CAs that may have certified it."""
    return (
        Part(kind="tcb-info", name=f"{tee}/{fmspc.lower()}"),
        Part(kind="qe-identity", name=tee),
        *(Part(kind="pck-crl", name=ca) for ca in cas),
        Part(kind="root-crl", name="intel"),
    )


def parts_of_report(report: Report) -> tuple[Part, ...]:
    """The VCEK where the report says whose it is, who issues it, and AMD's revocation list.

    Reports before version 3 do not name their product, which is then Milan or Genoa.
    """
    products = [report.product] if report.product else [name for name in AMD_PRODUCTS if name != "Turin"]
    kind = "vlek" if report.signing_key == "VLEK" else "vcek"
    parts: list[Part] = []
    for product in products:
        chip = report.chip_id[:8] if product == "Turin" else report.chip_id
        parts.append(Part(kind="amd-chain", name=f"{kind}/{product}"))
        if kind == "vcek" and any(chip):
            parts.append(Part(kind="vcek", name=f"{product}/{chip.hex()}/{report.reported_tcb.hex()}"))
        parts.append(Part(kind="amd-crl", name=product))
    return tuple(parts)


def read_collateral(data: bytes, anchors: Anchors, *, now: datetime) -> tuple[Endorsement, ...]:
    """The four parts of an attester's endorsements of a quote, each verified. Raises as `verify_piece`."""
    collateral = parse_collateral(data)
    tcb_info = parse_statement(collateral.tcb_info, "endorsements: TCB info")
    identity = parse_statement(collateral.qe_identity, "endorsements: QE identity")
    issuer = parse_revocation_list(collateral.pck_crl, "pck_crl").issuer
    pieces = (
        Piece(
            part=Part(kind="tcb-info", name=f"{_tee(tcb_info)}/{str(tcb_info.get('fmspc')).lower()}"),
            data=collateral.tcb_info.encode(),
            signature=collateral.tcb_info_signature,
            chain=collateral.tcb_info_issuer_chain.encode(),
        ),
        Piece(
            part=Part(kind="qe-identity", name=_tee(identity)),
            data=collateral.qe_identity.encode(),
            signature=collateral.qe_identity_signature,
            chain=collateral.qe_identity_issuer_chain.encode(),
        ),
        Piece(
            part=Part(kind="pck-crl", name=pck_ca(issuer)),
            data=collateral.pck_crl,
            chain=collateral.pck_crl_issuer_chain.encode(),
        ),
        Piece(part=Part(kind="root-crl", name="intel"), data=collateral.root_ca_crl),
    )
    return tuple(verify_piece(piece, anchors, now=now) for piece in pieces)


@lru_cache(maxsize=MAX_REMEMBERED)
def assemble(chosen: tuple[Endorsement, ...]) -> bytes:
    """The endorsements of a quote in the form that `intel.collateral` documents, of the four parts of its platform."""
    pieces = {one.part.kind: one.piece for one in chosen}
    tcb_info, identity, pck_crl = pieces["tcb-info"], pieces["qe-identity"], pieces["pck-crl"]
    members = {
        "pck_crl_issuer_chain": pck_crl.chain.decode("ascii"),
        "root_ca_crl": pieces["root-crl"].data.hex(),
        "pck_crl": pck_crl.data.hex(),
        "tcb_info_issuer_chain": tcb_info.chain.decode("ascii"),
        "tcb_info": tcb_info.data.decode("ascii"),
        "tcb_info_signature": tcb_info.signature.hex(),
        "qe_identity_issuer_chain": identity.chain.decode("ascii"),
        "qe_identity": identity.data.decode("ascii"),
        "qe_identity_signature": identity.signature.hex(),
    }
    return json.dumps(members).encode()


def _require_overlap(chosen: Sequence[Endorsement], at: datetime) -> None:
    newest = max(one.issued for one in chosen)
    if newest > at:
        raise EvidenceRefusedError(
            "the endorsements that this service has were at no time in force together; it needs newer ones",
            f"one ended {at:%Y-%m-%dT%H:%M:%SZ}, another began {newest:%Y-%m-%dT%H:%M:%SZ}",
        )


def _require_in_force(quote: SignedQuote, now: datetime) -> None:
    """The platform's own certificates are judged now, even where stale statements are judged at an earlier time."""
    for certificate in parse_certificates(quote.certification):
        if now > certificate.not_valid_after_utc:
            raise EvidenceRefusedError("a certificate of the quote has run out; have the platform fetch a new one")


def _require_of(key: SigningKey, report: Report) -> None:
    """Cheap signs that a key is not the report's; whether it is, `snp.verify_report` decides."""
    if key.kind != report.signing_key:
        raise EvidenceRefusedError(
            f"the report says that a {report.signing_key} signed it, the certificate is that of a {key.kind}"
        )
    if dict(key.tcb) != dict(tcb_parts(report.reported_tcb, key.product)):
        raise EvidenceRefusedError("the certificate of the report's key is for another TCB version than the report's")
    chip = report.chip_id[: len(key.hardware_id or b"")]
    if any(chip) and chip != key.hardware_id:
        raise EvidenceRefusedError("the report is of another chip than the certificate of its key")


@lru_cache(maxsize=MAX_REMEMBERED)
def _platform_of(pck_chain: bytes) -> tuple[str, str]:
    """FMSPC in hex, and which CA issued the certificate. No trust comes of it."""
    try:
        extension = parse_pck_extension_from_pem(pck_chain)
        leaf = parse_bundle(pck_chain).chain[0]
    except ValueError as error:
        raise EvidenceFormatError("the PCK certificate has no SGX extension that can be read") from error
    return extension.fmspc.hex(), pck_ca(leaf.issuer)


def _tee(members: Mapping[str, object]) -> str:
    # TCB info of version 2 has no id, and is of SGX.
    return _TEE_OF_ID.get(str(members.get("id", "SGX")), "of an unknown TEE")


def _of_hardware(endorsements: Iterable[Endorsement]) -> tuple[Endorsement, ...]:
    return tuple(one for one in endorsements if not one.root.software)


def _certificate_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _remembered(memory: OrderedDict[bytes, _Thing], data: bytes, make: Callable[[], _Thing]) -> _Thing:
    digest = hashlib.sha256(data).digest()
    if digest not in memory:
        memory[digest] = make()
        if len(memory) > MAX_REMEMBERED:
            memory.popitem(last=False)
    memory.move_to_end(digest)
    return memory[digest]
