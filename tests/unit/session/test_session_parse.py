"""The session as a whole: versions, names, predecessor, creator, all mistakes at once."""

from __future__ import annotations

import pytest
from tests.unit.session import pki
from tests.unit.session.texts import HEAD, A, mistake, mistakes, quiet, quoted, warning

from ostiary.errors import InputError, SessionFormatError, TooLargeError
from ostiary.session import Session, parse_session, with_creator

HASH = "1e2952b478968fb69e105423445683880726a3929232c26772e629d7ecf762cd"
CLOSED = "access_policy: {read: NONE, update: NONE}\n"


def test_the_smallest_session_is_a_name_and_a_version() -> None:
    assert quiet('name: smallest\nversion: "0.3.10"').session == Session(version="0.3.10", name="smallest")


@pytest.mark.parametrize("spelling", ["0.3", '"0.3"', "0.2", '"0.2"', *(f"0.3.{n}" for n in range(13)), "'0.3.7'"])
def test_versions_are_known_by_their_spelling(spelling: str) -> None:
    assert quiet(f"name: a\nversion: {spelling}").session.version == spelling.strip("\"'")


@pytest.mark.parametrize("spelling", ["0.3.13", "0.4", "1", '""', "0.30", "0.1", "[0.3]", "v0.3", "$V"])
def test_other_versions_are_refused_with_the_known_ones(spelling: str) -> None:
    assert "expected a version out of 0.2, 0.3, 0.3.0, 0.3.1" in mistake(f"name: a\nversion: {spelling}", "version")


@pytest.mark.parametrize("text", ["name: a", "name: a\nversion: ~"])
def test_a_missing_version_is_0_1_with_a_warning_that_shows_the_line_to_add(text: str) -> None:
    assert 'add the line version: "0.3.12"' in warning(text, "version")
    assert parse_session(text).session.version == "0.1"


def test_what_only_a_missing_version_makes_wrong_is_one_mistake() -> None:
    text = (
        f"name: a\nservices:\n- {{name: s, command: a @@1, attestation: {{mrenclave: {A}}}}}\n"
        "secrets: [{name: k, kind: private-key}, {name: c, kind: x509, private_key: k, dns: a}]\n"
        "security: {attestation: {tolerate: [debug-mode]}}\n"
    )
    message = mistake(text, "version")
    assert "0.1 is assumed" in message
    assert "line 3" in message
    assert 'add the line version: "0.3.8"' in message


@pytest.mark.parametrize(
    ("text", "version", "path", "needed"),
    [
        ("security: {attestation: {mode: none, tolerate: [debug-mode]}}", "0.2", "security", "0.3.1"),
        ("security: {}", "0.3.0", "security", "0.3.1"),
        ("secrets: [{name: k, kind: private-key}]", "0.2", "secrets[0].kind", "0.3.0"),
        ("secrets: [{name: k, kind: private-key, key_type: P-384}]", "0.3.3", "secrets[0].key_type", "0.3.4"),
        ("secrets: [{name: k, kind: private-key, key_type: RSA-2048}]", "0.3.6", "secrets[0].key_type", "0.3.7"),
        ("secrets: [{name: k, kind: private-key, migrate: true}]", "0.3.6", "secrets[0].migrate", "0.3.7"),
        (
            f"services: [{{name: s, attestation: {{mrenclave: {A}}}}}]",
            "0.3.6",
            "services[0].attestation",
            "0.3.7",
        ),
        (
            "images: [{name: i, injection_files: [{path: /a, content: x, permission: 0o400}]}]",
            "0.3.9",
            "images[0].injection_files[0].permission",
            "0.3.10",
        ),
        (
            "images: [{name: i, injection_files: [{path: /a, content: x, permission: 0o400}]}]",
            "0.3",
            "images[0].injection_files[0].permission",
            "0.3.10",
        ),
    ],
)
def test_a_key_needs_the_version_that_brought_it(text: str, version: str, path: str, needed: str) -> None:
    def session(version: str) -> str:
        return f'name: a\nversion: "{version}"\n{text}'

    message = mistake(session(version), path)
    assert f'needs version {needed}, found {version}; write version: "{needed}"' in message
    parse_session(session(needed))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a b", 'with the character " "'),
        ("ä", "with the character"),
        ('"a\\u202eb"', "with the character"),
        ("$SESSION", "template variable not replaced?"),
        ('""', "empty name"),
        ("[a]", "found a list, expected text"),
        ("..", "which is no name"),
        ("a//b", "joined by single slashes"),
        ("/a", "joined by single slashes"),
        ("a/", "joined by single slashes"),
        ("a/../b", "joined by single slashes"),
        ("a/b c", "with the character"),
        ("a/" + "b" * 511, "a name of 513 characters, at most 512"),
        ("a" * 513, "a name of 513 characters, at most 512"),
        ("~", "name is missing"),
    ],
)
def test_wrong_names_are_refused(name: str, says: str) -> None:
    assert says in mistake(f'version: "0.3.12"\nname: {name}', "name")


def test_a_name_may_have_512_characters_of_the_alphabet() -> None:
    name = "aZ0_-.~" * 73 + "a"
    assert quiet(f'version: "0.3.12"\nname: {name}').session.name == name
    assert quiet('version: "0.3.12"\nname: 007').session.name == "007"


