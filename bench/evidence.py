"""What judging evidence costs with warm endorsements, next to the bare signature verifications that it needs.

    make bench        or        PYTHONPATH=. .venv/bin/python bench/evidence.py [--rounds 200]

For each TEE one genuine sample is verified again and again by a verifier that has seen its platform, and held against a
session that admits it; beside it, in turns, the signatures alone that the evidence itself carries: of SGX and TDX the
report of the quoting enclave and the quote, of SNP the report, of Nitro the document, of a TPM the quote. `tpm, own AK`
is what our attester sends, from a TPM of software (swtpm), with its P-256 key; the other two are of a machine with an
RSA key. One core; medians.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates
from tests.simulators.genuine import Case, cases, pem
from tests.simulators.quoting_tpm import extend, running_tpm

from ostiary.appraisal import appraise
from ostiary.attester.tpm import TpmAttester
from ostiary.evidence.claims import Claims
from ostiary.evidence.intel.quote import parse_signed_quote
from ostiary.evidence.intel.verifier import Verifier as IntelVerifier
from ostiary.evidence.nitro.layout import parse_document
from ostiary.evidence.nitro.verify import Verifier as NitroVerifier
from ostiary.evidence.roots import amd_roots, intel_root, nitro_root
from ostiary.evidence.snp.layout import parse_report
from ostiary.evidence.snp.verify import Verifier as SnpVerifier
from ostiary.evidence.tpm.layout import parse_public_area, parse_signature
from ostiary.evidence.tpm.verify import TrustedAks, pinned_ak
from ostiary.evidence.tpm.verify import Verifier as TpmVerifier
from ostiary.evidence.tpm.wire import parse_evidence
from ostiary.session.model import SecurityAttestation, Service, TeeFactors, TeeVariant, Variant

AIM = 3.0
BATCH = 5
NAMED = {"tpm": ("sha256:4", "sha256:7", "sha256:9")}
"""What a session names; of other TEEs all measurements."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """judge: verify and appraise. bare: the signatures alone."""

    name: str
    judge: Callable[[], object]
    bare: Callable[[], object]


def sample(tee: str, name: str) -> Case:
    """The genuine case of that name."""
    return next(case for case in cases(tee) if case.name == name)


def judging(verify: Callable[[], Claims], now: datetime) -> Callable[[], object]:
    """Verify, and hold the claims against a session that names the program and tolerates what there is to tolerate."""
    claims = verify()
    variant: Variant | TeeVariant = Variant(mrenclave=(claims.identity,))
    if claims.tee != "sgx":
        names = NAMED.get(claims.tee) or sorted(claims.measurements)
        measurements = tuple((name, (claims.measurements[name],)) for name in names)
        variant = TeeVariant(tee=claims.tee, factors=TeeFactors(measurements=measurements))
    service = Service(name="benchmark", attestation=(variant,))
    tolerate = frozenset({"insecure-configuration", "software-hardening-needed", *claims.conditions})
    security = SecurityAttestation(tolerate=tolerate, ignore_advisories=claims.advisories)

    def judge() -> object:
        # No two starts send the same evidence: what is remembered for one of them counts for one.
        parse_signed_quote.cache_clear()
        parse_evidence.cache_clear()
        return appraise(verify(), service, security, binding=claims.report_data, now=now)

    return judge


def raw_signature(data: bytes, *, order: str = "big") -> bytes:
    """r and s side by side, as the library takes them."""
    half = len(data) // 2
    r, s = (int.from_bytes(part, "big" if order == "big" else "little") for part in (data[:half], data[half:]))
    return encode_dss_signature(r, s)


def intel(tee: str, name: str) -> Subject:
    """An SGX or TDX quote: the report of the quoting enclave under the PCK, and the quote under its attestation key."""
    case = sample(tee, name)
    quote, collateral = case.files["quote.bin"], case.files["collateral.json"]
    frame, verifier = parse_signed_quote(quote), IntelVerifier((intel_root(),))
    pck = load_pem_x509_certificates(frame.certification.rstrip(b"\0"))[0].public_key()
    own = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + frame.attestation_key)
    if not isinstance(pck, ec.EllipticCurvePublicKey):
        raise TypeError("a PCK of another type")
    scheme = ec.ECDSA(hashes.SHA256())

    def bare() -> None:
        pck.verify(raw_signature(frame.qe_report_signature), frame.qe_report, scheme)
        own.verify(raw_signature(frame.signature), frame.signed, scheme)

    return Subject(
        name=tee,
        judge=judging(lambda: verifier.verify(quote, collateral, now=case.verify_at), case.verify_at),
        bare=bare,
    )


def snp() -> Subject:
    """An SNP report under its VCEK."""
    case = sample("snp", "snp-oak-genoa-v5")
    data = case.files["report.bin"]
    endorsements = pem(*(der for name, der in case.files.items() if name.endswith(".der")))
    report, verifier = parse_report(data), SnpVerifier(amd_roots())
    key = load_der_x509_certificate(case.files["vcek.der"]).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("a VCEK of another type")

    def bare() -> None:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(hashes.SHA384()))

    return Subject(
        name="snp",
        judge=judging(lambda: verifier.verify(data, endorsements, now=case.verify_at), case.verify_at),
        bare=bare,
    )


def nitro() -> Subject:
    """A Nitro document under the key of its leaf certificate."""
    case = sample("nitro", "nitro-dstack-2025")
    data = case.files["attestation.cbor"]
    document, verifier = parse_document(data), NitroVerifier((nitro_root(),))
    key = load_der_x509_certificate(document.certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("a key of another type")

    def bare() -> None:
        key.verify(raw_signature(document.signature), document.signed, ec.ECDSA(hashes.SHA384()))

    return Subject(
        name="nitro", judge=judging(lambda: verifier.verify(data, now=case.verify_at), case.verify_at), bare=bare
    )


def tpm(*, log: bool) -> Subject:
    """A TPM's quote under an RSA key that the owner has pinned, and the event log that leads to its PCRs."""
    case = sample("tpm", "tpm-gcp-cos-nonce")
    der = pinned_ak(case.files["ak_pub.pem"])
    parts = {"quote": case.files["quote.msg"], "signature": case.files["quote.sig"], "ak": der}
    if log:
        parts["event_log"] = case.files["eventlog.bin"]
    encoded = {part: base64.b64encode(data).decode() for part, data in parts.items()}
    evidence = json.dumps({**encoded, "pcrs": json.loads(case.files["pcrs.json"])}).encode()
    verifier = TpmVerifier((), TrustedAks(keys=frozenset({der})))
    key, signature = load_der_public_key(der), parse_signature(case.files["quote.sig"])
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("an AK of another type")

    def bare() -> None:
        key.verify(signature.rsa, parts["quote"], padding.PKCS1v15(), hashes.SHA256())

    judge = judging(lambda: verifier.verify(evidence, b"", now=case.verify_at), case.verify_at)
    return Subject(name="tpm + log" if log else "tpm", judge=judge, bare=bare)


