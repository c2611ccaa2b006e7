"""Does a session admit a program? Every rule of `appraise` as a table, refusals with what the operator reads."""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from ostiary.appraisal import AttestationResult, admit_unattested, appraise
from ostiary.errors import AppraisalRefusedError, Mismatch, RefusedError
from ostiary.evidence.claims import MAA_MANAGED, Claims
from ostiary.session.model import SecurityAttestation, Service, Signer, TcbRules, Variable, Variant
from ostiary.session.placeholder import Placeholder

A, B, C = bytes([0xA]) * 32, bytes([0xB]) * 32, bytes([0xC]) * 32
SIGNER = bytes([0x5]) * 32
BINDING = bytes(range(64))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLAIMS = Claims(
    tee="sgx",
    measurements={"mrenclave": A},
    signer=SIGNER,
    product_id=7,
    svn=3,
    report_data=BINDING,
    debug=False,
    software=False,
    tcb_status="UpToDate",
    advisories=frozenset(),
    tcb_date=None,
    platform_id="00",
)
STRICT = SecurityAttestation()
CONDITIONS = frozenset({"service-td", "sept-ve-disable-off"})
X = Variable(placeholder=Placeholder(name="x"))


def _service(*variants: Variant) -> Service:
    return Service(name="web", attestation=variants or (Variant(mrenclave=(A,)),))


def _tolerate(*values: str, ignore: tuple[str, ...] = (), everything: bool = False) -> SecurityAttestation:
    return SecurityAttestation(
        tolerate=frozenset(values), ignore_advisories=frozenset(ignore), ignore_all_advisories=everything
    )


def _mismatches(
    claims: Claims, service: Service | None = None, security: SecurityAttestation = STRICT, binding: bytes = BINDING
) -> tuple[Mismatch, ...]:
    with pytest.raises(AppraisalRefusedError) as refusal:
        appraise(claims, service or _service(), security, binding=binding, now=NOW)
    assert refusal.value.message == "service web: the evidence is authentic, but the session does not admit it"
    return refusal.value.mismatches


def _with(**changes: object) -> Claims:
    return dataclasses.replace(CLAIMS, **changes)  # type: ignore[arg-type]


def test_conditions_are_tolerated_by_name_one_by_one() -> None:
    claims = _with(conditions=CONDITIONS)
    found = _mismatches(claims, security=_tolerate("service-td", "debug-mode"))
    assert [mismatch.factor for mismatch in found] == ["tolerate: sept-ve-disable-off"]
    assert [mismatch.factor for mismatch in _mismatches(claims)] == [
        "tolerate: sept-ve-disable-off",
        "tolerate: service-td",
    ]
    result = appraise(claims, _service(), _tolerate(*CONDITIONS), binding=BINDING, now=NOW)
    assert set(result.tolerated) == CONDITIONS


def test_claims_that_satisfy_everything_are_admitted_with_nothing_tolerated() -> None:
    result = appraise(CLAIMS, _service(), STRICT, binding=BINDING, now=NOW)
    assert (result.service, result.claims, result.variant, result.tolerated) == ("web", CLAIMS, 0, ())


@pytest.mark.parametrize("binding", [BINDING[:-1] + b"\0", BINDING[:-1], BINDING + b"\0", b"", bytes(64)])
def test_report_data_must_equal_the_binding(binding: bytes) -> None:
    (mismatch,) = _mismatches(CLAIMS, binding=binding)
    assert mismatch.factor == "report_data"
    assert mismatch.found == "evidence made for another nonce or another connection"
    assert "new challenge" in mismatch.advice


