"""The features of the session language, row by row of its checklist, as far as the text of a session decides them.

A case is named after its row (F001 …). Modules beside this one test the same rules in more depth.
"""

# ruff: noqa: E501 - a row of a table is a line

from __future__ import annotations

import time

import pytest
from tests.unit.session import pki
from tests.unit.session.texts import HEAD, A, B, mistake, mistakes, note, quiet, quoted, secrets, warning

from ostiary.errors import InputError, SessionFormatError, TooLargeError
from ostiary.session import (
    AadTokenSecret,
    AccessPolicy,
    AkvSecret,
    AnySubject,
    AsciiSecret,
    BinarySecret,
    ConfigFragmentSecret,
    CreatorSubject,
    HostArgument,
    HostVariable,
    ImportedSecret,
    ImportedVolume,
    JwtSecret,
    KeyVault,
    NamespaceTarget,
    NoneSubject,
    ParsedSession,
    PublicKeySecret,
    RuleSubject,
    Security,
    SecurityAttestation,
    SessionCaSecret,
    SessionTarget,
    SignerSubject,
    SoftwareIdentity,
    Template,
    Variable,
    Variant,
    Volume,
    X509Secret,
    language,
    parse_session,
)
from ostiary.session.findings import MAX_SUGGESTIONS
from ostiary.session.placeholder import Placeholder

SIGNERS = (
    "MV3se6FuJ4oST18KpRhQMG9Hzk6gKCUbF2EhGQrEjLsoPpDRma",
    "MqGVR786CZmPNsYpaM9pCtdbELzPzbeKG6BRddZBeBpnKyf4Wq",
    "Lvu4BBphbNWtRHivuYsLwPjShQCGiWpGyCFr3vW3gCGweB77to",
)
RSA = "RSA-2048"
KEY_HASH = "3ZMFrfZK6ARfYRigpXravd3zKEK7p4UuE164ykEkYY5sSNwzGr"
OTP = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
KEY = "{name: k, kind: private-key}"
AAD = "{name: t, kind: aad-token, tenant_id: a, client_id: b, application_secret: c}"
TAG = "ab" * 16


def at(version: str, body: str, name: str = "test") -> str:
    return f'name: {name}\nversion: "{version}"\n{body}\n'


def app(*members: str, version: str = "0.3.12", more: str = "") -> str:
    """A session with one service that admits a program."""
    attestation = f"mrenclaves: [{A}]"
    return at(version, f"services:\n- {{name: app, pwd: /, {', '.join((attestation, *members))}}}\n{more}")


def security(text: str, version: str = "0.3.12") -> str:
    return at(version, f"security: {{attestation: {text}}}")


def volumes(text: str, version: str = "0.3.12") -> str:
    return at(version, f"volumes: [{text}]")


def images(text: str, more: str = "") -> str:
    return f"{HEAD}images: [{{name: i, {text}}}]\n{more}"


def policy(text: str, version: str = "0.3.12") -> str:
    return at(version, f"access_policy: {text}")