def own_tpm(directory: Path) -> Subject:
    """A quote by our attester: 24 PCRs, and the P-256 key that every TPM makes for it."""
    with running_tpm(directory) as device:
        for name in NAMED["tpm"]:
            extend(device, int(name.partition(":")[2]), hashlib.sha256(name.encode()).digest())
        sent = TpmAttester(device).attest(bytes(64), None)
    members = {name: base64.b64decode(text) for name, text in json.loads(sent.evidence).items() if name != "pcrs"}
    area, signature = parse_public_area(members["ak_public"]), parse_signature(members["signature"])
    key, now = load_der_public_key(area.spki), datetime.now(UTC)
    verifier = TpmVerifier((), TrustedAks(keys=frozenset({area.spki})))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("an AK of another type")

    def bare() -> None:
        key.verify(encode_dss_signature(signature.r, signature.s), members["quote"], ec.ECDSA(hashes.SHA256()))

    judge = judging(lambda: verifier.verify(sent.evidence, sent.endorsements, now=now), now)
    return Subject(name="tpm, own AK", judge=judge, bare=bare)


def seconds(call: Callable[[], object]) -> float:
    """The time of one call, of a few in a row."""
    start = time.perf_counter()
    for _ in range(BATCH):
        call()
    return (time.perf_counter() - start) / BATCH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="rounds for each TEE (default: 200)")
    rounds = parser.parse_args().rounds
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="ostiary-bench-") as directory:
        live = own_tpm(Path(directory))
    subjects = (
        intel("sgx", "sgx-dcapqvl-sample"),
        intel("tdx", "tdx-dcapqvl-sample"),
        snp(),
        nitro(),
        live,
        tpm(log=False),
        tpm(log=True),
    )
    for subject in subjects:
        subject.judge()
        pairs = [(seconds(subject.judge), seconds(subject.bare)) for _ in range(rounds)]
        judged, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        worst = max(worst, ratio)
        print(f"{subject.name:12} {judged * 1e3:7.3f} ms   bare {bare * 1e3:7.3f} ms   ratio {ratio:5.2f}   aim {AIM}")
    return 0 if worst <= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
