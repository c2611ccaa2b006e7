"""The policy board in a session's text: what it says, what is refused where and why, and its normal form."""

# ruff: noqa: E501, RUF001 - a row of a table is a line; some names are Cyrillic on purpose

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from ruamel.yaml import YAML
from tests.unit.session import pki
from tests.unit.session.texts import mistake, mistakes, quiet, quoted

from ostiary.session import (
    AccessPolicy,
    AnySubject,
    BoardMember,
    CreatorSubject,
    NoneSubject,
    ParsedSession,
    PolicyBoard,
    Session,
    SignerSubject,
    Variable,
    language,
    names_creator,
    parse_session,
)
from ostiary.session.diff import differences
from ostiary.session.normal import canonical_json
from ostiary.session.placeholder import Placeholder
from ostiary.session.policy_board import MAX_MEMBERS, MAX_URL_CHARACTERS, MAX_WEBHOOKS
from ostiary.session.schema import schema

K1 = "MV3se6FuJ4oST18KpRhQMG9Hzk6gKCUbF2EhGQrEjLsoPpDRma"
K2 = "MqGVR786CZmPNsYpaM9pCtdbELzPzbeKG6BRddZBeBpnKyf4Wq"
K3 = "Lvu4BBphbNWtRHivuYsLwPjShQCGiWpGyCFr3vW3gCGweB77to"
K4 = "LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM"
K4_PEM = (
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAOsufQ7RCOXueVLQBpk7Y44GAaj+LzPbmHfdr/TPdlrE=\n"
    "-----END PUBLIC KEY-----\n"
)
K4_SPKI = bytes.fromhex("302a300506032b65700321003acb9f43b442397b9e54b401a64ed8e381806a3f8bccf6e61df76bfd33dd96b1")
HEAD = 'name: test\nversion: "0.3.12"\n'
FAULTS = "policy_board.tolerated_faults"
CREATOR = CreatorSubject()


def member(name: str, signer: str, power: str = "") -> str:
    return f"{{name: {name}, signer: {signer}{f', power: {power}' if power else ''}}}"


ALICE, BOB, CAROL = member("alice", K1), member("bob", K2), member("carol", K3)


def board(*members: str, faults: str = "1", more: str = "", rest: str = "") -> str:
    """A session whose board has these members, by default three. The first of them stands on line 6."""
    listed = "".join(f"  - {one}\n" for one in members or (ALICE, BOB, CAROL))
    last = f"  {more}\n" if more else ""
    return f"{HEAD}policy_board:\n  tolerated_faults: {faults}\n  members:\n{listed}{last}{rest}"


def read(text: str) -> PolicyBoard:
    found = parse_session(text).session.policy_board
    assert found is not None
    return found


def one(text: str) -> BoardMember:
    """The first member, whose key is tried out."""
    return read(text).members[0]


# --- what it says ----------------------------------------------------------------------------------------------------


def test_a_board_says_who_decides_how_many_and_how_long() -> None:
    parsed = quiet(f"""\
{HEAD}policy_board:
  tolerated_faults: 1
  members:
  - {ALICE}
  - {{name: bob, signer: {quoted(K4_PEM)}, power: vote}}
  - {{name: checker, signer: {K3}, power: reject}}
  decide_within: 3 days
  time_lock: 90 min
  on: [create_sessions, update]
  break_glass: 3
  notify: https://hooks.example:8443/ostiary?team=1
""")
    assert parsed.session.policy_board == PolicyBoard(
        tolerated_faults=1,
        members=(
            read(board()).members[0],
            BoardMember(name="bob", signer=SignerSubject(spki=K4_SPKI)),
            BoardMember(name="checker", signer=read(board()).members[2].signer, may_reject=True),
        ),
        decide_within=timedelta(days=3),
        time_lock=timedelta(minutes=90),
        on=frozenset({"update", "create_sessions"}),
        break_glass=3,
        notify=("https://hooks.example:8443/ostiary?team=1",),
    )


def test_what_a_board_leaves_out_is_the_cautious_default() -> None:
    found = read(board())
    assert (found.decide_within, found.time_lock, found.on) == (timedelta(days=7), timedelta(0), frozenset({"update"}))
    assert (found.break_glass, found.notify) == (None, ())
    assert not any(one.may_approve or one.may_reject for one in found.members)


@pytest.mark.parametrize("kind", ["Ed25519", "P-384", "P-256"])
def test_a_member_may_have_a_key_of_each_of_these_types(kind: str) -> None:
    key = pki.private_key(kind)
    found = one(board(member("a", quoted(pki.public_pem(key))), BOB))
    assert found.signer == SignerSubject(spki=pki.spki(key))


