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

KEY_HASH = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"
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
            "import: {session: ../a, secret: b}",
            "export: {namespace: ..}",
            "/session=a",
            "volumes: [{name: a}]",
            "require-all: [",
            "signer: ",
            "!akv ",
            "$$SCONE::a$$",
            "salt: ",
            "policy_board: {tolerated_faults: 0, members: [",
            "{name: a, signer: ",
            "LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM",
            "power: ",
            "on: ",
            "time_lock: ",
            "kind: config-fragment, value: [",
            "kind: jwt",
            "san: 'ip:::1'",
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
references = st.fixed_dictionaries(
    {"session": st.sampled_from(["a", "a/b", "./c", "../d", "..", "/e"])}, optional={"session_hash": digests}
)
exports = st.one_of(
    references,
    st.fixed_dictionaries({"namespace": st.sampled_from(["a", "..", "/"])}),
    st.just("/session=a"),
)
imports = st.fixed_dictionaries({"session": st.sampled_from(["a", "./c", "../d"]), "secret": names})
fragments_of_sessions = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
shared_bodies = st.one_of(
    secret_bodies.flatmap(lambda body: st.lists(exports, max_size=2).map(lambda targets: {**body, "export": targets})),
    st.fixed_dictionaries({"import": imports}, optional={"size": st.integers(1, 9), "kind": st.just("binary")}),
    st.fixed_dictionaries(
        {"kind": st.just("config-fragment"), "value": fragments_of_sessions.filter(lambda x: x is not None)}
    ),
    st.just({"kind": "pgp-key"}),
)
SIGNERS = (
    "MV3se6FuJ4oST18KpRhQMG9Hzk6gKCUbF2EhGQrEjLsoPpDRma",
    "MqGVR786CZmPNsYpaM9pCtdbELzPzbeKG6BRddZBeBpnKyf4Wq",
    "Lvu4BBphbNWtRHivuYsLwPjShQCGiWpGyCFr3vW3gCGweB77to",
)
entries = st.recursive(
    st.one_of(st.just("CREATOR"), st.sampled_from(SIGNERS).map(lambda signer: {"signer": signer})),
    lambda inner: st.builds(
        lambda rule, parts: {rule: parts},
        st.sampled_from(["require-all", "require-at-least-1"]),
        st.lists(inner, min_size=1, max_size=3, unique_by=str),
    ),
    max_leaves=6,
)
operations = st.one_of(st.sampled_from(["NONE", ["ANY"], "CREATOR"]), st.lists(entries, min_size=1, max_size=2))
update_policies = st.sampled_from(["rollback_protected", "ephemeral", "no_rollback_protection"])
volume_exports = st.one_of(
    references,
    st.fixed_dictionaries({"to": references}, optional={"update_policy": update_policies, "volume_alias": names}),
)
volumes = st.one_of(
    st.fixed_dictionaries({"name": names}, optional={"files": st.sampled_from(["encrypted", "authenticated-only"])}),
    st.fixed_dictionaries({"name": names, "fspf_key": digests, "fspf_tag": st.just("12" * 16)}),
    st.fixed_dictionaries({"name": names, "export": st.lists(volume_exports, max_size=2)}),
    st.fixed_dictionaries({"name": names, "import": st.fixed_dictionaries({"session": st.just("a"), "volume": names})}),
)
securities = st.fixed_dictionaries(
    {},
    optional={
        "singleton_enclaves": st.booleans(),
        "service_access_token": words.filter(lambda word: word != ""),
        "attestation": st.fixed_dictionaries(
            {"tolerate": st.lists(st.sampled_from(["debug-mode", "outdated-tcb"]))},
            optional={
                "mode": st.sampled_from(["hardware", "none"]),
                "must_be_sgx_local": st.just(value=False),
                "one_time_password_shared_secret": st.just("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
            },
        ),
    },
)


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
    made = draw(st.lists(volumes, max_size=2, unique_by=lambda volume: str(volume["name"])))
    mounts = st.fixed_dictionaries(
        {"name": st.sampled_from([volume["name"] for volume in made] or ["none"]), "path": st.just("/m")},
        optional={"update_policy": update_policies},
    )
    secrets = [
        {"name": name, **draw(st.one_of(secret_bodies, shared_bodies))}
        for name in draw(st.lists(names, max_size=3, unique=True))
    ]
    provided = st.lists(st.sampled_from([secret["name"] for secret in secrets]), max_size=2) if secrets else st.just([])
    images = st.fixed_dictionaries(
        {"name": names, "injection_files": st.lists(st.one_of(files, st.just("/t")), max_size=2, unique_by=str)},
        optional={"provide_secrets": provided, "volumes": st.lists(mounts, max_size=1 if made else 0)},
    )
    tree: Tree = {
        "name": f"{draw(names)}/{draw(names)}",
        "version": "0.3.12",
        "services": draw(st.lists(services, max_size=2, unique_by=lambda service: str(service["name"]))),
        "images": draw(st.lists(images, max_size=2, unique_by=lambda image: str(image["name"]))),
        "secrets": secrets,
        "volumes": made,
        "access_policy": draw(
            st.fixed_dictionaries(
                {"read": st.sampled_from(["NONE", ["ANY"], ["CREATOR"]])},
                optional={"update": operations, "create_sessions": operations, "list_sessions": st.just("ANY")},
            )
        ),
        "security": draw(securities),
        "salt": draw(st.sampled_from(["12" * 16, "AB" * 16])),
        "namespace_hash": draw(digests),
    }
    optional = ("services", "images", "secrets", "access_policy", "security", "salt", "namespace_hash")
    for key in draw(st.sets(st.sampled_from(optional))):
        if not (key == "secrets" and "images" in tree):
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


WHOLE = f"""
name: ns/test
version: "0.3.12"
namespace_hash: {DIGEST}
salt: {"ab" * 16}
creator: {{signer: {SIGNERS[0]}}}
services:
- name: s
  image_name: i
  fspf_path: /fspf
  fspf_key: {DIGEST}
  fspf_tag: {"ab" * 16}
  platforms: [INTEL_QE_ID:{"ab" * 16}, $$SCONE::x$$]
  one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ
  attestation: [{{mrenclave: [{DIGEST}, $$SCONE::x$$], signer: $$SCONE::x$$}}]
- {{name: t, attestation: $$SCONE::x$$}}
images:
- name: i
  injection_files: [/template]
  volumes: [{{name: v, path: /v, update_policy: ephemeral}}]
  provide_secrets: [pw]
volumes:
- {{name: v, files: authenticated-only}}
- {{name: w, fspf_key: {DIGEST}, fspf_tag: {"ab" * 16}}}
- {{name: e, export: [{{session: a}}, {{to: {{session: b}}, update_policy: ephemeral, volume_alias: al}}]}}
- {{name: y, import: {{session: a, volume: b, session_hash: {DIGEST}}}}}
secret_config: {{store_in: !akv {{vault: v.vault.azure.net, token: $$SCONE::aad$$}}}}
secrets:
- {{name: pw, kind: ascii, export: [{{session: a, session_hash: {DIGEST}}}, {{namespace: ..}}]}}
- {{name: x, import: {{session: ../a, secret: b, session_hash: {DIGEST}, cas_url: c, cas_key: {KEY_HASH}}}}}
- {{name: akv, kind: binary, size: 3,
   import_akv: {{vault: v.vault.azure.net, secret_name: n, decryption_key: $$SCONE::key$$}}}}
- {{name: key, kind: binary, size: 32}}
- {{name: k, kind: private-key, key_type: P-384}}
- {{name: pub, kind: public-key, private_key: k}}
- {{name: c, kind: x509, private_key: k, san: ["dns:a", "ip:::1"]}}
- {{name: aad, kind: aad-token, tenant_id: t, client_id: u, application_secret: v}}
- {{name: f, kind: config-fragment, value: {{a: [1, "1", true, ~], b: x}}}}
- {{name: pgp, kind: pgp-key}}
- {{name: jwt, kind: jwt, signer: k, alg: ES384, validity: {{for: 24h}}, payload: {{a: b, c: $$SCONE::pw$$}}}}
access_policy:
  read: NONE
  update: [CREATOR, {{require-at-least-1: [{{signer: {SIGNERS[0]}}}, {{signer: {SIGNERS[1]}}}]}}, $$SCONE::x$$]
  create_sessions: {{require-all: [CREATOR]}}
  list_sessions: ANY
security:
  singleton_enclaves: true
  service_access_token: 0123456789abcdef
  attestation:
    mode: maa
    tolerate: [maa-managed-tcb, local-attestation-trust-cas-tcb]
    url: https://a.attest.azure.net
    must_be_sgx_local: true
    one_time_password_shared_secret: $$SCONE::x$$
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: ns/test", "name: ns/other"),
        (f"namespace_hash: {DIGEST}", f"namespace_hash: f{DIGEST[1:]}"),
        (f"namespace_hash: {DIGEST}\n", ""),
        (f"salt: {'ab' * 16}", f"salt: {'ac' * 16}"),
        (f"salt: {'ab' * 16}\n", ""),
        (f"creator: {{signer: {SIGNERS[0]}}}", f"creator: {{signer: {SIGNERS[1]}}}"),
        ("fspf_path: /fspf", "fspf_path: /fspg"),
        (f"fspf_key: {DIGEST}", f"fspf_key: f{DIGEST[1:]}"),
        (f"fspf_tag: {'ab' * 16}", f"fspf_tag: {'ac' * 16}"),
        (f"fspf_tag: {'ab' * 16}\n", f"fspf_tag: {'ab' * 16}\n  fspf_update_policy: no_rollback_protection\n"),
        (f"INTEL_QE_ID:{'ab' * 16}", f"INTEL_QE_ID:{'ac' * 16}"),
        (", $$SCONE::x$$]\n  one_time", "]\n  one_time"),
        ("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJR"),
        (f"[{DIGEST}, $$SCONE::x$$]", f"[$$SCONE::x$$, {DIGEST}]"),
        (", signer: $$SCONE::x$$}", "}"),
        ("attestation: $$SCONE::x$$", "attestation: {mrenclave: $$SCONE::x$$}"),
        ("[/template]", "[{path: /template, content: ''}]"),
        ("[/template]", "[/other]"),
        ("path: /v", "path: /w"),
        ("update_policy: ephemeral}]\n", "update_policy: no_rollback_protection}]\n"),
        (", update_policy: ephemeral}]\n", "}]\n"),
        ("provide_secrets: [pw]", "provide_secrets: []"),
        ("\n  provide_secrets: [pw]", ""),
        (", files: authenticated-only", ""),
        (", volume_alias: al", ""),
        ("{to: {session: b}, update_policy: ephemeral", "{to: {session: b}, update_policy: no_rollback_protection"),
        ("export: [{session: a}, {to", "export: [{to"),
        ("import: {session: a, volume: b,", "import: {session: b, volume: b,"),
        ("volume: b,", "volume: c,"),
        (f"volume: b, session_hash: {DIGEST}", "volume: b"),
        ("!akv {vault: v.", "!akv {vault: w."),
        ("secret_config: {store_in: !akv {vault: v.vault.azure.net, token: $$SCONE::aad$$}}\n", ""),
        (f"session: a, session_hash: {DIGEST}", "session: a"),
        (", {namespace: ..}", ""),
        ("{namespace: ..}", "{session: ..}"),
        ("session: ../a", "session: ../b"),
        ("secret: b", "secret: c"),
        ("cas_url: c", "cas_url: d"),
        ("cas_url: c", "cas_url: c:8082"),
        ("cas_key", "cas_software_key"),
        ("kind: binary, size: 3,", "kind: binary,"),
        ("kind: binary, size: 3,", "kind: ascii, size: 3,"),
        ("secret_name: n, ", ""),
        (", decryption_key: $$SCONE::key$$", ""),
        ("kind: public-key, private_key: k}", "kind: ascii}"),
        ('"dns:a"', '"dns:b"'),
        ('"ip:::1"', '"ip:::2"'),
        ("tenant_id: t", "tenant_id: u"),
        ("client_id: u", "client_id: v"),
        ("application_secret: v", "application_secret: w"),
        ('[1, "1", true, ~]', '["1", "1", true, ~]'),
        ('[1, "1", true, ~]', '[1, "1", "true", ~]'),
        ('[1, "1", true, ~]', '[1, "1", true]'),
        ("b: x}}", "b: y}}"),
        ("kind: pgp-key", "kind: ascii"),
        ("for: 24h", "for: 25h"),
        ("{a: b, c:", "{a: c, c:"),
        ("c: $$SCONE::pw$$", "d: $$SCONE::pw$$"),
        ("read: NONE", "read: ANY"),
        ("require-at-least-1", "require-at-least-2"),
        ("require-at-least-1", "require-all"),
        (f", {{signer: {SIGNERS[1]}}}", ""),
        ("$$SCONE::x$$]\n  create", "CREATOR]\n  create"),
        ("  create_sessions: {require-all: [CREATOR]}\n", ""),
        ("create_sessions: {require-all: [CREATOR]}", "create_sessions: CREATOR"),
        ("  list_sessions: ANY\n", ""),
        ("singleton_enclaves: true", "singleton_enclaves: false"),
        ("0123456789abcdef", "0123456789abcdeF"),
        ("  service_access_token: 0123456789abcdef\n", ""),
        ("mode: maa", "mode: $$SCONE::x$$"),
        ("maa-managed-tcb, ", ""),
        ("https://a.att", "https://b.att"),
        ("must_be_sgx_local: true", "must_be_sgx_local: false"),
        ("    one_time_password_shared_secret: $$SCONE::x$$\n", ""),
    ],
)  # fmt: skip
def test_every_change_of_meaning_changes_the_hash_of_the_whole_language(old: str, new: str) -> None:
    """F041."""
    assert WHOLE.count(old) >= 1
    before, after = parse_session(WHOLE), parse_session(WHOLE.replace(old, new, 1))
    assert before.hash != after.hash
    assert before.session != after.session
    assert_reads_back(after)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("session: ../a", "session: ns/a"),
        ("session: ../a", "session: /ns/a"),
        ("{namespace: ..}", "{namespace: ns}"),
        ("cas_url: c", "cas_url: https://C:8081/"),
        ("[/template]", "[{path: /template}]"),
        ("{require-all: [CREATOR]}", "[{require-all: [CREATOR]}]"),
        ("list_sessions: ANY", "list_sessions: [ANY]"),
        ("attestation: $$SCONE::x$$", "attestation: [$$SCONE::x$$]"),
        ("for: 24h", "for: 1 day"),
        ("{a: b, c: $$SCONE::pw$$}", "{c: $$SCONE::pw$$, a: b}"),
        ('{a: [1, "1", true, ~], b: x}', '{b: x, a: [1, "1", true, null]}'),
        (f"INTEL_QE_ID:{'ab' * 16}", f"INTEL_QE_ID:{'AB' * 16}"),
        (f"salt: {'ab' * 16}", f"salt: {'AB' * 16}"),
        ("export: [{session: a}, {to", "export: [{to: {session: a}}, {to"),
        ("size: 32", "size: 32, export: [], export_public: false"),
    ],
)
def test_spellings_of_one_meaning_have_one_hash(one: str, other: str) -> None:
    """F040."""
    assert WHOLE.count(one) >= 1
    before, after = parse_session(WHOLE), parse_session(WHOLE.replace(one, other, 1))
    assert (before.hash, before.session) == (after.hash, after.session)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 12), fragments)
@settings(max_examples=300, deadline=None)
def test_no_damage_to_a_session_raises_anything_undocumented(start: int, length: int, put_in: str) -> None:
    try:
        parsed = parse_session(WHOLE[:start] + put_in + WHOLE[start + length :])
    except InputError:
        return
    assert_reads_back(parsed)


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
