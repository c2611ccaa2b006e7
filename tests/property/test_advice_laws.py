"""Laws of the advice: the change that it proposes admits what was refused, and no part of it is in vain."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ostiary.appraisal import appraise, refuse_unprovable
from ostiary.appraisal.advice import Advice, Refused, advise
from ostiary.appraisal.patch import Operation, Wisdom, apply_operations
from ostiary.errors import AppraisalRefusedError, SessionFormatError
from ostiary.evidence.claims import MAA_MANAGED, Claims
from ostiary.session import ParsedSession, parse_session
from ostiary.session.model import Security, SecurityAttestation
from ostiary.session.yaml_text import write_yaml

BINDING = bytes(range(64))
NOW = datetime(2026, 11, 23, tzinfo=UTC)
DIGESTS = [f"{digit}" * 64 for digit in "abc"]
MACHINES = ["1" * 32, "2" * 32]
ADVISORIES = ["INTEL-SA-00233", "INTEL-SA-00219", "INTEL-SA-00657", "INTEL-SA-00615", "INTEL-SA-00334"]
TOLERATE = [
    "debug-mode",
    "software-platform",
    "hyperthreading",
    "insecure-igpu",
    "software-hardening-needed",
    "insecure-configuration",
    "outdated-tcb",
]
STATUSES = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
]
URL = "https://tenant.region.attest.azure.net"

digests = st.sampled_from(DIGESTS)
numbers = st.integers(0, 5)


@st.composite
def signers(draw: st.DrawFn) -> dict[str, Any]:
    signer: dict[str, Any] = {"mrsigner": draw(digests), "isvprodid": draw(numbers)}
    low, high = sorted((draw(numbers), draw(numbers)))
    match draw(st.sampled_from(["none", "exact", "min", "max", "both"])):
        case "exact":
            signer["isvsvn"] = low
        case "min":
            signer["isvsvn_min"] = low
        case "max":
            signer["isvsvn_max"] = high
        case "both":
            signer |= {"isvsvn_min": low, "isvsvn_max": high}
        case _:
            pass
    return signer


variants = st.one_of(
    st.fixed_dictionaries({"mrenclave": st.one_of(digests, st.lists(digests, min_size=1, max_size=2, unique=True))}),
    st.fixed_dictionaries({"signer": signers()}),
    st.fixed_dictionaries({"mrenclave": digests, "signer": signers()}),
)


@st.composite
def sessions(draw: st.DrawFn, mode: str) -> ParsedSession:
    service: dict[str, Any] = {"name": "web"}
    version = draw(st.sampled_from(["0.3.1", "0.3.6", "0.3.7", "0.3.10", "0.3.12", "0.3"]))
    if version in ("0.3.1", "0.3.6") or draw(st.booleans()):
        service["mrenclaves"] = draw(st.lists(digests, min_size=1, max_size=3, unique=True))
    else:
        service["attestation"] = draw(st.one_of(variants, st.lists(variants, min_size=1, max_size=3)))
    machines = draw(st.lists(st.sampled_from(MACHINES), max_size=1))
    if machines:
        service["platforms"] = [f"INTEL_QE_ID:{machine}" for machine in machines]
    attestation: dict[str, Any] = {"mode": "maa", "url": URL} if mode == "maa" else {}
    tolerate = draw(st.lists(st.sampled_from([*TOLERATE, "maa-managed-tcb"]), max_size=4, unique=True))
    ignored = draw(st.one_of(st.just("*"), st.lists(st.sampled_from(ADVISORIES), max_size=3, unique=True)))
    if tolerate:
        attestation["tolerate"] = tolerate
    if ignored:
        attestation["ignore_advisories"] = ignored
    document: dict[str, Any] = {
        "version": "0.3.7" if mode == "maa" and version in ("0.3.1", "0.3.6") else version,
        "name": "law",
        "services": [{"name": "other", "mrenclaves": [DIGESTS[0]]}, service],
    }
    if attestation:
        document["security"] = {"attestation": attestation}
    if attestation and version in ("0.3.10", "0.3.12") and draw(st.booleans()):
        document["security"]["singleton_enclaves"] = True
    return parse_session(write_yaml(document))


@st.composite
def claims(draw: st.DrawFn, mode: str) -> Claims:
    software = draw(st.booleans())
    maa = mode == "maa"
    return Claims(
        tee="sgx",
        measurements={"mrenclave": bytes.fromhex(draw(digests))},
        signer=bytes.fromhex(draw(digests)),
        product_id=draw(numbers),
        svn=draw(numbers),
        report_data=BINDING,
        debug=software or draw(st.booleans()),
        software=software and not maa,
        tcb_status=MAA_MANAGED if maa else draw(st.sampled_from(STATUSES)),
        advisories=frozenset() if maa else draw(st.frozensets(st.sampled_from(ADVISORIES), max_size=4)),
        tcb_date=None,
        platform_id="",
        qe_id=None if maa else bytes.fromhex(draw(st.sampled_from(MACHINES))),
        attestation_service=URL if maa else None,
    )


def refused(parsed: ParsedSession, evidence: Claims) -> Refused:
    service = next(service for service in parsed.session.services if service.name == "web")
    security = parsed.session.security
    assert isinstance(security, Security)
    assert isinstance(security.attestation, SecurityAttestation)
    assert isinstance(security.singleton_enclaves, bool)
    return Refused(
        claims=evidence,
        written=parsed,
        service=service,
        security=security.attestation,
        binding=BINDING,
        now=NOW,
        singleton_enclaves=security.singleton_enclaves,
    )


def admits(parsed: ParsedSession, evidence: Claims) -> bool:
    """What a start would come to."""
    start = refused(parsed, evidence)
    try:
        refuse_unprovable(start.service, start.security, singleton_enclaves=start.singleton_enclaves)
        appraise(evidence, start.service, start.security, binding=BINDING, now=NOW)
    except AppraisalRefusedError:
        return False
    return True


def patched(parsed: ParsedSession, operations: tuple[Operation, ...]) -> ParsedSession | None:
    """The session with the operations carried out; None if that is no session."""
    try:
        return parse_session(write_yaml(apply_operations(parsed.normal, operations)))
    except SessionFormatError:
        return None


starts = st.sampled_from(["hardware", "maa"]).flatmap(lambda mode: st.tuples(sessions(mode), claims(mode)))


@settings(max_examples=400, deadline=None)
@given(starts)
def test_the_change_admits_and_every_operation_of_it_is_needed(start: tuple[ParsedSession, Claims]) -> None:
    parsed, evidence = start
    assume(not admits(parsed, evidence))
    advice = advise(refused(parsed, evidence))
    assert advice.suffices
    changed = patched(parsed, advice.operations)
    assert changed is not None
    assert admits(changed, evidence)
    for left_out in advice.operations:
        rest = patched(parsed, tuple(operation for operation in advice.operations if operation is not left_out))
        assert rest is None or not admits(rest, evidence)


@settings(max_examples=100, deadline=None)
@given(starts)
def test_a_start_that_is_admitted_needs_no_change(start: tuple[ParsedSession, Claims]) -> None:
    parsed, evidence = start
    if admits(parsed, evidence):
        assert advise(refused(parsed, evidence)) == Advice()


@settings(max_examples=100, deadline=None)
@given(starts, st.sampled_from(["Revoked", "NoSuchStatus", ""]))
def test_a_status_that_no_session_tolerates_is_an_obstacle(start: tuple[ParsedSession, Claims], status: str) -> None:
    parsed, evidence = start
    advice = advise(refused(parsed, dataclasses.replace(evidence, tcb_status=status)))
    assert not advice.suffices
    assert "tcb_status" in advice.obstacles[0]


@settings(max_examples=200, deadline=None)
@given(starts)
def test_what_opens_the_memory_of_a_program_is_never_wise(start: tuple[ParsedSession, Claims]) -> None:
    for operation in advise(refused(*start)).operations:
        if operation.value in ("debug-mode", "software-platform") or operation.action == "remove":
            assert operation.wisdom is Wisdom.NEVER
        assert operation.value not in ("*", ["*"])
        assert operation.why
