"""Laws of the session parser and of the normal form."""

from __future__ import annotations

import json
import random
import shlex
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ostiary.errors import InputError
from ostiary.session import JsonValue, ParsedSession, parse_session, parse_template
from ostiary.session.command import split_with_quotes
from ostiary.session.duration import MAX_SECONDS, format_duration, parse_duration
from ostiary.session.normal import canonical_json
from ostiary.session.yaml_text import write_yaml

Tree = dict[str, object]

DIGEST = "e0e81528f05b076dd1b0720bacdec52feb7d4ff6faf6425eb5f93f4fe743a220"

# --- texts -----------------------------------------------------------------------------------------------------------

fragments = st.sampled_from(
    [
        *(
            "name: a\n",
            'version: "0.3.12"\n',
            "services:\n",
            "- name: s\n",
            "  command: ",
            "  environment:\n",
            "secrets: ",
        ),
        *(
            "images: [",
            "{",
            "}",
            "]",
            "[",
            ", ",
            ": ",
            "\n",
            "  ",
            "- ",
            "? ",
            "~",
            "''",
            '"',
            "|\n",
            "&a ",
            "*a",
            "!!str ",
        ),
        *(
            "@@1",
            "$$SCONE::a$$",
            "$$SCONE:",
            "\\@\\@A",
            '"\\ud800"',
            '"\\0"',
            "<<",
            "%YAML 1.1\n",
            "---\n",
            "...\n",
            "#",
        ),
        *(
            "kind: x509",
            "private_key: a",
            "issuer: a",
            "value: ",
            "-----BEGIN CERTIFICATE-----",
            "permission: 0o400",
            "é",
        ),
        *(
            "attestation: ",
            "mrenclave: ",
            DIGEST,
            "access_policy: ",
            "read: [ANY]",
            "creator: ",
            "size: 99999999999",
            "\u202e",
        ),
    ]
)
texts = st.one_of(st.lists(fragments, max_size=40).map("".join), st.text(max_size=200))


@given(st.one_of(st.binary(max_size=200), texts))
@settings(max_examples=1000, deadline=None)
def test_no_input_raises_anything_undocumented(text: bytes | str) -> None:
    try:
        parsed = parse_session(text)
    except InputError:
        return
    assert_reads_back(parsed)


def assert_reads_back(parsed: ParsedSession) -> None:
    """Equal hash means equal session, so a different session has another hash."""
    again = parse_session(parsed.text)
    assert (again.session, again.hash, again.text) == (parsed.session, parsed.hash, parsed.text)


# --- sessions --------------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = st.text("abAB01_-.~", min_size=1, max_size=6).filter(lambda name: name.strip("."))
digests = st.sampled_from([DIGEST, "12" * 32, "1" * 64, DIGEST.upper()])
signers = st.fixed_dictionaries(
    {"mrsigner": digests, "isvprodid": st.integers(0, 65535)}, optional={"isvsvn_min": st.integers(0, 5)}
)
variants = st.one_of(
    st.fixed_dictionaries({"mrenclave": st.one_of(digests, st.lists(digests, min_size=1, max_size=2))}),
    st.fixed_dictionaries({"signer": signers}, optional={"mrenclave": digests}),
)
environments = st.dictionaries(
    st.text(st.characters(exclude_characters="\0=@\\", exclude_categories=["Cs"]), min_size=1, max_size=6),
    words,
    max_size=4,
)
secret_bodies = st.one_of(
    st.fixed_dictionaries({"kind": st.just("ascii"), "value": words}),
    st.fixed_dictionaries(
        {"kind": st.just("ascii")}, optional={"size": st.integers(1, 99), "export_public": st.booleans()}
    ),
    st.fixed_dictionaries({"kind": st.just("binary"), "value": st.binary(max_size=4).map(bytes.hex)}),
    st.fixed_dictionaries(
        {"kind": st.just("private-key")},
        optional={"migrate": st.booleans(), "key_type": st.sampled_from(["P-256", "P-384", "Ed25519"])},
    ),
)
permissions = st.sampled_from(["0o400", "0440", "0o700"])