class TestVariants:
    @pytest.mark.parametrize(
        ("variants", "index"),
        [
            ((Variant(mrenclave=(B, A)),), 0),
            ((Variant(mrenclave=(B,)), Variant(mrenclave=(A,))), 1),
            ((Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7)),), 0),
            ((Variant(mrenclave=(A,), signer=Signer(mrsigner=SIGNER, isvprodid=7)),), 0),
            ((Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=3, isvsvn_max=3)),), 0),
            ((Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=3)),), 0),
            ((Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_max=3)),), 0),
        ],
    )
    def test_any_variant_with_all_its_factors_admits(self, variants: tuple[Variant, ...], index: int) -> None:
        """F075, F080: any of several variants admits; bounds of isvsvn are inclusive, a missing one is open."""
        assert appraise(CLAIMS, _service(*variants), STRICT, binding=BINDING, now=NOW).variant == index

    def test_other_measurement_is_refused_with_found_and_expected(self) -> None:
        (mismatch,) = _mismatches(CLAIMS, _service(Variant(mrenclave=(B, C))))
        assert mismatch.factor == "mrenclave"
        assert mismatch.found == A.hex()
        assert mismatch.expected == f"{B.hex()} or {C.hex()}"

    @pytest.mark.parametrize(
        ("signer", "factor", "found", "expected"),
        [
            (Signer(mrsigner=B, isvprodid=7), "signer.mrsigner", SIGNER.hex(), B.hex()),
            (Signer(mrsigner=SIGNER, isvprodid=8), "signer.isvprodid", "7", "8"),
            (Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=4), "signer.isvsvn", "3", "4 to 65535"),
            (Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_max=2), "signer.isvsvn", "3", "0 to 2"),
            (Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=0, isvsvn_max=0), "signer.isvsvn", "3", "0 to 0"),
        ],
    )
    def test_each_signer_factor_is_held_alone(self, signer: Signer, factor: str, found: str, expected: str) -> None:
        """F079, F080: isvsvn is exact, or within its bounds."""
        (mismatch,) = _mismatches(CLAIMS, _service(Variant(signer=signer)))
        assert (mismatch.factor, mismatch.found, mismatch.expected) == (factor, found, expected)

    def test_factors_of_two_variants_do_not_add_up(self) -> None:
        """F076: all factors of one variant must hold."""
        wrong_signer = Signer(mrsigner=B, isvprodid=7)
        right_signer = Signer(mrsigner=SIGNER, isvprodid=7)
        service = _service(Variant(mrenclave=(A,), signer=wrong_signer), Variant(mrenclave=(B,), signer=right_signer))
        assert [mismatch.factor for mismatch in _mismatches(CLAIMS, service)] == ["signer.mrsigner"]

    def test_refusal_shows_the_nearest_variant(self) -> None:
        far = Variant(mrenclave=(B,), signer=Signer(mrsigner=B, isvprodid=8, isvsvn_min=9))
        near = Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=9))
        assert [mismatch.factor for mismatch in _mismatches(CLAIMS, _service(far, near))] == ["signer.isvsvn"]
        assert [mismatch.factor for mismatch in _mismatches(CLAIMS, _service(far))] == [
            "mrenclave",
            "signer.mrsigner",
            "signer.isvprodid",
            "signer.isvsvn",
        ]

    @pytest.mark.parametrize("missing", ["signer", "product_id", "svn", "measurements"])
    def test_a_factor_that_the_evidence_says_nothing_of_does_not_hold(self, missing: str) -> None:
        signer = Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=0)
        claims = _with(**{missing: {"mrtd": A} if missing == "measurements" else None})
        (mismatch,) = _mismatches(claims, _service(Variant(mrenclave=(A,), signer=signer)))
        assert mismatch.found == "none in evidence of this TEE"

    @pytest.mark.parametrize("variants", [(), (Variant(),), (Variant(), Variant(mrenclave=()))])
    def test_no_reference_values_admit_nothing(self, variants: tuple[Variant, ...]) -> None:
        (mismatch,) = _mismatches(CLAIMS, Service(name="web", attestation=variants))
        assert mismatch.factor == "attestation"
        assert mismatch.expected == "a variant with at least one factor; the session names none"


