"""Key vaults as the place of a session's values: written before the record that names them, verified at every use.

Source: session language, "Secret backend"; docs/adr/0028.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from ostiary.broker.outside import Outside
from ostiary.broker.session_records import VOLUME_KEY
from ostiary.errors import InputError, OutsideError, ReleaseRefusedError, SecretUnavailableError
from ostiary.secret import Value
from ostiary.secret.azure import (
    MAX_TOKEN_ANSWER_BYTES,
    MAX_VAULT_ANSWER_BYTES,
    AzureRequest,
    get_request,
    put_request,
    read_entry,
    read_token,
    token_request,
)
from ostiary.secret.kept_entry import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    KeptEntry,
    KeptValues,
    digest_of,
    entry_name,
    open_part,
    parts_of,
    seal_part,
    value_of,
)
from ostiary.secret.vault import VaultEntry
from ostiary.session.model import AadTokenSecret, KeyVault, Session

MAX_ENTRIES = 256
"""Entries of one session version: each costs a request at every operation on the session."""
MAX_VAULT_SECONDS = 30.0
"""For everything that one operation asks of a session's vault, waiting for its turn included."""

_Thing = TypeVar("_Thing")


class KeyVaults:
    """Writes and reads values in the vaults that sessions name. Holds nothing from one operation to the next."""

    def __init__(self, outside: Outside, *, random: Callable[[int], bytes]) -> None:
        self._outside = outside
        self._random = random

    async def fetch(self, session: Session, session_hash: bytes, kept: KeptValues) -> dict[str, Value]:
        """All values of a version, from the vault of `session`, by its token.

        Guarantees: each is what the service wrote last. Raises SecretUnavailableError whose message names the first
        that is not, and whose causes say why. Without values nothing is asked.
        """
        if not kept.entries:
            return {}
        store = _store_of(session)
        end = time.monotonic() + MAX_VAULT_SECONDS
        token = await self._token(session, store, end)

        async def fetch_part(entry: KeptEntry) -> bytes:
            named = entry_name(session_hash, entry.tag)
            found = await self._get(session, store.vault, named, token, end)
            return open_part(found, entry, key=kept.key, entry=named)

        async def fetch_value(name: str, entries: Sequence[KeptEntry]) -> Value:
            return value_of(name, await _all([fetch_part(entry) for entry in entries]))

        return await _each(session, kept.entries, fetch_value)

    async def keep(
        self,
        session: Session,
        session_hash: bytes,
        values: Mapping[str, Value],
        *,
        before: KeptValues | None = None,
        unchanged: Mapping[str, Value] | None = None,
    ) -> KeptValues:
        """Write `values` into the vault of `session`, and read them back.

        before, unchanged: of the same version of the session, for values of which some were made anew; the entries of
        those that are equal in `unchanged` stay.
        Guarantees: the vault holds every value of the result, in the version that it gave it, and gives it back. Until
        a record names the result, nobody knows of it: entries that were written in vain can be read by nobody.
        Raises InputError: over MAX_ENTRIES; SecretUnavailableError as `fetch`.
        """
        old = {} if before is None else before.entries
        stays = {name: old[name] for name in old if name in values and values[name] == (unchanged or {}).get(name)}
        parts = {name: parts_of(name, value) for name, value in values.items() if name not in stays}
        count = sum(map(len, parts.values())) + sum(map(len, stays.values()))
        if count > MAX_ENTRIES:
            raise InputError(
                f"the values of session {session.name} need {count} entries in its key vault, one for 16 KiB of each, "
                f"expected at most {MAX_ENTRIES}; use several sessions"
            )
        key = self._random(KEY_BYTES) if before is None else before.key
        if not parts:
            return KeptValues(key=key, entries=stays)
        store = _store_of(session)
        end = time.monotonic() + MAX_VAULT_SECONDS
        token = await self._token(session, store, end)

        async def keep_part(part: bytes) -> KeptEntry:
            tag = self._random(TAG_BYTES)
            named = entry_name(session_hash, tag)
            text = seal_part(part, key=key, entry=named, nonce=self._random(NONCE_BYTES))
            outside = self._outside
            written = await self._ask(session, put_request(store.vault, named, text, outside.cloud, token), end)
            if not written.version:
                raise OutsideError("the key vault wrote an entry and did not say which version that is")
            entry = KeptEntry(tag=tag, version=written.version, digest=digest_of(text))
            open_part(await self._get(session, store.vault, named, token, end), entry, key=key, entry=named)
            return entry

        async def keep_value(_: str, pieces: Sequence[bytes]) -> tuple[KeptEntry, ...]:
            return tuple(await _all([keep_part(piece) for piece in pieces]))

        return KeptValues(key=key, entries=stays | await _each(session, parts, keep_value))

    async def _token(self, session: Session, store: KeyVault, end: float) -> str:
        secret = _credentials(session)
        refused = f"the key vault of session {session.name} cannot be asked: no token of {store.token!r}"
        if secret is None:
            raise SecretUnavailableError(refused, "store_in.token must name a secret of kind aad-token of this session")
        outside = self._outside

        def ask() -> str:
            request = token_request(secret, outside.cloud, now=outside.now(), random=outside.random)
            return read_token(outside.ask(request, end=end, max_bytes=MAX_TOKEN_ANSWER_BYTES))

        try:
            return await outside.run(session.name, ask, seconds=end - time.monotonic())
        except (OutsideError, ReleaseRefusedError) as error:
            raise SecretUnavailableError(refused, *error.chain) from None

    async def _get(self, session: Session, vault: str, name: str, token: str, end: float) -> VaultEntry:
        return await self._ask(session, get_request(vault, name, self._outside.cloud, token), end)

    async def _ask(self, session: Session, request: AzureRequest, end: float) -> VaultEntry:
        outside = self._outside

        def ask() -> VaultEntry:
            return read_entry(outside.ask(request, end=end, max_bytes=MAX_VAULT_ANSWER_BYTES))

        return await outside.run(session.name, ask, seconds=end - time.monotonic())


