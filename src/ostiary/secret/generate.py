"""The values of a session version: made at create and update, and made anew when a certificate is due.

What is made of a secret from outside waits until that can be had: it has no value until `renew` is given the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from ostiary.errors import InputError, ReleaseRefusedError, StoreError
from ostiary.secret.dependency import can_be_made, from_outside, making_order
from ostiary.secret.kind import Making, StoredSecret, is_stale, kind_of, make, make_session_ca, survives
from ostiary.secret.value import SESSION_CA, CertificateValue, Released, Value
from ostiary.session.model import PrivateKeySecret, Secret, Session

# An RSA key costs up to 0.3 s to make or to check, and an upload waits for all of them.
MAX_SLOW_KEYS = 64


def generate(
    session: Session,
    *,
    previous: Mapping[str, Value],
    previous_session: Session | None,
    random: Callable[[int], bytes],
    now: datetime,
) -> dict[str, Value]:
    """The stored values of `session`, by name, in the order of the text.

    previous, previous_session: the current version and its values if this is an update, else empty and None.
    random: n bytes of a cryptographic generator. Private keys and OpenPGP keys are not made from it: they come from
    the own generators of the libraries that make them.

    Guarantees: (1) an explicit value is the one in the text; (2) a generated one is that of `previous` exactly if the
    secret was and is generated, with the same name, kind and parameters that the kind compares (size of ascii and
    binary; key_type, and `migrate: true` in both versions, of a private key; nothing of an OpenPGP key; certificates
    never), else it is new; (3) a certificate is signed by its issuer's key of this version; (4) the session's own CA of
    language 0.2, under the name SESSION_CA, lasts as long as versions follow each other that use it.
    Has no value afterwards: what exists only at a release (imports, key vault, tokens), and what is made
    of an import or a secret of a key vault; sessions may be uploaded in any order, so that `renew` makes it when the
    import is there.
    Does not guarantee that a session parser's checks hold; what would make a wrong value raises.

    Raises InputError naming the secret: a reference to no secret or to itself, a wrong kind, an explicit value that
    cannot be read, a certificate that would not verify, over MAX_SLOW_KEYS keys that are slow. Raises StoreError if
    `previous` lacks a value that survives or has it of another kind.
    Source: session language, "Secrets", "Certificates", "Migration on update".
    """
    secrets = {secret.name: secret for secret in session.secrets}
    _check_slow_keys(session)
    before = {} if previous_session is None else {secret.name: secret for secret in previous_session.secrets}
    values: dict[str, Value] = {}
    making = Making(random=random, now=now, values=values)
    for name in making_order(secrets):
        secret = secrets.get(name)
        if name == SESSION_CA:
            values[name] = _session_ca(previous) or make_session_ca(session.name, making)
        elif isinstance(secret, StoredSecret) and can_be_made(secret, secrets, values):
            stays = name in before and survives(before[name], secret)
            values[name] = _stored(previous, secret) if stays else make(secret, making)
    return _in_order(secrets, values)


def renew(
    session: Session,
    values: Mapping[str, Value],
    *,
    random: Callable[[int], bytes],
    now: datetime,
    imports: Mapping[str, Released] | None = None,
) -> dict[str, Value]:
    """`values` with everything made anew that must be: certificates that are due, and what is made of something else.

    That is a certificate whose issuer or key, a public key whose private key is not the one it was made of.
    Generated values and explicit ones stay as they are, even a certificate that has expired; so does what is made of
    something that is not in `imports`. Equal to `values` if nothing is to be done.

    imports: values from outside by their names here, as in a ReleaseContext.
    Raises ReleaseRefusedError if something cannot be made anew, such as when an explicit issuer has expired;
    StoreError if a secret of the session has no value, or one of another kind.
    """
    secrets = {secret.name: secret for secret in session.secrets}
    order = making_order(secrets)
    renewed = {name: _stored(values, secret) for name, secret in _to_be_stored(secrets, values)}
    if SESSION_CA in values:
        renewed[SESSION_CA] = values[SESSION_CA]
    available: dict[str, Released] = {**(imports or {}), **renewed}
    making = Making(random=random, now=now, values=available)
    for name in order:
        secret = secrets.get(name)
        if isinstance(secret, StoredSecret) and can_be_made(secret, secrets, available):
            renewed[name] = available[name] = _renew_one(secret, renewed.get(name), making)
    return _in_order(secrets, renewed)


def _renew_one(secret: StoredSecret, value: Value | None, making: Making) -> Value:
    try:
        return make(secret, making) if value is None or is_stale(secret, value, making) else value
    except InputError as error:
        raise ReleaseRefusedError(
            "a secret that is due cannot be made anew; update the session", *error.chain
        ) from None


def _to_be_stored(secrets: Mapping[str, Secret], values: Mapping[str, Value]) -> Iterator[tuple[str, StoredSecret]]:
    """The secrets whose stored values must be there; what waits for an import may have none yet."""
    waiting = from_outside(secrets)
    for name, secret in secrets.items():
        if isinstance(secret, StoredSecret) and (name in values or name not in waiting):
            yield name, secret


def _in_order(secrets: Mapping[str, Secret], values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: values[name] for name in (*secrets, SESSION_CA) if name in values}


def _check_slow_keys(session: Session) -> None:
    keys = [secret for secret in session.secrets if isinstance(secret, PrivateKeySecret)]
    slow = sum(key.value is not None or key.key_type.startswith("RSA") for key in keys)
    if slow > MAX_SLOW_KEYS:
        raise InputError(
            f"secrets: {slow} private keys are RSA or explicit, expected at most {MAX_SLOW_KEYS}; "
            "use P-256, or several sessions"
        )


def _session_ca(values: Mapping[str, Value]) -> CertificateValue | None:
    value = values.get(SESSION_CA)
    if value is not None and not isinstance(value, CertificateValue):
        raise StoreError("the stored value of the session's own CA is of another kind; restore the record")
    return value


def _stored(values: Mapping[str, Value], secret: StoredSecret) -> Value:
    """The stored value of a secret. A missing or foreign one is never replaced: whoever relies on it would lose it."""
    value = values.get(secret.name)
    if value is None:
        raise StoreError(f"stored values lack secret {secret.name!r} of the session; restore the record")
    if not isinstance(value, kind_of(secret).value_type):
        raise StoreError(f"the stored value of secret {secret.name!r} is of another kind; restore the record")
    return value
