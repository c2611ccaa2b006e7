"""The rules file: what it says, and every mistake in it at once."""

from __future__ import annotations

import contextlib
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.checker import expression
from ostiary.checker.expression import check_expression
from ostiary.checker.rules import MAX_LISTS, MAX_RULES, ListSource, Rule, Rules, parse_rules, ready_rules, ready_text
from ostiary.errors import ConfigurationError, InputError, OstiaryError, TooLargeError
from ostiary.session.access import signer_key

KEY = """|
    -----BEGIN PUBLIC KEY-----
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
    -----END PUBLIC KEY-----"""
LISTS = f"lists:\n- name: releases\n  file: releases.txt\n  signer: {KEY}\n"
FILE = f"""
version: 1
approve: false
{LISTS}
rules:
- ready: no-debug-mode
- ready: only-listed-measurements
  list: releases
- name: change-says-why
  must: proposal.note != ""
  says: a change needs a note
- name: mine
  must: |
    admitted.all(a, a.name == "mrenclave"
      && a.value in listed)
  list: releases
"""


def only(rules: str, lists: str = "") -> Rules:
    return parse_rules(f"version: 1\n{lists}rules:\n{rules}")


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as refused:
        parse_rules(text)
    assert refused.value.message.startswith("the rules have ")
    return refused.value.causes


def test_a_rules_file_says_what_must_be_true_in_its_order() -> None:
    rules = parse_rules(FILE)
    assert [rule.name for rule in rules.rules] == [
        "no-debug-mode",
        "only-listed-measurements",
        "change-says-why",
        "mine",
    ]
    assert [rule.list_name for rule in rules.rules] == [None, "releases", None, "releases"]
    assert rules.rules[2] == Rule(name="change-says-why", must='proposal.note != ""', says="a change needs a note")
    pem = "\n".join(line.strip() for line in KEY.splitlines()[1:])
    assert rules.lists == (ListSource(name="releases", file="releases.txt", signer=signer_key(pem)),)
    assert not rules.approves
    assert not rules.warnings


def test_a_checker_approves_what_keeps_its_rules_unless_the_file_says_otherwise() -> None:
    assert only("- ready: no-debug-mode").approves


def test_a_ready_rule_may_stand_twice_under_two_names() -> None:
    lists = LISTS + f"- name: others\n  file: /etc/others.txt\n  signer: {KEY}\n"
    rules = only(
        "- {ready: only-listed-measurements, list: releases}\n"
        "- {ready: only-listed-measurements, list: others, name: too}",
        lists,
    )
    assert [(rule.name, rule.list_name) for rule in rules.rules] == [
        ("only-listed-measurements", "releases"),
        ("too", "others"),
    ]


def test_a_list_that_no_rule_uses_is_worth_a_warning() -> None:
    [warning] = only("- ready: no-debug-mode", LISTS).warnings
    assert "no rule uses the list releases" in warning.message


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("- ready: no-debugmode", 'rules[0].ready: unknown ready rule "no-debugmode": did you mean no-debug-mode?'),
        ("- ready: ''", "rules[0].ready: unknown ready rule"),
        ("- ready: only-listed-measurements", "needs the list to judge by; add list: NAME"),
        ("- {ready: no-debug-mode, list: releases}", "rules[0].list: no-debug-mode judges by no list; remove list"),
        ("- {ready: no-debug-mode, must: 'true'}", "rules[0].must: a ready rule brings its own must"),
        ("- {ready: no-debug-mode, says: x}", "rules[0].says: a ready rule brings its own says"),
        ("- {name: a, must: nwe == 1}", "rules[0].must: line 1 column 1 of the expression: undeclared reference"),
        ("- {name: a, must: '\"a\" in listed'}", "'listed' (in container ''); `listed` needs list: NAME"),
        ("- {name: a, must: 'listed == []', list: relases}", 'rules[0].list: there is no list "relases"'),
        ("- {name: a, must: ''}", "the expression is empty"),
        ("- {name: a, must: diff}", "gives LIST<MAP<STRING, STRING>>, expected a boolean"),
        ("- {name: a, must: [true]}", "rules[0].must: found a list, expected text"),
        ("- {name: a}", "must is missing; write in CEL what must be true"),
        ("- {must: 'true'}", "name is missing; give the rule a name"),
        ("- {name: 'a b', must: 'true'}", "rules[0].name"),
        ("- {name: a, mst: 'true', must: 'true'}", 'unknown key "mst" in rule: did you mean must?'),
        ("- {name: a, reject_if: 'true'}", 'unknown key "reject_if" in rule'),
        ("- {name: a, must: 'true'}\n- {name: A, must: 'true'}", "the rule on line 3 has the same name"),
        ("- ready: no-debug-mode\n- ready: no-debug-mode", "the rule on line 3 has the same name"),
        ("- no-debug-mode", "expected a mapping with the keys of rule"),
        (f"- {{name: a, must: 'true', says: {'x' * 201}}}", "the sentence has 201 characters, at most 200"),
        (" []", "a checker without rules would approve anything; add one"),
        ("  a: b", "rules: found a mapping, expected a list of rules"),
        ("- {name: a, must: 'true'}\n" * (MAX_RULES + 1), "there are 101 rules, at most 100 are allowed"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rules: str, message: str) -> None:
    found = mistakes(f"version: 1\nrules:\n{rules}")
    assert any(message in one for one in found), found