def _described(name: str) -> str:
    """What people call a value by its name among those that are kept."""
    if name.startswith(VOLUME_KEY):
        return f"the key of volume {name.removeprefix(VOLUME_KEY)!r}"
    return f"secret {name!r}"


def has_other_credentials(before: Session, after: Session) -> bool:
    """Whether the values of both versions lie in one vault, and `after` asks it with other credentials."""
    one, other = before.secret_store, after.secret_store
    one_vault = one is not None and other is not None and one.vault == other.vault
    return one_vault and _credentials(before) != _credentials(after)


def _credentials(session: Session) -> AadTokenSecret | None:
    named = None if session.secret_store is None else session.secret_store.token
    tokens = (secret for secret in session.secrets if isinstance(secret, AadTokenSecret))
    return next((secret for secret in tokens if secret.name == named), None)


def _store_of(session: Session) -> KeyVault:
    if session.secret_store is None:
        raise SecretUnavailableError(f"session {session.name} names no key vault, and its values lie in one")
    return session.secret_store


_From = TypeVar("_From")


async def _each(
    session: Session, things: Mapping[str, _From], work: Callable[[str, _From], Awaitable[_Thing]]
) -> dict[str, _Thing]:
    """What `work` makes of each, by name. Raises SecretUnavailableError naming the first that failed."""

    async def one(name: str, thing: _From) -> _Thing:
        try:
            return await work(name, thing)
        except (OutsideError, ReleaseRefusedError) as error:
            raise SecretUnavailableError(
                f"{_described(name)} of session {session.name} cannot be had from its key vault", *error.chain
            ) from None

    return dict(zip(things, await _all([one(name, thing) for name, thing in things.items()]), strict=True))


async def _all(work: Sequence[Awaitable[_Thing]]) -> list[_Thing]:
    """What all of them return, in their order; none is left running. Raises what the first of them raised."""
    done = await asyncio.gather(*work, return_exceptions=True)
    results: list[_Thing] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
