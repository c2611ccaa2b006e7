"""What a value looks like to a program. FORMS holds all of it: one entry a class of value, one line a format."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.pem import encode_pem
from ostiary.secret.pgp_key import armor_public_key, armor_secret_key
from ostiary.secret.pkcs12 import encode_pkcs12
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
)
from ostiary.session.pkcs8 import to_version_1

_ValueT = TypeVar("_ValueT", bound=Released)


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
    public: what `/v1/values` shows.
    """

    kind: str
    formats: Mapping[str, Format[_ValueT]]
    dot_forms: Mapping[str, Format[_ValueT]] = field(default_factory=dict)
    public: Callable[[_ValueT], bytes]


def forms_of(value: Released) -> Forms[Any]:
    return FORMS[type(value)]


def public_text(value: Released) -> str:
    """What anyone may read of a value that the session makes public: of a certificate or OpenPGP key never the key."""
    return forms_of(value).public(value).decode()


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
        raise ReleaseRefusedError(
            "the certificate's private key is not known here; give the secret its private_key, and export, import or "
            "provide the secret of that key too"
        )
    return value.private_key


def _key_pem(value: CertificateValue) -> bytes:
    return encode_pem("PRIVATE KEY", _key_der(value))


def _pkcs12(value: CertificateValue) -> bytes:
    return encode_pkcs12(value, _key_der(value))


def _public_key_pem(value: PublicKeyValue) -> bytes:
    return encode_pem("PUBLIC KEY", value.spki_der)


def _session_ca_pem(value: SessionCaValue) -> bytes:
    return encode_pem("CERTIFICATE", value.certificate_der)


def _utf8(value: AsciiValue | AadTokenValue | JwtValue) -> bytes:
    return value.text.encode()


def _fragment_json(value: FragmentValue) -> bytes:
    return json.dumps(value.value, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_fragment(_: FragmentValue) -> NoReturn:
    raise ReleaseRefusedError(
        "a config-fragment stands for a part of the session, not for text; use it in attestation, security or "
        "access_policy, or use a secret of kind ascii"
    )


_HEX: Format[BinaryValue] = _text(lambda value: value.data.hex().encode("ascii"))
_BINARY_RAW: Format[BinaryValue] = _raw(lambda value: value.data)
_KEY_VALUE_PEM: Format[PrivateKeyValue] = _text(lambda value: encode_pem("PRIVATE KEY", value.pkcs8_der))
_KEY_VALUE_DER: Format[PrivateKeyValue] = _raw(lambda value: value.pkcs8_der)
_OLD_KEY_VALUE_PEM: Format[PrivateKeyValue] = _text(
    lambda value: encode_pem("PRIVATE KEY", to_version_1(value.pkcs8_der))
)
_OLD_KEY_VALUE_DER: Format[PrivateKeyValue] = _raw(lambda value: to_version_1(value.pkcs8_der))
_CERTIFICATE_PEM = _text(_certificate_pem)
_KEY_PEM = _text(_key_pem)
_KEY_DER = _raw(_key_der)

_PUBLIC_KEY_PEM = _text(_public_key_pem)
_SESSION_CA_PEM = _text(_session_ca_pem)

# Any: each entry takes only its own class, which is its key; `forms_of` keeps them together.
FORMS: Mapping[type[Released], Forms[Any]] = {
    AsciiValue: Forms[AsciiValue](kind="ascii", formats={"": _text(_utf8)}, public=_utf8),
    AadTokenValue: Forms[AadTokenValue](kind="aad-token", formats={"": _text(_utf8)}, public=_utf8),
    JwtValue: Forms[JwtValue](kind="jwt", formats={"": _text(_utf8)}, public=_utf8),
    FragmentValue: Forms[FragmentValue](
        kind="config-fragment", formats={"": _text(_refuse_fragment)}, public=_fragment_json
    ),
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
        public=_HEX.encode,
    ),
    PrivateKeyValue: Forms[PrivateKeyValue](
        kind="private-key",
        formats={
            "": _KEY_VALUE_PEM,
            "pem": _KEY_VALUE_PEM,
            "pkcs8:pem": _KEY_VALUE_PEM,
            "der": _KEY_VALUE_DER,
            "pkcs8:der": _KEY_VALUE_DER,
            "pkcs8-v1:pem": _OLD_KEY_VALUE_PEM,
            "pkcs8-v1:der": _OLD_KEY_VALUE_DER,
        },
        public=_KEY_VALUE_PEM.encode,
    ),
    PublicKeyValue: Forms[PublicKeyValue](
        kind="public-key",
        formats={
            "": _PUBLIC_KEY_PEM,
            "spki:pem": _PUBLIC_KEY_PEM,
            "spki:der": _raw(lambda value: value.spki_der),
        },
        public=_public_key_pem,
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
            "privatekey:pkcs8-v1:pem": _text(lambda value: encode_pem("PRIVATE KEY", to_version_1(_key_der(value)))),
            "privatekey:pkcs8-v1:der": _raw(lambda value: to_version_1(_key_der(value))),
            "chain": _text(_chain_pem),
            "pkcs12-with-private-key": _raw(_pkcs12),
        },
        dot_forms={"crt": _CERTIFICATE_PEM, "key": _KEY_PEM, "chain": _text(_ca_file_pem)},
        public=_certificate_pem,
    ),
    SessionCaValue: Forms[SessionCaValue](
        kind="session-ca",
        formats={"": _SESSION_CA_PEM},
        dot_forms={"crt": _SESSION_CA_PEM},
        public=_session_ca_pem,
    ),
    PgpKeyValue: Forms[PgpKeyValue](
        kind="pgp-key",
        formats={
            "privatekey:asciiarmored": _text(armor_secret_key),
            "privatekey:binary": _raw(lambda value: value.secret_key),
            "privatekey:base64": _text(lambda value: base64.b64encode(value.secret_key)),
            "publickey:asciiarmored": _text(armor_public_key),
            "publickey:binary": _raw(lambda value: value.public_key),
            "publickey:base64": _text(lambda value: base64.b64encode(value.public_key)),
        },
        public=armor_public_key,
    ),
}
