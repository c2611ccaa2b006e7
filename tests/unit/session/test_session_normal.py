"""The normal form: hash, order of members, and the text that reads back to the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.unit.session import pki
from tests.unit.session.texts import HEAD, A, B, quoted

from ostiary.session import JsonValue, parse_session
from ostiary.session.normal import Octal, canonical_json, count_nodes, present, session_hash
from ostiary.session.yaml_text import write_yaml

VECTORS = Path(__file__).parents[2] / "vectors" / "session-hash"


def normal(text: str) -> str:
    return canonical_json(parse_session(text).normal).decode()


def other_parser(text: str, version: tuple[int, int]) -> object:
    """What a common YAML parser reads."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    return yaml.load(text)


@pytest.mark.parametrize(
    "folder", sorted(path for path in VECTORS.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_published_sessions_have_their_published_hash(folder: Path) -> None:
    text = (folder / "session.yml").read_text()
    parsed = parse_session(text)
    assert parsed.hash.hex() == (folder / "hash.txt").read_text().strip()
    assert parsed.text == text


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
