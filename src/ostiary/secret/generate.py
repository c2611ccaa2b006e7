"""The values of a session version: made at create and update, and made anew when a certificate is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from graphlib import CycleError, TopologicalSorter

from ostiary.errors import InputError, ReleaseRefusedError, StoreError
from ostiary.secret.certificate import needs_renewal
from ostiary.secret.kind import Making, kind_of, make, needs, survives
from ostiary.secret.value import CertificateValue, Value
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
    """The value of every secret of `session`, by name, in the order of the text.

    previous, previous_session: the current version and its values if this is an update, else empty and None.
    random: n bytes of a cryptographic generator. Private keys are not made from it: they come from the cryptography
    library's own generator.

    Guarantees: (1) an explicit value is the one in the text; (2) a generated one is that of `previous` exactly if the
    secret was and is generated, with the same name, kind and parameters that the kind compares (size of ascii and
    binary; key_type, and `migrate: true` in both versions, of a private key; certificates never), else it is new;
    (3) a certificate is signed by its issuer's key of this version.
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
    for name in _order(secrets):
        if name in before and survives(before[name], secrets[name]):
            values[name] = _stored(previous, secrets[name])
        else:
            values[name] = make(secrets[name], Making(random=random, now=now, values=values))
    return {name: values[name] for name in secrets}


def renew(
    session: Session, values: Mapping[str, Value], *, random: Callable[[int], bytes], now: datetime
) -> dict[str, Value]:
    """`values` with every generated certificate that is due at `now`, and what it issued, made anew under its old key.

    Equal to `values` if nothing is due. Explicit certificates stay as they are, even if they have expired.
    Raises ReleaseRefusedError if a certificate cannot be made anew, such as when an explicit issuer has expired;
    StoreError if a secret of the session has no value, or one of another kind.
    """
    secrets = {secret.name: secret for secret in session.secrets}
    renewed = {name: _stored(values, secret) for name, secret in secrets.items()}
    remade: set[str] = set()
    for name in _order(secrets):
        if _is_due(secrets[name], renewed[name], remade, now):
            renewed[name] = _renew_one(secrets[name], Making(random=random, now=now, values=renewed))
            remade.add(name)
    return renewed


def _is_due(secret: Secret, value: Value, remade: set[str], now: datetime) -> bool:
    if secret.value is not None or not isinstance(value, CertificateValue):
        return False
    return needs_renewal(value, now) or not remade.isdisjoint(needs(secret))


def _renew_one(secret: Secret, making: Making) -> Value:
    try:
        return make(secret, making)
    except InputError as error:
        raise ReleaseRefusedError(
            "a certificate that is due cannot be made anew; update the session", *error.chain
        ) from None


def _order(secrets: Mapping[str, Secret]) -> tuple[str, ...]:
    """Names so that each comes after those that its value is made of. Raises InputError."""
    graph = {name: needs(secret) for name, secret in secrets.items()}
    for name, needed in graph.items():
        for missing in (other for other in needed if other not in secrets):
            raise InputError(f"secret {name!r}: names {missing!r}, which is no secret of this session; declare it")
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(repr(name) for name in error.args[1])
        raise InputError(f"secrets: the issuers form a circle, {cycle}; leave out one issuer") from None


def _check_slow_keys(session: Session) -> None:
    keys = [secret for secret in session.secrets if isinstance(secret, PrivateKeySecret)]
    slow = sum(key.value is not None or key.key_type.startswith("RSA") for key in keys)
    if slow > MAX_SLOW_KEYS:
        raise InputError(
            f"secrets: {slow} private keys are RSA or explicit, expected at most {MAX_SLOW_KEYS}; "
            "use P-256, or several sessions"
        )


def _stored(values: Mapping[str, Value], secret: Secret) -> Value:
    """The stored value of a secret. A missing or foreign one is never replaced: whoever relies on it would lose it."""
    value = values.get(secret.name)
    if value is None:
        raise StoreError(f"stored values lack secret {secret.name!r} of the session; restore the record")
    if not isinstance(value, kind_of(secret).value_type):
        raise StoreError(f"the stored value of secret {secret.name!r} is of another kind; restore the record")
    return value
