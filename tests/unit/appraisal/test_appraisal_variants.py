"""Variants for other TEEs than SGX against claims: every factor, every refusal, and which variant is the nearest."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.appraisal import appraise
from ostiary.appraisal.variants import judge_variant
from ostiary.errors import AppraisalRefusedError, Mismatch
from ostiary.evidence.claims import IDENTITIES, Claims, Tee
from ostiary.session.language import IDENTIFYING, TEES
from ostiary.session.model import (
    SecurityAttestation,
    Service,
    TeeFactors,
    TeeVariant,
    Variable,
    Variant,
)
from ostiary.session.placeholder import Placeholder

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BINDING = bytes(range(64))
A, B, C, ZERO = bytes([0xA]) * 48, bytes([0xB]) * 48, bytes([0xC]) * 48, bytes(48)
X = Variable(placeholder=Placeholder(name="x"))

MEASUREMENTS: dict[Tee, dict[str, bytes]] = {
    "sgx": {"mrenclave": A[:32]},
    "tdx": {"mrtd": A, "rtmr0": B, "rtmr1": B, "rtmr2": C, "rtmr3": ZERO, "mrconfigid": ZERO},
    "snp": {"measurement": A, "host_data": B[:32], "id_key_digest": ZERO, "family_id": C[:16]},
    "nitro": {"pcr0": A, "pcr1": B, "pcr8": C},
    "tpm": {"pcrs": A[:32], "sha256:4": A[:32], "sha256:7": B[:32], "sha256:11": C[:32], "sha384:4": C},
}


def claims(tee: Tee, **changes: object) -> Claims:
    made = Claims(
        tee=tee,
        measurements=MEASUREMENTS[tee],
        signer=None,
        product_id=None,
        svn=3 if tee == "snp" else None,
        report_data=BINDING,
        debug=False,
        software=False,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=None,
        platform_id="",
        raw={"vmpl": 1} if tee == "snp" else {},
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def variant(
    tee: str,
    *,
    guest_svn_min: int | Variable | None = None,
    vmpl_max: int | Variable | None = None,
    **measurements: bytes | Variable | tuple[bytes | Variable, ...],
) -> TeeVariant:
    """Names of PCRs and of their events are written with `_` for `:`."""
    return TeeVariant(
        tee=tee,
        factors=TeeFactors(
            measurements=tuple(
                (name.replace("_", ":") if "sha" in name else name, values if isinstance(values, tuple) else (values,))
                for name, values in measurements.items()
            ),
            guest_svn_min=guest_svn_min,
            vmpl_max=vmpl_max,
        ),
    )  # fmt: skip


def mismatches(tee: Tee, *variants: Variant | TeeVariant | Variable, **changes: object) -> tuple[Mismatch, ...]:
    service = Service(name="web", attestation=variants)
    with pytest.raises(AppraisalRefusedError) as refusal:
        appraise(claims(tee, **changes), service, SecurityAttestation(), binding=BINDING, now=NOW)
    return refusal.value.mismatches


def test_every_tee_but_sgx_has_its_variant() -> None:
    assert {"sgx", *TEES} == set(get_args(Tee)) == set(IDENTITIES)


@pytest.mark.parametrize(
    ("tee", "asked"),
    [
        ("tdx", variant("tdx", mrtd=A)),
        ("tdx", variant("tdx", mrtd=(B, A), rtmr0=B, rtmr1=B, rtmr2=(C, A), rtmr3=ZERO, mrconfigid=ZERO)),
        ("snp", variant("snp", measurement=A, host_data=B[:32], family_id=C[:16])),
        ("snp", variant("snp", measurement=A, guest_svn_min=3, vmpl_max=1)),
        ("snp", variant("snp", measurement=A, guest_svn_min=0, vmpl_max=3)),
        ("nitro", variant("nitro", pcr0=A)),
        ("nitro", variant("nitro", pcr8=(C, B), pcr1=B)),
        ("tpm", variant("tpm", sha256_4=A[:32], sha256_7=B[:32])),
        ("tpm", variant("tpm", sha256_7=B[:32], sha256_11=C[:32])),
        ("tpm", variant("tpm", sha384_4=C)),
    ],
)
def test_a_variant_whose_factors_all_hold_admits(tee: Tee, asked: TeeVariant) -> None:
    service = Service(name="web", attestation=(asked,))
    result = appraise(claims(tee), service, SecurityAttestation(), binding=BINDING, now=NOW)
    assert (result.variant, result.tolerated) == (0, ())


@pytest.mark.parametrize(
    ("tee", "asked", "expected"),
    [
        ("tdx", variant("tdx", mrtd=B), [("tdx.mrtd", A.hex(), B.hex())]),
        ("tdx", variant("tdx", mrtd=(B, C)), [("tdx.mrtd", A.hex(), f"{B.hex()} or {C.hex()}")]),
        (
            "tdx",
            variant("tdx", mrtd=A, rtmr1=C, rtmr2=B, rtmr3=B),
            [("tdx.rtmr1", B.hex(), C.hex()), ("tdx.rtmr2", C.hex(), B.hex()), ("tdx.rtmr3", ZERO.hex(), B.hex())],
        ),
        (
            "tdx",
            variant("tdx", mrtd=A, mrservicetd=ZERO),
            [("tdx.mrservicetd", "none in evidence of this TEE", ZERO.hex())],
        ),
        ("tdx", variant("tdx", mrtd=A[:47]), [("tdx.mrtd", A.hex(), A[:47].hex())]),
        ("snp", variant("snp", measurement=B), [("snp.measurement", A.hex(), B.hex())]),
        (
            "snp",
            variant("snp", measurement=A, host_data=C[:32], guest_svn_min=4, vmpl_max=0),
            [
                ("snp.host_data", B[:32].hex(), C[:32].hex()),
                ("snp.guest_svn_min", "3", "4 to 4294967295"),
                ("snp.vmpl_max", "1", "0 to 0"),
            ],
        ),
        ("snp", variant("snp", id_key_digest=C), [("snp.id_key_digest", ZERO.hex(), C.hex())]),
        (
            "nitro",
            variant("nitro", pcr0=B, pcr8=B),
            [("nitro.pcr0", A.hex(), B.hex()), ("nitro.pcr8", C.hex(), B.hex())],
        ),
        ("nitro", variant("nitro", pcr0=A, pcr2=B), [("nitro.pcr2", "none in evidence of this TEE", B.hex())]),
        ("tpm", variant("tpm", sha256_4=B[:32]), [("tpm.sha256:4", A[:32].hex(), B[:32].hex())]),
        (
            "tpm",
            variant("tpm", sha256_4=A[:32], sha256_9=A[:32]),
            [("tpm.sha256:9", "none in evidence of this TEE", A[:32].hex())],
        ),
    ],
)  # fmt: skip
def test_every_factor_that_does_not_hold_is_told(
    tee: Tee, asked: TeeVariant, expected: list[tuple[str, str, str]]
) -> None:
    found = [(mismatch.factor, mismatch.found, mismatch.expected) for mismatch in mismatches(tee, asked)]
    assert found == expected


@pytest.mark.parametrize(
    ("tee", "asked"),
    [
        ("tdx", variant("tdx")),
        ("tdx", variant("tdx", rtmr0=B, rtmr1=B, rtmr2=C, mrconfigid=ZERO)),
        ("snp", variant("snp", host_data=B[:32], guest_svn_min=0, vmpl_max=3)),
        ("snp", variant("snp", id_key_digest=ZERO)),
        ("snp", variant("snp", id_key_digest=(C, ZERO))),
        ("nitro", variant("nitro", pcr1=B)),
        ("tpm", variant("tpm", sha256_7=B[:32])),
        ("tpm", variant("tpm", sha256_11=C[:32])),
    ],
)
def test_a_variant_that_names_no_program_admits_nobody(tee: Tee, asked: TeeVariant) -> None:
    """Whatever made it: the parser refuses such a text, and a variable may bring zeros."""
    (mismatch,) = mismatches(tee, asked)
    assert mismatch.factor == "attestation"
    assert mismatch.expected == "a variant with at least one factor; the session names none"
    assert mismatch.advice == f"add {tee}: {{{IDENTITIES[tee]}: …}} to the service's attestation"


@pytest.mark.parametrize("asked", [variant("nitro", pcr8=ZERO), variant("nitro", pcr8=ZERO, pcr1=B)])
def test_an_image_that_nobody_signed_is_nobodys(asked: TeeVariant) -> None:
    unsigned = {**MEASUREMENTS["nitro"], "pcr8": ZERO}
    (mismatch,) = mismatches("nitro", asked, measurements=unsigned)
    assert mismatch.factor == "attestation"


def test_an_empty_list_of_values_admits_nobody() -> None:
    empty, also = mismatches("tdx", variant("tdx", mrtd=()))
    assert (empty.factor, also.factor) == ("attestation", "tdx.mrtd")
    assert also.expected == "a value; the session names none"


@pytest.mark.parametrize("vmpl", [0xFFFF_FFFF, 4, -1, None, True, "0"])
def test_a_report_that_no_level_of_the_guest_asked_for_is_refused(vmpl: object) -> None:
    """Reports that the host asks for say 0xffffffff."""
    (mismatch,) = mismatches("snp", variant("snp", measurement=A, vmpl_max=3), raw={"vmpl": vmpl})
    assert (mismatch.factor, mismatch.found) == ("snp.vmpl_max", "none in evidence of this TEE")


@pytest.mark.parametrize(
    ("tee", "asked", "says"),
    [
        ("tdx", TeeVariant(tee="tdx", factors=X), "a variable that is not resolved"),
        ("tdx", variant("tdx", mrtd=X), "the unresolved $$SCONE::x$$"),
        ("snp", variant("snp", measurement=A, guest_svn_min=X), "the unresolved $$SCONE::x$$ to 4294967295"),
        ("snp", variant("snp", measurement=A, vmpl_max=X), "0 to the unresolved $$SCONE::x$$"),
        ("nitro", variant("nitro", pcr0=A, pcr8=X), "the unresolved $$SCONE::x$$"),
        ("tpm", variant("tpm", sha256_4=X), "the unresolved $$SCONE::x$$"),
    ],
)
def test_an_unresolved_variable_fulfils_nothing(tee: Tee, asked: TeeVariant, says: str) -> None:
    (mismatch,) = mismatches(tee, asked)
    assert says in f"{mismatch.found} {mismatch.expected}"


EACH = [
    variant("tdx", mrtd=A),
    variant("snp", measurement=A),
    variant("nitro", pcr0=A),
    variant("tpm", sha256_4=A[:32]),
]


LOADER, KERNEL, SEPARATOR = b"l" * 32, b"k" * 32, b"s" * 32
BOOTED = {"sha256:4": (SEPARATOR, LOADER, KERNEL, LOADER), "sha256:7": (SEPARATOR,)}


@pytest.mark.parametrize(
    "asked",
    [
        variant("tpm", events_sha256_4=(KERNEL, LOADER, SEPARATOR)),
        variant("tpm", events_sha256_4=(KERNEL, LOADER, SEPARATOR, b"x" * 32), sha256_4=A[:32]),
        variant("tpm", events_sha256_7=SEPARATOR, sha256_11=C[:32]),
    ],
)
def test_a_boot_of_nothing_but_named_events_is_admitted(asked: TeeVariant) -> None:
    service = Service(name="web", attestation=(asked,))
    result = appraise(claims("tpm", events=BOOTED), service, SecurityAttestation(), binding=BINDING, now=NOW)
    assert result.variant == 0


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((LOADER, KERNEL), SEPARATOR.hex()),
        ((LOADER,), f"{SEPARATOR.hex()} and {KERNEL.hex()}"),
        ((X, LOADER, SEPARATOR), KERNEL.hex()),
        ((), f"{SEPARATOR.hex()} and {LOADER.hex()} and {KERNEL.hex()}"),
    ],
)
def test_an_event_that_is_not_named_is_refused(asked: tuple[bytes | Variable, ...], found: str) -> None:
    (mismatch, *_) = mismatches("tpm", variant("tpm", sha256_4=A[:32], events_sha256_4=asked), events=BOOTED)
    assert (mismatch.factor, mismatch.found) == ("tpm.events:sha256:4", found)
    assert mismatch.expected.startswith("no events but ")


@pytest.mark.parametrize("events", [{}, {"sha256:7": (LOADER,)}, {"sha256:4": ()}])
def test_without_a_log_of_that_register_nothing_is_known_of_its_events(events: dict[str, tuple[bytes, ...]]) -> None:
    (mismatch,) = mismatches("tpm", variant("tpm", events_sha256_4=LOADER), events=events)
    assert mismatch.found == "no event log of this PCR"


VTPM = {"pcrs": A[:32], "sha256:4": A[:32], "sha256:7": B[:32], "sha256:11": C[:32]}


@pytest.mark.parametrize(
    ("tee", "asked"),
    [
        ("snp", variant("snp", measurement=A, sha256_4=A[:32])),
        ("snp", variant("snp", measurement=A, vmpl_max=1, sha256_7=B[:32], sha256_11=C[:32])),
        ("snp", variant("snp", measurement=A, events_sha256_4=(LOADER, KERNEL, SEPARATOR))),
        ("tdx", variant("tdx", mrtd=A, sha256_4=A[:32])),
    ],
)
def test_a_guest_with_a_vtpm_is_admitted_by_its_measurement_and_its_registers(tee: Tee, asked: TeeVariant) -> None:
    evidence = claims(tee, measurements={**MEASUREMENTS[tee], **VTPM}, events=BOOTED)
    service = Service(name="web", attestation=(asked,))
    assert appraise(evidence, service, SecurityAttestation(), binding=BINDING, now=NOW).variant == 0


@pytest.mark.parametrize(
    ("tee", "asked"),
    [
        ("snp", variant("snp", measurement=A)),
        ("snp", variant("snp", measurement=A, sha256_7=B[:32])),
        ("snp", variant("snp", measurement=A, sha256_4=ZERO[:32])),
        ("tdx", variant("tdx", mrtd=A, rtmr1=B, rtmr2=C)),
    ],
)
def test_the_firmware_of_a_cloud_alone_names_no_guest(tee: Tee, asked: TeeVariant) -> None:
    """Every customer's guest has that measurement: what it runs, its registers tell."""
    found = mismatches(tee, asked, measurements={**MEASUREMENTS[tee], **VTPM})
    assert found[0].factor == f"{tee}.pcrs"
    assert found[0].expected == "PCR 4, or 7 with 9 or 11, which tell one system from another"


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_registers_are_asked_of_evidence_that_has_them(tee: Tee) -> None:
    asked = variant("snp", measurement=A, sha256_4=A[:32]) if tee == "snp" else variant("tdx", mrtd=A, sha256_4=A[:32])
    (mismatch,) = mismatches(tee, asked)
    assert (mismatch.factor, mismatch.found) == (f"{tee}.sha256:4", "none in evidence of this TEE")


