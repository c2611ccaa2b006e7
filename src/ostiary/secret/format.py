"""What a value looks like to a program. FORMS holds all of it: one entry a kind of value, one line a format."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.pem import encode_pem
from ostiary.secret.private_key import load_private_key
from ostiary.secret.value import AsciiValue, BinaryValue, CertificateValue, PrivateKeyValue, Value

_ValueT = TypeVar("_ValueT", bound=Value)


@dataclass(frozen=True, kw_only=True)
class Format(Generic[_ValueT]):
    """`text`: the bytes are always UTF-8, so that an encoding such as `escape(json)` applies."""

    encode: Callable[[_ValueT], bytes]
    text: bool


@dataclass(frozen=True, kw_only=True)
class Forms(Generic[_ValueT]):
    """The forms of one kind of value.

    kind: for messages. formats: by the text after the first colon, "" for a bare placeholder.
    dot_forms: by the text after the last dot of the placeholder's name (deprecated in the language).
    public: the format that `/v1/values` shows.
    """

    kind: str
    formats: Mapping[str, Format[_ValueT]]
    dot_forms: Mapping[str, Format[_ValueT]] = field(default_factory=dict)
    public: str = ""


def forms_of(value: Value) -> Forms[Any]:
    return FORMS[type(value)]


def public_text(value: Value) -> str:
    """What anyone may read of a value that the session makes public: of a certificate never its key."""
    forms = forms_of(value)
    return forms.formats[forms.public].encode(value).decode()


def _text(encode: Callable[[_ValueT], bytes]) -> Format[_ValueT]:
    return Format(encode=encode, text=True)


def _raw(encode: Callable[[_ValueT], bytes]) -> Format[_ValueT]:
    return Format(encode=encode, text=False)


def _certificate_pem(value: CertificateValue) -> bytes:
    return encode_pem("CERTIFICATE", value.certificate_der)


def _chain_pem(value: CertificateValue) -> bytes:
    return b"".join(encode_pem("CERTIFICATE", der) for der in value.chain_der)


def _ca_file_pem(value: CertificateValue) -> bytes:
    return b"".join(encode_pem("CERTIFICATE", der) for der in reversed((value.certificate_der, *value.chain_der)))


def _key_der(value: CertificateValue) -> bytes:
    if value.private_key is None:
        raise ReleaseRefusedError("the certificate's private key is not known here; give the secret its private_key")
    return value.private_key


def _key_pem(value: CertificateValue) -> bytes:
    return encode_pem("PRIVATE KEY", _key_der(value))


def _pkcs12(value: CertificateValue) -> bytes:
    """PKCS#12 (RFC 7292): key, certificate, chain. Not encrypted; its integrity check uses the empty password."""
    key = load_private_key(PrivateKeyValue(pkcs8_der=_key_der(value)))
    certificate = x509.load_der_x509_certificate(value.certificate_der)
    chain = [x509.load_der_x509_certificate(der) for der in value.chain_der]
    return pkcs12.serialize_key_and_certificates(None, key, certificate, chain, NoEncryption())


_HEX: Format[BinaryValue] = _text(lambda value: value.data.hex().encode("ascii"))
_BINARY_RAW: Format[BinaryValue] = _raw(lambda value: value.data)
_KEY_VALUE_PEM: Format[PrivateKeyValue] = _text(lambda value: encode_pem("PRIVATE KEY", value.pkcs8_der))
_KEY_VALUE_DER: Format[PrivateKeyValue] = _raw(lambda value: value.pkcs8_der)
_CERTIFICATE_PEM = _text(_certificate_pem)
_KEY_PEM = _text(_key_pem)
_KEY_DER = _raw(_key_der)

# Any: each entry takes only its own class, which is its key; `forms_of` keeps them together.
FORMS: Mapping[type[Value], Forms[Any]] = {
    AsciiValue: Forms[AsciiValue](kind="ascii", formats={"": _text(lambda value: value.text.encode())}),
    BinaryValue: Forms[BinaryValue](
        kind="binary",
        formats={
            "": _BINARY_RAW,
            "bin": _BINARY_RAW,
            "hex": _HEX,
            "base64": _text(lambda value: base64.b64encode(value.data)),
            "base64url": _text(lambda value: base64.urlsafe_b64encode(value.data)),
            "base32": _text(lambda value: base64.b32encode(value.data)),
            "base32nopad": _text(lambda value: base64.b32encode(value.data).rstrip(b"=")),
        },
        dot_forms={"hex": _HEX},
        public="hex",
    ),
    PrivateKeyValue: Forms[PrivateKeyValue](
        kind="private-key",
        formats={
            "": _KEY_VALUE_PEM,
            "pem": _KEY_VALUE_PEM,
            "pkcs8:pem": _KEY_VALUE_PEM,
            "der": _KEY_VALUE_DER,
            "pkcs8:der": _KEY_VALUE_DER,
        },
    ),
    CertificateValue: Forms[CertificateValue](
        kind="x509",
        formats={
            "": _CERTIFICATE_PEM,
            "crt": _CERTIFICATE_PEM,
            "crt:pem": _CERTIFICATE_PEM,
            "crt:der": _raw(lambda value: value.certificate_der),
            "privatekey": _KEY_PEM,
            "privatekey:pem": _KEY_PEM,
            "privatekey:pkcs8:pem": _KEY_PEM,
            "privatekey:der": _KEY_DER,
            "privatekey:pkcs8:der": _KEY_DER,
            "chain": _text(_chain_pem),
            "pkcs12-with-private-key": _raw(_pkcs12),
        },
        dot_forms={"crt": _CERTIFICATE_PEM, "key": _KEY_PEM, "chain": _text(_ca_file_pem)},
    ),
}
