"""The loop: wait for what waits for us, review it, sign, hand it in.

What is undecided the service knows, and each list has all of it, so that a start after any end goes on as if there had
been none. All that is remembered is the last list, what in it the rules leave to others, and what could not be looked
at: that comes last in the next list, so that no proposal keeps the checker from the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from ostiary.board import Choice
from ostiary.board.shown import Proposal, key_hash
from ostiary.checker.confined import judge_confined
from ostiary.checker.decide import Verdict, decide, reject_unread
from ostiary.checker.expression import Expression, Judged, Plain, Result
from ostiary.checker.material import material
from ostiary.checker.rules import Rules
from ostiary.client import Counted, Listed
from ostiary.errors import (
    ConfigurationError,
    ConflictError,
    InputError,
    NotFoundError,
    OstiaryError,
    RefusedError,
    SwappedError,
    UnreadableError,
)
from ostiary.member_key import MemberKey

POLL_SECONDS = 50
"""How long the service may wait before it answers that nothing is new."""
FIRST_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 60.0

Judge = Callable[[Sequence[Expression], Mapping[str, Plain]], tuple[Judged, ...]]
Lists = Callable[[], Mapping[str, "tuple[str, ...] | InputError"]]
"""Each list of the rules: its measurements, or why there are none."""


class Service(Protocol):
    """What the checker asks of a CAS; `ostiary.client.Client` is one."""

    def proposals(
        self, *, waiting_for: bytes | None = None, after: str | None = None, wait_seconds: int = 0
    ) -> Listed: ...
    def proposal(self, proposal: str) -> Proposal: ...
    def decide(self, proposal: Proposal, choice: Choice, *, key: MemberKey, reason: str = "") -> Counted: ...
    def reject_unread(self, proposal: str, *, key: MemberKey, reason: str) -> Counted: ...


@dataclass(frozen=True, kw_only=True)
class Event:
    """What became of one proposal, or of one attempt to ask, for whoever reads the log.

    proposal: its id, "" if it is about none. verdict: what was signed, None if nothing was. told: one sentence.
    """

    told: str
    proposal: str = ""
    session: str = ""
    verdict: Verdict | None = None

    @property
    def is_left(self) -> bool:
        """Whether the rules were asked, and leave it to others."""
        return self.verdict is not None and self.verdict.choice is None


def review(proposal: Proposal, rules: Rules, lists: Lists, *, judge: Judge = judge_confined) -> Verdict:
    """The decision of the rules about one proposal that holds together.

    Guarantees: APPROVE only if every rule holds over exactly what the proposal's id covers, as `Proposal` promises,
    and every list that a rule names holds now. Raises OutsideError if rules cannot be judged at all, and nothing else
    for any session or rule.
    """
    variables = material(proposal.facts, proposal.before, proposal.after)
    return decide(rules, judged(variables, rules, lists, judge=judge))


def judged(
    variables: Mapping[str, Plain], rules: Rules, lists: Lists, *, judge: Judge = judge_confined
) -> tuple[Judged, ...]:
    """What comes of each rule. One whose list does not hold has no result."""
    read = lists()
    usable: list[Expression] = []
    broken: list[Judged] = []
    for rule in rules.rules:
        found = None if rule.list_name is None else read[rule.list_name]
        if isinstance(found, InputError):
            broken.append(Judged(name=rule.name, result=Result.NO_RESULT, why=found.message, detail=str(found)))
        else:
            usable.append(Expression(name=rule.name, must=rule.must, listed=found))
    return (*judge(usable, variables), *broken)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to go on. cursor: of the last list, None if all of it must be looked at.

    left: ids that the rules leave to others, by the lists as they were then. lists: what those were. late: ids that
    could not be looked at, the last one last. trouble: why the turn ended early, "" if it did not.
    """

    cursor: str | None = None
    left: frozenset[str] = frozenset()
    lists: tuple[tuple[str, str], ...] = ()
    late: tuple[str, ...] = ()
    trouble: str = ""

    def behind(self, proposal: str) -> int:
        """Where a proposal stands in a turn: those that could not be looked at come last."""
        return self.late.index(proposal) + 1 if proposal in self.late else 0


