"""The kinds of secrets whose values are made at upload and stored: how each comes about. One entry of KINDS a kind.

Kinds whose values exist only at a release are in `release`. What a value looks like to a program is another question;
FORMS in `format` answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from ostiary.errors import InputError
from ostiary.secret.certificate import (
    MAX_COMMON_NAME_CHARACTERS,
    CertificateSecret,
    chain_below,
    issue_certificate,
    needs_renewal,
    parse_certificate,
)
from ostiary.secret.pgp_key import generate_pgp_key
from ostiary.secret.private_key import generate_private_key, parse_private_key
from ostiary.secret.public_key import derive_public_key, parse_public_key
from ostiary.secret.value import (
    SESSION_CA,
    AsciiValue,
    BinaryValue,
    CertificateValue,
    FragmentValue,
    PgpKeyValue,
    PrivateKeyValue,
    PublicKeyValue,
    Released,
    SessionCaValue,
    Value,
)
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    AsciiSecret,
    BinarySecret,
    ConfigFragmentSecret,
    JwtSecret,
    PgpKeySecret,
    PrivateKeySecret,
    PublicKeySecret,
    Secret,
    SessionCaSecret,
    Variable,
    X509CaSecret,
    X509Secret,
)

StoredSecret: TypeAlias = (
    AsciiSecret
    | BinarySecret
    | PrivateKeySecret
    | PublicKeySecret
    | X509CaSecret
    | X509Secret
    | SessionCaSecret
    | ConfigFragmentSecret
    | PgpKeySecret
)
_SecretT = TypeVar("_SecretT", bound=Secret)

_FIRST_CHARACTER, _LAST_CHARACTER = 0x21, 0x7E
_ALPHABET = bytes(range(_FIRST_CHARACTER, _LAST_CHARACTER + 1))
# Bytes at or over the largest multiple of the alphabet's size are thrown away: the rest maps evenly onto it.
_EVEN_BYTES = 256 - 256 % len(_ALPHABET)
_TO_CHARACTER = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))
_UNEVEN_BYTES = bytes(range(_EVEN_BYTES, 256))


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a value may be made of: random bytes, the instant, and the values it needs, already made or imported."""

    random: Callable[[int], bytes]
    now: datetime
    values: Mapping[str, Released]


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[_SecretT]):
    """One kind.

    name: as the language spells it. value_type: what `make` returns.
    needs: the values that must be made first, by name.
    make: the value, explicit or generated. Raises InputError.
    survives: whether a generated value of the first declaration stays for the second; both are generated.
    is_stale: whether a value that was made must be made anew: what it is made of changed, or its time has come.
    """

    name: str
    value_type: type[Value]
    needs: Callable[[_SecretT], tuple[str, ...]] = lambda _: ()
    make: Callable[[_SecretT, Making], Value]
    survives: Callable[[_SecretT, _SecretT], bool] = lambda _old, _new: False
    is_stale: Callable[[_SecretT, Any, Making], bool] = lambda _secret, _value, _making: False


def kind_of(secret: StoredSecret) -> Kind[Any]:
    return KINDS[type(secret)]


def kind_name(secret: Secret) -> str:
    """As the language spells it; of what comes from outside as its author expects it, "" if the author does not say."""
    if isinstance(secret, StoredSecret):
        return kind_of(secret).name
    if isinstance(secret, AadTokenSecret):
        return "aad-token"
    return "jwt" if isinstance(secret, JwtSecret) else secret.kind or ""


def needs(secret: Secret, names: Collection[str]) -> tuple[str, ...]:
    """What the value of `secret` is made of: names of values, of secrets among `names` where a dot form is cut off."""
    if isinstance(secret, StoredSecret):
        return kind_of(secret).needs(secret)
    if isinstance(secret, JwtSecret):
        variables = (claim.placeholder for _, claim in secret.payload if isinstance(claim, Variable))
        return (secret.signer, *(named_secret(placeholder.name, names) for placeholder in variables))
    if isinstance(secret, AkvSecret):
        return (secret.token,) if secret.decryption_key is None else (secret.token, secret.decryption_key)
    return ()


def named_secret(name: str, names: Collection[str]) -> str:
    """The secret that a placeholder's name means: the whole name if there is one, else the name without its dot form.

    The name itself if there is neither.
    """
    stem = name.rpartition(".")[0]
    return stem if name not in names and stem in names else name


def make(secret: StoredSecret, making: Making) -> Value:
    """The value of one secret. Raises InputError whose message begins with the secret's name."""
    try:
        return kind_of(secret).make(secret, making)
    except InputError as error:
        raise InputError(f"secret {secret.name!r}: {error.message}", *error.causes) from None


def is_stale(secret: StoredSecret, value: Value, making: Making) -> bool:
    """Whether a value must be made anew. Raises InputError as `make` does."""
    try:
        return kind_of(secret).is_stale(secret, value, making)
    except InputError as error:
        raise InputError(f"secret {secret.name!r}: {error.message}", *error.causes) from None


def survives(old: Secret, new: StoredSecret) -> bool:
    """Whether the value generated for `old` stays the value of `new`, which has the same name."""
    generated = old.value is None and new.value is None
    return generated and type(old) is type(new) and kind_of(new).survives(old, new)