@st.composite
def sessions(draw: st.DrawFn) -> Tree:
    """A session of the language, as the mapping that its text holds."""
    services = st.fixed_dictionaries(
        {"name": names, "attestation": st.one_of(variants, st.lists(variants, min_size=1, max_size=2))},
        optional={
            "command": st.lists(words.filter(lambda word: "@@" not in word), min_size=1, max_size=3),
            "environment": environments,
            "pwd": st.sampled_from(["/", "/srv"]),
        },
    )
    files = st.fixed_dictionaries(
        {"path": names.map(lambda name: f"/{name}"), "content": words}, optional={"permission": permissions}
    )
    images = st.fixed_dictionaries({"name": names, "injection_files": st.lists(files, max_size=2, unique_by=str)})
    secrets = [{"name": name, **draw(secret_bodies)} for name in draw(st.lists(names, max_size=3, unique=True))]
    tree: Tree = {
        "name": draw(names),
        "version": "0.3.12",
        "services": draw(st.lists(services, max_size=2, unique_by=lambda service: str(service["name"]))),
        "images": draw(st.lists(images, max_size=2, unique_by=lambda image: str(image["name"]))),
        "secrets": secrets,
        "access_policy": {"read": draw(st.sampled_from(["NONE", ["ANY"], ["CREATOR"]]))},
        "security": {"attestation": {"tolerate": draw(st.lists(st.sampled_from(["debug-mode", "outdated-tcb"])))}},
    }
    for key in draw(st.sets(st.sampled_from(["services", "images", "secrets", "access_policy", "security"]))):
        del tree[key]
    return tree