def only_service(text: str) -> tuple[object, ...]:
    (found,) = parse_session(text).session.services
    return found.command, dict(found.environment)


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ("F001", "", "", "the document is empty"),
    ("F001", "- a", "", "not a mapping"),
    ("F001", f"{HEAD}---\nname: b", "", "a second document begins here"),
    ("F002", f"{HEAD}secret: []", "secret", "did you mean secrets?"),
    ("F003", f"{HEAD}services: []\nservices: []", "services", "the same key stands on line 3"),
    ("F003", app('environment: {A: "1", A: "2"}'), "services[0].environment.A", "the same key"),
    ("F005", images("provide_secrets: "), "images[0].provide_secrets", "found nothing"),
    ("F005", app("platforms: ~"), "services[0].platforms", "no platform, which would admit all"),
    ("F005", security("{tolerate: [~]}"), "security.attestation.tolerate[0]", "found nothing"),
    ("F006", f"{HEAD}services: &a []\n<<: *a", "<<", "merge keys are not part of the language"),
    ("F005", security("{one_time_password_shared_secret: [x]}"), "security.attestation.one_time_password_shared_secret", "found a list, expected text"),
    ("F007", f"{HEAD}salt: !!python/object:os.system x", "salt", "has no meaning here"),
    ("F007", app("command: !foo a"), "services[0].command", "tag !foo has no meaning here"),
    ("F007", f"{HEAD}salt: !akv {TAG}", "salt", "tag !akv has no meaning here"),
    ("F008", f"{HEAD}x: {'[' * 65}{']' * 65}", None, "nested over 64 levels"),
    ("F008", app('command: ["a\\0"]'), "services[0].command[0]", "the text holds NUL"),
    ("F009", secrets("{name: s, kind: ascii, export_public: yes}"), "secrets[0].export_public", "write true"),
    ("F009", secrets('{name: s, kind: ascii, export_public: "true"}'), "secrets[0].export_public", "without quotes"),
    ("F011", policy("{update: [{signer: $voter1}]}"), "access_policy.update[0].signer", "template variable not repl"),
    ("F011", at("0.3.12", "predecessor: ${X}"), "predecessor", "template variable not replaced?"),
    ("F013", at("0.2", "security: {}"), "security", "security needs version 0.3.1, found 0.2"),
    *[
        ("F015", f'name: a\nversion: "{version}"', "version", "expected a version out of 0.2, 0.3, 0.3.0")
        for version in ("0.3.13", "0.4", "1", "", "0.1", "0.3.1.0", "v0.3")
    ],
    ("F016", secrets("{name: f, kind: config-fragment, value: [1]}", version="0.3"), "secrets[0].kind", "0.3.10"),
    ("F019", at("0.3.12", "", name="a b"), "name", 'with the character " "'),
    ("F019", at("0.3.12", "", name="a:b"), "name", 'with the character ":"'),
    ("F019", at("0.3.12", "", name="ä"), "name", 'with the character "ä"'),
    ("F020", at("0.3.12", "", name="a" * 513), "name", "at most 512"),
    ("F020", at("0.3.12", "", name="a/" * 256 + "b"), "name", "at most 512"),
    ("F021", at("0.3.4", "", name="a/b"), "name", "a namespace in a name needs version 0.3.5, found 0.3.4"),
    *[
        ("F022", at("0.3.12", "", name=name), "name", "segments joined by single slashes")
        for name in ("a//b", "a/../b", "/a", "a/", "./a", "a/.")
    ],
    ("F022", at("0.3.12", "", name=".."), "name", "which is no name"),
    ("F027", at("0.3.12", "secrets: [{name: x, import: {session: '../a b', secret: y}}]", name="ns/me"), "secrets[0].import.session", "with the character"),
    ("F023", at("0.3.10", "", name="/"), "name", "the root namespace needs version 0.3.11"),
    ("F026", secrets("{name: s, kind: ascii}", "{name: s, kind: ascii}"), "secrets[1].name", "the same name"),
    ("F026", volumes("{name: v}, {name: v}"), "volumes[1].name", "another volume on line 3 has the same name"),
    ("F026", f"{HEAD}images: [{{name: i}}, {{name: i}}]", "images[1].name", "another image"),
    ("F026", security("{mode: none}") + "services: [{name: a}, {name: a}]", "services[1].name", "another service"),
    *[
        ("F027", at("0.3.10", f"secrets: [{{name: x, import: {{session: {name}, secret: y}}}}]", name="ns/me"), path, says)
        for name, path, says in (
            ("../../../x", "secrets[0].import.session", "climbs above the root from session"),
            ("a/../b", "secrets[0].import.session", "segments joined by single slashes"),
            ("/./a", "secrets[0].import.session", "segments joined by single slashes"),
            (".../a b", "secrets[0].import.session", "with the character"),
        )
    ],
    ("F027", secrets("{name: x, import: {session: ./y, secret: z}}", version="0.3.9"), "secrets[0].import.session", "0.3.10"),
    ("F031", at("0.3.12", f"predecessor: {A[1:]}"), "predecessor", "(63 characters), expected 64 hex digits"),
    ("F031", at("0.3.12", "predecessor: xyz"), "predecessor", "expected 64 hex digits"),
    ("F034", at("0.3.11", f"predecessor: {A}\nnamespace_hash: {B}", name="a/b"), "namespace_hash", "for the first version"),
    ("F035", f"{HEAD}salt: {TAG[1:]}", "salt", "(31 characters), expected 32 hex digits"),
    ("F035", at("0.3.11", f"salt: {TAG}"), "salt", "salt needs version 0.3.12, found 0.3.11"),
    ("F043", f"{HEAD}services: [{{mrenclaves: [{A}]}}]", "services[0].name", "name is missing"),
    ("F043", f"{HEAD}services: [{{name: a/b, mrenclaves: [{A}]}}]", "services[0].name", 'with the character "/"'),
    ("F049", app(f"fspf_key: {A}"), "services[0]", "fspf_key belongs to a main file system; add fspf_path"),
    ("F049", app(f"fspf_tag: {TAG}"), "services[0]", "fspf_tag belongs to a main file system"),
    ("F049", app(f"fspf_path: /f, fspf_tag: {TAG}"), "services[0].fspf_key", "fspf_key is missing"),
    ("F049", app(f"fspf_path: /f, fspf_key: {A[1:]}, fspf_tag: {TAG}"), "services[0].fspf_key", "64 hex digits"),
    ("F050", app(f"fspf_path: /f, fspf_key: $$SCONE::b$$, fspf_tag: {TAG}", more="secrets: [{name: b, kind: binary}]"),
     "services[0].fspf_key", "has 20 bytes, expected 32; set size: 32"),
    ("F050", app(f"fspf_path: /f, fspf_key: $$SCONE::b:hex$$, fspf_tag: {TAG}", more="secrets: [{name: b, kind: ascii}]"),
     "services[0].fspf_key", "kind ascii has no format"),
    ("F050", app(f"fspf_path: /f, fspf_key: $$SCONE::b$$, fspf_tag: {TAG}", more="secrets: [{name: b, kind: ascii}]"),
     "services[0].fspf_key", "expected a binary secret of 32 bytes"),
    ("F050", app(f"fspf_path: /f, fspf_key: $$SCONE::b$$, fspf_tag: {TAG}", version="0.3.4",
                 more="secrets: [{name: b, kind: binary, size: 32}]"), "services[0].fspf_key", "0.3.5"),
    ("F051", app(f"fspf_path: /f, fspf_key: {A}, fspf_tag: {TAG}, fspf_update_policy: ephemeral"),
     "services[0].fspf_update_policy", 'unknown fspf_update_policy "ephemeral"'),
    ("F051", app(f"fspf_path: /f, fspf_key: {A}, fspf_tag: {TAG}, fspf_update_policy: rollback_protected"),
     "services[0].fspf_update_policy", "did you mean rollback_protected_reinitializable?"),
    ("F052", app(f"fspf_path: /f, fspf_key: {A}"), "services[0].fspf_tag", "or fspf_update_policy: no_rollback_protection"),
    ("F053", app("persistency: yes"), "services[0].persistency", "expected None"),
    ("F056", app("command: \"sh -c 'echo\""), "services[0].command", "the quote ' is not closed, at character 7"),
    ("F059", app('command: [a, "\\0"]'), "services[0].command[1]", "NUL"),
    ("F061", app('environment: {"A=B": c}'), "services[0].environment.A=B", "which no variable's name can have"),
    ("F061", app('environment: {A: "\\0"}'), "services[0].environment.A", "NUL"),
    ("F062", app("environment: [A=b]"), "services[0].environment", "environment is a mapping; write A: b"),
    ("F064", app('environment: {"": b}'), "services[0].environment.", "the name of the variable is empty"),
    ("F066", app("command: a @@1", version="0.3.7"), "services[0].command", "a host argument needs version 0.3.8"),
    ("F068", app("command: a @@1 @@1"), "services[0].command", "is there twice"),
    ("F070", app("command: a @@0"), "services[0].command", "count from @@1"),
    ("F072", app('environment: {"@@HOME": ""}'), "services[0].environment.@@HOME", "is written \\@\\@HOME"),
    ("F074", app("environment: {A: b, \\@\\@A: }"), "services[0].environment.\\@\\@A", "is also set by the session"),
    ("F077", at("0.3.7", f"services: [{{name: a, attestation: {{mrenclave: {A[2:]}}}}}]"),
     "services[0].attestation.mrenclave", "(62 characters), expected 64 hex digits"),
    *[
        ("F078", at("0.3.7", f"services: [{{name: a, attestation: {{signer: {signer}}}}}]"), f"services[0].attestation.signer.{path}", "is missing")
        for signer, path in ((f"{{mrsigner: {A}}}", "isvprodid"), ("{isvprodid: 1}", "mrsigner"))
    ],
    *[
        ("F081", at("0.3.7", f"services: [{{name: a, attestation: {{signer: {{mrsigner: {A}, isvprodid: 1, {bounds}}}}}}}]"),
         f"services[0].attestation.signer.{path}", says)
        for bounds, path, says in (
            ("isvsvn: 4, isvsvn_min: 2", "isvsvn", "exclude each other"),
            ("isvsvn_min: 4, isvsvn_max: 3", "isvsvn_min", "above isvsvn_max"),
        )
    ],
    ("F082", at("0.3.7", f"services: [{{name: a, attestation: {{signer: {{mrsigner: {A}, isvprodid: 1, isvsn_min: 2}}}}}}]"),
     "services[0].attestation.signer.isvsn_min", "did you mean isvsvn_min?"),
    ("F084", app(f"attestation: {{mrenclave: {A}}}"), "services[0].mrenclaves", "exclude each other"),
    *[
        ("F085", at("0.3.12", f"services: [{{name: a{more}}}]"), path, says)
        for more, path, says in (
            ("", "services[0]", "does not say which programs it admits"),
            (", attestation: []", "services[0].attestation", "would admit nobody"),
            (", attestation: {}", "services[0].attestation", "would admit every program"),
            (", mrenclaves: []", "services[0].mrenclaves", "would admit nobody"),
        )
    ],
    ("F086", app(version="0.3.9").replace(A, "$$SCONE::m$$") + "secrets: [{name: m, kind: ascii}]", "services[0].mrenclaves[0]", "0.3.10"),
    ("F086", app().replace(A, "$$SCONE::m$$") + "secrets: [{name: m, kind: binary, size: 32}]", "services[0].mrenclaves[0]", "is raw bytes"),
    ("F089", app("platforms: [INTEL_QE_ID:" + "a" * 31 + "]"), "services[0].platforms[0]", "INTEL_QE_ID: and 32 hex digits"),
    ("F089", app("platforms: []"), "services[0].platforms", "would admit none"),
    ("F091", secrets("{name: s}"), "secrets[0].kind", "kind is missing"),
    ("F092", secrets("{name: s, kind: passwd}"), "secrets[0].kind", 'unknown secret kind "passwd"'),
    ("F092", secrets("{name: s, kind: x508}"), "secrets[0].kind", "did you mean x509?"),
    ("F093", secrets("{name: s, kind: x510, import: {session: a, secret: b}}"), "secrets[0].kind", "did you mean x509?"),
    ("F095", secrets("{name: s, kind: ascii, size: 3, value: ab}"), "secrets[0].size", "size is 3 and value has 2"),
    ("F096", secrets("{name: s, kind: binary, value: abc}"), "secrets[0].value", "the value is not hex"),
    ("F097", at("0.3.5", f"secrets: [{{name: b, kind: binary}}]\nservices: [{{name: a, mrenclaves: [{A}], command: $$SCONE::b:base64$$}}]"),
     "services[0].command", "needs version 0.3.6"),
    ("F098", at("0.3.9", f"secrets: [{{name: b, kind: binary}}]\nservices: [{{name: a, mrenclaves: [{A}], command: $$SCONE::b:base32$$}}]"),
     "services[0].command", "needs version 0.3.10"),
    ("F099", secrets("{name: s, kind: private-key, key_type: P-521}"), "secrets[0].key_type", "unknown key_type"),
    ("F100", secrets("{name: s, kind: private-key, key_type: RSA-4096}"), "secrets[0].key_type", "unknown key_type"),
    ("F105", secrets("{name: s, kind: public-key}"), "secrets[0].private_key", "private_key is missing"),
    ("F105", secrets(KEY, f"{{name: p, kind: public-key, private_key: k, value: {quoted(pki.public_pem(pki.private_key()))}}}"), "secrets[1].private_key", "is not the private key of value"),
    ("F105", secrets("{name: s, kind: public-key, value: x}"), "secrets[0].value", "expected one PEM block PUBLIC KEY"),
    ("F106", secrets("{name: s, kind: public-key, private_key: k}", KEY, version="0.3.10"), "secrets[0].kind", "0.3.11"),
    ("F105", secrets("{name: s, kind: public-key, value: '-----BEGIN PUBLIC KEY-----'}"), "secrets[0].value", "cannot be read as one"),
    ("F105", secrets("{name: k, kind: private-key, value: '-----BEGIN PRIVATE KEY-----'}", f"{{name: p, kind: public-key, private_key: k, value: {quoted(pki.public_pem(pki.private_key()))}}}"),
     "secrets[0].value", "cannot be read as one"),
    ("F107", secrets("{name: c, kind: x509, private_key: i}", "{name: i, kind: ascii, import: {session: a, secret: b}}"), "secrets[0].private_key", "is of kind ascii"),
    ("F107", secrets("{name: c, kind: x509}"), "secrets[0].private_key", "private_key is missing"),
    ("F109", secrets(KEY, "{name: c, kind: x509, private_key: k}", "{name: d, kind: x509, private_key: k, issuer: c}"), "secrets[2].issuer", "name a secret of kind x509-ca"),
    ("F109", secrets(KEY, "{name: c, kind: x509-ca, private_key: k, issuer: c}"), "secrets[1].issuer", "issuers in a circle"),
    ("F111", secrets(KEY, "{name: c, kind: x509, private_key: k, endpoint: both}"), "secrets[1].endpoint", "unknown endpoint"),
    ("F112", secrets(KEY, "{name: c, kind: x509-ca, private_key: k, dns: d}"), "secrets[1].dns", "not for secrets of kind x509-ca"),
    ("F112", secrets(KEY, "{name: c, kind: x509, private_key: k, endpoint: client, dns: d}"), "secrets[1].dns", "endpoint is client"),
    ("F113", secrets(KEY, "{name: c, kind: x509, private_key: k, san: example.com}"), "secrets[1].san", 'write "dns:example.com"'),
    ("F113", secrets(KEY, "{name: c, kind: x509, private_key: k, san: [10.0.0.1]}"), "secrets[1].san[0]", 'write "ip:10.0.0.1"'),
    ("F113", secrets(KEY, '{name: c, kind: x509, private_key: k, san: ["ip:10.0.0.256"]}'), "secrets[1].san[0]", "an IPv4 or IPv6 address"),
    ("F113", secrets(KEY, '{name: c, kind: x509, private_key: k, san: ["ip:fe80::1%eth0"]}'), "secrets[1].san[0]", "a zone has no place"),
    ("F113", secrets(KEY, '{name: c, kind: x509, private_key: k, san: "dns:a"}', version="0.3.9"), "secrets[1].san", "0.3.10"),
    ("F114", secrets(KEY, '{name: c, kind: x509, private_key: k, dns: a, san: "dns:a"}'), "secrets[1].san", "dns and san exclude each other"),
    ("F115", secrets(KEY, "{name: c, kind: x509, private_key: k, valid_for: 59 parsecs}"), "secrets[1].valid_for", "unknown unit parsecs"),
    ("F116", secrets(f"{{name: c, kind: x509, value: {quoted(pki.certificate_pem())}, valid_for: 1d}}"), "secrets[0].valid_for", "has its own dates"),
    ("F116", secrets("{name: c, kind: x509, import: {session: a, secret: b}, valid_for: 1d}"), "secrets[0].valid_for", "is imported"),
    ("F122", secrets("{name: c, kind: session-ca}"), "secrets[0].kind", "session-ca ended with 0.2"),
    *[
        ("F123", secrets(f"{{name: t, kind: aad-token, tenant_id: a, client_id: b{more}}}"), path, says)
        for more, path, says in (
            ("", "secrets[0]", "exactly one credential"),
            (f", private_key: {quoted(pki.pkcs8_pem(pki.private_key(RSA)))}", "secrets[0]", "exactly one credential"),
            (f", certificate_thumbprint: {'ab' * 20}", "secrets[0]", "exactly one credential"),
            (f", private_key: {quoted(pki.pkcs8_pem(pki.private_key(RSA)))}, certificate_thumbprint: x", "secrets[0].certificate_thumbprint", "40 hex digits"),
            (f", private_key: {quoted(pki.pkcs8_pem(pki.private_key()))}, certificate_thumbprint: {'ab' * 20}", "secrets[0].private_key", "expected an RSA key"),
            (f", private_key: x, certificate_thumbprint: {'ab' * 20}", "secrets[0].private_key", "expected one PEM block"),
            (", application_secret: $$SCONE::x$$", "secrets[0].application_secret", "cannot be a variable"),
        )
    ],
    ("F123", secrets("{name: t, kind: aad-token, client_id: b, application_secret: c}"), "secrets[0].tenant_id", "tenant_id is missing"),
    ("F124", secrets("{name: f, kind: config-fragment}"), "secrets[0]", "has a value or an import"),
    ("F124", images("injection_files: [{path: /f, content: $$SCONE::f$$}]", "secrets: [{name: f, kind: config-fragment, value: x}]"),
     "images[0].injection_files[0].content", "in configuration sections only"),
    ("F125", secrets("{name: p, kind: pgp-key, value: x}"), "secrets[0].value", "value is not for secrets of kind pgp-key"),
    ("F125", images("injection_files: [{path: /f, content: $$SCONE::p$$}]", "secrets: [{name: p, kind: pgp-key}]"),
     "images[0].injection_files[0].content", 'kind pgp-key has no format ""'),
    *[
        ("F126", secrets("{name: k, kind: private-key, key_type: P-384}", KEY.replace("k,", "p,"), f"{{name: t, kind: jwt, {members}}}"), f"secrets[2]{path}", says)
        for members, path, says in (
            ("signer: k, alg: ES256, validity: {for: 1h}", ".alg", "expected one of ES384"),
            ("signer: k, alg: ES384, validity: {for: 0s}", ".validity.for", "more than zero"),
            ("signer: k, alg: ES384", ".validity", "validity is missing"),
            ("signer: k, validity: {for: 1h}", ".alg", "alg is missing"),
            ("alg: ES384, validity: {for: 1h}", ".signer", "signer is missing"),
            ("signer: p, alg: ES384, validity: {for: 1h}", ".signer", "is of type P-256, and ES384 needs P-384"),
            ("signer: t, alg: ES384, validity: {for: 1h}", ".signer", "name a secret of kind private-key"),
            ("signer: x, alg: ES384, validity: {for: 1h}", ".signer", 'there is no secret "x"'),
        )
    ],
    *[
        ("F127", secrets("{name: k, kind: private-key, key_type: P-384}", f"{{name: t, kind: jwt, signer: k, alg: ES384, validity: {{for: 1h}}, payload: {payload}}}"), f"secrets[1].payload{path}", says)
        for payload, path, says in (
            ("{exp: a}", ".exp", "exp is set by the service"),
            ("{nbf: a}", ".nbf", "nbf is set by the service"),
            ("{iat: a}", ".iat", "iat is set by the service"),
            ("{a: 1}", ".a", 'write "1" in quotes'),
            ("{a: true}", ".a", 'write "true" in quotes'),
            ("{a: {b: c}}", ".a", "found a mapping, expected text"),
            ("{a: ~}", ".a", "found nothing, expected text"),
            ("[a]", "", "expected a mapping of claims"),
            ("{a: $$SCONE::x$$}", ".a", "names a secret that is not in secrets"),
        )
    ],
    ("F129", app("command: $$SCONE::self::software_identity$$"), "services[0].command", "known only to the payload of a jwt"),
    ("F134", app("command: $$SCONE::s|escape(xml)$$", more="secrets: [{name: s, kind: ascii}]"), "services[0].command", "unknown encoding"),
    ("F134", app("command: $$SCONE::s|escape(json)$$", version="0.3.9", more="secrets: [{name: s, kind: ascii}]"), "services[0].command", "0.3.10"),
    ("F134", app("command: $$SCONE::s:bin|escape(json)$$", more="secrets: [{name: s, kind: binary}]"), "services[0].command", "an encoding needs text"),
    ("F135", app("environment: {A: $$SCONE::x$$}"), "services[0].environment.A", "names a secret that is not in secrets"),
    ("F136", app("command: $$SCONE::s:hex$$", more="secrets: [{name: s, kind: ascii}]"), "services[0].command", "kind ascii has no format"),
    ("F136", app("command: $$SCONE::s:hxe$$", more="secrets: [{name: s, import: {session: a, secret: b}}]"), "services[0].command", "no kind of secret has the format"),
    ("F136", app("command: $$SCONE::s.hxe$$", more="secrets: [{name: s, import: {session: a, secret: b}}]"), "services[0].command", "an import, has no format"),
    ("F137", policy('{read: ["$$SCONE::h"]}'), "access_policy.read[0]", "expected one placeholder and nothing else"),
    ("F137", at("0.3.12", 'security: "$$SCONE:h$$"'), "security", "expected one placeholder and nothing else"),
    ("F137", at("0.3.12", "security: {service_access_token: a$$SCONE::h$$}"), "security.service_access_token", "a variable is the whole value"),
    ("F142", images("injection_files: [{path: /f, permission: 400, content: x}]"), "images[0].injection_files[0].permission", "such as 0o400"),
    ("F142", images("injection_files: [{path: /f, permission: 0o1000, content: x}]"), "images[0].injection_files[0].permission", "from 0o000 to 0o777"),
    ("F144", images("provide_secrets: [pwd]", "secrets: [{name: pw, kind: ascii}]"), "images[0].provide_secrets[0]", "did you mean pw?"),
    *[
        ("F147", secrets(f"{{name: s, kind: ascii, export: {target}}}"), f"secrets[0].export{path}", says)
        for target, path, says in (
            ("{}", "", "session is missing"),
            ('{session: ""}', ".session", "session is empty; name one"),
            ('{namespace: ""}', ".namespace", "namespace is empty; name one"),
            ("[{session: a, namespace: b}]", "[0].namespace", "exclude each other"),
            ("[{to: {session: a}}]", "[0].to", "to: is for volumes"),
            ("[{session: a b}]", "[0].session", "with the character"),
            ("[[a]]", "[0]", "found a list, expected text"),
            ("{session: a, secret: b}", ".secret", "unknown key"),
        )
    ],
    ("F150", secrets(f"{{name: s, kind: ascii, export: {{namespace: a, session_hash: {A}}}}}"), "secrets[0].export.session_hash", "a namespace has no hash"),
    ("F150", secrets("{name: s, kind: ascii, export: {namespace: a}}", version="0.3.4"), "secrets[0].export.namespace", "0.3.5"),
    ("F154", secrets(f'{{name: s, kind: ascii, export: "a:{A}"}}'), "secrets[0].export", "write export: {session: a, session_hash: …}"),
    ("F154", secrets("{name: s, import: [a]}"), "secrets[0].import", "found a list, expected text"),
    ("F155", secrets("{name: s, import_akv: x}"), "secrets[0].import_akv", "expected a mapping with the keys of import_akv"),
    ("F154", secrets("{name: s, import: a}"), "secrets[0].import", "write import: {session: a, secret: <its name there>}"),
    ("F154", secrets("{name: s, kind: ascii, export: {session: a}}", version="0.2"), "secrets[0].export", "the mapping form of a reference needs version 0.3.0"),
    ("F154", secrets("{name: s, kind: ascii, export: a:b}", version="0.2"), "secrets[0].export", "expected name or name:hash"),
    ("F155", secrets("{name: s, import_akv: {vault: v.vault.azure.net}}", AAD, AAD.replace("t,", "u,", 1)), "secrets[0].import_akv.token", "the session has 2 of them"),
    ("F155", secrets("{name: s, import_akv: {vault: v.vault.azure.net}}"), "secrets[0].import_akv.token", "the session has no aad-token"),
    ("F155", secrets("{name: s, import_akv: {vault: v.vault.azure.net, token: t}}", AAD), "secrets[0].import_akv.token", "expected $$SCONE::name$$ of a secret of kind aad-token"),
    ("F155", secrets("{name: s, import_akv: {vault: v.vault.azure.net, token: $$SCONE::k$$}}", KEY), "secrets[0].import_akv.token", "of a secret of kind aad-token"),
    ("F155", secrets("{name: s, import_akv: {vault: 'ftp://v'}}", AAD), "secrets[0].import_akv.vault", "expected a host, with https://"),
    ("F155", secrets("{name: s, import_akv: {}}", AAD), "secrets[0].import_akv.vault", "vault is missing"),
    ("F156", secrets("{name: s, import: {session: a, secret: b}, import_akv: {vault: v.vault.azure.net}}", AAD), "secrets[0]", "import and import_akv exclude each other"),
    ("F157", secrets("{name: s, import_akv: {vault: v.vault.azure.net, decryption_key: abc}}", AAD), "secrets[0].import_akv.decryption_key", "of a binary secret of 32 bytes"),
    ("F157", secrets("{name: s, import_akv: {vault: v.vault.azure.net, decryption_key: $$SCONE::b:base64$$}}", AAD, "{name: b, kind: binary, size: 32}"), "secrets[0].import_akv.decryption_key", "the key is the secret itself"),
    ("F158", f"{HEAD}secret_config: !akv x", "secret_config", "tag !akv has no meaning here"),
    ("F158", f"{HEAD}secret_config: {{store_in: cas}}", "secret_config.store_in", "expected !cas, or !akv"),
    ("F158", f"{HEAD}secret_config: {{store_in: !akv }}", "secret_config.store_in", "expected !cas, or !akv"),
    ("F158", f"{HEAD}secret_config: {{store_in: !cas {{}}}}", "secret_config.store_in", "expected !cas, or !akv"),
    ("F158", f"{HEAD}secret_config: {{store_in: {{token: a, vault: b}}}}", "secret_config.store_in", "a mapping without a tag"),
    *[
        ("F159", secrets(f"{{name: s, kind: ascii, export: {{session: a, {members}}}}}"), f"secrets[0].export{path}", says)
        for members, path, says in (
            ("cas_url: cas.example.com", "", "known by exactly one key"),
            (f"cas_url: c, cas_key: {KEY_HASH}, cas_software_key: {KEY_HASH}", "", "known by exactly one key"),
            (f"cas_key: {KEY_HASH}", ".cas_key", "and no cas_url"),
            (f"cas_url: c, cas_key: {KEY_HASH[:-1]}s", ".cas_key", "its checksum is wrong"),
            (f"cas_url: 'http://c', cas_key: {KEY_HASH}", ".cas_url", "expected host or host:port"),
            (f"cas_url: 'c:0', cas_key: {KEY_HASH}", ".cas_url", "expected host or host:port"),
            (f"cas_url: 'c:65536', cas_key: {KEY_HASH}", ".cas_url", "expected host or host:port"),
        )
    ],
    ("F159", secrets(f"{{name: s, kind: ascii, export: {{namespace: a, cas_url: c, cas_key: {KEY_HASH}}}}}"), "secrets[0].export.cas_url", "a namespace of another CAS"),
    *[
        ("F160", secrets(f"{{name: s, kind: ascii, export: [{quoted(text)}]}}"), "secrets[0].export[0]", says)
        for text, says in (
            ("/session=../b", "takes no relative names"),
            ("/session=a, session_hash=b", "without blanks"),
            ("/session=a,session=b", "stands twice"),
            ("/session=a,sesion_hash=b", "did you mean session_hash?"),
            ("/session=a,cas_url=b", "unknown key"),
            ("/session=a,", "expected key=value"),
            ("/session=", "expected key=value"),
        )
    ],
    ("F160", secrets("{name: s, import: /session=a}"), "secrets[0].import", "secret is missing; add ,secret="),
    ("F162", volumes(f"{{name: v, fspf_key: {A}}}"), "volumes[0]", "fspf_key and fspf_tag belong together"),
    ("F162", volumes(f"{{name: v, fspf_tag: {TAG}}}"), "volumes[0]", "fspf_key and fspf_tag belong together"),
    ("F162", volumes(f"{{name: v, fspf_key: {A}, fspf_tag: {A}}}"), "volumes[0].fspf_tag", "expected 32 hex digits"),
    ("F162", volumes(f"{{name: v, fspf_key: $$SCONE::b$$, fspf_tag: {TAG}}}", "0.3.6") + "secrets: [{name: b, kind: binary, size: 32}]", "volumes[0].fspf_key", "0.3.7"),
    ("F163", volumes("{name: v, files: plain}"), "volumes[0].files", 'unknown files "plain"'),
    ("F163", volumes("{name: v, files: encrypted}", "0.3.10"), "volumes[0].files", "files needs version 0.3.11"),
    *[
        ("F164", volumes(f"{{name: v, import: {{session: s, volume: w}}, {more}}}"), f"volumes[0].{more.partition(':')[0]}", "is imported")
        for more in (f"fspf_key: {A}", f"fspf_tag: {TAG}", "export: {session: a}", "files: encrypted")
    ],
    ("F164", volumes("{name: v, import: {session: s}}"), "volumes[0].import.volume", "volume is missing"),
    ("F165", volumes("{name: v, export: {namespace: n}}"), "volumes[0].export", "sessions of this CAS, one by one"),
    ("F165", volumes("{name: v, export: [{session: n, cas_url: c}]}"), "volumes[0].export[0]", "sessions of this CAS, one by one"),
    ("F165", volumes(f"{{name: v, export: 'c/cas_key={KEY_HASH},session=a'}}"), "volumes[0].export", "sessions of this CAS, one by one"),
    ("F166", volumes("{name: v, export: {session: s, update_policy: ephemeral}}"), "volumes[0].export", "need the target under to:"),
    ("F166", volumes("{name: v, export: {to: {session: s}, update_policy: ephmeral}}"), "volumes[0].export.update_policy", "did you mean ephemeral?"),
    ("F166", volumes("{name: v, export: {to: {session: s}, update_policy: ephemeral}}", "0.3.1"), "volumes[0].export.to", "0.3.2"),
    ("F167", volumes("{name: v, export: {to: {session: s}, volume_alias: a}}", "0.3.9"), "volumes[0].export.volume_alias", "0.3.10"),
    ("F167", volumes("{name: v, export: {to: {session: s}, volume_alias: a b}}"), "volumes[0].export.volume_alias", "with the character"),
    ("F167", volumes("{name: v, export: [{session: s}, {session: s}]}"), "volumes[0].export[1]", 'goes to "s" as "v" already'),
    ("F168", images("volumes: [{name: v, path: /v}]"), "images[0].volumes[0].name", 'there is no volume "v"'),
    ("F168", images("volumes: [{name: v, path: /v}, {name: v, path: /v/}]", "volumes: [{name: v}]"), "images[0].volumes[1]", "/v is a mount point on line 3 already"),
    ("F168", images("volumes: [{name: v}]", "volumes: [{name: v}]"), "images[0].volumes[0].path", "path is missing"),
    ("F175", policy("{list_sessions: ANY}", "0.3.11"), "access_policy.list_sessions", "0.3.12"),
    ("F175", policy("{create_sessions: NONE}", "0.2"), "access_policy.create_sessions", "0.3.5"),
    ("F177", policy(f"{{read: {KEY_HASH[:-1]}s}}"), "access_policy.read", "its checksum is wrong"),
    ("F178", policy(f"{{read: {A}}}"), "access_policy.read", "the hash of a certificate, which ended with 0.2"),
    ("F179", policy("{read: [ANY, CREATOR]}"), "access_policy.read[0]", "must be the only entry"),
    ("F179", policy("{create_sessions: [CREATOR, NONE]}"), "access_policy.create_sessions[1]", "must be the only entry"),
    ("F181", policy("$$SCONE::p$$", "0.3.9") + "secrets: [{name: p, import: {session: a, secret: b}}]", "access_policy", "0.3.10"),
    ("F182", policy(f"{{update: [{{signer: {quoted(pki.public_pem(pki.private_key()))}}}]}}"), "access_policy.update[0].signer", "expected a key of type Ed25519 or P-384, found P-256"),
    ("F182", policy(f"{{update: [{{signer: {KEY_HASH}}}]}}"), "access_policy.update[0].signer", "version 1, expected 10"),
    ("F182", policy(f"{{update: [{{signer: {SIGNERS[0]}}}]}}", "0.3.9"), "access_policy.update[0].signer", "0.3.10"),
    *[
        ("F183", policy(f"{{{operation}: [{entry}]}}"), f"access_policy.{operation}[0]", "has no meaning here")
        for operation in ("read", "list_sessions")
        for entry in (f"{{signer: {SIGNERS[0]}}}", "{require-all: [CREATOR]}", "{require-at-least-1: [CREATOR]}")
    ],
    *[
        ("F185", policy(f"{{update: {rule}}}"), f"access_policy.update{path}", says)
        for rule, path, says in (
            ("{require-at-least-0: [CREATOR]}", ".require-at-least-0", "write a number from 1 to 1"),
            ("{require-at-least-01: [CREATOR]}", ".require-at-least-01", "write a number from 1 to 1"),
            ("{require-at-least-2: [CREATOR]}", ".require-at-least-2", "write a number from 1 to 1"),
            (f"{{require-at-least-{'9' * 50}: [CREATOR]}}", f".require-at-least-{'9' * 50}", "write a number from 1 to 1"),
            ("{require-all: []}", ".require-all", "has no entries"),
            ("{require-all: CREATOR}", ".require-all", "expected a list of entries"),
            ("{require-all: [~]}", ".require-all[0]", "found an empty entry"),
            ("{require-all: [ANY]}", ".require-all[0]", "has no meaning inside require-all"),
            ("{require-all: [CREATOR, NONE]}", ".require-all[1]", "has no meaning inside require-all"),
            (f"{{require-all: [{{signer: {SIGNERS[0]}}}, {{signer: {SIGNERS[0]}}}]}}", ".require-all[1]", "counts once"),
            ("{require-all: [CREATOR], signer: x}", "", "found an entry with 2 keys"),
            ("{}", "", "found an empty entry"),
        )
    ],
    ("F187", f"{HEAD}creator: {{signer: {SIGNERS[0]}}}", "access_policy.read", "set access_policy.read"),
    ("F187", f"{HEAD}access_policy: {{read: NONE, list_sessions: CREATOR}}\ncreator: {{signer: {SIGNERS[0]}}}", "access_policy.list_sessions", "set access_policy.list_sessions"),
    ("F189", security("{mode: sim}"), "security.attestation.mode", 'unknown mode "sim"'),
    ("F189", security("{mode: maa, url: 'https://a.attest.azure.net'}", "0.3.6"), "security.attestation.mode", "0.3.7"),
    ("F190", security("{tolerate: [debug]}"), "security.attestation.tolerate[0]", "did you mean debug-mode?"),
    ("F190", security("{tolerate: [local-attestation-trust-cas-tcb]}", "0.3.10"), "security.attestation.tolerate[0]", "0.3.11"),
    ("F193", security('{tolerate: [debug-mode], ignore_advisories: ["*", INTEL-SA-00657]}'), "security.attestation.ignore_advisories[0]", "must be the only entry"),
    ("F194", security("{trusted_scone_qe_pubkeys: [abc]}"), "security.attestation.trusted_scone_qe_pubkeys[0]", "64 hex digits"),
    ("F195", security("{mode: maa, tolerate: [maa-managed-tcb]}"), "security.attestation.url", "url is missing"),
    *[
        ("F195", security(f"{{mode: maa, tolerate: [maa-managed-tcb], url: {quoted(url)}}}"), "security.attestation.url", "and nothing behind it")
        for url in ("http://a.attest.azure.net", "a.attest.azure.net", "https://u@a.attest.azure.net", "https://a.attest.azure.net/x",
                    "https://a.attest.azure.net?x", "https://", "https://a:0", "https://a:b", "https://[", "https://a b")
    ],
    ("F195", security("{mode: maa, tolerate: [maa-managed-tcb], url: 'https://a.attest.azure.net', certificates: [x]}"), "security.attestation.certificates[0]", "expected one PEM block CERTIFICATE"),
    ("F197", security("{must_be_sgx_local: true}"), "security.attestation.must_be_sgx_local", "not tolerated"),
    ("F199", f"{HEAD}security: {{service_access_token: ''}}", "security.service_access_token", "the access token is empty"),
    ("F199", at("0.3.8", "security: {service_access_token: x}"), "security.service_access_token", "0.3.9"),
    *[
        ("F200", security(f"{{one_time_password_shared_secret: {text}}}"), "security.attestation.one_time_password_shared_secret", says)
        for text, says in (
            ("GEZDGNBVGY3TQOJQ", "has 80 bits, expected at least 128"),
            ("GEZDGNBVGY3TQOJQGEZDGNBVG0", "is not base32"),
            ("'GEZD GNBVGY3TQOJQGEZDGNBVGY'", "is not base32"),
            (OTP[:-5], "is not base32"),
            ("A" * 1025, "over 1024 characters"),
            ("''", "is not base32"),
            ("x$$SCONE::o$$", "a variable is the whole value"),
        )
    ],
    ("F202", app(f"one_time_password_shared_secret: {OTP}", version="0.3.9"), "services[0].one_time_password_shared_secret", "0.3.10"),
    *[
        ("F203", security("{one_time_password_shared_secret: $$SCONE::o" + form + "$$}") + f"secrets: [{{name: o, {kind}}}]", "security.attestation.one_time_password_shared_secret", says)
        for form, kind, says in (
            (":base64", "kind: binary", "write $$SCONE::o:base32nopad$$"),
            (":base32nopad", "kind: binary, size: 15", "has 15 bytes, expected at least 16"),
            ("", "kind: ascii, value: abc", "the secret's value is not base32"),
            ("", "kind: private-key", "expected an ascii or binary secret"),
        )
    ],
    ("F204", at("0.3.8", "security: {singleton_enclaves: true}"), "security.singleton_enclaves", "0.3.9"),
    ("F205", at("0.3.12", "security: $$SCONE::s$$"), "security", "names a secret that is not in secrets"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "says"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refused(text: str, path: str | None, says: str) -> None:
    found = mistakes(text)
    assert any(says in finding.message and path in (None, finding.path) for finding in found), [str(f) for f in found]


# --- what is accepted with a warning ---------------------------------------------------------------------------------

WARNED = [
    ("F012", "name: a", "version", 'add the line version: "0.3.12"'),
    ("F012", "name: a\ndigest: create", "digest", "digest ended with 0.1"),
    ("F045", app("image_name: x"), "services[0].image_name", "there is no such image"),
    ("F064", app('environment: {"": ""}'), "services[0].environment.", "neither name nor value"),
    ("F070", app("command: a --port=@@1"), "services[0].command", "inside a longer argument"),
    ("F070", app("command: a '@@#position'"), "services[0].command", "before no number"),
    ("F089", app(f"platforms: [{A}]"), "services[0].platforms[0]", "never matches"),
    ("F095", secrets("{name: s, kind: ascii, value: Grüße}"), "secrets[0].value", "not ASCII"),
    ("F137", app("command: $$SCONE:a$$"), "services[0].command", "is no placeholder"),
    ("F138", at("0.3.12", "security: $$SCONE::s$$\nsecrets: [{name: s, kind: config-fragment, value: {a: $$SCONE::b$$}}]"),
     "security", "has a variable inside"),
    ("F138", secrets("{name: s, kind: config-fragment, value: [$$SCONE::b$$], export: {session: a}}"), "secrets[0].value", "has a variable inside"),
    ("F142", images("injection_files: [{path: /f, permission: 0o100, content: x}]"), "images[0].injection_files[0].permission", "0o400 lets its owner read"),
    ("F168", images("volumes: [{name: v, path: m}]", "volumes: [{name: v}]"), "images[0].volumes[0].path", "is relative and taken from the service's pwd"),
    ("F155", secrets("{name: s, import_akv: {vault: vault.example.com}}", AAD), "secrets[0].import_akv.vault", "outside Azure's vault domains"),
    *[
        ("F152", secrets(f"{{name: s, {body}, export_public: true}}", *more), "secrets[0].export_public", "everyone may read")
        for body, more in (
            ("kind: private-key", ()), ("kind: pgp-key", ()),
            ("kind: aad-token, tenant_id: a, client_id: b, application_secret: c", ()),
            ("kind: jwt, signer: k, alg: ES384, validity: {for: 1h}", ("{name: k, kind: private-key, key_type: P-384}",)),
        )
    ],
    ("F179", policy("{update: ANY, read: NONE}"), "access_policy.update", "everyone may replace this session"),
    ("F179", policy("{create_sessions: ANY}"), "access_policy.create_sessions", "everyone may create sessions"),
    ("F192", security('{ignore_advisories: "*"}'), "security.attestation.ignore_advisories", "no effect without debug-mode"),
    ("F194", security(f"{{trusted_scone_qe_pubkeys: [{A}]}}"), "security.attestation.trusted_scone_qe_pubkeys", "add no trust"),
    ("F195", security("{mode: maa, url: 'https://a.attest.azure.net'}"), "security.attestation.tolerate", "refused without maa-managed-tcb"),
    ("F195", security("{mode: maa, tolerate: [maa-managed-tcb], url: 'https://a.example.com'}"), "security.attestation.url", "outside Azure's domains"),
    ("F195", security("{url: 'https://a.attest.azure.net'}"), "security.attestation.url", "with mode maa only"),
    ("F195", security("{min_rsa_signing_key_size: 4096}"), "security.attestation.min_rsa_signing_key_size", "has no effect"),
    ("F198", app(more="security: {attestation: {mode: none}}"), "security.attestation.mode", "without evidence; for tests only"),
    ("F204", at("0.3.12", "security: {singleton_enclaves: true, attestation: {mode: none}}"), "security.singleton_enclaves", "no effect with mode none"),
    *[
        ("F090", app("platforms: $$SCONE::p$$", more=f"secrets: [{{name: p, kind: ascii}}]\nsecurity: {{service_access_token: {A}, attestation: {{{mode}}}}}"),
         "services[0].platforms", "platforms has no effect with")
        for mode in ("mode: none", "mode: maa, url: 'https://a.attest.azure.net', tolerate: [maa-managed-tcb]",
                     "must_be_sgx_local: true, tolerate: [local-attestation-trust-cas-tcb]")
    ],
    *[
        ("F207", app(f"environment: {{{shield}}}"), f"services[0].environment.SCONE_NETWORK_SHIELD{path}", says)
        for shield, path, says in (
            ("SCONE_NETWORK_SHIELD: on", "", 'unknown mode "on"'),
            ("SCONE_NETWORK_SHIELD_UNSUPPORTED_PROTOCOLS: protected", "_UNSUPPORTED_PROTOCOLS", "unknown mode"),
            ("SCONE_NETWORK_SHIELD_SERVER_x: unprotected", "_SERVER_x", "_SERVER_x_PORT is missing"),
            ("SCONE_NETWORK_SHIELD_SERVER_x: protected, SCONE_NETWORK_SHIELD_SERVER_x_PORT: TCP:1", "_SERVER_x", "_SERVER_x_CLIENT_AUTH is missing"),
            ("SCONE_NETWORK_SHIELD_SERVER_x_PORT: TCP:1, SCONE_NETWORK_SHIELD_SERVER_x: prtected", "_SERVER_x", "did you mean"),
            ("SCONE_NETWORK_SHIELD_CLIENT_y: refuse, SCONE_NETWORK_SHIELD_CLIENT_y_DESTINATION: TCP:a:1", "_CLIENT_y", "_DESTINATION_IP is missing"),
            ("SCONE_NETWORK_SHIELD_CLIENT_y_DESTINATION_IP: '*'", "_CLIENT_y_DESTINATION_IP", "_CLIENT_y_DESTINATION is missing"),
            ("SCONE_NETWORK_SHIELD_CLIENT_y: protected, SCONE_NETWORK_SHIELD_CLIENT_y_DESTINATION: unix:/a, SCONE_NETWORK_SHIELD_CLIENT_y_SERVER_AUTH: x",
             "_CLIENT_y", "_SERVER_DNS_NAME is missing"),
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "says"), [pytest.param(*row[1:], id=row[0]) for row in WARNED])
def test_warned(text: str, path: str, says: str) -> None:
    found = parse_session(text).warnings
    assert any(says in finding.message and path == finding.path for finding in found), [str(f) for f in found]


# --- what is accepted, and what it means -----------------------------------------------------------------------------


def session(text: str) -> ParsedSession:
    return quiet(text)


def test_f001_a_leading_marker_is_allowed() -> None:
    """F001."""
    assert session(f"---\n{HEAD}").hash == session(HEAD).hash


def test_f004_scalars_keep_their_digits() -> None:
    """F004."""
    text = app(
        "environment: {A: 007, B: 1e3, C: 0x10, D: true}", f"fspf_path: /f, fspf_key: {'1' * 64}, fspf_tag: {'12' * 16}"
    )
    (found,) = session(text + "secrets: [{name: b, kind: binary, value: 12e45678}]").session.services
    assert {name: str(value) for name, value in found.environment} == {"A": "007", "B": "1e3", "C": "0x10", "D": "true"}
    assert (found.fspf_key, found.fspf_tag) == (b"\x11" * 32, b"\x12" * 16)


def test_f005_null_is_a_key_left_out() -> None:
    """F005."""
    text = f"{HEAD}predecessor: ~\nsalt: null\nsecurity: {{attestation: {{url: }}}}\nvolumes:\n"
    assert session(text).session == session(f"{HEAD}security: {{attestation: {{}}}}").session


def test_f006_aliases_are_expanded_within_bounds() -> None:
    """F006: a text that would grow without end is refused in time."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    started = time.monotonic()
    with pytest.raises(SessionFormatError, match="over 10000 nodes"):
        parse_session(HEAD + "\n".join(lines))
    assert time.monotonic() - started < 2


def test_f008_a_text_of_a_mebibyte_is_the_most() -> None:
    """F008."""
    head = f"{HEAD}# "
    parse_session(head + "x" * (1024 * 1024 - len(head)))
    with pytest.raises(TooLargeError):
        parse_session(head + "x" * (1024 * 1024 - len(head) + 1))


def test_f010_all_mistakes_at_once() -> None:
    """F010."""
    found = mistakes("salt: x\nvolumes: [{nam: v}]\nservices: {}\nname: a b\nversion: 0.3.13\n")
    assert [(finding.line, finding.path) for finding in found] == [
        (1, "salt"),
        (2, "volumes[0].name"),
        (2, "volumes[0].nam"),
        (3, "services"),
        (4, "name"),
        (5, "version"),
    ]


def test_f012_old_keys_are_warned_of_and_have_no_effect() -> None:
    """F012: a digest of 64 digits is the predecessor."""
    text = f"name: a\ndigest: {A}\nservices: [{{name: s, tags: [x], mrenclaves: [{B}]}}]\nimages: [{{name: i, tags: [], mrenclaves: [{B}]}}]"
    parsed = parse_session(text)
    assert parsed.session.predecessor == bytes.fromhex(A)
    assert {finding.path for finding in parsed.warnings} == {
        "version",
        "digest",
        "services[0].tags",
        "images[0].tags",
        "images[0].mrenclaves",
    }
    for ended in (
        "exports: []",
        "board_members: []",
        "board_policy: {}",
        "services: [{import: x}]",
        "images: [{import: x}]",
    ):
        assert any("ended with 0.1; write export" in finding.message for finding in mistakes(f"name: a\n{ended}"))


def test_f012_one_message_says_that_the_version_is_missing() -> None:
    """F012: keys of 0.3 in a text without version are one mistake, not many."""
    text = "name: a/b\nsecurity: {attestation: {mode: none}}\nsecrets: [{name: k, kind: private-key, export: {session: s}}]"
    assert 'add the line version: "0.3.5"' in mistake(text, "version")


@pytest.mark.parametrize("spelling", ["0.3", "'0.3'", "0.3.0", '"0.3.12"'])
def test_f014_versions_are_text_or_float(spelling: str) -> None:
    """F014, F015."""
    assert session(f"name: a\nversion: {spelling}").session.version == spelling.strip("'\"")


GATED = [
    (1, "security: {attestation: {mode: none}}"),
    (2, "volumes: [{name: v, export: {to: {session: s}, update_policy: ephemeral}}]"),
    (2, "volumes: [{name: v}]\nimages: [{name: i, volumes: [{name: v, path: /v, update_policy: ephemeral}]}]"),
    (4, "secrets: [{name: k, kind: private-key, key_type: Ed25519}]"),
    (5, "access_policy: {create_sessions: NONE}"),
    (5, "secrets: [{name: k, kind: ascii, export: {namespace: n}}]"),
    (5, f"secrets: [{{name: k, kind: private-key}}]\nservices: [{{name: s, mrenclaves: [{A}], command: $$SCONE::k:pem$$}}]"),
    (6, f"secrets: [{{name: b, kind: binary}}]\nservices: [{{name: s, mrenclaves: [{A}], command: $$SCONE::b:base64$$}}]"),
    (7, f"services: [{{name: s, attestation: {{mrenclave: {A}}}}}]"),
    (7, f"secrets: [{AAD}]"),
    (7, "secrets: [{name: k, kind: private-key, key_type: RSA-2048}]"),
    (7, "secrets: [{name: k, kind: private-key, migrate: true}]"),
    (7, "security: {attestation: {mode: maa, url: 'https://a.attest.azure.net', tolerate: [maa-managed-tcb]}}"),
    (8, f"security: {{attestation: {{one_time_password_shared_secret: {OTP}}}}}"),
    (8, f"services: [{{name: s, mrenclaves: [{A}], command: a @@1}}]"),
    (8, f"services: [{{name: s, mrenclaves: [{A}], environment: {{\\@\\@A: }}}}]"),
    (9, "security: {singleton_enclaves: true}"),
    (9, "security: {service_access_token: 0123456789abcdef}"),
    (10, "secrets: [{name: f, kind: config-fragment, value: x}]"),
    (10, "secrets: [{name: p, kind: pgp-key}]"),
    (10, "secrets: [{name: p, import: {session: ./x, secret: y}}]"),
    (10, "access_policy: {update: {require-all: [CREATOR]}}"),
    (10, "access_policy: {update: {require-at-least-1: [CREATOR]}}"),
    (10, f"access_policy: {{update: {{signer: {SIGNERS[0]}}}}}"),
    (10, "secret_config: {store_in: !cas }"),
    (10, "images: [{name: i, injection_files: [{path: /f, content: x, permission: 0o400}]}]"),
    (10, f"services: [{{name: s, mrenclaves: [{A}], one_time_password_shared_secret: {OTP}}}]"),
    (10, "secrets: [{name: x, import: {session: a, secret: b}}]\nsecurity: $$SCONE::x$$"),
    (10, "secrets: [{name: x, import: {session: a, secret: b}}]\naccess_policy: $$SCONE::x$$"),
    (11, f"namespace_hash: {A}"),
    (11, "secrets: [{name: k, kind: private-key}, {name: p, kind: public-key, private_key: k}]"),
    (11, "images: [{name: i, provide_secrets: []}]"),
    (11, "volumes: [{name: v, files: authenticated-only}]"),
    (11, "security: {attestation: {tolerate: [local-attestation-trust-cas-tcb], must_be_sgx_local: true}}"),
    (11, f"services: [{{name: s, mrenclaves: [{A}], fspf_path: /f, fspf_key: {A}, fspf_update_policy: no_rollback_protection}}]"),
    (12, f"salt: {TAG}"),
    (12, "access_policy: {list_sessions: NONE}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("minor", "body"), GATED, ids=[f"F017-{minor}-{index}" for index, (minor, _) in enumerate(GATED)]
)
def test_each_feature_needs_its_version(minor: int, body: str) -> None:
    """F017: refused one minor below, accepted at it."""
    session(at(f"0.3.{minor}", body))
    found = mistakes(at(f"0.3.{minor - 1}", body))
    assert all(f"needs version 0.3.{minor}, found 0.3.{minor - 1}" in finding.message for finding in found)


def test_f016_plain_0_3_gates_like_0_3_9() -> None:
    """F016."""
    security = session(
        at("0.3", "security: {singleton_enclaves: true, service_access_token: 0123456789abcdef}")
    ).session.security
    assert isinstance(security, Security)
    assert (security.singleton_enclaves, security.service_access_token) == (True, "0123456789abcdef")


@pytest.mark.parametrize("name", ["A-z_0.9~", "a" * 512, "a/b/c", "/"])
def test_f019_names(name: str) -> None:
    """F019, F020, F021, F023."""
    assert session(at("0.3.12", "", name=name)).session.name == name


@pytest.mark.parametrize(
    ("own", "written", "meant"),
    [
        ("ns/me", "./x", "ns/me/x"),
        ("ns/me", "..", "ns"),
        ("ns/me", "../x", "ns/x"),
        ("ns/me", "../../x", "x"),
        ("ns/me", "../..", "/"),
        ("ns/me", ".", "ns/me"),
        ("ns/me", "x", "x"),
        ("ns/me", "/x/y", "x/y"),
        ("ns/me", "./../x/y", "ns/x/y"),
        ("/", "./x", "x"),
        ("a", "/", "/"),
    ],
)
def test_f027_relative_references(own: str, written: str, meant: str) -> None:
    """F027, F151."""
    text = at("0.3.12", f"secrets: [{{name: s, kind: ascii, export: {{namespace: {written}}}}}]", name=own)
    assert session(text).session.secrets[0].exports == (NamespaceTarget(namespace=meant),)


def test_f033_namespace_hash_and_salt() -> None:
    """F033, F035."""
    found = session(at("0.3.12", f"namespace_hash: {A}\nsalt: {TAG.upper()}", name="a/b")).session
    assert (found.namespace_hash, found.salt) == (bytes.fromhex(A), bytes.fromhex(TAG))


def test_f037_creator_is_kept_exactly_if_it_is_referred_to() -> None:
    """F037, F038: a variable may turn out to say CREATOR."""
    creator = f"creator: {quoted(pki.certificate_pem())}"
    variable = "secrets: [{name: x, import: {session: a, secret: b}}]"
    for named in (
        "access_policy: {read: NONE, update: {require-all: [CREATOR]}}",
        "access_policy: {read: NONE, update: NONE, create_sessions: CREATOR}",
        "access_policy: {read: [$$SCONE::x$$], update: NONE}",
        "access_policy: $$SCONE::x$$",
    ):
        parsed = session(f"{HEAD}{named}\n{variable}\n{creator}")
        assert parsed.names_creator
        assert parsed.session.creator == pki.certificate_pem()
    silent = f"{HEAD}access_policy: {{read: NONE, update: NONE}}\n"
    assert "creator is left out" in warning(silent + creator, "creator")
    assert parse_session(silent + creator).hash == session(silent).hash


def test_f046_f047_a_service_needs_no_command_and_no_pwd() -> None:
    """F046, F047."""
    text = f"{HEAD}services: [{{name: a, mrenclaves: [{A}]}}]"
    (found,) = session(text).session.services
    assert (found.command, found.pwd) == ((), None)
    assert "starts in /" in note(text, "services[0].pwd")


def test_f049_f052_the_main_file_system() -> None:
    """F049, F050, F051, F052."""
    (found,) = session(app(f"fspf_path: /f, fspf_key: {A}, fspf_tag: {TAG}")).session.services
    assert (found.fspf_path, found.fspf_key, found.fspf_tag) == ("/f", bytes.fromhex(A), bytes.fromhex(TAG))
    assert found.fspf_update_policy == "rollback_protected_reinitializable"
    text = app("fspf_path: /f, fspf_key: $$SCONE::b$$, fspf_update_policy: no_rollback_protection")
    (found,) = session(text + "secrets: [{name: b, kind: binary, size: 32}]").session.services
    assert (found.fspf_key, found.fspf_tag) == (Variable(placeholder=Placeholder(name="b")), None)
    assert found.fspf_update_policy == "no_rollback_protection"
    session(app("persistency: None"))


@pytest.mark.parametrize(
    ("version", "command", "words"),
    [
        ("0.2", "'a\tb  c'", ["a", "b", "c"]),
        ("0.2", """'x "a b"'""", ["x", '"a', 'b"']),
        ("0.3", """'mysql -e "show databases;"'""", ["mysql", "-e", "show databases;"]),
        ("0.3", """"x 'a b'c" """, ["x", "a bc"]),
        ("0.3", """'a"b c"d'""", ["ab cd"]),
        ("0.3", '[mysql, --port, 3306, "it\'s one"]', ["mysql", "--port", "3306", "it's one"]),
        ("0.2", '[a, "b c"]', ["a", "b c"]),
        ("0.3", "'a # b'", ["a", "#", "b"]),
    ],
    ids=["F054", "F058", "F055", "F055", "F055", "F057", "F057", "F055"],
)
def test_commands(version: str, command: str, words: list[str]) -> None:
    found, _ = only_service(app(f"command: {command}", version=version))
    assert isinstance(found, tuple)
    assert [str(word) for word in found] == words


def test_f060_a_command_is_cut_before_secrets_come_in() -> None:
    """F060."""
    command, _ = only_service(app("command: a $$SCONE::s$$b", more="secrets: [{name: s, kind: ascii, value: x y}]"))
    assert command == (Template(parts=("a",)), Template(parts=(Placeholder(name="s"), "b")))


def test_f063_f065_variables_are_text_and_their_names_free() -> None:
    """F063, F065."""
    _, environment = only_service(
        app("environment: {PORT: 24000, SCONE_NETWORK_SHIELD_SERVER_redis-6379-TCP_PORT: TCP:1}")
    )
    assert {name: str(value) for name, value in dict(environment).items()} == {  # type: ignore[call-overload]
        "PORT": "24000",
        "SCONE_NETWORK_SHIELD_SERVER_redis-6379-TCP_PORT": "TCP:1",
    }


def test_f069_f071_host_arguments_may_have_gaps_and_host_variables_ignore_their_value() -> None:
    """F066, F069, F071."""
    assert only_service(app("command: a @@3 @@1", "environment: {\\@\\@HOME: x}")) == (
        (Template(parts=("a",)), HostArgument(position=3), HostArgument(position=1)),
        {"HOME": HostVariable(name="HOME")},
    )


def test_f083_the_old_attestation_form_equals_the_new_one() -> None:
    """F083."""
    new = at("0.3.12", f"services: [{{name: app, attestation: {{mrenclave: [{A}, {B}]}}}}]")
    old = new.replace("attestation: {mrenclave:", "mrenclaves:").replace("]}}]", "]}]")
    assert session(new).session.services[0].attestation == session(old).session.services[0].attestation
    assert "deprecated" in note(old, "services[0].mrenclaves")


def test_f085_mode_none_needs_no_attestation() -> None:
    """F085: a mode that a variable decides is left to the release, with a warning."""
    guarded = f"security: {{service_access_token: {A}, attestation: {{mode: none}}}}\nservices: [{{name: a}}]"
    assert session(HEAD + guarded).session.services[0].attestation == ()
    for part in (
        "security: $$SCONE::x$$",
        "security: {attestation: $$SCONE::x$$}",
        "security: {attestation: {mode: $$SCONE::x$$}}",
    ):
        text = f"{HEAD}secrets: [{{name: x, import: {{session: a, secret: b}}}}]\n{part}\nservices: [{{name: a}}]"
        assert "does not say which programs it admits" in warning(text, "services[0]")


def test_f086_f089_variables_in_attestation_and_platforms() -> None:
    """F086, F089."""
    text = f"""{HEAD}
services:
- name: a
  attestation:
  - mrenclave: [{A}, $$SCONE::x$$]
    signer: {{mrsigner: $$SCONE::x$$, isvprodid: $$SCONE::x$$, isvsvn_min: $$SCONE::x$$, isvsvn_max: 3}}
  - signer: $$SCONE::x$$
  - $$SCONE::x$$
  platforms: [INTEL_QE_ID:{TAG}, $$SCONE::x$$]
- {{name: b, attestation: $$SCONE::x$$}}
- {{name: c, mrenclaves: $$SCONE::x$$}}
secrets: [{{name: x, import: {{session: a, secret: b}}}}]
"""
    x = Variable(placeholder=Placeholder(name="x"))
    a, b, c = session(text).session.services
    first, second, third = a.attestation
    assert isinstance(first, Variant)
    assert first.mrenclave == (bytes.fromhex(A), x)
    assert second == Variant(signer=x)
    assert third == x
    assert a.platforms == (bytes.fromhex(TAG), x)
    assert b.attestation == (x,)
    assert c.attestation == (Variant(mrenclave=(x,)),)


def one_secret(*texts: str, version: str = "0.3.12") -> object:
    return session(secrets(*texts, version=version)).session.secrets[0]


def test_f091_f093_an_import_needs_no_kind() -> None:
    """F091, F093, F107: what is empty in an import says nothing."""
    assert one_secret("{name: s, import: {session: a, secret: b}}") == ImportedSecret(name="s", session="a", secret="b")
    assert one_secret("{name: s, kind: binary, size: 16, import: '/session=a,secret=b'}") == (
        ImportedSecret(name="s", kind="binary", size=16, session="a", secret="b")
    )
    assert one_secret('{name: s, kind: x509, private_key: "", import: {session: a, secret: b}}') == (
        ImportedSecret(name="s", kind="x509", session="a", secret="b")
    )


def test_f094_f096_plain_secrets() -> None:
    """F094, F095, F096."""
    assert one_secret("{name: s, kind: ascii}") == AsciiSecret(name="s", size=20)
    assert one_secret('{name: s, kind: ascii, value: "a\\nb"}') == AsciiSecret(name="s", value="a\nb", size=3)
    assert one_secret('{name: s, kind: ascii, value: ""}') == AsciiSecret(name="s", value="", size=0)
    assert one_secret("{name: s, kind: binary, value: DEADBEEF}") == BinarySecret(
        name="s", value=b"\xde\xad\xbe\xef", size=4
    )


def test_f105_public_keys() -> None:
    """F105."""
    assert one_secret("{name: p, kind: public-key, private_key: k}", KEY) == PublicKeySecret(name="p", private_key="k")
    pem = pki.public_pem(pki.private_key())
    assert one_secret(f"{{name: p, kind: public-key, value: {quoted(pem)}}}") == PublicKeySecret(name="p", value=pem)
    given = f"{{name: k, kind: private-key, value: {quoted(pki.pkcs8_pem(pki.private_key()))}}}"
    one_secret(f"{{name: p, kind: public-key, private_key: k, value: {quoted(pem)}}}", given)


def test_f109_issuers_and_keys_may_be_imported() -> None:
    """F109: the kind of an import that says none is left to the release; one that says another is refused."""
    text = secrets(
        "{name: c, kind: x509, private_key: k, issuer: i}",
        *(f"{{name: {n}, import: {{session: a, secret: {n}}}}}" for n in "ki"),
    )
    assert session(text).session.secrets == (
        X509Secret(name="c", private_key="k", issuer="i"),
        ImportedSecret(name="k", session="a", secret="k"),
        ImportedSecret(name="i", session="a", secret="i"),
    )
    for name, member in (("k", "private_key"), ("i", "issuer")):
        other = text.replace(f"name: {name}, import", f"name: {name}, kind: ascii, import")
        assert "ascii" in mistake(other, f"secrets[0].{member}")


def test_f113_san_entries() -> None:
    """F113: wildcards, addresses of both kinds, repeated entries."""
    found = one_secret(
        '{name: c, kind: x509, private_key: k, san: ["dns:*.a.b", "ip:10.0.0.1", "ip:2001:db8::1", "dns:*.a.b"]}', KEY
    )
    assert isinstance(found, X509Secret)
    assert [str(name) for name in found.san] == ["*.a.b", "10.0.0.1", "2001:db8::1", "*.a.b"]


def test_f120_f121_dot_forms() -> None:
    """F120, F121: the whole name wins over the dot form."""
    text = images(
        "injection_files: [{path: /a, content: $$SCONE::c.crt$$}, {path: /b, content: $$SCONE::c.chain$$}, {path: /i, content: $$SCONE::i.key$$}]",
        f"secrets: [{KEY}, {{name: c, kind: x509, private_key: k}}, {{name: c.crt, kind: ascii}}, {{name: i, import: {{session: a, secret: b}}}}]",
    )
    deprecated = [finding.path for finding in session(text).notes]
    assert deprecated == ["images[0].injection_files[1].content", "images[0].injection_files[2].content"]


def test_f122_session_ca() -> None:
    """F122."""
    text = at(
        "0.2",
        f"secrets: [{{name: c, kind: session-ca}}]\nservices: [{{name: a, mrenclaves: [{A}], command: $$SCONE::c.crt$$$$SCONE::c$$}}]",
    )
    assert session(text).session.secrets == (SessionCaSecret(name="c"),)


def test_f123_aad_tokens() -> None:
    """F123."""
    assert one_secret(AAD) == AadTokenSecret(name="t", tenant_id="a", client_id="b", application_secret="c")
    key = pki.pkcs8_pem(pki.private_key(RSA))
    text = f"{{name: t, kind: aad-token, tenant_id: a, client_id: b, private_key: {quoted(key)}, certificate_thumbprint: {'AB' * 20}}}"
    assert one_secret(text) == AadTokenSecret(
        name="t", tenant_id="a", client_id="b", private_key=key, certificate_thumbprint="AB" * 20
    )


def test_f124_fragments_hold_any_yaml() -> None:
    """F124."""
    assert one_secret(
        "{name: f, kind: config-fragment, value: {b: [1, -1, 01, true, ~, '1', 12345678901234567890], a: {}}}"
    ) == (ConfigFragmentSecret(name="f", value={"a": {}, "b": [1, -1, "01", True, None, "1", "12345678901234567890"]}))


def test_f125_pgp_formats() -> None:
    """F125: six of them, each kept as it is written; another one is refused."""
    forms = [f"{part}:{form}" for part in ("privatekey", "publickey") for form in ("asciiarmored", "binary", "base64")]
    content = "".join(f"$$SCONE::p:{form}$$" for form in forms)
    text = images(f"injection_files: [{{path: /f, content: {content}}}]", "secrets: [{name: p, kind: pgp-key}]")
    (file,) = session(text).session.images[0].injection_files
    assert file.content == Template(parts=tuple(Placeholder(name="p", format=form) for form in forms))
    for form in ("privatekey:hex", "publickey:pem"):
        other = text.replace(content, f"$$SCONE::p:{form}$$")
        assert form in mistake(other, "images[0].injection_files[0].content")


def test_f126_f129_web_tokens() -> None:
    """F126, F128, F129."""
    text = secrets(
        "{name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 24h}, payload: {d: $$SCONE::self::software_identity$$,"
        " c: 'x $$SCONE::s$$', b: $$SCONE::s$$, a: '1'}}",
        "{name: k, kind: private-key, key_type: P-384}",
        "{name: s, kind: ascii}",
    )
    found = session(text).session.secrets[0]
    assert isinstance(found, JwtSecret)
    assert found.payload == (
        ("a", "1"),
        ("b", Variable(placeholder=Placeholder(name="s"))),
        ("c", "x $$SCONE::s$$"),
        ("d", SoftwareIdentity()),
    )
    assert "stays as it is" in note(text, "secrets[0].payload.c")
    until = text.replace("{for: 24h}", "{for: 24h, until: 2030}")
    assert "unknown key" in mistake(until, "secrets[0].validity.until")


def test_f132_f133_placeholders_are_cut_in_one_pass() -> None:
    """F132, F133: an explicit value is text, whatever it looks like; adjacent placeholders are two."""
    text = app("command: $$SCONE::s$$$$SCONE::s$$", more='secrets: [{name: s, kind: ascii, value: "$$SCONE::s$$"}]')
    assert only_service(text)[0] == (Template(parts=(Placeholder(name="s"), Placeholder(name="s"))),)
    assert session(text).session.secrets == (AsciiSecret(name="s", value="$$SCONE::s$$", size=12),)


def test_f138_f154_forms_of_0_2() -> None:
    """F154: names with hashes, and imports under the same name."""
    text = (
        secrets(
            f"{{name: s, kind: ascii, export: [a, 'b:{A.upper()}']}}", f"{{name: t, import: 'c:{A}'}}", version="0.2"
        )
        + f"volumes: [{{name: v, export: a}}, {{name: w, import: 'c:{A}'}}]"
    )
    found = session(text).session
    digest = bytes.fromhex(A)
    assert found.secrets[0].exports == (SessionTarget(session="a"), SessionTarget(session="b", session_hash=digest))
    assert found.secrets[1] == ImportedSecret(name="t", session="c", secret="t", session_hash=digest)
    assert found.volumes[1] == ImportedVolume(name="w", session="c", volume="w", session_hash=digest)
    assert parse_session(session(text).text).session == found


def test_f140_f144_templates_on_disk_and_their_secrets() -> None:
    """F140, F141, F144."""
    text = images("injection_files: [/f, {path: /g}], provide_secrets: [s]", "secrets: [{name: s, kind: ascii}]")
    (found,) = session(text).session.images
    assert [(file.path, file.content, file.permission) for file in found.injection_files] == [
        ("/f", None, 0o700),
        ("/g", None, 0o700),
    ]
    assert found.provide_secrets == ("s",)
    assert session(images("provide_secrets: []")).session.images[0].provide_secrets == ()
    assert session(images("volumes: []")).session.images[0].provide_secrets is None


def test_f147_f160_targets_in_all_spellings() -> None:
    """F147, F148, F150, F159, F160: equal meaning, equal hash."""
    mapped = secrets(
        f"{{name: s, kind: ascii, export: {{session: a, session_hash: {A}, cas_url: c, cas_key: {KEY_HASH}}}}}"
    )
    short = secrets(
        f"{{name: s, kind: ascii, export: ['https://c:8081/cas_key={KEY_HASH},session_hash={A.upper()},session=a']}}"
    )
    assert session(mapped).session == session(short).session
    assert session(mapped).hash == session(short).hash
    (target,) = session(mapped).session.secrets[0].exports
    assert isinstance(target, SessionTarget)
    assert target.cas is not None
    assert (target.cas.url, target.cas.cas_software_key) == ("c:8081", None)


def test_f155_f157_key_vault() -> None:
    """F155, F157: the only token of the session is meant where none is named."""
    found = one_secret("{name: s, import_akv: {vault: 'https://V.vault.azure.net/'}}", AAD)
    assert found == AkvSecret(name="s", vault="v.vault.azure.net", secret_name="s", token="t")
    full = "{name: s, kind: ascii, import_akv: {vault: v.vault.azure.net, secret_name: n, token: $$SCONE::t$$, decryption_key: $$SCONE::b$$}}"
    found = one_secret(full, AAD, "{name: b, kind: binary, size: 32}")
    assert found == AkvSecret(
        name="s", kind="ascii", vault="v.vault.azure.net", secret_name="n", token="t", decryption_key="b"
    )


def test_f005_a_null_import_is_none() -> None:
    """F005."""
    assert one_secret("{name: s, kind: ascii, value: x, import: ~, import_akv: }") == AsciiSecret(
        name="s", value="x", size=1
    )


def test_f158_where_secrets_are_stored() -> None:
    """F158."""
    assert session(f"{HEAD}secret_config: {{store_in: ~}}").hash == session(HEAD).hash
    assert session(f"{HEAD}secret_config: {{store_in: !cas }}").hash == session(HEAD).hash
    found = session(f"{HEAD}secret_config: {{store_in: !akv {{vault: v.vault.azure.net}}}}\nsecrets: [{AAD}]")
    assert found.session.secret_store == KeyVault(vault="v.vault.azure.net", token="t")
    assert parse_session(found.text).session == found.session


def test_f161_f167_volumes() -> None:
    """F161, F162, F163, F166, F167."""
    text = volumes(
        f"{{name: a}}, {{name: b, fspf_key: {A}, fspf_tag: {TAG}}}, {{name: c, files: authenticated-only, export: "
        "[{session: s}, {to: {session: s}, volume_alias: d}]}, {name: e, import: {session: s, volume: v}}"
    )
    a, b, c, e = session(text).session.volumes
    assert a == Volume(name="a")
    assert b == Volume(name="b", fspf_key=bytes.fromhex(A), fspf_tag=bytes.fromhex(TAG))
    assert isinstance(c, Volume)
    assert [(export.session, export.volume_alias) for export in c.exports] == [("s", None), ("s", "d")]
    assert e == ImportedVolume(name="e", session="s", volume="v")


def the_policy(text: str) -> AccessPolicy:
    found = parse_session(policy(text)).session.access_policy
    assert isinstance(found, AccessPolicy)
    return found


def test_f174_f175_defaults_of_the_access_policy() -> None:
    """F174, F175: creating follows update, listing follows read, unless they are given."""
    assert the_policy("{}") == AccessPolicy()
    found = the_policy("{read: ANY, update: NONE}")
    assert found.effective_create_sessions == (NoneSubject(),)
    assert found.effective_list_sessions == (AnySubject(),)
    assert the_policy("{create_sessions: CREATOR}").create_sessions == (CreatorSubject(),)


def test_f180_f181_variables_of_the_access_policy() -> None:
    """F180, F181."""
    more = "secrets: [{name: x, kind: ascii, value: CREATOR}]"
    x = Variable(placeholder=Placeholder(name="x"))
    assert session(at("0.2", f"access_policy: {{read: [CREATOR, $$SCONE::x$$]}}\n{more}")).session.access_policy == (
        AccessPolicy(read=(CreatorSubject(), x))
    )
    assert session(f"{HEAD}access_policy: $$SCONE::x$$\n{more}").session.access_policy == x


def test_f182_signers_in_both_forms_are_one_key() -> None:
    """F182."""
    ed25519, p384 = pki.public_pem(pki.private_key("Ed25519")), pki.public_pem(pki.private_key("P-384"))
    found = the_policy(f"{{update: [{{signer: {quoted(ed25519)}}}, {{signer: {quoted(p384)}}}]}}").update
    assert found == (
        SignerSubject(spki=pki.spki(pki.private_key("Ed25519"))),
        SignerSubject(spki=pki.spki(pki.private_key("P-384"))),
    )
    vector = "MCowBQYDK2VwAyEAOsufQ7RCOXueVLQBpk7Y44GAaj+LzPbmHfdr/TPdlrE="
    pem = quoted(f"-----BEGIN PUBLIC KEY-----\n{vector}\n-----END PUBLIC KEY-----\n")
    older = the_policy("{update: {signer: LtLcbPVddnCkH36ZcRdgYsw4H8xDbYaFZfuefkDc25uq2qdjmM}}")
    assert older == the_policy(f"{{update: {{signer: {pem}}}}}")


def test_f184_rules_nest() -> None:
    """F184: the owner, or two of three and a veto."""
    first, second, third = (f"{{signer: {signer}}}" for signer in SIGNERS)
    (rule,) = the_policy(
        f"{{update: {{require-at-least-1: [{first}, {{require-all: [CREATOR, {{require-at-least-2: [{first}, {second}, {third}]}}]}}]}}}}"
    ).update
    assert isinstance(rule, RuleSubject)
    assert (rule.needed, len(rule.subjects)) == (1, 2)
    inner = rule.subjects[1]
    assert isinstance(inner, RuleSubject)
    assert (inner.needed, inner.subjects[0]) == (2, CreatorSubject())
    assert isinstance(inner.subjects[1], RuleSubject)
    assert (inner.subjects[1].needed, len(inner.subjects[1].subjects)) == (2, 3)


def test_f187_a_signed_session_says_who_reads() -> None:
    """F187: a policy that is a variable is judged when it is known."""
    delegated = (
        f"{HEAD}access_policy: $$SCONE::x$$\ncreator: {{signer: {SIGNERS[0]}}}\nsecrets: [{{name: x, kind: ascii}}]"
    )
    assert isinstance(session(delegated).session.creator, SignerSubject)
    text = f"{HEAD}access_policy: {{read: NONE}}\ncreator: {{signer: {SIGNERS[0]}}}"
    assert isinstance(session(text).session.creator, SignerSubject)


def the_security(text: str) -> Security:
    found = session(text).session.security
    assert isinstance(found, Security)
    return found


def test_f188_no_section_is_the_strictest() -> None:
    """F188."""
    assert the_security(HEAD) == Security(attestation=SecurityAttestation(mode="hardware"))


def test_f190_every_toleration_is_known() -> None:
    """F190."""
    values = list(language.TOLERATE)
    found = the_security(security(f"{{tolerate: [{', '.join(values)}]}}")).attestation
    assert isinstance(found, SecurityAttestation)
    assert found.tolerate == frozenset(values)


def test_f195_azure_attestation() -> None:
    """F195."""
    certificate = pki.certificate_pem()
    text = f"{{mode: maa, tolerate: [maa-managed-tcb], url: 'https://a.example.com/', certificates: {quoted(certificate)}}}"
    assert the_security(security(text)).attestation == SecurityAttestation(
        mode="maa", tolerate=frozenset({"maa-managed-tcb"}), url="https://a.example.com", certificates=(certificate,)
    )


def test_f199_f204_tokens_passwords_singletons() -> None:
    """F199, F200, F202, F203, F204."""
    more = "secrets: [{name: o, kind: binary, size: 16}, {name: t, kind: ascii}]"
    text = app(f"one_time_password_shared_secret: {OTP.lower()}", more=f"{more}\nsecurity: {{singleton_enclaves: true,"
               " service_access_token: $$SCONE::t$$, attestation: {one_time_password_shared_secret: $$SCONE::o:base32nopad$$}}")  # fmt: skip
    found = the_security(text)
    assert (found.singleton_enclaves, found.service_access_token) == (True, Variable(placeholder=Placeholder(name="t")))
    assert isinstance(found.attestation, SecurityAttestation)
    assert isinstance(found.attestation.one_time_password_shared_secret, Variable)
    assert session(text).session.services[0].one_time_password_shared_secret == b"12345678901234567890"
    padded = app("one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY======")
    assert session(padded).session.services[0].one_time_password_shared_secret == b"1234567890123456"
    assert "under 16 characters" in note(
        f"{HEAD}security: {{service_access_token: short}}", "security.service_access_token"
    )


def test_f205_every_part_of_security_may_be_a_variable() -> None:
    """F205."""
    members = (
        "mode", "tolerate", "ignore_advisories", "url", "certificates", "must_be_sgx_local", "one_time_password_shared_secret",
    )  # fmt: skip
    more = "secrets: [{name: x, import: {session: a, secret: b}}]"
    text = security("{" + ", ".join(f"{member}: $$SCONE::x$$" for member in members) + "}") + more
    x = Variable(placeholder=Placeholder(name="x"))
    assert the_security(text).attestation == SecurityAttestation(
        mode=x,
        tolerate=frozenset({x}),
        ignore_advisories=frozenset({x}),
        url=x,
        certificates=(x,),
        must_be_sgx_local=x,
        one_time_password_shared_secret=x,
    )
    assert session(f"{HEAD}security: {{attestation: $$SCONE::x$$}}\n{more}").session.attestation == x
    assert "mistyped" in mistake(
        f"{HEAD}security: {{mistyped: x, attestation: $$SCONE::x$$}}\n{more}", "security.mistyped"
    )


def test_f206_network_shield_variables_are_passed_on() -> None:
    """F206."""
    text = app(
        "environment: {SCONE_NETWORK_SHIELD: protected, SCONE_NETWORK_SHIELD_SERVER_r-1: protected, SCONE_NETWORK_SHIELD_SERVER_r-1_PORT: TCP:1,"
        " SCONE_NETWORK_SHIELD_SERVER_r-1_IDENTITY: $$SCONE::k:pem$$$$SCONE::k$$, SCONE_NETWORK_SHIELD_SERVER_r-1_CLIENT_AUTH: disabled,"
        " SCONE_NETWORK_SHIELD_CLIENT_c: $$SCONE::m$$, SCONE_NETWORK_SHIELD_CLIENT_c_DESTINATION: unix:/s}",
        more=f"secrets: [{KEY}, {{name: m, kind: ascii}}]",
    )
    session(text)
    assert "has no effect here" in note(app("environment: {SCONE_HEAP: 1G}"), "services[0].environment.SCONE_HEAP")


def test_no_message_quotes_what_may_be_secret() -> None:
    for text in (
        app(f"fspf_path: /f, fspf_key: {A[1:]}, fspf_tag: {TAG}"),
        volumes(f"{{name: v, fspf_key: x{A[1:]}, fspf_tag: {TAG}}}"),
        security(f"{{one_time_password_shared_secret: 1{A}}}"),
        secrets(f"{{name: b, kind: binary, value: x{A}}}", f"{{name: k, kind: private-key, value: {A}}}"),
        secrets(f"{{name: s, import_akv: {{vault: v.vault.azure.net, decryption_key: {A}}}}}", AAD),
        at("0.3.12", f"security: {{service_access_token: {A}$$SCONE::x$$}}"),
    ):
        assert not any(A[1:20] in finding.message for finding in mistakes(text))


def test_a_text_of_nothing_but_mistakes_is_not_compared_for_ever() -> None:
    """F002: the first mistakes say what may be meant; the others are reported all the same."""
    known = "".join(f"- {{name: secret{index}, kind: ascii}}\n" for index in range(100))
    unknown = " ".join(f"$$SCONE::secrex{index}$$" for index in range(200))
    found = mistakes(
        f"{HEAD}secrets:\n{known}images: [{{name: i, injection_files: [{{path: /f, content: {unknown}}}]}}]"
    )
    assert len(found) == 200
    assert sum("did you mean secret" in finding.message for finding in found) == MAX_SUGGESTIONS


def test_an_update_notes_keys_that_change() -> None:
    """F104: a key that others rely on and that does not migrate."""
    text = f"{HEAD}predecessor: {A}\nsecrets: [{KEY}, {{name: c, kind: x509, private_key: k}}]"
    assert "makes this key anew" in note(text, "secrets[0]")
    assert not session(text.replace("private-key}", "private-key, migrate: true}")).notes


def test_no_input_of_this_module_raises_anything_undocumented() -> None:
    for _, text, *_ in (*REFUSED, *WARNED):
        for end in range(0, len(text), 7):
            try:
                parse_session(text[:end])
            except InputError:
                continue