@pytest.mark.parametrize(
    ("power", "may_approve", "may_reject"),
    [
        ("vote", False, False),
        ("[vote]", False, False),
        ("approve", True, False),
        ("reject", False, True),
        ("[reject]", False, True),
        ("[approve, reject]", True, True),
        ("[reject, approve]", True, True),
    ],
)
def test_a_power_is_what_a_member_may_do_alone(power: str, may_approve: bool, may_reject: bool) -> None:
    found = one(board(member("a", K1, power), BOB))
    assert (found.may_approve, found.may_reject) == (may_approve, may_reject)


def test_names_that_differ_to_the_eye_are_different_names() -> None:
    names = ("ida", "lda", "all", "ali", "a-b", "a_b", "m10", "m01")
    keys = [quoted(pki.public_pem(Ed25519PrivateKey.generate())) for _ in names]
    quiet(board(*map(member, names, keys)))


# --- who decides -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "policy", "expected", "update", "create"),
    [
        ("", "", AccessPolicy(update=(NoneSubject(),)), True, True),
        ("", "read: ANY", AccessPolicy(read=(AnySubject(),), update=(NoneSubject(),)), True, True),
        ("on: [update, delete]", "", AccessPolicy(update=(NoneSubject(),)), True, True),
        (
            "",
            "create_sessions: CREATOR",
            AccessPolicy(update=(NoneSubject(),), create_sessions=(CREATOR,)),
            True,
            False,
        ),
        (
            "on: [update, create_sessions]",
            "",
            AccessPolicy(update=(NoneSubject(),), create_sessions=(NoneSubject(),)),
            True,
            True,
        ),
        ("on: create_sessions", "", AccessPolicy(create_sessions=(NoneSubject(),)), False, True),
        (
            "on: create_sessions",
            "update: CREATOR",
            AccessPolicy(update=(CREATOR,), create_sessions=(NoneSubject(),)),
            False,
            True,
        ),
    ],
)
def test_what_the_board_decides_the_access_policy_admits_nobody_to(
    on: str,
    policy: str,
    expected: AccessPolicy,
    update: bool,
    create: bool,
) -> None:
    """Whoever looks at the access policy alone must find nobody: only a counted proposal gets past."""
    parsed = parse_session(board(more=on, rest=f"access_policy: {{{policy}}}\n"))
    assert parsed.session.access_policy == expected
    assert parsed.session.board_decides("update") is update
    assert parsed.session.board_decides("create_sessions") is create
    written = parsed.normal["access_policy"]
    assert isinstance(written, dict)
    assert ("update" in written) is not update
    assert parsed.notes == () or "never deleted" in parsed.notes[0].message


def test_without_a_board_nothing_changes() -> None:
    session = parse_session(HEAD).session
    assert session.policy_board is None
    assert session.access_policy == AccessPolicy()
    assert not session.board_decides("update")
    assert not session.board_decides("create_sessions")


@pytest.mark.parametrize(("policy", "expected"), [("", True), ("read: ANY", False), ("read: [CREATOR]", True)])
def test_the_creator_is_recorded_only_where_somebody_asks_for_it(policy: str, expected: bool) -> None:
    parsed = parse_session(board(rest=f"access_policy: {{{policy}}}\n"))
    assert parsed.names_creator is expected
    assert names_creator(parsed.session.access_policy) is expected


# --- what is refused -------------------------------------------------------------------------------------------------

UNREACHABLE = "members must approve, one more than tolerated_faults, and there are"
AROUND = (
    "the policy board decides {0}, and this would be a way around it; remove it, or take {0} out of policy_board.on"
)
KEYS = "expected a key of type Ed25519, P-384 or P-256, found"
WRITE_PEM = "write the PEM that `ostiary board key --key …` prints"
RSA, P521 = (quoted(pki.public_pem(pki.private_key(kind))) for kind in ("RSA-2048", "P-521"))
URL = "expected https://host/path without user, password or fragment"

