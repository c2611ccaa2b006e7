"""Everything there is to say about one session text, gathered while it is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice
from typing import NoReturn

from ostiary.errors import Finding, SessionFormatError
from ostiary.session.node import Located, Path, escape

MAX_FINDINGS = 1000
"""Mistakes reported of one text; the rest is counted."""

MAX_SUGGESTIONS = 50
"""Messages of one text that name what may be meant."""
MAX_COMPARED = 1000
"""Names that a misspelt one is compared with."""

_MAX_QUOTED = 60
_MAX_LISTED = 24
_MIN_BEGINNING = 3
_TEMPLATE_HINT = "; template variable not replaced?"


class Findings:
    """Collects mistakes, warnings and notes. Reading goes on after a mistake, so that all are reported at once."""

    def __init__(self) -> None:
        self._errors: list[Finding] = []
        self._warnings: list[Finding] = []
        self._notes: list[Finding] = []
        self._suggestions = 0

    def error(self, node: Located, message: str, *, path: Path | None = None) -> None:
        """A mistake at `node`; `path` if it is about something that should stand there and does not."""
        self._errors.append(_finding(node, message, path))

    def warning(self, node: Located, message: str, *, path: Path | None = None) -> None:
        self._warnings.append(_finding(node, message, path))

    def note(self, node: Located, message: str, *, path: Path | None = None) -> None:
        self._notes.append(_finding(node, message, path))

    def did_you_mean(self, written: str, known: Collection[str]) -> str:
        """`: did you mean X?` for the nearest of `known`, else the list of them; for the end of a message.

        Comparing takes long, so that only the first MAX_SUGGESTIONS messages of a text have it, and only the first
        MAX_COMPARED names are compared.
        """
        self._suggestions += 1
        if self._suggestions > MAX_SUGGESTIONS:
            return ""
        names = list(islice(known, MAX_COMPARED))
        near = nearest(written, names)
        if near is not None:
            return f": did you mean {near}?"
        rest = ", …" if len(known) > _MAX_LISTED else ""
        return f"; expected one of {', '.join(names[:_MAX_LISTED])}{rest}" if names else ""

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return _in_order(self._warnings)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return _in_order(self._notes)

    def refuse(self, node: Located, message: str) -> NoReturn:
        """A mistake after which nothing more can be read: raise SessionFormatError with all that was found."""
        self.error(node, message)
        raise self._failure()

    def raise_if_any(self) -> None:
        """Raise SessionFormatError with every mistake, in the order of the text."""
        if self._errors:
            raise self._failure()

    def _failure(self) -> SessionFormatError:
        count = len(self._errors)
        findings = _in_order(self._errors)[:MAX_FINDINGS]
        if count > MAX_FINDINGS:
            rest = f"{count - MAX_FINDINGS} more mistakes are not shown; correct these first"
            findings = (*findings, Finding(line=0, column=0, path="", message=rest))
        return SessionFormatError(f"the session has {count} mistake{'s' if count > 1 else ''}", findings)


def quote(text: str) -> str:
    """A piece of the text for a message: in quotes, shortened, control and invisible characters escaped."""
    shown = text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"
    return f'"{escape(shown)}"'


def template_hint(text: str) -> str:
    """What to add to a message about `text` if a client seems to have left a `$NAME` in it."""
    return _TEMPLATE_HINT if "$" in text and "$$" not in text else ""


def nearest(written: str, known: Iterable[str]) -> str | None:
    """The one of `known` that begins with what is written, else the most similar one, else None."""
    names = list(known)
    longer = [name for name in names if len(written) >= _MIN_BEGINNING and name.startswith(written)]
    matches = longer if len(longer) == 1 else get_close_matches(written[:_MAX_QUOTED], names, n=1, cutoff=0.6)
    return matches[0] if matches else None


def _finding(node: Located, message: str, path: Path | None) -> Finding:
    return Finding(line=node.line, column=node.column, path=str(path or node.path), message=message)


def _in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: (finding.line, finding.column)))
