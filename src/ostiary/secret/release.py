"""What placeholders stand for at one release: stored values, values from outside, and tokens made at this moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ostiary.errors import InputError, ReleaseRefusedError
from ostiary.secret.dependency import made_of
from ostiary.secret.kind import named_secret
from ostiary.secret.outside import missing
from ostiary.secret.render import text_of
from ostiary.secret.value import JwtValue, PrivateKeyValue, Released, Value
from ostiary.secret.web_token import sign_token
from ostiary.session.model import JwtSecret, Secret, Session, SoftwareIdentity, Variable
from ostiary.session.placeholder import Template


@dataclass(frozen=True, kw_only=True)
class ReleaseContext:
    """What a release knows beyond the stored values.

    now: aware UTC. software_identity: measurement of the program that receives, None if it was not attested.
    imports: the values from outside, by their names here: what `fetch_outside` returned, or, of a session that imports
    from sessions alone, what `import_value` admitted.
    """

    now: datetime
    software_identity: bytes | None = None
    imports: Mapping[str, Released] = field(default_factory=dict, repr=False)


def secrets_used(session: Session, templates: Iterable[Template]) -> frozenset[str]:
    """The secrets of `session` that stand in `templates`, dot forms included. Names of no secret are left out."""
    names = frozenset(secret.name for secret in session.secrets)
    used = {named_secret(found.name, names) for template in templates for found in template.placeholders}
    return names & used


def release_values(
    session: Session, values: Mapping[str, Value], wanted: Collection[str], context: ReleaseContext
) -> dict[str, Released]:
    """The values of the secrets `wanted`, by name, each ready to be rendered; no token is made that is not wanted.

    values: as `renew` returned them with the same imports. wanted: names of secrets of `session`.
    Guarantees: everything that a wanted value is made of could be had at this release, so that a certificate is not
    released after the import of its issuer was withdrawn; a token of kind jwt says `context.software_identity`.
    Raises ReleaseRefusedError naming the secret: no value, a payload or signer that makes no token, an unattested
    program where a token must say who it is.
    """
    secrets = {secret.name: secret for secret in session.secrets}
    available = {**values, **context.imports}
    known: dict[str, Released] = {}
    for name in made_of(secrets, wanted):
        known[name] = _value(secrets[name], available, known, context)
    return {name: known[name] for name in wanted}


def _value(
    secret: Secret, available: Mapping[str, Released], known: Mapping[str, Released], context: ReleaseContext
) -> Released:
    try:
        if isinstance(secret, JwtSecret):
            return _jwt(secret, known, context)
        if secret.name in available:
            return available[secret.name]
    except (InputError, ReleaseRefusedError) as error:
        raise ReleaseRefusedError(f"secret {secret.name!r}: {error.message}", *error.causes) from None
    raise missing(secret)


def _jwt(secret: JwtSecret, known: Mapping[str, Released], context: ReleaseContext) -> JwtValue:
    signer = known[secret.signer]
    if not isinstance(signer, PrivateKeyValue):
        raise ReleaseRefusedError(f"signer names {secret.signer!r}, which is not a private-key secret")
    payload = {claim: _claim(value, known, context) for claim, value in secret.payload}
    return JwtValue(text=sign_token(payload, signer=signer, validity=secret.validity, now=context.now))


def _claim(value: str | Variable | SoftwareIdentity, known: Mapping[str, Released], context: ReleaseContext) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Variable):
        return text_of(value.placeholder, known)
    if context.software_identity is None:
        raise ReleaseRefusedError(
            "payload names self::software_identity, and the program proved none; attest it, or leave the claim out"
        )
    return context.software_identity.hex()
