"""Is a TPM's quote authentic, and who vouches for its key? The only place that makes `Claims` of TPM evidence."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtensionOID

from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import Bundle, parse_bundle
from ostiary.evidence.chain import VerifiedChain, verify_chain
from ostiary.evidence.claims import Claims, JsonValue, Tee
from ostiary.evidence.intel.verifier import Verifier as IntelVerifier
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.snp.layout import parse_report
from ostiary.evidence.snp.verify import Verifier as SnpVerifier
from ostiary.evidence.snp.verify import verify as verify_snp
from ostiary.evidence.tdx.verify import verify as verify_tdx
from ostiary.evidence.tpm.eventlog import EventLog, parse_event_log
from ostiary.evidence.tpm.guest import evidence_of
from ostiary.evidence.tpm.hcl import HclReport, parse_hcl_report
from ostiary.evidence.tpm.layout import (
    DIGEST_BYTES,
    Hash,
    PublicArea,
    Quote,
    Signature,
    parse_public_area,
    parse_quote,
    parse_signature,
    shown,
    shown_signature,
)
from ostiary.evidence.tpm.wire import Endorsements, Evidence, parse_endorsements, parse_evidence

MAX_CHAINS = 256
"""Chains of AK certificates remembered by a `Verifier`, the least recently used forgotten first."""
MAX_LOGS = 64
"""Event logs remembered by a `Verifier`, likewise."""
BUNDLES_REMEMBERED = 16
KEYS_REMEMBERED = 256
MAX_KEY_BYTES = 4 * 1024
"""Of a pinned AK, in PEM or DER."""
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 4096

SHA1 = "sha1"
"""The condition of a quote that rests on SHA-1: authentic, but somebody may have found a collision."""

Trust: TypeAlias = Literal["snp", "tdx", "certificate", "pinned"]
"""Who vouches for the AK: the SNP or TDX evidence of the machine, a certificate, or the owner of this service."""

_HASHES: Mapping[Hash, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - such quotes carry the condition SHA1
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# A TPM's certificate has an empty subject and names its maker and model there (TCG EK Credential Profile, 3.2.9); RFC
# 5280 wants that extension critical then. No name of an AK decides anything here.
_UNDERSTOOD = frozenset({ExtensionOID.SUBJECT_ALTERNATIVE_NAME})

_VerifyInner: TypeAlias = Callable[[bytes, bytes], Claims]
_VerifyChain: TypeAlias = Callable[[bytes], VerifiedChain]
_ParseLog: TypeAlias = Callable[[bytes], EventLog]


@dataclass(frozen=True, kw_only=True)
class TrustedAks:
    """Which attestation keys (AKs) the owner of this service trusts by itself. Nothing of it is built in.

    roots: every end-entity certificate below one is believed to be that of a TPM's restricted signing key. keys: DER
    SubjectPublicKeyInfo of AKs that the owner has enrolled.
    """

    roots: tuple[TrustedRoot, ...] = ()
    keys: frozenset[bytes] = field(default=frozenset(), repr=False)


def pinned_ak(text: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of an AK from PEM or DER, for `TrustedAks`. Raises ConfigurationError."""
    if len(text) > MAX_KEY_BYTES:
        raise ConfigurationError(f"the AK has {len(text)} bytes, expected a public key of at most {MAX_KEY_BYTES}")
    try:
        key = load_pem_public_key(text) if text.lstrip().startswith(b"-----BEGIN") else load_der_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("the AK is not a public key in PEM or DER; give ak_pub.pem") from error
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def verify(
    evidence: bytes, endorsements: bytes, *, roots: Sequence[TrustedRoot], aks: TrustedAks, now: datetime
) -> Claims:
    """Verify the evidence of a TPM in its wire form (`wire`). Pure: `now` (aware) is the only clock.

    roots: of SNP and TDX evidence that comes with it. Guarantees and errors: those of `verify_parts`.
    """
    return verify_parts(parse_evidence(evidence), parse_endorsements(endorsements), roots=roots, aks=aks, now=now)


