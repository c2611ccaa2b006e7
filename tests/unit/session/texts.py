"""Session texts for tests, and what the parser says about them."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from ostiary.errors import Finding, SessionFormatError
from ostiary.session import ParsedSession, parse_session

A = "a1" * 32
B = "b2" * 32
HEAD = 'name: test\nversion: "0.3.12"\n'


def service(*members: str, name: str = "app") -> str:
    """A session with one admitted service that has these members besides."""
    lines = "".join(f"  {member}\n" for member in members)
    return f"{HEAD}services:\n- name: {name}\n  attestation: {{mrenclave: {A}}}\n{lines}"


def secrets(*texts: str, version: str = "0.3.12") -> str:
    return f'name: test\nversion: "{version}"\nsecrets:\n' + "".join(f"- {text}\n" for text in texts)


def quoted(text: str) -> str:
    """`text` as a YAML double-quoted scalar."""
    return json.dumps(text)


def mistakes(text: str | bytes) -> tuple[Finding, ...]:
    with pytest.raises(SessionFormatError) as caught:
        parse_session(text)
    return caught.value.findings


def mistake(text: str | bytes, path: str) -> str:
    """The one mistake of `text`, which is at `path`."""
    found = mistakes(text)
    assert [finding.path for finding in found] == [path], [str(finding) for finding in found]
    return found[0].message


def warning(text: str, path: str) -> str:
    return _only(parse_session(text).warnings, path)


def note(text: str, path: str) -> str:
    return _only((note for note in parse_session(text).notes if note.path == path), path)


def quiet(text: str) -> ParsedSession:
    """The session of a text that is accepted without a warning."""
    parsed = parse_session(text)
    assert not parsed.warnings, [str(finding) for finding in parsed.warnings]
    return parsed


def _only(findings: Iterable[Finding], path: str) -> str:
    found = list(findings)
    assert [finding.path for finding in found] == [path], [str(finding) for finding in found]
    return found[0].message
