"""The ready rules, each over changes that it lets pass and changes that it stops."""

from __future__ import annotations

import json

import pytest

from ostiary.checker.expression import Expression, Judged, Result, judge
from ostiary.checker.material import compared
from ostiary.checker.rules import ready_rules
from ostiary.cli.identity import make_identity, parse_identity
from ostiary.session import ParsedSession, parse_session
from ostiary.session.base58 import encode_key_hash

M1, M2 = "a1" * 32, "b2" * 32
PUBLIC = """|
      -----BEGIN PUBLIC KEY-----
      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
      -----END PUBLIC KEY-----"""
PRIVATE = json.dumps(
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
    "-----END PRIVATE KEY-----\n"
)
OTHER = PUBLIC.replace("Gb9E", "Ag9E")


def session(body: str) -> ParsedSession:
    return parse_session(f'name: app\nversion: "0.3.12"\n{body}')


def judged(name: str, before: str | None, after: str) -> Judged:
    old = None if before is None else session(before)
    rule = ready_rules()[name]
    expression = Expression(name=name, must=rule.must, listed=(M1,) if rule.takes_list else None)
    [one] = judge([expression], {**compared(old, session(after)), "proposal": {}})
    return one


def result(name: str, before: str | None, after: str) -> Result:
    return judged(name, before, after).result


def security(attestation: str) -> str:
    return (
        f"security: {{attestation: {attestation}}}\nsecrets: [{{name: v, kind: config-fragment, value: [debug-mode]}}]"
    )


def service(attestation: str) -> str:
    return f"services: [{{name: web, attestation: {attestation}}}]"


def secret(text: str) -> str:
    return f"secrets: [{text}]"


def access(text: str) -> str:
    return f"access_policy: {{{text}, update: [CREATOR]}}\nsecrets: [{{name: v, kind: ascii, value: ANY}}]"


def board(faults: int = 1, signer: str = PUBLIC, extra: str = "", secrets: str = "") -> str:
    return (
        f"policy_board:\n  tolerated_faults: {faults}\n  decide_within: 7d\n{extra}  members:\n"
        f"  - name: alice\n    signer: {signer}\n  - name: bob\n    signer: {OTHER}\n"
        f"  - name: checker\n    signer: $$SCONE::checker$$\n    power: reject\n"
        f"secrets:\n- {{name: other, kind: ascii, value: x}}\n- {{name: checker-key, kind: private-key{secrets}}}\n"
        "- {name: checker, kind: public-key, private_key: checker-key}\n"
    )


CREATORS = [json.dumps(parse_identity(make_identity(), "identity").certificate) for _ in range(2)]


def created(by: int, read: str = "CREATOR") -> str:
    return f"access_policy: {{read: [{read}], update: [CREATOR]}}\ncreator: {CREATORS[by]}\n"


def placed(platforms: str) -> str:
    return f"services: [{{name: web, attestation: [{{mrenclave: [{M1}]}}]{platforms}}}]"


HASH, HASH2 = encode_key_hash(bytes(32)), encode_key_hash(bytes(31) + b"\1")