def verify_parts(
    evidence: Evidence, endorsements: Endorsements, *, roots: Sequence[TrustedRoot], aks: TrustedAks, now: datetime
) -> Claims:
    """Verify the evidence of a TPM. Pure: `now` (aware) is the only clock.

    1. Form of all parts (`layout`, `eventlog`, `hcl`).
    2. All parts that name the key that signed, the AK, name the same one. Its public area, if given, is that of a
       restricted signing key which cannot leave its TPM.
    3. Somebody vouches for the AK. With an HCL report, SNP or TDX evidence has the hash of its runtime claims, which
       name the AK, in its report data, and is authentic under one of `roots`; an SNP report is one of VMPL 0, where
       the guest's own system cannot ask for one. Without: the owner pinned the AK; or else the AK's certificate is
       no CA's, may sign, and leads to one of the owner's roots (`chain`).
    4. The AK signed the quote, with RSASSA, RSAPSS or ECDSA and a hash of that scheme.
    5. The values given for the selected PCRs have the quoted digest, by the hash of the signing scheme. Values of
       other PCRs are dropped.
    6. The event log leads to the quoted value of every quoted PCR that it has an event for, in a bank of the log.

    Guarantees: the TPM with this AK made the quote over these PCRs and this nonce, which is `report_data`, as far as
    who vouches for the AK tells the truth. A quote that needs SHA-1 carries the condition `SHA1`. The claims are of tee
    `tpm`; with an HCL report they are those of the SNP or TDX evidence, with the PCRs among the measurements and the
    nonce in place of the report data: anybody can make such a report for an AK of his own in a guest of his own, so the
    PCRs are worth what the guest's measurement is.
    Does not guarantee: that the values of PCRs without an event, or types and data of events, are what the log says;
    that what runs on the machine was measured; that its memory is closed to anybody; that the nonce is fresh; that
    anybody wants this machine (`appraise`).

    Raises EvidenceFormatError (1) and EvidenceRefusedError. Source: TCG, TPM 2.0 Library, part 1, "Attestation", and
    part 3, TPM2_Quote.
    """
    return _verify(
        evidence,
        endorsements,
        aks,
        chain_of=partial(verify_ak_certificate, roots=aks.roots, now=now),
        log_of=parse_event_log,
        inner={
            "snp": partial(verify_snp, roots=_of("snp", roots), now=now),
            "tdx": partial(verify_tdx, roots=_of("tdx", roots), now=now),
        },
    )


class Verifier:
    """`verify` for a service that sees many quotes of few machines: a chain is verified once, an event log read once.

    Invariant: a chain was made by `verify_ak_certificate` from exactly these bytes under these roots; whether it is in
    force is asked at each use. A log was read from exactly these bytes, and led to the PCRs of authentic evidence;
    whether it leads to the quoted ones is asked at each use. SNP and TDX evidence has verifiers of its own.
    """

    def __init__(self, roots: tuple[TrustedRoot, ...], aks: TrustedAks) -> None:
        self._aks = aks
        self._snp = SnpVerifier(_of("snp", roots))
        self._tdx = IntelVerifier(_of("tdx", roots))
        self._chains: OrderedDict[bytes, VerifiedChain] = OrderedDict()
        self._logs: OrderedDict[bytes, EventLog] = OrderedDict()

    def verify(self, evidence: bytes, endorsements: bytes, *, now: datetime) -> Claims:
        """The claims of evidence, with the guarantees and errors of the function `verify`, and for TDX those of
        `intel.verifier`.
        """
        parsed = parse_evidence(evidence)
        digest = None if parsed.event_log is None else hashlib.sha256(parsed.event_log).digest()
        log = None if digest is None else self._logs.get(digest)

        def log_of(data: bytes) -> EventLog:
            nonlocal log
            log = parse_event_log(data) if log is None else log
            return log

        claims = _verify(
            parsed,
            parse_endorsements(endorsements),
            self._aks,
            chain_of=partial(self._chain_of, now=now),
            log_of=log_of,
            inner={"snp": partial(self._snp.verify, now=now), "tdx": partial(self._tdx.verify, now=now)},
        )
        if digest is not None and log is not None:
            self._remember(digest, log)
        return claims

    def _remember(self, digest: bytes, log: EventLog) -> None:
        self._logs[digest] = log
        self._logs.move_to_end(digest)
        if len(self._logs) > MAX_LOGS:
            self._logs.popitem(last=False)

    def _chain_of(self, certificates: bytes, *, now: datetime) -> VerifiedChain:
        digest = hashlib.sha256(certificates).digest()
        chain = self._chains.get(digest)
        if chain is None:
            chain = self._chains[digest] = verify_ak_certificate(certificates, roots=self._aks.roots, now=now)
            if len(self._chains) > MAX_CHAINS:
                self._chains.popitem(last=False)
        self._chains.move_to_end(digest)
        chain.require(now)
        return chain