REFUSED: list[tuple[str, str, str]] = [
    # how many
    (board(faults="3"), "4:21", f"{FAULTS}: 4 {UNREACHABLE} 3; add members, or tolerate fewer faults"),
    (board(ALICE), "4:21", f"{FAULTS}: 2 {UNREACHABLE} 1; add members, or tolerate fewer faults"),
    (board(faults="-1"), "4:21", f'{FAULTS}: found "-1", expected a decimal number from 0 to 63'),
    (board(faults='"1"'), "4:21", f'{FAULTS}: found "1", expected a decimal number from 0 to 63'),
    (board(faults="64"), "4:21", f'{FAULTS}: found "64", expected a decimal number from 0 to 63'),
    (board(faults=""), "4:3", f"{FAULTS}: tolerated_faults is missing; say how many members may be away or dishonest, such as 1"),
    (board(more="break_glass: 2"), "9:16", 'policy_board.break_glass: found "2", expected a decimal number from 3 to 3'),
    (board(more="break_glass: 4"), "9:16", 'policy_board.break_glass: found "4", expected a decimal number from 3 to 3'),
    (board(more="break_glass: all"), "9:16",
     'policy_board.break_glass: found "all", expected a decimal number from 3 to 3'),
    (board(faults="2", more="break_glass: 3"), "9:16", "policy_board.break_glass: break_glass takes more than the 3 approvals that suffice anyway, and the board has 3 members; leave it out"),
    # members
    (f"{HEAD}policy_board: {{tolerated_faults: 0}}", "3:15",
     "policy_board.members: members is missing; name at least one member and its key"),
    (f"{HEAD}policy_board: {{tolerated_faults: 0, members: []}}", "3:46",
     "policy_board.members: found 0 members, expected 1 to 64"),
    (board(*(member(f"m{number:02}", quoted(pki.public_pem(Ed25519PrivateKey.generate()))) for number in range(MAX_MEMBERS + 1))),
     "6:3", "policy_board.members: found 65 members, expected 1 to 64"),
    (f"{HEAD}policy_board: {{tolerated_faults: 0, members: {ALICE}}}", "3:46",
     "policy_board.members: found a mapping, expected a list of members"),
    (board(ALICE, BOB, "dave"), "8:5",
     'policy_board.members[2]: found "dave", expected a mapping with the keys of board member'),
    (board(ALICE, BOB, f"{{signer: {K3}}}"), "8:5",
     "policy_board.members[2].name: name is missing; people choose members by it"),
    (board(ALICE, BOB, "{name: dave}"), "8:5",
     "policy_board.members[2].signer: signer is missing; give the public key that the member decides with"),
    (board(ALICE, BOB, f"{{name: dave, signer: {K3}, weight: 2}}"), "8:78",
     'policy_board.members[2].weight: unknown key "weight" in board member; expected one of name, signer, power'),
    # names
    (board(ALICE, BOB, member("alice", K3)), "8:12",
     'policy_board.members[2].name: "alice" is the name of the member on line 6; give it another'),
    (board(ALICE, BOB, member("Alice", K3)), "8:12",
     'policy_board.members[2].name: "Alice" looks like the name of the member on line 6; give it another'),
    (board(member("al", K1), member("a1", K2)), "7:12",
     'policy_board.members[1].name: "a1" looks like the name of the member on line 6; give it another'),
    (board(member("bIll", K1), member("blll", K2)), "7:12",
     'policy_board.members[1].name: "blll" looks like the name of the member on line 6; give it another'),
    (board(member("AL1", K1), member("all", K2)), "7:12",
     'policy_board.members[1].name: "all" looks like the name of the member on line 6; give it another'),
    (board(member("b0b", K1), BOB), "7:12",
     'policy_board.members[1].name: "bob" looks like the name of the member on line 6; give it another'),
    (board(ALICE, member("аlice", K2)), "7:12",
     'policy_board.members[1].name: found "аlice" with the character "а", expected a name out of A-Z a-z 0-9 _ - . ~'),
    (board(ALICE, member("team/bob", K2)), "7:12", 'policy_board.members[1].name: found "team/bob" with the character "/", expected a name out of A-Z a-z 0-9 _ - . ~'),
    # keys
    (board(ALICE, member("bob", K1)), "7:25", 'policy_board.members[1].signer: "bob" has the key of "alice" on line 6, and a key counts once; remove one'),
    (board(member("a", K4), member("b", quoted(K4_PEM))), "7:23", 'policy_board.members[1].signer: "b" has the key of "a" on line 6, and a key counts once; remove one'),
    (board(ALICE, member("bob", RSA)), "7:25",
     f"policy_board.members[1].signer: no public key of a member: {KEYS} RSA-2048"),
    (board(ALICE, member("bob", P521)), "7:25",
     f"policy_board.members[1].signer: no public key of a member: {KEYS} P-521"),
    (board(ALICE, member("bob", quoted(pki.certificate_pem()))), "7:25", "policy_board.members[1].signer: no public key of a member: expected one PEM block PUBLIC KEY (SubjectPublicKeyInfo), found CERTIFICATE"),
    (board(ALICE, member("bob", f"{K2}x")), "7:25",
     f'policy_board.members[1].signer: found "{K2}x": no public key of a member: it holds 38 bytes, expected 37'),
    (board(ALICE, member("bob", "$BOB_KEY")), "7:25", 'policy_board.members[1].signer: found "$BOB_KEY": no public key of a member: it is not base58check; template variable not replaced?'),
    (board(ALICE, member("bob", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb bob@laptop")), "7:25", f'policy_board.members[1].signer: found "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb bob@laptop": no public key of a member: it is in OpenSSH\'s form; {WRITE_PEM}'),
    (board(ALICE, member("bob", "bob-pub.pem")), "7:25", f'policy_board.members[1].signer: found "bob-pub.pem": no public key of a member: it looks like the name of a file, and no file is read; {WRITE_PEM}'),
    (board(ALICE, member("bob", "~/keys/bob")), "7:25", f'policy_board.members[1].signer: found "~/keys/bob": no public key of a member: it looks like the name of a file, and no file is read; {WRITE_PEM}'),
    (board(ALICE, member("bob", "[a]")), "7:25", "policy_board.members[1].signer: found a list, expected text"),
    (board(ALICE, member("bob", '""')), "7:25",
     'policy_board.members[1].signer: found "": no public key of a member: it is not base58check'),
    (board(ALICE, member("bob", '"-----BEGN PUBLIC KEY-----"')), "7:25",
     'policy_board.members[1].signer: found "-----BEGN PUBLIC KEY-----": no public key of a member: it does not begin with the line -----BEGIN PUBLIC KEY-----'),
    # powers
    (board(ALICE, member("bob", K2, "veto")), "7:84",
     'policy_board.members[1].power: unknown power "veto"; expected one of vote, approve, reject'),
    (board(ALICE, member("bob", K2, "[approve, aprove]")), "7:94",
     'policy_board.members[1].power[1]: unknown power "aprove": did you mean approve?'),
    (board(ALICE, member("bob", K2, "[vote, reject]")), "7:85",
     "policy_board.members[1].power[0]: every member votes; remove vote"),
    (board(ALICE, member("bob", K2, "[reject, reject]")), "7:93",
     "policy_board.members[1].power[1]: reject stands twice; remove one"),
    (board(ALICE, member("bob", K2, "[]")), "7:84",
     "policy_board.members[1].power: an empty list of powers; write vote, or leave power out"),
    (board(ALICE, member("bob", K2, "~")), "7:84", "policy_board.members[1].power: found nothing, expected text"),
    # operations
    (board(more="on: [udpate]"), "9:8", 'policy_board.on[0]: unknown operation "udpate": did you mean update?'),
    (board(more="on: [update, update]"), "9:16", "policy_board.on[1]: update stands twice; remove one"),
    (board(more="on: read"), "9:7",
     'policy_board.on: unknown operation "read"; expected one of update, create_sessions, delete'),
    (board(more="on: []"), "9:7",
     "policy_board.on: the board would decide nothing; write update, or leave policy_board out"),
    (board(more="on: delete"), "9:7",
     "policy_board.on: the board would decide nothing; write update, or leave policy_board out"),
    # periods
    (board(more="decide_within: 59s"), "9:18", 'policy_board.decide_within: found "59s", expected 1m to 366 days'),
    (board(more="decide_within: 367 days"), "9:18",
     'policy_board.decide_within: found "367 days", expected 1m to 366 days'),
    (board(more="decide_within: soon"), "9:18", 'policy_board.decide_within: found "soon": expected one or more numbers with a unit, such as 90 days or 1year 6months'),
    (board(more="time_lock: 0s"), "9:14",
     'policy_board.time_lock: found "0s": expected more than zero and at most 100 years'),
    (board(more="time_lock: 2 years"), "9:14", 'policy_board.time_lock: found "2 years", expected 1s to 366 days'),
    (board(more="time_lock: $WAIT"), "9:14", 'policy_board.time_lock: found "$WAIT": expected one or more numbers with a unit, such as 90 days or 1year 6months; template variable not replaced?'),
    (board(more="time_lock: ~"), "9:14", "policy_board.time_lock: found nothing, expected text"),
    (board(more="on: ~"), "9:7", "policy_board.on: found nothing, expected text"),
    # webhooks
    *((board(more=f"notify: {quoted(url)}"), "9:11", f'policy_board.notify: found "{url}", {URL}') for url in (
        "http://hooks.example/", "hooks.example", "https://", "https:///path", "https://user:pass@hooks.example/",
        "https://hooks.example/#x", "https://hooks.example:0/", "https://hooks.example:99999/", "https://[::1/",
        "https://hooks.example/a b", "HTTPS://hooks.example/", "https://höoks.example/",
    )),
    (board(more=f"notify: https://h/{'x' * MAX_URL_CHARACTERS}"), "9:11",
     f'policy_board.notify: found "https://h/{"x" * 50}…", {URL}'),
    (board(more="notify: [https://a.example, https://a.example]"), "9:31",
     "policy_board.notify[1]: the same address stands on line 9; remove one"),
    (board(more=f"notify: [{', '.join(f'https://h{number}/' for number in range(MAX_WEBHOOKS + 1))}]"), "9:11",
     "policy_board.notify: found 9 addresses, expected at most 8"),
    # the access policy beside it
    (board(rest="access_policy: {update: CREATOR}\n"), "9:17", f"access_policy.update: {AROUND.format('update')}"),
    (board(rest="access_policy: {update: NONE}\n"), "9:17", f"access_policy.update: {AROUND.format('update')}"),
    (board(rest="access_policy: {update: }\n"), "9:17", f"access_policy.update: {AROUND.format('update')}"),
    (board(more="on: create_sessions", rest="access_policy: {create_sessions: ANY}\n"), "10:17",
     f"access_policy.create_sessions: {AROUND.format('create_sessions')}"),
    (board(rest="access_policy: $$SCONE::rules$$\nsecrets: [{name: rules, import: {session: a, secret: b}}]\n"), "9:16",
     "access_policy: the policy board decides update, and a variable might let others do that; write the policy out, with variables as entries"),
    # the board as a whole
    (f"{HEAD}policy_board: ~", "3:15",
     "policy_board: found nothing, expected a mapping with the keys of policy_board"),
    (f"{HEAD}policy_board: $$SCONE::board$$\nsecrets: [{{name: board, kind: config-fragment, value: x}}]", "3:15",
     'policy_board: found "$$SCONE::board$$", expected a mapping with the keys of policy_board; a variable cannot stand here'),
    (board(more="quorum: 2"), "9:3", 'policy_board.quorum: unknown key "quorum" in policy_board; expected one of tolerated_faults, members, decide_within, time_lock, on, break_glass, notify'),
    (f"{HEAD}policy_bord: {{}}", "3:1", 'policy_bord: unknown key "policy_bord" in session: did you mean policy_board?'),
    (board().replace("0.3.12", "0.3.11"), "3:1",
     'policy_board: policy_board needs version 0.3.12, found 0.3.11; write version: "0.3.12"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "expected"), REFUSED, ids=[expected[:60] for _, _, expected in REFUSED])
def test_a_board_that_would_not_do_what_it_says_is_refused(text: str, place: str, expected: str) -> None:
    (found,) = mistakes(text)
    assert (f"{found.line}:{found.column}", f"{found.path}: {found.message}") == (place, expected)


# --- keys that come from secrets -------------------------------------------------------------------------------------

CHECKER = member("checker", "$$SCONE::key$$", "reject")
MADE_ANEW = """each update makes "k" anew, and with it this member's key; write migrate: true there"""
NO_KEY = 'policy_board.members[2].signer: "$$SCONE::key{}$$"'
SECRET = f"{NO_KEY}: expected $$SCONE::name$$ of a secret of kind public-key"
UNFIT = f"{NO_KEY} is no public key of a member: {KEYS}"


def with_secrets(*secrets: str, members: tuple[str, ...] = (ALICE, BOB, CHECKER)) -> str:
    return board(
        *members, more="time_lock: 1 day", rest="".join(["secrets:\n", *(f"- {secret}\n" for secret in secrets)])
    )


def public(kind: str) -> str:
    return f"{{name: key, kind: public-key, value: {quoted(pki.public_pem(pki.private_key(kind)))}}}"


@pytest.mark.parametrize(
    "secrets",
    [
        ["{name: key, import: {session: checker, secret: public}}"],
        ["{name: key, kind: public-key, import: {session: checker, secret: public}}"],
        [public("P-256")],
        ["{name: key, kind: public-key, private_key: k}", "{name: k, kind: private-key, migrate: true}"],
        [
            "{name: key, kind: public-key, private_key: k}",
            f"{{name: k, kind: private-key, value: {quoted(pki.pkcs8_pem(pki.private_key('P-384')))}}}",
        ],
    ],
    ids=["an import", "an import of a kind", "a value", "a key made here", "a key given here"],
)
def test_a_members_key_may_be_a_public_key_secret(secrets: list[str]) -> None:
    found = parse_session(with_secrets(*secrets))
    assert found.warnings == ()
    assert found.session.policy_board is not None
    assert found.session.policy_board.members[2].signer == Variable(placeholder=Placeholder(name="key"))


AZURE = (
    "{name: t, kind: aad-token, tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47, "
    "client_id: 72f988bf-86f1-41af-91ab-2d7cd011db47, application_secret: x}"
)


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        (["{name: k, kind: private-key}"],
         f"{NO_KEY.format('')} names a secret that is not in secrets; expected one of k"),
        (["{name: key, kind: public-key, private_key: k}"],
         'secrets[0].private_key: there is no secret "k"'),
        (["{name: key, kind: private-key}"], SECRET.format("")),
        (["{name: key, kind: ascii, value: x}"], SECRET.format("")),
        (["{name: key, kind: config-fragment, value: x}"], SECRET.format("")),
        (["{name: key, import_akv: {vault: v.vault.azure.net, secret_name: s, token: $$SCONE::t$$}}", AZURE],
         'policy_board.members[2].signer: "$$SCONE::key$$" lies in Azure, which is asked for programs that were admitted and never to count: the member would be nobody; write the key, or import it from a session'),
        ([public("RSA-2048")], f"{UNFIT.format('')} RSA-2048"),
        ([public("P-521")], f"{UNFIT.format('')} P-521"),
        (["{name: key, kind: public-key, private_key: k}", "{name: k, kind: private-key, key_type: RSA-3072}"],
         f"{UNFIT.format('')} RSA-3072"),
    ],
)  # fmt: skip
def test_a_secret_that_is_no_key_of_a_member_is_refused(secrets: list[str], expected: str) -> None:
    assert [f"{found.path}: {found.message}" for found in mistakes(with_secrets(*secrets))] == [expected]


@pytest.mark.parametrize("form", [":spki:pem", ":spki:der", ".crt"])
def test_a_members_key_has_one_spelling(form: str) -> None:
    """A certificate, or bytes, would leave a member without a key, and nobody would notice."""
    text = with_secrets("{name: key, import: {session: a, secret: b}}").replace("::key$$", f"::key{form}$$")
    assert [f"{found.path}: {found.message}" for found in mistakes(text)] == [SECRET.format(form)]


def test_a_piece_of_text_beside_a_variable_is_refused() -> None:
    text = with_secrets(public("P-256")).replace("$$SCONE::key$$", '"$$SCONE::key$$ "')
    assert [found.message for found in mistakes(text)] == [
        'found "$$SCONE::key$$ ", expected one placeholder and nothing else; write $$SCONE::name:format$$'
    ]


def test_a_key_that_each_update_makes_anew_is_a_warning() -> None:
    """The board would have another member after each update, and nobody would have approved that one."""
    text = with_secrets("{name: key, kind: public-key, private_key: k}", "{name: k, kind: private-key}")
    assert [f"{found.path}: {found.message}" for found in parse_session(text).warnings] == [
        f"policy_board.members[2].signer: {MADE_ANEW}"
    ]


OTHER = member("other", "$$SCONE::other$$")
P256 = quoted(pki.public_pem(pki.private_key("P-256")))
PRIVATE = quoted(pki.pkcs8_pem(pki.private_key("P-256")))


@pytest.mark.parametrize(
    ("members", "secrets"),
    [
        ((CHECKER, member("other", "$$SCONE::key$$")), [public("P-256")]),
        ((CHECKER, OTHER), [public("P-256"), f"{{name: other, kind: public-key, value: {P256}}}"]),
        ((CHECKER, member("other", P256)), [public("P-256")]),
        ((CHECKER, member("other", P256)),
         ["{name: key, kind: public-key, private_key: k}", f"{{name: k, kind: private-key, value: {PRIVATE}}}"]),
        ((CHECKER, OTHER), [
            "{name: key, kind: public-key, private_key: k}", "{name: other, kind: public-key, private_key: k}",
            "{name: k, kind: private-key, migrate: true}",
        ]),
        ((CHECKER, member("other", "$$SCONE::key$$")), [
            "{name: key, kind: public-key, private_key: k}", "{name: k, import: {session: a, secret: k}}",
        ]),
        ((CHECKER, OTHER), [
            "{name: key, kind: public-key, private_key: k}", "{name: other, kind: public-key, private_key: k}",
            "{name: k, import: {session: a, secret: k}}",
        ]),
        ((CHECKER, OTHER), [
            "{name: key, import: {session: a, secret: b}}",
            "{name: other, kind: public-key, export_public: true, import: {session: /a, secret: b}}",
        ]),
    ],
    ids=["one secret", "equal values", "a value", "a private key", "one private key", "one import", "one imported private key", "two of an imported private key"],
)  # fmt: skip
def test_one_key_under_two_names_is_refused_whatever_it_comes_from(
    members: tuple[str, ...], secrets: list[str]
) -> None:
    message = mistake(with_secrets(*secrets, members=members), "policy_board.members[1].signer")
    assert message == '"other" has the key of "checker" on line 6, and a key counts once; remove one'


def test_two_imports_of_two_secrets_may_be_two_members() -> None:
    quiet(
        with_secrets(
            "{name: key, import: {session: a, secret: b}}",
            "{name: other, import: {session: a, secret: c}}",
            members=(CHECKER, OTHER),
        )
    )


# --- warnings and notes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (board(faults="0"), "4:21", f"{FAULTS}: with 0 one member alone decides; write 1, so that it takes two"),
        (board(ALICE, BOB, member("dave", K3, "approve")), "8:85", 'policy_board.members[2].power: "dave" alone approves any change, so that tolerated_faults does not hold; let it vote'),
        (board(more="on: create_sessions"), "9:7",
         "policy_board.on: whoever may update the session can change its board, or remove it; add update"),
        (board(ALICE, BOB, member("dave", K3, "reject")), "6:3", "policy_board.members: 2 approvals apply a change at once, so that the veto of \"dave\" can come too late; add time_lock, such as 1 day"),
    ],
)  # fmt: skip
def test_a_board_that_is_weaker_than_it_seems_is_a_warning(text: str, place: str, expected: str) -> None:
    (found,) = parse_session(text).warnings
    assert (f"{found.line}:{found.column}", f"{found.path}: {found.message}") == (place, expected)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (board(faults="2"), "4:21",
         f"{FAULTS}: every member must approve, so that one lost key stops all changes for good"),
        (board(more="break_glass: 3"), "9:16",
         "policy_board.break_glass: every member must approve to break the glass, so that any one stops that, too"),
        (board(more="on: [update, delete]"), "9:16",
         "policy_board.on[1]: sessions are never deleted, so that delete has no effect"),
    ],
)  # fmt: skip
def test_what_is_worth_knowing_of_a_board_is_noted(text: str, place: str, expected: str) -> None:
    parsed = parse_session(text)
    assert parsed.warnings == ()
    (found,) = parsed.notes
    assert (f"{found.line}:{found.column}", f"{found.path}: {found.message}") == (place, expected)


