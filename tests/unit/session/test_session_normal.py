"""The normal form: hash, order of members, and the text that reads back to the same."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from ruamel.yaml import YAML
from tests.unit.session import pki
from tests.unit.session.texts import HEAD, A, B, quoted

from ostiary.session import JsonValue, parse_session
from ostiary.session.normal import Octal, canonical_json, count_nodes, present, session_hash
from ostiary.session.yaml_text import write_yaml

SIGNER = "MV3se6FuJ4oST18KpRhQMG9Hzk6gKCUbF2EhGQrEjLsoPpDRma"
KEY_HASH = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"
VECTORS = Path(__file__).parents[2] / "vectors" / "session-hash"


def normal(text: str) -> str:
    return canonical_json(parse_session(text).normal).decode()


def other_parser(text: str, version: tuple[int, int]) -> object:
    """What a common YAML parser reads."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    return yaml.load(text)


def folders(*names: str) -> list[Path]:
    """Vectors that have all these files."""
    return sorted(path for path in VECTORS.iterdir() if all((path / name).exists() for name in names))


@pytest.mark.parametrize("folder", folders("hash.txt"), ids=lambda path: path.name)
def test_published_sessions_have_their_published_hash(folder: Path) -> None:
    """F042. The text that we write says the same as the published one, to any YAML parser."""
    text = (folder / "session.yml").read_text()
    parsed = parse_session(text)
    assert parsed.hash.hex() == (folder / "hash.txt").read_text().strip()
    assert other_parser(parsed.text, (1, 1)) == other_parser(text, (1, 1))


@pytest.mark.parametrize("folder", folders("signature.txt"), ids=lambda path: path.name)
def test_published_signatures_cover_the_hash(folder: Path) -> None:
    """F208: the message is 00 01 and the session hash."""
    key = load_pem_public_key((folder / "signer.pem").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    signature = base64.b64decode((folder / "signature.txt").read_text())
    message = b"\x00\x01" + parse_session((folder / "session.yml").read_text()).hash
    key.verify(signature, message)
    with pytest.raises(InvalidSignature):
        key.verify(signature, message[:-1] + bytes([message[-1] ^ 1]))


def test_the_vector_of_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[3] / "docs" / "session-hash.md").read_text()
    found = re.search(r"(\d+) bytes, SHA-256\n`([0-9a-f]{64})`:\n\n```\n(.*)\n```", page)
    assert found is not None
    assert len(found[3].encode()) == int(found[1])
    assert hashlib.sha256(found[3].encode()).hexdigest() == found[2]
    assert normal((VECTORS / "osv-ca-challenge-0" / "session.yml").read_text()) == found[3]


