"""Claims against a session's reference values and tolerances: an AttestationResult, or a refusal that says why."""

from ostiary.appraisal.appraise import AttestationResult, admit_unattested, appraise, examine
from ostiary.appraisal.demands import refuse_unprovable

__all__ = ["AttestationResult", "admit_unattested", "appraise", "examine", "refuse_unprovable"]