def test_a_veto_that_cannot_come_too_late_is_no_warning() -> None:
    """As there is time for it, or as nothing is approved without the member who has it."""
    veto = member("dave", K3, "reject")
    assert parse_session(board(ALICE, BOB, veto, more="time_lock: 1 day")).warnings == ()
    assert parse_session(board(ALICE, veto)).warnings == ()
    assert [found.path for found in parse_session(board(member("eve", K1, "approve"), veto)).warnings] == [
        "policy_board.members", "policy_board.members[0].power",
    ]  # fmt: skip


# --- the normal form, and its hash -----------------------------------------------------------------------------------


def test_the_normal_form_has_the_board_behind_the_access_policy() -> None:
    parsed = parse_session(f"""\
policy_board:
  notify: https://hooks.example/
  break_glass: 3
  on: [delete, update]
  time_lock: 25h
  decide_within: 168h
  members:
  - {{signer: {K1}, name: alice}}
  - {{power: [reject, approve], signer: {quoted(K4_PEM)}, name: bob}}
  - {{power: vote, signer: {K3}, name: carol}}
  tolerated_faults: 1
security: {{attestation: {{mode: hardware}}}}
access_policy: {{read: ANY}}
version: "0.3.12"
name: test
""")
    assert json.loads(canonical_json(parsed.normal)) == {
        "version": "0.3.12",
        "name": "test",
        "predecessor": None,
        "access_policy": {"read": ["ANY"]},
        "policy_board": {
            "tolerated_faults": 1,
            "members": [
                {"name": "alice", "signer": K1},
                {"name": "bob", "signer": K4_PEM, "power": ["approve", "reject"]},
                {"name": "carol", "signer": K3},
            ],
            "time_lock": "1day 1h",
            "on": ["update", "delete"],
            "break_glass": 3,
            "notify": ["https://hooks.example/"],
        },
        "security": {"attestation": {"mode": "hardware"}},
    }
    written = canonical_json(parsed.normal)
    places = [written.index(key) for key in (b'"access_policy"', b'"policy_board"', b'"security"')]
    assert places == sorted(places)
    members = [b'"tolerated_faults"', b'"members"', b'"time_lock"', b'"on"', b'"break_glass"', b'"notify"']
    assert sorted(members, key=written.index) == members