def test_members_stand_in_the_order_of_the_language_and_defaults_are_written_out() -> None:
    certificate = pki.certificate_pem()
    text = f"""
creator: {quoted(certificate)}
security:
  attestation:
    trusted_scone_qe_pubkeys: ["{"AB" * 32}"]
    ignore_advisories: [INTEL-SA-00657]
    tolerate: [outdated-tcb, debug-mode, debug-mode]
services:
- attestation: {{signer: {{isvsvn_max: 3, isvsvn_min: 2, isvprodid: 1, mrsigner: {A.upper()}}}, mrenclave: {B}}}
  pwd: /
  command: [a, 1]
  environment: {{b: 1, B: true, é: x, \\@\\@H: }}
  image_name: img
  name: s
- {{mrenclaves: [{B}], name: t, command: 'a  "b"'}}
secrets:
- {{kind: ascii, name: pw, export_public: true}}
- {{kind: ascii, name: empty, value: "", size: ~}}
- {{kind: binary, name: raw, value: DEADBEEF, size: 4, export_public: false}}
- {{kind: private-key, name: k, key_type: P-256}}
- {{kind: private-key, name: l, key_type: P-384, migrate: true}}
- {{kind: x509-ca, name: ca, valid_for: 365 days, private_key: k, common_name: x}}
- {{kind: x509, dns: d, endpoint: server, issuer: ca, private_key: k, name: c, valid_for: 90days}}
images:
- injection_files: [{{permission: 0o400, content: "a\\nb", path: /f}}, {{path: /g, content: "", permission: 0700}}]
  name: img
predecessor: ~
name: n
version: 0.3.12
"""
    expected = {
        "version": "0.3.12",
        "name": "n",
        "predecessor": None,
        "images": [
            {
                "name": "img",
                "injection_files": [
                    {"path": "/f", "content": "a\nb", "permission": 0o400},
                    {"path": "/g", "content": ""},
                ],
            }
        ],
        "secrets": [
            {"name": "pw", "export_public": True, "kind": "ascii", "size": 20},
            {"name": "empty", "kind": "ascii", "value": ""},
            {"name": "raw", "kind": "binary", "value": "deadbeef"},
            {"name": "k", "kind": "private-key", "migrate": False},
            {"name": "l", "kind": "private-key", "key_type": "P-384", "migrate": True},
            {
                "name": "ca",
                "kind": "x509-ca",
                "private_key": "k",
                "common_name": "x",
                "valid_for": "11months 30days 3h 50m 24s",
            },
            {
                "name": "c",
                "kind": "x509",
                "private_key": "k",
                "issuer": "ca",
                "valid_for": "2months 29days 2h 52m 48s",
                "endpoint": "server",
                "dns": ["d"],
            },
        ],
        "services": [
            {
                "name": "s",
                "image_name": "img",
                "environment": {"B": "true", "\\@\\@H": "", "b": "1", "é": "x"},
                "command": ["a", "1"],
                "pwd": "/",
                "persistency": "None",
                "attestation": [
                    {"mrenclave": [B], "signer": {"mrsigner": A, "isvprodid": 1, "isvsvn_min": 2, "isvsvn_max": 3}}
                ],
            },
            {"name": "t", "mrenclaves": [B], "command": 'a  "b"', "persistency": "None"},
        ],
        "access_policy": {"read": ["CREATOR"], "update": ["CREATOR"]},
        "security": {
            "attestation": {
                "mode": "hardware",
                "tolerate": ["outdated-tcb", "debug-mode", "debug-mode"],
                "ignore_advisories": ["INTEL-SA-00657"],
                "trusted_scone_qe_pubkeys": ["ab" * 32],
            }
        },
        "creator": certificate,
    }
    assert normal(text) == json.dumps(expected, ensure_ascii=False, separators=(",", ":"))


