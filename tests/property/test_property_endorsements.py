"""Laws of the choice of endorsements: whatever anybody sends, a start is refused by a documented error or judged by
what is genuine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.test_property_evidence import changed
from tests.simulators.sgx_platform import NOW
from tests.simulators.tdx_host import make_tdx_host
from tests.simulators.vendors import DAY, OF_QUOTE, OF_REPORT, Vendor

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError
from ostiary.evidence.endorsements.choice import Chooser, Held, Kept
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Origin, Piece, verify_piece
from ostiary.evidence.sgx.verify import verify as verify_sgx
from ostiary.evidence.snp.verify import verify as verify_snp
from ostiary.evidence.tdx.layout import parse_quote
from ostiary.evidence.tdx.verify import verify as verify_tdx

VENDOR = Vendor()
ROOTS = VENDOR.anchors
QUOTE, REPORT = VENDOR.platform.quote(), VENDOR.chip.report()
COLLATERAL, CERTIFICATES = VENDOR.collateral(), VENDOR.chip.endorsements
KEPT = {part: Kept(endorsement=VENDOR.endorsement(part), origin="vendor") for part in (*OF_QUOTE, *OF_REPORT)}
EXPECTED = verify_sgx(QUOTE, COLLATERAL, roots=ROOTS.intel, now=NOW)
OF_CHIP = verify_snp(REPORT, CERTIFICATES, roots=ROOTS.amd, now=NOW)
HOST = make_tdx_host()
TD_QUOTE, TD_COLLATERAL = HOST.quote(), HOST.collateral()
TD_ROOTS = (HOST.platform.hardware_root,)
OF_TD = verify_tdx(TD_QUOTE, TD_COLLATERAL, roots=TD_ROOTS, now=NOW)


def keeping(keep: bool) -> Chooser:
    held: Held = KEPT.get if keep else lambda _: None
    return Chooser(ROOTS, held)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changed(QUOTE), st.one_of(st.binary(max_size=500), changed(COLLATERAL)), st.booleans(), st.booleans())
def test_no_quote_and_no_endorsements_make_a_start_fail_in_another_way(
    quote: bytes, sent: bytes, same: bool, keep: bool
) -> None:
    evidence = QUOTE if same else quote
    try:
        chosen = keeping(keep).choose("sgx", evidence, sent, now=NOW, max_age=timedelta(days=1))
        claims = verify_sgx(evidence, chosen.endorsements, roots=ROOTS.intel, now=chosen.at)
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    assert claims == EXPECTED


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changed(REPORT), st.one_of(st.binary(max_size=500), changed(CERTIFICATES)), st.booleans(), st.booleans())
def test_no_report_and_no_certificates_make_a_start_fail_in_another_way(
    report: bytes, sent: bytes, same: bool, keep: bool
) -> None:
    evidence = REPORT if same else report
    try:
        chosen = keeping(keep).choose("snp", evidence, sent, now=NOW, max_age=None)
        claims = verify_snp(evidence, chosen.endorsements, roots=ROOTS.amd, now=chosen.at)
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    # Only the kept revocation list has a date.
    assert (claims.raw, claims.platform_id, claims.debug) == (OF_CHIP.raw, OF_CHIP.platform_id, OF_CHIP.debug)


@given(st.one_of(st.binary(max_size=2000), changed(TD_QUOTE)))
def test_parse_quote_of_a_td_gives_a_quote_or_its_documented_error(data: bytes) -> None:
    try:
        quote = parse_quote(data)
    except EvidenceFormatError:
        return
    assert data.startswith(quote.frame.signed)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changed(TD_QUOTE), changed(TD_COLLATERAL), st.booleans(), st.booleans())
def test_changed_evidence_of_a_td_is_refused_or_says_the_same(
    quote: bytes, collateral: bytes, keep_quote: bool, keep_collateral: bool
) -> None:
    try:
        claims = verify_tdx(
            TD_QUOTE if keep_quote else quote,
            TD_COLLATERAL if keep_collateral else collateral,
            roots=TD_ROOTS,
            now=NOW,
        )
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    assert claims == OF_TD


PIECES = {part: VENDOR.piece(part) for part in KEPT}


@given(st.sampled_from((*OF_QUOTE, *OF_REPORT)), st.data())
def test_a_changed_endorsement_is_refused_or_says_the_same(part: Part, data: st.DataObject) -> None:
    piece = PIECES[part]
    spoiled = Piece(
        part=part,
        data=data.draw(st.one_of(st.just(piece.data), changed(piece.data))),
        signature=data.draw(st.one_of(st.just(piece.signature), changed(piece.signature))),
        chain=data.draw(st.one_of(st.just(piece.chain), changed(piece.chain))),
    )
    try:
        found = verify_piece(spoiled, ROOTS, now=NOW)
    except (EvidenceFormatError, EvidenceRefusedError):
        return
    genuine = verify_piece(piece, ROOTS, now=NOW)
    assert (found.number, found.issued, found.until) == (genuine.number, genuine.issued, genuine.until)


SECOND = timedelta(seconds=1)
ORIGINS: tuple[Origin, ...] = ("vendor", "attester")
MAX_AGES = (None, 2 * DAY, 25 * DAY)
OF_DAYS = (
    replace(VENDOR, number=4, issued=NOW - 3 * DAY / 24, life=5 * DAY),
    VENDOR,
    replace(VENDOR, number=6, issued=NOW - DAY / 24, life=6 * DAY, status="OutOfDate"),
    replace(VENDOR, number=7, issued=NOW + 2 * DAY, life=9 * DAY),
)
SENT = (b"", *(vendor.collateral() for vendor in OF_DAYS))
COPIES: Mapping[Part, list[Kept | None]] = {
    part: [None]
    + [
        Kept(endorsement=vendor.endorsement(part, now=NOW + 3 * DAY), origin=origin)
        for vendor in OF_DAYS
        for origin in ORIGINS
    ]
    for part in OF_QUOTE
}
INSTANTS = sorted(
    {
        turn + away
        for vendor in OF_DAYS
        for turn in (
            NOW,
            vendor.issued,
            vendor.issued + vendor.life - SECOND,
            *(vendor.issued + (age or vendor.life) for age in MAX_AGES),
        )
        for away in (-SECOND, timedelta(0), SECOND)
        if turn > NOW - DAY
    }
)


def outcome(chooser: Chooser, sent: bytes, now: datetime, max_age: timedelta | None) -> tuple[object, ...]:
    """What a start would be judged by, or that it is refused."""
    try:
        chosen = chooser.choose("sgx", QUOTE, sent, now=now, max_age=max_age)
    except (EvidenceFormatError, EvidenceRefusedError) as error:
        return (type(error),)
    return chosen.endorsements, chosen.at, chosen.parts


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(st.data())
def test_a_choice_that_is_remembered_is_the_one_that_would_be_made_at_that_time(data: st.DataObject) -> None:
    """Whatever was chosen before, at which time, beside which copies, and for whom."""
    # Few of each, so that the same is asked again.
    sent = data.draw(st.lists(st.sampled_from(SENT), min_size=1, max_size=2))
    ages = data.draw(st.lists(st.sampled_from(MAX_AGES), min_size=1, max_size=2))
    instants = data.draw(st.lists(st.sampled_from(INSTANTS), min_size=2, max_size=4))
    which = data.draw(st.integers(0, len(COPIES[OF_QUOTE[0]]) - 1))
    held = {part: copies[which] for part, copies in COPIES.items()}
    remembering = Chooser(ROOTS, lambda part: held[part])
    for _ in range(data.draw(st.integers(2, 8))):
        if data.draw(st.integers(0, 3)) == 0:
            part = data.draw(st.sampled_from(OF_QUOTE))
            held[part] = data.draw(st.sampled_from(COPIES[part]))
        asked = (
            data.draw(st.sampled_from(sent)),
            data.draw(st.sampled_from(instants)),
            data.draw(st.sampled_from(ages)),
        )
        assert outcome(remembering, *asked) == outcome(Chooser(ROOTS, lambda part: held[part]), *asked)