def test_registers_alone_name_no_guest() -> None:
    """A guest of anybody's may name a key of anybody's, and with it any registers."""
    evidence = {**MEASUREMENTS["snp"], **VTPM}
    assert mismatches("snp", variant("snp", sha256_4=A[:32]), measurements=evidence)[0].factor == "attestation"


def _mismatches(evidence: Claims, asked: Variant | TeeVariant) -> list[Mismatch]:
    return [factor for factor in judge_variant(evidence, asked) if isinstance(factor, Mismatch)]


@pytest.mark.parametrize("tee", IDENTITIES)
@pytest.mark.parametrize("asked", [Variant(mrenclave=(A[:32],)), *EACH])
def test_evidence_of_another_tee_is_a_mismatch(tee: Tee, asked: Variant | TeeVariant) -> None:
    """Even if the bytes of its measurement were the same: a digest means what its TEE makes it mean."""
    wanted = asked.tee if isinstance(asked, TeeVariant) else "sgx"
    everything = {name: value for measurements in MEASUREMENTS.values() for name, value in measurements.items()}
    if tee != "tpm":
        del everything["pcrs"]
    found = _mismatches(claims(tee, measurements=everything), asked)
    if tee == wanted:
        assert not found
    else:
        (mismatch,) = found
        assert (mismatch.factor, mismatch.found, mismatch.expected) == (
            "tee", f"evidence of {tee}", f"evidence of {wanted}",
        )  # fmt: skip