def test_members_of_the_whole_language_stand_in_their_order() -> None:
    """Defaults of parameters are left out, lists and mappings are written in full, references are absolute."""
    text = f"""
creator: {{signer: {SIGNER}}}
security:
  attestation:
    one_time_password_shared_secret: $$SCONE::otp:base32nopad$$
    must_be_sgx_local: true
    min_rsa_signing_key_size: 2048
    certificates: $$SCONE::cas$$
    url: $$SCONE::url$$
    tolerate: $$SCONE::tolerate$$
    ignore_advisories: $$SCONE::advisories$$
    mode: $$SCONE::mode$$
  service_access_token: $$SCONE::pw$$
  singleton_enclaves: true
access_policy:
  list_sessions: ANY
  create_sessions: {{require-all: [CREATOR, $$SCONE::pw$$]}}
  update: [{{require-at-least-1: [{{signer: {SIGNER}}}]}}, CREATOR]
  read: NONE
volumes:
- {{fspf_tag: {"AB" * 16}, fspf_key: $$SCONE::key$$, files: authenticated-only, name: given,
   export: [{{session: x}}, {{volume_alias: al, update_policy: ephemeral, to: {{session_hash: {A}, session: ../y}}}},
            {{to: {{session: z}}, update_policy: rollback_protected}}]}}
- {{name: made, files: encrypted}}
- {{name: theirs, import: {{volume: v, session_hash: {A.upper()}, session: ./below}}}}
services:
- one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ
  attestation: [$$SCONE::variant$$, {{signer: $$SCONE::signer$$, mrenclave: $$SCONE::many$$}}]
  fspf_update_policy: no_rollback_protection
  fspf_tag: {"AB" * 16}
  fspf_key: $$SCONE::key$$
  fspf_path: /fspf
  pwd: /
  command: a
  platforms: INTEL_QE_ID:{"AB" * 16}
  name: s
secret_config: {{store_in: !akv {{vault: v.vault.azure.net, token: $$SCONE::aad$$}}}}
secrets:
- {{name: key, size: 32, kind: binary, export_public: true, export: {{namespace: ..}}}}
- {{name: otp, kind: binary}}
- {{name: pw, kind: ascii, export: /session=b, import_akv: {{decryption_key: $$SCONE::key$$, token: $$SCONE::aad$$,
    secret_name: n, vault: v.vault.azure.net}}}}
- {{name: imp, size: 3, kind: ascii, import: {{cas_key: {KEY_HASH}, cas_url: https://CAS.example.com/,
    session_hash: {A}, secret: t, session: u}}, export: [/session=b]}}
- {{name: san, kind: x509, san: "dns:a", private_key: k}}
- {{name: k, kind: private-key, key_type: P-384}}
- {{name: pub, kind: public-key, private_key: k}}
- {{name: aad, kind: aad-token, application_secret: s, client_id: c, tenant_id: t}}
- {{name: pgp, kind: pgp-key}}
- {{name: jwt, kind: jwt, payload: {{b: x, a: $$SCONE::pw$$}}, validity: {{for: 365 days}}, alg: ES384, signer: k}}
- {{name: empty, kind: config-fragment, value: []}}
- {{name: many, kind: config-fragment, value: {{b: [007, 7, true, ~, 1.5, "7"], a: !!str 7}}}}
- {{name: variant, import: {{session: a, secret: b}}}}
- {{name: signer, import: {{session: a, secret: b}}}}
- {{name: cas, import: {{session: a, secret: b}}}}
- {{name: url, import: {{session: a, secret: b}}}}
- {{name: tolerate, import: {{session: a, secret: b}}}}
- {{name: advisories, import: {{session: a, secret: b}}}}
- {{name: mode, import: {{session: a, secret: b}}}}
images:
- provide_secrets: []
  volumes: [{{update_policy: ephemeral, path: /m, name: made}},
   {{update_policy: rollback_protected, path: /g, name: given}}]
  injection_files: [/f, {{permission: 0o400, path: /g}}]
  name: i
salt: {"AB" * 16}
namespace_hash: {A.upper()}
name: ns/me
version: "0.3.12"
"""
    reference = {"import": {"session": "a", "secret": "b"}}
    expected = {
        "version": "0.3.12",
        "name": "ns/me",
        "predecessor": None,
        "namespace_hash": A,
        "salt": "ab" * 16,
        "images": [
            {
                "name": "i",
                "injection_files": [{"path": "/f"}, {"path": "/g", "permission": 0o400}],
                "volumes": [
                    {"name": "made", "path": "/m", "update_policy": "ephemeral"},
                    {"name": "given", "path": "/g"},
                ],
                "provide_secrets": [],
            }
        ],
        "secrets": [
            {"name": "key", "export": [{"namespace": "ns"}], "export_public": True, "kind": "binary", "size": 32},
            {"name": "otp", "kind": "binary", "size": 20},
            {
                "name": "pw",
                "export": [{"session": "b"}],
                "import_akv": {
                    "vault": "v.vault.azure.net",
                    "secret_name": "n",
                    "token": "$$SCONE::aad$$",
                    "decryption_key": "$$SCONE::key$$",
                },
                "kind": "ascii",
            },
            {
                "name": "imp",
                "export": [{"session": "b"}],
                "import": {
                    "session": "u",
                    "secret": "t",
                    "session_hash": A,
                    "cas_url": "cas.example.com:8081",
                    "cas_key": KEY_HASH,
                },
                "kind": "ascii",
                "size": 3,
            },
            {"name": "san", "kind": "x509", "private_key": "k", "san": ["dns:a"]},
            {"name": "k", "kind": "private-key", "key_type": "P-384", "migrate": False},
            {"name": "pub", "kind": "public-key", "private_key": "k"},
            {"name": "aad", "kind": "aad-token", "tenant_id": "t", "client_id": "c", "application_secret": "s"},
            {"name": "pgp", "kind": "pgp-key"},
            {
                "name": "jwt",
                "kind": "jwt",
                "signer": "k",
                "alg": "ES384",
                "validity": {"for": "11months 30days 3h 50m 24s"},
                "payload": {"a": "$$SCONE::pw$$", "b": "x"},
            },
            {"name": "empty", "kind": "config-fragment", "value": []},
            {"name": "many", "kind": "config-fragment", "value": {"a": "7", "b": ["007", 7, True, None, "1.5", "7"]}},
            *(
                {"name": name, **reference}
                for name in ("variant", "signer", "cas", "url", "tolerate", "advisories", "mode")
            ),
        ],
        "secret_config": {"store_in": {"akv": {"token": "$$SCONE::aad$$", "vault": "v.vault.azure.net"}}},
        "services": [
            {
                "name": "s",
                "platforms": ["INTEL_QE_ID:" + "ab" * 16],
                "command": "a",
                "pwd": "/",
                "fspf_path": "/fspf",
                "fspf_key": "$$SCONE::key$$",
                "fspf_tag": "ab" * 16,
                "fspf_update_policy": "no_rollback_protection",
                "persistency": "None",
                "attestation": [
                    "$$SCONE::variant$$",
                    {"mrenclave": ["$$SCONE::many$$"], "signer": "$$SCONE::signer$$"},
                ],
                "one_time_password_shared_secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            }
        ],
        "volumes": [
            {
                "name": "given",
                "export": [
                    {"session": "x"},
                    {
                        "to": {"session": "ns/y", "session_hash": A},
                        "update_policy": "ephemeral",
                        "volume_alias": "al",
                    },
                    {"session": "z"},
                ],
                "fspf_key": "$$SCONE::key$$",
                "fspf_tag": "ab" * 16,
                "files": "authenticated-only",
            },
            {"name": "made"},
            {"name": "theirs", "import": {"session": "ns/me/below", "volume": "v", "session_hash": A}},
        ],
        "access_policy": {
            "read": ["NONE"],
            "update": [{"require-at-least-1": [{"signer": SIGNER}]}, "CREATOR"],
            "create_sessions": [{"require-all": ["CREATOR", "$$SCONE::pw$$"]}],
            "list_sessions": ["ANY"],
        },
        "security": {
            "singleton_enclaves": True,
            "service_access_token": "$$SCONE::pw$$",
            "attestation": {
                "mode": "$$SCONE::mode$$",
                "tolerate": ["$$SCONE::tolerate$$"],
                "ignore_advisories": ["$$SCONE::advisories$$"],
                "url": "$$SCONE::url$$",
                "certificates": ["$$SCONE::cas$$"],
                "min_rsa_signing_key_size": 2048,
                "must_be_sgx_local": True,
                "one_time_password_shared_secret": "$$SCONE::otp:base32nopad$$",
            },
        },
        "creator": {"signer": SIGNER},
    }
    assert json.loads(normal(text)) == json.loads(json.dumps(expected))
    assert normal(text) == json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    parsed = parse_session(text)
    assert "\nsecret_config:\n  store_in: !akv\n    token: $$SCONE::aad$$\n" in parsed.text
    assert parse_session(parsed.text).session == parsed.session


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("access_policy: {read: NONE}", "access_policy: {read: [NONE], update: [CREATOR]}"),
        ("predecessor: ", "services: []\nsecrets: []\nimages: []\naccess_policy: {}"),
        ("security: {attestation: {mode: hardware}}", "security: {attestation: {tolerate: [], ignore_advisories: ~}}"),
        (
            "secrets: [{name: s, kind: ascii, size: 20}]",
            "secrets: [{'kind': \"ascii\", export_public: false, name: s}]",
        ),
        ("secrets: [{name: s, kind: ascii, value: ab, size: 2}]", "secrets: [{name: s, kind: ascii, value: 'ab'}]"),
        ("services: [{name: s, mrenclaves: [" + A + "]}]", "services: [{name: s, mrenclaves: ['" + A.upper() + "']}]"),
        (
            "services: [{name: s, attestation: {mrenclave: " + A + "}, persistency: None}]",
            "services: [{name: s, attestation: [{mrenclave: [" + A + "]}], environment: {}}]",
        ),
    ],
)
def test_spellings_that_say_the_same_have_the_same_hash(one: str, other: str) -> None:
    assert normal(HEAD + one) == normal(HEAD + other)


