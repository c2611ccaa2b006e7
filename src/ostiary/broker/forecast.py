"""Which services would be refused, when, and why: their last evidence under other TCB data, and at a later time.

Deciding is that of a start: the same choice of endorsements, the same verification, the same appraisal, all of them at
the time of the forecast. Only the binding to a connection is not judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ostiary.appraisal import GRACE, appraise, grace_end, refuse_unprovable
from ostiary.broker.admission import Admission, admission_of
from ostiary.broker.cas import Cas
from ostiary.broker.last_evidence import LastEvidence
from ostiary.errors import AppraisalRefusedError, EvidenceFormatError, NotFoundError, RefusedError
from ostiary.evidence.bundle import parse_certificates
from ostiary.evidence.claims import Claims
from ostiary.evidence.endorsements.choice import Chooser, Chosen, Held, Kept
from ostiary.evidence.endorsements.part import Part
from ostiary.evidence.endorsements.piece import Anchors, Endorsement
from ostiary.evidence.intel.quote import parse_signed_quote
from ostiary.evidence.intel.verifier import Verifier as IntelVerifier
from ostiary.evidence.snp.verify import Verifier as SnpVerifier
from ostiary.session.model import Variable


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who speaks for the service of some evidence. Both raise RefusedError, and NotFoundError for one that is gone.

    max_age: how old endorsements may be, as in `Chooser.choose`. admit: returns if these claims are admitted at a time,
    with the end of the grace that they are admitted by, None if they need none.
    """

    max_age: Callable[[LastEvidence], timedelta | None]
    admit: Callable[[LastEvidence, Claims, datetime], datetime | None]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a start with this evidence would come to. status: of the TCB, "" if the evidence could not be verified.

    reasons: why it is refused; none: it is admitted. grace: when the session's grace for its TCB ends, if it rests on
    one.
    """

    status: str
    advisories: tuple[str, ...]
    reasons: tuple[str, ...]
    grace: datetime | None = None

    @property
    def admitted(self) -> bool:
        """The start would succeed."""
        return not self.reasons


@dataclass(frozen=True, kw_only=True)
class End:
    """Something ends at `at`. renewable: the vendor makes new ones, and a service that may ask has them in time."""

    what: str
    at: datetime
    renewable: bool


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """One service on one platform. now: with what is kept. then: with the given data, None if none was given.

    at: the time of the forecast. ends: the first to come first.
    """

    last: LastEvidence
    at: datetime
    now: Verdict
    then: Verdict | None
    ends: tuple[End, ...]

    @property
    def refused_from(self) -> datetime | None:
        """When starts begin to fail if nothing is renewed; `at` if they do already. None: nothing of it ends.

        What the given data changes has no date: it counts from the day on which the service gets it.
        """
        if not self.now.admitted:
            return self.at
        return self.ends[0].at if self.ends else None

    @property
    def would_be_refused(self) -> bool:
        """It is refused now, or with the given data."""
        return not self.now.admitted or (self.then is not None and not self.then.admitted)


def forecast(
    evidence: Iterable[LastEvidence],
    *,
    held: Held,
    given: Iterable[Endorsement],
    anchors: Anchors,
    judge: Judge,
    now: datetime,
) -> tuple[Foreseen, ...]:
    """The future of each piece of evidence. Pure but for `judge`: `now` (aware) is the only clock.

    held: the endorsements that the service has. given: early or future ones, which count in place of the kept
    ones of the same parts, whatever their numbers. Raises nothing: what cannot be verified is refused, and says why.
    """
    later = {one.part: Kept(endorsement=one, origin="vendor") for one in given}
    present = _Eyes(held, anchors, judge, now)
    future = _Eyes(lambda part: later.get(part) or held(part), anchors, judge, now) if later else None
    return tuple(
        Foreseen(
            last=one,
            at=now,
            now=(verdict := present.verdict(one)),
            then=None if future is None else future.verdict(one),
            ends=present.ends(one, verdict),
        )
        for one in evidence
    )


class _Eyes:
    """Verification under one set of endorsements."""

    def __init__(self, held: Held, anchors: Anchors, judge: Judge, now: datetime) -> None:
        self._held = held
        self._chooser = Chooser(anchors, held)
        self._intel = IntelVerifier(anchors.intel)
        self._snp = SnpVerifier(anchors.amd)
        self._judge = judge
        self._now = now

    def verdict(self, last: LastEvidence) -> Verdict:
        status, advisories = "", tuple[str, ...]()
        try:
            chosen = self._choose(last)
            verifier = self._snp if last.tee == "snp" else self._intel
            claims = verifier.verify(last.evidence, chosen.endorsements, now=chosen.at)
            status, advisories = claims.tcb_status, tuple(sorted(claims.advisories))
            grace = self._judge.admit(last, claims, self._now)
        except AppraisalRefusedError as error:
            return Verdict(status=status, advisories=advisories, reasons=tuple(map(str, error.mismatches)))
        except (RefusedError, EvidenceFormatError, NotFoundError) as error:
            return Verdict(status=status, advisories=advisories, reasons=(str(error),))
        return Verdict(status=status, advisories=advisories, reasons=(), grace=grace)

    def ends(self, last: LastEvidence, verdict: Verdict) -> tuple[End, ...]:
        """When endorsements and certificates of the evidence run out, and a grace ends, the first first."""
        try:
            chosen = self._choose(last)
            found = [*self._statements(chosen.parts, self._judge.max_age(last)), *_certificates(last, chosen)]
        except (RefusedError, EvidenceFormatError, NotFoundError):
            return ()
        if verdict.grace is not None:
            found.append(End(what="the grace of the session for this TCB", at=verdict.grace, renewable=False))
        return tuple(sorted(found, key=lambda end: (end.at, end.what)))

    def _choose(self, last: LastEvidence) -> Chosen:
        max_age = self._judge.max_age(last)
        return self._chooser.choose(last.tee, last.evidence, last.sent, now=self._now, max_age=max_age)

    def _statements(self, parts: Iterable[Part], max_age: timedelta | None) -> Iterable[End]:
        for part in parts:
            kept = self._held(part)
            # A revocation list of AMD that has run out refuses nobody.
            if kept is not None and part.is_statement and part.kind != "amd-crl":
                yield End(what=str(part), at=kept.endorsement.last_use(max_age), renewable=True)


def _certificates(last: LastEvidence, chosen: Chosen) -> Iterable[End]:
    """The first certificate of the platform to end."""
    pem = chosen.endorsements if last.tee == "snp" else parse_signed_quote(last.evidence).certification
    ends = [certificate.not_valid_after_utc for certificate in parse_certificates(pem)]
    if ends:
        yield End(what="a certificate of the platform", at=min(ends), renewable=False)


def judge_by_sessions(cas: Cas) -> Judge:
    """The judgement of the sessions as they are now."""

    def admission(last: LastEvidence) -> Admission:
        stored = cas.sessions.require(last.session)
        for service in stored.parsed.session.services:
            if service.name == last.service:
                return admission_of(cas, stored, service).thing
        raise NotFoundError(f"session {last.session} has no service {last.service!r} any more")

    def max_age(last: LastEvidence) -> timedelta | None:
        most = admission(last).security.max_age
        return None if isinstance(most, Variable) else most

    def admit(last: LastEvidence, claims: Claims, now: datetime) -> datetime | None:
        judged = admission(last)
        service, security = judged.service, judged.security
        refuse_unprovable(service, security, singleton_enclaves=judged.singleton_enclaves)
        result = appraise(claims, service, security, binding=claims.report_data, now=now)
        return grace_end(claims, security) if GRACE in result.tolerated else None

    return Judge(max_age=max_age, admit=admit)


def _tolerating_nothing(_last: LastEvidence, claims: Claims, _now: datetime) -> None:
    if claims.tcb_status != "UpToDate":
        raise RefusedError(f"TCB status {claims.tcb_status}, which a session has to tolerate by name")
    if claims.advisories:
        raise RefusedError(f"open to {', '.join(sorted(claims.advisories))}, which a session has to ignore by name")


judge_without_session = Judge(max_age=lambda _: None, admit=_tolerating_nothing)
"""The judgement of a session that tolerates nothing."""
