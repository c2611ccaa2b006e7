"""Agreement with tables of sessions: small ones of our own, and those that others published.

`examples`: small sessions, accepted and refused, each with the place of its mistake or warning. `policies`: sessions
of public repositories, with what the documentation of the language says of them. Most have no licence that lets us
copy them: their cases are there where the files lie beside the project, and a clone alone has none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ostiary.errors import InputError, SessionFormatError
from ostiary.session import parse_session

EXAMPLES = Path(__file__).parents[2] / "vectors" / "session-language" / "examples.yaml"
POLICIES = Path(__file__).parents[4] / "shared" / "policies"


@dataclass(frozen=True, kw_only=True)
class Example:
    text: str
    about: str
    accept: bool
    at: str
    warning: str


def examples() -> list[Example]:
    documents = re.split(r"^---\n", EXAMPLES.read_text(), flags=re.MULTILINE)[1:]
    return [_example(document) for document in documents]


def _example(text: str) -> Example:
    def said(what: str) -> str:
        found = re.search(rf"^# {what}: (.*)$", text, re.MULTILINE)
        return "" if found is None else found[1]

    return Example(
        text=text,
        about=f"{said('feature')}: {said('accept') or said('reject')}",
        accept=bool(said("accept")),
        at=said("at"),
        warning=said("warning"),
    )


@dataclass(frozen=True, kw_only=True)
class Policy:
    file: str
    text: str
    expect: str


def policies() -> list[Policy]:
    """None where they are not."""
    manifest = POLICIES / "MANIFEST.json"
    return [_policy(entry) for entry in json.loads(manifest.read_text())["policies"]] if manifest.is_file() else []


def _policy(entry: dict[str, object]) -> Policy:
    file = str(entry["file"])
    text = (POLICIES / file).read_text()
    wrap, variables = entry.get("wrap"), entry.get("variables")
    if isinstance(wrap, dict):
        text = f"{wrap.get('prepend', '')}{text}{wrap.get('append', '')}"
    if isinstance(variables, dict) and variables:
        names = sorted(variables, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, names)), lambda found: str(variables[found[0]]), text)
    return Policy(file=file, text=text, expect=str(entry["expect"]))


DECIDED = {
    "flask-session-v01.yaml": "accept",  # a missing version is 0.1, with its old keys and a warning (F012)
    "radiomics-v01.yaml": "accept",  # likewise
    "doc-java-v01.yaml": "accept",  # likewise
    "iexec-tee-session-maa.yaml": "accept",  # maa-managed-tcb is missing: a warning, refused at attestation (F195)
    "cosign-policy-2.yaml": "reject",  # the stand-in for the one-time password's secret is no base32 (F200)
    "neardata-keycloak-fragment.yaml": "reject",  # signed, and read is left to CREATOR (F187)
    "vaultinit-envprint.yaml": "reject",  # a placeholder of a secret that is not declared (F135)
    "doc-namespace-create-sessions.yaml": "reject",  # `...` as a subject
    "doc03-governance.yaml": "reject",  # `$voter1` as a signer (F011)
}
"""Where the rules of the language, which are the later word, answer otherwise than the note beside the file."""


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.about)
def test_examples_are_judged_as_they_say(example: Example) -> None:
    if example.accept:
        warnings = {finding.path for finding in parse_session(example.text).warnings}
        assert not example.warning or example.warning in warnings
    else:
        with pytest.raises(SessionFormatError) as caught:
            parse_session(example.text)
        assert example.at in {finding.path for finding in caught.value.findings}


if POLICIES.is_dir():

    @pytest.mark.parametrize("policy", policies(), ids=lambda policy: policy.file)
    def test_public_sessions_are_judged_as_the_documentation_says(policy: Policy) -> None:
        """`unclear` ones only must be answered with a session or a mistake."""
        expect = DECIDED.get(policy.file, policy.expect)
        mistakes, text = "", ""
        try:
            text = parse_session(policy.text).text
        except InputError as error:
            mistakes = str(error)
        assert (mistakes == "") if expect == "accept" else (expect == "unclear" or mistakes), mistakes
        assert mistakes or parse_session(text).text == text
