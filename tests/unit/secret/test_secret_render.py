"""Placeholders to the text a program sees, and those that are refused."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from ruamel.yaml import YAML

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.format import FORMS
from ostiary.secret.pem import encode_pem
from ostiary.secret.private_key import load_private_key
from ostiary.secret.render import MAX_RENDERED_BYTES, render
from ostiary.secret.value import AsciiValue, BinaryValue, CertificateValue, PrivateKeyValue, Value
from ostiary.session.placeholder import Placeholder, Template

SIMPLE: dict[str, Value] = {
    "word": AsciiValue(text="two words"),
    "data": BinaryValue(data=bytes.fromhex("deadbeef")),
    "odd": AsciiValue(text='a"b\\c\n\x01\x7f\x85\u2028\u00e9\U0001f600/'),
    "loop": AsciiValue(text="$$SCONE::word$$"),
}


def one(values: Mapping[str, Value], name: str, form: str = "", encoding: str = "") -> bytes:
    return render(Template(parts=(Placeholder(name=name, format=form, encoding=encoding),)), values)


def refusal(values: Mapping[str, Value], name: str, form: str = "", encoding: str = "") -> str:
    with pytest.raises(ReleaseRefusedError) as caught:
        one(values, name, form, encoding)
    return str(caught.value)


def test_literal_text_is_utf8_and_stays_around_placeholders() -> None:
    """Feature F139: the text around placeholders."""
    template = Template(parts=("\u00e9=", Placeholder(name="word"), "; ", Placeholder(name="data", format="hex"), "\n"))
    assert render(template, SIMPLE) == "\u00e9=two words; deadbeef\n".encode()


def test_an_empty_template_is_empty() -> None:
    assert render(Template(parts=()), SIMPLE) == b""


def test_what_was_put_in_is_not_looked_at_again() -> None:
    """Feature F132: one pass."""
    assert one(SIMPLE, "loop") == b"$$SCONE::word$$"
    pieces: dict[str, Value] = {"a": AsciiValue(text="$$SCONE::"), "b": AsciiValue(text="word$$")}
    template = Template(parts=(Placeholder(name="a"), Placeholder(name="b")))
    assert render(template, SIMPLE | pieces) == b"$$SCONE::word$$"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", b"\xde\xad\xbe\xef"),
        ("bin", b"\xde\xad\xbe\xef"),
        ("hex", b"deadbeef"),
        ("base64", b"3q2+7w=="),
        ("base64url", b"3q2-7w=="),
        ("base32", b"32W353Y="),
        ("base32nopad", b"32W353Y"),
    ],
)
def test_formats_of_binary(form: str, expected: bytes) -> None:
    """Feature F097, F098."""
    assert one(SIMPLE, "data", form) == expected


def test_the_dot_form_of_binary_is_hex() -> None:
    """Feature F120."""
    assert one(SIMPLE, "data.hex") == b"deadbeef"


@pytest.mark.parametrize("key_type", ["P-256", "P-384", "Ed25519", "RSA-2048", "RSA-3072"])
def test_formats_of_a_private_key(keys: Mapping[str, Value], key_type: str) -> None:
    """Feature F102."""
    value = keys[key_type]
    assert isinstance(value, PrivateKeyValue)
    pem = one(keys, key_type)
    assert pem == one(keys, key_type, "pem") == one(keys, key_type, "pkcs8:pem")
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    der = one(keys, key_type, "der")
    assert der == one(keys, key_type, "pkcs8:der") == value.pkcs8_der
    old = one(keys, key_type, "pkcs8-v1:pem"), one(keys, key_type, "pkcs8-v1:der")
    assert load_pem_private_key(old[0], None).public_key() == load_der_private_key(old[1], None).public_key()
    assert load_private_key(value).public_key() == load_pem_private_key(old[0], None).public_key()


def test_formats_of_a_certificate(chain: Mapping[str, Value]) -> None:
    """Feature F117, F120: .crt and .key are the deprecated dot forms."""
    leaf, middle, root = (chain[name] for name in ("leaf", "middle", "root"))
    assert isinstance(leaf, CertificateValue)
    certificate = one(chain, "leaf")
    assert certificate == one(chain, "leaf", "crt") == one(chain, "leaf", "crt:pem") == one(chain, "leaf.crt")
    assert one(chain, "leaf", "crt:der") == leaf.certificate_der
    key = one(chain, "leaf_key")
    for form in ("privatekey", "privatekey:pem", "privatekey:pkcs8:pem"):
        assert one(chain, "leaf", form) == key
    assert one(chain, "leaf.key") == key
    assert one(chain, "leaf", "privatekey:pkcs8-v1:pem") == one(chain, "leaf", "privatekey")
    assert one(chain, "leaf", "privatekey:pkcs8-v1:der") == leaf.private_key
    assert one(chain, "leaf", "privatekey:der") == one(chain, "leaf", "privatekey:pkcs8:der") == leaf.private_key
    assert isinstance(middle, CertificateValue)
    assert isinstance(root, CertificateValue)
    assert leaf.chain_der == (middle.certificate_der, root.certificate_der)


def test_chain_and_dot_chain_differ_in_order_and_own_certificate(chain: Mapping[str, Value]) -> None:
    """Feature F118."""
    own, middle, root = (one(chain, name) for name in ("leaf", "middle", "root"))
    assert one(chain, "leaf", "chain") == middle + root
    assert one(chain, "leaf.chain") == root + middle + own
    assert one(chain, "root", "chain") == b""
    assert one(chain, "root.chain") == root


def test_pem_is_as_openssl_writes_it(chain: Mapping[str, Value]) -> None:
    for command, data in ((["x509"], one(chain, "leaf")), (["pkey"], one(chain, "leaf_key"))):
        assert subprocess.run(["openssl", *command], input=data, capture_output=True, check=True).stdout == data


@pytest.mark.parametrize("size", [0, 1, 47, 48, 49, 96, 1000])
def test_pem_has_lines_of_64_characters_and_one_newline_at_the_end(size: int) -> None:
    first, *body, last, rest = encode_pem("X", bytes(size)).decode().split("\n")
    assert (first, last, rest) == ("-----BEGIN X-----", "-----END X-----", "")
    assert all(len(line) == 64 for line in body[:-1])
    assert base64.b64decode("".join(body)) == bytes(size)


def test_key_and_certificate_side_by_side_are_valid_pem(chain: Mapping[str, Value]) -> None:
    """Feature F133: adjacent placeholders."""
    template = Template(parts=(Placeholder(name="leaf", format="privatekey"), Placeholder(name="leaf")))
    text = render(template, chain)
    assert load_pem_private_key(text, None)
    assert x509.load_pem_x509_certificate(text)


def test_the_whole_name_wins_over_the_dot_form(chain: Mapping[str, Value]) -> None:
    """Feature F121."""
    values = dict(chain) | {"leaf.crt": AsciiValue(text="a secret of its own")}
    assert one(values, "leaf.crt") == b"a secret of its own"
    assert one({"a.b": SIMPLE["data"]}, "a.b.hex") == b"deadbeef"


def test_escape_json_makes_the_inside_of_a_json_string() -> None:
    value = SIMPLE["odd"]
    assert isinstance(value, AsciiValue)
    escaped = one(SIMPLE, "odd", encoding="escape(json)").decode()
    assert escaped.startswith(r"a\"b\\c\n\u0001\u007f\u0085\u2028" + "\u00e9")
    assert json.loads(f'"{escaped}"') == value.text


def test_escape_json_makes_the_inside_of_a_yaml_string() -> None:
    value = SIMPLE["odd"]
    assert isinstance(value, AsciiValue)
    escaped = one(SIMPLE, "odd", encoding="escape(json)").decode()
    for version in ((1, 1), (1, 2)):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        assert yaml.load(f'key: "{escaped}"') == {"key": value.text}


def test_escape_json_applies_to_the_formatted_value(chain: Mapping[str, Value]) -> None:
    """Feature F134."""
    escaped = one(chain, "leaf", "crt", "escape(json)")
    assert b"\n" not in escaped
    assert json.loads(b'"' + escaped + b'"').encode() == one(chain, "leaf")


@pytest.mark.parametrize(
    ("name", "form", "encoding", "message"),
    [
        ("lost", "", "", "placeholder $$SCONE::lost$$: there is no secret 'lost'; declare it in secrets"),
        ("lost.crt", "", "", "placeholder $$SCONE::lost.crt$$: there is no secret 'lost.crt'; declare it in secrets"),
        (".hex", "", "", "placeholder $$SCONE::.hex$$: there is no secret '.hex'; declare it in secrets"),
        ("word", "hex", "", "$$SCONE::word:hex$$: secret 'word', ascii, has no format 'hex'; its formats are: none"),
        ("data", "HEX", "", "secret 'data', binary, has no format 'HEX'; its formats are: 'bin', 'hex', 'base64', "),
        ("data", "pem", "", "secret 'data', binary, has no format 'pem'; its formats are: "),
        ("data.crt", "", "", "secret 'data', binary, as .crt has no format 'crt'; its formats are: 'hex'"),
        ("data.", "", "", "secret 'data', binary, as . has no format ''; its formats are: 'hex'"),
        ("word.hex", "", "", "secret 'word', ascii, as .hex has no format 'hex'; its formats are: none"),
        ("data.hex", "hex", "", "there is no secret 'data.hex', and .hex takes no format; write data:hex"),
        ("leaf", "key", "", "secret 'leaf', x509, has no format 'key'; its formats are: 'crt', 'crt:pem', "),
        ("leaf_key", "privatekey", "", "secret 'leaf_key', private-key, has no format 'privatekey'; its formats are:"),
        ("leaf_key.key", "", "", "secret 'leaf_key', private-key, as .key has no format 'key'; its formats are: none"),
        ("word", "", "escape(xml)", "there is no encoding 'escape(xml)'; known are: escape(json)"),
        ("data", "", "escape(json)", "escape(json) is for text, and this format is raw bytes; use a format such as"),
        ("data", "bin", "escape(json)", "escape(json) is for text, and this format is raw bytes"),
        ("leaf", "crt:der", "escape(json)", "escape(json) is for text, and this format is raw bytes"),
        ("leaf", "privatekey:der", "escape(json)", "escape(json) is for text, and this format is raw bytes"),
        ("leaf_key", "der", "escape(json)", "escape(json) is for text, and this format is raw bytes"),
        ("leaf", "pkcs12-with-private-key", "escape(json)", "escape(json) is for text, and this format is raw"),
    ],
)
def test_placeholders_that_cannot_be_replaced_are_refused(
    chain: Mapping[str, Value], name: str, form: str, encoding: str, message: str
) -> None:
    """Feature F134, F135, F136: at release, also what the parser could not see."""
    found = refusal(dict(chain) | SIMPLE, name, form, encoding)
    assert found.startswith("placeholder $$SCONE::")
    assert message in found
    assert "two words" not in found
    assert "deadbeef" not in found


@pytest.mark.parametrize(
    ("name", "form"),
    [("c", form) for form in FORMS[CertificateValue].formats if "private" in form] + [("c.key", "")],
)
def test_a_certificate_whose_key_is_not_known_gives_no_key(chain: Mapping[str, Value], name: str, form: str) -> None:
    leaf = chain["leaf"]
    assert isinstance(leaf, CertificateValue)
    values = {"c": replace(leaf, private_key=None)}
    placeholder = Placeholder(name=name, format=form)
    assert refusal(values, name, form) == (
        f"placeholder {placeholder}: the certificate's private key is not known here; give the secret its private_key, "
        "and export, import or provide the secret of that key too"
    )
    assert one(values, "c") == one(chain, "leaf")


def test_one_refused_placeholder_refuses_the_whole_text() -> None:
    with pytest.raises(ReleaseRefusedError, match=r"there is no secret 'lost'"):
        render(Template(parts=("a", Placeholder(name="word"), Placeholder(name="lost"))), SIMPLE)


def test_a_text_over_the_bound_is_refused_before_it_grows() -> None:
    values = {"big": BinaryValue(data=bytes(65536))}
    full = Template(parts=(Placeholder(name="big"),) * (MAX_RENDERED_BYTES // 65536))
    assert len(render(full, values)) == MAX_RENDERED_BYTES
    with pytest.raises(ReleaseRefusedError, match=r"^a text with its secrets is over 1048576 bytes; split it into"):
        render(Template(parts=(*full.parts, "x")), values)
    with pytest.raises(ReleaseRefusedError, match=r"^a text with its secrets is over 1048576 bytes"):
        render(Template(parts=full.parts * 100_000), values)


def test_text_without_utf8_form_is_refused() -> None:
    with pytest.raises(
        ReleaseRefusedError, match=r"^a text has half a surrogate pair, which has no UTF-8 form; correct"
    ):
        render(Template(parts=("\ud800",)), SIMPLE)
