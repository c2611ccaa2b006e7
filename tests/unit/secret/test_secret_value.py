"""The sealed form of values: it comes back as it went in, and nothing in it is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ostiary.errors import StoreError
from ostiary.secret.value import (
    AsciiValue,
    BinaryValue,
    CertificateValue,
    PrivateKeyValue,
    Value,
    decode_values,
    encode_values,
    format_instant,
)

CERTIFICATE = CertificateValue(
    certificate_der=b"own",
    chain_der=(b"middle", b"root"),
    private_key=b"key",
    not_before=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
)
VALUES: dict[str, Value] = {
    "text": AsciiValue(text='a"\n\u00e9\U0001f600'),
    "data": BinaryValue(data=bytes(range(256))),
    "key": PrivateKeyValue(pkcs8_der=b"0\x01"),
    "tls": CERTIFICATE,
    "given": CertificateValue(
        certificate_der=b"", not_before=datetime(1, 1, 1, tzinfo=UTC), not_after=datetime(1970, 1, 1, tzinfo=UTC)
    ),
}


def test_values_come_back_as_they_went_in_and_in_the_same_order() -> None:
    decoded = decode_values(encode_values(VALUES))
    assert decoded == VALUES
    assert list(decoded) == list(VALUES)


def test_no_values_have_a_sealed_form() -> None:
    assert encode_values({}) == b'{"version":1,"values":{}}'
    assert decode_values(b'{"version":1,"values":{}}') == {}


def test_instants_are_written_in_utc_with_four_digit_years() -> None:
    assert format_instant(datetime(1, 2, 3, 4, 5, 6, 789, tzinfo=UTC)) == "0001-02-03T04:05:06Z"


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_repr_and_str_hold_no_secret(value: Value) -> None:
    for text in (repr(value), str(value)):
        assert "own" not in text
        assert "key=" not in text
        assert "\u00e9" not in text
        assert "\\x" not in text


def changed(change: Callable[[Any], None]) -> bytes:
    document = json.loads(encode_values(VALUES))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "stored values: not the JSON text that was written; restore the record"),
        (b"\xff", "stored values: not the JSON text that was written; restore the record"),
        (b"[" * 100_000, "stored values: not the JSON text that was written; restore the record"),
        (b"[]", "stored values: a list, expected an object with values, version"),
        (b'{"version":1}', "stored values: unknown or missing members: values; "),
        (b'{"version":1,"version":1,"values":{}}', "stored values: a member is repeated"),
        (b'{"version":1,"values":{"a":{"kind":"ascii","text":"x","text":"y"}}}', "stored values: a member is repeated"),
        (changed(lambda d: d.update(version=2)), "stored values: the version is not 1; "),
        (changed(lambda d: d.update(version=1.0)), "stored values: the version is not 1; "),
        (changed(lambda d: d.update(version=True)), "stored values: the version is not 1; "),
        (changed(lambda d: d.update(salt="s3cret")), "stored values: unknown or missing members: salt; "),
        (changed(lambda d: d.update(values=[])), "stored values: member 'values' is a list, expected an object"),
        (changed(lambda d: d["values"].update(text="s3cret")), "stored values: secret 'text': no known kind; "),
        (changed(lambda d: d["values"]["text"].update(kind="s3cret")), "stored values: secret 'text': no known kind; "),
        (changed(lambda d: d["values"]["text"].update(kind=["s3cret"])), "secret 'text': no known kind; "),
        (changed(lambda d: d["values"]["text"].update(size=1)), "secret 'text': unknown or missing members: size; "),
        (changed(lambda d: d["values"]["data"].pop("data")), "secret 'data': unknown or missing members: data; "),
        (changed(lambda d: d["values"]["text"].update(text=5)), "secret 'text': member 'text' is not of the form"),
        (changed(lambda d: d["values"]["data"].update(data="s3cret!AA")), "member 'data' is not of the form"),
        (changed(lambda d: d["values"]["data"].update(data=None)), "member 'data' is not of the form"),
        (changed(lambda d: d["values"]["tls"].update(private_key="\u00e9")), "member 'private_key' is not of the form"),
        (changed(lambda d: d["values"]["tls"].update(chain_der="AA==")), "member 'chain_der' is not of the form"),
        (changed(lambda d: d["values"]["tls"].update(chain_der=[1])), "member 'chain_der' is not of the form"),
        (changed(lambda d: d["values"]["tls"].update(not_after="2026-01-01")), "member 'not_after' is not of the form"),
    ],
)
def test_anything_else_is_refused_without_showing_it(data: bytes, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        decode_values(data)
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