class TestDebug:
    @pytest.mark.parametrize(
        ("debug", "software", "tolerate", "tolerated"),
        [
            (True, False, ("debug-mode",), ("debug-mode",)),
            (True, True, ("debug-mode",), ("debug-mode",)),
            (True, True, ("software-platform",), ("software-platform",)),
            (True, True, ("software-platform", "debug-mode"), ("software-platform",)),
            (False, False, ("debug-mode", "software-platform"), ()),
        ],
    )
    def test_tolerated(
        self, debug: bool, software: bool, tolerate: tuple[str, ...], tolerated: tuple[str, ...]
    ) -> None:
        claims = _with(debug=debug, software=software)
        assert appraise(claims, _service(), _tolerate(*tolerate), binding=BINDING, now=NOW).tolerated == tolerated

    def test_software_platform_admits_no_debug_enclave_of_hardware(self) -> None:
        (mismatch,) = _mismatches(_with(debug=True), security=_tolerate("software-platform"))
        assert mismatch.factor == "tolerate: debug-mode"
        assert mismatch.found == "a debug enclave, whose memory its host can read"

    def test_debug_enclave_is_refused_by_default(self) -> None:
        (mismatch,) = _mismatches(_with(debug=True))
        assert mismatch.factor == "tolerate: debug-mode"
        assert "production build" in mismatch.advice

    @pytest.mark.parametrize("debug", [True, False])
    def test_software_evidence_is_refused_by_default_even_without_its_debug_flag(self, debug: bool) -> None:
        (mismatch,) = _mismatches(_with(debug=debug, software=True))
        assert mismatch.factor == "tolerate: software-platform"
        assert mismatch.found == "evidence of a software platform, which protects nothing"
        assert "add software-platform or debug-mode" in mismatch.advice