def test_a_session_without_version_stays_without() -> None:
    assert (
        normal("name: a") == '{"name":"a","predecessor":null,"access_policy":{"read":["CREATOR"],"update":["CREATOR"]}}'
    )


def test_the_float_version_is_text() -> None:
    assert normal("name: a\nversion: 0.3").startswith('{"version":"0.3",')
    assert "version: '0.3'\n" in parse_session("name: a\nversion: 0.3").text


def test_json_escapes_only_what_it_must() -> None:
    text = '"\\/\n\r\t\b\f\x01\x1f\x7fé😀\u2028'
    assert canonical_json({"a": text}).decode() == '{"a":"\\"\\\\/\\n\\r\\t\\b\\f\\u0001\\u001f\x7fé😀\u2028"}'
    assert session_hash({"a": 1}) == hashlib.sha256(b'{"a":1}').digest()


def test_absent_members_are_left_out_and_falsehoods_kept() -> None:
    assert present(a=None, b=[], c={}, d="", e=False, f=0) == {"d": "", "e": False, "f": 0}


def test_nodes_are_counted_as_yaml_counts_them() -> None:
    assert count_nodes({"a": [1, {"b": None}], "c": "x"}) == 9
    assert count_nodes({}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": "b"}, "a: b\n"),
        ({"a": None, "b": True, "c": False, "d": 7, "e": Octal(0o400)}, "a: null\nb: true\nc: false\nd: 7\ne: 0o400\n"),
        ({"a": [1, [2, 3], {"b": "c", "d": "e"}]}, "a:\n- 1\n- - 2\n  - 3\n- b: c\n  d: e\n"),
        ({"a": {}, "b": []}, "a: {}\nb: []\n"),
        ({"a": "x\ny\n"}, "a: |\n  x\n  y\n"),
        ({"a": "x\n\n\ty z"}, "a: |-\n  x\n\n  \ty z\n"),
        ({"a": [{"b": "x\ny"}]}, "a:\n- b: |-\n    x\n    y\n"),
        ({"a": "x\n\n"}, 'a: "x\\n\\n"\n'),
        ({"a": " x\ny"}, 'a: " x\\ny"\n'),
        ({"a": "x\n \ny"}, 'a: "x\\n \\ny"\n'),
        ({"a": "x\r\n"}, 'a: "x\\r\\n"\n'),
        ({"a": "0.3.10", "b": "0.3", "c": "3306", "d": "1:30"}, "a: 0.3.10\nb: '0.3'\nc: '3306'\nd: '1:30'\n"),
        ({"a": "._", "b": ".5", "c": "./x", "d": ".a"}, "a: '._'\nb: '.5'\nc: ./x\nd: .a\n"),
        ({"a": "yes", "b": "Null", "c": "", "d": "~", "e": "None"}, "a: 'yes'\nb: 'Null'\nc: ''\nd: '~'\ne: None\n"),
        ({"a": "$$SCONE::x:pem$$", "b": "\\@\\@H", "c": "@@1"}, "a: $$SCONE::x:pem$$\nb: \\@\\@H\nc: '@@1'\n"),
        ({"a": "x: y", "b": "x #y", "c": "x:", "d": "it's"}, "a: 'x: y'\nb: 'x #y'\nc: 'x:'\nd: it's\n"),
        ({"a": "\u202e\u2028\x85\ufeff\U000e0001é"}, 'a: "\\u202e\\u2028\\x85\\ufeff\\U000e0001é"\n'),
        ({"k" * 1001: "x", "l" * 1001: ["z"]}, f"? {'k' * 1001}\n: x\n? {'l' * 1001}\n:\n- z\n"),
    ],
)  # fmt: skip
def test_the_text_reads_back_with_every_parser(value: dict[str, JsonValue], text: str) -> None:
    assert write_yaml(value) == text
    assert other_parser(text, (1, 2)) == value
    if "0o" not in text:
        assert other_parser(text, (1, 1)) == value


def test_the_text_gives_the_hash_to_whoever_reads_it_as_yaml_and_writes_it_as_json() -> None:
    parsed = parse_session(
        f"{HEAD}images: [{{name: i, injection_files: [{{path: /f, content: '1', permission: 0o440}}]}}]\n"
        f"services: [{{name: '007', mrenclaves: [{'1' * 64}], command: [x, 3306, yes], environment: {{'1': 1e3}}}}]"
    )
    again = json.dumps(other_parser(parsed.text, (1, 2)), ensure_ascii=False, separators=(",", ":"))
    assert hashlib.sha256(again.encode()).digest() == parsed.hash
    assert "permission: 0o440" in parsed.text