def _of(tee: Tee, roots: Sequence[TrustedRoot]) -> tuple[TrustedRoot, ...]:
    return tuple(root for root in roots if tee in root.tees)


@lru_cache(maxsize=BUNDLES_REMEMBERED)
def _bundle(certificates: bytes) -> Bundle:
    """`parse_bundle`, which is pure, with its last answers remembered."""
    return parse_bundle(certificates)


@lru_cache(maxsize=KEYS_REMEMBERED)
def _public_area(data: bytes) -> PublicArea:
    """`parse_public_area`, which is pure, with its last answers remembered."""
    return parse_public_area(data)


@lru_cache(maxsize=KEYS_REMEMBERED)
def _hierarchy(area: PublicArea, qualified_signer: bytes) -> str | None:
    return area.hierarchy(qualified_signer)


def verify_ak_certificate(certificates: bytes, *, roots: Sequence[TrustedRoot], now: datetime) -> VerifiedChain:
    """Decide whether the end-entity certificate in a PEM bundle is that of an AK below one of `roots`.

    Guarantees what `verify_chain` does, and that the certificate may sign. Raises EvidenceFormatError and
    EvidenceRefusedError.
    """
    bundle = _bundle(certificates)
    chain = verify_chain(
        bundle.chain, roots=roots, revocation_lists=bundle.revocation_lists, now=now, understood=_UNDERSTOOD
    )
    try:
        usage = chain.leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return chain
    if not usage.digital_signature:
        raise EvidenceRefusedError("the AK's certificate is for a key that may not sign: it is that of another key")
    return chain


@dataclass(frozen=True, kw_only=True)
class _Parsed:
    quote: Quote
    signature: Signature
    public: PublicArea | None
    log: EventLog | None
    hcl: HclReport | None
    certificates: Bundle | None


def _verify(
    evidence: Evidence,
    endorsements: Endorsements,
    aks: TrustedAks,
    *,
    chain_of: _VerifyChain,
    log_of: _ParseLog,
    inner: Mapping[Literal["snp", "tdx"], _VerifyInner],
) -> Claims:
    # 1.
    parsed = _Parsed(
        quote=parse_quote(evidence.quote),
        signature=parse_signature(evidence.signature),
        public=None if evidence.ak_public is None else _public_area(evidence.ak_public),
        log=None if evidence.event_log is None else log_of(evidence.event_log),
        hcl=None if evidence.hcl_report is None else parse_hcl_report(evidence.hcl_report),
        certificates=_bundle(endorsements.ak) if endorsements.ak else None,
    )
    # 2.
    ak = _the_key(evidence, parsed)
    # 3.
    platform: Claims | None = None
    software = False
    trust: Trust
    if parsed.hcl is not None:
        platform = _bound_claims(parsed.hcl, evidence, endorsements, inner)
        trust = parsed.hcl.kind
    elif ak in aks.keys:
        trust = "pinned"
    elif parsed.certificates is not None:
        software = chain_of(endorsements.ak).root.software
        trust = "certificate"
    else:
        raise EvidenceRefusedError(
            "nobody vouches for the key that signed the quote (the AK)",
            "send its certificate, or have the owner of the service trust it",
        )
    # 4.
    _require_signed(parsed.quote, parsed.signature, ak)
    # 5.
    values = _quoted_values(parsed, evidence)
    # 6.
    replayed = {} if parsed.log is None else _replayed(parsed.log, values)
    fields = _fields(parsed, ak, trust, replayed)
    quoted = {"pcrs": parsed.quote.pcr_digest, **{f"{bank}:{pcr}": value for (bank, pcr), value in values.items()}}
    events = {
        f"{bank}:{pcr}": parsed.log.digests[bank][pcr]
        for bank, pcrs in replayed.items()
        for pcr in pcrs
        if parsed.log is not None
    }
    conditions = frozenset({SHA1}) if _needs_sha1(parsed) else frozenset[str]()
    if parsed.hcl is not None and platform is not None:
        return replace(
            platform,
            measurements={**platform.measurements, **quoted},
            events=events,
            report_data=parsed.quote.nonce,
            conditions=platform.conditions | conditions,
            raw={**fields, **_platform_fields(parsed.hcl, platform)},
        )
    return Claims(
        tee="tpm",
        measurements=quoted,
        signer=None,
        product_id=None,
        svn=None,
        report_data=parsed.quote.nonce,
        debug=software,
        software=software,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=None,
        platform_id=hashlib.sha256(ak).hexdigest(),
        conditions=conditions,
        events=events,
        raw=fields,
    )


