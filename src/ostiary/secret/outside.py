"""What a session takes from outside for one release: imports, tokens of Azure's directory, secrets of its key vault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ostiary.errors import OutsideError, ReleaseRefusedError
from ostiary.secret.dependency import made_of
from ostiary.secret.import_value import describe_source
from ostiary.secret.value import AadTokenValue, BinaryValue, Released, Value
from ostiary.secret.vault import VaultEntry, vault_value
from ostiary.session.model import AadTokenSecret, AkvSecret, ImportedSecret, Secret, Session


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
    `session`. The result is what `renew` and `release_values` call imports, for this release and no other.
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


def missing(secret: Secret) -> ReleaseRefusedError:
    """The refusal of a secret that has no value at a release."""
    match secret:
        case ImportedSecret():
            why = (
                f"{describe_source(secret)} cannot be imported; create that session, and export the secret to this one"
            )
        case AadTokenSecret():
            why = (
                "this service does not fetch tokens of Azure's directory; ask its operator, or use a secret of another "
                "kind"
            )
        case AkvSecret():
            why = "this service does not read Azure's key vault; ask its operator, or use a secret of another kind"
        case _:
            why = "it has not been made yet, because it is made of a secret from outside that is missing"
    return ReleaseRefusedError(f"secret {secret.name!r}: {why}")


def _fetch(
    secret: ImportedSecret | AadTokenSecret | AkvSecret, known: Mapping[str, Released], sources: Sources
) -> Released:
    try:
        if isinstance(secret, ImportedSecret) and secret.name in sources.imports:
            return sources.imports[secret.name]
        if isinstance(secret, AadTokenSecret) and sources.fetch_token is not None:
            return AadTokenValue(text=sources.fetch_token(secret))
        if isinstance(secret, AkvSecret) and sources.fetch_vault is not None:
            entry = sources.fetch_vault(secret, _token(secret, known))
            return vault_value(secret, entry, key=_decryption_key(secret, known))
    except (OutsideError, ReleaseRefusedError) as error:
        raise ReleaseRefusedError(f"secret {secret.name!r}: {error.message}", *error.causes) from None
    raise missing(secret)


def _token(secret: AkvSecret, known: Mapping[str, Released]) -> str:
    token = known.get(secret.token)
    if not isinstance(token, AadTokenValue):
        raise ReleaseRefusedError(f"token names {secret.token!r}, which is not an aad-token secret")
    return token.text


def _decryption_key(secret: AkvSecret, known: Mapping[str, Released]) -> bytes | None:
    if secret.decryption_key is None:
        return None
    key = known.get(secret.decryption_key)
    if not isinstance(key, BinaryValue):
        raise ReleaseRefusedError(f"decryption_key names {secret.decryption_key!r}, which is not a binary secret")
    return key.data
