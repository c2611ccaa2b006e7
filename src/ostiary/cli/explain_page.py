"""A denial as a page for a person: what was tried, what failed, and what would admit the program. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ostiary.appraisal.advice import Advice
from ostiary.appraisal.form import read_advice, read_report
from ostiary.appraisal.patch import Operation, Wisdom
from ostiary.cli.terminal import printable
from ostiary.errors import AppraisalReport, Factor, InputError, Mismatch

COLUMNS = 100

_STAGES = {
    "challenge": "the nonce that the program answered",
    "admission": "the session itself, before anything of the program was looked at",
    "password": "the one-time password",
    "token": "the access token",
    "evidence": "whether the evidence is authentic",
    "appraisal": "what the evidence says, against what the session admits",
    "configuration": "making the configuration of a program that was admitted",
    "file": "rendering a file for a program that was admitted",
    "volume": "taking note of the files of a program that was admitted",
}
_WISE = {
    Wisdom.NEVER: "Never wise",
    Wisdom.FOR_A_TIME: "Wise for a time only",
    Wisdom.AFTER_REVIEW: "Wise after a review only",
}
_BOLD, _RED, _GREEN, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


def page(denial: Mapping[str, Any], *, colours: bool = False) -> str:
    """The page, at most COLUMNS wide where words allow. Nothing of it but the colours can steer a terminal.

    Raises InputError if the denial is not of the documented form.
    """
    try:
        lines = list(_page(denial, _Pen(colours)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("this denial is not of the form that this version knows") from error
    return "\n".join(lines) + "\n"


def summary(denials: tuple[Mapping[str, Any], ...]) -> str:
    """A line for each denial of a list."""
    lines = [
        printable(f"{one.get('id')}  {one.get('time')}  {one.get('service')}  {one.get('stage')}: {one.get('reason')}")
        for one in denials
    ]
    return "".join(f"{line}\n" for line in lines)


class _Pen:
    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def head(self, text: str) -> str:
        return self._in(_BOLD, text)

    def bad(self, text: str) -> str:
        return self._in(_RED, text)

    def good(self, text: str) -> str:
        return self._in(_GREEN, text)

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text


def _page(denial: Mapping[str, Any], pen: _Pen) -> Iterator[str]:
    title = f"Denial {denial['id']}: service {denial['service']} of session {denial['session']} was not started"
    yield pen.head(printable(title))
    times = f", {denial['times']} times until {denial['last_time']}" if denial["times"] > 1 else ""
    yield f"  {printable(denial['time'] + times)}"
    yield f"  session version {printable(denial['session_hash'])}"
    yield ""
    yield pen.head("What was tried")
    yield from _wrapped(_evidence(denial["evidence"]))
    yield ""
    yield pen.head(printable(f"What failed: {_STAGES.get(denial['stage'], denial['stage'])}"))
    if denial["report"] is None:
        for reason in denial["reasons"]:
            yield from _wrapped(reason)
    else:
        yield from _report(read_report(denial["report"]), int(denial["report"]["variants_left_out"]), pen)
    yield ""
    yield from _advice(denial, pen)


def _evidence(evidence: Mapping[str, Any] | None) -> str:
    if evidence is None:
        return "Nothing is known of the program: it brought no evidence that was found authentic."
    identity = ", ".join(f"{name} {value}" for name, value in list(evidence["measurements"].items())[:3])
    facts = [f"{evidence['tee']} evidence: {identity}"]
    facts += [
        f"{label} {evidence[name]}"
        for label, name in (("signer", "signer"), ("product", "product_id"), ("version", "svn"))
        if evidence[name] is not None
    ]
    facts.append(f"TCB {evidence['tcb_status']}")
    facts += [f"{word}: {', '.join(evidence[word])}" for word in ("advisories", "conditions") if evidence[word]]
    if evidence["software"]:
        facts.append("a software platform, which protects nothing")
    elif evidence["debug"]:
        facts.append("debug, open to its host")
    if evidence["attestation_service"]:
        facts.append(f"vouched for by {evidence['attestation_service']}")
    return "; ".join(facts)


def _report(report: AppraisalReport, left_out: int, pen: _Pen) -> Iterator[str]:
    for factor in report.general:
        yield from _factor(factor, pen)
    nearest = report.nearest
    if nearest is None:
        return
    if nearest.mismatches:
        yield f"  Nearest variant, attestation[{nearest.index}]:"
        for factor in nearest.factors:
            yield from _factor(factor, pen)
    else:
        yield f"  {pen.good('holds')}  variant attestation[{nearest.index}], in all its factors"
    others = [variant for variant in report.variants if variant is not nearest]
    for variant in others:
        failing = ", ".join(mismatch.factor for mismatch in variant.mismatches) or "nothing"
        yield from _wrapped(f"Variant attestation[{variant.index}] fails in: {failing}")
    if left_out:
        yield f"  and {left_out} more variants, all of them further away"


def _factor(factor: Factor, pen: _Pen) -> Iterator[str]:
    if not isinstance(factor, Mismatch):
        yield f"  {pen.good('holds')}  {printable(factor.factor)}: {printable(_shortened(factor.found))}"
        return
    yield f"  {pen.bad('FAILS')}  {printable(factor.factor)}"
    yield f"         found    {printable(factor.found)}"
    yield f"         expected {printable(factor.expected)}"


def _advice(denial: Mapping[str, Any], pen: _Pen) -> Iterator[str]:
    if denial["advice"] is None:
        if denial["stage"] in ("challenge", "evidence", "password", "token"):
            yield "No change of the session is advised: what failed is on the program's side, or its host's."
        return
    advice = read_advice(denial["advice"])
    yield pen.head(_what_helps(advice))
    for obstacle in advice.obstacles:
        yield from _wrapped(f"{obstacle}.", first="  - ", rest="    ")
    for number, operation in enumerate(advice.operations, 1):
        yield from _operation(number, operation, pen)
    patch = str(denial["advice"]["patch"])
    if patch:
        yield ""
        yield pen.head("As a patch: what the changed parts of the session are to be")
        yield from (f"  {printable(line)}" for line in patch.splitlines())


def _what_helps(advice: Advice) -> str:
    count = len(advice.operations)
    if not advice.suffices:
        return "No change of this session admits the program" + (
            "; beside what stands in the way it would need" if count else ""
        )
    return f"The smallest change that admits it: {'one operation' if count == 1 else f'{count} operations, all needed'}"


def _operation(number: int, operation: Operation, pen: _Pen) -> Iterator[str]:
    value = operation.value if isinstance(operation.value, str) else json.dumps(operation.value, ensure_ascii=False)
    what = {
        "add": f"add to {operation.path}: {value}",
        "set": f"set {operation.path} to {value}",
        "remove": f"remove {operation.path}",
    }.get(operation.action, f"{operation.action} {operation.path}")
    yield from _wrapped(what, first=f"  {number}. ", rest="     ")
    wise = _WISE[operation.wisdom]
    shown = pen.bad(wise) if operation.wisdom is Wisdom.NEVER else wise
    lines = list(_wrapped(f"{wise}: {operation.why}.", first="     ", rest="     "))
    yield lines[0].replace(wise, shown, 1)
    yield from lines[1:]


def _shortened(text: str) -> str:
    return text if len(text) <= COLUMNS else f"{text[:COLUMNS]}…"


def _wrapped(text: str, *, first: str = "  ", rest: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(
        printable(text),
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
