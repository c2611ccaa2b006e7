"""What a session takes from outside for one release: imports, tokens of Azure's directory, secrets of its key vault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ostiary.errors import OutsideError, ReleaseRefusedError
from ostiary.secret.dependency import made_of
from ostiary.secret.import_value import describe_source
from ostiary.secret.value import AadTokenValue, BinaryValue, Released, Value
from ostiary.secret.vault import VaultEntry, vault_value
from ostiary.session.model import AadTokenSecret, AkvSecret, ImportedSecret, Session


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where values from outside come from.

    imports: values of imported secrets by their names here, as `import_value` admitted them.
    fetch_token: asks Azure's directory for the token of a secret; fetch_vault: asks the key vault, with such a token,
    for what it holds. Both may raise OutsideError; None where the operator configured no way to reach them.
    """

    imports: Mapping[str, Released] = field(default_factory=dict, repr=False)
    fetch_token: Callable[[AadTokenSecret], str] | None = None
    fetch_vault: Callable[[AkvSecret, str], VaultEntry] | None = None


def fetch_outside(
    session: Session, values: Mapping[str, Value], wanted: Collection[str], sources: Sources
) -> dict[str, Released]:
    """The values from outside, by name, that the secrets `wanted` are or are made of; no other is asked for.

    values: the stored values; a key that decrypts what a vault holds may be among them. wanted: names of secrets of
    `session`. The result is for `renew` and `release_values`, and for nothing after this release.
    Raises ReleaseRefusedError naming the secret: an import that is not in `sources`, a token or key vault that no way
    leads to or that fails, a value that is not what the session expects.
    """
    secrets = {secret.name: secret for secret in session.secrets}
    outside: dict[str, Released] = {}
    known: dict[str, Released] = dict(values)
    for name in made_of(secrets, wanted):
        secret = secrets[name]
        if isinstance(secret, ImportedSecret | AadTokenSecret | AkvSecret):
            known[name] = outside[name] = _fetch(secret, known, sources)
    return outside


def _fetch(
    secret: ImportedSecret | AadTokenSecret | AkvSecret, known: Mapping[str, Released], sources: Sources
) -> Released:
    try:
        if isinstance(secret, ImportedSecret):
            return _imported(secret, sources)
        if isinstance(secret, AadTokenSecret):
            return _aad_token(secret, sources)
        return _from_vault(secret, known, sources)
    except (OutsideError, ReleaseRefusedError) as error:
        raise ReleaseRefusedError(f"secret {secret.name!r}: {error.message}", *error.causes) from None


def _imported(secret: ImportedSecret, sources: Sources) -> Released:
    if secret.name not in sources.imports:
        raise ReleaseRefusedError(
            f"{describe_source(secret)} cannot be imported; let that session exist and export the secret to this one"
        )
    return sources.imports[secret.name]


def _aad_token(secret: AadTokenSecret, sources: Sources) -> AadTokenValue:
    if sources.fetch_token is None:
        raise ReleaseRefusedError(
            "this service does not fetch tokens of Azure's directory; ask its operator, or use a secret of another kind"
        )
    return AadTokenValue(text=sources.fetch_token(secret))


def _from_vault(secret: AkvSecret, known: Mapping[str, Released], sources: Sources) -> Value:
    if sources.fetch_vault is None:
        raise ReleaseRefusedError(
            "this service does not read Azure's key vault; ask its operator, or use a secret of another kind"
        )
    token = known.get(secret.token)
    if not isinstance(token, AadTokenValue):
        raise ReleaseRefusedError(f"token names {secret.token!r}, which is not an aad-token secret")
    entry = sources.fetch_vault(secret, token.text)
    return vault_value(secret, entry, key=_decryption_key(secret, known))


def _decryption_key(secret: AkvSecret, known: Mapping[str, Released]) -> bytes | None:
    if secret.decryption_key is None:
        return None
    key = known.get(secret.decryption_key)
    if not isinstance(key, BinaryValue):
        raise ReleaseRefusedError(f"decryption_key names {secret.decryption_key!r}, which is not a binary secret")
    return key.data
