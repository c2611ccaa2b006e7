"""Secrets: kinds, values, parameters, references between them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.session import pki
from tests.unit.session.texts import mistake, mistakes, quiet, quoted, secrets, warning

from ostiary.session import (
    AsciiSecret,
    BinarySecret,
    PrivateKeySecret,
    Secret,
    SessionCaSecret,
    X509CaSecret,
    X509Secret,
    parse_session,
)

KEY = "{name: k, kind: private-key}"
CA = "{name: ca, kind: x509-ca, private_key: k}"


def only(text: str) -> Secret:
    (found,) = parse_session(text).session.secrets
    return found


def last(*texts: str) -> Secret:
    return quiet(secrets(*texts)).session.secrets[-1]


def test_generated_texts_and_bytes_have_size_20_by_default() -> None:
    assert only(secrets("{name: s, kind: ascii}")) == AsciiSecret(name="s")
    assert only(secrets("{name: s, kind: binary}")) == BinarySecret(name="s")
    assert only(secrets("{name: s, kind: ascii, size: 65536}")) == AsciiSecret(name="s", size=65536)
    assert only(secrets("{name: s, kind: binary, size: 1, export_public: true}")) == BinarySecret(
        name="s", size=1, export_public=True
    )


def test_explicit_texts_keep_their_spelling() -> None:
    assert only(secrets(r'{name: s, kind: ascii, value: "two\nlines"}')) == AsciiSecret(
        name="s", value="two\nlines", size=9
    )
    assert only(secrets("{name: s, kind: ascii, value: 007, size: 3}")) == AsciiSecret(name="s", value="007", size=3)
    assert only(secrets("{name: s, kind: ascii, value: ''}")) == AsciiSecret(name="s", value="", size=0)
    assert only(secrets("{name: s, kind: ascii, value: ~}")) == AsciiSecret(name="s")
    placeholder = "$$SCONE::s$$"
    assert only(secrets(f"{{name: s, kind: ascii, value: '{placeholder}'}}")) == AsciiSecret(
        name="s", value=placeholder, size=12
    )


def test_explicit_bytes_are_hex_in_either_case() -> None:
    assert only(secrets("{name: s, kind: binary, value: DEADbeef}")) == BinarySecret(
        name="s", value=b"\xde\xad\xbe\xef", size=4
    )
    assert only(secrets("{name: s, kind: binary, value: 12e45678}")) == BinarySecret(
        name="s", value=bytes.fromhex("12e45678"), size=4
    )


def test_a_text_outside_ascii_is_a_warning() -> None:
    assert "not ASCII" in warning(secrets("{name: s, kind: ascii, value: Grüße}"), "secrets[0].value")


@pytest.mark.parametrize(
    ("secret", "path", "says"),
    [
        ("{kind: ascii}", "name", "name is missing"),
        ("{name: a b, kind: ascii}", "name", 'with the character " "'),
        ("{name: 'a:b', kind: ascii}", "name", 'with the character ":"'),
        ("{name: '$X', kind: ascii}", "name", "template variable not replaced?"),
        ("{name: s}", "kind", "kind is missing; expected one of ascii, binary"),
        ("{name: s, kind: x508}", "kind", 'unknown secret kind "x508": did you mean x509?'),
        ("{name: s, kind: passwd}", "kind", 'unknown secret kind "passwd"; expected one of'),
        ("{name: s, kind: ''}", "kind", "empty secret kind"),
        ("{name: s, kind: [ascii]}", "kind", "found a list, expected text"),
        ("{name: s, kind: jvt}", "kind", "did you mean jwt?"),
        ("{name: s, kind: session-ca}", "kind", "session-ca ended with 0.2"),
        ("{name: s, import: {session: a, secret: b}, value: x}", "value", "value is for secrets made here"),
        ("{name: s, kind: ascii, export: [{sesion: a}]}", "export[0].sesion", "did you mean session?"),
        ("{name: s, kind: ascii, valeu: x}", "valeu", "did you mean value?"),
        ("{name: s, kind: ascii, key_type: P-256}", "key_type", "key_type is not for secrets of kind ascii"),
        ("{name: s, kind: ascii, export_public: yes}", "export_public", "write true"),
        ('{name: s, kind: ascii, export_public: "true"}', "export_public", "without quotes; write true"),
        ("{name: s, kind: ascii, export_public: no}", "export_public", "write false"),
        ("{name: s, kind: ascii, size: 0}", "size", "from 1 to 65536"),
        ("{name: s, kind: ascii, size: 65537}", "size", "from 1 to 65536"),
        ("{name: s, kind: ascii, size: '20'}", "size", "expected a decimal number"),
        ("{name: s, kind: ascii, size: 0x10}", "size", "expected a decimal number"),
        ("{name: s, kind: ascii, size: [1]}", "size", "expected a decimal number"),
        ("{name: s, kind: ascii, value: abc, size: 4}", "size", "size is 4 and value has 3 characters"),
        ("{name: s, kind: ascii, value: [a]}", "value", "found a list, expected text"),
        ("{name: s, kind: binary, value: abcd, size: 4}", "size", "size is 4 and value has 2 bytes"),
        ("{name: s, kind: binary, value: abc}", "value", "the value is not hex"),
        ("{name: s, kind: binary, value: hello}", "value", "the value is not hex"),
        ("{name: s, kind: private-key, key_type: P-521}", "key_type", 'unknown key_type "P-521"'),
        ("{name: s, kind: private-key, key_type: RSA-4096}", "key_type", 'unknown key_type "RSA-4096"'),
        ("{name: s, kind: private-key, migrate: maybe}", "migrate", "expected true or false"),
        ("{name: s, kind: private-key, value: no pem}", "value", "expected one PEM block PRIVATE KEY (PKCS#8)"),
        ("{name: s, kind: private-key, value: [a]}", "value", "found a list, expected text"),
        ("{name: s, kind: x509}", "private_key", "private_key is missing"),
        ("{name: s, kind: x509-ca}", "private_key", "private_key is missing"),
        ("{name: s, kind: x509-ca, private_key: ''}", "private_key", "private_key is empty"),
        ("{name: s, kind: x509, value: text}", "value", "expected PEM blocks CERTIFICATE only, found no PEM block"),
        ("{name: s, kind: x509, value: [a]}", "value", "found a list, expected text"),
        ("text", "", "found \"text\", expected a mapping with the keys of secret"),
        ("~", "", "found nothing, expected a mapping with the keys of secret"),
    ],
)  # fmt: skip
def test_wrong_secrets_are_refused(secret: str, path: str, says: str) -> None:
    assert says in mistake(secrets(secret), f"secrets[0].{path}".removesuffix("."))


@pytest.mark.parametrize("value", ["hunter2", "-----BEGIN EC PRIVATE KEY-----hunter2"])
@pytest.mark.parametrize("kind", ["binary", "private-key", "x509"])
def test_messages_never_quote_a_secret(kind: str, value: str) -> None:
    for finding in mistakes(secrets(f"{{name: s, kind: {kind}, value: {value}}}")):
        assert "hunter2" not in str(finding)
    parsed = parse_session(secrets("{name: s, kind: ascii, value: hunter2}"))
    assert "hunter2" not in repr(parsed)


def test_names_of_secrets_are_unique() -> None:
    assert "line 4 has the same name" in mistake(
        secrets("{name: s, kind: ascii}", "{name: s, kind: binary}"), "secrets[1].name"
    )


def test_generated_private_keys_have_a_type_and_may_migrate() -> None:
    assert only(secrets(KEY)) == PrivateKeySecret(name="k")
    for key_type in ("P-256", "P-384", "Ed25519", "RSA-2048", "RSA-3072"):
        text = secrets(f"{{name: k, kind: private-key, key_type: {key_type}, migrate: true}}")
        assert only(text) == PrivateKeySecret(name="k", key_type=key_type, migrate=True)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "Ed25519", "RSA-2048"])
def test_explicit_private_keys_are_pkcs8_of_a_known_type(kind: str) -> None:
    pem = pki.pkcs8_pem(pki.private_key(kind))
    assert only(secrets(f"{{name: k, kind: private-key, value: {quoted(pem)}}}")) == PrivateKeySecret(
        name="k", key_type=kind, value=pem
    )


def test_other_explicit_private_keys_are_refused() -> None:
    def says(pem: str, more: str = "", path: str = "value") -> str:
        return mistake(secrets(f"{{name: k, kind: private-key, value: {quoted(pem)}{more}}}"), f"secrets[0].{path}")

    key = pki.private_key("P-256")
    pem = pki.pkcs8_pem(key)
    assert "found EC PRIVATE KEY; convert it: openssl pkcs8 -topk8" in says(pki.sec1_pem(key))
    assert "found PRIVATE KEY, PRIVATE KEY" in says(pem + pem)
    assert "found 4 blocks" in says(pem * 4)
    assert "cannot be read as one" in says(pem.replace("M", "N", 3))
    assert "found another type" in says(pki.pkcs8_pem(pki.private_key("secp256k1")))
    assert "at least 2048 bits, found 1024" in says(pki.pkcs8_pem(pki.private_key("RSA-1024")))
    assert "a value of type P-256" in says(pem, ", key_type: P-384", "key_type")


def test_a_public_private_key_is_a_warning() -> None:
    text = secrets("{name: k, kind: private-key, export_public: true}")
    assert "everyone may read this private-key" in warning(text, "secrets[0].export_public")


def test_generated_certificates_name_their_key_and_issuer() -> None:
    parameters = "common_name: web, endpoint: server, dns: [a, b.c, a], valid_for: 90 days, issuer: ca, private_key: k"
    assert last(KEY, CA, f"{{name: c, kind: x509, {parameters}}}") == X509Secret(
        name="c",
        private_key="k",
        issuer="ca",
        common_name="web",
        endpoint="server",
        dns=("a", "b.c", "a"),
        valid_for=timedelta(days=90),
    )
    assert last(KEY, "{name: c, kind: x509, private_key: k, dns: a, endpoint: ~}") == X509Secret(
        name="c", private_key="k", dns=("a",)
    )
    assert last(KEY, CA, "{name: d, kind: x509-ca, private_key: k, issuer: ca, valid_for: 1y}") == X509CaSecret(
        name="d", private_key="k", issuer="ca", valid_for=timedelta(days=365.25)
    )


@pytest.mark.parametrize(
    ("secret", "path", "says"),
    [
        ("{name: c, kind: x509, private_key: x}", "private_key", 'there is no secret "x"'),
        ("{name: c, kind: x509, private_key: kk}", "private_key", 'there is no secret "kk": did you mean k?'),
        (
            "{name: c, kind: x509, private_key: ca}",
            "private_key",
            '"ca" is of another kind; name a secret of kind private-key',
        ),
        ("{name: c, kind: x509, private_key: k, issuer: x}", "issuer", 'there is no secret "x"; expected one of ca'),
        (
            "{name: c, kind: x509, private_key: k, issuer: k}",
            "issuer",
            '"k" is of another kind; name a secret of kind x509-ca',
        ),
        (
            "{name: c, kind: x509, private_key: k, issuer: leaf}",
            "issuer",
            '"leaf" is of another kind; name a secret of kind x509-ca',
        ),
        ("{name: c, kind: x509-ca, private_key: k, issuer: c}", "issuer", "issuers in a circle, c → c"),
        ("{name: c, kind: x509-ca, private_key: k, dns: a}", "dns", "dns is not for secrets of kind x509-ca"),
        (
            "{name: c, kind: x509-ca, private_key: k, endpoint: server}",
            "endpoint",
            "endpoint is not for secrets",
        ),
        ("{name: c, kind: x509, private_key: k, endpoint: client, dns: a}", "dns", "endpoint is client"),
        (
            "{name: c, kind: x509, private_key: k, endpoint: both}",
            "endpoint",
            'unknown endpoint "both"',
        ),
        ("{name: c, kind: x509, private_key: k, dns: ['a b']}", "dns[0]", "expected a DNS name"),
        ("{name: c, kind: x509, private_key: k, dns: [~]}", "dns[0]", "found nothing, expected text"),
        ("{name: c, kind: x509, private_key: k, valid_for: 3 parsecs}", "valid_for", "unknown unit parsecs"),
        ("{name: c, kind: x509, private_key: k, valid_for: [1y]}", "valid_for", "found a list, expected text"),
        ("{name: c, kind: x509, private_key: k, san: [a]}", "san[0]", 'expected "dns:<name>" or "ip:<address>"'),
        ("{name: c, kind: x509, private_key: k, common_name: ''}", "common_name", "common_name is empty"),
        ("{name: c, kind: x509, private_keys: k}", "private_keys", "did you mean private_key?"),
    ],
)
def test_wrong_certificates_are_refused(secret: str, path: str, says: str) -> None:
    leaf = "{name: leaf, kind: x509, private_key: k}"
    assert says in mistake(secrets(KEY, CA, leaf, secret), f"secrets[3].{path}")


def test_issuers_in_a_circle_are_refused_once() -> None:
    ring = [f"{{name: c{n}, kind: x509-ca, private_key: k, issuer: c{(n + 1) % 3}}}" for n in range(3)]
    entry = "{name: e, kind: x509-ca, private_key: k, issuer: c0}"
    assert "issuers in a circle, c0 → c1 → c2 → c0" in mistake(secrets(KEY, entry, *ring), "secrets[2].issuer")


def test_explicit_certificates_may_bring_a_chain_and_their_key() -> None:
    chain = pki.certificate_pem() + pki.certificate_pem("P-384")
    pem = pki.pkcs8_pem(pki.private_key())
    key = f"{{name: given, kind: private-key, value: {quoted(pem)}}}"
    assert last(f"{{name: c, kind: x509, value: {quoted(chain)}}}") == X509Secret(name="c", value=chain)
    assert last(key, f"{{name: c, kind: x509-ca, private_key: given, value: {quoted(chain)}}}") == X509CaSecret(
        name="c", private_key="given", value=chain
    )
    other = f"{{name: c, kind: x509, private_key: given, value: {quoted(pki.certificate_pem('P-384'))}}}"
    assert "is not the key of the certificate" in mistake(secrets(key, other), "secrets[1].private_key")
    broken = f"{{name: c, kind: x509, private_key: given, value: {quoted(chain.replace('M', 'N', 3))}}}"
    assert "cannot be read as one" in mistake(secrets(key, broken), "secrets[1].value")


def test_parameters_of_generation_do_not_go_with_an_explicit_certificate() -> None:
    given = f"{{name: c, kind: x509, value: {quoted(pki.certificate_pem())}, "
    assert "has its own dates" in mistake(secrets(given + "valid_for: 1y}"), "secrets[0].valid_for")
    assert "has no effect" in warning(secrets(given + "common_name: x}"), "secrets[0].common_name")


def test_a_ca_without_its_key_cannot_sign() -> None:
    ca = f"{{name: given, kind: x509-ca, value: {quoted(pki.certificate_pem())}}}"
    text = secrets(KEY, ca, "{name: c, kind: x509, private_key: k, issuer: given}")
    assert "so it cannot sign" in mistake(text, "secrets[2].issuer")


def test_certificates_of_0_2_have_a_key_of_their_own() -> None:
    text = secrets("{name: c, kind: x509}", "{name: d, kind: session-ca}", version="0.2")
    assert quiet(text).session.secrets == (X509Secret(name="c"), SessionCaSecret(name="d"))