@pytest.mark.parametrize(("text", "message"), [
    ("", "the document is empty, expected a mapping with at least `version` and `rules`"),
    ("# nothing yet", "the document is empty, expected a mapping with at least `version` and `rules`"),
    ("- ready: no-debug-mode", "the document is not a mapping, expected `version: …` and further keys"),
])  # fmt: skip
def test_who_wrote_no_rules_file_is_told_what_one_has(text: str, message: str) -> None:
    assert any(message in one for one in mistakes(text)), mistakes(text)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", "version is missing; write version: 1"),
        ("version: 2", 'version: found "2", expected a decimal number from 1 to 1'),
        ("version: 1\naprove: true", 'unknown key "aprove" in the rules file: did you mean approve?'),
        ("version: 1\napprove: yes", 'found "yes", expected true or false without quotes; write true'),
        ("version: 1\nlists: x", "expected a list of lists"),
        ("version: 1\nlists:\n- {name: a, file: x}", "signer is missing; write the public key that signs the list"),
        ("version: 1\nlists:\n- {file: x, signer: y}", "name is missing; give the list the name that is written in it"),
        ("version: 1\nlists:\n- {name: a, signer: y}", "file is missing; say where the list is"),
        ("version: 1\nlists:\n- {name: a, file: x, signer: y}", "no public key that can sign lists"),
        ("version: 1\nlists:\n- {name: a, file: x, singer: y}", 'unknown key "singer" in list: did you mean signer?'),
        (f"version: 1\n{LISTS}{LISTS.removeprefix('lists:')}", 'another list is named "releases"'),
        ("version: 1\nlists:\n" + "- {name: a}\n" * (MAX_LISTS + 1), "there are 17 lists, at most 16 are allowed"),
    ],
)
def test_a_file_that_cannot_be_is_refused(head: str, message: str) -> None:
    found = mistakes(f"{head}\nrules:\n- ready: no-debug-mode\n")
    assert any(message in one for one in found), found


def test_a_file_without_rules_is_refused() -> None:
    assert any("a checker without rules would approve anything" in one for one in mistakes("version: 1"))


def test_all_mistakes_are_told_at_once_in_the_order_of_the_text() -> None:
    found = mistakes("version: 3\nrules:\n- ready: x\n- {name: a, must: nwe}\n- {must: 'true'}\n")
    assert [int(one.split()[1]) for one in found] == [1, 3, 4, 5]


def test_what_is_no_yaml_is_refused() -> None:
    assert "not YAML" in mistakes("version: [")[0]


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(TooLargeError):
        parse_rules("#" * 2_000_000)


def test_without_the_cel_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    expression._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    with pytest.raises(ConfigurationError, match=re.escape("install ostiary[checker]")):
        only("- {name: a, must: 'true'}")


def test_every_ready_rule_compiles_and_says_what_it_wants() -> None:
    for rule in ready_rules().values():
        check_expression(rule.must, listed=rule.takes_list)
        assert rule.says
        assert f"- name: {rule.name}" in ready_text()


@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_raises_anything_else(text: str | bytes) -> None:
    with contextlib.suppress(OstiaryError):
        assert parse_rules(text).rules
