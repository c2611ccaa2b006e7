"""From what came of each rule to a decision. Pure.

Why a rule without a result rejects and does not abstain: a checker that may veto and says nothing lets others approve
without it, so whoever finds a session that a rule stumbles over would have found a way around the rule (docs/adr/0034).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostiary.board import MAX_REASON_CHARS, Choice
from ostiary.checker.expression import Judged, Result
from ostiary.checker.rules import Rules


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to sign. choice: None: nothing, as every rule holds and the rules do not approve. reason: for everyone who
    may read the proposal. fired: the names of the rules that did not hold, in their order.
    """

    choice: Choice | None
    reason: str
    fired: tuple[str, ...] = ()


def decide(rules: Rules, judged: Sequence[Judged]) -> Verdict:
    """APPROVE only if every rule of the file was judged, and holds; REJECT otherwise, with the rules that fired.

    A rule that nobody judged counts as one without a result. No rules at all: REJECT.
    """
    results = {one.name: one for one in judged}
    fired = [
        (rule.name, rule.says, results.get(rule.name))
        for rule in rules.rules
        if rule.name not in results or results[rule.name].result is not Result.HOLDS
    ]
    if fired or not rules.rules:
        told = [_sentence(name, says, one) for name, says, one in fired] or ["there are no rules"]
        return Verdict(choice=Choice.REJECT, reason=_joined("rejected by ", told), fired=tuple(one[0] for one in fired))
    names = [rule.name for rule in rules.rules]
    return Verdict(choice=Choice.APPROVE if rules.approves else None, reason=_joined("all rules hold: ", names, ", "))


def reject_unread(why: str) -> Verdict:
    """For what cannot be shown to the rules at all. why: one sentence."""
    return Verdict(choice=Choice.REJECT, reason=_joined("rejected unread: ", [why]))


def _sentence(name: str, says: str, judged: Judged | None) -> str:
    why = "" if judged is not None and judged.result is Result.FAILS else "it was not judged"
    if judged is not None and judged.result is Result.NO_RESULT:
        why = judged.why
    return ": ".join(part for part in (name, says, why) if part)


def _joined(head: str, parts: Sequence[str], separator: str = "; ") -> str:
    """As many of the parts as MAX_REASON_CHARS allows, and how many there are beside them."""
    kept = list(parts)
    text = head + separator.join(kept)
    while len(text) > MAX_REASON_CHARS and kept:
        kept.pop()
        text = head + separator.join([*kept, f"and {len(parts) - len(kept)} more"])
    return text