class TestTcb:
    @pytest.mark.parametrize(
        ("status", "needed"),
        [
            ("SWHardeningNeeded", {"software-hardening-needed"}),
            ("ConfigurationNeeded", {"insecure-configuration"}),
            ("OutOfDate", {"outdated-tcb"}),
            ("ConfigurationAndSWHardeningNeeded", {"insecure-configuration", "software-hardening-needed"}),
            ("OutOfDateConfigurationNeeded", {"insecure-configuration", "outdated-tcb"}),
            ("TDRelaunchAdvised", {"td-relaunch-advised"}),
            ("TDRelaunchAdvisedConfigurationNeeded", {"insecure-configuration", "td-relaunch-advised"}),
        ],
    )
    def test_status_needs_each_of_its_categories(self, status: str, needed: set[str]) -> None:
        claims = _with(tcb_status=status)
        assert set(appraise(claims, _service(), _tolerate(*needed), binding=BINDING, now=NOW).tolerated) == needed
        for missing in needed:
            (mismatch,) = _mismatches(claims, security=_tolerate(*(needed - {missing})))
            assert mismatch.factor == f"tolerate: {missing}"
            assert mismatch.found == f"TCB status {status}"
            assert mismatch.advice == f"update the platform, or add {missing} to security.attestation.tolerate"

    @pytest.mark.parametrize("status", ["Revoked", "TDRelaunch", "", "uptodate"])
    def test_revoked_and_unknown_statuses_are_never_tolerated(self, status: str) -> None:
        everything = _tolerate(
            "debug-mode",
            "software-hardening-needed",
            "insecure-configuration",
            "outdated-tcb",
            "hyperthreading",
            "insecure-igpu",
            "aepic-leak",
            everything=True,
        )
        (mismatch,) = _mismatches(_with(tcb_status=status), security=everything)
        assert (mismatch.factor, mismatch.found) == ("tcb_status", status)
        assert "no session can tolerate this one" in mismatch.advice

    def test_revoked_is_not_tolerated_through_a_shortcut(self) -> None:
        claims = _with(tcb_status="Revoked", advisories=frozenset({"INTEL-SA-00233"}))
        (mismatch,) = _mismatches(claims, security=_tolerate("hyperthreading"))
        assert mismatch.factor == "tcb_status"

    def test_category_alone_does_not_ignore_advisories(self) -> None:
        """F191: an advisory needs its category and its name."""
        claims = _with(tcb_status="SWHardeningNeeded", advisories=frozenset({"INTEL-SA-00615"}))
        (mismatch,) = _mismatches(claims, security=_tolerate("software-hardening-needed"))
        assert mismatch.factor == "ignore_advisories: INTEL-SA-00615"
        assert "add INTEL-SA-00615 to security.attestation.ignore_advisories" in mismatch.advice

    def test_advisory_alone_does_not_tolerate_its_category(self) -> None:
        """F191: the name alone is not enough either."""
        claims = _with(tcb_status="SWHardeningNeeded", advisories=frozenset({"INTEL-SA-00615"}))
        (mismatch,) = _mismatches(claims, security=_tolerate(ignore=("INTEL-SA-00615",)))
        assert mismatch.factor == "tolerate: software-hardening-needed"

    def test_category_and_every_advisory_by_name_admit(self) -> None:
        claims = _with(tcb_status="SWHardeningNeeded", advisories=frozenset({"INTEL-SA-00615", "INTEL-SA-00334"}))
        security = _tolerate("software-hardening-needed", ignore=("INTEL-SA-00615", "INTEL-SA-00334", "INTEL-SA-1"))
        result = appraise(claims, _service(), security, binding=BINDING, now=NOW)
        assert result.tolerated == ("software-hardening-needed", "INTEL-SA-00334", "INTEL-SA-00615")

    @pytest.mark.parametrize(
        ("shortcut", "advisory"),
        [
            ("hyperthreading", "INTEL-SA-00233"),
            ("insecure-igpu", "INTEL-SA-00219"),
            ("aepic-leak", "INTEL-SA-00657"),
        ],
    )
    def test_shortcut_alone_is_enough_for_its_own_advisory(self, shortcut: str, advisory: str) -> None:
        """F191: a shortcut stands for both."""
        claims = _with(tcb_status="ConfigurationNeeded", advisories=frozenset({advisory}))
        assert appraise(claims, _service(), _tolerate(shortcut), binding=BINDING, now=NOW).tolerated == (advisory,)
        factors = {mismatch.factor for mismatch in _mismatches(claims)}
        assert factors == {"tolerate: insecure-configuration", f"ignore_advisories: {advisory}"}

    def test_shortcut_is_not_enough_beside_another_advisory(self) -> None:
        claims = _with(tcb_status="ConfigurationNeeded", advisories=frozenset({"INTEL-SA-00233", "INTEL-SA-00615"}))
        mismatches = _mismatches(claims, security=_tolerate("hyperthreading", ignore=("INTEL-SA-00615",)))
        assert [mismatch.factor for mismatch in mismatches] == ["tolerate: insecure-configuration"]

    def test_shortcut_does_not_cover_a_status_without_advisories(self) -> None:
        mismatches = _mismatches(_with(tcb_status="ConfigurationNeeded"), security=_tolerate("hyperthreading"))
        assert [mismatch.factor for mismatch in mismatches] == ["tolerate: insecure-configuration"]

    def test_wildcard_counts_beside_debug_mode_only(self) -> None:
        claims = _with(tcb_status="OutOfDate", advisories=frozenset({"INTEL-SA-00615"}))
        admitted = _tolerate("outdated-tcb", "debug-mode", everything=True)
        assert appraise(claims, _service(), admitted, binding=BINDING, now=NOW).tolerated == (
            "outdated-tcb",
            "INTEL-SA-00615",
        )
        (mismatch,) = _mismatches(claims, security=_tolerate("outdated-tcb", everything=True))
        assert mismatch.factor == "ignore_advisories: INTEL-SA-00615"

    def test_wildcard_tolerates_no_category(self) -> None:
        claims = _with(tcb_status="OutOfDate", advisories=frozenset({"INTEL-SA-00615"}))
        (mismatch,) = _mismatches(claims, security=_tolerate("debug-mode", everything=True))
        assert mismatch.factor == "tolerate: outdated-tcb"

    def test_advisories_of_an_up_to_date_level_have_to_be_named_too(self) -> None:
        (mismatch,) = _mismatches(_with(advisories=frozenset({"INTEL-SA-00615"})))
        assert mismatch.factor == "ignore_advisories: INTEL-SA-00615"


