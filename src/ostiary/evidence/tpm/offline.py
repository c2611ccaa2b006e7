"""A TPM's evidence in files that lie side by side. Pure: bytes in, no file read.

Beside the quote `quote.sig` and `pcrs.json`, or beside `quote_X.msg` these with X in their names too; then
`ak_pub.pem`, `ak_tpmt_public.bin`, `ak_cert.*` with its issuers in `ca*`, `eventlog.bin`, `hcl_report.bin`,
`snp_report.bin` with certificates in any other file, `td_quote.bin` with `td_collateral.json`. Or evidence in its wire
form, with the endorsements in files of these names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from ostiary.errors import ConfigurationError, EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.bundle import parse_bundle, pem_of
from ostiary.evidence.claims import Claims, JsonValue
from ostiary.evidence.roots import TrustedRoot
from ostiary.evidence.tpm.layout import QUOTE_MAGIC, parse_public_area, parse_quote, parse_signature, shown_signature
from ostiary.evidence.tpm.layout import shown as shown_quote
from ostiary.evidence.tpm.verify import TrustedAks, pinned_ak, shown_key, verify_ak_certificate, verify_parts
from ostiary.evidence.tpm.wire import Endorsements, Evidence, parse_evidence, parse_pcrs

QUOTE_FILE = "quote.msg"

_OF_THE_AK = ("ak_", "ca")
_PARTS = {
    "ak_public": "ak_tpmt_public.bin",
    "event_log": "eventlog.bin",
    "hcl_report": "hcl_report.bin",
    "snp_report": "snp_report.bin",
    "td_quote": "td_quote.bin",
}
_PINNED = "ak_pub.pem"
_COLLATERAL = "td_collateral.json"


def looks_like_it(data: bytes) -> bool:
    """These bytes are a quote, or evidence in its wire form, if they are evidence at all."""
    return data.startswith(QUOTE_MAGIC) or data.lstrip()[:1] == b"{"


def show(data: bytes) -> Mapping[str, JsonValue]:
    """The fields of a quote, or of evidence in its wire form. Authenticates nothing. Raises EvidenceFormatError."""
    if data.startswith(QUOTE_MAGIC):
        return shown_quote(parse_quote(data))
    evidence = parse_evidence(data)
    ak = evidence.ak
    if ak is None and evidence.ak_public is not None:
        ak = parse_public_area(evidence.ak_public).spki
    return {
        **shown_quote(parse_quote(evidence.quote)),
        **shown_signature(parse_signature(evidence.signature)),
        **({} if ak is None else shown_key(ak)),
    }


def verify_files(
    data: bytes,
    files: Mapping[str, bytes],
    *,
    name: str,
    roots: Sequence[TrustedRoot],
    ak_roots: Sequence[TrustedRoot],
    now: datetime,
) -> Claims:
    """Verify a quote, or evidence in its wire form, with the files beside it, contents by name.

    name: that of the file with the quote. An `ak_pub.pem` is trusted: the caller pins it. A certificate of that key is
    trusted for itself only below `ak_roots`, but must not contradict the rest: with issuers beside it, the chain must
    hold, be in force and not be revoked under any root among them.
    Guarantees what `verify_parts` does. Raises EvidenceFormatError, EvidenceRefusedError.
    """
    evidence = _evidence(data, files, name) if data.startswith(QUOTE_MAGIC) else parse_evidence(data)
    ak_files = {name: content for name, content in files.items() if name.startswith(_OF_THE_AK)}
    endorsements = Endorsements(
        ak=pem_of(ak_files).strip(),
        snp=pem_of({name: content for name, content in files.items() if name not in ak_files}),
        tdx=files.get(_COLLATERAL, b""),
    )
    keys: frozenset[bytes] = frozenset()
    if _PINNED in files:
        pinned = _pinned(files[_PINNED])
        evidence = replace(evidence, ak=evidence.ak or pinned)
        if not _is_below(endorsements.ak, ak_roots, now):
            keys = frozenset({pinned})
    return verify_parts(evidence, endorsements, roots=roots, aks=TrustedAks(roots=tuple(ak_roots), keys=keys), now=now)


def _evidence(quote: bytes, files: Mapping[str, bytes], name: str) -> Evidence:
    stem = name.removesuffix(".msg")
    if f"{stem}.sig" not in files:
        stem = QUOTE_FILE.removesuffix(".msg")
    signature = files.get(f"{stem}.sig")
    if signature is None:
        raise EvidenceFormatError(f"TPM quote: its signature is missing, expected {stem}.sig among the endorsements")
    pcrs = files.get(f"{stem.replace('quote', 'pcrs', 1)}.json")
    parts = {part: files[file] for part, file in _PARTS.items() if file in files}
    return Evidence(quote=quote, signature=signature, pcrs=None if pcrs is None else parse_pcrs(pcrs), **parts)


def _pinned(text: bytes) -> bytes:
    try:
        return pinned_ak(text)
    except ConfigurationError as error:
        raise EvidenceFormatError(f"{_PINNED}: not a public key in PEM or DER") from error


def _is_below(certificates: bytes, ak_roots: Sequence[TrustedRoot], now: datetime) -> bool:
    """The AK's certificate leads to one of `ak_roots`. Raises EvidenceRefusedError if its chain does not even hold."""
    if not certificates:
        return False
    try:
        verify_ak_certificate(certificates, roots=ak_roots, now=now)
    except EvidenceRefusedError:
        chain = parse_bundle(certificates).chain
        if len(chain) > 1:
            top = TrustedRoot(certificate_der=chain[-1].public_bytes(Encoding.DER), software=False)
            verify_ak_certificate(certificates, roots=[top], now=now)
        return False
    return True
