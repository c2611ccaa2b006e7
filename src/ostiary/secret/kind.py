"""The kinds of secrets of the session language: how the value of each comes about. One entry of KINDS a kind.

What a kind's value looks like to a program is another question; FORMS in `format` answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from ostiary.errors import InputError
from ostiary.secret.certificate import CertificateSecret, issue_certificate, parse_certificate
from ostiary.secret.private_key import generate_private_key, parse_private_key
from ostiary.secret.value import AsciiValue, BinaryValue, CertificateValue, PrivateKeyValue, Value
from ostiary.session.model import AsciiSecret, BinarySecret, PrivateKeySecret, Secret, X509CaSecret, X509Secret

_SecretT = TypeVar("_SecretT", bound=Secret)

_FIRST_CHARACTER, _LAST_CHARACTER = 0x21, 0x7E
_ALPHABET = bytes(range(_FIRST_CHARACTER, _LAST_CHARACTER + 1))
# Bytes at or over the largest multiple of the alphabet's size are thrown away: the rest maps evenly onto it.
_EVEN_BYTES = 256 - 256 % len(_ALPHABET)
_TO_CHARACTER = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))
_UNEVEN_BYTES = bytes(range(_EVEN_BYTES, 256))


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a value may be made of: random bytes, the instant, and the values it needs, already made."""

    random: Callable[[int], bytes]
    now: datetime
    values: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[_SecretT]):
    """One kind.

    name: as the language spells it. public_name: as `/v1/values` spells it. value_type: what `make` returns.
    needs: names of the secrets whose values must be made first.
    make: the value, explicit or generated. Raises InputError.
    survives: whether a generated value of the first declaration stays for the second; both are generated.
    """

    name: str
    public_name: str
    value_type: type[Value]
    needs: Callable[[_SecretT], tuple[str, ...]] = lambda _: ()
    make: Callable[[_SecretT, Making], Value]
    survives: Callable[[_SecretT, _SecretT], bool]


def kind_of(secret: Secret) -> Kind[Any]:
    return KINDS[type(secret)]


def needs(secret: Secret) -> tuple[str, ...]:
    """Names of the secrets that must have their values before this one can be made."""
    return kind_of(secret).needs(secret)


def make(secret: Secret, making: Making) -> Value:
    """The value of one secret. Raises InputError whose message begins with the secret's name."""
    try:
        return kind_of(secret).make(secret, making)
    except InputError as error:
        raise InputError(f"secret {secret.name!r}: {error.message}", *error.causes) from None


def survives(old: Secret, new: Secret) -> bool:
    """Whether the value generated for `old` stays the value of `new`, which has the same name."""
    generated = old.value is None and new.value is None
    return generated and type(old) is type(new) and kind_of(new).survives(old, new)


def _make_ascii(secret: AsciiSecret, making: Making) -> AsciiValue:
    if secret.value is None:
        return AsciiValue(text=_random_text(secret.size, making.random))
    if "\0" in secret.value or any("\ud800" <= character <= "\udfff" for character in secret.value):
        raise InputError("value has a NUL or half a surrogate pair, which no program can take; use kind binary")
    return AsciiValue(text=secret.value)


def _random_text(size: int, random: Callable[[int], bytes]) -> str:
    """`size` characters 0x21 to 0x7E, each equally likely if the random bytes are."""
    text = b""
    while len(text) < size:
        # Three in eleven are thrown away: ask for half as many again, so that one round nearly always does.
        text += random((size - len(text)) * 3 // 2 + 8).translate(_TO_CHARACTER, _UNEVEN_BYTES)
    return text[:size].decode("ascii")


def _make_binary(secret: BinarySecret, making: Making) -> BinaryValue:
    return BinaryValue(data=making.random(secret.size) if secret.value is None else secret.value)


def _make_private_key(secret: PrivateKeySecret, _: Making) -> PrivateKeyValue:
    return generate_private_key(secret.key_type) if secret.value is None else parse_private_key(secret.value)


def _make_certificate(secret: CertificateSecret, making: Making) -> CertificateValue:
    key = _private_key(secret, making)
    if secret.value is not None:
        return parse_certificate(secret.value, key=key)
    if key is None:
        raise InputError("private_key is missing; name a private-key secret of this session, or give a value")
    issuer = _issuer(secret, making)
    return issue_certificate(secret, key=key, issuer=issuer, random=making.random, now=making.now)


def _private_key(secret: CertificateSecret, making: Making) -> PrivateKeyValue | None:
    if secret.private_key is None:
        return None
    key = making.values[secret.private_key]
    if not isinstance(key, PrivateKeyValue):
        raise InputError(f"private_key names {secret.private_key!r}, which is not a private-key secret")
    return key


def _issuer(secret: CertificateSecret, making: Making) -> CertificateValue | None:
    if secret.issuer is None:
        return None
    issuer = making.values[secret.issuer]
    if not isinstance(issuer, CertificateValue):
        raise InputError(f"issuer names {secret.issuer!r}, which is not an x509-ca secret")
    return issuer


def _certificate_needs(secret: CertificateSecret) -> tuple[str, ...]:
    """An explicit certificate is not signed here, so that its issuer is not needed."""
    issuer = secret.issuer if secret.value is None else None
    return tuple(name for name in (secret.private_key, issuer) if name is not None)


# Any: each entry takes only its own class, which is its key; `kind_of` keeps them together.
KINDS: Mapping[type[Secret], Kind[Any]] = {
    AsciiSecret: Kind[AsciiSecret](
        name="ascii",
        public_name="string",
        value_type=AsciiValue,
        make=_make_ascii,
        survives=lambda old, new: old.size == new.size,
    ),
    BinarySecret: Kind[BinarySecret](
        name="binary",
        public_name="binary",
        value_type=BinaryValue,
        make=_make_binary,
        survives=lambda old, new: old.size == new.size,
    ),
    PrivateKeySecret: Kind[PrivateKeySecret](
        name="private-key",
        public_name="private-key",
        value_type=PrivateKeyValue,
        make=_make_private_key,
        survives=lambda old, new: old.migrate and new.migrate and old.key_type == new.key_type,
    ),
    X509CaSecret: Kind[X509CaSecret](
        name="x509-ca",
        public_name="x509-ca",
        value_type=CertificateValue,
        needs=_certificate_needs,
        make=_make_certificate,
        survives=lambda _old, _new: False,
    ),
    X509Secret: Kind[X509Secret](
        name="x509",
        public_name="x509",
        value_type=CertificateValue,
        needs=_certificate_needs,
        make=_make_certificate,
        survives=lambda _old, _new: False,
    ),
}