def make_session_ca(session_name: str, making: Making) -> CertificateValue:
    """The CA of a session of language 0.2: a P-256 key and a certificate without end. Its name is for people."""
    secret = X509CaSecret(name="", common_name=f"CA of session {session_name}"[:MAX_COMMON_NAME_CHARACTERS])
    key = generate_private_key("P-256")
    return issue_certificate(secret, key=key, issuer=None, random=making.random, now=making.now)


def _make_ascii(secret: AsciiSecret, making: Making) -> AsciiValue:
    if secret.value is None:
        return AsciiValue(text=_random_text(secret.size, making.random))
    return text_value(secret.value)


def text_value(text: str) -> AsciiValue:
    """Text from outside as a value. Raises InputError for what no program can be given."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("value has a NUL or half a surrogate pair, which no program can take; use kind binary")
    return AsciiValue(text=text)


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


def _make_public_key(secret: PublicKeySecret, making: Making) -> PublicKeyValue:
    derived = None if secret.private_key is None else derive_public_key(_private_key(secret.private_key, making))
    given = None if secret.value is None else parse_public_key(secret.value)
    if given is not None and derived is not None and given != derived:
        raise InputError("private_key is not the private key of value; name the matching key, or none")
    value = given or derived
    if value is None:
        raise InputError("private_key is missing; name a private-key secret of this session, or give a value")
    return value


def _make_certificate(secret: CertificateSecret, making: Making) -> CertificateValue:
    if secret.value is not None:
        key = None if secret.private_key is None else _private_key(secret.private_key, making)
        return parse_certificate(secret.value, key=key)
    issuer = _issuer(secret, making)
    # Without private_key it is of language 0.2: a key of its own.
    key = generate_private_key("P-256") if secret.private_key is None else _private_key(secret.private_key, making)
    return issue_certificate(secret, key=key, issuer=issuer, random=making.random, now=making.now)


def _private_key(name: str, making: Making) -> PrivateKeyValue:
    key = making.values[name]
    if not isinstance(key, PrivateKeyValue):
        raise InputError(f"private_key names {name!r}, which is not a private-key secret")
    return key


def _issuer(secret: CertificateSecret, making: Making) -> CertificateValue | None:
    name = _issuer_name(secret)
    return None if name is None else _authority(name, making)


def _authority(name: str, making: Making) -> CertificateValue:
    authority = making.values[name]
    if not isinstance(authority, CertificateValue):
        raise InputError(f"issuer names {name!r}, which is not an x509-ca secret")
    return authority


def _issuer_name(secret: CertificateSecret) -> str | None:
    """The value that signs the certificate; None for an explicit or self-signed one."""
    if secret.value is not None:
        return None
    return SESSION_CA if secret.issuer is None and secret.private_key is None else secret.issuer


def _certificate_needs(secret: CertificateSecret) -> tuple[str, ...]:
    return tuple(name for name in (secret.private_key, _issuer_name(secret)) if name is not None)


def _certificate_is_stale(secret: CertificateSecret, value: CertificateValue, making: Making) -> bool:
    if secret.private_key is not None and value.private_key != _private_key(secret.private_key, making).pkcs8_der:
        return True
    if secret.value is not None:
        return False
    return needs_renewal(value, making.now) or value.chain_der != chain_below(_issuer(secret, making))


# Any: each entry takes only its own class, which is its key; `kind_of` keeps them together.
KINDS: Mapping[type[StoredSecret], Kind[Any]] = {
    AsciiSecret: Kind[AsciiSecret](
        name="ascii",
        value_type=AsciiValue,
        make=_make_ascii,
        survives=lambda old, new: old.size == new.size,
    ),
    BinarySecret: Kind[BinarySecret](
        name="binary",
        value_type=BinaryValue,
        make=_make_binary,
        survives=lambda old, new: old.size == new.size,
    ),
    PrivateKeySecret: Kind[PrivateKeySecret](
        name="private-key",
        value_type=PrivateKeyValue,
        make=_make_private_key,
        survives=lambda old, new: old.migrate and new.migrate and old.key_type == new.key_type,
    ),
    PublicKeySecret: Kind[PublicKeySecret](
        name="public-key",
        value_type=PublicKeyValue,
        needs=lambda secret: () if secret.private_key is None else (secret.private_key,),
        make=_make_public_key,
        is_stale=lambda secret, value, making: value != _make_public_key(secret, making),
    ),
    X509CaSecret: Kind[X509CaSecret](
        name="x509-ca",
        value_type=CertificateValue,
        needs=_certificate_needs,
        make=_make_certificate,
        is_stale=_certificate_is_stale,
    ),
    X509Secret: Kind[X509Secret](
        name="x509",
        value_type=CertificateValue,
        needs=_certificate_needs,
        make=_make_certificate,
        is_stale=_certificate_is_stale,
    ),
    SessionCaSecret: Kind[SessionCaSecret](
        name="session-ca",
        value_type=SessionCaValue,
        needs=lambda _: (SESSION_CA,),
        make=lambda _, making: SessionCaValue(certificate_der=_authority(SESSION_CA, making).certificate_der),
    ),
    ConfigFragmentSecret: Kind[ConfigFragmentSecret](
        name="config-fragment",
        value_type=FragmentValue,
        make=lambda secret, _: FragmentValue(value=secret.value),
    ),
    PgpKeySecret: Kind[PgpKeySecret](
        name="pgp-key",
        value_type=PgpKeyValue,
        make=lambda _, making: generate_pgp_key(making.random),
        survives=lambda _old, _new: True,
    ),
}
