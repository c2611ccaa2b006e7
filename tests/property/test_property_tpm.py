"""Laws of TPM evidence: any bytes give fields or the documented error, and no change makes other claims."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_property_evidence import changed
from tests.simulators.chains import NOW
from tests.simulators.tpm import Tpm, event, hcl_report, old_event, spec_id, wire
from tests.simulators.tpm_maker import ek_area, offer_text

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.offline import show
from ostiary.evidence.tpm.endorsement_key import parse_endorsement_key
from ostiary.evidence.tpm.enrolment import Pending, accept_answer, parse_offer, parse_pending, pending_text
from ostiary.evidence.tpm.eventlog import parse_event_log, replay
from ostiary.evidence.tpm.hcl import parse_hcl_report
from ostiary.evidence.tpm.layout import parse_public_area, parse_quote, parse_signature
from ostiary.evidence.tpm.verify import TrustedAks, Verifier
from ostiary.evidence.tpm.wire import parse_endorsements, parse_evidence, parse_pcrs

TPM = Tpm()
SELECTED = {"sha256": (0, 7), "sha384": (1,)}
EVIDENCE = TPM.evidence(SELECTED)
VERIFIER = Verifier((), TrustedAks(keys=frozenset({TPM.spki})))
CLAIMS = VERIFIER.verify(EVIDENCE, b"", now=NOW)
RSA_KEY = rsa.generate_private_key(65537, 2048)

SECRET = bytes(32)
PENDING = Pending(
    id=bytes(16),
    made=NOW,
    ak=TPM.pem.decode(),
    ak_name=b"name",
    ek_certificate_sha256=bytes(32),
    secret_sha256=hashlib.sha256(SECRET).digest(),
)
ANSWER = wire({"format": "ostiary-tpm-answer-v1", "id": PENDING.id.hex(), "secret": SECRET})

SAMPLES: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "quote": (parse_quote, TPM.attest(SELECTED)),
    "signature": (parse_signature, TPM.sign(b"x")),
    "public area": (parse_public_area, TPM.public_area()),
    "public area of RSA": (parse_public_area, Tpm(key=RSA_KEY, scheme="rsassa").public_area()),
    "HCL report": (parse_hcl_report, hcl_report(RSA_KEY.public_key())),
    "evidence": (parse_evidence, EVIDENCE),
    "endorsements": (parse_endorsements, wire({"ak": "x", "snp": "y"})),
    "PCR values": (parse_pcrs, b'{"sha256": {"0": "' + b"00" * 32 + b'"}}'),
    "EK public area": (parse_endorsement_key, ek_area(RSA_KEY.public_key())),
    "EK public area of ECC": (parse_endorsement_key, ek_area(TPM.key.public_key())),
    "offer": (parse_offer, offer_text(b"", ek_area(RSA_KEY.public_key()), TPM.public_area())),
    "kept challenge": (parse_pending, pending_text(PENDING)),
    "answer": (lambda text: accept_answer(text, PENDING, now=NOW), ANSWER),
    "shown quote": (show, TPM.attest(SELECTED)),
    "shown evidence": (show, EVIDENCE),
}


@pytest.mark.parametrize("name", SAMPLES)
@given(st.data())
def test_every_parser_gives_fields_or_its_documented_error(name: str, data: st.DataObject) -> None:
    parse, sample = SAMPLES[name]
    assert parse(sample) is not None
    try:
        assert parse(data.draw(st.one_of(st.binary(max_size=2000), changed(sample)))) is not None
    except EvidenceFormatError:
        return
    except EvidenceRefusedError:
        assert name == "answer" or name.startswith("shown")  # a key of a kind that no AK is


@given(
    st.one_of(
        st.binary(max_size=2000),
        changed(spec_id() + event(0, 8, b"x") + event(7, 4, b"")),
        changed(old_event(0, 8, b"d" * 20, b"x") * 3),
    )
)
def test_every_event_log_gives_values_or_the_documented_error(data: bytes) -> None:
    try:
        log = parse_event_log(data)
    except EvidenceFormatError:
        return
    for bank in log.banks:
        assert all(0 <= pcr <= 31 for pcr in replay(log, bank))


@given(changed(EVIDENCE))
def test_changed_evidence_is_refused_or_says_the_same(evidence: bytes) -> None:
    try:
        claims = VERIFIER.verify(evidence, b"", now=NOW)
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    # The public area's policy and name are the TPM's word only where the hierarchy proves them.
    differ = {name for name, member in CLAIMS.raw.items() if claims.raw.get(name) != member}
    assert differ <= {"ak_name", "ak_hierarchy"}
    assert set(claims.measurements) <= set(CLAIMS.measurements)
    assert claims.report_data == CLAIMS.report_data


@given(changed(TPM.attest(SELECTED)))
def test_a_changed_quote_is_refused(quote: bytes) -> None:
    if quote == TPM.attest(SELECTED):
        return
    with pytest.raises((EvidenceFormatError, EvidenceRefusedError)):
        VERIFIER.verify(
            wire(TPM.members(SELECTED, quote=quote, signature=TPM.sign(TPM.attest(SELECTED)))), b"", now=NOW
        )