def test_every_mismatch_is_reported_at_once() -> None:
    claims = _with(
        measurements={"mrenclave": B},
        debug=True,
        tcb_status="OutOfDate",
        advisories=frozenset({"INTEL-SA-00615"}),
        report_data=bytes(64),
    )
    assert [mismatch.factor for mismatch in _mismatches(claims)] == [
        "report_data",
        "tolerate: debug-mode",
        "tolerate: outdated-tcb",
        "ignore_advisories: INTEL-SA-00615",
        "mrenclave",
    ]


class TestUnattested:
    def test_mode_none_admits_without_claims(self) -> None:
        result = admit_unattested(_service(), SecurityAttestation(mode="none"))
        assert (result.service, result.claims, result.variant, result.tolerated) == ("web", None, None, ())

    @pytest.mark.parametrize("mode", ["hardware", "maa", "", "None"])
    def test_every_other_mode_wants_evidence(self, mode: str) -> None:
        with pytest.raises(RefusedError, match="wants evidence, none was sent"):
            admit_unattested(_service(), SecurityAttestation(mode=mode))


class TestResult:
    @pytest.mark.parametrize("made_by", [None, object(), "appraise"])
    def test_result_cannot_be_made_elsewhere(self, made_by: object) -> None:
        with pytest.raises(TypeError, match=r"made by appraise\(\) or admit_unattested\(\), nowhere else"):
            AttestationResult(service="web", claims=None, variant=None, tolerated=(), made_by=made_by)

    def test_result_cannot_be_changed_or_varied(self) -> None:
        result = admit_unattested(_service(), SecurityAttestation(mode="none"))
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.service = "other"  # type: ignore[misc]
        with pytest.raises((TypeError, ValueError)):
            dataclasses.replace(result, service="other")  # type: ignore[call-arg]
        assert copy.copy(result) == result


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        (X, "the secret of $$SCONE::x$$ to be there"),
        (Variant(mrenclave=(X,)), "the unresolved $$SCONE::x$$"),
        (Variant(mrenclave=(A,), signer=X), "a variable that is not resolved"),
        (Variant(signer=Signer(mrsigner=X, isvprodid=7)), "the unresolved $$SCONE::x$$"),
        (Variant(signer=Signer(mrsigner=SIGNER, isvprodid=X)), "the unresolved $$SCONE::x$$"),
        (
            Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_min=X)),
            "the unresolved $$SCONE::x$$ to 65535",
        ),
        (
            Variant(signer=Signer(mrsigner=SIGNER, isvprodid=7, isvsvn_max=X)),
            "0 to the unresolved $$SCONE::x$$",
        ),
    ],
)
def test_an_unresolved_variable_fulfils_nothing(variant: Variant | Variable, says: str) -> None:
    """F087."""
    (mismatch,) = _mismatches(CLAIMS, Service(name="web", attestation=(variant,)))
    assert says in f"{mismatch.found} {mismatch.expected}"
    assert appraise(
        CLAIMS, Service(name="web", attestation=(variant, Variant(mrenclave=(A,)))), STRICT, binding=BINDING, now=NOW
    )


