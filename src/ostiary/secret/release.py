"""What placeholders stand for at one release: stored values, imports, and what exists only now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ostiary.errors import InputError, OutsideError, ReleaseRefusedError
from ostiary.secret.dependency import made_of
from ostiary.secret.import_value import describe_source
from ostiary.secret.kind import StoredSecret, named_secret
from ostiary.secret.render import text_of
from ostiary.secret.value import (
    AadTokenValue,
    BinaryValue,
    JwtValue,
    PrivateKeyValue,
    Released,
    Value,
)
from ostiary.secret.vault import VaultEntry, vault_value
from ostiary.secret.web_token import sign_token
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    ImportedSecret,
    JwtSecret,
    Secret,
    Session,
    SoftwareIdentity,
    Variable,
)
from ostiary.session.placeholder import Template


@dataclass(frozen=True, kw_only=True)
class ReleaseContext:
    """What a release knows beyond the stored values.

    now: aware UTC. software_identity: measurement of the program that receives, None if it was not attested.
    imports: values of imported secrets by their names here, as `import_value` admitted them.
    fetch_token: asks Azure's directory for the token of a secret; fetch_vault: asks the key vault, with such a token,
    for what it holds. Both may raise OutsideError; None where the operator configured no way to reach them.
    """

    now: datetime
    software_identity: bytes | None = None
    imports: Mapping[str, Released] = field(default_factory=dict, repr=False)
    fetch_token: Callable[[AadTokenSecret], str] | None = None
    fetch_vault: Callable[[AkvSecret, str], VaultEntry] | None = None


def secrets_used(session: Session, templates: Iterable[Template]) -> frozenset[str]:
    """The secrets of `session` that stand in `templates`, dot forms included. Names of no secret are left out."""
    names = frozenset(secret.name for secret in session.secrets)
    used = {named_secret(found.name, names) for template in templates for found in template.placeholders}
    return names & used


def release_values(
    session: Session, values: Mapping[str, Value], wanted: Collection[str], context: ReleaseContext
) -> dict[str, Released]:
    """The values of the secrets `wanted`, each ready to be rendered; nothing else is imported, fetched or signed.

    values: as `renew` returned them with the same imports. wanted: names of secrets of `session`.
    Guarantees: everything that a wanted value is made of could be had at this release, so that a certificate is not
    released after the import of its issuer was withdrawn; a token of kind jwt says `context.software_identity`.
    Raises ReleaseRefusedError naming the secret: an import that is not in `context.imports`, a token or key vault that
    no way leads to or that fails, a payload or signer that makes no token, an unattested program where a token must say
    who it is.
    """
    secrets = {secret.name: secret for secret in session.secrets}
    known: dict[str, Released] = {}
    for name in made_of(secrets, wanted):
        known[name] = _value(secrets[name], values, known, context)
    return {name: known[name] for name in wanted}


def _value(
    secret: Secret, values: Mapping[str, Value], known: Mapping[str, Released], context: ReleaseContext
) -> Released:
    try:
        if isinstance(secret, StoredSecret):
            return _stored(secret, values)
        if isinstance(secret, ImportedSecret):
            return _imported(secret, context)
        if isinstance(secret, AadTokenSecret):
            return _aad_token(secret, context)
        if isinstance(secret, AkvSecret):
            return _from_vault(secret, known, context)
        return _jwt(secret, known, context)
    except (InputError, OutsideError, ReleaseRefusedError) as error:
        raise ReleaseRefusedError(f"secret {secret.name!r}: {error.message}", *error.causes) from None


def _stored(secret: StoredSecret, values: Mapping[str, Value]) -> Value:
    if secret.name not in values:
        raise ReleaseRefusedError("it has not been made yet, because it is made of a secret that was not imported")
    return values[secret.name]


def _imported(secret: ImportedSecret, context: ReleaseContext) -> Released:
    if secret.name not in context.imports:
        raise ReleaseRefusedError(
            f"{describe_source(secret)} cannot be imported; let that session exist and export the secret to this one"
        )
    return context.imports[secret.name]


def _aad_token(secret: AadTokenSecret, context: ReleaseContext) -> AadTokenValue:
    if context.fetch_token is None:
        raise ReleaseRefusedError(
            "this service does not fetch tokens of Azure's directory; ask its operator, or use a secret of another kind"
        )
    return AadTokenValue(text=context.fetch_token(secret))


def _from_vault(secret: AkvSecret, known: Mapping[str, Released], context: ReleaseContext) -> Value:
    if context.fetch_vault is None:
        raise ReleaseRefusedError(
            "this service does not read Azure's key vault; ask its operator, or use a secret of another kind"
        )
    token = known[secret.token]
    if not isinstance(token, AadTokenValue):
        raise ReleaseRefusedError(f"token names {secret.token!r}, which is not an aad-token secret")
    entry = context.fetch_vault(secret, token.text)
    return vault_value(secret, entry, key=_decryption_key(secret, known))


def _decryption_key(secret: AkvSecret, known: Mapping[str, Released]) -> bytes | None:
    if secret.decryption_key is None:
        return None
    key = known[secret.decryption_key]
    if not isinstance(key, BinaryValue):
        raise ReleaseRefusedError(f"decryption_key names {secret.decryption_key!r}, which is not a binary secret")
    return key.data


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
