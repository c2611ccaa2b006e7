"""The laws of the advice hold for every TEE: a change by the factors that its variants have, and none in vain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.property.test_advice_laws import BINDING, admits, patched, refused

from ostiary.appraisal.advice import advise
from ostiary.evidence.claims import Claims, Tee
from ostiary.session import ParsedSession, parse_session
from ostiary.session.yaml_text import write_yaml

SIZES: dict[Tee, dict[str, int]] = {
    "tdx": {"mrtd": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48},
    "snp": {"measurement": 48, "host_data": 32, "id_key_digest": 48},
    "nitro": {"pcr0": 48, "pcr1": 48, "pcr8": 48},
    "tpm": {"sha256:4": 32, "sha256:7": 32, "sha256:9": 32},
}
MEASURED = st.sampled_from([1, 2])


def values(tee: Tee) -> st.SearchStrategy[dict[str, bytes]]:
    """What was measured; a TPM also says one digest over all."""
    sizes = {**SIZES[tee], **({"pcrs": 32} if tee == "tpm" else {})}
    return st.fixed_dictionaries({name: MEASURED.map(_repeated(size)) for name, size in sizes.items()})


def _repeated(size: int) -> Callable[[int], bytes]:
    return lambda byte: bytes([byte]) * size


@st.composite
def variants(draw: st.DrawFn, tee: Tee) -> dict[str, Any]:
    """One that names a program, with any further factors."""
    own = {name: value.hex() for name, value in draw(values(tee)).items()}
    if tee == "tpm":
        pcrs = {"4": own["sha256:4"]}
        if draw(st.booleans()):
            pcrs["7"] = own["sha256:7"]
        return {"tpm": {"pcrs": {"sha256": pcrs}}}
    first, *others = SIZES[tee]
    kept = draw(st.sets(st.sampled_from(others)))
    factors: dict[str, Any] = {name: value for name, value in own.items() if name == first or name in kept}
    if tee == "snp":
        factors |= draw(st.sampled_from([{}, {"guest_svn_min": 4}, {"vmpl_max": 1}, {"guest_svn_min": 2}]))
    return {tee: factors}


@st.composite
def starts(draw: st.DrawFn, tee: Tee) -> tuple[ParsedSession, Claims]:
    other = draw(st.sampled_from([one for one in SIZES if one != tee]))
    each = st.one_of(variants(tee), variants(other), st.just({"mrenclave": "a" * 64}))
    listed = draw(st.lists(each, min_size=1, max_size=3))
    statuses = ["UpToDate", "OutOfDate", "TDRelaunchAdvised"] if tee == "tdx" else ["UpToDate"]
    document: dict[str, Any] = {
        "version": "0.3.12",
        "name": "law",
        "services": [{"name": "web", "attestation": listed}],
    }
    if draw(st.booleans()):
        document["security"] = {"attestation": {"max_age": "2 days", "tcb": {"grace": "30 days"}}}
    claims = Claims(
        tee=tee,
        measurements=draw(values(tee)),
        signer=None,
        product_id=None,
        svn=draw(st.integers(0, 5)) if tee == "snp" else None,
        report_data=BINDING,
        debug=draw(st.booleans()),
        software=False,
        tcb_status=draw(st.sampled_from(statuses)),
        advisories=frozenset(),
        tcb_date=None,
        platform_id="",
        conditions=frozenset({"service-td"} if tee == "tdx" and draw(st.booleans()) else ()),
        issued=datetime(2026, 11, draw(st.integers(15, 23)), tzinfo=UTC),
        raw={"vmpl": draw(st.integers(0, 3))},
    )
    return parse_session(write_yaml(document)), claims


@pytest.mark.parametrize("tee", SIZES)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_the_change_admits_and_every_operation_of_it_is_needed(tee: Tee, data: st.DataObject) -> None:
    parsed, evidence = data.draw(starts(tee))
    assume(not admits(parsed, evidence))
    advice = advise(refused(parsed, evidence))
    assert advice.suffices, advice.obstacles
    changed = patched(parsed, advice.operations)
    assert changed is not None
    assert admits(changed, evidence)
    for left_out in advice.operations:
        rest = patched(parsed, tuple(operation for operation in advice.operations if operation is not left_out))
        assert rest is None or not admits(rest, evidence)


@pytest.mark.parametrize("tee", SIZES)
def test_a_variant_of_the_right_tee_is_widened_and_not_one_of_another(tee: Tee) -> None:
    """Even if the other one has fewer mismatches, as evidence of another TEE has just one."""
    first = next(iter(SIZES[tee]))
    name = {"tpm": "tpm.pcrs.sha256.4"}.get(tee, f"{tee}.{first}")
    own: dict[str, Any] = {"tpm": {"pcrs": {"sha256": {"4": "02" * 32}}}}
    own = own if tee == "tpm" else {tee: {first: "02" * SIZES[tee][first]}}
    service = {"name": "web", "attestation": [{"mrenclave": "a" * 64}, own]}
    document: dict[str, Any] = {"version": "0.3.12", "name": "law", "services": [service]}
    evidence = Claims(
        tee=tee,
        measurements=({"pcrs": b"\1" * 32} if tee == "tpm" else {})
        | {one: b"\1" * size for one, size in SIZES[tee].items()},
        signer=None,
        product_id=None,
        svn=None,
        report_data=BINDING,
        debug=False,
        software=False,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=None,
        platform_id="",
    )
    (operation,) = advise(refused(parse_session(write_yaml(document)), evidence)).operations
    assert (operation.action, operation.path) == ("add", f"services[0].attestation[1].{name}")


def test_one_more_event_is_added_to_those_that_a_register_may_have() -> None:
    allowed, new = b"\1" * 32, b"\2" * 32
    variant = {"tpm": {"events": {"sha256": {"4": [allowed.hex()]}}}}
    evidence = _booted("tpm", {"pcrs": b"\1" * 32, "sha256:4": b"\3" * 32}, {"sha256:4": (allowed, new)})
    (operation,) = advise(refused(_with(variant), evidence)).operations
    assert (operation.action, operation.path) == ("add", "services[0].attestation[0].tpm.events.sha256.4")
    assert operation.value == new.hex()


def test_a_guest_with_a_vtpm_is_named_by_its_firmware_and_its_registers() -> None:
    measured = {"measurement": b"\1" * 48, "pcrs": b"\1" * 32, "sha256:4": b"\3" * 32}
    evidence = _booted("snp", measured, {})
    parsed = _with({"snp": {"measurement": "01" * 48}})
    (operation,) = advise(refused(parsed, evidence)).operations
    assert (operation.action, operation.path) == ("add", "services[0].attestation")
    assert operation.value == {
        "snp": {"measurement": ["01" * 48], "pcrs": {"sha256": {"4": ["03" * 32]}}},
    }


def _with(variant: dict[str, Any]) -> ParsedSession:
    service: dict[str, Any] = {"name": "web", "attestation": [variant]}
    return parse_session(write_yaml({"version": "0.3.12", "name": "law", "services": [service]}))


def _booted(tee: Tee, measured: dict[str, bytes], events: dict[str, tuple[bytes, ...]]) -> Claims:
    return Claims(
        tee=tee,
        measurements=measured,
        signer=None,
        product_id=None,
        svn=None,
        report_data=BINDING,
        debug=False,
        software=False,
        tcb_status="UpToDate",
        advisories=frozenset(),
        tcb_date=None,
        platform_id="",
        events=events,
    )
