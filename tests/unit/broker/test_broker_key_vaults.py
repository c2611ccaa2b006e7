"""The way to the vault of a session: what is refused before anybody is asked. The rest needs a vault: integration."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from os import urandom

import pytest

from ostiary.broker.key_vaults import KeyVaults, has_other_credentials
from ostiary.broker.outside import Outside
from ostiary.errors import SecretUnavailableError
from ostiary.secret import AsciiValue
from ostiary.secret.azure import PUBLIC_CLOUD
from ostiary.secret.kept_entry import KeptEntry, KeptValues
from ostiary.session.model import AadTokenSecret, KeyVault, Session

AAD = AadTokenSecret(name="aad", tenant_id="t", client_id="c", application_secret="s")
HERE = KeyVault(vault="v.vault.azure.net", token="aad")
SESSION = Session(version="0.3.12", name="s", secrets=(AAD,), secret_store=HERE)
ENTRY = KeptEntry(tag=bytes(16), version="1", digest=bytes(32))
KEPT = KeptValues(key=bytes(32), entries={"word": (ENTRY,)})


@pytest.fixture
def vaults() -> KeyVaults:
    """Over a way outside that is closed: whoever goes there fails."""
    outside = Outside(PUBLIC_CLOUD, now=lambda: datetime(2026, 11, 23, tzinfo=UTC), random=urandom)
    outside.close()
    return KeyVaults(outside, random=urandom)


def test_a_service_that_ends_asks_no_more(vaults: KeyVaults) -> None:
    with pytest.raises(SecretUnavailableError, match="no token of 'aad': the service is ending"):
        asyncio.run(vaults.fetch(SESSION, bytes(32), KEPT))


def test_without_values_nobody_is_asked(vaults: KeyVaults) -> None:
    assert asyncio.run(vaults.fetch(SESSION, bytes(32), replace(KEPT, entries={}))) == {}
    assert asyncio.run(vaults.keep(SESSION, bytes(32), {})).entries == {}


def test_what_is_as_it_was_is_not_written_again(vaults: KeyVaults) -> None:
    values = {"word": AsciiValue(text="x")}
    assert asyncio.run(vaults.keep(SESSION, bytes(32), values, before=KEPT, unchanged=values)) == KEPT
    other = {"word": AsciiValue(text="y")}
    with pytest.raises(SecretUnavailableError, match="the service is ending"):
        asyncio.run(vaults.keep(SESSION, bytes(32), values, before=KEPT, unchanged=other))


def test_what_is_no_more_among_the_values_is_forgotten(vaults: KeyVaults) -> None:
    kept = asyncio.run(vaults.keep(SESSION, bytes(32), {}, before=KEPT, unchanged={"word": AsciiValue(text="x")}))
    assert kept == replace(KEPT, entries={})


def test_every_version_has_a_key_of_its_own(vaults: KeyVaults) -> None:
    one, other = (asyncio.run(vaults.keep(SESSION, bytes(32), {})) for _ in range(2))
    assert one.key != other.key


def test_a_session_without_vault_is_refused(vaults: KeyVaults) -> None:
    with pytest.raises(SecretUnavailableError, match="names no key vault"):
        asyncio.run(vaults.fetch(replace(SESSION, secret_store=None), bytes(32), KEPT))


def test_a_token_that_is_no_secret_of_the_session_is_refused(vaults: KeyVaults) -> None:
    with pytest.raises(SecretUnavailableError, match="must name a secret of kind aad-token of this session"):
        asyncio.run(vaults.fetch(replace(SESSION, secrets=()), bytes(32), KEPT))


@pytest.mark.parametrize(
    ("after", "other"),
    [
        (SESSION, False),
        (replace(SESSION, secrets=(replace(AAD, application_secret="new"),)), True),
        (replace(SESSION, secrets=(replace(AAD, client_id="new"),)), True),
        (replace(SESSION, secret_store=None), False),
        (replace(SESSION, secret_store=replace(HERE, vault="w.vault.azure.net"), secrets=()), False),
    ],
)
def test_other_credentials_count_for_the_same_vault_only(after: Session, other: bool) -> None:
    assert has_other_credentials(SESSION, after) is other
    assert not has_other_credentials(replace(SESSION, secret_store=None), after)