def _the_key(evidence: Evidence, parsed: _Parsed) -> bytes:
    """The AK, DER SubjectPublicKeyInfo, that all parts name."""
    named: dict[str, bytes] = {}
    if evidence.ak is not None:
        named["the AK"] = _public_key(evidence.ak).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if parsed.public is not None:
        named["the AK's public area"] = parsed.public.spki
    if parsed.certificates is not None:
        key = parsed.certificates.chain[0].public_key()
        named["the AK's certificate"] = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if parsed.hcl is not None:
        named["the HCL report"] = parsed.hcl.ak
    if not named:
        raise EvidenceRefusedError("the evidence does not say which key signed the quote (the AK)")
    if len(set(named.values())) > 1:
        raise EvidenceRefusedError("the parts of the evidence name different AKs", ", ".join(named))
    if parsed.public is not None and parsed.public.missing:
        raise EvidenceRefusedError(
            "the AK is not a restricted signing key of its TPM: it would sign what the TPM did not make",
            f"its attributes lack {', '.join(parsed.public.missing)}",
        )
    return next(iter(named.values()))


def _bound_claims(
    hcl: HclReport,
    evidence: Evidence,
    endorsements: Endorsements,
    inner: Mapping[Literal["snp", "tdx"], _VerifyInner],
) -> Claims:
    """The claims of the SNP or TDX evidence that vouches for the runtime claims of an HCL report."""
    found = evidence_of(hcl, evidence)
    if found is None:
        raise EvidenceRefusedError("the HCL report is that of a TD, and no TD quote was sent; it vouches for the AK")
    if hcl.kind == "snp":
        claims = inner["snp"](found, endorsements.snp)
        vmpl = parse_report(found).vmpl
        if vmpl != 0:
            raise EvidenceRefusedError(
                f"the SNP report is of VMPL {vmpl}: the guest's own system may have asked for it, and named any AK"
            )
    else:
        claims = inner["tdx"](found, endorsements.tdx)
        if claims.tee != "tdx":
            raise EvidenceRefusedError("what was sent as the TD quote is another quote")
    if not hmac.compare_digest(claims.report_data[: len(hcl.digest)], hcl.digest):
        raise EvidenceRefusedError(
            "the HCL report is not the one that the hardware vouches for",
            "the report data do not begin with SHA-256 of its runtime claims",
        )
    return claims


def _require_signed(quote: Quote, signature: Signature, ak: bytes) -> None:
    key = _public_key(ak)
    algorithm = _HASHES[signature.hash]
    unsigned = EvidenceRefusedError(
        "the quote is not signed by this AK: it was changed after signing, or is another TPM's"
    )
    if isinstance(key, rsa.RSAPublicKey) != (signature.scheme != "ecdsa"):
        raise EvidenceRefusedError(f"the signature is of {signature.scheme}, and the AK is no such key")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            scheme: padding.AsymmetricPadding = padding.PKCS1v15()
            if signature.scheme == "rsapss":
                scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            key.verify(signature.rsa, quote.signed, scheme, algorithm)
        else:
            key.verify(encode_dss_signature(signature.r, signature.s), quote.signed, ec.ECDSA(algorithm))
    except (InvalidSignature, ValueError) as error:
        raise unsigned from error
    if len(quote.pcr_digest) != DIGEST_BYTES[signature.hash]:
        raise EvidenceRefusedError(
            f"the quoted digest has {len(quote.pcr_digest)} bytes, expected one of the signature's {signature.hash}"
        )


@lru_cache(maxsize=KEYS_REMEMBERED)
def _public_key(ak: bytes) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(ak)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EvidenceFormatError("the AK is not a public key in DER") from error
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise EvidenceRefusedError(
        f"the AK is neither an RSA key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits nor one of P-256, P-384 or P-521"
    )