@dataclass(frozen=True, kw_only=True)
class Checker:
    """One member of boards. key: its own. say: told of each event."""

    service: Service
    key: MemberKey
    rules: Rules
    lists: Lists
    say: Callable[[Event], None]
    judge: Judge = judge_confined

    def run(self, *, wait: Callable[[float], None] = time.sleep) -> NoReturn:
        """Decide what waits, for ever. Raises ConfigurationError: nothing can be decided before somebody mends that."""
        place = Place()
        pause = FIRST_WAIT_SECONDS
        while True:
            try:
                place = self.turn(place)
            except ConfigurationError:
                raise
            except OstiaryError as error:
                place = Place(late=place.late, trouble=str(error))
            if not place.trouble:
                pause = FIRST_WAIT_SECONDS
                continue
            self.say(Event(told=f"{place.trouble}; trying again in {pause:.0f} s"))
            wait(pause)
            pause = min(2 * pause, MAX_WAIT_SECONDS)

    def turn(self, place: Place) -> Place:
        """Wait for a list that is another than the last, or for POLL_SECONDS, and decide what is in it.

        Raises OutsideError and what else keeps the service from being asked at all; ConfigurationError.
        """
        listed = self.service.proposals(
            waiting_for=key_hash(self.key.spki),
            after=place.cursor,
            wait_seconds=0 if place.cursor is None else POLL_SECONDS,
        )
        waiting = sorted(
            (one for one in listed.proposals if one.state.is_pending), key=lambda one: place.behind(one.proposal)
        )
        # What a list let pass must be looked at again when the list is another, or has expired.
        lists = tuple((name, str(found)) for name, found in sorted(self.lists().items()))
        left = {one.proposal for one in waiting} & place.left if lists == place.lists else set()
        for at, summary in enumerate(waiting):
            if summary.proposal in left:
                continue
            try:
                event = self._decide(summary.proposal, summary.session)
            except ConfigurationError:
                raise
            except OstiaryError as error:
                after = (one.proposal for one in waiting[at + 1 :] if place.behind(one.proposal))
                late = (*after, summary.proposal)
                return Place(
                    left=frozenset(left), lists=lists, late=late, trouble=f"proposal {summary.proposal}: {error}"
                )
            self.say(event)
            if event.is_left:
                left.add(summary.proposal)
        return Place(cursor=listed.cursor, left=frozenset(left), lists=lists)

    def _decide(self, proposal: str, session: str) -> Event:
        """Review one proposal and decide it. What concerns this proposal alone is told; all else raises."""
        verdict: Verdict | None = None
        try:
            try:
                shown = self.service.proposal(proposal)
            except UnreadableError as error:
                verdict = reject_unread(error.message)
                counted = self.service.reject_unread(proposal, key=self.key, reason=verdict.reason)
            else:
                verdict = review(shown, self.rules, self.lists, judge=self.judge)
                if verdict.choice is None:
                    return Event(told="not decided", proposal=proposal, session=session, verdict=verdict)
                counted = self.service.decide(shown, verdict.choice, key=self.key, reason=verdict.reason)
        except SwappedError as error:
            # Loud, and nothing is signed: the service, or somebody in its place, shows what is not so.
            return Event(told=f"not decided: {error}", proposal=proposal, session=session)
        except (ConflictError, NotFoundError) as error:
            return Event(told=f"closed in the meantime: {error}", proposal=proposal, session=session)
        except (RefusedError, InputError) as error:
            return Event(told=f"the decision was refused: {error}", proposal=proposal, session=session)
        return Event(told=f"it is {counted.state.value}", proposal=proposal, session=session, verdict=verdict)
