"""Placeholders held against the secrets of the session."""

from __future__ import annotations

import pytest
from tests.unit.session import pki
from tests.unit.session.texts import A, mistake, note, quiet, quoted, warning

PATH = "images[0].injection_files[0].content"


def session(text: str, *, version: str = "0.3.12") -> str:
    """A file with this content, beside a secret of each kind."""
    given = quoted(pki.certificate_pem())
    return (
        f'name: test\nversion: "{version}"\n'
        f"images: [{{name: i, injection_files: [{{path: /f, content: {quoted(text)}}}]}}]\n"
        "secrets:\n- {name: pw, kind: ascii}\n- {name: raw, kind: binary}\n- {name: key, kind: private-key}\n"
        "- {name: ca, kind: x509-ca, private_key: key}\n- {name: crt, kind: x509, private_key: key}\n"
        f"- {{name: tls.crt, kind: ascii}}\n- {{name: tls, kind: x509, private_key: key}}\n"
        f"- {{name: given, kind: x509, value: {given}}}\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        "pw",
        *(f"raw{form}" for form in ("", ":bin", ":hex", ":base64", ":base64url", ":base32", ":base32nopad")),
        *(f"key{form}" for form in ("", ":pem", ":pkcs8:pem", ":der", ":pkcs8:der")),
        *(f"crt{form}" for form in ("", ":crt", ":crt:pem", ":crt:der", ":chain", ":pkcs12-with-private-key")),
        *(f"ca:privatekey{form}" for form in ("", ":pem", ":pkcs8:pem", ":der", ":pkcs8:der")),
        "pw|escape(json)",
        "raw:hex|escape(json)",
        "given:crt",
        "given:chain",
        "tls.crt",
    ],
)
def test_every_kind_has_its_formats(name: str) -> None:
    parsed = quiet(session(f"x$$SCONE::{name}$$y"))
    assert not parsed.notes


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "names a secret that is not in secrets; expected one of"),
        ("pww", "names a secret that is not in secrets: did you mean pw?"),
        ("pw:hex", 'kind ascii has no format "hex"; write $$SCONE::pw$$'),
        ("raw:pem", 'kind binary has no format "pem"'),
        ("raw:base46", "did you mean base64?"),
        ("key:crt", 'kind private-key has no format "crt"'),
        ("crt:privatkey", "did you mean privatekey?"),
        ("pw.crt", 'there is no secret "pw.crt", and "pw", of kind ascii, has no format "crt"'),
        ("crt.pem", "did you mean crt:pem?"),
        ("crt.key:pem", "has two formats; write $$SCONE::crt:pem$$"),
        ("given:privatekey", "the certificate has no private_key in this session"),
        ("given:pkcs12-with-private-key", "the certificate has no private_key in this session"),
        ("given.key", "the certificate has no private_key in this session"),
        ("pw|escape(xml)", "unknown encoding: did you mean escape(json)?"),
        ("raw|escape(json)", "an encoding needs text"),
        ("crt:crt:der|escape(json)", "an encoding needs text"),
    ],
)
def test_other_placeholders_are_refused(name: str, says: str) -> None:
    assert says in mistake(session(f"$$SCONE::{name}$$ and again $$SCONE::{name}$$"), PATH)


@pytest.mark.parametrize(
    ("name", "version", "needed"),
    [
        ("raw:hex", "0.3.4", "0.3.5"),
        ("raw:base64", "0.3.5", "0.3.6"),
        ("raw:base32", "0.3.9", "0.3.10"),
        ("key", "0.3.4", "0.3.5"),
        ("crt:crt", "0.3.4", "0.3.5"),
        ("crt:pkcs12-with-private-key", "0.3.8", "0.3.9"),
        ("pw|escape(json)", "0.3.9", "0.3.10"),
        ("raw:base32", "0.3", "0.3.10"),
    ],
)
def test_formats_need_the_version_that_brought_them(name: str, version: str, needed: str) -> None:
    text = f"$$SCONE::{name}$$"
    assert f"needs version {needed}, found {version}" in mistake(session(text, version=version), PATH)
    quiet(session(text, version=needed))


@pytest.mark.parametrize("name", ["crt.crt", "crt.key", "crt.chain", "raw.hex", "raw.hex|escape(json)"])
def test_dot_forms_are_a_note(name: str) -> None:
    quiet(session(f"$$SCONE::{name}$$"))
    assert "deprecated form with a dot" in note(session(f"$$SCONE::{name}$$"), PATH)


def test_raw_bytes_in_an_argument_or_variable_are_a_warning() -> None:
    head = (
        f'name: a\nversion: "0.3.12"\nsecrets: [{{name: raw, kind: binary}}]\nservices: [{{name: s, mrenclaves: [{A}], '
    )
    assert "raw bytes" in warning(head + "command: 'a $$SCONE::raw$$'}]", "services[0].command")
    assert "raw bytes" in warning(head + "environment: {A: '$$SCONE::raw:bin$$'}}]", "services[0].environment.A")
    quiet(head + "command: 'a $$SCONE::raw:hex$$'}]")


def test_placeholders_of_a_mistaken_secret_are_not_judged() -> None:
    head = 'name: a\nversion: "0.3.12"\nsecrets: [{name: j, kind: jvt}]\n'
    files = "images: [{name: i, injection_files: [{path: /f, content: $$SCONE::j$$ $$SCONE::j.crt$$}]}]"
    assert "did you mean jwt?" in mistake(head + files, "secrets[0].kind")