def test_what_is_hashed_leaves_the_defaults_out() -> None:
    text = (
        '{"version":"0.3.12","name":"test","predecessor":null,"access_policy":{"read":["CREATOR"]},"policy_board":'
        '{"tolerated_faults":1,"members":[{"name":"alice","signer":"' + K1 + '"},{"name":"bob","signer":"' + K2 + '"},'
        '{"name":"carol","signer":"' + K3 + '"}]}}'
    )
    assert canonical_json(parse_session(board()).normal) == text.encode()


def test_every_yaml_parser_reads_on_as_a_text() -> None:
    """YAML 1.1 takes a bare `on` for true; whoever computes the hash from the answer would get another one."""
    parsed = parse_session(board(more="on: [update, create_sessions]"))
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    assert "\n  'on':\n" in parsed.text
    assert "on" in yaml.load(parsed.text)["policy_board"]


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | str | int"

_NAMES = ["ann", "bea", "cem", "dov"]
_SIGNERS = [K1, K2, K3, K4_PEM]
_POWERS = ["vote", "reject", ["reject"], "approve", ["approve", "reject"], ["reject", "approve"]]
_WORDS = [["update"], "update", ["create_sessions", "update"], ["update", "create_sessions", "delete"]]
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "decide_within": st.sampled_from(["7d", "1 week", "1h", "366 days"]),
        "time_lock": st.sampled_from(["1d", "24h", "1s"]),
        "on": st.sampled_from(_WORDS),
        "break_glass": st.sampled_from([3, 4]),
        "notify": st.sampled_from(["https://a.example", ["https://a.example"], ["https://b.example/x", "https://c/"]]),
    },
)
_MEMBERS = st.permutations(range(4)).flatmap(
    lambda order: st.tuples(*(st.sampled_from([None, *_POWERS]) for _ in order)).map(
        lambda powers: [
            {"name": _NAMES[number], "signer": _SIGNERS[number], **({} if power is None else {"power": power})}
            for number, power in zip(order, powers, strict=True)
        ]
    )
)
_BOARDS = st.builds(
    lambda members, options, faults: {"tolerated_faults": faults, "members": members, **options},
    _MEMBERS, _OPTIONS, st.sampled_from([0, 1]),
)  # fmt: skip