def spell(value: object, choice: random.Random) -> str:
    """Flow YAML of a value: keys in any order, any quoting, comments between."""
    if isinstance(value, dict):
        members = [f"{spell(key, choice)}: {spell(member, choice)}" for key, member in value.items()]
        choice.shuffle(members)
        return "{" + f",{_gap(choice)}".join(members) + "}"
    if isinstance(value, list):
        return "[" + f",{_gap(choice)}".join(spell(element, choice) for element in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if value.isalnum() and value.isascii() and choice.random() < 0.5 and value.lower() not in ("null", "true", "false"):
        return value
    if value.isprintable() and choice.random() < 0.5:
        return "'" + value.replace("'", "''") + "'"
    return (
        '"'
        + "".join(f"\\U{ord(character):08x}" if choice.random() < 0.5 else _double(character) for character in value)
        + '"'
    )


def _double(character: str) -> str:
    return character if character.isprintable() and character not in '"\\' else f"\\U{ord(character):08x}"


def _gap(choice: random.Random) -> str:
    return choice.choice([" ", "\n  ", " # comment\n  "])


def parse_tree(tree: Tree, seed: int) -> ParsedSession | None:
    """None for the few trees that the language refuses, such as two spellings of one path."""
    try:
        return parse_session(spell(tree, random.Random(seed)))
    except InputError:
        return None


@given(sessions(), st.integers(), st.integers())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_order_of_keys_quoting_and_comments_never_change_the_hash(tree: Tree, one: int, other: int) -> None:
    first, second = parse_tree(tree, one), parse_tree(tree, other)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert first.text == second.text
        assert first.session == second.session


@given(sessions())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_text_reads_back_to_the_same_and_gives_the_hash_to_any_yaml_parser(tree: Tree) -> None:
    session = parse_tree(tree, 0)
    if session is None:
        return
    assert_reads_back(session)
    assert canonical_json(YAML(typ="safe", pure=True).load(session.text)) == canonical_json(session.normal)


BASE = f"""
name: test
version: "0.3.11"
predecessor: {DIGEST}
services:
- {{name: s, image_name: i, command: app x, environment: {{A: b}}, pwd: /, attestation: [{{mrenclave: {DIGEST}}}]}}
- {{name: t, command: [app, x], attestation: [{{signer: {{mrsigner: {DIGEST}, isvprodid: 1, isvsvn_min: 2}}}}]}}
images: [{{name: i, injection_files: [{{path: /f, content: c, permission: 0o400}}]}}]
secrets:
- {{name: pw, kind: ascii, size: 21, export_public: true}}
- {{name: raw, kind: binary, value: abcd}}
- {{name: k, kind: private-key, key_type: P-384, migrate: true}}
- {{name: ca, kind: x509-ca, private_key: k, common_name: cn, valid_for: 2 years}}
- {{name: c, kind: x509, private_key: k, issuer: ca, endpoint: server, dns: [d]}}
access_policy: {{read: [ANY], update: [CREATOR]}}
security: {{attestation: {{mode: hardware, tolerate: [outdated-tcb], ignore_advisories: [INTEL-SA-00657]}}}}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: test", "name: test2"),
        ("0.3.11", "0.3.12"),
        (f"predecessor: {DIGEST}", f"predecessor: f{DIGEST[1:]}"),
        (f"predecessor: {DIGEST}\n", ""),
        ("name: s,", "name: u,"),
        ("image_name: i, ", ""),
        ("command: app x", "command: app  x"),
        ("command: app x, ", ""),
        ("command: [app, x]", "command: [x, app]"),
        ("A: b", "A: c"),
        ("A: b", "B: b"),
        ("A: b", "A: b, B: ''"),
        ("pwd: /", "pwd: /srv"),
        (f"mrenclave: {DIGEST}", f"mrenclave: f{DIGEST[1:]}"),
        (f"mrenclave: {DIGEST}", f"mrenclave: [{DIGEST}, f{DIGEST[1:]}]"),
        ("isvprodid: 1", "isvprodid: 2"),
        ("isvsvn_min: 2", "isvsvn_max: 2"),
        ("isvsvn_min: 2", "isvsvn: 2"),
        (", isvsvn_min: 2", ""),
        ("path: /f", "path: /g"),
        ("content: c", 'content: "c\\n"'),
        ("0o400", "0o440"),
        (", permission: 0o400", ""),
        ("size: 21", "size: 22"),
        ("size: 21", "value: abc"),
        (", export_public: true", ""),
        ("kind: ascii", "kind: binary"),
        ("value: abcd", "value: abce"),
        ("P-384", "P-256"),
        ("migrate: true", "migrate: false"),
        ("common_name: cn", "common_name: cm"),
        ("valid_for: 2 years", "valid_for: 1 year"),
        (", valid_for: 2 years", ""),
        ("issuer: ca, ", ""),
        ("endpoint: server", "endpoint: ~"),
        ("dns: [d]", "dns: [d, e]"),
        ("read: [ANY]", "read: [NONE]"),
        ("update: [CREATOR]", "update: [NONE]"),
        ("mode: hardware", "mode: none"),
        ("tolerate: [outdated-tcb]", "tolerate: [debug-mode]"),
        ("ignore_advisories: [INTEL-SA-00657]", 'ignore_advisories: "*"'),
        (", ignore_advisories: [INTEL-SA-00657]", ""),
    ],
)
def test_every_change_of_meaning_changes_the_hash(old: str, new: str) -> None:
    assert BASE.count(old) >= 1
    before, after = parse_session(BASE), parse_session(BASE.replace(old, new, 1))
    assert before.hash != after.hash
    assert_reads_back(after)


# --- parts -----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 70000), words, st.text("\n\t ax:#-'\"", max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(words, json_values, min_size=1, max_size=3))
@settings(max_examples=500, deadline=None)
def test_any_json_value_survives_the_yaml_text(value: dict[str, JsonValue]) -> None:
    text = write_yaml(value)
    for version in ((1, 2), (1, 1)):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        assert yaml.load(text) == value


@given(st.text("ab \t\r\n'\"\\#$", max_size=20))
@settings(max_examples=500, deadline=None)
def test_commands_are_cut_as_a_posix_shell_cuts_them(text: str) -> None:
    try:
        expected = tuple(shlex.split(text))
    except ValueError:
        with pytest.raises(ValueError, match="of the command"):
            split_with_quotes(text)
    else:
        assert split_with_quotes(text) == expected


@given(st.integers(1, MAX_SECONDS))
def test_durations_read_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.lists(st.sampled_from(["$", "$$SCONE::", "$$", "a", ":pem", "|escape(json)", " ", "$$SCONE:"]), max_size=12))
def test_a_template_keeps_its_text(pieces: list[str]) -> None:
    template = parse_template("".join(pieces))
    assert str(template) == "".join(pieces)
    assert all(template.parts)