def test_an_unresolved_variable_in_security_refuses_the_start() -> None:
    """F205."""
    (mismatch,) = _mismatches(CLAIMS, _service(), SecurityAttestation(tolerate=frozenset({X})))
    assert mismatch.factor == "security.attestation"
    assert "$$SCONE" not in mismatch.found, "which the peer is told"


class TestGrace:
    """`tcb.grace`: until so long after the oldest newer level, `outdated-tcb` and what an update mends."""

    SUPERSEDED = NOW - timedelta(days=30)
    OLD = _with(
        tcb_status="OutOfDate",
        advisories=frozenset({"INTEL-SA-00828", "INTEL-SA-00615"}),
        superseded=SUPERSEDED,
        mended=frozenset({"INTEL-SA-00828"}),
    )
    GRACE = SecurityAttestation(ignore_advisories=frozenset({"INTEL-SA-00615"}), tcb=TcbRules(grace=timedelta(days=30)))

    def _graced(self, claims: Claims, **changes: object) -> AttestationResult:
        security = dataclasses.replace(self.GRACE, **changes)  # type: ignore[arg-type]
        return appraise(claims, _service(), security, binding=BINDING, now=NOW)

    def _factors(self, claims: Claims, **changes: object) -> list[str]:
        with pytest.raises(AppraisalRefusedError) as refusal:
            self._graced(claims, **changes)
        return [f"{mismatch.factor}; found {mismatch.found}" for mismatch in refusal.value.mismatches]

    def test_a_level_is_tolerated_until_the_last_moment_of_its_grace(self) -> None:
        assert self._graced(self.OLD).tolerated == ("tcb.grace", "INTEL-SA-00615", "INTEL-SA-00828")

    def test_after_its_grace_it_is_refused_with_the_last_day(self) -> None:
        late = dataclasses.replace(self.OLD, superseded=self.SUPERSEDED - timedelta(seconds=1))
        assert self._factors(late) == [
            "tolerate: outdated-tcb; found TCB status OutOfDate, tolerated until 2026-02-28",
            "ignore_advisories: INTEL-SA-00828; found a platform open to INTEL-SA-00828",
        ]

    def test_without_a_grace_nothing_changes(self) -> None:
        assert self._factors(self.OLD, tcb=None) == [
            "tolerate: outdated-tcb; found TCB status OutOfDate",
            "ignore_advisories: INTEL-SA-00828; found a platform open to INTEL-SA-00828",
        ]

    def test_what_an_update_does_not_mend_has_to_be_ignored_by_name(self) -> None:
        assert self._factors(self.OLD, ignore_advisories=frozenset()) == [
            "ignore_advisories: INTEL-SA-00615; found a platform open to INTEL-SA-00615"
        ]

    def test_where_nobody_knows_since_when_there_is_no_grace(self) -> None:
        unknown = dataclasses.replace(self.OLD, superseded=None)
        assert self._factors(unknown)[0] == "tolerate: outdated-tcb; found TCB status OutOfDate"

    def test_it_stands_for_that_category_alone(self) -> None:
        configure = dataclasses.replace(self.OLD, tcb_status="OutOfDateConfigurationNeeded")
        assert self._factors(configure) == [
            "tolerate: insecure-configuration; found TCB status OutOfDateConfigurationNeeded"
        ]
        assert "tcb.grace" in self._graced(configure, tolerate=frozenset({"insecure-configuration"})).tolerated

    @pytest.mark.parametrize("status", ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "TDRelaunchAdvised"])
    def test_advisories_of_other_statuses_are_not_forgiven(self, status: str) -> None:
        claims = dataclasses.replace(self.OLD, tcb_status=status)
        categories = frozenset({"software-hardening-needed", "insecure-configuration", "td-relaunch-advised"})
        assert self._factors(claims, tolerate=categories) == [
            "ignore_advisories: INTEL-SA-00828; found a platform open to INTEL-SA-00828"
        ]

    @pytest.mark.parametrize("status", ["Revoked", "Unknown"])
    def test_what_is_never_tolerated_has_no_grace(self, status: str) -> None:
        claims = dataclasses.replace(self.OLD, tcb_status=status)
        assert self._factors(claims)[0] == f"tcb_status; found {status}"

    def test_a_toleration_beside_it_takes_nothing_away(self) -> None:
        result = self._graced(self.OLD, tolerate=frozenset({"outdated-tcb"}))
        assert result.tolerated == ("outdated-tcb", "INTEL-SA-00615", "tcb.grace", "INTEL-SA-00828")
        assert self._factors(self.OLD, tolerate=frozenset({"outdated-tcb"}), tcb=None) == [
            "ignore_advisories: INTEL-SA-00828; found a platform open to INTEL-SA-00828"
        ]

    def test_a_variable_is_no_grace(self) -> None:
        for tcb in (X, TcbRules(grace=X)):
            assert "tolerate: outdated-tcb; found TCB status OutOfDate" in self._factors(self.OLD, tcb=tcb)

    def test_a_grace_beyond_the_end_of_time_never_ends(self) -> None:
        assert self._graced(self.OLD, tcb=TcbRules(grace=timedelta(days=999_999_999))).tolerated


