"""Does this session admit this program? The one place where verified claims are judged; pure, the file to audit."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime, timedelta

from ostiary.appraisal.demands import unprovable
from ostiary.appraisal.variants import admitting_variant, judge_variants, without_factors
from ostiary.appraisal.wording import any_of, judged, shown, unresolved
from ostiary.errors import AppraisalRefusedError, AppraisalReport, Factor, Held, Mismatch, RefusedError
from ostiary.evidence.claims import MAA_MANAGED, Claims
from ostiary.session.duration import format_duration
from ostiary.session.model import SecurityAttestation, Service, TcbRules, Variable

_MADE_HERE = object()

CATEGORIES_OF_STATUS = {
    "UpToDate": (),
    "SWHardeningNeeded": ("software-hardening-needed",),
    "ConfigurationNeeded": ("insecure-configuration",),
    "ConfigurationAndSWHardeningNeeded": ("insecure-configuration", "software-hardening-needed"),
    "OutOfDate": ("outdated-tcb",),
    "OutOfDateConfigurationNeeded": ("outdated-tcb", "insecure-configuration"),
    "TDRelaunchAdvised": ("td-relaunch-advised",),
    "TDRelaunchAdvisedConfigurationNeeded": ("td-relaunch-advised", "insecure-configuration"),
    MAA_MANAGED: ("maa-managed-tcb",),
}
GRACE = "tcb.grace"
"""What a start needed that `outdated-tcb` would have admitted as well, in `AttestationResult.tolerated`."""
ADVISORY_OF_SHORTCUT = {
    "hyperthreading": "INTEL-SA-00233",
    "insecure-igpu": "INTEL-SA-00219",
    "aepic-leak": "INTEL-SA-00657",
}


@dataclass(frozen=True, kw_only=True)
class AttestationResult:
    """A start was admitted: the only thing for which a configuration is released. Only this module can make one.

    service: its name. claims: what was judged; None: the session says `mode: none`, and nothing was.
    variant: index of the attestation variant that matched, from 0; None without claims.
    tolerated: values of `tolerate`, GRACE, and ids of advisories that this start needed; empty for one without any
    problem.
    Raises TypeError when made anywhere else.
    """

    service: str
    claims: Claims | None
    variant: int | None
    tolerated: tuple[str, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_HERE:
            raise TypeError("an AttestationResult is made by appraise() or admit_unattested(), nowhere else")


def appraise(
    claims: Claims, service: Service, security: SecurityAttestation, *, binding: bytes, now: datetime
) -> AttestationResult:
    """Decide whether verified claims satisfy one service of a session. Pure: `now` (aware) is the only clock, no I/O.

    Guarantees on return:
    1. `report_data` equals `binding` (hash of nonce and both ends' keys, as this TEE holds it): this evidence is for
       this connection.
    2. The program's memory is closed to its host, unless the session says `debug-mode`. Evidence of a software
       platform, which protects nothing, needs `debug-mode` or `software-platform`; the latter admits no debug enclave
       of hardware. Each of the claims' `conditions` is tolerated by its name.
    3. The TCB status is UpToDate, or the session tolerates every category that the status stands for. A status that
       comes only of advisories with a shortcut in `tolerate` needs no category. Revoked and unknown statuses never
       pass. In place of `outdated-tcb` counts `tcb.grace`, until so long after the day on which the oldest newer level
       is dated; where that day is unknown, never.
    4. Every advisory is ignored by name, by a shortcut, or by `*`, which counts only beside `debug-mode`; during the
       grace of 3 also those that the newest level has not any more.
    5. One variant of the service is for this TEE and holds in all its factors: `mrenclave` is one of those named,
       `signer` has this mrsigner and isvprodid, and isvsvn lies within the bounds; of another TEE each measurement is
       one of those named, and guest_svn and vmpl lie within their bounds. No variant, or one without factors that
       name a program, admits nothing.
    6. If the service names platforms, the quoting enclave is of one of them. That alone never admits. With mode maa,
       where no evidence names one, `platforms` has no effect.
    7. Nothing that these rules rest on is a configuration variable which could not be resolved: one in the variants
       or platforms fulfils nothing, one in `security` refuses the start.
    8. With mode maa the attestation service that the session names vouches for the claims, whose TCB status then needs
       `maa-managed-tcb`; 2 and 5 hold all the same. With any other mode no such service does.
    9. If the session has `max_age`, the oldest of the vendor's statements behind the claims is no older. Claims that
       rest on none with a date do not pass.

    Does not guarantee: that the claims came from a trusted root (`evidence` did that); that the nonce was fresh and
    used once, that the session is the newest version, or that it wants evidence at all, its `mode` (`broker`); that
    the program is free of bugs.

    Raises AppraisalRefusedError with every mismatch found, for 5 those of the variant with the fewest, and with a
    report of everything that was looked at.
    Source: session language 6, 6.6, 12.1, 12.2, 12.4; RFC 9334, 8.5.
    """
    tolerated: list[str] = []
    # 1. to 4., 6. to 9.
    general = tuple(_judge_start(claims, service, security, binding, now, tolerated))
    # 5.
    variant = admitting_variant(claims, service)
    if variant is None or any(isinstance(factor, Mismatch) for factor in general):
        report = _report(claims, service, general)
        raise AppraisalRefusedError(
            f"service {service.name}: the evidence is authentic, but the session does not admit it",
            report.mismatches,
            report,
        )
    return AttestationResult(
        service=service.name, claims=claims, variant=variant, tolerated=tuple(tolerated), made_by=_MADE_HERE
    )


def examine(
    claims: Claims,
    service: Service,
    security: SecurityAttestation,
    *,
    binding: bytes,
    now: datetime,
    singleton_enclaves: bool = False,
) -> AppraisalReport:
    """Everything that `refuse_unprovable` and `appraise` look at: both admit exactly if the report has no mismatch.

    Admits nobody: no configuration is released for a report.
    """
    general = (
        *unprovable(security, singleton_enclaves=singleton_enclaves),
        *_judge_start(claims, service, security, binding, now, []),
    )
    return _report(claims, service, general)


def _report(claims: Claims, service: Service, general: tuple[Factor, ...]) -> AppraisalReport:
    variants = judge_variants(claims, service)
    return AppraisalReport(general=general if variants else (*general, without_factors(claims)), variants=variants)


def _judge_start(
    claims: Claims,
    service: Service,
    security: SecurityAttestation,
    binding: bytes,
    now: datetime,
    tolerated: list[str],
) -> Iterator[Factor]:
    """What has to hold whatever the variant. The numbers are those of `appraise`."""
    # 1.
    yield from _judge_binding(claims, binding)
    # 2.
    yield from _judge_debug(claims, security, tolerated)
    yield from _judge_conditions(claims, security, tolerated)
    # 3.
    graced = _is_graced(claims, security, now)
    yield from _judge_status(claims, security, tolerated, graced=graced)
    # 4.
    yield from _judge_advisories(claims, security, tolerated, graced=graced)
    # 6.
    if security.mode != "maa":
        yield from _judge_platform(claims, service)
    # 7.
    yield from (unresolved("security.attestation", variable) for variable in security.variables)
    # 8.
    yield from _judge_attestation_service(claims, security)
    # 9.
    yield from _judge_age(claims, security, now)


def admit_unattested(service: Service, security: SecurityAttestation) -> AttestationResult:
    """Admit a start without any evidence, because the session says `mode: none`.

    Guarantees nothing about the program: whoever reaches the service and names it is admitted.
    Raises RefusedError for every other mode.
    """
    if security.mode != "none":
        raise RefusedError(
            f"service {service.name}: the session has security.attestation.mode {security.mode} and wants evidence, "
            "none was sent; start the program under an attester"
        )
    return AttestationResult(service=service.name, claims=None, variant=None, tolerated=(), made_by=_MADE_HERE)


def _judge_binding(claims: Claims, binding: bytes) -> Iterator[Factor]:
    bound = hmac.compare_digest(claims.report_data, binding)
    yield judged(
        bound,
        factor="report_data",
        found=f"evidence made for {'this' if bound else 'another nonce or another'} connection",
        expected="the hash of this connection's nonce and keys",
        advice="ask for a new challenge and attest over the same connection",
    )


def _judge_debug(claims: Claims, security: SecurityAttestation, tolerated: list[str]) -> Iterator[Factor]:
    if not (claims.debug or claims.software):
        yield Held(factor="debug", found="a production enclave", expected="a production enclave")
        return
    admitting = ("software-platform", "debug-mode") if claims.software else ("debug-mode",)
    needed = next((value for value in admitting if value in security.tolerate), None)
    if needed:
        tolerated.append(needed)
        found = "a software platform" if claims.software else "a debug enclave"
        yield Held(factor=f"tolerate: {needed}", found=found, expected=f"hardware in production, or {needed}")
    elif claims.software:
        yield Mismatch(
            factor="tolerate: software-platform",
            found="evidence of a software platform, which protects nothing",
            expected="hardware",
            advice="for development, add software-platform or debug-mode to security.attestation.tolerate",
        )
    else:
        yield Mismatch(
            factor="tolerate: debug-mode",
            found="a debug enclave, whose memory its host can read",
            expected="a production enclave",
            advice="start the production build of the program",
        )


def _judge_conditions(claims: Claims, security: SecurityAttestation, tolerated: list[str]) -> Iterator[Factor]:
    for condition in sorted(claims.conditions):
        if condition in security.tolerate:
            tolerated.append(condition)
            yield Held(factor=f"tolerate: {condition}", found=f"evidence with {condition}", expected="tolerated")
        else:
            yield Mismatch(
                factor=f"tolerate: {condition}",
                found=f"evidence with {condition}",
                expected=f"evidence without {condition}",
                advice=f"start it without, or add {condition} to security.attestation.tolerate",
            )


def grace_end(claims: Claims, security: SecurityAttestation) -> datetime | None:
    """Until when a TCB that is out of date is tolerated; None: no grace is given, or nobody knows from when."""
    grace = security.tcb.grace if isinstance(security.tcb, TcbRules) else None
    if claims.superseded is None or not isinstance(grace, timedelta):
        return None
    return claims.superseded + min(grace, _END - claims.superseded)


_END = datetime.max.replace(tzinfo=UTC)


def _is_graced(claims: Claims, security: SecurityAttestation, now: datetime) -> bool:
    end = grace_end(claims, security)
    outdated = "outdated-tcb" in CATEGORIES_OF_STATUS.get(claims.tcb_status, ())
    return outdated and end is not None and now <= end


def _judge_status(
    claims: Claims, security: SecurityAttestation, tolerated: list[str], *, graced: bool
) -> Iterator[Factor]:
    categories = CATEGORIES_OF_STATUS.get(claims.tcb_status)
    if categories is None:
        yield Mismatch(
            factor="tcb_status",
            found=claims.tcb_status,
            expected=f"one of {', '.join(CATEGORIES_OF_STATUS)}",
            advice="use another machine, no session can tolerate this one",
        )
    elif not categories:
        yield Held(factor="tcb_status", found=claims.tcb_status, expected="UpToDate")
    elif claims.advisories and claims.advisories <= covered_by_shortcuts(security):
        yield Held(factor="tcb_status", found=claims.tcb_status, expected="nothing but tolerated advisories")
    else:
        for category in categories:
            if category in security.tolerate:
                tolerated.append(category)
                yield Held(
                    factor=f"tolerate: {category}", found=f"TCB status {claims.tcb_status}", expected="tolerated"
                )
            elif category == "outdated-tcb" and graced:
                tolerated.append(GRACE)
                yield Held(
                    factor=GRACE,
                    found=f"TCB status {claims.tcb_status}",
                    expected=f"UpToDate{_until(claims, security)}",
                )
            else:
                since = _until(claims, security) if category == "outdated-tcb" else ""
                yield Mismatch(
                    factor=f"tolerate: {category}",
                    found=f"TCB status {claims.tcb_status}{since}",
                    expected="UpToDate",
                    advice=_ADVICE.get(
                        category, f"update the platform, or add {category} to security.attestation.tolerate"
                    ),
                )


_ADVICE = {
    "maa-managed-tcb": "let Microsoft's service judge the TCB: add maa-managed-tcb to security.attestation.tolerate",
}


def _until(claims: Claims, security: SecurityAttestation) -> str:
    end = grace_end(claims, security)
    return "" if end is None else f", tolerated until {_day(end)}"


def _day(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d}"


def _judge_advisories(
    claims: Claims, security: SecurityAttestation, tolerated: list[str], *, graced: bool
) -> Iterator[Factor]:
    ignored = security.ignore_advisories | covered_by_shortcuts(security)
    everything = security.ignore_all_advisories and "debug-mode" in security.tolerate
    for advisory in sorted(claims.advisories):
        if everything or advisory in ignored:
            tolerated.append(advisory)
            yield Held(
                factor=f"ignore_advisories: {advisory}", found=f"a platform open to {advisory}", expected="ignored"
            )
        elif graced and advisory in claims.mended:
            tolerated += [advisory] if GRACE in tolerated else [GRACE, advisory]
            yield Held(
                factor=f"ignore_advisories: {advisory}",
                found=f"a platform open to {advisory}",
                expected=f"a platform without it{_until(claims, security)}",
            )
        else:
            yield Mismatch(
                factor=f"ignore_advisories: {advisory}",
                found=f"a platform open to {advisory}",
                expected="a platform without it",
                advice=f"update the platform, or add {advisory} to security.attestation.ignore_advisories",
            )


def covered_by_shortcuts(security: SecurityAttestation) -> frozenset[str]:
    """Advisories that values of `tolerate` stand for."""
    return frozenset(advisory for value, advisory in ADVISORY_OF_SHORTCUT.items() if value in security.tolerate)


def _judge_platform(claims: Claims, service: Service) -> Iterator[Factor]:
    if service.platforms:
        yield judged(
            claims.qe_id in service.platforms,
            factor="platforms",
            found="evidence that names no quoting enclave" if claims.qe_id is None else _qe(claims.qe_id),
            expected=any_of(service.platforms, _qe),
            advice="start the program on one of these machines, or add this one to the service's platforms",
        )


def _judge_attestation_service(claims: Claims, security: SecurityAttestation) -> Iterator[Factor]:
    expected = security.url if security.mode == "maa" else None
    yield judged(
        claims.attestation_service == expected and not (security.mode == "maa" and expected is None),
        factor="security.attestation.mode",
        found=_vouched(claims.attestation_service),
        expected=_vouched(expected) if expected is None or isinstance(expected, str) else shown(expected),
        advice="send evidence of the kind that the session's mode and url ask for",
    )


def _judge_age(claims: Claims, security: SecurityAttestation, now: datetime) -> Iterator[Factor]:
    most = security.max_age
    if most is None or isinstance(most, Variable):  # a variable refuses by 7.
        return
    yield judged(
        claims.issued is not None and now - claims.issued <= most,
        factor="security.attestation.max_age",
        found="endorsements without a date" if claims.issued is None else f"endorsements of {_day(claims.issued)}",
        expected=f"endorsements of the last {format_duration(most)}",
        advice="have the platform fetch new endorsements, of AMD's with a revocation list",
    )


def _vouched(service: str | None) -> str:
    return "evidence of the TEE itself" if service is None else f"a token of {service}"


def _qe(entry: bytes | Variable) -> str:
    return shown(entry) if isinstance(entry, Variable) else f"INTEL_QE_ID:{entry.hex()}"