def test_the_nearest_variant_is_one_of_the_evidences_own_tee() -> None:
    """However many of its factors fail, and however few those of the others do."""
    asked = variant("snp", measurement=B, host_data=C[:32], vmpl_max=0)
    found = mismatches("snp", Variant(mrenclave=(A[:32],)), asked, variant("tdx", mrtd=A))
    assert [mismatch.factor for mismatch in found] == ["snp.measurement", "snp.host_data", "snp.vmpl_max"]
    (other,) = mismatches("nitro", asked, variant("tdx", mrtd=A))
    assert (other.factor, other.expected) == ("tee", "evidence of snp")


def test_variants_of_several_tees_admit_each_its_own() -> None:
    service = Service(name="web", attestation=(Variant(mrenclave=(A[:32],)), *EACH))
    for index, tee in enumerate(IDENTITIES):
        result = appraise(claims(tee), service, SecurityAttestation(), binding=BINDING, now=NOW)
        assert result.variant == index


@pytest.mark.parametrize(("tee", "asked"), [(asked.tee, asked) for asked in EACH])
def test_debug_and_platforms_are_judged_for_every_tee(tee: Tee, asked: TeeVariant) -> None:
    (mismatch,) = mismatches(tee, asked, debug=True)
    assert mismatch.factor == "tolerate: debug-mode"
    service = Service(name="web", attestation=(asked,), platforms=(bytes(16),))
    with pytest.raises(AppraisalRefusedError) as refusal:
        appraise(claims(tee), service, SecurityAttestation(), binding=BINDING, now=NOW)
    (mismatch,) = refusal.value.mismatches
    assert (mismatch.factor, mismatch.found) == ("platforms", "evidence that names no quoting enclave")