class TestMaxAge:
    SECURITY = SecurityAttestation(max_age=timedelta(days=14))

    def test_statements_of_that_age_are_admitted(self) -> None:
        claims = _with(issued=NOW - timedelta(days=14))
        assert appraise(claims, _service(), self.SECURITY, binding=BINDING, now=NOW).tolerated == ()

    @pytest.mark.parametrize(
        ("issued", "found"),
        [
            (NOW - timedelta(days=14, seconds=1), "endorsements of 2026-02-14"),
            (NOW - timedelta(days=4000), "endorsements of 2015-03-19"),
            (None, "endorsements without a date"),
        ],
    )
    def test_older_ones_are_refused_and_so_are_those_without_a_date(self, issued: datetime | None, found: str) -> None:
        (mismatch,) = _mismatches(_with(issued=issued), security=self.SECURITY)
        assert mismatch.factor == "security.attestation.max_age"
        assert (mismatch.found, mismatch.expected) == (found, "endorsements of the last 14days")

    def test_without_it_age_does_not_count(self) -> None:
        assert appraise(_with(issued=None), _service(), STRICT, binding=BINDING, now=NOW)

    def test_a_variable_refuses_the_start(self) -> None:
        (mismatch,) = _mismatches(_with(issued=NOW), security=SecurityAttestation(max_age=X))
        assert mismatch.factor == "security.attestation"


class TestPlatforms:
    QE, OTHER = b"\x01" * 16, b"\x02" * 16

    def _service(self, *platforms: bytes | Variable) -> Service:
        return dataclasses.replace(_service(), platforms=platforms)

    def test_without_platforms_every_machine_will_do(self) -> None:
        appraise(_with(qe_id=None), self._service(), STRICT, binding=BINDING, now=NOW)

    def test_any_of_the_platforms_will_do(self) -> None:
        appraise(_with(qe_id=self.QE), self._service(self.OTHER, self.QE), STRICT, binding=BINDING, now=NOW)

    @pytest.mark.parametrize("platforms", [(OTHER,), (QE * 2,), (X,), (X, OTHER)])
    def test_another_machine_is_refused(self, platforms: tuple[bytes | Variable, ...]) -> None:
        """F088: `platforms` restrict a service to them.

        Also where the list has only what can never match, or what is not resolved."""
        (mismatch,) = _mismatches(_with(qe_id=self.QE), self._service(*platforms))
        assert (mismatch.factor, mismatch.found) == ("platforms", f"INTEL_QE_ID:{self.QE.hex()}")
        assert "add this one" in mismatch.advice

    def test_evidence_without_quoting_enclave_is_refused(self) -> None:
        (mismatch,) = _mismatches(_with(qe_id=None), self._service(self.QE))
        assert mismatch.found == "evidence that names no quoting enclave"
        assert mismatch.expected == f"INTEL_QE_ID:{self.QE.hex()}"

    def test_the_right_machine_alone_admits_nobody(self) -> None:
        service = dataclasses.replace(self._service(self.QE), attestation=(Variant(mrenclave=(B,)),))
        (mismatch,) = _mismatches(_with(qe_id=self.QE), service)
        assert mismatch.factor == "mrenclave"