def _quoted_values(parsed: _Parsed, evidence: Evidence) -> dict[tuple[Hash, int], bytes]:
    if evidence.pcrs is None:
        return {}
    selected = [(selection.bank, pcr) for selection in parsed.quote.selections for pcr in selection.pcrs]
    given = {(bank, pcr): value for bank, values in evidence.pcrs.items() for pcr, value in values.items()}
    missing = [f"{bank}:{pcr}" for bank, pcr in selected if (bank, pcr) not in given]
    if missing:
        raise EvidenceRefusedError("values of quoted PCRs are missing", ", ".join(missing))
    values = {name: given[name] for name in selected}
    digest = hashlib.new(parsed.signature.hash, b"".join(values.values()), usedforsecurity=True).digest()
    if not hmac.compare_digest(digest, parsed.quote.pcr_digest):
        raise EvidenceRefusedError(
            "the PCR values are not the quoted ones: their digest differs from that of the quote"
        )
    return values


def _replayed(log: EventLog, values: Mapping[tuple[Hash, int], bytes]) -> dict[Hash, dict[int, bytes]]:
    """The quoted values that the log leads to. Raises EvidenceRefusedError, naming every PCR where it does not."""
    if not values:
        raise EvidenceRefusedError("an event log without PCR values: nothing says whether it is this machine's")
    banks = [bank for bank in log.banks if any(quoted == bank for quoted, _ in values)]
    if not banks:
        raise EvidenceRefusedError("the event log has no digests of a quoted bank", f"it has {', '.join(log.banks)}")
    found: dict[Hash, dict[int, bytes]] = {}
    wrong = []
    for bank in banks:
        led_to = {pcr: value for pcr, value in log.values[bank].items() if (bank, pcr) in values}
        wrong += [
            f"{bank}:{pcr} is {values[bank, pcr].hex()} and the log leads to {value.hex()}"
            for pcr, value in sorted(led_to.items())
            if value != values[bank, pcr]
        ]
        found[bank] = led_to
    if wrong:
        raise EvidenceRefusedError("the event log does not lead to the quoted PCRs", *wrong)
    return found


def _needs_sha1(parsed: _Parsed) -> bool:
    return parsed.signature.hash == "sha1" or any(selection.bank == "sha1" for selection in parsed.quote.selections)


def shown_key(ak: bytes) -> dict[str, JsonValue]:
    """What kind of key an AK is, for people and programs to read. Raises EvidenceFormatError, EvidenceRefusedError."""
    key = _public_key(ak)
    kind = f"rsa{key.key_size}" if isinstance(key, rsa.RSAPublicKey) else key.curve.name
    return {"ak_type": kind, "ak_sha256_spki": hashlib.sha256(ak).hexdigest()}


def _fields(
    parsed: _Parsed, ak: bytes, trust: Trust, replayed: Mapping[Hash, Mapping[int, bytes]]
) -> dict[str, JsonValue]:
    """Every field, as docs/enclave-protocol.md lists them."""
    fields = {**shown(parsed.quote), **shown_signature(parsed.signature), **shown_key(ak), "ak_trust": trust}
    if parsed.public is not None:
        fields["ak_name"] = parsed.public.name.hex()
        fields["ak_hierarchy"] = _hierarchy(parsed.public, parsed.quote.qualified_signer)
    if parsed.certificates is not None:
        fields["ak_cert_subject_empty"] = not list(parsed.certificates.chain[0].subject)
    if parsed.log is not None:
        bank, values = next(iter(replayed.items()))
        fields["event_log_pcrs"] = [*sorted(values)]
        fields["events"] = {
            str(pcr): [digest.hex() for digest in parsed.log.digests[bank][pcr]] for pcr in sorted(values)
        }
    return fields


def _platform_fields(hcl: HclReport, platform: Claims) -> dict[str, JsonValue]:
    fields: dict[str, JsonValue] = {"hcl_user_data": hcl.user_data, "vm_unique_id": hcl.vm_unique_id}
    if hcl.kind == "tdx":
        return {**fields, "hcl_claims_bind_to_td_quote": True, "td_quote": dict(platform.raw)}
    return {
        **fields,
        "hcl_claims_bind_to_report": True,
        "vmpl": platform.raw["vmpl"],
        "snp_measurement": platform.raw["measurement"],
        "snp_reported_tcb": platform.raw["reported_tcb"],
        "snp_chip_id": platform.raw["chip_id"],
        "snp_report": dict(platform.raw),
    }
