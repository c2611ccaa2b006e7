"""Laws of the evidence parsers: any bytes give fields or the documented error; no change makes other claims."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.simulators.chains import NOW as CHAIN_NOW
from tests.simulators.nitro_host import make_host
from tests.simulators.sgx_platform import NOW, make_platform
from tests.simulators.snp_chip import make_chip

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError, InputError
from ostiary.evidence.bundle import parse_bundle
from ostiary.evidence.intel.collateral import parse_collateral
from ostiary.evidence.nitro.layout import parse_document
from ostiary.evidence.nitro.verify import Verifier as NitroVerifier
from ostiary.evidence.sgx.layout import Quote, parse_quote
from ostiary.evidence.sgx.verify import verify
from ostiary.evidence.snp.layout import parse_report
from ostiary.evidence.snp.verify import Verifier as SnpVerifier
from ostiary.platform.daemon import Request, parse_request

PLATFORM = make_platform()
QUOTE = PLATFORM.quote()
COLLATERAL = PLATFORM.collateral()
CLAIMS = verify(QUOTE, COLLATERAL, roots=[PLATFORM.software_root], now=NOW)


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with some runs of bytes replaced by others, longer or shorter, or cut off."""
    data = original
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)))
        data = data[:start] + draw(st.binary(max_size=64)) + data[end:]
    return data


@given(st.one_of(st.binary(max_size=2000), changed(QUOTE)))
def test_parse_quote_gives_a_quote_or_its_documented_error(data: bytes) -> None:
    try:
        quote = parse_quote(data)
    except EvidenceFormatError:
        return
    assert isinstance(quote, Quote)
    assert data.startswith(quote.frame.signed)
    assert quote.frame.certification in data


@given(st.one_of(st.binary(max_size=500), changed(COLLATERAL)))
def test_parse_collateral_gives_parts_or_its_documented_error(data: bytes) -> None:
    try:
        parse_collateral(data)
    except EvidenceFormatError:
        return


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changed(QUOTE), changed(COLLATERAL), st.booleans(), st.booleans())
def test_changed_evidence_is_refused_or_says_the_same(
    quote: bytes, collateral: bytes, keep_quote: bool, keep_collateral: bool
) -> None:
    try:
        claims = verify(
            QUOTE if keep_quote else quote,
            COLLATERAL if keep_collateral else collateral,
            roots=[PLATFORM.software_root],
            now=NOW,
        )
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    assert claims == CLAIMS


def test_every_byte_of_a_quote_flipped_is_refused_or_says_the_same() -> None:
    for offset in range(len(QUOTE)):
        flipped = QUOTE[:offset] + bytes([QUOTE[offset] ^ 0x01]) + QUOTE[offset + 1 :]
        try:
            claims = verify(flipped, COLLATERAL, roots=[PLATFORM.software_root], now=NOW)
        except (EvidenceFormatError, EvidenceRefusedError):
            continue
        assert offset > 0x416, "a byte that is signed was changed"
        assert claims == CLAIMS


@given(st.one_of(st.binary(max_size=500), changed(b'{"report_data":"' + b"00" * 64 + b'","program":null}\n')))
def test_parse_request_gives_a_request_or_its_documented_error(line: bytes) -> None:
    try:
        assert isinstance(parse_request(line), Request)
    except InputError:
        return


CHIP = make_chip()
REPORT = CHIP.report(version=5)
SNP = SnpVerifier((CHIP.root.root(),))
SNP_CLAIMS = SNP.verify(REPORT, CHIP.endorsements, now=CHAIN_NOW)
HOST = make_host()
DOCUMENT = HOST.document()
NITRO = NitroVerifier((HOST.root.root(),))
NITRO_CLAIMS = NITRO.verify(DOCUMENT, now=CHAIN_NOW)


@given(st.one_of(st.binary(max_size=2000), st.binary(min_size=1184, max_size=1184), changed(REPORT)))
def test_parse_report_gives_a_report_or_its_documented_error(data: bytes) -> None:
    try:
        report = parse_report(data)
    except EvidenceFormatError:
        return
    assert data.startswith(report.signed)


@given(st.one_of(st.binary(max_size=2000), changed(DOCUMENT)))
def test_parse_document_gives_a_document_or_its_documented_error(data: bytes) -> None:
    try:
        document = parse_document(data)
    except EvidenceFormatError:
        return
    assert document.pcrs


@given(st.one_of(st.binary(max_size=500), changed(CHIP.endorsements)))
def test_parse_bundle_gives_certificates_or_its_documented_error(data: bytes) -> None:
    try:
        bundle = parse_bundle(data)
    except EvidenceFormatError:
        return
    assert bundle.chain


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changed(REPORT), changed(CHIP.endorsements), st.booleans())
def test_a_changed_snp_report_is_refused_or_says_the_same(report: bytes, proof: bytes, keep: bool) -> None:
    try:
        claims = SNP.verify(report, CHIP.endorsements if keep else proof, now=CHAIN_NOW)
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    assert claims == SNP_CLAIMS


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changed(DOCUMENT))
def test_a_changed_nitro_document_is_refused_or_says_the_same(document: bytes) -> None:
    try:
        claims = NITRO.verify(document, now=CHAIN_NOW)
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    assert claims == NITRO_CLAIMS