class TestAttestationService:
    """Mode maa: Microsoft's service vouches for the platform, the session judges the program all the same."""

    URL = "https://t.r.attest.azure.net"
    SECURITY = SecurityAttestation(mode="maa", url=URL, tolerate=frozenset({"maa-managed-tcb"}))
    TOKEN = _with(tcb_status=MAA_MANAGED, attestation_service=URL)

    def test_what_the_service_vouches_for_is_admitted(self) -> None:
        result = appraise(self.TOKEN, _service(), self.SECURITY, binding=BINDING, now=NOW)
        assert result.tolerated == ("maa-managed-tcb",)

    def test_f195_without_the_toleration_it_is_refused(self) -> None:
        """F195: a session must say that Microsoft's service judges the TCB."""
        security = dataclasses.replace(self.SECURITY, tolerate=frozenset())
        (mismatch,) = _mismatches(self.TOKEN, security=security)
        assert (mismatch.factor, mismatch.found) == ("tolerate: maa-managed-tcb", "TCB status MaaManaged")
        assert "add maa-managed-tcb" in mismatch.advice

    def test_f196_another_program_is_refused_though_the_service_agrees(self) -> None:
        """F196: both policies count."""
        (mismatch,) = _mismatches(
            _with(tcb_status=MAA_MANAGED, attestation_service=self.URL, measurements={"mrenclave": B}),
            security=self.SECURITY,
        )
        assert mismatch.factor == "mrenclave"

    def test_f196_a_debug_enclave_is_refused_though_the_service_agrees(self) -> None:
        """F196: the session's rule on debug mode counts."""
        debug = dataclasses.replace(self.TOKEN, debug=True)
        (mismatch,) = _mismatches(debug, security=self.SECURITY)
        assert mismatch.factor == "tolerate: debug-mode"

    def test_the_connection_must_be_the_same(self) -> None:
        (mismatch,) = _mismatches(self.TOKEN, security=self.SECURITY, binding=bytes(64))
        assert mismatch.factor == "report_data"

    def test_f090_platforms_have_no_effect(self) -> None:
        """F090: a token names no quoting enclave."""
        service = dataclasses.replace(_service(), platforms=(bytes(16),))
        assert appraise(self.TOKEN, service, self.SECURITY, binding=BINDING, now=NOW).claims == self.TOKEN

    @pytest.mark.parametrize(
        ("claims", "security", "found"),
        [
            (TOKEN, STRICT, "a token of https://t.r.attest.azure.net"),
            (TOKEN, dataclasses.replace(SECURITY, url="https://other.example"), "a token of https://t.r"),
            (CLAIMS, SECURITY, "evidence of the TEE itself"),
            (CLAIMS, dataclasses.replace(SECURITY, url=None), "evidence of the TEE itself"),
            (TOKEN, dataclasses.replace(SECURITY, url=None), "a token of https://t.r.attest.azure.net"),
            (TOKEN, dataclasses.replace(SECURITY, url=X), "a token of https://t.r.attest.azure.net"),
        ],
    )
    def test_evidence_must_be_of_the_kind_that_the_session_asks_for(
        self, claims: Claims, security: SecurityAttestation, found: str
    ) -> None:
        factors = {mismatch.factor: mismatch.found for mismatch in _mismatches(claims, security=security)}
        assert factors["security.attestation.mode"].startswith(found)