HOLD: list[tuple[str, str | None, str]] = [
    ("no-debug-mode", None, ""),
    ("no-debug-mode", None, security("{mode: hardware}")),
    ("no-debug-mode", None, security("{tolerate: [outdated-tcb, hyperthreading]}")),
    ("no-debug-mode", security("{tolerate: [debug-mode]}"), security("{tolerate: []}")),
    ("evidence-required", None, service(f"[{{mrenclave: [{M2}]}}]")),
    ("evidence-required", None, "services: []"),
    ("only-listed-measurements", None, service(f"[{{mrenclave: [{M1}]}}]")),
    ("only-listed-measurements", None, service(f"[{{signer: {{mrsigner: {M1}, isvprodid: 0, isvsvn: 0}}}}]")),
    ("only-listed-measurements", service(f"[{{mrenclave: [{M2}]}}]"), service(f"[{{mrenclave: [{M1}]}}]")),
    ("no-public-private-keys", None, ""),
    ("no-public-private-keys", None, secret("{name: k, kind: private-key}")),
    ("no-public-private-keys", None, secret("{name: k, kind: private-key, export: [{session: other}]}")),
    (
        "no-public-private-keys",
        None,
        secret("{name: k, kind: x509-ca, export_public: true, private_key: p}, {name: p, kind: private-key}"),
    ),
    ("no-public-private-keys", None, secret("{name: k, kind: private-key, export_public: false}")),
    ("no-wider-read", None, access("read: [CREATOR]")),
    ("no-wider-read", access("read: [ANY]"), access("read: [CREATOR]")),
    ("no-wider-read", access(f"read: [{HASH}]"), access(f"read: [{HASH}]") + "\nimages: [{name: more}]"),
    ("no-wider-read", access("read: [CREATOR]"), access("read: [CREATOR]").replace("[CREATOR]}", "[ANY]}")),
    ("no-wider-read", created(0), created(0) + "images: [{name: more}]"),
    ("no-wider-read", created(0, HASH), created(1, HASH)),
    ("tcb-not-weakened", placed(""), placed(f", platforms: [INTEL_QE_ID:{'ab' * 16}]")),
    ("tcb-not-weakened", None, ""),
    ("tcb-not-weakened", None, security("{mode: hardware}")),
    ("tcb-not-weakened", security("{tolerate: [debug-mode]}"), security("{tolerate: [debug-mode]}")),
    ("tcb-not-weakened", security("{tolerate: [outdated-tcb]}"), security("{mode: hardware}")),
    ("tcb-not-weakened", security("{mode: none}"), security("{mode: hardware}")),
    ("board-not-weakened", None, board()),
    ("board-not-weakened", "", board()),
    ("board-not-weakened", board(0), board(1)),
    ("board-not-weakened", board(), board().replace("value: x", "value: y")),
]