def test_the_predecessor_is_64_hex_digits_or_absent() -> None:
    assert quiet(f"{HEAD}predecessor: {HASH.upper()}").session.predecessor == bytes.fromhex(HASH)
    assert quiet(f"{HEAD}predecessor: {'1' * 64}").session.predecessor == b"\x11" * 32
    assert quiet(f"{HEAD}predecessor: ~").session.predecessor is None
    assert "(63 characters), expected 64 hex digits" in mistake(f"{HEAD}predecessor: {HASH[1:]}", "predecessor")
    assert "template variable not replaced?" in mistake(f"{HEAD}predecessor: $PREDECESSOR", "predecessor")
    assert "expected 64 hex digits" in mistake(f"{HEAD}predecessor: [x]", "predecessor")
    assert "a variable cannot stand here" in mistake(f"{HEAD}predecessor: $$SCONE::x$$", "predecessor")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_text() -> None:
    text = (
        "secret: []\n"
        'version: "0.3.12"\n'
        "name: a b\n"
        "services:\n"
        "- name: s\n"
        "  comand: x\n"
        "  environment: [A=b]\n"
        f"  attestation: {{signer: {{mrsinger: {A}, isvprodid: 1}}}}\n"
        "access_policy: {read: [ANY, CREATOR]}\n"
        "name: twice\n"
    )
    with pytest.raises(SessionFormatError) as caught:
        parse_session(text)
    assert caught.value.message == "the session has 8 mistakes"
    assert [(finding.line, finding.path) for finding in caught.value.findings] == [
        (1, "secret"),
        (3, "name"),
        (6, "services[0].comand"),
        (7, "services[0].environment"),
        (8, "services[0].attestation.signer.mrsigner"),
        (8, "services[0].attestation.signer.mrsinger"),
        (9, "access_policy.read[0]"),
        (10, "name"),
    ]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("secret", "did you mean secrets?"),
        ("acces_policy", "did you mean access_policy?"),
        ("xyz", "expected one of version, name"),
        ("digest", "unknown key"),
        ("exports", "unknown key"),
    ],
)
def test_keys_are_never_ignored(key: str, says: str) -> None:
    assert says in mistake(f"{HEAD}{key}: x", key)


def test_sections_are_lists() -> None:
    for section in ("services", "secrets", "images"):
        assert f"expected a list of {section}" in mistake(f"{HEAD}{section}: x", section)
        quiet(f"{HEAD}{section}: []")
        quiet(f"{HEAD}{section}: ")


def test_a_creator_is_kept_byte_for_byte_if_the_policy_names_it() -> None:
    pem = pki.certificate_pem()
    assert quiet(f"{HEAD}creator: {quoted(pem)}").session.creator == pem
    windows = pem.replace("\n", "\r\n")
    parsed = quiet(f"{HEAD}creator: {quoted(windows)}")
    assert parsed.session.creator == windows
    assert parse_session(parsed.text).session.creator == windows
    closed = f"{HEAD}{CLOSED}creator: {quoted(pem)}"
    assert "creator is left out" in warning(closed, "creator")
    assert parse_session(closed).session.creator is None
    assert parse_session(closed).hash == parse_session(HEAD + CLOSED).hash


@pytest.mark.parametrize(
    ("creator", "path", "says"),
    [
        ("me", "creator", "found no PEM block; leave creator out"),
        ("{signer: x}", "creator.signer", "no public key of a signer"),
        ("{}", "creator.signer", "signer is missing"),
        ("[x]", "creator", "found a list, expected text"),
    ],
)
def test_wrong_creators_are_refused(creator: str, path: str, says: str) -> None:
    assert any(finding.path == path and says in finding.message for finding in mistakes(f"{HEAD}creator: {creator}"))


def test_the_uploaders_certificate_is_recorded_exactly_if_the_policy_names_creator() -> None:
    first, second = pki.certificate_pem(), pki.certificate_pem("P-384")
    parsed = quiet(HEAD)
    recorded = with_creator(parsed, first)
    assert recorded.names_creator
    assert recorded.session.creator == first
    assert recorded.normal["creator"] == first
    assert list(recorded.normal)[-1] == "creator"
    assert parse_session(recorded.text) == recorded
    assert with_creator(recorded, second) == with_creator(parsed, second)
    assert with_creator(recorded, None) == parsed
    closed = quiet(HEAD + CLOSED)
    assert not closed.names_creator
    assert with_creator(closed, first) == closed


def test_a_creator_that_is_no_certificate_is_refused() -> None:
    for text in ("", "text", pki.public_pem(pki.private_key()), pki.certificate_pem() * 2):
        with pytest.raises(InputError, match="the creator's certificate: expected one PEM block CERTIFICATE"):
            with_creator(quiet(HEAD), text)


def test_a_session_whose_normal_form_could_not_be_read_back_is_too_large() -> None:
    many = "".join(f"- {{name: s{n}, kind: ascii}}\n" for n in range(1_500))
    with pytest.raises(TooLargeError, match="10517 nodes in normal form, at most 10000"):
        parse_session(f"{HEAD}secrets:\n{many}")
    long = f"{HEAD}secrets: [{{name: s, kind: ascii, value: {'x' * 1_048_500}}}]"
    with pytest.raises(TooLargeError, match="bytes in normal form, at most 1048576"):
        parse_session(long)


def test_0_2_takes_any_order_of_its_old_forms() -> None:
    text = (
        'name: old\nversion: "0.2"\n'
        f"services: [{{name: db, mrenclaves: [{A}], command: db x, pwd: /, image_name: i}}]\n"
        "secrets: [{name: raw, kind: binary, size: 32}, {name: pw, kind: ascii, export_public: true}]\n"
        "images: [{name: i, injection_files: [{path: /k, content: $$SCONE::raw.hex$$ $$SCONE::pw$$}]}]\n"
        "access_policy: {read: [CREATOR], update: [CREATOR]}\n"
    )
    assert quiet(text).session.services[0].name == "db"