def session_of(found: object) -> ParsedSession:
    return parse_session(json.dumps({"name": "test", "version": "0.3.12", "policy_board": found}))


def shuffled(value: object, order: random.Random) -> str:
    """The same in YAML's flow style, with the keys in another order and texts quoted in either way or not at all."""
    if isinstance(value, dict):
        members = [f"{order.choice([key, repr(key)])}: {shuffled(member, order)}" for key, member in value.items()]
        order.shuffle(members)
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(shuffled(element, order) for element in value)}]"
    if isinstance(value, str):
        return order.choice([json.dumps(value), value if "\n" not in value else json.dumps(value)])
    return str(value)


@given(_BOARDS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_keys_and_quotes_never_change_the_hash(found: object, order: random.Random) -> None:
    once = session_of(found)
    again = parse_session(f"{HEAD}policy_board: {shuffled(found, order)}")
    assert (again.hash, again.session) == (once.hash, once.session)
    assert (parse_session(once.text).hash, parse_session(once.text).session) == (once.hash, once.session)


@given(_BOARDS, _BOARDS)
@settings(deadline=None)
def test_boards_have_one_hash_exactly_if_they_say_the_same(one: object, other: object) -> None:
    first, second = session_of(one), session_of(other)
    assert (first.hash == second.hash) == (first.session == second.session)


@given(_BOARDS, _BOARDS)
@settings(deadline=None)
def test_no_change_of_a_board_goes_unnoticed(one: object, other: object) -> None:
    """The order of members means nothing to people; everything else is told."""
    first, second = session_of(one).session, session_of(other).session
    assert (differences(first, second) == ()) == (_unordered(first) == _unordered(second))


def _unordered(session: Session) -> object:
    assert session.policy_board is not None
    members = tuple(sorted(session.policy_board.members, key=lambda member: member.name))
    return replace(session.policy_board, members=members)


@given(_BOARDS, st.data())
@settings(deadline=None)
def test_any_change_of_meaning_changes_the_hash(found: dict[str, object], data: st.DataObject) -> None:
    before = session_of(found)
    board = before.session.policy_board
    assert board is not None
    changes: dict[str, object] = {
        "tolerated_faults": 1 - board.tolerated_faults,
        "members": [{"name": "zoe", "signer": K1}, {"name": "eve", "signer": K2}, {"name": "eva", "signer": K3},
                    {"name": "max", "signer": K4}],
        "decide_within": "2 days",
        "time_lock": "2 days",
        "on": ["update", "delete"],
        "break_glass": 7 - (board.break_glass or 3),
        "notify": "https://z.example",
    }  # fmt: skip
    key = data.draw(st.sampled_from(sorted(changes)))
    after = session_of({**found, key: changes[key]})
    assert after.hash != before.hash
    assert after.session.policy_board != board


# --- the schema ------------------------------------------------------------------------------------------------------

VALIDATOR = Draft202012Validator(schema())


def test_the_schema_says_whose_the_board_is() -> None:
    properties = schema()["$defs"]["session"]["properties"]  # type: ignore[index,call-overload]
    assert properties["policy_board"]["description"] == "From 0.3.12. Ostiary's own, not SCONE's."  # type: ignore[index,call-overload]
    assert language.OWN_KEYS["session"] == {"policy_board"}


@given(_BOARDS)
@settings(deadline=None)
def test_the_schema_takes_what_the_parser_takes(found: object) -> None:
    session_of(found)
    VALIDATOR.validate({"name": "test", "version": "0.3.12", "policy_board": found})


@pytest.mark.parametrize(
    "text",
    [
        board(faults="-1"),
        board(faults="64"),
        board(ALICE, member("bob", K2, "veto")),
        board(ALICE, "{name: bob}"),
        board(ALICE, "{name: b b, signer: x}"),
        board(more="on: udpate"),
        board(more="notify: http://hooks.example"),
        board(more="quorum: 2"),
        f"{HEAD}policy_board: ~",
        f"{HEAD}policy_board: {{tolerated_faults: 0, members: []}}",
        f"{HEAD}policy_board: {{members: []}}",
    ],
)
def test_the_schema_marks_what_is_plainly_wrong(text: str) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate(YAML(typ="safe", pure=True).load(text))