@given(data=st.data(), tee=st.sampled_from(sorted(set(IDENTITIES) - {"sgx"})))
def test_one_changed_byte_of_one_factor_refuses_by_that_factor(data: st.DataObject, tee: Tee) -> None:
    """Whatever else the variant asks for, as long as it names a program."""
    alternatives = sorted(sorted(together) for together in IDENTIFYING[tee])
    size = 32 if tee == "tpm" else 48
    names = data.draw(st.sampled_from(alternatives)) + data.draw(
        st.lists(st.sampled_from([f"{name}-more" for name in ("a", "b", "c")]), unique=True)
    )
    values = {name: data.draw(st.binary(min_size=size, max_size=size).filter(any)) for name in names}
    asked = TeeVariant(tee=tee, factors=TeeFactors(measurements=tuple((name, (values[name],)) for name in names)))
    assert not _mismatches(claims(tee, measurements=values), asked)
    changed, place = data.draw(st.sampled_from(names)), data.draw(st.integers(0, size - 1))
    bits = data.draw(st.integers(1, 255))
    other = bytearray(values[changed])
    other[place] ^= bits
    (mismatch,) = _mismatches(claims(tee, measurements={**values, changed: bytes(other)}), asked)
    assert mismatch.factor == f"{tee}.{changed}"
    missing = {name: value for name, value in values.items() if name != changed}
    (mismatch,) = _mismatches(claims(tee, measurements=missing), asked)
    assert (mismatch.factor, mismatch.found) == (f"{tee}.{changed}", "none in evidence of this TEE")
