"""Claims against a session's reference values and tolerances: an AttestationResult, or a refusal that says why."""

from ostiary.appraisal.appraise import GRACE, AttestationResult, admit_unattested, appraise, examine, grace_end
from ostiary.appraisal.demands import refuse_unprovable

__all__ = [
    "GRACE",
    "AttestationResult",
    "admit_unattested",
    "appraise",
    "examine",
    "grace_end",
    "refuse_unprovable",
]
