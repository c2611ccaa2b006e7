"""Laws of secrets: round trips, one pass, and no secret in any message."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import OstiaryError, StoreError
from ostiary.secret.format import FORMS
from ostiary.secret.generate import generate
from ostiary.secret.kind import Making, make
from ostiary.secret.render import render
from ostiary.secret.value import (
    AsciiValue,
    BinaryValue,
    CertificateValue,
    PrivateKeyValue,
    Value,
    decode_values,
    encode_values,
)
from ostiary.session.model import AsciiSecret, PrivateKeySecret, Session, X509CaSecret, X509Secret
from ostiary.session.placeholder import Placeholder, Template

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INSTANT = st.datetimes(timezones=st.just(UTC)).map(lambda instant: instant.replace(microsecond=0))
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
HOLDING: list[Value] = [
    AsciiValue(text=SECRET_TEXT),
    BinaryValue(data=SECRET_TEXT.encode()),
    PrivateKeyValue(pkcs8_der=SECRET_TEXT.encode()),
    CertificateValue(certificate_der=b"", private_key=SECRET_TEXT.encode(), not_before=NOW, not_after=NOW),
    CertificateValue(certificate_der=b"", not_before=NOW, not_after=NOW),
]
ENCODED = {SECRET_TEXT, SECRET_TEXT.encode().hex(), base64.b64encode(SECRET_TEXT.encode()).decode().rstrip("=")}


@given(
    st.sampled_from(HOLDING),
    st.sampled_from(["a", "a.hex", "a.crt", "a.key", "a.chain", "a.lost", "b"]),
    st.sampled_from([*(name for name in FORMATS if not name.startswith("pkcs12")), "lost"]),
    st.sampled_from(["", "escape(json)", "escape(xml)"]),
)
def test_no_secret_stands_in_a_refusal_or_a_repr(value: Value, name: str, form: str, encoding: str) -> None:
    said = repr(value) + str(value) + f"{value!s:>80}"
    try:
        render(Template(parts=(Placeholder(name=name, format=form, encoding=encoding),)), {"a": value})
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
        X509Secret(name="s", value=given_text),
        X509CaSecret(name="s", value=given_text),
        AsciiSecret(name="s", value=given_text),
    ):
        try:
            make(secret, making)
        except OstiaryError as error:
            said += repr(error) + str(error)
    assert SECRET_TEXT not in said
