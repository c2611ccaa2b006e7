"""`checker`: rules checked, tried on files and printed; and what keeps it from watching."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.simulators.commands import Scone
from tests.simulators.signers import Person, ed25519_person

from ostiary.checker.rules import parse_rules, ready_rules

PERSON = ed25519_person()
M1, M2 = "a1" * 32, "b2" * 32
OLD = 'name: app\nversion: "0.3.12"\naccess_policy: {read: [CREATOR], update: [CREATOR]}\n'
RULES = (
    f"version: 1\nlists:\n- {{name: releases, file: releases.txt, signer: {PERSON.quoted}}}\nrules:\n"
    "- ready: no-debug-mode\n- {ready: only-listed-measurements, list: releases}\n"
    "- {name: mine, must: 'new.secrets.size() == 0', says: no secrets}\n"
)


def signed_list(scone: Scone, *values: str, signer: Person = PERSON, ends_in_days: int = 30) -> None:
    expires = datetime.now(UTC) + timedelta(days=ends_in_days)
    text = f"ostiary-measurements-v1\nname releases\nexpires {expires:%Y-%m-%dT%H:%M:%SZ}\n" + "\n".join(values) + "\n"
    scone.write("releases.txt", text)
    assert isinstance(signer.key, ed25519.Ed25519PrivateKey)
    scone.write("releases.txt.sig", base64.b64encode(signer.key.sign(text.encode())).decode())


def write_key(scone: Scone) -> str:
    pem = PERSON.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return scone.write("key.pem", pem.decode())


def test_rules_that_can_be_used_are_told_with_their_lists(scone: Scone) -> None:
    signed_list(scone, M1, M2)
    scone.write("rules.yaml", RULES)
    shown = scone.good("checker", "--check", "rules.yaml").splitlines()
    assert shown[0].startswith("no-debug-mode: programs in debug mode")
    assert shown[2:] == ["mine: no secrets", "list releases: 2 measurements"]
    members = json.loads(scone.good("checker", "--check", "rules.yaml", "--json"))
    assert members["approve"] is True
    assert [rule["list"] for rule in members["rules"]] == [None, "releases", None]
    assert members["lists"] == [{"name": "releases", "measurements": 2}]


def test_a_rule_without_a_sentence_is_told_by_its_name(scone: Scone) -> None:
    scone.write("rules.yaml", "{version: 1, rules: [{name: a, must: 'true'}]}")
    assert scone.good("checker", "--check", "rules.yaml") == "a\n"


def test_warnings_of_rules_go_to_people(scone: Scone) -> None:
    signed_list(scone, M1)
    scone.write("rules.yaml", RULES.replace("- {ready: only-listed-measurements, list: releases}\n", ""))
    shown = scone("checker", "--check", "rules.yaml")
    assert shown.code == 0
    assert "Warning: rules.yaml: line 3 column 3: lists[0]: no rule uses the list releases" in shown.err


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("version: 1\nrules: [{ready: no-debug}]", "rules file rules.yaml: the rules have 1 mistake"),
        ("rules: []", "rules file rules.yaml: the rules have 2 mistakes"),
        (RULES, "list releases (releases.txt): releases.txt cannot be read: No such file or directory"),
    ],
)
def test_rules_that_cannot_be_used_are_refused_whatever_was_asked(scone: Scone, rules: str, says: str) -> None:
    scone.write("rules.yaml", rules)
    scone.write("new.yml", OLD)
    for words in (
        ("--check", "rules.yaml"),
        ("--explain", "--rules", "rules.yaml", "new.yml"),
        ("--rules", "rules.yaml"),
    ):
        shown = scone("checker", *words)
        assert (shown.code, shown.out) == (1, "")
        assert shown.err.startswith("Error: The checker failed\n")
        assert says in shown.err


def test_a_list_of_somebody_else_is_refused_before_anything_starts(scone: Scone) -> None:
    signed_list(scone, M1, signer=ed25519_person())
    scone.write("rules.yaml", RULES)
    shown = scone("checker", "--rules", "rules.yaml", "--key", write_key(scone), "--cas", "a")
    assert (shown.code, shown.out) == (1, "")
    assert "the signature does not hold" in shown.err


def test_a_list_that_expired_is_refused(scone: Scone) -> None:
    signed_list(scone, M1, ends_in_days=-1)
    scone.write("rules.yaml", RULES)
    assert "ask its signer for a newer one" in scone("checker", "--check", "rules.yaml").err


def test_a_change_that_keeps_the_rules_is_explained_and_approved(scone: Scone) -> None:
    scone.write("rules.yaml", "{version: 1, rules: [{ready: no-debug-mode}, {ready: no-wider-read}]}")
    scone.write("old.yml", OLD)
    scone.write("new.yml", OLD + f"services: [{{name: web, attestation: [{{mrenclave: [{M1}]}}]}}]\n")
    lines = scone.good("checker", "--explain", "--rules", "rules.yaml", "old.yml", "new.yml").splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["holds", "no-debug-mode:"], ["holds", "no-wider-read:"]]
    assert lines[2] == "approve: all rules hold: no-debug-mode, no-wider-read"


def test_a_change_that_breaks_rules_is_explained_and_rejected(scone: Scone) -> None:
    """With the whole error of the expression, which decisions leave out."""
    signed_list(scone, M1)
    scone.write("rules.yaml", RULES)
    scone.write("new.yml", OLD + f"services: [{{name: web, attestation: [{{mrenclave: [{M2}]}}]}}]\n")
    shown = scone("checker", "--explain", "--rules", "rules.yaml", "new.yml")
    assert (shown.code, shown.err) == (1, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("holds      no-debug-mode: ")
    says = "only programs of the signed list may be admitted: admitted and not listed: web sgx mrenclave"
    assert lines[1] == f"fails      only-listed-measurements: {says} {M2}"
    assert lines[2] == 'no result  mine: no secrets: NOT_FOUND: Key not found in map : "secrets"'
    assert lines[3].startswith("reject: rejected by only-listed-measurements: ")
    members = json.loads(scone("checker", "--explain", "--rules", "rules.yaml", "new.yml", "--json").out)
    assert members["decision"] == "reject"
    assert [rule["result"] for rule in members["rules"]] == ["holds", "fails", "no result"]
    assert M2 in members["rules"][1]["detail"]
    assert M2 not in members["reason"], "which everyone may read who may read the proposal"


def test_rules_that_do_not_approve_say_so(scone: Scone) -> None:
    scone.write("rules.yaml", "{version: 1, approve: false, rules: [{ready: no-debug-mode}]}")
    scone.write("new.yml", OLD)
    shown = scone.good("checker", "--explain", "--rules", "rules.yaml", "new.yml")
    assert shown.endswith("not decided: all rules hold: no-debug-mode\n")


def test_a_note_can_be_tried(scone: Scone) -> None:
    scone.write("rules.yaml", "{version: 1, rules: [{name: says-why, must: 'proposal.note != \"\"'}]}")
    scone.write("new.yml", OLD)
    words = ("checker", "--explain", "--rules", "rules.yaml", "new.yml")
    assert scone(*words).code == 1
    assert scone(*words, "--note", "because").code == 0


def test_the_ready_rules_are_printed_and_can_be_used_as_rules_of_ones_own(scone: Scone) -> None:
    text = scone.good("checker", "--ready")
    lists = f"version: 1\nlists:\n- {{name: releases, file: x, signer: {PERSON.quoted}}}\n"
    rules = parse_rules(lists + text.replace("takes_list: true", "list: releases"))
    assert [(rule.name, rule.must) for rule in rules.rules] == [
        (rule.name, rule.must) for rule in ready_rules().values()
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("checker", "no rules are named; give --rules FILE"),
        ("checker --check a --ready", "--check and --ready ask for two things; give one of them"),
        ("checker --explain --ready", "--explain and --ready ask for two things"),
        ("checker --rules rules.yaml old.yml", "session files go with --explain only"),
        ("checker --rules rules.yaml --explain", "--explain takes the session files OLD and NEW, or NEW alone"),
        ("checker --rules rules.yaml --explain a b c", "found 3 arguments beside the options, expected [OLD] [NEW]"),
        ("checker --rules rules.yaml --cas a", "no key is named; give --key KEY"),
    ],
)
def test_wrong_usage_is_told(scone: Scone, words: str, says: str) -> None:
    scone.write("rules.yaml", "{version: 1, rules: [{ready: no-debug-mode}]}")
    shown = scone(*words.split())
    assert (shown.code, shown.out) == (64, "")
    assert says in shown.err


def test_a_cas_that_nothing_is_known_of_is_not_asked(scone: Scone) -> None:
    """There is no way to decide for a service that anybody could be."""
    scone.write("rules.yaml", "{version: 1, rules: [{ready: no-debug-mode}]}")
    shown = scone("checker", "--rules", "rules.yaml", "--key", write_key(scone), "--cas", "a")
    assert (shown.code, shown.out) == (1, "")
    assert "CAS a:8081 was not attested, so nothing says who answers there" in shown.err


def test_a_key_that_is_locked_is_refused_as_nobody_is_there_to_open_it(scone: Scone) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    scone.write("rules.yaml", "{version: 1, rules: [{ready: no-debug-mode}]}")
    locked = PERSON.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    key = scone.write("locked.pem", locked.decode())
    shown = scone("checker", "--rules", "rules.yaml", "--key", key, "--cas", "a")
    assert (shown.code, shown.out) == (1, "")
    assert "a checker has nobody to ask" in shown.err