STOP: list[tuple[str, str | None, str]] = [
    ("no-debug-mode", None, security("{tolerate: [debug-mode]}")),
    ("no-debug-mode", security("{tolerate: [debug-mode]}"), security("{tolerate: [debug-mode]}")),
    ("no-debug-mode", None, security("{tolerate: [hyperthreading, software-platform]}")),
    ("no-debug-mode", None, security("{mode: none}")),
    ("no-debug-mode", None, security("{tolerate: [$$SCONE::v$$]}")),
    ("no-debug-mode", None, security("{tolerate: $$SCONE::v$$}")),
    ("no-debug-mode", None, security("{mode: $$SCONE::v$$}")),
    ("no-debug-mode", None, security("$$SCONE::v$$")),
    ("no-debug-mode", None, "security: $$SCONE::v$$\nsecrets: [{name: v, kind: config-fragment, value: {}}]"),
    ("evidence-required", None, "services: [{name: web}]\n" + security("{mode: none}")),
    ("evidence-required", None, service(f"[{{mrenclave: [{M1}]}}]") + "\n" + security("{mode: none}")),
    ("evidence-required", None, service(f"[{{mrenclave: [{M1}]}}]") + "\n" + security("{mode: $$SCONE::v$$}")),
    ("only-listed-measurements", None, service(f"[{{mrenclave: [{M2}]}}]")),
    ("only-listed-measurements", None, service(f"[{{mrenclave: [{M1}, {M2}]}}]")),
    ("only-listed-measurements", None, service(f"[{{mrenclave: [{M1}]}}, {{nitro: {{pcr0: {'cc' * 48}}}}}]")),
    ("only-listed-measurements", None, service(f"[{{mrenclave: [{M1}]}}]") + "\n" + security("{mode: none}")),
    (
        "only-listed-measurements",
        None,
        service("[{mrenclave: [$$SCONE::v$$]}]") + f"\nsecrets: [{{name: v, kind: ascii, value: {M1}}}]",
    ),
    ("no-public-private-keys", None, secret("{name: k, kind: private-key, export_public: true}")),
    (
        "no-public-private-keys",
        None,
        secret("{name: a, kind: ascii}, {name: k, kind: private-key, export_public: true}"),
    ),
    ("no-public-private-keys", None, secret("{name: k, import: {session: x, secret: y}, export_public: true}")),
    (
        "no-public-private-keys",
        None,
        secret("{name: k, kind: private-key, import: {session: x, secret: y}, export_public: true}"),
    ),
    ("no-wider-read", None, access("read: [ANY]")),
    ("no-wider-read", None, access("read: [CREATOR], list_sessions: [ANY]")),
    ("no-wider-read", None, access("read: [$$SCONE::v$$]")),
    ("no-wider-read", access("read: [$$SCONE::v$$]"), access("read: [$$SCONE::v$$]")),
    ("no-wider-read", access("read: [CREATOR]"), access("read: [ANY]")),
    ("no-wider-read", access(f"read: [{HASH}]"), access(f"read: [{HASH}, {HASH2}]")),
    (
        "no-wider-read",
        access("read: [CREATOR], list_sessions: [NONE]"),
        access("read: [CREATOR], list_sessions: [ANY]"),
    ),
    ("no-wider-read", created(0), created(1)),
    ("no-wider-read", created(0, HASH), created(1, HASH).replace("update:", "list_sessions: [CREATOR], update:")),
    ("tcb-not-weakened", placed(f", platforms: [INTEL_QE_ID:{'ab' * 16}]"), placed("")),
    ("tcb-not-weakened", None, security("{tolerate: [outdated-tcb]}")),
    ("tcb-not-weakened", None, security("{ignore_advisories: [INTEL-SA-00615]}")),
    ("tcb-not-weakened", None, security("{tcb: {grace: 30d}}")),
    ("tcb-not-weakened", None, security("{mode: none}")),
    ("tcb-not-weakened", None, security("{tolerate: [$$SCONE::v$$]}")),
    ("tcb-not-weakened", "", security("{tolerate: [outdated-tcb]}")),
    ("tcb-not-weakened", "", security("{ignore_advisories: ['*']}")),
    ("tcb-not-weakened", "", security("{mode: none}")),
    ("tcb-not-weakened", security("{tcb: {grace: 1d}}"), security("{tcb: {grace: 30d}}")),
    (
        "tcb-not-weakened",
        security("{mode: maa, url: 'https://ours.example'}"),
        security("{mode: maa, url: 'https://theirs.example'}"),
    ),
    ("tcb-not-weakened", security("{tolerate: [$$SCONE::v$$]}"), security("{tolerate: [$$SCONE::v$$]}")),
    ("board-not-weakened", board(), ""),
    ("board-not-weakened", board(1), board(0)),
    ("board-not-weakened", board(), board().replace("    power: reject\n", "")),
    ("board-not-weakened", board(extra="  time_lock: 1d\n"), board()),
    (
        "board-not-weakened",
        board(),
        board(secrets=f", value: {PRIVATE}"),
    ),
]


@pytest.mark.parametrize(("name", "before", "after"), HOLD)
def test_a_ready_rule_lets_pass_what_is_harmless(name: str, before: str | None, after: str) -> None:
    assert result(name, before, after) is Result.HOLDS


@pytest.mark.parametrize(("name", "before", "after"), STOP)
def test_a_ready_rule_stops_what_it_is_for(name: str, before: str | None, after: str) -> None:
    """A variable may be of a type that the expression stumbles over, which stops it, too."""
    stopped = (Result.FAILS, Result.NO_RESULT) if "$$SCONE::v$$" in after else (Result.FAILS,)
    assert result(name, before, after) in stopped


def test_a_measurement_that_is_not_listed_is_named() -> None:
    text = f"services: [{{name: web, attestation: [{{mrenclave: [{M1}, {M2}]}}, {{nitro: {{pcr0: {'cc' * 48}}}}}]}}]"
    found = judged("only-listed-measurements", None, text)
    assert (found.result, found.why) == (Result.FAILS, "")
    assert found.detail == f"admitted and not listed: web sgx mrenclave {M2}; web nitro pcr0 {'cc' * 48}"
    assert judged("only-listed-measurements", None, service(f"[{{mrenclave: [{M1}]}}]")).detail == ""


def test_every_ready_rule_has_changes_that_it_stops_and_changes_that_it_lets_pass() -> None:
    assert {name for name, _, _ in HOLD} == {name for name, _, _ in STOP} == set(ready_rules())
