"""Laws of secrets: round trips, one pass, and no secret in any message."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import OstiaryError, ReleaseRefusedError, StoreError
from ostiary.secret.akv import decode_akv
from ostiary.secret.file_template import parse_file_template, render_file_template
from ostiary.secret.format import FORMS
from ostiary.secret.fragment import expand, fragment
from ostiary.secret.generate import generate
from ostiary.secret.kind import Making, make
from ostiary.secret.render import render
from ostiary.secret.value import (
    AadTokenValue,
    AsciiValue,
    BinaryValue,
    CertificateValue,
    FragmentValue,
    JwtValue,
    PgpKeyValue,
    PrivateKeyValue,
    PublicKeyValue,
    Released,
    SessionCaValue,
    Value,
    decode_values,
    encode_values,
)
from ostiary.secret.vault import VaultEntry, vault_value
from ostiary.session.model import (
    AkvSecret,
    AsciiSecret,
    PrivateKeySecret,
    PublicKeySecret,
    Session,
    X509CaSecret,
    X509Secret,
)
from ostiary.session.normal import JsonValue
from ostiary.session.placeholder import Placeholder, Template

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INSTANT = st.datetimes(timezones=st.just(UTC)).map(lambda instant: instant.replace(microsecond=0))
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)
VALUE: st.SearchStrategy[Value] = st.one_of(
    st.builds(AsciiValue, text=TEXT),
    st.builds(BinaryValue, data=st.binary()),
    st.builds(PrivateKeyValue, pkcs8_der=st.binary()),
    st.builds(
        CertificateValue,
        certificate_der=st.binary(),
        chain_der=st.lists(st.binary(), max_size=3).map(tuple),
        private_key=st.none() | st.binary(),
        not_before=INSTANT,
        not_after=INSTANT,
    ),
    st.builds(PublicKeyValue, spki_der=st.binary()),
    st.builds(SessionCaValue, certificate_der=st.binary()),
    st.builds(PgpKeyValue, secret_key=st.binary(), public_key=st.binary()),
    st.builds(FragmentValue, value=JSON),
)
FORMATS = sorted({name for forms in FORMS.values() for name in forms.formats})


@given(st.dictionaries(TEXT, VALUE, max_size=5))
def test_the_sealed_form_comes_back_as_it_went_in(values: dict[str, Value]) -> None:
    assert decode_values(encode_values(values)) == values


@given(st.dictionaries(TEXT, VALUE, max_size=2), st.data())
def test_a_damaged_sealed_form_raises_nothing_but_store_error(values: dict[str, Value], data: st.DataObject) -> None:
    sealed = bytearray(encode_values(values))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StoreError):
        decode_values(bytes(sealed))


@given(st.binary())
def test_no_bytes_raise_anything_but_store_error(sealed: bytes) -> None:
    with contextlib.suppress(StoreError):
        decode_values(sealed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["version", "values", "kind", "text", "data"]) | TEXT, inner)
        ),
    )
)
def test_no_json_raises_anything_but_store_error(document: object) -> None:
    with contextlib.suppress(StoreError):
        decode_values(json.dumps({"version": 1, "values": document}).encode())


@given(st.lists(TEXT | st.sampled_from(["$$SCONE::", "a", "$$", "$$SCONE::a$$", ":hex"])), TEXT)
def test_literal_text_and_replaced_text_are_never_scanned(texts: list[str], value: str) -> None:
    parts: list[str | Placeholder] = []
    for text in texts:
        parts += [text, Placeholder(name="a")]
    expected = "".join(text + value + "$$SCONE::a$$" for text in texts)
    rendered = render(Template(parts=tuple(parts)), {"a": AsciiValue(text=value + "$$SCONE::a$$")})
    assert rendered.decode() == expected


@given(st.binary())
def test_formats_of_binary_come_back(data: bytes) -> None:
    def form(name: str) -> bytes:
        return render(Template(parts=(Placeholder(name="b", format=name),)), {"b": BinaryValue(data=data)})

    assert form("") == form("bin") == data
    assert bytes.fromhex(form("hex").decode()) == data
    assert base64.b64decode(form("base64"), validate=True) == data
    assert base64.urlsafe_b64decode(form("base64url")) == data
    assert base64.b32decode(form("base32")) == data
    assert form("base32nopad") == form("base32").rstrip(b"=")


@given(TEXT)
def test_escape_json_comes_back_through_json(text: str) -> None:
    placeholder = Placeholder(name="a", encoding="escape(json)")
    escaped = render(Template(parts=(placeholder,)), {"a": AsciiValue(text=text)})
    assert json.loads(b'"' + escaped + b'"') == text


@given(st.integers(1, 3000), st.integers())
def test_a_generated_ascii_value_has_its_length_and_alphabet(size: int, seed: int) -> None:
    session = Session(version="0.3", name="s", secrets=(AsciiSecret(name="a", size=size),))
    values = generate(session, previous={}, previous_session=None, random=random.Random(seed).randbytes, now=NOW)
    value = values["a"]
    assert isinstance(value, AsciiValue)
    assert len(value.text) == size
    assert all("\x21" <= character <= "\x7e" for character in value.text)


SECRET_TEXT = "hunter2hunter2"
HOLDING: list[Released] = [
    AadTokenValue(text=SECRET_TEXT),
    JwtValue(text=SECRET_TEXT),
    FragmentValue(value={SECRET_TEXT: [SECRET_TEXT, "$$SCONE::a$$"]}),
    PgpKeyValue(secret_key=SECRET_TEXT.encode(), public_key=b""),
    AsciiValue(text=SECRET_TEXT),
    BinaryValue(data=SECRET_TEXT.encode()),
    PrivateKeyValue(pkcs8_der=SECRET_TEXT.encode()),
    CertificateValue(certificate_der=b"", private_key=SECRET_TEXT.encode(), not_before=NOW, not_after=NOW),
    CertificateValue(certificate_der=b"", not_before=NOW, not_after=NOW),
]
ENCODED = {SECRET_TEXT, SECRET_TEXT.encode().hex(), base64.b64encode(SECRET_TEXT.encode()).decode().rstrip("=")}


def render_one(values: Mapping[str, Released], placeholder: Placeholder) -> bytes:
    return render(Template(parts=(placeholder,)), values)


@given(
    st.sampled_from(HOLDING),
    st.sampled_from(["a", "a.hex", "a.crt", "a.key", "a.chain", "a.lost", "b"]),
    st.sampled_from([*(name for name in FORMATS if not name.startswith("pkcs12")), "lost"]),
    st.sampled_from(["", "escape(json)", "escape(xml)"]),
)
def test_no_secret_stands_in_a_refusal_or_a_repr(value: Released, name: str, form: str, encoding: str) -> None:
    said = repr(value) + str(value) + f"{value!s:>80}"
    placeholder = Placeholder(name=name, format=form, encoding=encoding)
    for use in (render_one, fragment):
        try:
            use({"a": value}, placeholder)
        except OstiaryError as error:
            said += repr(error) + str(error) + "".join(error.chain)
    assert not any(text in said for text in ENCODED)


@given(
    TEXT
    | st.text("-BEGIN PRIVATE KEYCERTFA\n0=", max_size=200)
    | st.binary().map(
        lambda data: f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(data).decode()}\n-----END PRIVATE KEY-----"
    )
    | st.binary().map(
        lambda data: f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(data).decode()}\n-----END CERTIFICATE-----"
    )
)
def test_no_explicit_text_raises_anything_undocumented_or_is_quoted(text: str) -> None:
    making = Making(random=random.Random(1).randbytes, now=NOW, values={})
    given_text, said = text + SECRET_TEXT, ""
    for secret in (
        PrivateKeySecret(name="s", value=given_text),
        PublicKeySecret(name="s", value=given_text),
        X509Secret(name="s", value=given_text),
        X509CaSecret(name="s", value=given_text),
        AsciiSecret(name="s", value=given_text),
    ):
        try:
            make(secret, making)
        except OstiaryError as error:
            said += repr(error) + str(error)
    assert SECRET_TEXT not in said


AKV = AkvSecret(name="s", vault="v", secret_name="t", token="a")


@given(TEXT | st.binary().map(lambda data: base64.b64encode(b"\x00\xa1\x00\x02" + data).decode()), st.booleans())
def test_no_text_of_a_key_vault_raises_anything_undocumented(text: str, encrypted: bool) -> None:
    for kind in (None, "ascii", "binary", "private-key", "x509"):
        with contextlib.suppress(ReleaseRefusedError):
            vault_value(replace(AKV, kind=kind), VaultEntry(text=text), key=bytes(32) if encrypted else None)


@given(st.binary(max_size=0xFFFF), st.binary(min_size=12, max_size=12), st.binary(min_size=32, max_size=32))
def test_what_is_encrypted_for_a_key_vault_comes_back(data: bytes, iv: bytes, key: bytes) -> None:
    sealed = bytes.fromhex("00a10002") + len(data).to_bytes(2, "big") + iv + AESGCM(key).encrypt(iv, data, None)
    assert decode_akv(base64.b64encode(sealed).decode(), key) == data


@given(JSON)
def test_configuration_without_variables_expands_to_itself(value: JsonValue) -> None:
    assert expand(value, {}) == value


@given(JSON)
def test_an_expanded_list_is_the_list_with_the_fragment_in_its_place(value: JsonValue) -> None:
    expanded = expand(["before", "$$SCONE::f$$", "after"], {"f": FragmentValue(value=value)})
    inside = list(value) if isinstance(value, list) else [value]
    assert expanded == ["before", *inside, "after"]


@given(st.binary(max_size=1000))
def test_a_file_without_placeholders_keeps_every_byte(data: bytes) -> None:
    assert render_file_template(parse_file_template(data, "f"), "f", {}) == data
