"""Who may create, read, update or approve a session. Pure."""

from ostiary.board.authorize import Caller, Creator, Operation, Party, admits, authorize
from ostiary.board.count import Choice, Outcome, Quorum, Voter, check_caution, compiled_rule, count, quorum_of
from ostiary.board.decision import MAX_REASON_CHARS, VerifiedDecision, decision_message, verify_decision
from ostiary.board.proposal import MAX_NOTE_CHARS, ProposalFacts
from ostiary.board.risk import Risk, RiskKind, risks

__all__ = [
    "MAX_NOTE_CHARS",
    "MAX_REASON_CHARS",
    "Caller",
    "Choice",
    "Creator",
    "Operation",
    "Outcome",
    "Party",
    "ProposalFacts",
    "Quorum",
    "Risk",
    "RiskKind",
    "VerifiedDecision",
    "Voter",
    "admits",
    "authorize",
    "check_caution",
    "compiled_rule",
    "count",
    "decision_message",
    "quorum_of",
    "risks",
    "verify_decision",
]
