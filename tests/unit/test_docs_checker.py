"""docs/checker.md says what is so: its rules can be used, its list is one, its ready rules are all there are."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.checker.expression import Expression, Result, judge
from ostiary.checker.listed import verify_list
from ostiary.checker.material import compared
from ostiary.checker.rules import ListSource, parse_rules, ready_rules
from ostiary.session import parse_session

PAGE = (Path(__file__).parents[2] / "docs" / "checker.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
YAML = [text for kind, text in BLOCKS if kind == "yaml"]
RULES, *SESSIONS = YAML


def test_the_rules_of_the_page_can_be_used() -> None:
    rules = parse_rules(RULES)
    assert rules.approves
    assert not rules.warnings
    assert [rule.name for rule in rules.rules] == [
        "no-debug-mode",
        "only-listed-measurements",
        "change-says-why",
        "few-at-a-time",
    ]


def test_the_rules_of_the_page_mean_something() -> None:
    """Over a first version that widens little, with a note and without."""
    rules = parse_rules(RULES).rules[2:]
    session = parse_session('name: app\nversion: "0.3.12"\naccess_policy: {read: [ANY], update: [CREATOR]}\n')
    for note, expected in (("why", Result.HOLDS), ("", Result.FAILS)):
        found = judge(
            [Expression(name=rule.name, must=rule.must) for rule in rules],
            {**compared(None, session), "proposal": {"note": note}},
        )
        assert [one.result for one in found] == [expected, Result.HOLDS]


@pytest.mark.parametrize("text", SESSIONS)
def test_the_sessions_of_the_page_are_sessions(text: str) -> None:
    assert parse_session(text).session.name in ("checker", "app")
    assert len(SESSIONS) == 2


def test_the_list_of_the_page_is_one() -> None:
    [text] = [text for _, text in BLOCKS if text.startswith("ostiary-measurements-v1")]
    key = ed25519.Ed25519PrivateKey.generate()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    from base64 import b64encode

    source = ListSource(name="releases", file="releases.txt", signer=spki)
    data = text.encode()
    values = verify_list(source, data, b64encode(key.sign(data)), now=datetime(2026, 11, 23, tzinfo=UTC))
    assert len(values) == 1


def test_the_page_has_every_ready_rule_in_its_order() -> None:
    table = PAGE.partition("### Ready rules")[2].partition("### Signed lists")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == list(ready_rules())
